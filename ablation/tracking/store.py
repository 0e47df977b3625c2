"""The MLflow store: the only file that knows MLflow. It is written by one process at a time, and everything may be written twice."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlparse

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default blocks a call for four minutes

import pandas as pd
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ablation.errors import StoreError, nearest
from ablation.system.files import to_disk

METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
PLAN = "plan.json"
COLUMN_WIDTH = 200  # pixels, of a column in MLflow's page
VERSION = "ablation.version."  # before a package's name: the tag with its version
CONTEXT = {  # column of the frame of runs -> the tag that it comes from
    "commit": "mlflow.source.git.commit",
    "dirty": "ablation.git.dirty",
    "hardware": "ablation.hardware",
    "device": "ablation.device",
    "precision": "ablation.precision",
    "statistical": "ablation.statistical",
    "command": "ablation.command",
}
COLUMNS = ("arm", "seed", "status", "key", "run_id", "start", "end", "reason", "chosen", *CONTEXT, "versions", "digest")

P = ParamSpec("P")
R = TypeVar("R")


def told(method: Callable[Concatenate["Store", P], R]) -> Callable[Concatenate["Store", P], R]:
    """The same method, MLflow's errors told as ours."""

    @wraps(method)
    def asked(store: "Store", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(store, *args, **kwargs)
        except MlflowException as error:
            raise unusable(store.uri, error) from error

    return asked


def unusable(uri: str, error: Exception) -> StoreError:
    """What the user is told of a store that does not answer as it should."""
    told, parts = str(error), urlparse(uri)
    for secret in filter(None, (parts.query, parts.password, parts.username)):  # MLflow quotes the address in pieces
        told = told.replace(secret, "...")
    return StoreError(f"the store at {without_secrets(uri)} cannot be used: {without_secrets(first_line(told))}")


def without_secrets(text: str) -> str:
    """The text with dots for the user, the password and the query of every web address in it: messages end in logs that others read."""
    return re.sub(r"([\w+.-]+://)[^/@\s]*@", r"\1...@", re.sub(r"([\w+.-]+://[^\s?]*)\?[^\s)'\"]*", r"\1?...", text))


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    value: float
    time: int  # milliseconds
    step: int = 0


@dataclass(frozen=True)
class Recorded:
    """What the store holds of a study: the newest plan, its runs, and the names of runs that it no longer has."""

    study: str
    plan: dict[str, Any]
    runs: pd.DataFrame
    superseded: list[str]
    store: "Store" = field(repr=False)

    def predictions(self, run_id: str) -> pd.DataFrame:
        """The run's predictions: index, label, predicted, logits."""
        path = self.store.artifact(run_id, "predictions.parquet")
        try:
            table = pd.read_parquet(path, page_checksum_verification=True)
            _check_columns([str(name) for name in table.columns])  # whose names no page holds
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise StoreError(f"{path} cannot be read ({first_line(error)}); it may have been damaged since it was written") from None
        return table

    def curves(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """Every point of every curve of these runs: run_id, metric, step, value."""
        metrics = self.runs.set_index("run_id").filter(regex="/")
        names = {run_id: [str(name) for name, value in metrics.loc[run_id].items() if pd.notna(value)] for run_id in run_ids}
        rows = [(run_id, point.name, point.step, point.value) for run_id in run_ids for point in self.store.curves(run_id, names[run_id])]
        return pd.DataFrame(rows, columns=["run_id", "metric", "step", "value"])

    def artifact(self, run_id: str, name: str) -> Path:
        """A file among the run's artifacts; raises StoreError where it is not there."""
        return self.store.artifact(run_id, name)


class Store:
    """A tracking store, opened."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self.root = root
        self.is_remote = urlparse(uri).scheme in ("http", "https", "databricks")
        self.is_shared = uri != f"sqlite:///{root}/mlflow.db"  # then other machines may write, whom no lock of ours holds back
        self.client = MlflowClient(uri)
        self._places: dict[str, str] = {}  # run id -> where its artifacts lie, which never changes

    @classmethod
    def open(cls, root: Path | None = None, *, make: bool = True) -> "Store":
        """The store that MLFLOW_TRACKING_URI names, else the one under `root` (mlruns/); the database is made under a lock.

        With `make` false nothing is made where there is none. Raises StoreError where it cannot be reached.
        """
        root = (root or Path("mlruns")).resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"
        if not make and not cls.is_there(root):
            raise StoreError(f"the store at {uri} holds no study yet; ablate run FILE records one")
        is_ours = uri == f"sqlite:///{root}/mlflow.db"
        try:
            if make:
                root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / "store.lock") if make or is_ours else contextlib.nullcontext():
                if is_ours:
                    make_database(root / "mlflow.db")
                    repoint(root)
                store = cls(uri, root)
                store.client.search_experiments(max_results=1)
        except (MlflowException, OSError, sqlite3.Error) as error:
            raise unusable(uri, error) from error
        return store

    @staticmethod
    def is_there(root: Path | None = None) -> bool:
        """Whether the shell names a store, or there is a database under `root` (mlruns/)."""
        return bool(os.environ.get("MLFLOW_TRACKING_URI")) or ((root or Path("mlruns")) / "mlflow.db").exists()

    # --- studies ---------------------------------------------------------------------------------------------------------

    @told
    def experiment(self, study: str, note: str = "") -> str:
        """The id of the study's experiment, which is made if need be."""
        found = self.client.get_experiment_by_name(study)
        if found is None:
            place = None if self.is_remote else str(self.root / "artifacts" / study)
            identifier = self.client.create_experiment(study, artifact_location=place)
        else:
            identifier = found.experiment_id
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(identifier)
        if note and (found is None or found.tags.get("mlflow.note.content") != note):
            self.client.set_experiment_tag(identifier, "mlflow.note.content", note)
        return str(identifier)

    @told
    def studies(self) -> list[tuple[str, int]]:
        """Every study that a plan was recorded of, with the time of its last change, the newest first."""
        found = [(one.name, int(one.tags["ablation.changed"])) for one in self._experiments() if "ablation.changed" in one.tags]
        return sorted(found, key=lambda one: -one[1])

    @told
    def changed(self, study: str) -> int:
        """When the study was changed last, in milliseconds; 0 where there is no such study."""
        found = self.client.get_experiment_by_name(study)
        return int(found.tags.get("ablation.changed", 0)) if found else 0

    def _experiments(self) -> list[Experiment]:
        return list(self.client.search_experiments(max_results=1000))

    def touch(self, experiment: str) -> None:
        """Note that the study was changed now."""
        self.client.set_experiment_tag(experiment, "ablation.changed", str(int(time.time() * 1000)))

    # --- writing ---------------------------------------------------------------------------------------------------------

    @told
    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Every run of a study as id, status, start, end, tags, params, metrics and its data's digest, the newest first."""
        found, token = [], None
        while True:
            page = self.client.search_runs(
                [experiment], "", ViewType.ACTIVE_ONLY, max_results=1000, order_by=["attributes.start_time DESC"], page_token=token
            )
            found += [_as_dict(run) for run in page]
            self._places |= {run.info.run_id: run.info.artifact_uri for run in page}
            token = page.token
            if not token:
                return found

    @told
    def runs_of(self, study: str) -> list[dict[str, Any]]:
        """The same of the study of that name; none where it has no experiment yet."""
        found = self.client.get_experiment_by_name(study)
        return self.runs(found.experiment_id) if found else []

    @told
    def find(self, experiment: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """The study's runs that have these tags, as `runs` gives them."""
        asked = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if not set(value) & set("'\"\\")]
        page = self.client.search_runs([experiment], " and ".join(asked), ViewType.ACTIVE_ONLY, max_results=1000)
        return [_as_dict(run) for run in page if tags.items() <= run.data.tags.items()]

    def create(self, experiment: str, name: str, tags: Mapping[str, str], start: int) -> str:
        """A new run's id."""
        run = self.client.create_run(experiment, start_time=start, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def write(
        self, run_id: str, points: Iterable[Point] = (), params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Add points, params and tags; a point written before is not doubled, since it has its own time."""
        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        pairs = [Param(name, value[:6000]) for name, value in (params or {}).items()]
        labels = [RunTag(name, value[:5000]) for name, value in (tags or {}).items()]
        while metrics or pairs or labels:
            self.client.log_batch(run_id, metrics[: METRICS_AT_ONCE - 200], pairs[:PARAMS_AT_ONCE], labels[:PARAMS_AT_ONCE])
            metrics, pairs, labels = metrics[METRICS_AT_ONCE - 200 :], pairs[PARAMS_AT_ONCE:], labels[PARAMS_AT_ONCE:]

    def delete(self, run_id: str) -> None:
        """Put a run into MLflow's bin."""
        self.client.delete_run(run_id)

    def finish(self, run_id: str, status: str, end: int) -> None:
        """End a run as FINISHED, FAILED or KILLED, or set it RUNNING again."""
        self.client.update_run(run_id, status=status) if status == "RUNNING" else self.client.set_terminated(run_id, status, end)

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Say which data the run saw."""
        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}))
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def add_files(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Put files among the run's artifacts, under the given names; in a local store as links where that is possible."""
        folder = self._local_folder(run_id)
        for name, path in files.items():
            if folder is None:
                self._upload(run_id, name, path)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                _place(path, folder / name)

    def show_picture(self, run_id: str, key: str, path: Path) -> None:
        """Show a picture in the run's page and in MLflow's grid of images, in place of the one before."""
        from PIL import Image

        folder = self._local_folder(run_id)
        for old in folder.glob(f"images/{key}[+%]*") if folder else ():
            old.unlink()
        with Image.open(path) as image:
            self.client.log_image(run_id, image.convert("RGB"), key=key, step=0)

    def prepare_view(self, experiment: str, name: str, wanted: str, tags: Sequence[str], metrics: Sequence[str]) -> None:
        """A view of the study's runs that MLflow's page opens with `viewStateShareKey=name`: which runs, and which columns."""
        columns = [*(f"tags.`{tag}`" for tag in tags), *(f"metrics.`{metric}`" for metric in metrics), "attributes.`Duration`"]
        view = {
            "searchFilter": wanted,
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": dict.fromkeys(columns, COLUMN_WIDTH),
            "runsHiddenMode": "FIRST_20_RUNS",
        }
        self._set_tag(experiment, f"mlflow.sharedViewState.{name}", json.dumps(view))
        self._set_tag(experiment, "mlflow.experimentKind", "custom_model_development")

    def _set_tag(self, experiment: str, name: str, value: str) -> None:
        if self.client.get_experiment(experiment).tags.get(name) != value:
            self.client.set_experiment_tag(experiment, name, value)

    def _upload(self, run_id: str, name: str, path: Path) -> None:
        if name == path.name:
            self.client.log_artifact(run_id, str(path))
            return
        with tempfile.TemporaryDirectory() as beside:
            self.client.log_artifact(run_id, shutil.copyfile(path, Path(beside) / name))

    def _local_folder(self, run_id: str) -> Path | None:
        if run_id not in self._places:
            self._places[run_id] = self.client.get_run(run_id).info.artifact_uri
        uri = self._places[run_id]
        if uri.startswith("/"):  # a path as it is, whatever characters it has
            return Path(uri)
        return Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else None

    # --- reading ---------------------------------------------------------------------------------------------------------

    @told
    def artifact(self, run_id: str, name: str) -> Path:
        """A file among the run's artifacts; raises StoreError where it is not there."""
        folder = self._local_folder(run_id)
        path = folder / name if folder else None
        if path is None:
            with contextlib.suppress(MlflowException):
                path = Path(self.client.download_artifacts(run_id, name))
        if path is None or not path.exists():
            raise StoreError(
                f"the run {run_id} has no artifact {name}; it may have been deleted from {folder or without_secrets(self.uri)}"
            )
        return path

    @told
    def files(self, run_id: str) -> dict[str, Path]:
        """All files among the run's artifacts, by name."""
        return {one.path: self.artifact(run_id, one.path) for one in self.client.list_artifacts(run_id) if not one.is_dir}

    @told
    def curves(self, run_id: str, metrics: Iterable[str] = ()) -> list[Point]:
        """Every point of the run's metrics that have a history; of a step that was trained again, the later one.

        `metrics` are the names of all the run's metrics, where the caller has them.
        """
        names = [name for name in metrics or self.client.get_run(run_id).data.metrics if name.startswith(("train/", "val/", "watched/"))]
        found = [(name, point) for name in names for point in self.client.get_metric_history(run_id, name)]
        latest = {(name, point.step): point for name, point in sorted(found, key=lambda one: one[1].timestamp)}
        return [Point(name, point.value, point.timestamp, step) for (name, step), point in sorted(latest.items())]

    @told
    def recorded(self, study: str, known: Sequence[Mapping[str, Any]] = ()) -> Recorded:
        """What the store holds of the study of that name; raises StoreError where there is none.

        `known` are its runs where the caller has just looked them up.
        """
        found = self.client.get_experiment_by_name(study)
        if found is None or "ablation.changed" not in found.tags:
            names = [name for name, _ in self.studies()]
            others = f"expected one of {', '.join(names)}" if names else "it holds none yet: ablate run FILE records one"
            raise StoreError(f"the store at {without_secrets(self.uri)} has no study {study!r}; {others}.{nearest(study, names)}")
        runs = list(known) or self.runs(found.experiment_id)
        holder = next((run for run in runs if run["tags"].get("ablation.kind") == "plan"), None)
        if holder is None:
            raise StoreError(f"the study {study!r} has no recorded plan; run it again")
        plan = json.loads(self.artifact(holder["run_id"], PLAN).read_text(encoding="utf-8"))
        frame, superseded = chosen(plan, [run for run in runs if run["tags"].get("ablation.kind") == "run"])
        return Recorded(study, plan, frame, superseded, self)


def chosen(plan: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[str]]:
    """The plan's runs as a frame, one row each, and the names of runs that it no longer has.

    The columns are COLUMNS, and the metrics: these have a slash in their names, and no other column has.
    """
    wanted = {(run["arm"], run["seed"]): run["key"] for run in plan["runs"]}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    superseded = []
    for run in runs:
        tags = run["tags"]
        arm, seed, key = tags["ablation.arm"], int(tags["ablation.seed"]), tags["ablation.key"]
        if wanted.get((arm, seed)) != key:
            superseded.append(f"{arm} {seed}")
        elif (arm, seed) not in rows or run["status"] == "FINISHED" != rows[arm, seed]["status"]:
            rows[arm, seed] = _about(run) | run["metrics"]
    frame = pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=list(COLUMNS))
    return frame, sorted(set(superseded))


def _about(run: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run beside its metrics, by COLUMNS; an empty text where something was not recorded."""
    tags = run["tags"]
    versions = {name.removeprefix(VERSION): value for name, value in sorted(tags.items()) if name.startswith(VERSION)}
    found = {"arm": tags["ablation.arm"], "seed": int(tags["ablation.seed"]), "status": run["status"], "key": tags["ablation.key"]}
    found |= {"run_id": run["run_id"], "start": run["start"], "end": run["end"], "reason": tags.get("ablation.reason", "")}
    found |= {"chosen": tags.get("ablation.chosen", ""), **{column: tags.get(tag, "") for column, tag in CONTEXT.items()}}
    return found | {"versions": json.dumps(versions) if versions else "", "digest": run["digest"]}


def make_database(database: Path) -> None:
    """Make MLflow's tables, unless they are there, beside their place: killed half-way, what is left would be refused for good."""
    if database.exists():
        return
    for folder in database.parent.glob("making-*"):  # of an earlier attempt
        shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix="making-") as folder_name:
        making, whole = Path(folder_name) / "making.db", Path(folder_name) / "whole.db"
        MlflowClient(f"sqlite:///{making}").search_experiments(max_results=1)
        with contextlib.closing(sqlite3.connect(making)) as source, contextlib.closing(sqlite3.connect(whole)) as target:
            source.backup(target)  # a whole copy, whatever MLflow still holds open
        whole.replace(database)


def repoint(root: Path) -> None:
    """Make a database whose folder has moved point to the artifacts beside it."""
    database = root / "mlflow.db"
    if not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        try:
            places = [place for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments") if place]
        except sqlite3.OperationalError:
            return  # a database without tables yet
        for old in places:
            new = f"{root}/artifacts/{Path(old).name}"
            if old == new or not _is_ours(old) or not Path(new).exists():
                continue
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                with contextlib.suppress(sqlite3.OperationalError):  # older databases lack logged_models
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
        connection.commit()


def _is_ours(place: str) -> bool:
    """Whether a place has the form that this store gives: .../artifacts/STUDY."""
    return re.fullmatch(r"/.*/artifacts/[^/]+", place) is not None


def _place(source: Path, target: Path) -> None:
    """The file under another name, whole or not at all."""
    beside = target.with_name(f".{target.name}.part")
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copyfile(source, beside)
        to_disk(beside)
    beside.replace(target)
    beside.unlink(missing_ok=True)  # renaming a link onto the same file leaves it


def _as_dict(run: Any) -> dict[str, Any]:
    info = run.info
    about = {"run_id": info.run_id, "status": info.status, "start": info.start_time, "end": info.end_time, "name": info.run_name}
    seen = [one.dataset.digest for one in run.inputs.dataset_inputs] if run.inputs else []
    found = {"tags": dict(run.data.tags), "params": dict(run.data.params), "metrics": dict(run.data.metrics)}
    return about | found | {"digest": seen[-1] if seen else ""}


def _check_columns(names: Sequence[str]) -> None:
    is_whole = list(names[:3]) == ["index", "label", "predicted"] and len(set(names)) == len(names)
    if not is_whole or not all(name.startswith("logit") for name in names[3:]):
        raise ValueError(f"its columns are {', '.join(names)}")


def first_line(error: object) -> str:
    """The line of an error that says what is wrong; SQLAlchemy may put one about itself before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of")]
    return (lines or ["it does not say why"])[0][:300]
