"""Runs that read a metric from a file beside the study, which each of them writes: one at a time, whoever began them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ablation.system import fencing, kept
from ablation.system.digests import digest
from ablation.tasks.own.work import OwnWork


@contextlib.contextmanager
def alone(work: OwnWork, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Let no other run work in the study's folder meanwhile, where a metric is read from a file there.

    The place beside the stages keeps other machines off, that in the cache the commands of this one that have stages elsewhere. Raises
    Interrupted if asked to stop before, and Fenced if a later attempt has taken over.
    """
    with contextlib.ExitStack() as stack:
        if work.definition.reads_its_folder:
            name = f"folder-{digest(str(work.definition.folder.resolve()))[:16]}"
            stack.enter_context(fencing.held(work.stages / name, should_stop))
            if (cached := _writable(kept.folder() / "folders" / name)) is not None:
                stack.enter_context(fencing.held(cached, should_stop))
        yield


def _writable(folder: Path) -> Path | None:
    """The folder, which is made; None where nothing can be written."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    return None
