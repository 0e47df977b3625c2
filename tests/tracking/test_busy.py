"""A database that another process holds: nothing is half written, and what a user reads is one sentence."""

import contextlib
import sqlite3

import pytest

from ablation.errors import StoreError
from ablation.tracking import transactions
from ablation.tracking.recorded import SUPERSEDED, is_superseded
from ablation.tracking.store import Store
from tests.tracking.test_store import recorded_study


@pytest.fixture
def store(folder, monkeypatch):
    """A store with two runs, that waits for nobody."""
    monkeypatch.setattr(transactions, "BEGIN_SQLITE", ("PRAGMA busy_timeout = 50", "BEGIN IMMEDIATE"))
    opened = Store.open()
    recorded_study(opened, runs=[({}, "FINISHED"), ({"ablation.seed": "1"}, "FINISHED")])
    return opened


@contextlib.contextmanager
def held(store):
    """Another process writes meanwhile."""
    with contextlib.closing(sqlite3.connect(store.root / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def run_ids(store):
    return [run["run_id"] for run in store.runs_of("demo") if run["tags"]["ablation.kind"] == "run"]


def test_nothing_is_written_while_another_process_writes(store):
    """Whether it can be is known before, and what is written together is one sentence where it can not."""
    with held(store):
        for write in (store.check_writable, lambda: store.supersede(run_ids(store))):
            with pytest.raises(StoreError, match=r"cannot be used: .*database is locked") as caught:
                write()
            assert "\n" not in str(caught.value)
    assert not any(is_superseded(run) for run in store.runs_of("demo"))


def test_runs_are_superseded_together(store):
    store.check_writable()
    store.supersede(run_ids(store))
    assert [run["tags"].get(SUPERSEDED, "") for run in store.runs_of("demo")] == ["yes", "yes", ""]


def test_a_run_that_cannot_be_deleted_is_a_store_error(store):
    with pytest.raises(StoreError, match="cannot be used"):
        store.delete("no such run")
