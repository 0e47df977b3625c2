"""`ablate run`: do what the plan lacks, record it, and print the table."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from ablation import report
from ablation.commands.exit_codes import DONE, FAILED, INTERRUPTED
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.errors import AblateError, StoreError
from ablation.formatting import ranges
from ablation.planning import explain
from ablation.planning.cost import wall_seconds
from ablation.planning.plan import Plan
from ablation.planning.workspace import Workspace
from ablation.running.executors.local import LocalExecutor
from ablation.running.messages import RunMessages
from ablation.running.progress import ProgressState, Results, Values, View, progress_display
from ablation.running.recorder.recorder import Recorder
from ablation.running.scheduler import Failure, Outcome, execute
from ablation.study.task import CheckpointInterval
from ablation.system import signals
from ablation.system.invocation import command_line, command_to_go_on
from ablation.tracking.store import Recorded, Store

DAY = 24 * 3600


def run(options: Options) -> int:
    """Run what the plan lacks, record it, and print the table."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    with _alone(session.workspace, session.study.name, console), contextlib.ExitStack() as stack:
        with signals.interruptible():
            store = Store.open()
            known = store.runs_of(session.study.name)
            plan, executor = session.plan(known, probe=False), None
            _stop_if_stale(plan)
            if plan.waiting:
                executor = LocalExecutor([str(device) for device in session.devices], session.jobs_per_device, session.task.name)
                stack.callback(executor.close)  # its workers import while models are made here
                waiting = {run.arm for run in plan.waiting}
                session.preparation.check_starts([arm for arm in session.arms if arm.name in waiting], plan.seeds[0])
                plan = session.plan(known, probe=True)
        planner = session.preparation.planner
        console.print(explain.summary(plan, planner, session.num_slots), markup=False, highlight=False, soft_wrap=True)
        _stop_if_long(plan, session)
        if options.rerun == "force":
            session.force(plan)
        plan = _with_interval(plan, options.checkpoint_interval)
        recorder = Recorder(store, plan, planner, session.workspace, command_line())
        recorder.begin(known)
        for run_ in plan.runs:
            if run_.state == "evaluated":
                recorder.finished(run_)
        state = ProgressState(plan, session.num_slots, Results(plan, session.workspace.results, _recorded_values(plan, known)))
        outcome, stopped = _carry_out(plan, session, executor, recorder, state) if executor else (Outcome(), False)
        is_written = _close(recorder, session)
        outcome.failed.extend(Failure(run_, "data", reason) for run_, reason in recorder.refused)
        is_unchanged = all(run_.state == "done" for run_ in plan.runs)
        try:
            status = _tell(plan, outcome, stopped, session, store.recorded(session.study.name, known if is_unchanged else ()))
        except StoreError:
            if is_written:
                raise
            status = FAILED  # the store did not even take the plan, which was said above
        return status if is_written else max(status, FAILED)


def _with_interval(plan: Plan, interval: CheckpointInterval) -> Plan:
    """The plan, its jobs writing checkpoints that often."""
    nodes = plan.nodes.items()
    return replace(plan, nodes={key: replace(node, job=replace(node.job, checkpoint_interval=interval)) for key, node in nodes})


def _recorded_values(plan: Plan, known: Sequence[Mapping[str, Any]]) -> Values:
    """The metrics of the plan's runs that are recorded."""
    wanted = {(run.arm, run.seed, run.used_key) for run in plan.runs if run.state == "done"}
    values: dict[tuple[str, int], Mapping[str, float]] = {}
    for run in known:
        tags = run["tags"]
        if tags.get("ablation.kind") == "run" and run["status"] == "FINISHED":
            name = (tags["ablation.arm"], int(tags["ablation.seed"]))
            if (*name, tags["ablation.key"]) in wanted:
                values.setdefault(name, run["metrics"])
    return values


def _carry_out(plan: Plan, session: Session, executor: LocalExecutor, recorder: Recorder, state: ProgressState) -> tuple[Outcome, bool]:
    """Train and test what is waiting; the outcome, and whether the user stopped it."""
    display = progress_display(state, session.console)
    messages = RunMessages(plan, session.workspace, session.packing, state, session.console)
    try:
        with _stopping(session.console, display) as should_stop:
            outcome = execute(
                plan,
                executor,
                recorder,
                lambda event: messages(event, display),
                should_stop=should_stop,
                budget=session.options.budget,
                packing=session.packing,
            )
            stopped = should_stop()
    except BaseException:
        recorder.interrupted("ended at once")
        recorder.close()
        raise
    finally:
        display.close()
        messages.close()
    if outcome.left:
        recorder.interrupted("stopped by the user" if stopped else outcome.why or "the budget was used up")
    return outcome, stopped


