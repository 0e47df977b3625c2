"""What the commands do. cli.py only reads their options; heavy libraries are imported from here on."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from ablation import explain, report
from ablation.config import Arm
from ablation.errors import AblateError, ConfigError, DataError, StoreError, unknown_name
from ablation.executors.local import LocalExecutor
from ablation.invocation import command_line, command_to_go_on
from ablation.matrix import load_study, select_names
from ablation.plan import Plan, describe, make_plan, with_choices
from ablation.preparation import Preparation, Workspace, devices, note_speed, num_cores, speed_key
from ablation.progress import Board, view
from ablation.recorder import Recorder
from ablation.scheduler import Outcome, execute
from ablation.techniques.technique import allow_code
from ablation.tracking.store import Point, Recorded, Store
from ablation.worker import device_name

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
        """How many runs share a device: --jobs, else as many as there are cores on a CPU, and one elsewhere."""
        if self.options.jobs:
            return self.options.jobs
        return num_cores() if self.devices[0].type == "cpu" else 1

    @property
    def num_slots(self) -> int:
        """How many runs go at once."""
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
        past = self.workspace.past(known)
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

    def _decoding(self, what: str, done: int, total: int) -> None:
        if self.console.is_terminal:
            self.console.print(f"{what}: {done:,}/{total:,}", end="\r" if done < total else "\n", highlight=False)
        elif done in (0, total):
            self.console.print(f"{what}: {total:,} images{'' if done else ' to do'}", highlight=False)


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if any(seed < 0 for seed in seeds):
        raise ConfigError("--seed", f"found {min(seeds)}; expected numbers from 0")
    return tuple(dict.fromkeys(seeds))


def plan(options: Options, *, as_json: bool) -> int:
    """Print the plan."""
    console = Console(stderr=True)
    session = Session(options, console)
    session.check()
    made = session.plan(Store.open().runs_of(session.study.name), probe=True)
    if as_json:
        print(json.dumps(describe(made, session.preparation.surroundings), indent=1))
    else:
        print(explain.full(made, session.num_slots))
    return DONE


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
    with _alone(session.workspace.root, session.study.name, console), contextlib.ExitStack() as stack:
        with _starting():
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
            session.workspace.forget([key for key, node in made.nodes.items() if node.state != "done"], [one.key for one in made.waiting])
        recorder = Recorder(store, made, session.preparation.surroundings, session.workspace, command_line())
        recorder.begin(known)
        for one in made.runs:
            if one.state == "evaluated":
                recorder.finished(one)
        outcome, stopped = _carry_out(made, session, executor, recorder) if executor else (Outcome(), False)
        is_written = _close(recorder, session)
        outcome.failed.extend(recorder.refused)
        is_unchanged = all(one.state == "done" for one in made.runs)
        try:
            status = _tell(made, outcome, stopped, session, store.recorded(session.study.name, known if is_unchanged else ()))
        except StoreError:
            if is_written:
                raise
            status = FAILED  # the store did not even take the plan, which was said above
        return status if is_written else max(status, FAILED)


def _carry_out(made: Plan, session: Session, executor: LocalExecutor, recorder: Recorder) -> tuple[Outcome, bool]:
    """Train and test what is waiting; the outcome, and whether the user stopped it."""
    shown, notes = view(made, session.num_slots, session.console), Notes(made, session)
    try:
        with _stopping(session.console, shown) as should_stop:
            budget = session.options.budget
            outcome = execute(made, executor, recorder, lambda event: notes(event, shown), should_stop=should_stop, budget=budget)
            stopped = should_stop()
    except BaseException:
        recorder.interrupted("ended at once")
        recorder.close()
        raise
    finally:
        shown.close()
        notes.close()
    if outcome.left:
        recorder.interrupted("stopped by the user" if stopped else "the budget was used up")
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

    def __init__(self, made: Plan, session: Session) -> None:
        self.made, self.session = made, session
        self.path = session.workspace.root / "status" / f"{made.study.name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.written = 0.0
        self.board: Board | None = None

    def __call__(self, event: dict[str, Any], shown: Any) -> None:
        """Pass an event on to the display, and take note of it."""
        shown(event)
        self.board = shown.board
        if event["kind"] == "epoch":
            node = self.made.nodes[event["stage"]]
            name = speed_key(node.job.stage, device_name(self.session.devices[0]))
            with contextlib.suppress(OSError):
                note_speed(self.session.workspace.speeds, name, 1 / max(event["row"]["images_per_second"], 1e-9))
        if time.monotonic() - self.written > 1:
            self.write("running")

    def write(self, state: str) -> None:
        """The state of the matrix in a file, whole."""
        self.written = time.monotonic()
        about = {"state": state, "pid": os.getpid(), "time": time.time(), **(self.board.snapshot() if self.board else {})}
        beside = self.path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not end the training
            beside.write_text(json.dumps(about), encoding="utf-8")
            beside.replace(self.path)

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
    before = [(one, one.reason) for one in made.runs if one.state == "failed"]
    if len(outcome.left) < len(made.runs):
        print(report.brief(recorded, list(made.selected)))
    name = made.study.name

    def say(text: str) -> None:
        session.console.print(text, markup=False, highlight=False, soft_wrap=True)

    for one, reason in [*before, *outcome.failed]:
        say(f"failed: {one.arm} seed {one.seed}: {reason}")
    if outcome.left:
        why = "stopped" if stopped else "the budget is used up"
        say(f"{why}; {len(outcome.left)} runs are left. To go on: {command_to_go_on()}")
    else:
        where = f"{session.options.file}" + (f" --profile {session.options.profile}" if session.options.profile else "")
        say(f"full report: ablate report {where} --output report/{name} · charts: ablate ui")
    if outcome.left:
        return INTERRUPTED
    return FAILED if before or outcome.failed else DONE


@contextlib.contextmanager
def _alone(root: Path, study: str, console: Console) -> Iterator[None]:
    """Only one `run` at a time per study and store; a second one waits, and says so."""
    lock = FileLock(root / "locks" / f"{study}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"another `ablate run` is at the study {study!r}; waiting for it to end (ablate status shows it)", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """SIGINT ends the command, even where a library that is being imported swallows it."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _stopping(console: Console, shown: Any) -> Iterator[Any]:
    """SIGINT and SIGTERM ask to stop at the next epoch; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            shown.close()
            raise KeyboardInterrupt
        asked.append(number)
        console.print("stopping after this epoch; once more to stop at once", highlight=False)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- looking ---------------------------------------------------------------------------------------------------------------


def study_name(file: Path | None, profile: str | None, store: Store) -> str:
    """The study of a file and profile, or the one that was run last."""
    if file is not None:
        from ablation.config import load

        written = load(file)
        if profile is not None and profile not in written.profiles:
            raise unknown_name("profiles", "profile", profile, written.profiles)
        return f"{written.study}.{profile}" if profile else written.study
    if profile is not None:
        raise ConfigError("--profile", "needs the study's file beside it")
    studies = store.studies()
    if not studies:
        raise AblateError(f"the store at {store.uri} holds no study yet; ablate run FILE records one")
    return studies[0][0]


def write_report(
    file: Path | None, profile: str | None, form: str, output: Path | None, arms: Sequence[str], metric: str, reference: Path | None
) -> int:
    """Print a study's report, or write it into a folder."""
    store = Store.open()
    recorded = store.recorded(study_name(file, profile, store))
    text = report.write(recorded, form, output, metric, list(arms), references=reference)
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        Console(stderr=True).print(f"written to {output}", highlight=False)
    return DONE


