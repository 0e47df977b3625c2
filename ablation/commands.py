"""What the commands do. cli.py only reads their options; heavy libraries are imported from here on."""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from ablation import explain, report, signals
from ablation.config import Arm, Stage
from ablation.errors import AblateError, ConfigError, DataError, StoreError, unknown_name
from ablation.executors.local import LocalExecutor
from ablation.files import write_json
from ablation.invocation import command_line, command_to_go_on
from ablation.keys import speed_key
from ablation.matrix import load_study, select_names
from ablation.packing import Packing, has_mps
from ablation.plan import Plan, describe, make_plan, with_choices
from ablation.preparation import Preparation, Workspace, devices, note_speed, num_cores
from ablation.probing import compiling
from ablation.progress import Board, Results, Values, view
from ablation.recorder import Recorder
from ablation.scheduler import Failure, Outcome, execute
from ablation.techniques.technique import allow_code
from ablation.tracking.store import Recorded, Store
from ablation.training.step import resolve_precision
from ablation.worker import EVERY_EPOCH, Rhythm, device_name

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130  # exit statuses


@dataclass(frozen=True)
class Options:
    """What `run`, `plan` and `show` take."""

    file: Path
    profile: str | None = None
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    sets: tuple[tuple[str, Any], ...] = ()
    device: str = "auto"
    jobs: int = 0
    executor: str = "local"
    rerun: str = ""
    budget: float = 0.0
    yes: bool = False
    allow_code: bool = False
    rhythm: Rhythm = EVERY_EPOCH