def _close(recorder: Recorder, session: Session) -> bool:
    """Wait until all is written; whether it is."""
    seconds = recorder.close()
    if seconds > 3:
        session.console.print(f"wrote the rest of the record in {seconds:.0f} s", highlight=False)
    for problem in dict.fromkeys(recorder.problems):
        session.console.print(
            f"not recorded yet: {problem}; the results lie in {session.workspace.results}, and the same command records them", markup=False
        )
    return not recorder.problems


def _stop_if_stale(plan: Plan) -> None:
    stale = [one for one in plan.runs if one.state == "stale"]
    if stale:
        raise AblateError(
            f"{len(stale)} of {len(plan.runs)} results were plan by other code, versions or on another device, and nothing was started; "
            "--rerun keep uses them (the report says so), --rerun cached does them again"
        )


def _stop_if_long(plan: Plan, session: Session) -> None:
    seconds = wall_seconds(plan, session.num_slots)
    if session.devices[0].type == "cpu" and seconds > DAY and not (session.options.yes or session.options.budget):
        raise AblateError(
            f"this would take about {seconds / DAY:.1f} days on the CPU, and nothing was started; "
            "--yes starts it all the same, --profile and --arm make it smaller"
        )


def _tell(plan: Plan, outcome: Outcome, stopped: bool, session: Session, recorded: Recorded) -> int:
    """Print the table and what is left to do; the exit status."""
    before = [Failure(one, "", one.reason) for one in plan.runs if one.state == "failed"]
    if len(outcome.left) < len(plan.runs):
        print(report.brief(recorded, list(plan.selected)))
    name = plan.study.name

    def say(text: str) -> None:
        session.console.print(text, markup=False, highlight=False, soft_wrap=True)

    for line in failure_lines([*before, *outcome.failed]):
        say(line)
    if outcome.left:
        why = "stopped" if stopped else outcome.why or "the budget is used up"
        say(f"{why}; {len(outcome.left)} runs are left{_complete(plan, outcome)}. To go on: {command_to_go_on()}")
    else:
        where = f"{session.options.file}" + (f" --profile {session.options.profile}" if session.options.profile else "")
        say(f"full report: ablate report {where} --output report/{name} · charts: ablate ui")
    if outcome.left:
        return INTERRUPTED
    return FAILED if before or outcome.failed else DONE


TO_DO = {  # by the kind of a failure
    "nan": "another setting in the file is another run; --rerun retry tries the same again",
    "bug": "ablate log ARM SEED shows where; once the code is mended, --rerun retry tries again",
    "data": "once the data or the setting are mended, --rerun retry tries again",
    "memory": "another setting in the file is another run; the same command tries the same again",
    "store": "once there is room and permission to write, the same command tries again",
    "killed": "the same command tries again",
}


def failure_lines(failed: Sequence[Failure]) -> list[str]:
    """What failed, a line for each reason with its arms and seeds, and under it what to do."""
    by_reason: dict[tuple[str, str], dict[str, list[int]]] = {}
    for one in failed:
        by_reason.setdefault((one.kind, one.reason), {}).setdefault(one.run.arm, []).append(one.run.seed)
    lines = []
    for (kind, reason), arms in by_reason.items():
        which = ", ".join(f"{arm} seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}" for arm, seeds in arms.items())
        lines.append(f"failed: {which}: {reason}")
        lines += [f"  to do: {TO_DO[kind]}"] if kind in TO_DO else []
    return lines


def _complete(plan: Plan, outcome: Outcome) -> str:
    """The seeds that every arm has, in words: ` (all arms have seeds 0-2)`."""
    there = [(one.arm, one.seed) for one in (*outcome.finished, *(run for run in plan.runs if run.state in ("done", "evaluated")))]
    lacking = {run.seed for run in plan.runs if (run.arm, run.seed) not in there}
    found = [seed for seed in plan.seeds if seed not in lacking]
    return f" (all arms have seed{'s' if len(found) > 1 else ''} {ranges(found)})" if found else ""


@contextlib.contextmanager
def _alone(workspace: Workspace, study: str, console: Console) -> Iterator[None]:
    """Only one `run` at a time per study and store; a second one waits, and says so. What its trainings shared goes with it."""
    lock = FileLock(workspace.locks / f"{study}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"another `ablate run` is at the study {study!r}; waiting for it to end (ablate status shows it)", highlight=False)
        lock.acquire()
    try:
        shutil.rmtree(workspace.features(study), ignore_errors=True)  # of a run that was killed
        yield
    finally:
        shutil.rmtree(workspace.features(study), ignore_errors=True)
        lock.release()


@contextlib.contextmanager
def _stopping(console: Console, display: View) -> Iterator[Any]:
    """The first signal asks to stop at the next epoch; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            display.close()
            raise KeyboardInterrupt
        asked.append(number)
        console.print("stopping after this epoch; once more to stop at once", highlight=False)

    with signals.handled(ask):
        yield lambda: bool(asked)
