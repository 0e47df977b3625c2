"""MLflow's tables in an SQLite file, read without MLflow, whose import takes longer than most looks at a study.

One value is written here too: that of a study's tag, with which each command ends that found nothing else to write. The answers are
MLflow's own, which the tests compare. Of a database that is not known here, `known` is None, and MLflow is asked.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.tracking.database import PATIENCE, is_locked

SCHEMAS = frozenset({"dc11669786a5"})  # the versions of the tables that are read here
RUNS_AT_ONCE = 1000  # as many as MLflow gives on a page
STAGES = {False: ("active",), True: ("active", "deleted")}  # by whether what was deleted in MLflow counts
ABOUT_RUN = ("run_id", "status", "start", "end", "name", "artifacts")


@dataclass(frozen=True)
class Experiment:
    """What MLflow calls an experiment: a study's runs, under a name that may be changed there."""

    experiment_id: str
    name: str
    lifecycle_stage: str  # active, deleted
    artifact_location: str | None
    tags: Mapping[str, Any]


@dataclass(frozen=True)
class Tables:
    """The tables of one database. Every method opens and closes it, so that each thread may call them."""

    database: Path

    @classmethod
    def known(cls, database: Path | None) -> "Tables | None":
        """The tables of a database; None if there is no such file, if it cannot be read, or if its tables are not known here.

        Raises sqlite3.Error if another process holds it all the while.
        """
        if database is None or not database.is_file() or os.environ.get("MLFLOW_ENABLE_WORKSPACES"):
            return None
        tables = cls(database)
        try:
            with tables._opened(PATIENCE) as connection:
                versions = {version for (version,) in connection.execute("SELECT version_num FROM alembic_version")}
                others = connection.execute("SELECT 1 FROM experiments WHERE workspace <> 'default'").fetchone()
        except sqlite3.Error as error:
            if is_locked(error):
                raise
            return None
        return tables if versions and versions <= SCHEMAS and others is None else None

    def experiment(self, name: str) -> Experiment | None:
        """The experiment of that name, active or deleted."""
        return next((experiment for experiment in self.experiments() if experiment.name == name), None)

    def experiments(self) -> list[Experiment]:
        """Every experiment, active or deleted, the newest first."""
        with self._opened() as connection:
            tags: dict[int, dict[str, Any]] = {}
            for identifier, name, value in connection.execute("SELECT experiment_id, key, value FROM experiment_tags"):
                tags.setdefault(identifier, {})[name] = value
            columns = "experiment_id, name, lifecycle_stage, artifact_location"
            rows = connection.execute(f"SELECT {columns} FROM experiments ORDER BY creation_time DESC, experiment_id").fetchall()
        return [Experiment(str(number), name, stage, location, tags.get(number, {})) for number, name, stage, location in rows]

    def runs(self, experiment: str, *, deleted: bool) -> list[dict[str, Any]]:
        """Every run of an experiment as `Store.runs` has it, with the address of its artifacts; the newest first."""
        which = f"experiment_id = ? AND lifecycle_stage IN ({_marks(STAGES[deleted])})"
        values = (int(experiment), *STAGES[deleted])
        with self._opened() as connection:
            runs = {run["run_id"]: run for run in _runs(connection, which, values)}
            of_these = f"run_uuid IN (SELECT run_uuid FROM runs WHERE {which})"
            for table, is_nan in (("tags", "0"), ("params", "0"), ("latest_metrics", "is_nan")):
                kind = table.removeprefix("latest_")
                for run_id, *cell in connection.execute(f"SELECT run_uuid, key, value, {is_nan} FROM {table} WHERE {of_these}", values):
                    runs[run_id][kind][cell[0]] = _number(*cell[1:])
            for run_id, digest in _digests(connection, list(runs)):
                runs[run_id]["digest"] = digest
        return [run | {"name": run["name"] or run["tags"].get("mlflow.runName")} for run in runs.values()]

    def artifacts_of(self, run_id: str) -> str | None:
        """The address of a run's artifacts; None if there is no such run."""
        with self._opened() as connection:
            row = connection.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        return row[0] if row else None

    def tags_of(self, run_id: str) -> dict[str, Any]:
        """The tags of a run; none if there is no such run, or if it was deleted."""
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT key, value FROM tags JOIN runs USING (run_uuid) WHERE run_uuid = ? AND lifecycle_stage = 'active'", (run_id,)
            ).fetchall()
        return dict(rows)

    def set_experiment_tag(self, experiment: str, name: str, value: str) -> bool:
        """Give a tag that an active experiment has another value; return whether there was such a tag."""
        is_active = "experiment_id IN (SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active')"
        with contextlib.closing(sqlite3.connect(f"{self.database.as_uri()}?mode=rw", uri=True, timeout=20)) as connection, connection:
            change = f"UPDATE experiment_tags SET value = ? WHERE experiment_id = ? AND key = ? AND {is_active}"
            return connection.execute(change, (value, int(experiment), name)).rowcount == 1

    def history(self, run_id: str, names: Iterable[str], beginnings: tuple[str, ...]) -> list[tuple[str, float, int, int]]:
        """The name, value, time and step of each point of the run's metrics whose names begin so, in the order of their times.

        Of no use are `names`, those of all metrics of the run: one query has them all.
        """
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, value", (run_id,)
            ).fetchall()
        return [(name, _number(value, is_nan), time, step) for name, value, time, step, is_nan in rows if name.startswith(beginnings)]

    @contextlib.contextmanager
    def _opened(self, patience: float = 5) -> Iterator[sqlite3.Connection]:
        """The database as it is at one moment, only to be read."""
        with contextlib.closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=patience)) as connection:
            connection.execute("BEGIN")
            yield connection


def _runs(connection: sqlite3.Connection, which: str, values: Sequence[object]) -> list[dict[str, Any]]:
    """The runs for which that holds, without what other tables have of them."""
    columns = "run_uuid, status, start_time, end_time, name, artifact_uri"
    rows = connection.execute(f"SELECT {columns} FROM runs WHERE {which} ORDER BY start_time IS NULL, start_time DESC, run_uuid", values)
    return [dict(zip(ABOUT_RUN, row, strict=True)) | {"tags": {}, "params": {}, "metrics": {}, "digest": ""} for row in rows.fetchall()]


def _digests(connection: sqlite3.Connection, run_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(run, digest) of the data sets of runs, those of a run in the order in which MLflow has them; asked as MLflow asks."""
    for begin in range(0, len(run_ids), RUNS_AT_ONCE):
        page = run_ids[begin : begin + RUNS_AT_ONCE]
        rows = connection.execute(
            "SELECT inputs.destination_id AS run_uuid, datasets.dataset_uuid, datasets.digest FROM inputs"
            " JOIN datasets ON inputs.source_id = datasets.dataset_uuid"
            " LEFT OUTER JOIN input_tags ON input_tags.input_uuid = inputs.input_uuid"
            f" WHERE inputs.destination_type = 'RUN' AND inputs.destination_id IN ({_marks(page)}) ORDER BY run_uuid",
            page,
        ).fetchall()
        yield from {(run_id, dataset): (run_id, digest) for run_id, dataset, digest in rows}.values()


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _number(value: Any, is_nan: object) -> Any:
    return float("nan") if is_nan else value
