"""`ablate run --part I/N`: one part of a study, beside others on this machine or elsewhere; the results lie in the shared folder."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ablation.commands.exit_codes import DONE, FAILED, INTERRUPTED, REFUSED
from ablation.commands.last_run import note_last_run
from ablation.commands.options import Options, Part
from ablation.commands.running import NEXT_STEPS, failure_lines, shown, stop_if_stale, study_lock, up_to_date, with_interval
from ablation.commands.session import Session
from ablation.errors import AblateError, ConfigError
from ablation.formatting import counted, duration
from ablation.planning.cost import wall_seconds
from ablation.planning.plan import Plan
from ablation.running.executors import start_executor
from ablation.running.outcomes import Outcome
from ablation.running.parts import pinning
from ablation.running.parts import split as splits
from ablation.running.parts.log import PartLog, num_in_vain
from ablation.running.parts.script import PART_SPLIT as SPLIT
from ablation.running.parts.script import RESTARTS
from ablation.running.parts.split import Split
from ablation.running.progress import ProgressState, Results
from ablation.running.recorder.provenance import tell_workers
from ablation.running.recorder.recorder import Recorder
from ablation.running.scheduler import Executor, execute
from ablation.study.task import DEFAULT, EVERY_EPOCH
from ablation.system import signals
from ablation.system.fencing import ATTEMPT, OWNER
from ablation.system.invocation import command_line, command_to_go_on, command_without_part
from ablation.tracking.store import Store
from ablation.training.planned_device import device_name

MOST_RESTARTS = 5  # times in a row that the engine begins a job again of which nothing came


def run_part(options: Options, part: Part) -> int:
    """Carry out one part of a study; with --record, record it when it ends."""
    if options.rerun == "force":
        raise ConfigError("--part", "found --rerun force, which would delete what other parts have done; expected it without --part")
    if options.is_detached:
        raise ConfigError("--detach", "found it with --part, which is carried out here; expected --executor slurm, or no --part")
    if options.executor != "local":
        raise ConfigError("--part", f"found it with --executor {options.executor}, which makes parts itself; expected one of the two")
    if not is_submitted():
        return _run_part(options, part, None)
    log = PartLog(splits.read(Path(os.environ[SPLIT])).folder, part.number)
    log.begin()
    try:
        _refuse_in_vain(log)
        return _run_part(options, part, log)
    except AblateError as error:
        log.end(REFUSED, str(error))
        raise
    except KeyboardInterrupt:  # such as a time limit that comes while the study is read
        log.end(INTERRUPTED)
        raise
    except Exception as error:
        log.end(FAILED, f"{type(error).__name__}: {error}")
        raise


def is_submitted() -> bool:
    """Whether an engine started this part: else a user did, and no ablate cancel concerns it."""
    return bool(os.environ.get(SPLIT))


def _refuse_in_vain(log: PartLog) -> None:
    """Raise AblateError if the engine has begun this job again and again, and nothing came of it: its time is too short."""
    restarts = int(os.environ.get(RESTARTS) or 0)
    if min(restarts, num_in_vain(log.folder, log.part, log.attempt)) >= MOST_RESTARTS:
        raise AblateError(
            f"part {log.part} was begun {MOST_RESTARTS} times and had to end each time before anything new came of it; expected a longer "
            "time limit, or an earlier warning, such as sbatch: {time: '4:00:00', signal: 'B:USR1@300'}"
        )


def _run_part(options: Options, part: Part, log: PartLog | None) -> int:
    """Carry it out; a `log` is there already where an engine started the part."""
    session = checked_session(options, Console(stderr=True))
    lock = study_lock(session.workspace, session.study.name, session.console, is_awaited=log is None)
    with lock as has_waited, contextlib.ExitStack() as exit_stack:
        with signals.interruptible():
            session = up_to_date(session, has_waited=has_waited)
            split, plan = _as_submitted(session, part) if log else _as_it_is(session, part)
            plan = with_interval(plan, options.checkpoint_interval)
            if log is None:
                log = PartLog(split.folder, part.number)
                log.begin()
            for run in plan.runs:  # what an earlier attempt has computed, which may not have come to say so
                if not run.needed:
                    log.finished(run)
            exit_stack.enter_context(_named(f"{split.name}/part-{part.number}", log.attempt))
            session.tell(_summary(plan, part, session.num_slots))
            outcome, stopped = Outcome(), False
            if plan.waiting:
                devices = [str(device) for device in session.devices]
                tell_workers(session.study.folder)
                executor = start_executor("local", devices, session.jobs_per_device, session.task.name)
                exit_stack.callback(executor.close)
                waiting = {run.arm for run in plan.waiting}
                session.preparation.check_starts([arm for arm in session.arms if arm.name in waiting], plan.seeds[0])
        state = ProgressState(plan, session.num_slots, Results(plan, session.workspace.results, {}))
        if plan.waiting:
            outcome, stopped = _execute(plan, session, executor, split, log, state)
        status = _status(outcome)
        log.end(status, outcome.why)
    recorded = _record(options) if options.records_part else ""
    _print_outcome(session, part, outcome, recorded, is_stopped=stopped)
    return status


def checked_session(options: Options, console: Console) -> Session:
    """The session, once nothing is found that would stop a run or a part of it at its start."""
    session = Session(options, console)
    if options.checkpoint_interval != EVERY_EPOCH and session.task.name != DEFAULT:
        raise ConfigError("--save-every", "is for image classification; expected none: training code of one's own saves when it likes")
    session.check()
    return session


@contextlib.contextmanager
def _named(owner: str, attempt: int) -> Iterator[None]:
    """Let what this process and its workers do meanwhile be this attempt at the owner's work."""
    before = {name: os.environ.get(name) for name in (OWNER, ATTEMPT)}
    os.environ |= {OWNER: owner, ATTEMPT: str(attempt)}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {name: value} if value is not None else {}


