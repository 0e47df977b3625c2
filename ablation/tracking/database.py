"""The SQLite database in mlruns/: how it is made, and how it finds its artifacts again after its folder was moved."""

import contextlib
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path


def make_database(database: Path, make_tables: Callable[[str], object]) -> None:
    """Make the database unless it exists; `make_tables` makes the tables in the database of a URI.

    It is made in a temporary folder and then moved: MLflow never opens a database whose tables were only partly made.
    """
    if database.exists():
        return
    for folder in database.parent.glob("making-*"):  # of an earlier attempt
        shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=database.parent, prefix="making-") as folder_name:
        original, copy = Path(folder_name) / "making.db", Path(folder_name) / "whole.db"
        make_tables(f"sqlite:///{original}")
        with contextlib.closing(sqlite3.connect(original)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)  # a complete copy, even if MLflow still has the original open
        copy.replace(database)


def repoint(root: Path) -> None:
    """Change the artifact locations in the database of a folder that has moved, so that they are in the folder again."""
    database = root / "mlflow.db"
    if not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        try:
            locations = [location for (location,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments") if location]
        except sqlite3.OperationalError:
            return  # a database without tables yet
        for old in locations:
            new = f"{root}/artifacts/{Path(old).name}"
            if old == new or not _is_ours(old) or not Path(new).exists():
                continue
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                with contextlib.suppress(sqlite3.OperationalError):  # older databases have no table logged_models
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
        connection.commit()


def _is_ours(location: str) -> bool:
    """Whether a location has the form that this store uses: .../artifacts/STUDY."""
    return re.fullmatch(r"/.*/artifacts/[^/]+", location) is not None
