"""Whether another process holds a lock."""

from pathlib import Path

from filelock import FileLock, Timeout


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