def _status(outcome: Outcome) -> int:
    """The exit status; 130 has a submitted part begin again, which one must not that another attempt has taken over."""
    if outcome.left and outcome.why and is_submitted():
        return FAILED
    return INTERRUPTED if outcome.left else FAILED if outcome.failed else DONE


# --- what the part is ------------------------------------------------------------------------------------------------------------


def _as_submitted(session: Session, part: Part) -> tuple[Split, Plan]:
    """The part as it was planned where it was submitted; raises AblateError if it would come out otherwise here."""
    split = splits.read(Path(os.environ[SPLIT]))
    device = device_name(session.devices[0])
    if split.device != device:
        expected = f"expected device_name: {device!r} for this site in executors.yaml, if all its machines have that"
        raise AblateError(f"the study was planned for {split.device!r}, and this machine has {device!r}, on which bits depend; {expected}")
    if part.of != len(split.shares):
        raise ConfigError("--part", f"found {part.number}/{part.of}; expected one of {len(split.shares)} parts, as {split.folder} has them")
    wanted = split.wanted
    keys = tuple(key for key in split.shares[part.number - 1] if key in wanted)
    plan = session.plan((), probe=False, only=keys)
    if unknown := set(keys) - {run.key for run in plan.runs}:
        cause = "the file, the code, the data or versions of packages are others here, or were changed since it was submitted"
        raise AblateError(f"{len(unknown)} of the {len(keys)} runs of part {part.number} are not those that were planned: {cause}")
    return split, _restricted(plan, keys)


def _as_it_is(session: Session, part: Part) -> tuple[Split, Plan]:
    """The part of the study as the store and the folders have it."""
    note_last_run(session.workspace.root, session.options.file, session.options.profile, session.study.name)
    known_runs, _ = session.known_runs(Store.open(make=False)) if Store.is_there() else ((), ())
    whole = session.plan(known_runs, probe=False)
    stop_if_stale(whole, session.options.rerun)
    parts, device = session.workspace.parts, device_name(session.devices[0])
    if others := sorted({len(split.shares) for split in pinning.covering(parts, whole, device)} - {part.of}):
        counts = " and into ".join(map(str, others))
        session.tell(f"{session.study.name}: it is also split into {counts} parts here, with other shares; name one number in all parts")
    split = pinning.pinned(parts, whole, part.of, device, session.options.arms, session.options.seeds)
    keys = split.shares[part.number - 1]
    return split, _restricted(session.plan(known_runs, probe=False, only=keys), keys)


