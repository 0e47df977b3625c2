"""A part of what is computed in another process, beside this one: it begins with all that is in memory here, and hands back a result.

A process with several threads is not forked, since a lock that another thread holds would stay locked; nor is one on other systems than
Linux. Then, and when the other process dies, all is computed here.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ablation.system import signals

T = TypeVar("T")


def free_cores() -> int:
    """How many processes may be forked to compute at the same time; 1 where this one has to do it."""
    may_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
    return len(os.sched_getaffinity(0)) if may_fork else 1


def beside(work: Callable[[], T], *, worth: bool = True) -> Callable[[], T]:
    """Begin the work in another process, if it is worth one and there is a core for it; what comes back waits for its result."""
    if not worth or free_cores() < 2 or threading.active_count() > 1:
        return work
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_hand_back, args=(work, sender, os.getpid()), daemon=True)
    try:
        with quiet_fork(), signals.blocked():
            process.start()
    except OSError:  # no further process is allowed
        return work
    finally:
        sender.close()

    def result() -> T:
        try:
            value: T = receiver.recv()
        except (EOFError, OSError):
            return work()
        finally:
            receiver.close()
            process.join()
        return value

    return result


def _hand_back(work: Callable[[], Any], sender: Connection, parent: int) -> None:
    """Send the result, or nothing: what is wrong is told by who does the work again."""
    signals.die_with_parent(parent)
    with contextlib.suppress(Exception):
        sender.send(work())


@contextlib.contextmanager
def quiet_fork() -> Iterator[None]:
    """Without the warning about threads: those of libraries, which take no lock in what the children do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        yield
