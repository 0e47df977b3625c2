"""Files that are still there after the power has failed."""

import errno
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
