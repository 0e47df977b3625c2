"""What is written of many runs at once: rows of MLflow's tables, those that its client would write of the runs call by call.

The client takes some sixty statements for a run, most of which ask what a run that is new cannot have. Written here are only databases
whose tables are of a version that is known, which the tests hold against the client; others, and servers, are left to the client.
"""

import math
import os
import sys
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablation.tracking import texts
from ablation.tracking.recorded import Point
from ablation.tracking.tables import SCHEMAS
from ablation.tracking.transactions import database_store

Row = dict[str, Any]


@dataclass(frozen=True)
class NewRun:
    """A run that is to be made, with all that is known of it but its files; without an end it is under way."""

    name: str
    start: int  # milliseconds
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]
    dataset: tuple[str, str, str] | None = None  # what it is trained on: name, digest, and where it lies
    end: int | None = None


def fitting(run: NewRun) -> NewRun:
    """The run as `Store.create`, `write` and `log_dataset` would write it."""
    dataset = texts.dataset(*run.dataset) if run.dataset else None
    return replace(run, name=texts.title(run.name), tags=texts.tags(run.tags), params=texts.params(run.params), dataset=dataset)


def insert_runs(client: Any, experiment: str, runs: Sequence[NewRun]) -> list[tuple[str, str]] | None:
    """Make runs; the id of each, and the address of its artifacts. None where that is left to the client."""
    store = database_store(client)
    if store is None:
        return None
    with store.ManagedSessionMaker(read_only=False) as session:
        if not _is_known(session):
            return None
        about = store.get_experiment(experiment)
        store._check_experiment_is_active(about)
        ids = [uuid.uuid4().hex for _ in runs]
        addresses = [_address(about.artifact_location, run_id) for run_id in ids]
        with_ids = list(zip(ids, runs, strict=True))
        rows = {"SqlRun": [_run(int(experiment), *of_run) for of_run in zip(ids, addresses, runs, strict=True)]}
        rows["SqlTag"] = [row for run_id, run in with_ids for row in _cells(run_id, {**run.tags, "mlflow.runName": run.name})]
        rows["SqlParam"] = [row for run_id, run in with_ids for row in _cells(run_id, _checked(run.params))]
        metrics = [_metrics(run_id, run.points) for run_id, run in with_ids]
        rows["SqlMetric"] = [row for every, _ in metrics for row in every]
        rows["SqlLatestMetric"] = [row for _, latest in metrics for row in latest]
        _insert(session, rows | _of_data(session, int(experiment), with_ids))
    return list(zip(ids, addresses, strict=True))


def end_runs(client: Any, ends: Sequence[tuple[str, str, int]]) -> bool:
    """Set the status and the end of runs, (id, status, milliseconds) each; False where that is left to the client."""
    store = database_store(client)
    if store is None:
        return False
    with store.ManagedSessionMaker(read_only=False) as session:
        if not _is_known(session):
            return False
        from mlflow.store.tracking.dbmodels.models import SqlRun

        of_these = SqlRun.run_uuid.in_([run_id for run_id, _, _ in ends])
        runs = {run.run_uuid: run for run in session.query(SqlRun).filter(of_these)}
        for run_id, status, end in ends:
            run = runs.get(run_id) or store._get_run(session, run_id)  # which says that there is none
            store._check_run_is_active(run)
            run.status, run.end_time = status, end
    return True


def are_known(client: Any) -> bool:
    """Whether the client's store has a database whose tables are written here."""
    store = database_store(client)
    if store is None:
        return False
    with store.ManagedSessionMaker(read_only=True) as session:
        return _is_known(session)


def missing(client: Any, run_id: str, points: Sequence[Point]) -> list[Point]:
    """Those of the points that a run lacks, of a store of which `are_known` is true."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    columns = SqlMetric.key, SqlMetric.timestamp, SqlMetric.step, SqlMetric.value, SqlMetric.is_nan
    with database_store(client).ManagedSessionMaker(read_only=True) as session:
        there = {tuple(row) for row in session.query(*columns).filter(SqlMetric.run_uuid == run_id)}
    return [point for point in points if (point.name, point.time, point.step, *_number(point.value)) not in there]


def tag_values(client: Any, experiment: str, name: str, values: Collection[str]) -> set[str] | None:
    """Those of the values that a tag has in any run of an experiment; None where only the client can tell.

    Until the transaction ends nobody else is answered, so that of two who ask in order to write, the second sees what the first wrote.
    """
    store = database_store(client)
    if store is None:
        return None
    with store.ManagedSessionMaker(read_only=True) as session:
        if not _is_known(session):
            return None
        from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun, SqlTag

        lock = session.query(SqlExperiment.experiment_id).with_for_update(
            key_share=True
        )  # where begin has not locked all, as SQLite's does
        lock.filter(SqlExperiment.experiment_id == int(experiment)).all()
        of_runs = (
            session.query(SqlTag.value).join(SqlRun, SqlTag.run_uuid == SqlRun.run_uuid).filter(SqlRun.experiment_id == int(experiment))
        )
        return {value for (value,) in of_runs.filter(SqlTag.key == name, SqlTag.value.in_(list(values)))}


def _is_known(session: Any) -> bool:
    """Whether the tables are those that are written here."""
    from sqlalchemy import text

    versions = {version for (version,) in session.execute(text("SELECT version_num FROM alembic_version"))}
    return bool(versions) and versions <= SCHEMAS and not os.environ.get("MLFLOW_ENABLE_WORKSPACES")


def _insert(session: Any, rows: Mapping[str, Sequence[Row]]) -> None:
    """Add rows to tables, by the names of MLflow's classes for them, in their order."""
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import insert

    for name, of_table in rows.items():
        if of_table:
            session.connection().execute(insert(getattr(models, name).__table__), of_table)


