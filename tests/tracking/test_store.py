"""The store: how it is made, how it moves with its folder, that writing twice does no harm, and what it returns."""

import json
import multiprocessing
import os
import shutil
import socket
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from ablation.errors import StoreError
from ablation.tracking.recorded import COLUMNS, PLAN, Point, select_runs
from ablation.tracking.store import Store

TAGS = {"ablation.kind": "run", "ablation.arm": "baseline", "ablation.seed": "0", "ablation.key": "k0"}


@pytest.fixture
def store(folder):
    return Store.open()


def recorded_study(store, name="demo", runs=(), plan=None):
    """Record a study with a plan and these runs (tags over TAGS, status); returns the id of its experiment."""
    experiment = store.experiment(name)
    content = plan or {"runs": [{"arm": "baseline", "seed": 0, "key": "k0"}], "arms": [], "stages": [], "seeds": [0]}
    file = store.root / PLAN
    file.write_text(json.dumps(content))
    plan_run = store.create(experiment, "plan", {"ablation.kind": "plan"}, 1)
    store.finish(plan_run, "FINISHED", 2)
    store.add_files(plan_run, {PLAN: file})
    for number, (tags, status) in enumerate(runs):
        run_id = store.create(experiment, "run", TAGS | tags, 10 + number)
        store.write(run_id, [Point("test/accuracy", number / 10, 5), Point("train/loss", 1.0, 5, 0), Point("train/loss", 0.5, 6, 1)])
        store.finish(run_id, status, 20 + number)
    store.touch(experiment)
    return experiment


def files_of(store, run_id):
    return sorted(file.path for file in store.client.list_artifacts(run_id))


# --- where it is -------------------------------------------------------------------------------------------------------------


def open_and_make(root, queue):
    queue.put(Store.open(root).experiment("demo"))


def test_several_processes_make_one_database(tmp_path, empty_database):
    """Processes that open a new store at the same time all succeed, and the database is complete."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=open_and_make, args=(tmp_path / "mlruns", queue)) for _ in range(10)]
    for process in processes:
        process.start()
    experiments = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 10
    assert len(experiments) == 1
    assert [experiment.name for experiment in Store.open(tmp_path / "mlruns").client.search_experiments()].count("demo") == 1


def test_several_processes_make_one_database_that_is_named(folder, monkeypatch):
    """Each from a folder of its own, into a file that none of them has yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/named.db")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=open_and_make, args=(folder / f"mlruns-{number}", queue)) for number in range(2)]
    for process in processes:
        process.start()
    experiments = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(experiments) == 1


