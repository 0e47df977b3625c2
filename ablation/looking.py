"""What the commands do that train nothing: they look at the store, or at what there is."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablation import explain
from ablation.errors import AblateError, ConfigError, StoreError, unknown_name
from ablation.preparation import Workspace
from ablation.techniques.technique import allow_code
from ablation.tracking.store import Point, Recorded, Store, without_secrets
from ablation.watching import is_held, watch, write

if TYPE_CHECKING:
    from ablation.export import Result
    from ablation.report import tables

DONE, FAILED = 0, 1  # exit statuses
ARMS_VIEW = "&viewStateShareKey=arms"  # the view that the recorder prepares: one row per arm


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
        raise AblateError(f"the store at {without_secrets(store.uri)} holds no study yet; ablate run FILE records one")
    return studies[0][0]


def _recorded(file: Path | None, profile: str | None) -> "tables.Recorded":
    """What is recorded of a study: in its zip, or in the store under its file's name, or of the study that was run last."""
    if file is not None and file.suffix == ".zip":
        from ablation.report import packed

        if profile is not None:
            raise ConfigError("--profile", f"found {profile} beside {file}; expected none, since a zip holds one study")
        return packed.read(file)
    store = Store.open(make=False)
    return store.recorded(study_name(file, profile, store))


@dataclass(frozen=True)
class ReportOptions:
    """What `ablate report` was asked for; `form` is None where the command does not say it."""

    form: str | None
    output: Path | None
    arms: Sequence[str]
    metric: str
    sort: str | None
    only_changed: bool
    reference: Path | None


def report_on(file: Path | None, profile: str | None, options: ReportOptions, *, check: Path | None, watching: bool) -> int:
    """Print a study's report, write it into a folder, hold an earlier one against the store, or show the table as it fills."""
    if check is not None and (watching or options.output is not None):
        raise ConfigError("--check", f"found it beside {'--watch' if watching else '--output'}; expected it alone, since it writes nothing")
    if watching:
        return watch(lambda: _recorded(file, profile), options)
    if check is not None:
        return _check_report(file, profile, check, options)
    text = write(_recorded(file, profile), options)
    if options.output is None:
        sys.stdout.write(text)
    else:
        Console(stderr=True).print(f"written to {options.output}", highlight=False)
    return DONE


def _check_report(file: Path | None, profile: str | None, path: Path, options: ReportOptions) -> int:
    """Say on stderr whether the document still says what the store says; 1 where it does not.

    The study is the one that the document names, unless the command does.
    """
    from ablation.report.check import check, read
    from ablation.report.sections import Shown

    reference = str(options.reference) if options.reference else ""
    document = read(path, options.form, Shown(options.metric, tuple(options.arms), options.sort or "", options.only_changed, reference))
    named = document.study if file is None and profile is None else None
    recorded = Store.open(make=False).recorded(named) if named else _recorded(file, profile)
    count, diff = check(recorded, path, document)
    if not count:
        print(f"{path} matches the store", file=sys.stderr)
        return DONE
    print(f"{diff}\n{path} does not match the store: {count} {'line differs' if count == 1 else 'lines differ'}", file=sys.stderr)
    return FAILED


def status(*, follow: bool) -> int:
    """Print how every study that is being run, or was run last, stands."""
    console = Console()
    while True:
        found = sorted(Path("mlruns/status").glob("*.json"), key=lambda path: -path.stat().st_mtime)
        if not found:
            raise AblateError("nothing was run here yet; ablate run FILE runs a study")
        alive = [path for path in found if is_held(Path("mlruns/locks") / f"{path.stem}.lock")]
        for path in alive or found[:1]:
            console.print(_status_text(path, is_alive=path in alive), markup=False, highlight=False)
        if not (follow and alive):
            return DONE
        time.sleep(2)


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
    recorded = _recorded(file, profile)
    name = recorded.study
    planned = next((run for run in recorded.plan["runs"] if (run["arm"], run["seed"]) == (arm, seed)), None)
    if planned is None:
        arms = [one["name"] for one in recorded.plan["arms"]]
        if arm not in arms:
            raise unknown_name("ARM", "arm", arm, arms)
        raise ConfigError("SEED", f"found {seed}; the newest plan of {name} has {', '.join(map(str, recorded.plan['seeds']))}")
    rows = recorded.runs
    found = rows[(rows["arm"] == arm) & (rows["seed"] == seed)].to_dict("records")
    print(f"{name}: {arm} seed {seed}: {found[0]['status'].lower() if found else planned['state']} (key {planned['key'][:8]})")
    points = _points(recorded, found[0]["run_id"]) if found else []
    for step in sorted({point.step for point in points}):
        print(_epoch_text({point.name: point for point in points if point.step == step}, step))
    if not points:
        print("no epoch is recorded yet (ablate status shows what is under way)")
    if found and found[0]["reason"]:
        print(f"reason: {found[0]['reason']}")
        with contextlib.suppress(AblateError):
            print(recorded.artifact(found[0]["run_id"], "error.txt").read_text(encoding="utf-8"))
    return DONE


