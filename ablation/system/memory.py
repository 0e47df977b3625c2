"""Whether glibc keeps freed memory or returns it to the system; with other C libraries these functions do nothing."""

import ctypes
import sys


def keep_freed_memory() -> None:
    """Keep freed memory: each step frees its tensors and allocates them again, which costs a page fault for every 4 KiB returned."""
    libc = _libc("mallopt")
    if libc is not None:
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def trim_heap() -> None:
    """Return freed memory to the system; glibc keeps what threads free in small pieces, as when drawing figures. Takes milliseconds."""
    libc = _libc("malloc_trim")
    if libc is not None:
        libc.malloc_trim(0)


def _libc(function: str) -> ctypes.CDLL | None:
    """The C library if it has that function, which musl and others have not."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, function) else None
