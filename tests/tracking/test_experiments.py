"""Which of MLflow's experiments is a study's, and which is none."""

import sqlite3

import pytest

from ablation.errors import StoreError
from ablation.tracking.store import Store
from tests.tracking.test_store import recorded_study


@pytest.fixture(params=["tables", "MLflow"])
def store(request, folder):
    """A store that is read by its tables, or by MLflow's client."""
    opened = Store.open()
    opened.tables = opened.tables if request.param == "tables" else None
    return opened


def test_an_experiment_of_others_is_left_alone(store):
    """It was deleted, and has a note and a run: it is not restored, and gets neither another note nor runs."""
    experiment = store.client.create_experiment("demo", tags={"mlflow.note.content": "theirs"})
    store.client.create_run(experiment)
    store.client.delete_experiment(experiment)
    reason = r"^the name 'demo' is taken in MLflow by an experiment that ablate did not make; expected another name for the study or for"
    for use in (store.experiment, store.restore, store.runs_of, store.recorded):
        with pytest.raises(StoreError, match=reason):
            use("demo")
    found = store.client.get_experiment(experiment)
    assert (found.lifecycle_stage, found.tags) == ("deleted", {"mlflow.note.content": "theirs"})


def test_an_empty_experiment_is_taken(store):
    """As somebody made it for the study, and where a command was killed before its first run."""
    experiment = store.client.create_experiment("demo")
    assert store.experiment("demo") == experiment


def test_what_earlier_versions_recorded_is_taken(store):
    """They gave an experiment no tag, but its runs."""
    experiment = recorded_study(store, runs=[({}, "FINISHED")])
    with sqlite3.connect(store.root / "mlflow.db") as connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = 'ablation.study'")
    assert store.experiment("demo") == experiment
