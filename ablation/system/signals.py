"""The signals that ask a command to stop: Ctrl-C, SIGTERM, SIGHUP of a terminal that closes, and SIGUSR1, which clusters send first."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle all of these signals with `handler` meanwhile, but SIGHUP not under nohup; the previous handlers return afterwards."""
    previous = {number: signal.signal(number, handler) for number in NUMBERS if not _is_nohup(number)}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


def _is_nohup(number: signal.Signals) -> bool:
    """Whether it is SIGHUP, and ignored: the work shall outlive its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep their handlers, whatever a library sets meanwhile."""
    previous = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Each of them stops the command as Ctrl-C does, even if a library swallows the exception while it is imported.

    Python itself swallows and prints it where it comes while an object is tidied away; there nothing is printed.
    """
    received: list[int] = []

    def end(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    try:
        with handled(end), _untold(KeyboardInterrupt):
            yield
    except Exception:  # what a library raised instead of the interruption
        if not received:
            raise
    if received:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _untold(kind: type[BaseException]) -> Iterator[None]:
    """Print nothing of an exception of this kind that Python cannot raise."""
    before = sys.unraisablehook

    def tell(problem: Any) -> None:
        if not issubclass(problem.exc_type, kind):
            before(problem)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Block them meanwhile, and for good in processes that start meanwhile: the coordinator decides when to stop."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is killed (Linux); elsewhere the closed pipe ends it at the next epoch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)
