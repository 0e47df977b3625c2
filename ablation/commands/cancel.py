"""`ablate cancel`: end the jobs that `ablate run` submitted to a queue."""

from pathlib import Path

from ablation.commands.exit_codes import DONE
from ablation.commands.recorded import profile_last_run, study_of_file
from ablation.errors import AblateError
from ablation.planning.workspace import Workspace
from ablation.running.executors.engines import end_jobs
from ablation.running.parts.split import splits


def cancel(file: Path | None, profile: str | None) -> int:
    """End the jobs of one study, or of all studies here, from any machine that sees the folder."""
    study = study_of_file(file, profile) if file else profile_last_run(profile) if profile is not None else ""
    problems, num_ended = [], 0
    for split in splits(Workspace(Path("mlruns").resolve()).parts, study):
        try:
            jobs = end_jobs(split)
        except AblateError as error:  # others may be of another queue, or of another user
            problems.append(str(error))
            continue
        if jobs:
            print(f"{split.study}: ended (job {', '.join(sorted(jobs))}); the same ablate run goes on from the last checkpoints")
            num_ended += 1
    if problems:
        raise AblateError("; ".join(problems))
    if not num_ended:
        print("no job is waiting or running here")
    return DONE
