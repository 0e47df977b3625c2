"""Whether another process is at work: it holds a lock here, or says so from another host."""

import json
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

SILENCE = 60.0  # seconds after which a host that says nothing more counts as gone


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock. Where the folder is read-only, nothing is: nobody could run a study there.

    Only for what is shown: on a network disk, nothing may be known of the locks of other hosts.
    """
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def runs_elsewhere(status: Path) -> bool:
    """Whether a status file was written within the last minute by a process on another host, where no lock of it may be seen here."""
    try:
        about = json.loads(status.read_text(encoding="utf-8"))
        is_elsewhere = about["state"] == "running" and about["host"] != socket.gethostname()
        return bool(is_elsewhere and abs(_now(status.parent) - status.stat().st_mtime) < SILENCE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _now(folder: Path) -> float:
    """The time by the clock of the disk, by which the files of all hosts are dated; of a folder that cannot be written, this host's."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
