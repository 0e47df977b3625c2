"""Runs that are written as rows of the tables, held against what MLflow's client writes of the same runs."""

import contextlib
import math
import shutil
import sqlite3

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ablation.tracking import rows
from ablation.tracking.recorded import Point
from ablation.tracking.rows import NewRun
from ablation.tracking.store import Store

TABLES = ("runs", "tags", "params", "metrics", "latest_metrics", "inputs", "datasets", "input_tags")
IDS = {"run_uuid", "input_uuid", "dataset_uuid", "destination_id", "source_id", "artifact_uri", "experiment_id"}
POINTS = [
    Point("train/loss", 1.5, 10, 1),
    Point("train/loss", 0.5, 30, 2),
    Point("train/loss", 0.25, 20, 2),
    Point("train/loss", 0.5, 30, 2),  # the same once more
    Point("diverged", math.nan, 5),
    Point("diverged", math.inf, 6),
    Point("least", -math.inf, 6),
    Point("whole", 3, 7),
    Point("tie", 1.0, 7),
    Point("tie", 2.0, 7),
]
ODD = "half of one: \udcff, none: \0"  # as a message has it that names a file whose name is no UTF-8
TAGS = {"a": "b", "ü": "☃", "odd": ODD, "long": "x" * 9000}
PARAMS = {"p": "1", "empty": "", "odd": ODD, "long": "x" * 7000}
RUN = NewRun("one" * 100, 5, TAGS, PARAMS, POINTS, ("data" + ODD, "1f2e" * 20, "there" + ODD))


def by_client(store, experiment, run):
    """The same run, call by call."""
    run_id = store.create(experiment, run.name, run.tags, run.start)
    store.write(run_id, run.points, run.params)
    if run.dataset:
        store.log_dataset(run_id, *run.dataset, "training")
    if run.end is not None:
        store.finish(run_id, "FINISHED", run.end)
    return run_id


def content(root):
    """Every row of the tables, without the ids, whose number stays."""
    with contextlib.closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        connection.row_factory = sqlite3.Row
        found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    plain = [(table, {name: row[name] for name in row.keys() if name not in IDS}) for table, of_table in found.items() for row in of_table]  # noqa: SIM118
    return sorted(plain, key=repr)


@pytest.fixture
def stores(tmp_path, monkeypatch, empty_database):
    """Two empty stores with a study each."""
    made = []
    for name in ("rows", "client"):
        (tmp_path / name / "mlruns").mkdir(parents=True)
        shutil.copyfile(empty_database, tmp_path / name / "mlruns" / "mlflow.db")
        monkeypatch.chdir(tmp_path / name)
        store = Store.open()
        made.append((store, store.experiment("tiny"), tmp_path / name))
    return made


def test_the_rows_are_those_of_the_client(stores):
    """Of runs with every kind of number, of two with the same data, of one without any, and of one that has ended."""
    (store, experiment, root), (other, other_experiment, other_root) = stores
    runs = [RUN, NewRun("two", 6, {}, {}, [], RUN.dataset), NewRun("three", 7, {"c": "d"}, {"q": "2"}, [], end=9)]
    ids = store.insert(experiment, runs)
    for run in runs:
        by_client(other, other_experiment, run)
    assert len(set(ids)) == 3
    assert content(root) == content(other_root)
    assert len(content(root)) > 30


def test_they_go_on_from_each_other(stores):
    """What the client wrote counts for the rows, and the other way round."""
    (store, experiment, root), (other, other_experiment, other_root) = stores
    by_client(store, experiment, RUN)
    (run_id,) = store.insert(experiment, [RUN])
    store.write(run_id, [Point("train/loss", 0.1, 40, 3)], {"r": "3"}, {"a": "c"})
    store.finish_all([(run_id, "FINISHED", 8)])
    by_client(other, other_experiment, RUN)
    same = by_client(other, other_experiment, RUN)
    other.write(same, [Point("train/loss", 0.1, 40, 3)], {"r": "3"}, {"a": "c"})
    other.finish(same, "FINISHED", 8)
    assert content(root) == content(other_root)