def status(*, follow: bool) -> int:
    """Print how every study that is being run, or was run last, stands."""
    console = Console()
    while True:
        found = sorted(Path("mlruns/status").glob("*.json"), key=lambda path: -path.stat().st_mtime)
        if not found:
            raise AblateError("nothing was run here yet; ablate run FILE runs a study")
        alive = [path for path in found if _is_held(Path("mlruns/locks") / f"{path.stem}.lock")]
        for path in alive or found[:1]:
            console.print(_status_text(path, is_alive=path in alive), markup=False, highlight=False)
        if not (follow and alive):
            return DONE
        time.sleep(2)


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _status_text(path: Path, *, is_alive: bool) -> str:
    from ablation.progress import row_words

    about = json.loads(path.read_text(encoding="utf-8"))
    state = "running" if is_alive else "not running"
    lines = [f"{path.stem}: {state} (pid {about['pid']}) · {about.get('headline', 'starting')}"]
    for row in about.get("running", []) if is_alive else []:
        epoch, loss, rate = row_words(row)
        lines.append(f"  {row['name']}: {epoch}" + (f", loss {loss}, {rate} images/s" if loss else ""))
    lines += [f"  failed: {text}" for text in about.get("failed", [])]
    return "\n".join(lines)


def log(arm: str, seed: int, file: Path | None, profile: str | None) -> int:
    """Print what is known of one run: its state, its epochs, and why it failed."""
    store = Store.open()
    name = study_name(file, profile, store)
    recorded = store.recorded(name)
    planned = next((run for run in recorded.plan["runs"] if (run["arm"], run["seed"]) == (arm, seed)), None)
    if planned is None:
        arms = [one["name"] for one in recorded.plan["arms"]]
        if arm not in arms:
            raise unknown_name("ARM", "arm", arm, arms)
        raise ConfigError("SEED", f"found {seed}; the newest plan of {name} has {', '.join(map(str, recorded.plan['seeds']))}")
    rows = recorded.runs
    found = rows[(rows["arm"] == arm) & (rows["seed"] == seed)].to_dict("records")
    print(f"{name}: {arm} seed {seed}: {found[0]['status'].lower() if found else planned['state']} (key {planned['key'][:8]})")
    points = store.curves(found[0]["run_id"]) if found else []
    for step in sorted({point.step for point in points}):
        print(_epoch_text({point.name: point for point in points if point.step == step}, step))
    if not points:
        print("no epoch is recorded yet (ablate status shows what is under way)")
    if found and found[0]["reason"]:
        print(f"reason: {found[0]['reason']}")
        with contextlib.suppress(AblateError):
            print(store.artifact(found[0]["run_id"], "error.txt").read_text(encoding="utf-8"))
    return DONE