def _points(recorded: "tables.Recorded", run_id: str) -> list[Point]:
    """A run's curves with their times."""
    from ablation.report.packed import Packed

    if isinstance(recorded, Recorded):
        return recorded.store.curves(run_id)
    assert isinstance(recorded, Packed), recorded
    rows = recorded.points([run_id]).to_dict("records")
    return [Point(row["metric"], row["value"], int(row["time"]), int(row["step"])) for row in rows]


def _epoch_text(points: Mapping[str, Point], step: int) -> str:
    """One epoch's line: when it ended, loss, learning rate, and what was watched."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(point.time for point in points.values()) / 1000))
    values = "".join(f"  {name.removeprefix('train/')} {point.value:.4g}" for name, point in sorted(points.items()))
    return f"{when}  epoch {step + 1:>3}{values}"


def compare(arm: str, other: str, file: Path | None, profile: str | None, metric: str) -> int:
    """Print two arms beside one another: settings, results, classes, test images, runs."""
    from tabulate import tabulate

    from ablation.report import comparing

    recorded = _recorded(file, profile)
    parts = comparing.compare(recorded, arm, other, metric)
    title = Console(highlight=False, markup=False, soft_wrap=True)
    title.print(f"{recorded.study}: {arm} against {other}", style="bold")
    for part in parts:
        title.print(f"\n{part.title}", style="bold")
        if part.rows:
            print(tabulate(part.rows, part.columns, tablefmt="simple", disable_numparse=True))
        for note in part.notes:
            print(note)
    return DONE


def export(arm: str, folder: Path, seed: int | None, file: Path | None, profile: str | None) -> int:
    """Write one run's model, with all that it takes to use it, into a folder."""
    from ablation.export import write_model

    recorded = _recorded(file, profile)
    result = _result(recorded, arm, seed)
    write_model(result, Workspace(Path("mlruns").resolve()).data, folder)
    whose = f"{arm} seed {result.seed}" + (f" ({result.chosen})" if result.chosen else "")
    accuracy = f"test accuracy {100 * result.metrics['test/accuracy']:.2f} %"
    told = f"written to {folder}: {whose}, run {result.run}, {accuracy}; ablation.load({str(folder)!r}) reads it"
    Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
    return DONE


def _result(recorded: "tables.Recorded", arm: str, seed: int | None) -> "Result":
    """What a run left, as far as an export takes it; without a seed that of the first one done."""
    import pandas as pd

    from ablation.export import WEIGHTS, Result
    from ablation.yamlfile import read

    row = _done(recorded, arm, seed)
    try:
        weights = recorded.artifact(row["run_id"], WEIGHTS)
    except StoreError as error:
        reason = "it is not there where the study says keep: none, and never in a zip"
        raise AblateError(f"{arm} seed {row['seed']} cannot be exported: {error}; {reason}") from None
    seen = pd.read_csv(recorded.artifact(row["run_id"], "class_distribution.csv"), dtype=str, keep_default_na=False)
    stage = read(recorded.artifact(row["run_id"], "config.yaml"))["stages"][-1]
    metrics = {str(name): float(value) for name, value in row.items() if "/" in str(name) and pd.notna(value)}
    digest = recorded.runs.set_index("run_id").loc[row["run_id"]].get("digest", "")
    about = (recorded.study, arm, int(row["seed"]), row["run_id"], row["chosen"])
    return Result(*about, stage, seen["class"].tolist(), [int(count) for count in seen["train"]], metrics, digest, weights)


