"""Freed memory is kept by those who will want it again, and given back by those who will not."""

import ctypes
import subprocess
import sys

import pytest

HAS_GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")
CODE = """
import psutil
from ablation.system.memory import trim_heap, keep_freed_memory
def megabytes(): return psutil.Process().memory_info().rss / 1e6
keep_freed_memory()
before = megabytes()
block = bytearray(b"1") * 200_000_000
del block
kept = megabytes() - before
trim_heap()
print(round(kept), round(megabytes() - before))
"""


@pytest.mark.skipif(not HAS_GLIBC, reason="only glibc lets one say so")
def test_freed_memory_stays_until_it_is_given_back():
    """Of 200 MB that were freed nearly all are still the process's, and after giving back nearly none."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 150
    assert left < 50


def test_elsewhere_nothing_happens(monkeypatch):
    """Without glibc there is nothing to say to it."""
    from ablation.system import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    memory.keep_freed_memory()
    memory.trim_heap()
