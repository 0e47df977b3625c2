"""`ablate check-task`: run one's own training code twice, and once stopped in the middle, and compare; the store is not touched."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from ablation.commands.exit_codes import DONE, FAILED, INTERRUPTED
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.errors import AblateError, ConfigError, TrainingError
from ablation.planning.workspace import Workspace
from ablation.study.task import CodeChanged, Interrupted
from ablation.system import signals
from ablation.system.failures import failure
from ablation.tasks.own import checking
from ablation.tasks.own.checking import Trial
from ablation.tasks.own.planner import OwnPreparation
from ablation.tasks.own.work import OwnWork

LONG = 600.0  # seconds of a run, beyond which --yes is needed for the third


@dataclass(frozen=True)
class Checked:
    """What the runs came to: whether they repeat, and whether a stopped one does, None where that was not tried; in words."""

    repeats: bool
    stopped_repeats: bool | None
    lines: list[str]


def check_task(options: Options) -> int:
    """Print whether one arm and seed of a study come out the same twice, and once stopped; return 1 if not."""
    root, console = Path("mlruns").resolve(), Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with _scratch_folder(root) as scratch:
        with signals.interruptible():
            session = Session(options, console, scratch)
            preparation = session.preparation
            if not isinstance(preparation, OwnPreparation):
                raise ConfigError("FILE", f"{options.file} has no task; expected a study of one's own training code (for others: verify)")
            work, name = _work(session)
        title = f"{session.study.name}: {name} seed {work.seed}"
        console.print(f"{title} is run twice, and once more to be stopped half way ({work.definition.text})")
        with _stop_on_signal(console) as should_stop:
            try:
                checked = _check(work, scratch, str(session.devices[0]), console, should_stop, is_long_fine=options.yes)
            except Interrupted:
                console.print("stopped; nothing is kept of what was tried")
                return INTERRUPTED
            except CodeChanged:
                raise AblateError("the code was edited meanwhile; the same command checks it as it is now") from None
            except Exception as error:  # whatever the code did, it is told as that of a run is
                told = failure(error, session.task.memory_advice)
                console.print(f"{title} failed: {told['message']}\n{told['log']}".rstrip())
                return FAILED
    resumes = checked.stopped_repeats if work.definition.resumes else None
    begins_anew = work.definition.resumes or checked.stopped_repeats is not False
    path = checking.path_of(Workspace(root).root, preparation.checked_identity)
    kept = checking.keep(path, name, work, repeatable=checked.repeats and begins_anew, resumes=resumes)
    print("\n".join([f"{title} ({work.definition.text})", *(f"  {line}" for text in checked.lines for line in text.splitlines())]))
    if kept["key"] != work.request.key:
        amiss = f"what was found amiss of {kept['arm']} seed {kept['seed']} on {kept['when']}"
        print(f"  {amiss} stays in the report until that run comes out the same")
    return DONE if checked.repeats and checked.stopped_repeats is not False else FAILED


def _work(session: Session) -> tuple[OwnWork, str]:
    """The run that is tried, of the first of the selected arms that runs anything, and the arm's name."""
    session.check()
    arm, seed = next(arm for arm in session.arms if arm.choice is None), session.seeds[0]
    session.preparation.check_starts([arm], seed)
    nodes = session.plan((), probe=False).nodes.values()
    return next(node.job.work for node in nodes if arm.name in node.arms and node.seed == seed), arm.name


def _check(work: OwnWork, scratch: Path, device: str, console: Console, should_stop: Callable[[], bool], *, is_long_fine: bool) -> Checked:
    """Carry out the runs, and compare them."""
    trials = list[Trial]()
    for number in (1, 2):
        trials.append(checking.trial(work, scratch / str(number), device, lambda event: None, should_stop))
        console.print(f"run {number}: {trials[-1].seconds:.1f} s")
    first = trials[0]
    lines = [_verdict("two runs come out the same, bit for bit", "two runs differ", differing := checking.differences(*trials))]
    cost = " and ".join(f"{trial.seconds:.1f} s" for trial in trials)
    if first.seconds > LONG and not is_long_fine:
        lines.append(f"whether a stopped run comes out the same was not tried, since a run takes {first.seconds / 60:.0f} min: --yes does")
        return Checked(not differing, None, [*lines, f"took {cost}"])
    stopped = checking.stopped_trial(work, scratch / "3", device, first, should_stop)
    if stopped is None:
        lines.append("a run ended before it could be stopped, so what happens to a stopped one was not tried")
        return Checked(not differing, None, [*lines, f"took {cost}"])
    if stopped[1] >= first.steps > 1:
        lines.append("a run logged its last step before it could be stopped, so what happens to one that is stopped half way was not tried")
        return Checked(not differing, None, [*lines, f"took {cost}"])
    console.print(f"run 3: stopped after {stopped[0]:.1f} s")
    resumes = work.definition.resumes
    after = f"stopped after {stopped[1]} of {first.steps} steps" if first.steps > 1 else "stopped half way"
    what = f"a run that was {after} and " + ("resumed" if resumes else "began anew (the file does not say resumes: true)")
    try:
        again = checking.trial(work, scratch / "3", device, lambda event: None, should_stop)
    except TrainingError as error:  # what did not fail before fails after a stop, which is what the check is for
        return Checked(
            not differing, False, [*lines, f"{what} fails: {error}", f"took {cost}; {stopped[0]:.1f} s until stopped", error.log]
        )
    changed = checking.differences(first, again, is_resumed=resumes)
    lines.append(_verdict(f"{what} comes out the same", f"{what} differs", changed))
    return Checked(not differing, not changed, [*lines, f"took {cost}; {stopped[0]:.1f} s until stopped, then {again.seconds:.1f} s"])


def _verdict(good: str, bad: str, differing: list[str]) -> str:
    return f"{bad}: {'; '.join(differing)}" if differing else good


@contextlib.contextmanager
def _scratch_folder(root: Path) -> Iterator[Path]:
    """A folder beside the store's, deleted afterwards, with the folder of the store if that was not there and nothing is kept in it."""
    root.mkdir(parents=True, exist_ok=True)
    for lock in root.glob("check-*/lock"):
        with contextlib.suppress(Timeout), FileLock(lock, timeout=0):  # left by a command that was killed
            shutil.rmtree(lock.parent, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix="check-", ignore_cleanup_errors=True) as name, FileLock(Path(name, "lock")):
            yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            root.rmdir()  # if it is empty


@contextlib.contextmanager
def _stop_on_signal(console: Console) -> Iterator[Callable[[], bool]]:
    """Handle signals: the first asks the run to end, a second one ends the command at once."""
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        with contextlib.suppress(RuntimeError):  # the signal came while something was being written
            console.print("stopping; once more to stop at once")

    with signals.handled(handle):
        yield lambda: bool(received)