@pytest.mark.parametrize("place", ["plain", "with space", "é#1"])
def test_the_default_store_is_in_mlruns(tmp_path, empty_database, monkeypatch, place):
    """Without MLFLOW_TRACKING_URI it is an SQLite database in mlruns/ of the working directory, with the artifacts beside it."""
    root = tmp_path / place / "mlruns"
    root.mkdir(parents=True)
    shutil.copyfile(empty_database, root / "mlflow.db")
    monkeypatch.chdir(root.parent)
    store = Store.open()
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    store.add_files(run_id, {PLAN: Path(__file__)})
    assert store.artifact(run_id, PLAN).is_relative_to(root / "artifacts" / "demo")
    assert store.artifact(run_id, PLAN).read_text(encoding="utf-8") == Path(__file__).read_text(encoding="utf-8")
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_an_environment_variable_names_the_store(folder, tmp_path, empty_database, monkeypatch):
    """Runs are recorded in the store of MLFLOW_TRACKING_URI, and the one in mlruns/ stays empty."""
    other = tmp_path / "other.db"
    shutil.copyfile(empty_database, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    recorded_study(Store.open())
    assert [name for name, _ in Store.open().studies()] == ["demo"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Store.open().studies() == []


@pytest.mark.parametrize(
    "uri", ["file:///tmp/somewhere", "./somewhere", "http://127.0.0.1:9", "nonsense://x", "sqlite:////proc/nowhere/x.db"]
)
@pytest.mark.filterwarnings("ignore")  # MLflow warns of file stores and of sockets
def test_a_store_that_cannot_be_used_is_an_error(folder, monkeypatch, uri):
    """A file store, a server that does not answer and an unknown scheme are StoreErrors of one line that name the store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError) as caught:
        Store.open()
    assert str(caught.value).startswith(f"the store at {uri} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_a_server_that_says_nothing_is_not_waited_for(folder, monkeypatch):
    """It takes connections and never answers, as one does that is frozen."""
    monkeypatch.setattr("ablation.tracking.addresses.SOON", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StoreError, match=r"cannot be used: it says nothing for \d+ s"):
            Store.open()


def test_a_file_that_is_no_database_is_an_error(tmp_path, empty_database):
    """Another file of the database's name is a StoreError and is not changed."""
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        Store.open(tmp_path / "mlruns")
    assert (tmp_path / "mlruns" / "mlflow.db").read_bytes().startswith(b"no database")


def test_an_error_of_the_server_is_a_store_error(store, monkeypatch):
    """MLflow's errors while something is read are raised as StoreErrors."""

    def fail(*_args, **_kwargs):
        raise MlflowException("connection lost\nand more")

    monkeypatch.setattr(store, "tables", None)  # as of a server, whose database is not read here
    for name in ("search_experiments", "search_runs", "get_experiment_by_name", "get_run"):
        monkeypatch.setattr(store.client, name, fail)
    for read in (
        store.studies,
        lambda: store.runs("1"),
        lambda: store.runs_of("demo"),
        lambda: store.recorded("demo"),
        lambda: store.curves("r"),
    ):
        with pytest.raises(StoreError, match=r"the store at .* cannot be used: connection lost$"):
            read()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_folder_that_moved_has_its_artifacts(folder, tmp_path, how):
    """Artifacts are read and written in the folder's new place, and a copy does not change the original."""
    store = Store.open()
    recorded_study(store, runs=[({}, "FINISHED")])
    (run,) = [run for run in store.runs_of("demo") if run["tags"]["ablation.kind"] == "run"]
    store.add_files(run["run_id"], {"notes.txt": Path(__file__)})
    target = tmp_path / "elsewhere" / "mlruns"
    (shutil.move if how == "moved" else shutil.copytree)(folder / "mlruns", target)
    new_store = Store.open(target)
    assert new_store.artifact(run["run_id"], "notes.txt").is_relative_to(target)
    assert files_of(new_store, run["run_id"]) == ["notes.txt"]
    assert new_store.recorded("demo").plan["runs"]
    new_store.add_files(new_store.create(new_store.experiment("demo"), "new", TAGS, 1), {"new.txt": Path(__file__)})
    assert len(list(target.rglob("new.txt"))) == 1
    if how == "copied":
        assert Store.open(folder / "mlruns").artifact(run["run_id"], "notes.txt").is_relative_to(folder / "mlruns")
        assert not list((folder / "mlruns").rglob("new.txt"))


def test_other_artifact_locations_stay(store):
    """Experiments of other tools, whose artifacts are elsewhere, are not changed when the store is opened."""
    store.client.create_experiment("theirs", artifact_location="s3://bucket/artifacts/theirs")
    store.client.create_experiment("plain", artifact_location="/data/plain")
    Store.open()
    with sqlite3.connect(store.root / "mlflow.db") as connection:
        locations = {location for (location,) in connection.execute("SELECT artifact_location FROM experiments")}
    assert {"s3://bucket/artifacts/theirs", "/data/plain"} <= locations


# --- writing -----------------------------------------------------------------------------------------------------------------


def test_points_written_twice_are_recorded_once(store):
    """Points with the same times may be written any number of times, in any order."""
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    points = [Point("train/loss", 1 / (step + 1), 1000 + step, step) for step in range(5)]
    for batch in (points[:3], points, points[::-1]):
        store.write(run_id, batch)
    assert sorted(store.curves(run_id), key=lambda point: point.step) == points


def test_many_values_are_written_in_parts(store):
    """More metrics, params and tags than MLflow allows at once are all recorded, and long values are cut."""
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    params = {f"p{i}": "x" * 7000 for i in range(130)} | {"empty": "", "with space/and.dots": "1"}
    store.write(run_id, [Point("a", i, i, i) for i in range(2500)], params, {f"t{i}": "y" * 9000 for i in range(130)})
    data = store.client.get_run(run_id).data
    assert data.params.keys() == params.keys()
    assert len(data.params["p0"]) == 6000
    assert len([name for name in data.tags if name.startswith("t")]) == 130
    assert len(store.client.get_metric_history(run_id, "a")) == 2500


def test_artifacts_are_replaced(store, tmp_path):
    """A file that is added again under the same name replaces the one before, which is otherwise unchanged."""
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    for text in ("one", "two", "two"):
        source = tmp_path / f"{text}.txt"
        source.write_text(text)
        store.add_files(run_id, {"file.txt": source})
        assert store.artifact(run_id, "file.txt").read_text() == text
    assert files_of(store, run_id) == ["file.txt"]
    assert (tmp_path / "one.txt").read_text() == "one"


def test_a_missing_artifact_is_an_error(store):
    """A file that was deleted is a StoreError that names the run and the file."""
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    with pytest.raises(StoreError, match=f"the run {run_id} has no artifact weights"):
        store.artifact(run_id, "weights")


def test_a_deleted_experiment_is_restored(store):
    """A study whose experiment was deleted in MLflow's page is recorded again under the same name."""
    experiment = store.experiment("demo", "first")
    store.client.delete_experiment(experiment)
    assert store.experiment("demo", "second") == experiment
    assert store.client.get_experiment(experiment).tags["mlflow.note.content"] == "second"


# --- reading -----------------------------------------------------------------------------------------------------------------


def test_a_recorded_study_is_returned(store):
    """The newest plan, its runs with their final metrics, and their curves."""
    recorded_study(store, runs=[({}, "FINISHED")])
    recorded = store.recorded("demo")
    (row,) = recorded.runs.to_dict("records")
    assert (row["arm"], row["seed"], row["status"], row["key"], row["test/accuracy"]) == ("baseline", 0, "FINISHED", "k0", 0.0)
    curves = recorded.curves([row["run_id"]])
    expected = {"run_id": [row["run_id"]] * 2, "metric": ["train/loss"] * 2, "step": [0, 1], "value": [1.0, 0.5]}
    pd.testing.assert_frame_equal(curves, pd.DataFrame(expected))


def test_an_unknown_study_is_an_error_with_the_known_ones(store):
    """A study that is not recorded is an error with the nearest name; if there is none, the error says how to record one."""
    with pytest.raises(StoreError, match=r"no study 'demo'; it holds none yet: ablate run FILE"):
        store.recorded("demo")
    recorded_study(store, "demo")
    recorded_study(store, "other")
    with pytest.raises(StoreError, match=r"no study 'demi'; expected one of other, demo. Did you mean 'demo'\?"):
        store.recorded("demi")


def test_the_study_last_changed_is_first(store):
    """Studies are sorted by their last change."""
    first, _ = recorded_study(store, "first"), recorded_study(store, "second")
    assert [name for name, _ in store.studies()] == ["second", "first"]
    store.touch(first)
    assert [name for name, _ in store.studies()] == ["first", "second"]


def run_of(arm="baseline", seed=0, key="k0", status="FINISHED", run_id="r", **metrics):
    tags = {"ablation.arm": arm, "ablation.seed": str(seed), "ablation.key": key}
    return {"run_id": run_id, "status": status, "tags": tags, "metrics": metrics, "start": 1, "end": 2, "digest": "d"}


PLANNED = {"runs": [{"arm": "baseline", "seed": 0, "key": "k0"}, {"arm": "cb", "seed": 0, "key": "k1"}]}


@pytest.mark.parametrize(
    ("runs", "expected", "superseded"),
    [
        ([], {}, []),
        ([run_of()], {"baseline": "r"}, []),
        ([run_of(run_id="new"), run_of(run_id="old")], {"baseline": "new"}, []),
        ([run_of(run_id="new", status="KILLED"), run_of(run_id="old")], {"baseline": "old"}, []),
        ([run_of(run_id="new", status="RUNNING"), run_of(run_id="old", status="FAILED")], {"baseline": "new"}, []),
        ([run_of(key="other")], {}, ["baseline 0"]),
        ([run_of(), run_of("cb", 0, "k1", run_id="c"), run_of("gone", 3)], {"baseline": "r", "cb": "c"}, ["gone 3"]),
        ([run_of(seed=1), run_of(seed=1, key="x")], {}, ["baseline 1"]),
    ],
)
def test_the_plan_chooses_its_runs(runs, expected, superseded):
    """Of the runs with the planned keys the newest finished one counts, else the newest; runs with other keys are superseded."""
    frame, superseded_names = select_runs(PLANNED, runs)
    assert dict(zip(frame["arm"], frame["run_id"], strict=True)) == expected
    assert superseded_names == superseded
    assert {"arm", "seed", "status", "key", "run_id", "start", "end", "reason"} <= set(frame.columns)


def test_the_frame_has_the_context_of_a_run(store):
    """A run's row has its commit, versions, device, data and command; only the names of its metrics have a slash."""
    recorded_study(store, runs=[({}, "FINISHED")])
    (run,) = [run for run in store.runs_of("demo") if run["tags"]["ablation.kind"] == "run"]
    tags = {"mlflow.source.git.commit": "c0ffee", "ablation.git.dirty": "true", "ablation.hardware": "Thing", "ablation.device": "cpu"}
    tags |= {"ablation.precision": "fp32", "ablation.statistical": "no", "ablation.command": "ablate run demo.yaml"}
    store.write(run["run_id"], tags=tags | {"ablation.version.torch": "2.0", "ablation.version.numpy": "1.0"})
    store.log_dataset(run["run_id"], "digits", "0123", "digits", "training")
    recorded = store.recorded("demo")
    (row,) = recorded.runs.to_dict("records")
    context = ("commit", "dirty", "hardware", "device", "precision", "statistical", "command", "digest")
    assert [row[name] for name in context] == ["c0ffee", "true", "Thing", "cpu", "fp32", "no", "ablate run demo.yaml", "0123"]
    assert json.loads(row["versions"]) == {"torch": "2.0", "numpy": "1.0"}
    assert {name for name in recorded.runs.columns if "/" not in name} == set(COLUMNS)
    store.add_files(run["run_id"], {"notes.txt": Path(__file__)})
    assert recorded.artifact(run["run_id"], "notes.txt").read_bytes() == Path(__file__).read_bytes()


def test_what_was_not_recorded_is_empty(store):
    """Whatever an older version did not record is an empty text, and a study without runs has all columns."""
    frame, _ = select_runs(PLANNED, [run_of()])
    assert frame.loc[0, ["commit", "versions", "command"]].tolist() == ["", "", ""]
    assert list(select_runs(PLANNED, [])[0].columns) == list(COLUMNS)


def test_the_time_of_the_last_change(store):
    """A study that was touched has a time; for any other it is 0."""
    assert store.changed("demo") == 0
    experiment = store.experiment("demo")
    assert store.changed("demo") == 0
    store.touch(experiment)
    assert store.changed("demo") == dict(store.studies())["demo"] > 0


def test_a_picture_replaces_the_one_before(store, tmp_path):
    """A picture is recorded once, as MLflow's grid of images requires; those of other keys stay."""
    run_id = store.create(store.experiment("demo"), "run", TAGS, 1)
    for colour in ("red", "blue"):
        Image.new("RGBA", (8, 8), colour).save(tmp_path / "picture.png")
        for key in ("matrix", "matrix2"):
            store.show_picture(run_id, key, tmp_path / "picture.png")
    names = sorted(file.path for file in store.client.list_artifacts(run_id, "images"))
    assert [name.split("+")[0] for name in names] == ["images/matrix", "images/matrix", "images/matrix2", "images/matrix2"]
    picture = Image.open(store.artifact(run_id, next(name for name in names if name.endswith(".png"))))
    assert picture.getpixel((4, 4)) == (0, 0, 255)
    assert store.client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_after_a_kill_the_database_is_made_again(tmp_path, monkeypatch):
    """A process that is killed while MLflow makes its tables leaves no mlflow.db, and the next process makes it."""

    def kill(*_args, **_kwargs):
        raise KeyboardInterrupt

    root = tmp_path / "mlruns"
    with monkeypatch.context() as patch:
        patch.setattr("ablation.tracking.new_database.sqlite3.connect", kill)  # the tables are made, but not yet moved
        with pytest.raises(KeyboardInterrupt):
            Store.open(root)
    assert not (root / "mlflow.db").exists()
    (root / "making-of-the-killed").mkdir()
    assert Store.open(root).studies() == []
    assert not list(root.glob("making-*"))


def test_reading_makes_no_store(tmp_path, monkeypatch):
    """If there is no store, opening it for reading is a StoreError, and the folder stays empty."""
    monkeypatch.chdir(tmp_path)
    assert not Store.is_there()
    with pytest.raises(StoreError, match="holds no study yet"):
        Store.open(make=False)
    assert not list(tmp_path.iterdir())


def test_an_existing_store_is_opened_for_reading(tmp_path, empty_database):
    """A database that exists is opened for reading as for writing."""
    (tmp_path / "mlruns").mkdir()
    shutil.copyfile(empty_database, tmp_path / "mlruns" / "mlflow.db")
    assert Store.is_there(tmp_path / "mlruns")
    assert Store.open(tmp_path / "mlruns", make=False).studies() == []


def test_looking_needs_no_lock_and_no_writing(store, monkeypatch, tmp_path):
    """A folder that is read-only, moved or not, is read as any other: nothing is locked or written."""
    recorded_study(store, runs=[({}, "FINISHED")])
    there = tmp_path / "copy"
    shutil.copytree(store.root, there / "mlruns")
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*")}

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("ablation.tracking.store.FileLock", refuse)
    read = Store.open(there / "mlruns", make=False).recorded("demo")
    assert len(read.runs) == 1
    assert read.store.artifact(read.store.runs_of("demo")[-1]["run_id"], PLAN).is_relative_to(there)
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*")} == before
