"""`ablate run`: run what is not done yet, record it, and print the table."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from ablation.commands.exit_codes import DONE, FAILED, INTERRUPTED
from ablation.commands.last_run import note_last_run
from ablation.commands.options import Options
from ablation.commands.recorded import with_notes
from ablation.commands.screen import print_study
from ablation.commands.session import Session
from ablation.errors import AblateError, StoreError
from ablation.formatting import ranges, shortened
from ablation.planning import explain
from ablation.planning.cost import wall_seconds
from ablation.planning.plan import Plan
from ablation.planning.recorded_values import lacking_metric, recorded_values
from ablation.planning.states import LOST
from ablation.planning.workspace import Workspace
from ablation.running.executors import start_executor
from ablation.running.messages import RunMessages
from ablation.running.progress import ProgressState, Results, View, progress_display
from ablation.running.recorder.recorder import Recorder
from ablation.running.scheduler import Executor, Failure, Outcome, execute
from ablation.study.task import CheckpointInterval
from ablation.system import signals, streams
from ablation.system.invocation import command_line, command_to_go_on
from ablation.tracking.recorded import Recorded
from ablation.tracking.store import Store

DAY = 24 * 3600


def run(options: Options) -> int:
    """Run what is not done yet, record it, and print the table."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    with _study_lock(session.workspace, session.study.name, console), contextlib.ExitStack() as exit_stack:
        with signals.interruptible():
            store = Store.open()
            note_last_run(session.workspace.root, options.file, options.profile)
            known_runs, doubled = session.known_runs(store)
            _tell_lost(known_runs, session)
            plan, executor = session.plan(known_runs, probe=False), None
            _stop_if_stale(plan, options.rerun)
            if plan.waiting:
                store.check()
                executor = _started(session)
                exit_stack.callback(executor.close)  # its workers do their imports while models are built here
                waiting_arms = {run.arm for run in plan.waiting}
                session.preparation.check_starts([arm for arm in session.arms if arm.name in waiting_arms], plan.seeds[0])
                plan = session.plan(known_runs, probe=True)
        _tell_plan(plan, session, known_runs, console)
        _stop_if_long(plan, session)
        if options.rerun == "force":
            session.force(plan)
        _tidy_store(store, doubled, session)
        plan = _with_interval(plan, options.checkpoint_interval)
        recorder = Recorder(store, plan, session.preparation.planner, session.workspace, command_line())
        recorder.begin(known_runs)
        for planned_run in plan.runs:
            if planned_run.state == "evaluated":
                recorder.finished(planned_run)
        state = ProgressState(plan, session.num_slots, Results(plan, session.workspace.results, recorded_values(plan, known_runs)))
        outcome, stopped = _execute_plan(plan, session, executor, recorder, state) if executor else (Outcome(), False)
        is_written = _finish_recording(recorder, session)
        outcome.failed.extend(Failure(planned_run, "data", reason) for planned_run, reason in recorder.refused)
        runs_now = known_runs if _is_unchanged(plan, known_runs) else ()
        try:
            status = _print_outcome(plan, outcome, stopped, session, store.recorded(session.study.name, runs_now))
        except StoreError:
            if is_written:
                raise
            status = FAILED  # not even the plan could be recorded, as a message above says
        return status if is_written else max(status, FAILED)


def _started(session: Session) -> Executor:
    """The executor that the options ask for."""
    options, devices = session.options, [str(device) for device in session.devices]
    if options.executor == "local":
        return start_executor(options.executor, devices, session.jobs_per_device, session.task.name)
    folders = [str(session.workspace.root), str(options.file.resolve().parent)]
    code = [str(options.file.resolve().parent), str(Path.cwd())] if options.allow_code else []
    place = {"address": options.ray_address, "folders": folders, "code": code}
    executor = start_executor(options.executor, devices, options.jobs, session.task.name, **place)
    session.executor_slots = executor.num_slots
    return executor


