"""The recorder's thread and its queue: what cannot be written now is written later, and nothing that trains waits for it."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ablation.system.memory import trim_heap
from ablation.tracking.messages import reason

WAITS = (1.0, 3.0, 10.0)  # seconds before a failed writing is tried again
PAUSE = 15.0  # seconds for which a store that did not answer is left alone
PATIENCE = 3  # failures in a row that, if they took longer than that, say so of a store that answers
MANY = 8  # writings that wait: what can come later does, until none is left
AT_ONCE = 20  # items that are written together, in one transaction, which keeps others from writing
TRIM_EVERY = 30.0  # seconds between two times that memory is given back

T = TypeVar("T")
Writing = Callable[[], None]
Tell = Callable[[str], None]  # what a user hears a sentence by


@dataclass(frozen=True)
class _Entry:
    """What is to be written, by a function of nothing, or of some items, which can be written with those of the next."""

    write: Callable[..., None]
    items: tuple[Any, ...] = ()
    is_kept: bool = True

    def __call__(self) -> None:
        self.write(self.items) if self.items else self.write()

    def parts(self) -> list["_Entry"]:
        """An entry for each item."""
        return [replace(self, items=(item,)) for item in self.items] or [self]


class Writer:
    """Writes what is put into its queue, in order; `first` comes before anything else, `last` after everything.

    Where something could not be written, `reach` is called before the next try, and raises an exception if that would wait for long.
    `tell` is called with a sentence once something could not be written after all tries, and again only if writing has gone well since.
    """

    def __init__(self, first: Writing, last: Writing, reach: Writing, tell: Tell) -> None:
        self.problems: list[str] = []
        self._tell, self._is_told = tell, False
        self._first, self._last, self._reach, self._has_begun = first, last, reach, False
        self._is_behind = False
        self._late: list[_Entry] = []  # what could not be written yet, in order
        self._problem, self._failed_at, self._has_failed = "", 0.0, False  # the last: what was tried last
        self._is_away = False  # whether the store did not answer after the last failure
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._ahead: list[_Entry | None] = []  # the next, where it has been taken from the queue
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def put(self, writing: Writing, *, is_kept: bool = True) -> None:
        """Have something written; with `is_kept`, later where it cannot be now."""
        self._queue.put(_Entry(writing, (), is_kept))

    def put_item(self, write: Callable[[Sequence[T]], None], item: T) -> None:
        """Have an item written by a function of several, with those that come right after it for the same function."""
        self._queue.put(_Entry(write, (item,)))

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
        while (entry := self._next()) is not None:
            self._write(entry)
            if time.monotonic() - trimmed > TRIM_EVERY:
                trim_heap()
                trimmed = time.monotonic()
        self._tell = to_nobody  # what is not written now is told as `problems`
        self._write_late()
        is_whole = self._is_written(self._last, () if self._late else WAITS)
        self.problems += [] if is_whole and not self._late else [self._problem]

    def _next(self) -> _Entry | None:
        """The next entry, with what waits after it and can be written at the same time; None at the end."""
        entry = self._ahead.pop() if self._ahead else self._queue.get()
        while entry is not None and 0 < len(entry.items) < AT_ONCE and not self._queue.empty():
            following = self._queue.get()
            if following is None or following.write != entry.write:
                self._ahead.append(following)
                break
            entry = replace(entry, items=entry.items + following.items)
        return entry

    def _write(self, entry: _Entry) -> None:
        """Write an entry, or where that fails each of its items alone; what cannot be written is put off."""
        if self._late and self._is_away and time.monotonic() - self._failed_at < PAUSE:
            self._late += entry.parts() if entry.is_kept else []
        elif len(entry.items) > 1 and not self._is_written(entry, ()):
            for part in entry.parts():
                self._write(part)
        elif len(entry.items) <= 1 and not self._is_written(entry, () if self._late else WAITS):
            self._late += [entry] if entry.is_kept else []
        elif self._late:
            self._write_late()

    def _is_written(self, writing: Writing, waits: Sequence[float]) -> bool:
        problem = self._attempt(writing, waits)
        if problem:
            self._problem, self._failed_at = problem, time.monotonic()
        if problem and not self._is_told:
            self._tell(f"not recorded for now: {problem}; nothing else waits for it, and it is tried again")
        self._is_told = bool(problem)
        return not problem

    def _write_late(self) -> None:
        """Write what could not be written before; one that fails lets those after it go on, a store that is away lets none."""
        waiting, self._late, failures, began = self._late, [], 0, time.monotonic()
        is_given_up = False
        for writing in waiting:
            if not is_given_up and self._is_written(writing, ()):
                failures, began = 0, time.monotonic()
            else:
                failures += 1
                self._late.append(writing)
                is_given_up |= self._is_away or (failures >= PATIENCE and time.monotonic() - began > PAUSE)

    def _attempt(self, writing: Writing, waits: Sequence[float]) -> str:
        """Write something, a few times if need be; the problem where it could not be written, which the folders still hold then."""
        for wait in (*waits, None):
            self._is_away = self._has_failed
            try:
                if self._has_failed:
                    self._reach()
                    self._is_away = False
                if not self._has_begun:
                    self._first()
                    self._has_begun = True
                writing()
            except Exception as error:  # whatever the store says, training goes on
                problem, was_asked, self._has_failed = reason(str(error) or type(error).__name__), self._has_failed, True
                if wait is None:
                    self._is_away = self._is_away if was_asked else not self._is_reached()
                    return problem
                time.sleep(wait)
            else:
                self._has_failed = False
                return ""
        raise AssertionError(waits)

    def _is_reached(self) -> bool:
        try:
            self._reach()
        except Exception:  # whatever the store says
            return False
        return True


def to_nobody(sentence: str) -> None:
    """Tell nobody."""
