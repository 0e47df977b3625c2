"""What `run` does, whether it carries out a study or a part of it: one at a time, stopped by signals, and how failures are told."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from ablation.commands.session import Session
from ablation.errors import AblateError
from ablation.formatting import ranges, shortened
from ablation.planning.plan import Plan
from ablation.planning.workspace import Workspace
from ablation.running.messages import RunMessages
from ablation.running.outcomes import Failure
from ablation.running.progress import ProgressState, View, progress_display
from ablation.study.config import Study, load, text_hash
from ablation.study.task import CheckpointInterval
from ablation.system import signals
from ablation.system.files import sweep

ONE_SIGNAL = 1.0  # seconds within which a second SIGTERM is the first one, passed on
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


def stop_if_stale(plan: Plan, rerun: str) -> None:
    """Raise AblateError if recorded results were made by other code, and the user has not said what to do with them."""
    stale = [planned_run for planned_run in plan.runs if planned_run.state == "stale"]
    if stale:
        reasons = [run.reason.rpartition("recorded: ")[2] for run in stale if run.choice is None]
        changed = shortened(list(dict.fromkeys(reasons)), 3)
        also = "; both also run what failed before this change" if rerun == "retry" else ""
        raise AblateError(
            f"{len(stale)} of {len(plan.runs)} results were made by other code, versions or on another device ({changed}), and nothing was "
            f"started; --rerun keep uses them (the report says so), --rerun cached runs them again{also}"
        )


def with_interval(plan: Plan, interval: CheckpointInterval) -> Plan:
    """The plan, with jobs that write checkpoints at this interval."""
    nodes = plan.nodes.items()
    return replace(plan, nodes={key: replace(node, job=replace(node.job, checkpoint_interval=interval)) for key, node in nodes})


@contextlib.contextmanager
def study_lock(workspace: Workspace, study: str, console: Console, *, is_awaited: bool = True) -> Iterator[bool]:
    """Hold the study's lock, or that of a part: one `run` at a time per study and store; a second one waits, and says so.

    Yields whether it waited. It is not awaited where an engine has said that whoever holds it is lost: its machine may be gone, and the
    lock be held for ever.
    The features that the study's trainings shared are deleted before and after, and what killed processes half wrote long ago. On a disk
    where the lock keeps no other host off, it is each stage's token that does.
    """
    lock, has_waited = FileLock(workspace.locks / f"{study}{workspace.part}.lock"), False
    try:
        with workspace.beginning():
            lock.acquire(timeout=0)
    except Timeout:
        if is_awaited:
            told = f"another `ablate run` is working on the study {study!r}; waiting for it to end (ablate status shows it)"
            console.print(told, highlight=False)
            lock.acquire()
            has_waited = True
    try:
        shutil.rmtree(workspace.features(study), ignore_errors=True)  # left by a run that was killed
        sweep(workspace.root)
        sweep(workspace.root / "status")
        sweep(workspace.parts)
        yield has_waited
    finally:
        shutil.rmtree(workspace.features(study), ignore_errors=True)
        lock.release()


def up_to_date(session: Session, *, has_waited: bool) -> Session:
    """The session of the files, the code and the data as they are now: while a command waits for the lock, they may change."""
    study = session.study
    edited = _edited(study)
    if not has_waited and not edited and all(path.exists() for path in session.decoded):
        return session
    renewed = Session(session.options, session.console)
    if renewed.study.name != study.name:
        raise AblateError(f"{edited} was edited meanwhile, and is the study {renewed.study.name!r} now; nothing was begun")
    if edited:
        renewed.tell(f"{edited} was edited meanwhile, and read again")
    before = session.preparation.imported_code  # known since the check before the lock
    renewed.check()
    if renewed.preparation.imported_code != before and renewed.study.task.declared == study.task.declared:
        raise AblateError(
            "the code was edited while this command waited, and nothing was begun; the same command plans with it as it is now"
        )
    return renewed


def _edited(study: Study) -> str:
    """The study's file if it was edited since it was read, or words for one that it extends; "" if none was, or the file is gone."""
    try:
        content = study.file.read_bytes()
    except OSError:
        return ""
    if content != study.content:
        return str(study.file)
    return "" if text_hash(load(study.file)) == study.text else f"what {study.file} extends"


@contextlib.contextmanager
def shown(plan: Plan, session: Session, state: ProgressState) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[], bool]]]:
    """Show what happens meanwhile, and handle signals; yields what sees each event, and what says whether the user asked to stop."""
    display = progress_display(state, session.console)
    messages = RunMessages(plan, session.workspace, None if session.site else session.packing, state, session.console)
    try:
        with stop_on_signal(session.console, display, plan.study.task.words.stopping) as should_stop:
            yield lambda event: messages(event, display), should_stop
    finally:
        display.close()
        messages.close()


@contextlib.contextmanager
def stop_on_signal(console: Console, display: View, stopping: str) -> Iterator[Any]:
    """Handle signals: the first asks to stop, a second one stops at once. Yields a function that says whether to stop.

    SIGTERM may come twice for once: `timeout` sends it to its group, and `uv run`, which is in there, passes on its own.
    """
    received: list[int] = []
    first = 0.0

    def handle(number: int, _frame: object) -> None:
        nonlocal first
        if received == [signal.SIGTERM] and number == signal.SIGTERM and time.monotonic() - first < ONE_SIGNAL:
            return
        first = time.monotonic()
        if received:
            display.close()
            raise KeyboardInterrupt
        received.append(number)
        with contextlib.suppress(RuntimeError):  # the signal came while something was being written
            console.print(f"{stopping}; once more to stop at once", highlight=False)

    with signals.handled(handle):
        yield lambda: bool(received)
