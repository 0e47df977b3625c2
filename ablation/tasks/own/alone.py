"""Runs that read a metric from a file beside the study, which each of them writes: one at a time, whoever began them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ablation.study.task import Emit, Interrupted
from ablation.system import fencing, kept
from ablation.system.digests import digest
from ablation.system.identity import place
from ablation.tasks.own.work import OwnWork

TICK = 0.1  # seconds between two looks at a lock that another command holds


@contextlib.contextmanager
def alone(work: OwnWork, emit: Emit, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Let no other run work in the study's folder meanwhile, where a metric is read from a file there.

    The place beside the stages keeps other machines off, the lock in the cache the commands of this one that have stages elsewhere. Raises
    Interrupted if asked to stop before, and Fenced if a later attempt has taken over.
    """
    if not work.definition.reads_its_folder:
        yield
        return
    folder = work.definition.folder.resolve()
    with fencing.held(work.stages / f"folder-{digest(str(folder))[:16]}", should_stop), _only_here(folder, emit, should_stop):
        yield


@contextlib.contextmanager
def _only_here(folder: Path, emit: Emit, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold this machine's lock of a folder, and say that it is waited for; where nothing can be written or locked, hold none."""
    path = kept.folder() / "locks" / f"{digest([place(), str(folder)])[:16]}.lock"
    lock, is_told = FileLock(path), False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            if not is_told:
                emit(
                    {"kind": "told", "message": f"another command has a run in {folder}, which writes the same file; waiting for it to end"}
                )
                is_told = True
        except (OSError, NotImplementedError):
            break
        else:
            break
        if should_stop():
            raise Interrupted
        time.sleep(TICK)
    try:
        yield
    finally:
        lock.release()
