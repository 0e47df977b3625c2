"""Addresses: whatever a folder is called, the store lies in it, moves with it, and nothing is written beside it."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from ablation.errors import StoreError
from ablation.tracking.addresses import database_address, database_path, folder_address, folder_path
from ablation.tracking.recorded import PLAN
from ablation.tracking.store import Store

ODD = [
    "plain",
    "a b",
    "q?x",
    "q?x=1&y=2",
    "p%20x",
    "100%",
    "%2e%2e",
    "a#b",
    "é",
    "雪",
    "it's",
    'say "x"',
    "b\\c",
    "two\nlines",
    "a:b",
    "a@b",
    "a;b",
]
ODD += ["[x]*", "a+b", "{x}", "~x", "$HOME", "file:", "sqlite:", ":memory:", "a&b=c", "a,b", " blank ", "x" * 200, "-rf", "%", "?", "#"]


@pytest.mark.parametrize("name", ODD)
def test_paths_come_back_from_their_addresses(tmp_path, name):
    """A path is read back from its address, as the database's and as a folder's."""
    path = tmp_path / name / "mlflow.db"
    assert database_path(database_address(path)) == path
    assert folder_path(folder_address(path)) == path


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.iterdir())


@pytest.mark.parametrize("name", ODD)
def test_a_store_is_in_its_folder_whatever_that_is_called(tmp_path, empty_database, monkeypatch, name):
    """The database, the artifacts and MLflow's own pictures are in the folder, and after a move in the one that it moved to."""
    root = tmp_path / name / "mlruns"
    root.mkdir(parents=True)
    shutil.copyfile(empty_database, root / "mlflow.db")
    monkeypatch.chdir(root.parent)
    store = Store.open()
    run_id = store.create(store.experiment("demo"), "run", {"ablation.kind": "run"}, 1)
    store.add_files(run_id, {PLAN: Path(__file__)})
    Image.new("RGB", (4, 4)).save("x.png")
    store.show_picture(run_id, "confusion_matrix", Path("x.png"))
    assert store.artifact(run_id, PLAN).is_relative_to(root / "artifacts" / "demo")
    assert PLAN in {file.path for file in store.client.list_artifacts(run_id)}  # MLflow finds it at the same place
    assert len(list((store.artifact(run_id, PLAN).parent / "images").iterdir())) == 2
    assert tree(tmp_path) == [name]
    for other in ("moved", "m%20o?ved"):
        shutil.copytree(root.parent, tmp_path / other)
        monkeypatch.chdir(tmp_path / other)
        there = tmp_path / other / "mlruns" / "artifacts"
        assert Store.open(make=False).artifact(run_id, PLAN).is_relative_to(there)
        moved = Store.open()
        assert moved.artifact(run_id, PLAN).is_relative_to(there)
        assert PLAN in {file.path for file in moved.client.list_artifacts(run_id)}


@pytest.mark.parametrize("name", ["q?x", "p%20x", "a#b", "é"])
def test_a_database_is_made_in_an_odd_folder(tmp_path, monkeypatch, name):
    """MLflow makes the tables of a new database there, and nothing beside the folder."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    Store.open().experiment("demo")
    assert tree(tmp_path) == [name]
    with sqlite3.connect(Path("mlruns/mlflow.db")) as connection:
        assert ("demo",) in connection.execute("SELECT name FROM experiments").fetchall()


def test_a_folder_that_is_not_utf8_is_told(tmp_path):
    """No database can be named by bytes that are no letters: one sentence."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(StoreError, match="expected a folder whose name is UTF-8"):
        database_address(folder / "mlflow.db")


@pytest.mark.parametrize(
    "spelled",
    [
        "sqlite:///mlruns/mlflow.db",
        "sqlite:///./mlruns/../mlruns/mlflow.db",
        " sqlite:///mlruns/mlflow.db\n",
        "sqlite:///{}/mlruns/mlflow.db",
    ],
)
def test_the_own_database_under_another_spelling_is_the_own(folder, monkeypatch, spelled):
    """A relative address of the database in mlruns/, or one with blanks around it, is that of the folder's own store."""
    own = Store.open()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", spelled.format(folder))
    named = Store.open()
    assert named.uri == own.uri
    assert not named.is_shared


def test_a_relative_database_stays_where_it_was_named(folder, empty_database, monkeypatch):
    """A relative address is that of the folder in which the command was given, also for the processes that it starts."""
    (folder / "else").mkdir()
    shutil.copyfile(empty_database, folder / "else" / "x.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///else/x.db")
    assert Store.open().uri == f"sqlite:///{folder}/else/x.db"


@pytest.mark.parametrize(("address", "expected"), [("sqlite:////tmp/q?x/mlruns/mlflow.db", "%3F"), ("sqlite:///{}/p%20x/x.db", "%25")])
def test_an_address_that_is_a_raw_path_is_told(folder, monkeypatch, address, expected):
    """An address into which somebody pasted a path with ? or % would be another database: the right spelling is named."""
    (folder / "p%20x").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(folder))
    with pytest.raises(StoreError, match=expected):
        Store.open()


@pytest.mark.parametrize(
    "address", ["sqlite:////tmp/x.db?timeout=30", "sqlite:///:memory:", "postgresql://me:secret@host/db", "http://localhost:5000"]
)
def test_other_addresses_are_left_alone(address):
    """Addresses that have options, and those of no file of ours, are MLflow's own affair."""
    assert database_path(address) in (None, Path("/tmp/x.db"))
