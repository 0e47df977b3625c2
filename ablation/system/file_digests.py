"""Digests of the content of files, kept on disk by size and time, so that large ones are read once."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablation.system import kept
from ablation.system.digests import file_digest

SETTLED = 2.0  # seconds after which a change of a file surely has another time
State = tuple[int, int, int]  # size, time of the last change in nanoseconds, inode


def content_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """path -> the SHA-256 of the file's bytes; raises OSError for one that cannot be read.

    One that was read before and has its size, time and inode still is not read again.
    """
    names = {str(path.absolute()): path for path in paths}
    states = {name: _state(path) for name, path in names.items()}
    with _database() as database:
        known = {path: found for path, state in states.items() if (found := _known(database, path, state))}
        unknown = [path for path in states if path not in known]
        with ThreadPoolExecutor() as pool:
            read = dict(zip(unknown, pool.map(lambda path: file_digest(Path(path)), unknown), strict=True))
        _keep(database, states, read)
    return {path: known.get(name) or read[name] for name, path in names.items()}


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """The database of known digests, or None if it cannot be used."""
    path, database = kept.folder() / "files.sqlite", None
    with contextlib.suppress(OSError, sqlite3.Error):
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size, time, inode, digest)")
    try:
        yield database
    finally:
        if database:
            database.close()


def _known(database: sqlite3.Connection | None, path: str, state: State) -> str | None:
    """The digest of a file that is kept for this state of it."""
    if database is None:
        return None
    with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
        row = database.execute("SELECT size, time, inode, digest FROM files WHERE path = ?", (path,)).fetchone()
        return str(row[3]) if row and row[:3] == state else None
    return None


def _keep(database: sqlite3.Connection | None, states: Mapping[str, State], read: Mapping[str, str]) -> None:
    """Keep the digests of files that have been as they are for a while, and still are."""
    if database is None:
        return
    latest = (time.time() - SETTLED) * 1e9
    rows: Sequence[tuple[str, int, int, int, str]] = [
        (path, *states[path], digest) for path, digest in read.items() if states[path][1] < latest and _is_still(path, states[path])
    ]
    with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError), database:
        database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)


def _is_still(path: str, state: State) -> bool:
    """Whether a file has this state after it was read."""
    try:
        return _state(Path(path)) == state
    except OSError:
        return False


def folder_files(folder: Path) -> list[Path]:
    """All files below a folder, also through links, in the order of their names; raises OSError for what cannot be read."""
    return sorted(_files(folder, frozenset()))


def _files(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    place = status.st_dev, status.st_ino
    if place in above:
        raise OSError(0, "a link that leads back to a folder above it", str(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(Path(entry.path), above | {place})
            else:
                yield Path(entry.path)
