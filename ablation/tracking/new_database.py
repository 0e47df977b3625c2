"""How the SQLite database in mlruns/ is made: a copy of an empty one, which is kept."""

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from ablation.system import kept
from ablation.system.code import package_version
from ablation.tracking.addresses import database_address, folder_address
from ablation.tracking.api import Api, mlflow_errors

PATIENCE = 60  # seconds that are waited for a process that makes the empty one


def make_database(database: Path) -> None:
    """Make the database, under the caller's lock, unless it exists: a copy of the empty one, or where none can be kept one like it."""
    if database.exists():
        return
    empty = empty_database()
    with _making(database) as copy:
        if empty is None:
            _make_empty(copy)
        else:
            shutil.copyfile(empty, copy)
        with contextlib.closing(sqlite3.connect(copy)) as connection, connection:  # MLflow's default: in the folder in which it was made
            connection.execute("UPDATE experiments SET artifact_location = ?", (folder_address(database.parent / "0"),))


def empty_database() -> Path | None:
    """A database without runs, made once for each version of MLflow and kept, since its migrations take seconds.

    None where it cannot be kept.
    """
    path = kept.folder() / f"mlflow-{package_version('mlflow')}" / "mlflow.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=PATIENCE):
            if not _has_tables(path):
                with _making(path) as copy:
                    _make_empty(copy)
    except mlflow_errors(OSError, sqlite3.Error):
        return None
    return path


@contextlib.contextmanager
def _making(database: Path) -> Iterator[Path]:
    """Where the database is made before it is moved to its place: nobody ever opens one that was only partly made."""
    for folder in database.parent.glob("making-*"):  # of an earlier attempt
        shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix="making-") as folder_name:
        copy = Path(folder_name) / "whole.db"
        yield copy
        copy.replace(database)


def _make_empty(copy: Path) -> None:
    original = copy.with_name("making.db")
    Api(database_address(original)).check()  # makes the tables
    with contextlib.closing(sqlite3.connect(original)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
        source.backup(target)  # a complete copy, even if MLflow still has the original open


def _has_tables(database: Path) -> bool:
    """Whether it is a whole database of MLflow's."""
    if not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        try:
            answers = [connection.execute(query).fetchone()[0] for query in ("PRAGMA quick_check", "SELECT count(*) FROM alembic_version")]
        except sqlite3.DatabaseError:
            return False
    return answers == ["ok", 1]
