"""The engine of a site, and that of a split that was submitted before."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.errors import AblateError, ConfigError
from ablation.running.executors.batch import BatchEngine, note_used, was_used
from ablation.running.executors.slurm import SlurmEngine
from ablation.running.parts.engine import ALIVE, Engine
from ablation.running.parts.script import PartCommand
from ablation.running.parts.split import Split

if TYPE_CHECKING:
    from ablation.running.executors.sites import BatchSite, SlurmSite


def engine_of_site(site: "SlurmSite | BatchSite", words: Sequence[str], split: Split) -> Engine:
    """The engine that submits parts of a split; `words` are those of `ablate` for each of them, without --part."""
    command = PartCommand(Path.cwd(), [site.python or sys.executable, "-m", "ablation", *words], site.setup)
    if site.kind == "slurm":
        return SlurmEngine(site.sbatch, command, split)
    settings = site.model_dump()
    note_used(settings)
    return BatchEngine(settings, command, split)


def engine_of_split(split: Split) -> Engine | None:
    """The engine that a split was submitted to, to look at its jobs and end them; None if it never was."""
    jobs = split.jobs
    if not jobs:
        return None
    if jobs["kind"] == "slurm":
        return SlurmEngine({}, None, split)
    if jobs["kind"] == "batch" and not was_used(jobs):
        told = f"found the commands of a queue that you have not used yet ({jobs['list']}), and none of them was carried out"
        raise ConfigError(str(split.folder), f"{told}; ablate run FILE --executor NAME, with the site that has them, makes them known")
    if jobs["kind"] == "batch":
        return BatchEngine(jobs, None, split)
    raise ConfigError(str(split.folder), f"found jobs of the kind {jobs['kind']!r}; expected slurm or batch")


def job_ids(split: Split) -> set[str]:
    """The ids of all jobs that were submitted of a split."""
    return {submitted["id"] for submitted in split.jobs.get("submitted", [])}


def alive_jobs(split: Split) -> set[str]:
    """The ids of the split's jobs that wait or run; raises AblateError if the queue does not answer."""
    engine, jobs = engine_of_split(split), job_ids(split)
    if engine is None:
        return set()
    states = engine.states(jobs)
    if states is None:
        raise AblateError(
            f"the queue does not answer, so nobody knows whether parts of {split.study} are at work (job {', '.join(sorted(jobs))})"
        )
    return {job for (job, _), state in states.items() if state.state in ALIVE}


def is_alive(split: Split) -> bool:
    """Whether a job of the split waits or runs; raises AblateError if the queue does not answer."""
    return bool(alive_jobs(split))


def end_jobs(split: Split) -> set[str]:
    """End all jobs of the split that wait or run, and have its parts end in any case; their ids. Raises AblateError if some may live on."""
    if not split.jobs:
        return set()
    problem = split.ask_to_stop()
    jobs = alive_jobs(split)
    if jobs and (engine := engine_of_split(split)):
        engine.cancel(jobs)
    elif problem:
        raise AblateError(problem)
    return jobs
