"""An SQLite database that MLFLOW_TRACKING_URI names: it moves with its folder, as that in mlruns/ does, and reading makes none."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from filelock import FileLock

from ablation.errors import StoreError
from ablation.tracking.recorded import PLAN
from ablation.tracking.store import Store
from tests.tracking.test_store import recorded_study


@pytest.fixture
def project(tmp_path, empty_database, monkeypatch):
    """A folder with a study in its own store.db, which is named relative to it."""
    folder = tmp_path / "first"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_database, folder / "store.db")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///store.db")
    recorded_study(Store.open(), runs=[({}, "FINISHED")])
    return folder


def run_of(store):
    return next(run["run_id"] for run in store.runs_of("demo") if run["tags"]["ablation.kind"] == "run")


@pytest.mark.parametrize("make", [True, False])
def test_a_copy_has_its_own_artifacts(project, monkeypatch, make):
    """What is read and written there is the copy's, and the original keeps what it has."""
    copy = project.with_name("second")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    store = Store.open(make=make)
    assert Path(store.recorded("demo").store.artifact(store.runs_of("demo")[-1]["run_id"], PLAN)).is_relative_to(copy)
    if make:
        recorded_study(store)
        assert len(list(copy.rglob(PLAN))) == 2 + len(list(copy.glob(f"mlruns/{PLAN}")))
    assert len(list(project.rglob(PLAN))) == 1 + len(list(project.glob(f"mlruns/{PLAN}")))
    monkeypatch.chdir(project)
    assert Store.open().artifact(Store.open().runs_of("demo")[-1]["run_id"], PLAN).is_relative_to(project)


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_that_moved_is_read_and_written_where_it_is(project, monkeypatch, make):
    there = project.with_name("moved")
    project.rename(there)
    monkeypatch.chdir(there)
    store = Store.open(make=make)
    assert store.recorded("demo").plan["runs"]
    assert list(store.files(store.runs_of("demo")[-1]["run_id"])) == [PLAN]
    if make:
        recorded_study(store)
    assert not project.exists()


def test_projects_that_share_a_database_keep_their_artifacts_apart(project, monkeypatch):
    """Though the second is a copy of the first: a database that lies elsewhere is not the copy's."""
    shared = project.with_name("shared.db")
    shutil.move(project / "store.db", shared)
    copy = project.with_name("second")
    shutil.copytree(project, copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    for folder in (copy, project):
        monkeypatch.chdir(folder)
        store = Store.open()
        assert store.artifact(store.runs_of("demo")[-1]["run_id"], PLAN).is_relative_to(project)
    monkeypatch.chdir(copy)
    shutil.rmtree(project)
    store = Store.open()
    assert store.artifact(store.runs_of("demo")[-1]["run_id"], PLAN).is_relative_to(copy)


def test_a_run_whose_files_are_gone_is_lost(project):
    """As in mlruns/mlflow.db; but not where all are gone, which may be on another machine, nor where they lie outside this folder."""
    store = Store.open()
    run_id = run_of(store)
    assert store.has_lost_files(run_id, "config.yaml")
    store.add_files(run_id, {"config.yaml": project / "store.db"})
    assert not store.has_lost_files(run_id, "config.yaml")
    (project / "mlruns" / "artifacts").rename(project / "elsewhere")
    assert not Store.open().has_lost_files(run_id, "config.yaml")
    assert not Store.open(project / "other").has_lost_files(run_id, "config.yaml")


# --- while a study is run ------------------------------------------------------------------------------------------------------


def lock_held(copy, name):
    lock = FileLock(copy / "mlruns" / "locks" / f"{name}.lock")
    (copy / "mlruns" / "locks").mkdir()
    lock.acquire()
    return lock.release


def said_elsewhere(copy, name):
    (copy / "mlruns" / "status").mkdir()
    path = copy / "mlruns" / "status" / f"{name}.json"
    path.write_text(json.dumps({"state": "running", "host": f"not-{socket.gethostname()}"}))
    return path.unlink


def locations(store):
    return {Path(experiment.artifact_location) for experiment in store.tables.experiments() if experiment.name == "demo"}


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("name", ["demo", "demo.part-1-of-2"])
@pytest.mark.parametrize("begin", [lock_held, said_elsewhere])
def test_the_record_of_a_study_that_is_run_stays_as_it_is(project, monkeypatch, begin, name, is_named):
    """Whoever runs it may see the folder under another path; it is read here all the same, and changed by its own command or later."""
    if not is_named:
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        shutil.move(project / "store.db", project / "mlruns" / "mlflow.db")
    copy = project.with_name("second")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    end = begin(copy, name)
    try:
        store = Store.open()
        assert locations(store) == {project / "mlruns" / "artifacts" / "demo"}
        assert store.artifact(store.runs_of("demo")[-1]["run_id"], PLAN).is_relative_to(copy)
        assert locations(Store.open(study="demo")) == {copy / "mlruns" / "artifacts" / "demo"}
    finally:
        end()


def test_the_record_is_changed_once_the_study_has_ended(project, monkeypatch):
    copy = project.with_name("second")
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    lock_held(copy, "other")
    lock_held_by_nobody = copy / "mlruns" / "locks" / "demo.lock"
    lock_held_by_nobody.touch()
    assert locations(Store.open()) == {copy / "mlruns" / "artifacts" / "demo"}


# --- where there is none -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["sqlite:///{}/typo/x.db", "sqlite:///{}/typo/x.db?timeout=5"])
def test_reading_makes_no_database_that_is_named(tmp_path, monkeypatch, address):
    """A name that was mistyped is a StoreError for what reads, and nothing is made."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not Store.is_there()
    with pytest.raises(StoreError, match="holds no study yet"):
        Store.open(make=False)
    assert not list(tmp_path.iterdir())


def test_a_server_is_there_as_far_as_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert Store.is_there()
