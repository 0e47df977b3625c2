"""The MLflow store of one run's code: a scratch database that takes what the code logs, read afterwards without MLflow."""

import contextlib
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.tasks.own.definition import Definition
from ablation.tracking.addresses import database_address, folder_address, folder_path
from ablation.tracking.tables import Tables

DATABASE, ARTIFACTS, OWN = "mlflow.db", "artifacts", "own.json"
LONGEST = 200  # letters of a name, of which MLflow takes 250 with what stands before it
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Logged:
    """What the code logged: plain data (points, params, tags and runs), files by their names below `own/`, and what to tell of it.

    `elsewhere` are folders of artifacts that MLflow put into the working folder by itself.
    """

    about: Mapping[str, Any]
    files: Mapping[str, Path]
    elsewhere: Sequence[Path] = ()
    notes: Sequence[str] = ()


def has_our_mlflow(definition: Definition) -> bool:
    """Whether the code runs with the packages of this process: a function, or a command that begins with this environment's Python."""
    program = None if definition.is_function else shutil.which(definition.command[0], path=definition.env.get("PATH"))
    return definition.is_function or (program is not None and Path(program).parent == Path(sys.executable).parent)


def prepare(folder: Path, empty: Path | None) -> dict[str, str]:
    """The environment that has code log into a database in the folder, a copy of the empty one, or one that its own MLflow makes."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / DATABASE
    if empty is not None:
        shutil.copyfile(empty, database)
        _keep_artifacts(database, folder / ARTIFACTS)
    address = database_address(database)
    return {"MLFLOW_TRACKING_URI": address, "MLFLOW_REGISTRY_URI": address}


def _keep_artifacts(database: Path, artifacts: Path) -> None:
    """Have the artifacts of every experiment lie in a folder; MLflow's default is `mlruns` in the working folder, where ours are."""
    where = folder_address(artifacts).replace("'", "''")
    change = f"UPDATE experiments SET artifact_location = '{where}/' || experiment_id"
    is_default = "coalesce(NEW.artifact_location, '') IN ('', 'mlruns') OR NEW.artifact_location LIKE '%mlruns/' || NEW.experiment_id"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(change)
        for event in ("INSERT", "UPDATE OF artifact_location"):
            name = f"own_{event.partition(' ')[0].lower()}"
            then = f"{change} WHERE experiment_id = NEW.experiment_id"
            connection.execute(f"CREATE TRIGGER {name} AFTER {event} ON experiments WHEN {is_default} BEGIN {then}; END")


def collect(folder: Path, working_folder: Path) -> Logged | None:
    """What was logged into the folder's database; None if nothing was. One whose tables are not known here is kept as it is."""
    database = folder / DATABASE
    if not database.exists():
        return None
    try:
        tables = Tables.known(database)
        return _foreign(database) if tables is None else _logged(tables, folder, working_folder)
    except sqlite3.Error:
        return _foreign(database)


def _foreign(database: Path) -> Logged:
    note = f"what the code logged into MLflow, of a version that is not known here, is kept as own/{DATABASE}"
    return Logged({"points": [], "params": {}, "tags": {}, "runs": []}, {DATABASE: database}, notes=(note,))


def _logged(tables: Tables, folder: Path, working_folder: Path) -> Logged | None:
    runs = [run for experiment in tables.experiments() for run in tables.runs(experiment.experiment_id, deleted=False)]
    if not runs:
        return None
    runs.sort(key=lambda run: run["start"] or 0)
    prefixes = _prefixes(runs)
    points: list[list[object]] = []
    for run in runs:
        points += [[_name(prefixes[run["run_id"]], name), *point] for name, *point in tables.history(run["run_id"], (), ("",))]
    about: dict[str, Any] = {"points": points, "params": _named(runs, prefixes, "params"), "tags": _named(runs, prefixes, "tags")}
    about["runs"] = [{"name": run["name"], "prefix": prefixes[run["run_id"]], "status": run["status"]} for run in runs]
    files = {name: path for run in runs for name, path in _files(run["artifacts"], f"{ARTIFACTS}/{prefixes[run['run_id']]}")}
    for models in sorted((folder / ARTIFACTS).glob("*/models")):
        files |= dict(_files(str(models), "models/"))
    return Logged(about, files, [path for run in runs for path in _by_default(run, working_folder)])


def _by_default(run: Mapping[str, Any], working_folder: Path) -> Iterator[Path]:
    """The folder of a run's artifacts if MLflow put it into the working folder, for want of another place."""
    artifacts = folder_path(run["artifacts"] or "")
    if artifacts is not None and artifacts.parent.name == run["run_id"] and artifacts.parents[2] == working_folder / "mlruns":
        yield artifacts.parent


def write(logged: Logged, part: Path) -> None:
    """Write the plain data into `own/` of a result."""
    (part / "own").mkdir(exist_ok=True)
    (part / "own" / OWN).write_text(json.dumps(logged.about), encoding="utf-8")


def _prefixes(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """run -> what stands before its names: nothing for the first run that is in no other, and the names of the others, each its own."""
    by_id = {run["run_id"]: run for run in runs}
    prefixes: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: len(_ancestors(run, by_id))):
        above = prefixes.get(run["tags"].get(PARENT, ""), "")
        is_main = not prefixes and run["tags"].get(PARENT) not in by_id
        plain = re.sub(r"[^\w .-]", "_", run["name"] or "run").strip(". ") or "run"
        taken = {*prefixes.values(), *(f"{name.partition('/')[0]}/" for other in runs for name in (*other["metrics"], *other["params"]))}
        candidates = (f"{above}{plain}{f'-{i}' if i > 1 else ''}/" for i in range(1, len(runs) + len(taken) + 2))
        prefixes[run["run_id"]] = "" if is_main else next(name for name in candidates if name not in taken)
    return prefixes


def _ancestors(run: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The runs that a run is nested in."""
    above: list[str] = []
    while (parent := run["tags"].get(PARENT)) in by_id and parent not in above:
        above.append(parent)
        run = by_id[parent]
    return above


def _named(runs: Sequence[Mapping[str, Any]], prefixes: Mapping[str, str], kind: str) -> dict[str, Any]:
    """The params or tags of all runs by name, without what MLflow notes itself."""
    return {
        _name(prefixes[run["run_id"]], name): value
        for run in runs
        for name, value in run[kind].items()
        if kind != "tags" or not name.startswith("mlflow.")
    }


def _name(prefix: str, name: str) -> str:
    return f"{prefix}{name}"[-LONGEST:].lstrip("/")


def _files(address: str, prefix: str) -> Iterator[tuple[str, Path]]:
    """The files of a run's artifacts, each with its name; none of a store elsewhere."""
    folder = folder_path(address)
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            yield f"{prefix}{path.relative_to(folder).as_posix()}", path  # type: ignore[arg-type]
