"""The signals by which a command is asked to end: Ctrl-C, SIGTERM, and SIGUSR1, which clusters send before they take a machine back."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

NUMBERS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in signal.Signals.__members__)


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """The handler holds for every one of these signals meanwhile, and what held before does so afterwards."""
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Each of them ends the command as Ctrl-C does, even where a library that is being imported swallows the exception."""
    asked: list[int] = []

    def end(number: int, _frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    try:
        with handled(end):
            yield
    except Exception:  # what a library made of the interruption
        if not asked:
            raise
    if asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Blocks them, for processes that begin meanwhile for good: it is the coordinator that decides when to stop."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is killed (Linux); elsewhere the closed pipe does, at the next epoch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)
