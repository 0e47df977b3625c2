"""`ablate run --executor slurm`, or a site of `executors.yaml`: the plan's parts as jobs of an engine, followed or left to it."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from ablation.commands.options import Options
from ablation.commands.running import shown
from ablation.commands.session import Session
from ablation.errors import AblateError
from ablation.formatting import counted
from ablation.planning.plan import Plan
from ablation.planning.workspace import Workspace
from ablation.running.executors.batch import note_used
from ablation.running.executors.engines import alive_jobs, end_jobs, engine_of_site, is_alive
from ablation.running.executors.sites import BatchSite, SlurmSite
from ablation.running.outcomes import Outcome, Record
from ablation.running.parts import pinning
from ablation.running.parts import split as splits
from ablation.running.parts.engine import Engine
from ablation.running.parts.following import follow, submit
from ablation.running.parts.split import Split
from ablation.running.progress import ProgressState
from ablation.study.task import EVERY_EPOCH
from ablation.tracking.database import at_work
from ablation.training.planned_device import device_name


def refuse_beside_jobs(plan: Plan, session: Session) -> None:
    """Raise AblateError if jobs of the study are at work, and this command would train what they train, or delete what they do."""
    if isinstance(session.site, BatchSite):
        note_used(session.site.model_dump())  # by this command
    is_forced = session.options.rerun == "force"
    if not is_forced and (session.site is not None or not plan.waiting):
        return
    for split in splits.splits(session.workspace.parts, plan.study.name):
        if is_forced or _is_known_alive(split):
            _refuse(split, "would delete what they do" if is_forced else "without --executor would train the same")


def _refuse(split: Split, why: str) -> None:
    if jobs := alive_jobs(split):
        told = f"parts of {split.study} are at work (job {', '.join(sorted(jobs))}), and this command {why}; nothing was begun"
        raise AblateError(f"{told}; --executor follows them, ablate cancel ends them")


def _is_known_alive(split: Split) -> bool:
    """Whether jobs are at work for all that is known here: a copy of the folder may lie where there is no queue."""
    with contextlib.suppress(AblateError):
        return is_alive(split)
    return False


def split_of(plan: Plan, session: Session, site: SlurmSite | BatchSite) -> Split:
    """The split that is followed: one that has all that is to be done, if its jobs are at work or it still has as many parts as a new one.

    Raises AblateError while jobs of another plan of the study are at work.
    """
    device, parts = device_name(session.devices[0]), session.workspace.parts
    alive = [split for split in splits.splits(parts, plan.study.name) if is_alive(split)]
    for split in pinning.covering(parts, plan, device):
        if split in alive:
            return split
    if alive:
        jobs = ", ".join(sorted(alive_jobs(alive[-1])))
        raise AblateError(
            f"parts of an earlier plan of {plan.study.name} are at work (job {jobs}), and nothing was submitted; ablate cancel ends them, "
            "or run this again once they have ended"
        )
    waiting = [run for run in plan.waiting if run.choice is None]
    keys, trees = {run.key for run in waiting}, {plan.lineage(run)[0].job.key for run in waiting}
    num_parts = min(site.parts, len(trees))
    for split in pinning.covering(parts, plan, device):  # its logs know more than the folders: who has failed
        if split.jobs and sum(not keys.isdisjoint(share) for share in split.shares) >= num_parts:
            return split
    return pinning.pinned(parts, plan, num_parts, device, session.options.arms, session.options.seeds)


def _engine_for(plan: Plan, session: Session, site: SlurmSite | BatchSite, split: Split) -> Engine:
    """The engine of a site, whose jobs select arms and seeds as the split does, and compute what this plan wants of it.

    What jobs that are at work were to compute stays wanted, too.
    """
    waiting = {run.key for run in plan.waiting if run.choice is None}
    split.want(waiting | split.wanted if split.jobs and is_alive(split) else waiting)
    options = replace(session.options, arms=split.arms, seeds=split.seeds)
    return engine_of_site(site, part_words(options, site), split)


def tidy_splits(plan: Plan, workspace: Workspace) -> None:
    """Delete the splits of which all runs are recorded, as all of this plan are, and all jobs have ended; and how far parts had come."""
    recorded = {key for run in plan.runs for key in (run.key, run.used_key)}
    running = at_work(workspace.root, plan.study.name)
    for path in (workspace.root / "status").glob(f"{escape(plan.study.name)}.part-*.json"):
        if path.stem not in running:
            path.unlink(missing_ok=True)
    for split in splits.splits(workspace.parts, plan.study.name):
        with contextlib.suppress(AblateError):  # nobody knows of its jobs
            if all(key in recorded for keys in split.shares for key in keys) and not is_alive(split):
                splits.delete(split.folder)


def forget_splits(plan: Plan, parts: Path) -> None:
    """Delete the splits with runs that are computed again: what their logs tell of these is no longer true. No job of them is at work."""
    keys = {run.key for run in plan.waiting}
    for split in splits.splits(parts, plan.study.name):
        if any(not keys.isdisjoint(share) for share in split.shares):
            splits.delete(split.folder)


def failed_before(known_runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """key of a run that is recorded as failed, also as one that was killed -> when, in seconds since 1970."""
    failed = [run for run in known_runs if run["status"] in ("FAILED", "KILLED") and run["tags"].get("ablation.kind") == "run"]
    return {run["tags"]["ablation.key"]: int(run["end"]) / 1000 for run in reversed(failed)}


def submit_parts(plan: Plan, session: Session, site: SlurmSite | BatchSite, failed: Mapping[str, float]) -> None:
    """Submit what has no job yet, and say in a sentence what was submitted, and how it goes on."""
    split = split_of(plan, session, site)
    before = len(split.jobs.get("submitted", []))
    numbers = submit(plan, split, _engine_for(plan, session, site, split), failed)
    how = "the same command without --detach records them"
    if numbers:
        jobs = ", ".join(submitted["id"] for submitted in split.jobs["submitted"][before:])
        parts = f"{counted(len(numbers), 'part')} of {plan.study.name} submitted (job {jobs})"
        told = f"{parts}; ablate status shows them, ablate cancel ends them, and {how}"
    elif is_alive(split):
        told = f"all parts are at work already; ablate status shows them, and {how}"
    else:
        told = f"all parts have ended; {how}"
    session.tell(told)


def follow_parts(
    plan: Plan, session: Session, site: SlurmSite | BatchSite, record: Record, state: ProgressState, failed: Mapping[str, float]
) -> tuple[Outcome, bool]:
    """Have the parts carried out, and follow them; return the outcome, and whether the user stopped it.

    Stopped at once, the jobs are ended. `failed` is that of `failed_before`.
    """
    split = split_of(plan, session, site)
    engine = _engine_for(plan, session, site, split)
    try:
        with shown(plan, session, state) as (view, should_stop):
            outcome = follow(plan, split, engine, record, view, should_stop=should_stop, failed=failed, poll=site.poll)
            return outcome, should_stop()
    except KeyboardInterrupt:
        try:
            end_jobs(split)
        except AblateError as error:
            session.tell(f"jobs may go on: {error}; ablate cancel tries again")
        raise


def part_words(options: Options, site: SlurmSite | BatchSite) -> list[str]:
    """The words of the command of every part, without --part."""
    words = ["run", str(options.file.resolve())]
    words += ["--profile", options.profile] if options.profile else []
    words += [word for arm in options.arms for word in ("--arm", arm)]
    words += [word for seed in options.seeds for word in ("--seed", str(seed))]
    words += [word for path, value in options.sets for word in ("--set", f"{path}={json.dumps(value)}")]
    words += ["--device", options.device if options.device != "auto" else site.device]
    jobs = options.jobs or site.jobs
    words += ["--jobs", str(jobs)] if jobs else []
    words += ["--allow-code"] if options.allow_code else []
    interval = options.checkpoint_interval
    if interval != EVERY_EPOCH:
        words += ["--save-every", f"{interval.seconds:g}s" if interval.seconds else str(interval.epochs)]
    return words
