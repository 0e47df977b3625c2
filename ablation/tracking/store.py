"""The MLflow store; only this file, `api`, `transactions` and `rows` import MLflow. One process writes at a time; twice does no harm.

MLflow is imported with the first call that needs it, since that takes over a second: a local database is read without it.
"""

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # with the default, a call may block for four minutes

from filelock import FileLock

from ablation.errors import StoreError
from ablation.system.files import link_or_copy
from ablation.tracking import addresses, texts, thumbnails, views
from ablation.tracking.addresses import database_address, database_path, folder_address, folder_path, named_address, store_address
from ablation.tracking.api import Api, as_dict, batches, data_input, mlflow_errors, raises_store_errors, upload, without_artifacts
from ablation.tracking.database import moved, repoint, tell_if_busy
from ablation.tracking.experiments import CHANGED, STUDY, experiment_of, studies_of, unknown
from ablation.tracking.messages import unusable, without_secrets
from ablation.tracking.new_database import make_database
from ablation.tracking.recorded import SUPERSEDED, Point, Recorded, recorded_of
from ablation.tracking.rows import NewRun, are_known, end_runs, fitting, insert_runs, missing, tag_values
from ablation.tracking.tables import Experiment, Tables
from ablation.tracking.transactions import one_transaction

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CURVES = ("train/", "val/", "watched/")  # the beginnings of the names of metrics that have a history
R = TypeVar("R")


