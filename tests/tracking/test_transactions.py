"""Several writings as one: what is there if one of them fails, and what others see meanwhile."""

import threading

import pytest
from mlflow.exceptions import MlflowException

from ablation.tracking.recorded import Point
from ablation.tracking.store import Store
from ablation.tracking.transactions import one_transaction


@pytest.fixture
def store(folder):
    """An empty store, and the id of a study in it."""
    opened = Store.open()
    return opened, opened.experiment("tiny")


def write_run(store, experiment, name="one"):
    run_id = store.create(experiment, name, {"a": "b"}, 5)
    store.write(run_id, [Point("m", 1.0, 5), Point("train/loss", 2.0, 5, 1)], {"p": "1"}, {"c": "d"})
    return run_id


def names(store, experiment):
    return {run["name"] for run in store.runs(experiment)}


def test_all_of_it_is_there_afterwards(store):
    """A run, its params, tags, metrics, data and end."""
    store, experiment = store
    with store.transaction() as is_one:
        run_id = write_run(store, experiment)
        store.log_dataset(run_id, "data", "1f2e", "there", "training")
        store.finish(run_id, "FINISHED", 9)
        assert names(store, experiment) == set()  # others see nothing yet
    (run,) = store.runs(experiment)
    assert is_one
    assert (run["status"], run["end"], run["digest"], run["params"], run["metrics"]) == (
        "FINISHED", 9, "1f2e", {"p": "1"}, {"m": 1.0, "train/loss": 2.0},
    )  # fmt: skip
    assert run["tags"].items() >= {"a": "b", "c": "d"}.items()


def test_nothing_of_it_is_there_if_something_fails(store):
    """Not even what MLflow has said is written; and the next one is whole."""
    store, experiment = store

    def fail():
        with store.transaction():
            write_run(store, experiment)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(store, experiment) == set()
    with store.transaction():
        write_run(store, experiment, "two")
    assert names(store, experiment) == {"two"}


def test_a_point_that_is_there_already_undoes_nothing(store):
    """MLflow takes back its own part, writes what is new, and the rest of the transaction stays."""
    store, experiment = store
    with store.transaction():
        run_id = write_run(store, experiment)
        store.write(run_id, [Point("m", 1.0, 5), Point("new", 3.0, 6)])
    (run,) = store.runs(experiment)
    assert run["metrics"] == {"m": 1.0, "train/loss": 2.0, "new": 3.0}
    assert run["params"] == {"p": "1"}


def test_another_thread_is_no_part_of_it(store):
    """What it reads through MLflow is what was there before."""
    store, experiment = store
    seen = []
    with store.transaction():
        write_run(store, experiment)
        thread = threading.Thread(target=lambda: seen.extend(store.api.runs(experiment, deleted=False)))
        thread.start()
        thread.join(30)
        inside = store.api.runs(experiment, deleted=False)
    assert (seen, len(inside)) == ([], 1)


def test_one_within_another_is_part_of_it(store):
    """It does not end the transaction."""
    store, experiment = store

    def fail():
        with store.transaction():
            with store.transaction() as is_one:
                write_run(store, experiment)
            assert is_one
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(store, experiment) == set()


def test_a_store_without_a_database_has_none():
    """A server takes each call by itself."""
    with one_transaction(object()) as is_one:
        assert not is_one


def test_unless_it_is_careful_nothing_may_be_there_already(store):
    """A point that is written again fails then, and all of the transaction is undone; what is new is written."""
    store, experiment = store
    run_id = write_run(store, experiment)

    def write_again():
        with store.transaction(is_careful=False):
            write_run(store, experiment, "two")
            store.write(run_id, [Point("m", 1.0, 5)])

    with pytest.raises(MlflowException):
        write_again()
    assert names(store, experiment) == {"one"}
    with store.transaction(is_careful=False):
        second = write_run(store, experiment, "two")
        store.write(run_id, [Point("m", 2.0, 6)], {"q": "2"}, {"c": "e"})
        store.finish(second, "FINISHED", 9)
        assert store.client.get_run(second).info.status == "FINISHED"
    found = {run["name"]: run for run in store.runs(experiment)}
    assert found["one"]["metrics"]["m"] == 2.0
    assert found["one"]["params"] == {"p": "1", "q": "2"}
    assert found["one"]["tags"]["c"] == "e"
    assert found["two"]["end"] == 9


def test_a_later_mlflow_without_what_it_is_built_on_has_none(store, monkeypatch):
    """Each call is a transaction of its own then, and all is written."""
    monkeypatch.delattr("mlflow.store.db.utils._get_managed_session_maker")
    store, experiment = store
    with store.transaction() as is_one:
        write_run(store, experiment)
    assert not is_one
    assert names(store, experiment) == {"one"}
