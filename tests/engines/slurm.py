"""A real Slurm on this machine, for the tests that need one: whether it can be started, and its start on free ports."""

import contextlib
import os
import random
import shutil
import socket

import pytest

from benchmarks import engines

PROGRAMS = ("sbatch", "squeue", "scancel", "slurmctld", "slurmd", "munged")
MISSING = [name for name in PROGRAMS if not shutil.which(name)]
WHY_NOT = f"Slurm is not installed ({', '.join(MISSING)})" if MISSING else "a Slurm of our own needs root" if os.geteuid() else ""
needs_slurm = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
slow = pytest.mark.skipif(os.environ.get("ABLATE_ENGINES") != "all", reason="takes half a minute or more; ABLATE_ENGINES=all runs it")


def started(folder):
    """A Slurm in this folder, while the context lasts."""
    return engines.slurm(folder, free_ports(5))


def free_ports(count):
    """The first of so many ports in a row that nobody listens to, below those that the system gives to clients."""
    while True:
        first = random.randrange(20_000, 32_000 - count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