class Store:
    """An open tracking store."""

    def __init__(self, uri: str, root: Path, moved_to: Mapping[str, str]) -> None:
        self.uri = uri
        self.root = root
        self.is_remote = urlparse(uri).scheme in ("http", "https", "databricks")
        self.is_shared = uri != database_address(root / "mlflow.db")  # with other machines, which none of our locks keeps from writing
        self.api = Api(uri)
        self.is_file = (file := database_path(uri)) is not None  # whether it is an SQLite database, whose artifacts are files
        self.tables = Tables.known(None if "?" in uri else file)  # None where MLflow is asked for everything
        self._artifact_uris: dict[str, str] = {}  # by run id; they never change
        self._moved_to = moved_to  # artifact locations that are elsewhere by now

    @classmethod
    def open(cls, root: Path | None = None, *, make: bool = True, study: str = "") -> "Store":
        """The store that MLFLOW_TRACKING_URI names, else the one in `root` (mlruns/), whose database is made under a lock.

        With `make` false nothing is made, locked or written. `study` is the one that this process runs, if any: of other studies that are
        run meanwhile, the record is left as it is. Raises StoreError if there is no store, or if it cannot be reached.
        """
        root = (root or Path("mlruns")).resolve()
        uri = store_address(root)
        if not make and not cls.is_there(root):
            raise StoreError(f"the store at {uri} holds no study yet; ablate run FILE records one")
        is_ours, file = uri == database_address(root / "mlflow.db"), None if "?" in uri else database_path(uri)
        tell_if_busy(file)
        try:
            if make:
                root.mkdir(parents=True, exist_ok=True)
                with FileLock(root / "store.lock"):
                    if is_ours:
                        make_database(root / "mlflow.db")
                    if file is not None:
                        repoint(root, file, but=study)
            store = cls(uri, root, {} if file is None else moved(root, file))
            if store.tables is None:
                with FileLock(f"{file}.lock") if make and file else contextlib.nullcontext():  # MLflow would let two make the tables
                    store.check()
        except mlflow_errors(OSError, sqlite3.Error) as error:
            raise unusable(uri, error) from error
        return store

    def check(self) -> None:
        """Raise StoreError if MLflow cannot use the store, before anything is begun whose results are to be written there."""
        self.reach()
        try:
            self.api.check()
        except mlflow_errors(OSError, sqlite3.Error) as error:
            raise unusable(self.uri, error) from error

    def reach(self) -> None:
        """Raise StoreError for a server that says nothing."""
        if self.uri.startswith("http") and addresses.is_silent(self.uri):
            raise unusable(self.uri, TimeoutError(f"it says nothing for {addresses.SOON:.0f} s"))

    @property
    def client(self) -> "MlflowClient":
        """MLflow's client, which writes."""
        return self.api.client

    def _read(self, read: Callable[[Tables | Api], R]) -> R:
        """What the tables of a local database answer, or else MLflow."""
        if self.tables is not None:
            with contextlib.suppress(sqlite3.Error):
                return read(self.tables)
        return read(self.api)

    @staticmethod
    def is_there(root: Path | None = None) -> bool:
        """Whether MLFLOW_TRACKING_URI names a server, or a database that is there, or else one is in `root` (mlruns/)."""
        named = named_address()
        file = database_path(named) if named else (root or Path("mlruns")) / "mlflow.db"
        return file is None or file.exists()

    # --- studies ---------------------------------------------------------------------------------------------------------

    @raises_store_errors
    def experiment(self, study: str, note: str = "") -> str:
        """The id of the study's experiment, which is made or restored if necessary."""
        experiment = self._find(study)
        if experiment is None:
            identifier = self._made(study)
        else:
            identifier = experiment.experiment_id
            if experiment.lifecycle_stage != "active":
                self.client.restore_experiment(identifier)
            if STUDY not in experiment.tags:  # recorded by an earlier version
                self.client.set_experiment_tag(identifier, STUDY, study)
        if note and (experiment is None or experiment.tags.get("mlflow.note.content") != note):
            self.client.set_experiment_tag(identifier, "mlflow.note.content", note)
        return str(identifier)

    def _made(self, study: str) -> str:
        """The id of the experiment of a study that has none, unless another process makes it at the same time."""
        client = self.client  # imported before the lock is taken
        with FileLock(self.root / "store.lock"):
            experiment = self._find(study)
            return experiment.experiment_id if experiment else client.create_experiment(study, self._location(study), {STUDY: study})

    @raises_store_errors
    def restore(self, study: str) -> str:
        """Restore the study if it was deleted in MLflow, so that its runs count; what was changed there, in words, "" if nothing."""
        experiment = self._find(study)
        if experiment is None:
            return ""
        if experiment.lifecycle_stage != "active":
            self.client.restore_experiment(experiment.experiment_id)
            return f"the study {study!r} was deleted in MLflow and is restored, with its runs"
        return f"the study {study!r} is called {experiment.name!r} in MLflow by now and goes on there" if experiment.name != study else ""

    def _find(self, study: str) -> Experiment | None:
        """The study's experiment, active or deleted; raises StoreError where its name is taken by others."""
        return self._read(lambda source: experiment_of(source, study, self._location(study)))

    def _location(self, study: str) -> str | None:
        """Where the artifacts of a new study lie; None where a server says."""
        return None if self.is_remote else folder_address(self.root / "artifacts" / study)

    @raises_store_errors
    def studies(self) -> list[tuple[str, int]]:
        """Every study that has a recorded plan, with the time of its last change; the last changed first."""
        return [(name, changed) for name, changed, is_active in self._studies() if is_active]

    @raises_store_errors
    def deleted(self) -> list[str]:
        """The studies that were deleted in MLflow, and that `experiment` would restore."""
        return [name for name, _, is_active in self._studies() if not is_active]

    def _studies(self) -> list[tuple[str, int, bool]]:
        return studies_of(self._read(lambda source: source.experiments()))

    @raises_store_errors
    def changed(self, study: str) -> int:
        """The time of the study's last change, in milliseconds; 0 if there is no such study."""
        experiment = self._find(study)
        return int(experiment.tags.get(CHANGED, 0)) if experiment else 0

    def touch(self, experiment: str) -> None:
        """Set the time of the study's last change to now."""
        now, is_set = str(int(time.time() * 1000)), False
        with contextlib.suppress(sqlite3.Error):
            is_set = self.tables is not None and self.tables.set_experiment_tag(experiment, CHANGED, now)
        if not is_set:
            self.client.set_experiment_tag(experiment, CHANGED, now)

    # --- writing ---------------------------------------------------------------------------------------------------------

    @raises_store_errors
    def runs(self, experiment: str, *, deleted: bool = False) -> list[dict[str, Any]]:
        """Every run of a study: its id, status, start, end, tags, params, metrics and the digest of its data; the newest first."""
        runs = self._read(lambda source: source.runs(experiment, deleted=deleted))
        self._artifact_uris |= {run["run_id"]: run["artifacts"] for run in runs}
        return [without_artifacts(run) for run in runs]

    @raises_store_errors
    def runs_of(self, study: str) -> list[dict[str, Any]]:
        """The same for the study of that name; none if it has no experiment yet. Of a deleted one, those that would be restored."""
        experiment = self._find(study)
        if experiment is None:
            return []
        return self.runs(experiment.experiment_id, deleted=experiment.lifecycle_stage != "active")

    @raises_store_errors
    def find(self, experiment: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """The study's runs that have these tags, in the form of `runs`."""
        conditions = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if not set(value) & set("'\"\\")]
        page = self.client.search_runs([experiment], " and ".join(conditions), max_results=1000)
        return [without_artifacts(as_dict(run)) for run in page if tags.items() <= run.data.tags.items()]

    def tag_values(self, experiment: str, name: str, values: Sequence[str]) -> set[str] | None:
        """Those of the values that a tag has in any of the study's runs; None of a server, which is not asked so."""
        return None if self.is_remote else tag_values(self.client, experiment, name, values)

    def transaction(self, *, is_careful: bool = True) -> AbstractContextManager[bool]:
        """All that this thread writes meanwhile is there in the end or nothing, if the value is true; a server knows no such thing.

        Unless it is careful, it fails where something is written that is there already.
        """
        return one_transaction(None if self.is_remote else self.client, is_careful=is_careful)

    def insert(self, experiment: str, runs: Sequence[NewRun]) -> list[str] | None:
        """Make new runs with all that is known of them; the id of each. None of a store that takes each by itself: nothing is written."""
        made = None if self.is_remote else insert_runs(self.client, experiment, [fitting(run) for run in runs])
        self._artifact_uris |= dict(made or ())
        return None if made is None else [run_id for run_id, _ in made]

    def create(self, experiment: str, name: str, tags: Mapping[str, str], start: int) -> str:
        """Make a new run and return its id."""
        run = self.client.create_run(experiment, start_time=start, tags=texts.tags(tags), run_name=texts.title(name))
        self._artifact_uris[run.info.run_id] = run.info.artifact_uri
        return str(run.info.run_id)

    def write(
        self, run_id: str, points: Iterable[Point] = (), params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Add points, params and tags, the tags last. A point that is written again is not doubled, since its time is the same."""
        short_tags, points = texts.tags(tags or {}), list(points)
        if not points and not params and self._has_tags(run_id, short_tags):
            return
        for batch in batches(points, texts.params(params or {}), short_tags):
            self.client.log_batch(run_id, *batch, synchronous=True)  # whatever MLFLOW_ENABLE_ASYNC_LOGGING says

    def _has_tags(self, run_id: str, tags: Mapping[str, str]) -> bool:
        """Whether a run has these tags already, as far as that is known without MLflow."""
        with contextlib.suppress(sqlite3.Error):
            return self.tables is not None and tags.items() <= self.tables.tags_of(run_id).items()
        return False

    @raises_store_errors
    def check_writable(self) -> None:
        """Raise StoreError where the database cannot be written now, before anything is deleted for what is to be written there."""
        with self.transaction():
            pass

    @raises_store_errors
    def supersede(self, run_ids: Iterable[str]) -> None:
        """Note of runs that they are to be run again: all of them, or none where the store knows transactions."""
        with self.transaction():
            for run_id in run_ids:
                self.write(run_id, tags={SUPERSEDED: "yes"})

    @raises_store_errors
    def delete(self, run_id: str) -> None:
        """Delete a run, as MLflow does: it can be restored."""
        self.client.delete_run(run_id)

    def finish(self, run_id: str, status: str, end: int) -> None:
        """End a run as FINISHED, FAILED or KILLED, or set its status to RUNNING again."""
        self.client.update_run(run_id, status=status) if status == "RUNNING" else self.client.set_terminated(run_id, status, end)

    @cached_property
    def knows_points(self) -> bool:
        """Whether `missing` can tell which points a run has already."""
        return not self.is_remote and are_known(self.client)

    def missing(self, run_id: str, points: Sequence[Point]) -> Sequence[Point]:
        """Those of the points that a run lacks, as far as that is known."""
        return missing(self.client, run_id, points) if self.knows_points else points

    def finish_all(self, ends: Sequence[tuple[str, str, int]]) -> None:
        """End runs, (id, status, end) each."""
        if self.is_remote or not end_runs(self.client, ends):
            for run_id, status, end in ends:
                self.finish(run_id, status, end)

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Record the run's data set."""
        self.client.log_inputs(run_id, [data_input(*texts.dataset(name, digest, source), context)])

    def add_files(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Add files to the run's artifacts under these names, which may have folders; in a local store they are hard links if possible."""
        folder = self._local_folder(run_id)
        for name, path in files.items():
            if folder is None:
                upload(self.client, run_id, name, path)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(path, folder / name)

    @raises_store_errors
    def show_picture(self, run_id: str, key: str, path: Path, tags: Mapping[str, str] | None = None) -> None:
        """Show a picture in the run's page and in MLflow's grid of images, and set tags with it; it replaces the one before."""
        folder = self._local_folder(run_id)
        for old in folder.glob(f"images/{key}[+%]*") if folder else ():
            old.unlink()
        with tempfile.TemporaryDirectory() as temporary_folder:
            files = thumbnails.named(path, key, Path(temporary_folder))
            self.add_files(run_id, {f"images/{name}": file for name, file in files.items()})
        self.write(run_id, tags={"mlflow.loggedImages": "True", **(tags or {})})

    def has_lost_files(self, run_id: str, name: str) -> bool:
        """Whether a file of that name, which each finished run has, is gone from a run's folder on this machine.

        Of a store that others may use too, what lies elsewhere is theirs: only the files of a database count, below `root`, and while
        those of other runs are there.
        """
        folder = self._local_folder(run_id)
        if folder is None or (folder / name).exists():
            return False
        return not self.is_shared or (self.is_file and folder.is_relative_to(self.root) and folder.parents[1].exists())

    def prepare_view(self, experiment: str, name: str, search_filter: str, tags: Sequence[str], metrics: Sequence[str]) -> None:
        """Store a view of the study's runs, which MLflow's page opens with `viewStateShareKey=name`: a filter and the columns."""
        view = views.of_runs(search_filter, tags, metrics)
        self._set_tag(experiment, f"mlflow.sharedViewState.{name}", json.dumps(view))
        self._set_tag(experiment, "mlflow.experimentKind", "custom_model_development")

    def _set_tag(self, experiment: str, name: str, value: str) -> None:
        tags = {known.experiment_id: known.tags for known in self._read(lambda source: source.experiments())}
        if tags.get(experiment, {}).get(name) != value:
            self.client.set_experiment_tag(experiment, name, value)

    def _local_folder(self, run_id: str) -> Path | None:
        if run_id not in self._artifact_uris:
            known = self._read(lambda source: source.artifacts_of(run_id))
            self._artifact_uris[run_id] = known or str(self.api.artifacts_of(run_id))  # MLflow tells that there is no such run
        uri = self._artifact_uris[run_id]
        return folder_path(next((new + uri[len(old) :] for old, new in self._moved_to.items() if uri.startswith(f"{old}/")), uri))

    @raises_store_errors
    def has_points_beside(self, run_id: str, points: Iterable[Point], since: int) -> bool:
        """Whether a run has points of other names or steps than these, or such as are from before that time."""
        known = {(point.name, point.step): point.time for point in points}
        there = self._read(lambda source: source.history(run_id, (), ("",)))
        return any((name, step) not in known or (time < since and time != known[name, step]) for name, _, time, step in there)

    # --- reading ---------------------------------------------------------------------------------------------------------

    @raises_store_errors
    def artifact(self, run_id: str, name: str) -> Path:
        """A file among the run's artifacts; raises StoreError if there is none of that name."""
        folder = self._local_folder(run_id)
        path = folder / name if folder else None
        if path is None:
            client = self.client  # imported first: only then it is known what MLflow raises
            with contextlib.suppress(*mlflow_errors()):
                path = Path(client.download_artifacts(run_id, name))
        if path is None or not path.exists():
            raise StoreError(
                f"the run {run_id} has no artifact {name}; it may have been deleted from {folder or without_secrets(self.uri)}"
            )
        return path

    @raises_store_errors
    def files(self, run_id: str) -> dict[str, Path]:
        """All files among the run's artifacts, by name."""
        folder = self._local_folder(run_id)
        if folder is not None:
            return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()} if folder.is_dir() else {}
        return {file.path: self.artifact(run_id, file.path) for file in self.client.list_artifacts(run_id) if not file.is_dir}

    @raises_store_errors
    def curves(self, run_id: str, metrics: Iterable[str] = (), beginnings: tuple[str, ...] = CURVES) -> list[Point]:
        """Every point of the run's metrics that have a history; if a step was trained again, the later one.

        `metrics` are the names of all metrics of the run, if the caller has them; those that begin otherwise are left out.
        """
        points = self._read(lambda source: source.history(run_id, metrics, beginnings))
        latest = {(name, step): Point(name, value, time, step) for name, value, time, step in points}
        return [point for _, point in sorted(latest.items())]

    @raises_store_errors
    def recorded(self, study: str, known_runs: Sequence[Mapping[str, Any]] = (), content: str = "") -> Recorded:
        """The recorded study of that name; raises StoreError if there is none.

        `known_runs` are its runs, if the caller has just looked them up. With `content`, the newest plan from a file that said this.
        """
        experiment = self._find(study)
        if experiment is None or CHANGED not in experiment.tags:
            raise unknown(study, [name for name, _ in self.studies()], self.uri)
        if experiment.lifecycle_stage != "active":
            raise StoreError(f"the study {study!r} was deleted in MLflow; ablate run FILE restores it, with its runs")
        runs = list(known_runs) or self.runs(experiment.experiment_id)
        return recorded_of(self, study, runs, content)
