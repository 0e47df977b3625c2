"""Standard output and error that outlast their readers: a terminal, a pipe or a disk that goes away ends no work."""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

AT_ONCE = getattr(select, "PIPE_BUF", 4096)  # bytes that a pipe takes whole
PATIENCE = 1.0, 60.0  # seconds for which a slow reader is waited for: of what is not needed, of what is


class _Outlasting(io.RawIOBase):
    """A file descriptor that can be written to whatever became of its reader; only while `is_needed` a failure is an error."""

    def __init__(self, descriptor: int, *, is_needed: bool) -> None:
        self.descriptor, self.is_needed, self.has_failed = descriptor, is_needed, False
        self._patience = PATIENCE[0]

    def writable(self) -> bool:
        """Always: that is the point."""
        return True

    def fileno(self) -> int:
        """The file descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        """Write the bytes, or some of them; where nobody reads them, drop them, or raise OSError if they are needed."""
        try:
            return os.write(self.descriptor, data) if self.is_needed else self._offer(data)
        except BlockingIOError:  # another program made the pipe non-blocking, and its reader is slow
            if _is_ready(self.descriptor, PATIENCE[1]):
                return 0
            raise OSError(errno.EPIPE, "nobody reads it") from None
        except OSError:
            self.has_failed = True
            if self.is_needed:
                raise
            return len(data)

    def _offer(self, data: Any) -> int:
        """Write at most what a pipe takes at once, if its reader is not stuck; once it is, it is not waited for again until it reads."""
        if not self.has_failed and _is_ready(self.descriptor, self._patience):
            self._patience = PATIENCE[0]
            with contextlib.suppress(BlockingIOError):
                return os.write(self.descriptor, data[:AT_ONCE])
        self._patience = 0.0
        return len(data)


def _is_ready(descriptor: int, seconds: float) -> bool:
    """Whether it can be written to within that time without waiting."""
    return not hasattr(select, "PIPE_BUF") or bool(select.select([], [descriptor], [], seconds)[1])


def settle() -> None:
    """Let errors on standard error end nothing, and show replaced letters where an encoding lacks some.

    A stream that is closed becomes the null device, also its descriptor: a file that is opened later must not get its number.
    """
    are_closed = [_was_closed(descriptor) for descriptor in (0, 1, 2)]
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process
    sys.stdout = _stream(sys.stdout, 1, is_needed=not are_closed[1])
    sys.stderr = _stream(sys.stderr, 2, is_needed=False)


def spare_output() -> None:
    """Let errors on standard output end nothing from now on: what has been done counts, whoever reads of it."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Outlasting):
        raw.is_needed = False


def output_to_error() -> None:
    """Send what is printed to standard error: documents alone go to standard output."""
    settle()
    sys.stdout = sys.stderr


def _was_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        if os.open(os.devnull, os.O_RDWR) != descriptor:  # the lowest number that is free
            raise
        os.set_inheritable(descriptor, True)
        return True
    return False


def _stream(stream: Any, descriptor: int, *, is_needed: bool) -> Any:
    """The stream as one that outlasts its reader; one of a test or of a notebook is left as it is."""
    if stream is not None:
        try:
            if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != descriptor:
                return stream
        except (OSError, ValueError):  # it has none
            return stream
        with contextlib.suppress(OSError):
            stream.flush()
    encoding, is_prompt = getattr(stream, "encoding", None) or "utf-8", descriptor == 2 or os.isatty(descriptor)
    is_prompt |= bool(getattr(stream, "line_buffering", False) or getattr(stream, "write_through", False))
    buffer = io.BufferedWriter(_Outlasting(descriptor, is_needed=is_needed))
    return io.TextIOWrapper(buffer, encoding, "replace" if descriptor == 1 else "backslashreplace", line_buffering=is_prompt)