def _epoch_text(points: Mapping[str, Point], step: int) -> str:
    """One epoch's line: when it ended, loss, learning rate, and what was watched."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(point.time for point in points.values()) / 1000))
    values = "".join(f"  {name.removeprefix('train/')} {point.value:.4g}" for name, point in sorted(points.items()))
    return f"{when}  epoch {step + 1:>3}{values}"


def clean(*, everything: bool) -> int:
    """Delete trained stages and results that are recorded; with `everything`, those of unfinished work and the decoded data too."""
    workspace, store = Workspace(Path("mlruns").resolve()), Store.open()
    held = [path.stem for path in (workspace.root / "locks").glob("*.lock") if _is_held(path)]
    if held:
        raise AblateError(f"{', '.join(held)} is being run; nothing was deleted")
    plans = [store.recorded(study) for study, _ in store.studies()]
    runs = [run for one in plans for run in store.runs_of(one.study)]
    recorded = {run["tags"].get("ablation.key") for run in runs if run["status"] == "FINISHED"}
    folders = [path for path in workspace.results.glob("*") if everything or path.name in recorded or path.suffix == ".part"]
    unfinished = {path.parent.name for path in workspace.stages.glob("*/checkpoint.safetensors")}.union(*map(_unfinished, plans))
    folders += [path for path in workspace.stages.glob("*") if everything or path.name not in unfinished]
    folders += [workspace.data] if everything and workspace.data.exists() else []
    freed = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    Console(stderr=True).print(f"deleted {len(folders)} folders, {explain.size(freed)}; what is recorded stays", highlight=False)
    return DONE


def _unfinished(recorded: Recorded) -> set[str]:
    """The stages of a study's newest plan that a run still needs which is not recorded as finished."""
    finished = recorded.runs[recorded.runs["status"] == "FINISHED"]
    done = set(zip(finished["arm"], finished["seed"], strict=True))
    left = {(run["arm"], run["seed"]) for run in recorded.plan["runs"]} - done
    return {stage["key"] for stage in recorded.plan["stages"] if any((arm, stage["seed"]) in left for arm in stage["arms"])}


def techniques(name: str | None, *, as_page: bool) -> int:
    """Print what there is to know of a technique, of a family, or of all of them."""
    from ablation import catalogue

    sys.stdout.write(catalogue.markdown() if as_page else catalogue.terminal(name) if name else catalogue.overview())
    return DONE


def check_technique(family: str, technique: str, *, with_code: bool) -> int:
    """Print how a technique fares with its family's contract; 1 where it breaks it."""
    from ablation import catalogue, contracts
    from ablation.yamlfile import parse

    if with_code:
        allow_code()
    results = list(contracts.check(catalogue.family_of(family), parse(technique, "TECHNIQUE")))
    print(contracts.report(results))
    return DONE if all(one.passed for one in results) else FAILED


def schema() -> int:
    """Print the JSON schema of the file."""
    from ablation.schema import study_schema

    print(json.dumps(study_schema(), indent=1))
    return DONE


def ui(host: str, port: int) -> int:
    """Serve MLflow's UI over the store, on this machine only unless told otherwise."""
    import importlib.util
    import subprocess

    store = Store.open()
    if store.is_remote:
        print(f"the store is a server; its UI is at {store.uri}")
        return DONE
    if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("flask") is None:
        raise AblateError("MLflow's server is not installed here (only its client is); install mlflow, or copy mlruns/ to where it is")
    console = Console(stderr=True)
    console.print(f"MLflow's UI, on {host} only; Ctrl-C ends it. Studies:", highlight=False)
    for name, _ in store.studies():
        page = f"http://{host}:{port}/#/experiments/{store.experiment(name)}/runs"
        only_arms = "searchFilter=tags.%60ablation.kind%60%20%3D%20%27summary%27"
        console.print(f"  {name}: every run  {page}", highlight=False, soft_wrap=True)
        console.print(f"  {' ' * len(name)}  arms only  {page}?{only_arms}", highlight=False, soft_wrap=True)
        console.print(f"  {' ' * len(name)}  charts     {page}?{only_arms}&compareRunsMode=CHART", highlight=False, soft_wrap=True)
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store.uri,
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--default-artifact-root", str(store.root / "artifacts")]
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return DONE


def parse_set(text: str) -> tuple[str, Any]:
    """`PATH=VALUE` as a dotted path and the value read as YAML."""
    from ablation.yamlfile import parse

    path, sign, value = text.partition("=")
    if not sign or not path:
        raise ConfigError("--set", f"found {text!r}; expected PATH=VALUE, such as optimizer.lr=1e-3")
    return path.strip(), parse(value, f"--set {path}")


def parse_budget(text: str) -> float:
    """`2h`, `90m`, `1h30m` or `300s` in seconds."""
    import re

    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True) if part) if found else 0.0
    if not seconds:
        raise ConfigError("--budget", f"found {text!r}; expected a time such as 2h, 90m or 1h30m")
    return seconds