class Session:
    """A study, resolved, with its store and folders."""

    def __init__(self, options: Options, console: Console, root: Path | None = None) -> None:
        self.options, self.console = options, console
        if options.allow_code:
            allow_code(options.file.resolve().parent)
        self.study = load_study(options.file, options.profile, options.sets)
        self.seeds = _seeds(options.seeds) or self.study.seeds
        names = [arm.name for arm in self.study.arms]
        self.selected = with_choices(self.study, select_names(names, options.arms, "--arm") if options.arms else names)
        self.devices = devices(options.device)
        kinds = {device_name(device) for device in self.devices}
        if len(kinds) > 1:
            raise ConfigError("--device", f"found devices of several kinds ({', '.join(sorted(kinds))}); expected one kind, such as cuda:0")
        self.workspace = Workspace((root or Path("mlruns")).resolve())
        self.preparation = Preparation(self.study, self.workspace, self.devices[0], self._decoding)

    @property
    def jobs_per_device(self) -> int:
        """How many runs share a device: --jobs, else as many as there are cores on a CPU, and one elsewhere, to begin with."""
        if self.options.jobs:
            return self.options.jobs
        return num_cores() if self.devices[0].type == "cpu" else 1

    @cached_property
    def packing(self) -> Packing | None:
        """What finds out how many runs share a GPU, where the user did not say."""
        is_open = self.devices[0].type == "cuda" and not self.options.jobs
        return Packing(max(1, num_cores() // len(self.devices))) if is_open else None

    @property
    def num_slots(self) -> int:
        """How many runs go at once, to begin with."""
        return self.jobs_per_device * len(self.devices)

    @property
    def arms(self) -> list[Arm]:
        """The selected arms."""
        return [arm for arm in self.study.arms if arm.name in self.selected]

    def check(self) -> None:
        """Find before anything else what would stop a run at its start; the data are decoded here."""
        self.preparation.check(self.arms, self.seeds)

    def plan(self, known: Sequence[Mapping[str, Any]], *, probe: bool) -> Plan:
        """The plan, given the study's runs in the store; with `probe`, models whose speed is unknown are timed for a moment."""
        past = self.workspace.past(self._as_forced(known))
        around = self.preparation.surroundings
        speed = self.preparation.seconds_per_image if probe else self.preparation.measured_seconds
        return make_plan(
            self.study,
            self.seeds,
            self.selected,
            around,
            past,
            other_seeds=self.study.seeds,
            rerun=self.options.rerun,
            seconds_per_image=speed,
        )

    def _as_forced(self, known: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The study's runs in the store, those that are still to be forced not FINISHED; all as they are with --rerun keep."""
        since = {} if self.options.rerun == "keep" else _read_forced(self.forced)
        return [
            {**run, "status": "FORCED"} if self._is_forced(run, since.get(_forced_name(*_run_of(run)), 0)) else run
            for run in known
            if run["tags"].get("ablation.kind") == "run"
        ]

    def _is_forced(self, run: Mapping[str, Any], since: int) -> bool:
        arm, seed, _ = _run_of(run)
        return arm in self.selected and seed in self.seeds and run["status"] == "FINISHED" and int(run["end"]) < since

    @property
    def forced(self) -> Path:
        """The file that says since when which runs are to be done again."""
        return self.workspace.root / "forced" / f"{self.study.name}.json"

    def force(self, made: Plan) -> None:
        """Forget what is to be done again, for good: whatever ends the command, the same without --rerun force goes on with it.

        Raises AblateError while another study runs in the same folder, which may share what would be deleted.
        """
        with self.workspace.held_off(but=self.study.name) as running:
            if running:
                what = f"--rerun force would delete trainings that {', '.join(running)}, which runs now, may share"
                raise AblateError(f"{what}; nothing was deleted: give the command again when that has ended")
            self._force(made)

    def _force(self, made: Plan) -> None:
        now = int(time.time() * 1000)
        noted = _read_forced(self.forced) | {_forced_name(one.arm, one.seed, one.content): now for one in made.waiting}
        write_json(self.forced, noted)
        self.workspace.forget([key for key, node in made.nodes.items() if node.state != "done"], [one.key for one in made.waiting])

    def _decoding(self, what: str, done: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(f"{what}: {done:,}/{total:,}", end="\r" if done < total else "\n", highlight=False)
        elif done in (0, total):
            self.console.print(f"{what}: {total:,} images{'' if done else ' to do'}", highlight=False)


def _run_of(run: Mapping[str, Any]) -> tuple[str, int, str]:
    """The arm, seed and content of a run in the store."""
    tags = run["tags"]
    return tags["ablation.arm"], int(tags["ablation.seed"]), tags.get("ablation.content", "")


def _forced_name(arm: str, seed: int, content: str) -> str:
    return f"{arm} {seed} {content}"


def _read_forced(path: Path) -> dict[str, int]:
    """When runs were forced, in milliseconds, by name; none where none were."""
    try:
        return {str(name): int(since) for name, since in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if any(seed < 0 for seed in seeds):
        raise ConfigError("--seed", f"found {min(seeds)}; expected numbers from 0")
    return tuple(dict.fromkeys(seeds))


def plan(options: Options, *, as_json: bool, compiled: bool) -> int:
    """Print the plan; with `compiled`, measure beside it for which models torch.compile would save time."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    known = Store.open(make=False).runs_of(session.study.name) if Store.is_there() else []
    made = session.plan(known, probe=True)
    if as_json:
        print(json.dumps(describe(made, session.preparation.surroundings), indent=1))
    else:
        print(explain.full(made, session.num_slots))
    models = _compilable(made, session.devices[0]) if compiled else {}
    if compiled and not models:
        console.print("nothing to compile: no training of a whole model is left that could be compiled and is not", soft_wrap=True)
    for stage, images in models.values():
        model = stage.settings.model
        doing = f"measuring {model.name} at {model.image_size} pixels with and without torch.compile: this takes minutes"
        console.print(doing, markup=False, highlight=False, soft_wrap=True)
        told = explain.compiling(stage, compiling(stage, session.devices[0]), images)
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    return DONE


def _compilable(made: Plan, device: torch.device) -> dict[object, tuple[Stage, list[int]]]:
    """The models that could be compiled and are not yet, each with the images of all trainings that are left."""
    found: dict[object, tuple[Stage, list[int]]] = {}
    for node in made.nodes.values():
        settings = node.job.stage.settings
        is_open = node.left and node.job.stage.train == "all" and not (settings.compile or settings.deterministic)
        if is_open and resolve_precision(settings.precision, device).name != "fp16":
            alike = (settings.model, settings.batch_size, settings.precision)
            found.setdefault(alike, (node.job.stage, []))[1].append(node.left * node.images)
    return found


def show(options: Options, name: str) -> int:
    """Print one arm in full."""
    session = Session(options, Console(stderr=True))
    arms = {arm.name: arm for arm in session.study.arms}
    if name not in arms:
        raise unknown_name("ARM", "arm", name, arms)
    try:
        made = make_plan(session.study, session.study.seeds[:1], (name,), session.preparation.surroundings, session.workspace.past([]))
        found = made.labels[name]
    except DataError as error:
        found = {"unknown": f"labels that depend on the data cannot be computed: {error}"}
    print(explain.arm_text(arms[name], found))
    return DONE


def run(options: Options) -> int:
    """Run what the plan lacks, record it, and print the table."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    with _alone(session.workspace, session.study.name, console), contextlib.ExitStack() as stack:
        with signals.ending():
            store = Store.open()
            known = store.runs_of(session.study.name)
            made, executor = session.plan(known, probe=False), None
            _stop_if_stale(made)
            if made.waiting:
                executor = LocalExecutor([str(device) for device in session.devices], session.jobs_per_device)  # they import meanwhile
                stack.callback(executor.close)
                session.preparation.check_models(
                    [arm for arm in session.arms if any(one.arm == arm.name for one in made.waiting)], made.seeds[0]
                )
                made = session.plan(known, probe=True)
        console.print(explain.summary(made, session.num_slots), markup=False, highlight=False, soft_wrap=True)
        _stop_if_long(made, session)
        if options.rerun == "force":
            session.force(made)
        made = replace(made, nodes={key: replace(node, job=replace(node.job, rhythm=options.rhythm)) for key, node in made.nodes.items()})
        recorder = Recorder(store, made, session.preparation.surroundings, session.workspace, command_line())
        recorder.begin(known)
        for one in made.runs:
            if one.state == "evaluated":
                recorder.finished(one)
        board = Board(made, session.num_slots, Results(made, session.workspace.results, _recorded_values(made, known)))
        outcome, stopped = _carry_out(made, session, executor, recorder, board) if executor else (Outcome(), False)
        is_written = _close(recorder, session)
        outcome.failed.extend(Failure(one, "data", reason) for one, reason in recorder.refused)
        is_unchanged = all(one.state == "done" for one in made.runs)
        try:
            status = _tell(made, outcome, stopped, session, store.recorded(session.study.name, known if is_unchanged else ()))
        except StoreError:
            if is_written:
                raise
            status = FAILED  # the store did not even take the plan, which was said above
        return status if is_written else max(status, FAILED)


def _recorded_values(made: Plan, known: Sequence[Mapping[str, Any]]) -> Values:
    """The metrics of the plan's runs that are recorded."""
    wanted = {(run.arm, run.seed, run.used_key) for run in made.runs if run.state == "done"}
    found: dict[tuple[str, int], Mapping[str, float]] = {}
    for run in known:
        tags = run["tags"]
        if tags.get("ablation.kind") == "run" and run["status"] == "FINISHED":
            one = (tags["ablation.arm"], int(tags["ablation.seed"]))
            if (*one, tags["ablation.key"]) in wanted:
                found.setdefault(one, run["metrics"])
    return found


def _carry_out(made: Plan, session: Session, executor: LocalExecutor, recorder: Recorder, board: Board) -> tuple[Outcome, bool]:
    """Train and test what is waiting; the outcome, and whether the user stopped it."""
    shown, notes = view(board, session.console), Notes(made, session, board)
    try:
        with _stopping(session.console, shown) as should_stop:
            outcome = execute(
                made,
                executor,
                recorder,
                lambda event: notes(event, shown),
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
        shown.close()
        notes.close()
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


class Notes:
    """Keeps, beside the display, what `ablate status` shows and the measured speeds."""

    def __init__(self, made: Plan, session: Session, board: Board) -> None:
        self.made, self.session, self.board = made, session, board
        self.path = session.workspace.root / "status" / f"{made.study.name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.written = 0.0
        self.shrunk: set[str] = set()

    def __call__(self, event: dict[str, Any], shown: Any) -> None:
        """Pass an event on to the display, and take note of it."""
        shown(event)
        if event["kind"] == "damaged":
            self.session.console.print(event["message"], markup=False, highlight=False, soft_wrap=True)
        if event["kind"] == "epoch" and (self.session.packing is None or self.session.packing.jobs == 1):  # beside others it is slower
            node = self.made.nodes[event["stage"]]
            name = speed_key(node.job.stage, device_name(self.session.devices[0]))
            with contextlib.suppress(OSError):
                note_speed(self.session.workspace.speeds, name, 1 / max(event["row"]["images_per_second"], 1e-9))
        elif event["kind"] == "memory":
            self._shrink(event)
        elif event["kind"] == "packing":
            self._packed(event)
        if time.monotonic() - self.written > 1:
            self.write("running")

    def _shrink(self, event: Mapping[str, Any]) -> None:
        """Take note that fewer jobs run at once; the user is told the first time that it happens on a device."""
        self.board.clock.num_slots = event["slots"]
        if event["device"] not in self.shrunk:
            self.shrunk.add(event["device"])
            again = ", and one fewer whenever it happens again" if event["jobs"] > 1 else ""
            why = f"out of memory on {event['device']} (or a process was killed as the system does then)"
            told = f"{why}: {event['jobs']} at once from now on{again}; what did not fit is tried again alone, its batch size as it was"
            self.session.console.print(told, markup=False, highlight=False, soft_wrap=True)

    def _packed(self, event: Mapping[str, Any]) -> None:
        """Tell how many runs share a GPU from now on."""
        self.board.clock.num_slots = event["slots"]
        how = "" if event["jobs"] == 1 or has_mps() else "; they take turns, but would run truly at once with NVIDIA's MPS (docs/gpu.md)"
        told = f"{event['jobs']} at once on {event['device']} from now on: {event['reason']}{how}"
        self.session.console.print(told, markup=False, highlight=False, soft_wrap=True)

    def write(self, state: str) -> None:
        """The state of the matrix in a file, whole."""
        self.written = time.monotonic()
        about = {"state": state, "pid": os.getpid(), "time": time.time(), **self.board.snapshot()}
        with contextlib.suppress(OSError):  # a full disk must not end the training
            write_json(self.path, about, is_kept=False)

    def close(self) -> None:
        """Say that nobody is at it any more."""
        self.write("ended")


def _stop_if_stale(made: Plan) -> None:
    stale = [one for one in made.runs if one.state == "stale"]
    if stale:
        raise AblateError(
            f"{len(stale)} of {len(made.runs)} results were made by other code, versions or on another device, and nothing was started; "
            "--rerun keep uses them (the report says so), --rerun cached does them again"
        )


def _stop_if_long(made: Plan, session: Session) -> None:
    seconds = explain.wall_seconds(made, session.num_slots)
    if session.devices[0].type == "cpu" and seconds > explain.DAY and not (session.options.yes or session.options.budget):
        raise AblateError(
            f"this would take about {seconds / explain.DAY:.1f} days on the CPU, and nothing was started; "
            "--yes starts it all the same, --profile and --arm make it smaller"
        )


def _tell(made: Plan, outcome: Outcome, stopped: bool, session: Session, recorded: Recorded) -> int:
    """Print the table and what is left to do; the exit status."""
    before = [Failure(one, "", one.reason) for one in made.runs if one.state == "failed"]
    if len(outcome.left) < len(made.runs):
        print(report.brief(recorded, list(made.selected)))
    name = made.study.name

    def say(text: str) -> None:
        session.console.print(text, markup=False, highlight=False, soft_wrap=True)

    for line in failure_lines([*before, *outcome.failed]):
        say(line)
    if outcome.left:
        why = "stopped" if stopped else outcome.why or "the budget is used up"
        say(f"{why}; {len(outcome.left)} runs are left{_complete(made, outcome)}. To go on: {command_to_go_on()}")
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


def _complete(made: Plan, outcome: Outcome) -> str:
    """The seeds that every arm has, in words: ` (all arms have seeds 0-2)`."""
    there = [(one.arm, one.seed) for one in (*outcome.finished, *(run for run in made.runs if run.state in ("done", "evaluated")))]
    lacking = {run.seed for run in made.runs if (run.arm, run.seed) not in there}
    found = [seed for seed in made.seeds if seed not in lacking]
    return f" (all arms have seed{'s' if len(found) > 1 else ''} {ranges(found)})" if found else ""


def ranges(numbers: Sequence[int]) -> str:
    """`0-2, 5`: numbers that follow each other as a range."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


@contextlib.contextmanager
def _alone(workspace: Workspace, study: str, console: Console) -> Iterator[None]:
    """Only one `run` at a time per study and store; a second one waits, and says so. What its trainings shared goes with it."""
    lock = FileLock(workspace.root / "locks" / f"{study}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"another `ablate run` is at the study {study!r}; waiting for it to end (ablate status shows it)", highlight=False)
        lock.acquire()
    try:
        shutil.rmtree(workspace.shelf(study), ignore_errors=True)  # of a run that was killed
        yield
    finally:
        shutil.rmtree(workspace.shelf(study), ignore_errors=True)
        lock.release()


@contextlib.contextmanager
def _stopping(console: Console, shown: Any) -> Iterator[Any]:
    """The first signal asks to stop at the next epoch; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            shown.close()
            raise KeyboardInterrupt
        asked.append(number)
        console.print("stopping after this epoch; once more to stop at once", highlight=False)

    with signals.handled(ask):
        yield lambda: bool(asked)


# --- options ---------------------------------------------------------------------------------------------------------------


def parse_set(text: str) -> tuple[str, Any]:
    """`PATH=VALUE` as a dotted path and the value read as YAML."""
    from ablation.yamlfile import parse

    path, sign, value = text.partition("=")
    if not sign or not path:
        raise ConfigError("--set", f"found {text!r}; expected PATH=VALUE, such as optimizer.lr=1e-3")
    return path.strip(), parse(value, f"--set {path}")


def parse_budget(text: str) -> float:
    """`2h`, `90m`, `1h30m` or `300s` in seconds."""
    seconds = _seconds(text)
    if not seconds:
        raise ConfigError("--budget", f"found {text!r}; expected a time such as 2h, 90m or 1h30m")
    return seconds


def parse_rhythm(text: str) -> Rhythm:
    """`5` as that many epochs, `10m` as that much time."""
    if text.strip().isdecimal() and int(text) > 0:
        return Rhythm(epochs=int(text))
    seconds = _seconds(text)
    if not seconds:
        raise ConfigError("--save-every", f"found {text!r}; expected a count of epochs such as 5, or a time such as 10m")
    return Rhythm(seconds=seconds)


def _seconds(text: str) -> float:
    """The seconds of a time such as 1h30m; 0 where the text is none."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True) if part) if found else 0.0
