"""What the C library does with memory that was freed, where it is glibc; elsewhere nothing happens."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Keep it: a step's tensors, given back and asked for again, cost a page fault for every 4 KiB."""
    libc = _libc("mallopt")
    if libc is not None:
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def trim_heap() -> None:
    """Give it back to the system: what threads freed piecemeal, as figures are, it would keep for ever. It takes milliseconds."""
    libc = _libc("malloc_trim")
    if libc is not None:
        libc.malloc_trim(0)


def _libc(function: str) -> ctypes.CDLL | None:
    """The C library where it has that function: musl and others have not."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, function) else None
