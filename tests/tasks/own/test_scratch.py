"""What one's own code logs into MLflow: into a scratch store, and read from there without MLflow."""

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from ablation.tasks.own import scratch
from ablation.tasks.own.definition import Definition
from ablation.tracking.tables import Tables
from tests.tasks.own.runs import done, script
from tests.tasks.own.test_run import PRINTED

LOGS = """
import sys
from pathlib import Path
import mlflow
mlflow.set_experiment("theirs")
with mlflow.start_run(run_name="main"):
    mlflow.log_param("lr", 0.1)
    mlflow.set_tag("team", "us")
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("hello", "notes/hello.txt")
    for name in ("fold", "fold", "loss"):
        with mlflow.start_run(nested=True, run_name=name):
            mlflow.log_metric("f1", 0.5)
            mlflow.log_param("k", name)
            mlflow.log_text(name, "name.txt")
print("mae: 1.0")
"""


@pytest.fixture
def logged(tmp_path, empty_database):
    """The run of a script that logs, whose folder has a store of ours."""
    (tmp_path / "mlruns").mkdir()
    ours = tmp_path / "mlruns" / "mlflow.db"
    ours.write_bytes(empty_database.read_bytes())
    return script(tmp_path, LOGS, **PRINTED, empty_store=empty_database)


def own(a_run):
    return json.loads((a_run.results / a_run.key / "own" / "own.json").read_text(encoding="utf-8"))


def test_what_is_logged_is_in_the_result(logged, tmp_path, empty_database):
    """Metrics with their histories, params, tags, nested runs and artifacts; nothing of it is in our store or folder."""
    before = (tmp_path / "mlruns" / "mlflow.db").read_bytes(), empty_database.read_bytes()
    done(logged)
    about = own(logged)
    assert [(name, value, step) for name, value, _, step in about["points"] if name == "loss"] == [
        ("loss", 1 / (i + 1), i) for i in range(3)
    ]
    nested = sorted(name for name, *_ in about["points"] if name != "loss")
    assert nested == ["fold-2/f1", "fold/f1", "loss-2/f1"]
    assert about["params"] == {"lr": "0.1", "fold/k": "fold", "fold-2/k": "fold", "loss-2/k": "loss"}
    assert about["tags"] == {"team": "us"}
    assert {run["name"] for run in about["runs"]} == {"main", "fold", "loss"}
    artifacts = logged.results / logged.key / "own" / "artifacts"
    assert (artifacts / "notes" / "hello.txt").read_text() == "hello"
    assert (artifacts / "fold-2" / "name.txt").read_text() == "fold"
    assert before == ((tmp_path / "mlruns" / "mlflow.db").read_bytes(), empty_database.read_bytes())
    assert [path.name for path in (tmp_path / "mlruns").iterdir()] == ["mlflow.db"]


def test_a_store_of_ones_own_is_left_alone(tmp_path, empty_database):
    """A script that sets its own address logs there, and nothing is imported."""
    text = LOGS.replace('mlflow.set_experiment("theirs")', "mlflow.set_tracking_uri(sys.argv[2]); mlflow.set_experiment('theirs')")
    theirs = tmp_path / "theirs.db"
    theirs.write_bytes(empty_database.read_bytes())
    a_run = script(tmp_path, text, f"sqlite:///{theirs}", **PRINTED, empty_store=empty_database)
    done(a_run)
    assert not (a_run.results / a_run.key / "own").exists()
    tables = Tables.known(theirs)
    runs = [run for experiment in tables.experiments() for run in tables.runs(experiment.experiment_id, deleted=False)]
    assert len(runs) == 4
    for run in runs:  # with its artifacts, where MLflow puts them by itself
        assert run["artifacts"].startswith(str(tmp_path / "mlruns"))


def test_code_that_logs_nothing_leaves_nothing(tmp_path, empty_database):
    a_run = script(tmp_path, "print('mae: 1.0')", **PRINTED, empty_store=empty_database)
    done(a_run)
    assert not (a_run.results / a_run.key / "own").exists()


