"""The tables of a local database: what is read without MLflow is what MLflow gives, and what is not known is left to it."""

import contextlib
import math
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ablation.errors import StoreError
from ablation.tracking import database, tables
from ablation.tracking.recorded import Point
from ablation.tracking.store import CURVES, Store
from ablation.tracking.tables import Tables

TAGS = {"ablation.kind": "run", "ablation.arm": "baseline", "ablation.seed": "0", "ablation.key": "k0"}


def comparable(answer):
    """An answer in which NaN equals NaN."""
    return repr(answer)


def add_run(store, experiment, number):
    """A run with params, tags, two data sets, and metrics with odd values and repeated steps; every third goes on."""
    run_id = store.create(experiment, f"run {number}", TAGS | {"note": 'it\'s "odd" \u00e9'}, 10 + number // 2)
    odd = (0.1, -0.0, math.nan, math.inf, -math.inf, 1e-310, 3.0)
    points = [
        Point(f"{kind}/loss", odd[(step + number) % 7], 1000 + step % 4, step % 5) for step in range(12) for kind in ("train", "test")
    ]
    store.write(run_id, points, {"optimizer.lr": "1e-3", "empty": ""}, {"more": str(number)})
    for digest in ("d2", "d1")[: 1 + number % 2]:
        store.log_dataset(run_id, f"data {digest}", f"{digest}{number}", "somewhere", "training")
    if number % 3:
        store.finish(run_id, "FAILED" if number % 2 else "FINISHED", 50 + number)
    return run_id


@pytest.fixture
def store(folder):
    """A store with three studies, of which one was renamed and one deleted in MLflow, and with a deleted run."""
    store = Store.open()
    for name in ("one", "renamed", "deleted"):
        experiment = store.experiment(name, f"note of {name}")
        runs = [add_run(store, experiment, number) for number in range(7)]
        store.delete(runs[2])
        store.touch(experiment)
    store.client.rename_experiment(store.client.get_experiment_by_name("renamed").experiment_id, "another name")
    store.client.delete_experiment(store.client.get_experiment_by_name("deleted").experiment_id)
    return store


def test_the_tables_answer_as_mlflow_does(store):
    """Experiments, runs with all that belongs to them, in their order, and the points of every metric are the same by both ways."""
    experiments = store.tables.experiments()
    assert comparable(experiments) == comparable(store.api.experiments())
    assert len(experiments) == 4  # with MLflow's own
    for name in (*(experiment.name for experiment in experiments), "none"):
        assert comparable(store.tables.experiment(name)) == comparable(store.api.experiment(name))
    found = 0
    for experiment in experiments:
        for deleted in (False, True):
            runs = store.tables.runs(experiment.experiment_id, deleted=deleted)
            assert comparable(runs) == comparable(store.api.runs(experiment.experiment_id, deleted=deleted))
            found += len(runs)
    assert found == 6 + 7 + 6 + 7 + 0 + 7


def test_the_points_are_those_of_mlflow(store):
    """Of each metric the same points in the same order, and so the same curves."""
    for run in store.tables.runs(store.client.get_experiment_by_name("one").experiment_id, deleted=True):
        for name in run["metrics"]:
            ours = [point for point in store.tables.history(run["run_id"], (), ("",)) if point[0] == name]
            assert comparable(ours) == comparable(store.api.history(run["run_id"], [name], ("",)))
        curves = store.curves(run["run_id"])
        assert {point.name for point in curves} == {"train/loss"}
        assert store.tables.artifacts_of(run["run_id"]) == store.api.artifacts_of(run["run_id"])
        assert store.tables.history(run["run_id"], (), CURVES)


def test_tags_are_those_of_mlflow(store):
    """The tags of a run are MLflow's; a deleted run has none, and what a run has already is not written again."""
    experiment = store.client.get_experiment_by_name("one").experiment_id
    runs = {run["run_id"]: run["tags"] for run in store.tables.runs(experiment, deleted=True)}
    is_active = {run_id: store.client.get_run(run_id).info.lifecycle_stage == "active" for run_id in runs}
    assert list(is_active.values()).count(False) == 1
    for run_id, tags in runs.items():
        assert store.tables.tags_of(run_id) == (tags if is_active[run_id] else {})
    assert store.tables.tags_of("none") == {}
    known, other = [run_id for run_id in runs if is_active[run_id]][:2]
    store.api.__dict__["client"] = None  # which writes nothing
    store.write(known, tags={"more": runs[known]["more"]})
    with pytest.raises(AttributeError):
        store.write(known, tags={"more": "another"})
    with pytest.raises(AttributeError):
        store.write(known, [Point("test/loss", 1.0, 1)], tags={"more": runs[known]["more"]})
    assert store.tables.tags_of(other) == runs[other]


def test_the_time_of_a_change_is_written_as_mlflow_writes_it(store):
    """It is a tag of an experiment that is there and active; of any other, MLflow is asked."""
    one, deleted = (store.tables.experiment(name) for name in ("one", "deleted"))
    before = comparable([run["tags"] for run in store.runs_of("one")])
    assert store.tables.set_experiment_tag(one.experiment_id, "ablation.changed", "5")
    assert store.client.get_experiment(one.experiment_id).tags == {**one.tags, "ablation.changed": "5"}
    assert store.tables.experiment("renamed") is None
    assert store.tables.experiment("deleted").tags == deleted.tags
    assert not store.tables.set_experiment_tag(one.experiment_id, "none", "5")
    assert not store.tables.set_experiment_tag(deleted.experiment_id, "ablation.changed", "5")
    assert not store.tables.set_experiment_tag("99", "ablation.changed", "5")
    assert store.tables.experiment("deleted").tags == deleted.tags
    assert comparable([run["tags"] for run in store.runs_of("one")]) == before


def test_a_store_reads_the_same_without_tables(store, monkeypatch):
    """All that `Store` tells of studies and runs is the same where MLflow is asked."""

    def told():
        reads = (store.studies, store.deleted, lambda: store.changed("renamed"), lambda: store.runs_of("deleted"))
        run_ids = [run["run_id"] for run in store.runs_of("one")]
        return [*(comparable(read()) for read in reads), *(comparable(store.curves(run_id)) for run_id in run_ids)]

    with_tables = told()
    monkeypatch.setattr(store, "tables", None)
    assert told() == with_tables


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = '0123456789ab'",
        "DELETE FROM alembic_version",
        "UPDATE experiments SET workspace = 'theirs' WHERE experiment_id > 0",
        "DROP TABLE alembic_version",
    ],
)
def test_a_database_that_is_not_known_is_left_to_mlflow(store, change):
    """Tables of another version, or in which MLflow would not show everything, are not read here."""
    database = store.root / "mlflow.db"
    assert Tables.known(database) is not None
    with sqlite3.connect(database) as connection:
        connection.execute(change)
    connection.close()
    assert Tables.known(database) is None


