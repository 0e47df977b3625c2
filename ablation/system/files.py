"""Files that appear whole or not at all, and are still there after the power has failed."""

import errno
import json
import os
from pathlib import Path

NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # what some network file systems say of a folder


def to_disk(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk; file systems that cannot say so are believed."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
    finally:
        os.close(number)


def write_json(path: Path, data: object, *, is_kept: bool = True) -> None:
    """Put plain data into a file, whole; with `is_kept`, on the disk for certain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")  # another process may write too
    beside.write_text(json.dumps(data), encoding="utf-8")
    if is_kept:
        to_disk(beside)
    beside.replace(path)
    if is_kept:
        to_disk(path.parent)