def test_the_run_is_not_ours(tmp_path, monkeypatch, empty_database):
    """Which run and experiment we are at is not handed down; the addresses are those of the scratch store."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "ours")
    text = "import os\nprint('mae:', sum(value == 'ours' for value in os.environ.values()))\n"
    assert done(script(tmp_path, text, **PRINTED, empty_store=empty_database))["metrics"] == {"test/mae": 0.0}


def test_artifacts_lie_in_the_scratch_folder(tmp_path, empty_database):
    """Of every experiment that has no place of its own, as MLflow would else put them into the working folder's mlruns."""
    store = tmp_path / "it's"
    environment = scratch.prepare(store, empty_database)
    assert set(environment) == {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"}
    insert = "INSERT INTO experiments (name, artifact_location, lifecycle_stage, workspace) VALUES (?, ?, 'active', 'default')"
    with sqlite3.connect(store / "mlflow.db") as connection:
        for name, place in (("empty", ""), ("s3", "s3://bucket/3"), ("own", "/data/3"), ("default", "mlruns")):
            connection.execute(insert, (name, place))
    connection.close()
    places = {one.name: one.artifact_location for one in Tables.known(store / "mlflow.db").experiments()}
    here = str(store / "artifacts")
    assert {name: place.startswith(here) for name, place in places.items()} == {
        "Default": True,
        "empty": True,
        "s3": False,
        "own": False,
        "default": True,
    }


def test_an_unknown_database_is_kept(tmp_path):
    """One that another version of MLflow made, or that is damaged, is not read, and not lost."""
    (tmp_path / "mlflow.db").write_text("no database")
    kept = scratch.collect(tmp_path, tmp_path)
    assert kept.files == {"mlflow.db": tmp_path / "mlflow.db"}
    assert kept.notes == ("what the code logged into MLflow, of a version that is not known here, is kept as own/mlflow.db",)
    assert scratch.collect(tmp_path / "none", tmp_path) is None


def test_artifacts_in_the_working_folder_are_moved(tmp_path, empty_database):
    """Where MLflow has made its own database, it puts artifacts beside our store; those of the run go into its result."""
    store = tmp_path / "scratch"
    scratch.prepare(store, None)
    assert not (store / "mlflow.db").exists()
    (store / "mlflow.db").write_bytes(empty_database.read_bytes())
    theirs, others = tmp_path / "mlruns" / "0" / "r1" / "artifacts", tmp_path / "elsewhere" / "r2" / "artifacts"
    columns = "run_uuid, name, status, start_time, lifecycle_stage, artifact_uri, experiment_id"
    insert = f"INSERT INTO runs ({columns}) VALUES (?, ?, 'FINISHED', 1, 'active', ?, 0)"
    with sqlite3.connect(store / "mlflow.db") as connection:
        for folder in (theirs, others):
            folder.mkdir(parents=True)
            (folder / "a.txt").touch()
            connection.execute(insert, (folder.parent.name, folder.parent.name, str(folder)))
    connection.close()
    found = scratch.collect(store, tmp_path)
    assert found.files == {"artifacts/a.txt": theirs / "a.txt", "artifacts/r2/a.txt": others / "a.txt"}
    assert found.elsewhere == [theirs.parent]


def test_whose_mlflow_the_code_has_by_its_own_path(tmp_path):
    """Where the file sets PATH, a program is looked for there."""
    options = {"folder": tmp_path, "command": (Path(sys.executable).name, "train.py")}
    assert scratch.has_our_mlflow(Definition(**options, env={"PATH": str(Path(sys.executable).parent)}))
    assert not scratch.has_our_mlflow(Definition(**options, env={"PATH": str(tmp_path)}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"function": "m:f"}, True),
        ({"command": (sys.executable, "train.py")}, True),
        ({"command": ("/bin/sh", "train.sh")}, False),
        ({"command": ("no-such-program",)}, False),
    ],
)
def test_whose_mlflow_the_code_has(tmp_path, options, expected):
    assert scratch.has_our_mlflow(Definition(folder=tmp_path, **options)) is expected
