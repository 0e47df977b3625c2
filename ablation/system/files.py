"""Writing files so that they appear whole or not at all, and survive a power failure."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from pathlib import Path

from ablation.system.identity import process_name

DAY = 24 * 60 * 60.0  # seconds
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # the errors of network file systems that cannot sync a folder


def to_disk(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk, if the file system can say so."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder in which this user may write and not look
        return
    try:
        _flush(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    """Wait for the disk; macOS's fsync waits for less, until the disk has the bytes in its own memory."""
    on_macos: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if on_macos is not None:
        with contextlib.suppress(OSError):  # of a file system that has no such call
            fcntl.fcntl(descriptor, on_macos)
            return
    os.fsync(descriptor)


def part_of(path: Path) -> Path:
    """The name, beside a file, under which this process writes it before it renames it: others may write the same, also on other hosts."""
    return path.with_name(f".{path.name}.{process_name()}.part")


def sweep(folder: Path, pattern: str = ".*.part") -> None:
    """Delete files and folders of this pattern in which nothing was written for a day: their processes were killed, on whichever host."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*"))) > DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, data: object, *, is_kept: bool = True) -> None:
    """Write plain data to a file, whole or not at all; with `is_kept`, wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = part_of(path)
    partial.write_text(json.dumps(data), encoding="utf-8")
    if is_kept:
        to_disk(partial)
    partial.replace(path)
    if is_kept:
        to_disk(path.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Put the file under another name; `target` is never incomplete."""
    part = part_of(target)
    part.unlink(missing_ok=True)  # of a renaming that failed: a copy onto that link would be one of a file onto itself
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
            to_disk(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # renaming a link onto the same file leaves it, too