def _tell_plan(plan: Plan, session: Session, known_runs: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the plan in short, and whether recorded runs lack the study's metric."""
    told = [explain.summary(plan, session.preparation.planner, session.num_slots), *lacking_metric(plan, known_runs)]
    console.print("\n".join(told), markup=False, highlight=False, soft_wrap=True)


def _is_unchanged(plan: Plan, known_runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the runs that were known before are still those in the store: the plan was there, and nothing had to run."""
    has_plan = any(run["tags"].get("ablation.kind") == "plan" for run in known_runs)
    return has_plan and all(planned_run.state == "done" for planned_run in plan.runs)


def _tell_lost(known_runs: Sequence[Mapping[str, Any]], session: Session) -> None:
    if num_lost := sum(run["status"] == LOST for run in known_runs):
        folders = session.workspace.root / "artifacts", session.workspace.results
        told = f"the files of {num_lost} recorded runs are gone from {folders[0]}: what still lies in {folders[1]} is recorded again"
        session.console.print(told, markup=False, highlight=False, soft_wrap=True)


def _tidy_store(store: Store, doubled: Sequence[str], session: Session) -> None:
    """Restore the study if it was deleted in MLflow, and delete what is recorded twice; by now nothing refuses to begin."""
    if changed := store.restore(session.study.name):
        session.console.print(changed, markup=False, highlight=False, soft_wrap=True)
    for run_id in doubled:
        store.delete(run_id)


def _with_interval(plan: Plan, interval: CheckpointInterval) -> Plan:
    """The plan, with jobs that write checkpoints at this interval."""
    nodes = plan.nodes.items()
    return replace(plan, nodes={key: replace(node, job=replace(node.job, checkpoint_interval=interval)) for key, node in nodes})


def _execute_plan(plan: Plan, session: Session, executor: Executor, recorder: Recorder, state: ProgressState) -> tuple[Outcome, bool]:
    """Train and test what is waiting; return the outcome, and whether the user stopped it."""
    display = progress_display(state, session.console)
    messages = RunMessages(plan, session.workspace, session.packing, state, session.console)
    try:
        with _stop_on_signal(session.console, display, plan.study.task.words.stopping) as should_stop:
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


def _finish_recording(recorder: Recorder, session: Session) -> bool:
    """Wait until the record is written; return whether all of it is."""
    seconds = recorder.close()
    if seconds > 3:
        session.console.print(f"wrote the rest of the record in {seconds:.0f} s", highlight=False)
    for problem in dict.fromkeys(recorder.problems):
        where = f"the results lie in {session.workspace.results}, and the same command records them"
        session.console.print(f"not recorded yet: {problem}; {where}", markup=False, highlight=False, soft_wrap=True)
    if recorder.undrawn:
        told = f"a picture could not be drawn, and the record is complete without it ({recorder.undrawn})"
        session.console.print(told, markup=False, highlight=False, soft_wrap=True)
    return not recorder.problems


def _stop_if_stale(plan: Plan, rerun: str) -> None:
    stale = [planned_run for planned_run in plan.runs if planned_run.state == "stale"]
    if stale:
        reasons = [run.reason.rpartition("recorded: ")[2] for run in stale if run.choice is None]
        changed = shortened(list(dict.fromkeys(reasons)), 3)
        also = "; both also run what failed before this change" if rerun == "retry" else ""
        raise AblateError(
            f"{len(stale)} of {len(plan.runs)} results were made by other code, versions or on another device ({changed}), and nothing was "
            f"started; --rerun keep uses them (the report says so), --rerun cached runs them again{also}"
        )


def _stop_if_long(plan: Plan, session: Session) -> None:
    seconds = wall_seconds(plan, session.num_slots)
    if session.devices[0].type == "cpu" and seconds > DAY and not (session.options.yes or session.options.budget):
        raise AblateError(
            f"this would take about {seconds / DAY:.1f} days on the CPU, and nothing was started; "
            "--yes starts it anyway, --profile and --arm make it smaller"
        )


def _print_outcome(plan: Plan, outcome: Outcome, stopped: bool, session: Session, recorded: Recorded) -> int:
    """Print the table and what is left to do; return the exit status."""
    failed_before = [Failure(planned_run, "", planned_run.reason) for planned_run in plan.runs if planned_run.state == "failed"]
    if len(outcome.left) < len(plan.runs):
        streams.spare_output()  # what is recorded is recorded, whoever reads the table
        from ablation.report.sections import Shown

        print_study(with_notes(recorded), Shown(arms=tuple(plan.selected)))
    name = plan.study.name

    def print_line(text: str) -> None:
        session.console.print(text, markup=False, highlight=False, soft_wrap=True)

    for line in failure_lines([*failed_before, *outcome.failed], NEXT_STEPS | dict(session.task.words.next_steps)):
        print_line(line)
    if outcome.left:
        why = "stopped" if stopped else outcome.why or "the budget is used up"
        print_line(f"{why}; {len(outcome.left)} runs are left{_complete_seeds_note(plan, outcome)}. To go on: {command_to_go_on()}")
    else:
        file_and_profile = f"{session.options.file}" + (f" --profile {session.options.profile}" if session.options.profile else "")
        print_line(f"full report: ablate report {file_and_profile} --output report/{name} · charts: ablate ui")
    if outcome.left:
        return INTERRUPTED
    return FAILED if failed_before or outcome.failed else DONE


NEXT_STEPS = {  # kind of failure -> what the user can do
    "nan": "change a setting in the file, which makes another run; --rerun retry tries the same run again",
    "bug": "ablate log ARM SEED shows where; once the code is fixed, --rerun retry tries again",
    "data": "once the data or the setting is fixed, --rerun retry tries again",
    "memory": "change a setting in the file, which makes another run; the same command tries the same run again",
    "store": "once there is room and permission to write, the same command tries again",
    "killed": "the same command tries again",
    "timeout": "raise task.timeout, or change a setting; --rerun retry tries the same run again",
}


def failure_lines(failures: Sequence[Failure], next_steps: Mapping[str, str] = NEXT_STEPS) -> list[str]:
    """The failures, a line for each reason with its arms and seeds, followed by a line with what to do."""
    by_reason: dict[tuple[str, str], dict[str, list[int]]] = {}
    for failure in failures:
        by_reason.setdefault((failure.kind, failure.reason), {}).setdefault(failure.run.arm, []).append(failure.run.seed)
    lines = []
    for (kind, reason), arms in by_reason.items():
        runs_text = ", ".join(f"{arm} seed{'s' if len(seeds) > 1 else ''} {ranges(seeds)}" for arm, seeds in arms.items())
        lines.append(f"failed: {runs_text}: {reason}")
        lines += [f"  to do: {next_steps[kind]}"] if kind in next_steps else []
    return lines


def _complete_seeds_note(plan: Plan, outcome: Outcome) -> str:
    """The seeds that all arms have finished, in words: ` (all arms have seeds 0-2)`."""
    complete_runs = [
        (planned_run.arm, planned_run.seed)
        for planned_run in (*outcome.finished, *(run for run in plan.runs if run.state in ("done", "evaluated")))
    ]
    incomplete_seeds = {run.seed for run in plan.runs if (run.arm, run.seed) not in complete_runs}
    complete_seeds = [seed for seed in plan.seeds if seed not in incomplete_seeds]
    return f" (all arms have seed{'s' if len(complete_seeds) > 1 else ''} {ranges(complete_seeds)})" if complete_seeds else ""


@contextlib.contextmanager
def _study_lock(workspace: Workspace, study: str, console: Console) -> Iterator[None]:
    """Hold the study's lock: one `run` at a time per study and store; a second one waits, and says so.

    The features that the study's trainings shared are deleted before and after.
    """
    lock = FileLock(workspace.locks / f"{study}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(
            f"another `ablate run` is working on the study {study!r}; waiting for it to end (ablate status shows it)", highlight=False
        )
        lock.acquire()
    try:
        shutil.rmtree(workspace.features(study), ignore_errors=True)  # left by a run that was killed
        yield
    finally:
        shutil.rmtree(workspace.features(study), ignore_errors=True)
        lock.release()


@contextlib.contextmanager
def _stop_on_signal(console: Console, display: View, stopping: str) -> Iterator[Any]:
    """Handle signals: the first asks to stop, a second one stops at once. Yields a function that says whether to stop."""
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if received:
            display.close()
            raise KeyboardInterrupt
        received.append(number)
        with contextlib.suppress(RuntimeError):  # the signal came while something was being written
            console.print(f"{stopping}; once more to stop at once", highlight=False)

    with signals.handled(handle):
        yield lambda: bool(received)
