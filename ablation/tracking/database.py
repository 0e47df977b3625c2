"""The SQLite database of a store: whether it can be read, and how it finds its artifacts again after its folder was moved."""

import contextlib
import sqlite3
import sys
from glob import escape
from pathlib import Path
from typing import Any

from ablation.system import locks
from ablation.tracking.addresses import folder_address, folder_path

OWN = "mlflow.db"  # the name of the database in mlruns/
PATIENCE = 20  # seconds that are waited for another process


def repoint(root: Path, database: Path | None = None, but: str = "") -> None:
    """Change the artifact locations in the database of a folder that has moved, so that they are in the folder again.

    Those of a study that is being run are left to who runs it, as it may see the same folder under another path; `but` is this process's.
    """
    database = database or root / OWN
    locations = {old: new for old, new in moved(root, database).items() if (study := Path(new).name) == but or not at_work(root, study)}
    if not locations:
        return
    with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        for old, new in locations.items():
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                with contextlib.suppress(sqlite3.OperationalError):  # older databases have no table logged_models
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
        connection.commit()


def at_work(root: Path, study: str = "") -> list[str]:
    """The names, such as `tiny` or `tiny.part-1-of-2`, of what is being run of a study, or of all studies.

    A process holds the lock of that name, or says from another host that it is at work.
    """
    patterns = (escape(study), f"{escape(study)}.part-*") if study else ("*",)
    paths = [path for pattern in patterns for path in (*root.glob(f"locks/{pattern}.lock"), *root.glob(f"status/{pattern}.json"))]
    names = dict.fromkeys(path.stem for path in paths)
    return [
        name for name in names if locks.is_locked(root / "locks" / f"{name}.lock") or locks.runs_elsewhere(root / "status" / f"{name}.json")
    ]


def moved(root: Path, database: Path | None = None) -> dict[str, str]:
    """The artifact locations that are no longer where the database says, since its folder moved, each with what it is now.

    A database that lies elsewhere did not move with the folder, and may be another one's too: there, only what is gone has moved.
    """
    database = database or root / OWN
    locations = [location for (location,) in rows(database, "SELECT DISTINCT artifact_location FROM experiments") if location]
    changed: dict[str, str] = {}
    for old in locations:
        folder = folder_path(old)
        if folder is not None and folder.parent.name == "artifacts":  # as this store has them: .../artifacts/STUDY
            new = root / "artifacts" / folder.name
            is_moved = new != folder and new.exists() and (database.is_relative_to(root.parent) or not folder.exists())
            changed |= {old: folder_address(new)} if is_moved else {}
    return changed


def is_deleted(root: Path, study: str) -> bool:
    """Whether the study in a folder's own database was deleted in MLflow; False where that cannot be read."""
    try:
        return ("deleted",) in rows(root.resolve() / OWN, "SELECT lifecycle_stage FROM experiments WHERE name = ?", study)
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


def rows(database: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What the database answers, without writing or locking anything; nothing where it has no such table yet."""
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
