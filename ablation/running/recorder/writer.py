"""The recorder's thread and its queue: what cannot be written now is written later, and nothing that trains waits for it."""

import queue
import threading
import time
from collections.abc import Callable, Sequence

from ablation.system.memory import trim_heap
from ablation.tracking.messages import first_line, without_secrets

WAITS = (1.0, 3.0, 10.0)  # seconds before a failed writing is tried again
PAUSE = 15.0  # seconds for which a store that did not answer is left alone
PATIENCE = 3  # how many failures in a row say that a store is still away
MANY = 8  # writings that wait: what can come later does, until none is left
TRIM_EVERY = 30.0  # seconds between two times that memory is given back

Writing = Callable[[], None]


class Writer:
    """Writes what is put into its queue, in order; `first` comes before anything else, `last` after everything."""

    def __init__(self, first: Writing, last: Writing) -> None:
        self.problems: list[str] = []
        self._first, self._last, self._has_begun = first, last, False
        self._is_behind = False
        self._late: list[Writing] = []  # what could not be written yet, in order
        self._problem, self._failed_at = "", 0.0
        self._queue: queue.SimpleQueue[tuple[Writing, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def put(self, writing: Writing, *, is_kept: bool = True) -> None:
        """Have something written; with `is_kept`, later where it cannot be now."""
        self._queue.put((writing, is_kept))

    @property
    def is_behind(self) -> bool:
        """Whether much waits to be written, or did, and some of it does still."""
        self._is_behind = self._queue.qsize() >= (1 if self._is_behind else MANY)
        return self._is_behind

    def close(self) -> None:
        """Write what is left; `problems` then says what could not be."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        trimmed = time.monotonic()
        while (item := self._queue.get()) is not None:
            writing, is_kept = item
            is_away = bool(self._late) and time.monotonic() - self._failed_at < PAUSE
            if is_away or not self._is_written(writing, () if self._late else WAITS):
                self._late += [writing] if is_kept else []
            elif self._late:
                self._write_late()
            if time.monotonic() - trimmed > TRIM_EVERY:
                trim_heap()
                trimmed = time.monotonic()
        self._write_late()
        is_whole = self._is_written(self._last, () if self._late else WAITS)
        self.problems += [] if is_whole and not self._late else [self._problem]

    def _is_written(self, writing: Writing, waits: Sequence[float]) -> bool:
        problem = self._attempt(writing, waits)
        if problem:
            self._problem, self._failed_at = problem, time.monotonic()
        return not problem

    def _write_late(self) -> None:
        """Write what could not be written before; one that fails lets those after it go on, a few failures in a row let none."""
        waiting, self._late, failures = self._late, [], 0
        for writing in waiting:
            if failures < PATIENCE and self._is_written(writing, ()):
                failures = 0
            else:
                failures += 1
                self._late.append(writing)

    def _attempt(self, writing: Writing, waits: Sequence[float]) -> str:
        """Write something, a few times if need be; the problem where it could not be written, which the folders still hold then."""
        for wait in (*waits, None):
            try:
                if not self._has_begun:
                    self._first()
                    self._has_begun = True
                writing()
            except Exception as error:  # whatever the store says, training goes on
                problem = without_secrets(first_line(str(error) or type(error).__name__))
                if wait is None:
                    return problem
                time.sleep(wait)
            else:
                return ""
        raise AssertionError(waits)
