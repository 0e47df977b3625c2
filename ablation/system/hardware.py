"""What this machine is, in words."""

import os
import platform
from functools import cache
from pathlib import Path


@cache
def hardware() -> str:
    """`x86_64 AMD EPYC 9B14, 2 cores`: the kind of processor, its name and the number of its cores."""
    return f"{platform.machine()} {_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