def _done(recorded: "tables.Recorded", arm: str, seed: int | None) -> Mapping[Any, Any]:
    """The row of an arm's run that is done: of this seed, or of the first one."""
    from ablation.report.tables import run_rows

    names = [one["name"] for one in recorded.plan["arms"]]
    if arm not in names:
        raise unknown_name("ARM", "arm", arm, names)
    rows = [row for row in run_rows(recorded).to_dict("records") if row["arm"] == arm and row["state"] == "done"]
    if not rows:
        raise AblateError(f"{arm} has no finished run; ablate run trains what is missing")
    found = [row for row in rows if seed in (None, row["seed"])]
    if not found:
        raise ConfigError("--seed", f"found {seed}; expected one of those that are done: {', '.join(str(row['seed']) for row in rows)}")
    return found[0]


def pack(target: Path, file: Path | None, profile: str | None) -> int:
    """Write a study without weights into one zip."""
    from ablation.report import packed

    if target.suffix != ".zip":
        raise ConfigError("FILE.zip", f"found {target}; expected a name that ends in .zip")
    if file is not None and file.suffix == ".zip":
        raise ConfigError("--file", f"found {file}, which is packed already; expected the study's file")
    store = Store.open(make=False)
    name = study_name(file, profile, store)
    known = store.runs_of(name)
    recorded = store.recorded(name, known)
    plan = next(run for run in known if run["tags"].get("ablation.kind") == "plan")
    packed.write(recorded, store.artifact(plan["run_id"], packed.WRITTEN), target)
    size = explain.size(target.stat().st_size)
    told = f"{name}: {len(recorded.runs)} runs in {target} ({size}), without weights; ablate report {target} reads it anywhere"
    Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
    return DONE


def clean(*, everything: bool) -> int:
    """Delete trained stages and results that are recorded; with `everything`, those of unfinished work and the decoded data too."""
    workspace = Workspace(Path("mlruns").resolve())
    with workspace.held_off() as running:  # to the end, so that no run begins with what is about to be deleted
        if running:
            raise AblateError(f"{', '.join(running)} is being run; nothing was deleted")
        return _cleaned(workspace, everything=everything)


def _cleaned(workspace: Workspace, *, everything: bool) -> int:
    plans = _plans()
    runs = [run for one in plans for run in one.store.runs_of(one.study)]
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


def _plans() -> list[Recorded]:
    """Every study in the store; none where there is no store."""
    if not Store.is_there():
        return []
    store = Store.open(make=False)
    return [store.recorded(study) for study, _ in store.studies()]


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


def _reach(host: str) -> str:
    """Who can open a page that is served at this address, in words."""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        return f"on {host}, for this machine only"
    return f"on {host}: whoever reaches that address can read and change the store, since no password is asked for"


def ui(host: str, port: int) -> int:
    """Serve MLflow's UI over the store, on this machine only unless told otherwise."""
    import importlib.util
    import subprocess

    store = Store.open()
    if store.is_remote:
        print(f"the store is a server; its UI is at {without_secrets(store.uri)}")
        return DONE
    if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("flask") is None:
        raise AblateError("MLflow's server is not installed here (only its client is); install mlflow, or copy mlruns/ to where it is")
    console = Console(stderr=True)
    console.print(f"MLflow's UI, {_reach(host)}; Ctrl-C ends it. Studies:", highlight=False, soft_wrap=True)
    for name, _ in store.studies():
        page = f"http://{host}:{port}/#/experiments/{store.experiment(name)}/runs?workflowType=machine_learning"
        for what, link in (("every run", page), ("arms", f"{page}{ARMS_VIEW}"), ("charts", f"{page}{ARMS_VIEW}&compareRunsMode=CHART")):
            console.print(f"  {name}: {what:<9} {link}", highlight=False, soft_wrap=True)
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--default-artifact-root", str(store.root / "artifacts")]
    with subprocess.Popen(command, env=environment) as server:
        before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return DONE
        finally:
            signal.signal(signal.SIGTERM, before)
