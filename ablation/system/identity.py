"""Which process this is among those of all hosts that share a folder."""

import contextlib
import os
import re
from functools import cache
from pathlib import Path


def host() -> str:
    """The name of this host, as far as a file's name may have it."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:40] or "host"


@cache
def place() -> str:
    """What all processes have in common that can see each other's IDs: the host, its last start and the container."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):  # where there is no /proc, nothing is asked of processes either
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def process_name() -> str:
    """A name for this process that no other has, on any host, ever; a file's name may have it."""
    return _name_of(os.getpid())


@cache
def _name_of(pid: int) -> str:  # by the ID, since a forked process has its parent's memory
    return f"{host()}-{pid}-{os.urandom(4).hex()}"


def start_of(pid: int) -> str:
    """When the process of this place began, by the system's clock; "" if there is none that lives, or nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
