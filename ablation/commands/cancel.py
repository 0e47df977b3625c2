"""`ablate cancel`: end the jobs that `ablate run` submitted to a queue."""

from pathlib import Path

from ablation.commands.exit_codes import DONE
from ablation.commands.recorded import study_of_file
from ablation.planning.workspace import Workspace
from ablation.running.executors.engines import engine_of_split, is_alive, job_ids
from ablation.running.parts.split import splits


def cancel(file: Path | None, profile: str | None) -> int:
    """End the jobs of one study, or of all studies here, from any machine that sees the folder."""
    study = study_of_file(file, profile) if file else ""
    num_ended = 0
    for split in splits(Workspace(Path("mlruns").resolve()).parts, study):
        engine, jobs = engine_of_split(split), job_ids(split)
        if engine is not None and is_alive(split):
            split.ask_to_stop()
            engine.cancel(jobs)
            print(f"{split.study}: ended (job {', '.join(sorted(jobs))}); the same ablate run goes on from the last checkpoints")
            num_ended += 1
    if not num_ended:
        print("no job is waiting or running here")
    return DONE
