"""The database in mlruns/: made of an empty one that is kept, which is made once."""

import contextlib
import shutil
import sqlite3

import pytest
from filelock import FileLock

from ablation.tracking import new_database
from ablation.tracking.addresses import folder_address


@pytest.fixture
def made(tmp_path, monkeypatch, empty_database):
    """The addresses at which MLflow made its tables, with a cache of this test's own; its migrations are a copy here."""
    addresses = []

    class Copied:
        def __init__(self, address):
            self.address = address

        def check(self):
            addresses.append(self.address)
            shutil.copyfile(empty_database, self.address.removeprefix("sqlite:///"))

    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(new_database, "Api", Copied)
    return addresses


def new(folder):
    """A new database in a folder of that name."""
    folder.mkdir()
    new_database.make_database(folder / "mlflow.db")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
    return folder / "mlflow.db"


def kept(tmp_path):
    (path,) = tmp_path.glob("cache/*/mlflow.db")
    return path


def rows(path, query):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_tables_are_made_once_for_all_folders(tmp_path, made):
    """The second store is there without migrations; what is written into one is in no other."""
    first = new(tmp_path / "a")
    with contextlib.closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("UPDATE experiments SET name = 'changed'")
    assert rows(new(tmp_path / "b"), "SELECT name FROM experiments") == [("Default",)]
    assert len(made) == 1


def test_a_database_that_is_there_is_left_alone(tmp_path, made):
    path = new(tmp_path / "a")
    path.write_bytes(b"mine")
    new_database.make_database(path)
    assert path.read_bytes() == b"mine"


def test_artifacts_of_the_default_experiment_lie_in_the_stores_folder(tmp_path, made):
    """Not in that of the store for which the tables were made; all else is MLflow's."""
    for name in ("a", "é #1"):
        path = new(tmp_path / name)
        assert rows(path, "SELECT artifact_location FROM experiments") == [(folder_address(path.parent / "0"),)]
        assert rows(path, "SELECT * FROM alembic_version") == rows(kept(tmp_path), "SELECT * FROM alembic_version")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no tables"])
def test_a_damaged_one_is_made_again(tmp_path, made, damage):
    new(tmp_path / "a")
    path = kept(tmp_path)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no database", "cut": content[: len(content) // 2], "no tables": b""}[damage])
    if damage == "no tables":
        rows(path, "CREATE TABLE alembic_version (version_num)")
    assert rows(new(tmp_path / "b"), "SELECT name FROM experiments") == [("Default",)]
    assert len(made) == 2


def test_where_none_can_be_kept_it_is_made_all_the_same(tmp_path, made):
    (tmp_path / "cache").write_text("a file, no folder")
    assert new_database.empty_database() is None
    assert rows(new(tmp_path / "a"), "SELECT name FROM experiments") == [("Default",)]
    assert made[0].startswith(f"sqlite:///{tmp_path}/a/making-")


def test_nobody_waits_for_ever_for_one_that_is_kept(tmp_path, made, monkeypatch):
    """Where its lock is not to be had, the database is made by itself."""
    monkeypatch.setattr(new_database, "PATIENCE", 0.1)
    new(tmp_path / "a")
    with FileLock(kept(tmp_path).with_suffix(".lock")):
        assert new_database.empty_database() is None
        assert rows(new(tmp_path / "b"), "SELECT name FROM experiments") == [("Default",)]