def test_the_client_finds_them(stores):
    """A run as MLflow reads it, and its files where it says that they are."""
    store, experiment, root = stores[0]
    (run_id,) = store.insert(experiment, [RUN])
    (root / "file.txt").write_text("here")
    store.add_files(run_id, {"file.txt": root / "file.txt"})
    found = store.client.get_run(run_id)
    assert found.info.status == "RUNNING"
    assert found.data.metrics["train/loss"] == 0.5
    assert found.data.tags["odd"] == found.data.params["odd"] == "half of one: ?, none: ?"
    assert (len(found.info.run_name), len(found.data.tags["long"]), len(found.data.params["long"])) == (250, 5000, 6000)
    assert [file.path for file in store.client.list_artifacts(run_id)] == ["file.txt"]


def test_many_take_as_few_statements_as_one(stores):
    """Twenty runs are written by the same statements as one, and ended by as many."""
    store, experiment, _ = stores[0]
    store.insert(experiment, [RUN])  # its data are there from then on

    def statements(number):
        seen = []

        def note(*args):
            seen.append(args[2])

        event.listen(Engine, "before_cursor_execute", note)
        try:
            with store.transaction(is_careful=False):
                ids = store.insert(experiment, [RUN] * number)
            with store.transaction(is_careful=False):
                store.finish_all([(run_id, "FINISHED", 9) for run_id in ids])
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return len(seen)

    assert statements(20) == statements(1) <= 30


def test_tables_of_another_version_are_left_to_the_client(stores, monkeypatch):
    """Nothing is written, and ends are set all the same."""
    store, experiment, _ = stores[0]
    monkeypatch.setattr(rows, "SCHEMAS", frozenset({"another"}))
    assert store.insert(experiment, [RUN]) is None
    assert store.tag_values(experiment, "a", ["b"]) is None
    assert store.runs(experiment) == []
    run_id = by_client(store, experiment, RUN)
    store.finish_all([(run_id, "FINISHED", 9)])
    assert [run["status"] for run in store.runs(experiment)] == ["FINISHED"]


def test_what_was_deleted_is_not_written(stores):
    """A study that somebody has deleted meanwhile gets no run, a deleted run no end."""
    store, experiment, _ = stores[0]
    (run_id,) = store.insert(experiment, [RUN])
    store.delete(run_id)
    with pytest.raises(MlflowException, match="active"):
        store.finish_all([(run_id, "FINISHED", 9)])
    store.client.delete_experiment(experiment)
    with pytest.raises(MlflowException, match="active"):
        store.insert(experiment, [RUN])


def test_a_name_that_mlflow_refuses_is_refused(stores):
    """Nothing of the runs is there then."""
    store, experiment, _ = stores[0]
    with pytest.raises(MlflowException, match="Invalid value"):
        store.insert(experiment, [RUN, NewRun("two", 5, {}, {"a?": "1"}, [])])
    with pytest.raises(MlflowException, match="Invalid value"):
        store.insert(experiment, [RUN, NewRun("two", 5, {}, {}, [Point("a?", 1.0, 1)])])
    assert store.runs(experiment) == []


def test_the_values_that_a_tag_has(stores):
    """Of the study's own runs, and only those that were asked for."""
    store, experiment, _ = stores[0]
    other = store.experiment("other")
    store.insert(experiment, [NewRun("one", 5, {"key": "x"}, {}, []), NewRun("two", 5, {"key": "y", "else": "z"}, {}, [])])
    store.insert(other, [NewRun("three", 5, {"key": "z"}, {}, [])])
    assert store.tag_values(experiment, "key", ["x", "z", "w"]) == {"x"}


def test_points_that_a_run_has_are_no_more_missing(stores):
    """Whoever wrote them; numbers that are none count as they are."""
    store, experiment, _ = stores[0]
    new = [Point("train/loss", 0.5, 30, 3), Point("diverged", math.nan, 6), Point("other", 1.0, 7)]
    (run_id,) = store.insert(experiment, [RUN])
    for one in (run_id, by_client(store, experiment, RUN)):
        assert store.missing(one, [*POINTS, *new]) == new
    assert store.missing(store.create(experiment, "empty", {}, 1), POINTS) == POINTS