def _address(location: str, run_id: str) -> str:
    from mlflow.utils.uri import append_to_uri_path

    return str(append_to_uri_path(location, run_id, "artifacts"))


def _run(experiment: int, run_id: str, address: str, run: NewRun) -> Row:
    about = {"run_uuid": run_id, "experiment_id": experiment, "name": run.name, "artifact_uri": address, "start_time": run.start}
    nothing = {"source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": "", "user_id": "unknown"}
    status = "RUNNING" if run.end is None else "FINISHED"
    return about | nothing | {"status": status, "end_time": run.end, "lifecycle_stage": "active"}


def _cells(run_id: str, values: Mapping[str, str]) -> list[Row]:
    return [{"run_uuid": run_id, "key": name, "value": value} for name, value in values.items()]


def _checked(params: Mapping[str, str]) -> Mapping[str, str]:
    """The params, of names and lengths that MLflow takes."""
    from mlflow.utils.validation import _validate_param

    for name, value in params.items():
        _validate_param(name, value)
    return params


def _metrics(run_id: str, points: Iterable[Point]) -> tuple[list[Row], list[Row]]:
    """The rows of a run's metrics: each point once, and the latest of each name."""
    from mlflow.utils.validation import _validate_metric

    every: dict[tuple[object, ...], Row] = {}
    latest: dict[str, Row] = {}
    for point in points:
        number, is_nan = _number(point.value)
        row: Row = {"run_uuid": run_id, "key": point.name, "value": number, "timestamp": point.time, "step": point.step, "is_nan": is_nan}
        every.setdefault(tuple(row.values()), row)
    for row in every.values():
        known = latest.setdefault(row["key"], row)
        if (row["step"], row["timestamp"], row["value"]) > (known["step"], known["timestamp"], known["value"]):
            latest[row["key"]] = row
    for name, row in latest.items():
        _validate_metric(name, row["value"], row["timestamp"], row["step"])
    return list(every.values()), list(latest.values())


def _number(value: float) -> tuple[float, bool]:
    """How MLflow writes a number: the number, and whether it is none."""
    return (0.0, True) if math.isnan(value) else (min(max(float(value), -sys.float_info.max), sys.float_info.max), False)


def _of_data(session: Any, experiment: int, runs: Sequence[tuple[str, NewRun]]) -> dict[str, list[Row]]:
    """The rows of what the runs were trained on: data sets that are new, and what ties a run to its own."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset

    wanted = {run.dataset[:2]: run.dataset[2] for _, run in runs if run.dataset}
    if not wanted:
        return {}
    of_names = SqlDataset.experiment_id == experiment, SqlDataset.name.in_([name for name, _ in wanted])
    columns = SqlDataset.name, SqlDataset.digest, SqlDataset.dataset_uuid
    known = {(name, digest): identifier for name, digest, identifier in session.query(*columns).filter(*of_names)}
    new = {one: uuid.uuid4().hex for one in wanted if one not in known}
    ids, keys = known | new, ("experiment_id", "name", "digest", "dataset_uuid", "dataset_source_type", "dataset_source")
    data = [dict(zip(keys, (experiment, *one, new[one], "local", wanted[one]), strict=True)) for one in new]
    ties = [
        {"input_uuid": uuid.uuid4().hex, "source_id": ids[run.dataset[:2]], "destination_id": run_id} for run_id, run in runs if run.dataset
    ]
    tags = [{"input_uuid": tie["input_uuid"], "name": "mlflow.data.context", "value": "training"} for tie in ties]
    return {
        "SqlDataset": data,
        "SqlInput": [tie | {"source_type": "DATASET", "destination_type": "RUN"} for tie in ties],
        "SqlInputTag": tags,
    }
