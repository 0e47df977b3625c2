"""Whether another process is at work: it holds a lock here, or says so from another host."""

import json
import socket
import time
from pathlib import Path

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
        is_fresh = abs(time.time() - float(about["time"])) < SILENCE
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_fresh and about["state"] == "running" and about["host"] != socket.gethostname()