def _restricted(plan: Plan, keys: tuple[str, ...]) -> Plan:
    """The plan with no other runs than those of the part."""
    return replace(plan, runs=tuple(run for run in plan.runs if run.key in keys and run.choice is None), others=())


def _summary(plan: Plan, part: Part, num_slots: int) -> str:
    """`digits: part 3 of 8 has 18 runs (4 computed already): 12 stages, about 5 min with 2 at once`."""
    words, computed = plan.study.task.words, len(plan.runs) - len(plan.waiting)
    already = f" ({computed} computed already)" if computed else ""
    head = f"{plan.study.name}: part {part.number} of {part.of} has {counted(len(plan.runs), 'run')}{already}"
    if not plan.waiting:
        return f"{head}; nothing is to be done"
    seconds = wall_seconds(plan, num_slots)
    time = f", about {duration(seconds)}" if seconds else ""
    todo = sum(node.state != "done" for node in plan.nodes.values())
    return f"{head}; {words.to_do}: {counted(todo, words.part)}{time} with {num_slots} at once"


# --- carrying it out -------------------------------------------------------------------------------------------------------------


def _execute(plan: Plan, session: Session, executor: Executor, split: Split, log: PartLog, state: ProgressState) -> tuple[Outcome, bool]:
    """Train and test what the part lacks, all of it told in its log; return the outcome, and whether it was asked to stop."""
    with shown(plan, session, state) as (show, is_asked):

        def view(event: dict[str, Any]) -> None:
            log(event)
            show(event)

        def should_stop() -> bool:
            return bool(is_asked() or (is_submitted() and split.is_stopped))

        budget, packing = session.options.budget, session.packing
        outcome = execute(plan, executor, log, view, should_stop=should_stop, budget=budget, packing=packing)
        return outcome, should_stop()


def _record(options: Options) -> str:
    """Record what is computed of the study so far, by whatever part; returns how much that is, in words."""
    session = Session(replace(options, part=None), Console(stderr=True))
    with study_lock(session.workspace, session.study.name, session.console):
        store = Store.open(study=session.study.name)
        known_runs, _ = session.known_runs(store)
        plan = session.plan(known_runs, probe=False)
        recorder = Recorder(store, plan, session.preparation.planner, session.workspace, command_line(), session.tell)
        recorder.begin(known_runs)
        for run in plan.runs:
            if run.state == "evaluated":
                recorder.finished(run)
        recorder.close()
    if recorder.problems:
        raise AblateError(f"the results lie in {session.workspace.results}, but were not recorded: {recorder.problems[0]}")
    num_recorded = sum(run.state in ("done", "evaluated") for run in plan.runs)
    return f"{num_recorded} of the {counted(len(plan.runs), 'run')} of {plan.study.name} are recorded"


def _print_outcome(session: Session, part: Part, outcome: Outcome, recorded: str, *, is_stopped: bool) -> None:
    """Print what failed, and how it goes on."""
    for line in failure_lines(outcome.failed, NEXT_STEPS | dict(session.task.words.next_steps)):
        session.tell(line)
    if outcome.left:
        why = "stopped" if is_stopped else outcome.why or "the budget is used up"
        left = f"{counted(len(outcome.left), 'run')} of part {part.number} {'is' if len(outcome.left) == 1 else 'are'}"
        session.tell(f"{why}; {left} left. To go on: {command_to_go_on()}")
    else:
        told = (
            f"{recorded}; once all parts have ended, {command_without_part()} records the rest"
            if recorded
            else f"once all have, {command_without_part()} records them"
        )
        session.tell(f"part {part.number} of {part.of} has ended; {told}")