def test_what_the_tables_cannot_answer_mlflow_does(store, monkeypatch):
    """An error of the database while it is read here is no answer: MLflow is asked."""
    expected = store.runs_of("one")

    def fail(*_, **__):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(Tables, "runs", fail)
    assert comparable(store.runs_of("one")) == comparable(expected)


@pytest.fixture
def held(store):
    """A database that another connection holds exclusively, and that connection."""
    store.studies()
    with contextlib.closing(sqlite3.connect(store.root / "mlflow.db", isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


@pytest.mark.parametrize("make", [False, True])
def test_a_busy_database_is_told_at_once_and_waited_for(held, capsys, make):
    """What it waits for stands on stderr before it is free, and then all is read without MLflow as ever."""
    told = []

    def release():
        told.append(capsys.readouterr().err)
        held.execute("ROLLBACK")

    timer = threading.Timer(2, release)
    timer.start()
    store = Store.open(make=make)
    timer.join()
    assert told == [f"{store.root / 'mlflow.db'} is busy, since another program holds it; going on when it is free, for up to 20 seconds\n"]
    assert store.tables is not None
    assert store.studies()


def test_a_database_that_stays_busy_is_not_taken_for_an_unknown_one(held, monkeypatch):
    """It is told that it is locked."""
    monkeypatch.setattr(tables, "PATIENCE", 0.1)
    monkeypatch.setattr(database, "PATIENCE", 0.1)
    with pytest.raises(StoreError, match="database is locked"):
        Store.open(make=False)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Tables.known(Path("mlruns/mlflow.db").resolve())


def test_no_file_has_no_tables(tmp_path, monkeypatch, store):
    """There is nothing to read of a database that is not there, and of none with workspaces."""
    assert Tables.known(None) is None
    assert Tables.known(tmp_path / "nowhere.db") is None
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert Tables.known(store.root / "mlflow.db") is None


def test_reading_imports_no_mlflow(store):
    """A local store is opened and read without MLflow, SQLAlchemy and pandas."""
    code = """
import sys
from ablation.tracking.store import Store
store = Store.open(make=False)
runs = store.runs_of("one")
assert len(runs) == 6 and store.curves(runs[0]["run_id"]) and store.studies()
print([name for name in ("mlflow", "sqlalchemy", "pandas", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=store.root.parent)
    assert done.stdout == "[]\n"
