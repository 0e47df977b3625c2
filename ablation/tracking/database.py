"""The SQLite database in mlruns/: whether it can be read, and how it finds its artifacts again after its folder was moved."""

import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import Any

from ablation.tracking.addresses import folder_address, folder_path

PATIENCE = 20  # seconds that are waited for another process


def repoint(root: Path) -> None:
    """Change the artifact locations in the database of a folder that has moved, so that they are in the folder again."""
    locations = moved(root)
    if not locations:
        return
    with contextlib.closing(sqlite3.connect(root / "mlflow.db", timeout=PATIENCE)) as connection:
        for old, new in locations.items():
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                with contextlib.suppress(sqlite3.OperationalError):  # older databases have no table logged_models
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
        connection.commit()


def moved(root: Path) -> dict[str, str]:
    """The artifact locations that are no longer where the database says, since its folder moved, each with what it is now."""
    locations = [location for (location,) in rows(root, "SELECT DISTINCT artifact_location FROM experiments") if location]
    changed: dict[str, str] = {}
    for old in locations:
        folder = folder_path(old)
        if folder is not None and folder.parent.name == "artifacts":  # as this store has them: .../artifacts/STUDY
            new = root / "artifacts" / folder.name
            changed |= {old: folder_address(new)} if new != folder and new.exists() else {}
    return changed


def is_deleted(root: Path, study: str) -> bool:
    """Whether the study in a folder's own database was deleted in MLflow; False where that cannot be read."""
    try:
        return ("deleted",) in rows(root.resolve(), "SELECT lifecycle_stage FROM experiments WHERE name = ?", study)
    except sqlite3.Error:
        return False


def tell_if_busy(database: Path | None) -> None:
    """Say on stderr why nothing happens, where another process holds the database."""
    if database is not None and database.is_file() and _is_busy(database):
        told = f"{database} is busy, since another program holds it; going on when it is free, for up to {PATIENCE} seconds"
        print(told, file=sys.stderr, flush=True)


def _is_busy(database: Path) -> bool:
    """Whether another process keeps it from being read for half a second; False where it is no database."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection:
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            return is_locked(error)
    return False


def is_locked(error: sqlite3.Error) -> bool:
    """Whether an error says that another process holds the database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def rows(root: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What the database answers, without writing or locking anything; nothing where it has no such table yet."""
    database = root / "mlflow.db"
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
