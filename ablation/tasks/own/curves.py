"""The curves of a run while it goes on, also over several attempts, where its code goes on from its checkpoints."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablation.tasks.own import returned
from ablation.tasks.own.patterns import Lines

MAX_STEPS = 20_000  # that are kept
LONGEST = 200  # letters of a name
RESERVED = ("time/", "epochs/", "own/")  # the beginnings of names that the record has itself


@dataclass
class Curves:
    """The rows of a run's curves, by step, and which of them were not told yet."""

    taken: frozenset[str]  # names that final metrics have
    started: float  # when the first attempt began, in milliseconds
    last: float = 0.0  # when the row before ended, in milliseconds
    seconds: float = 0.0  # that earlier attempts took
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    untold: dict[int, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, step: int, time_ms: int, values: dict[str, float]) -> None:
        """Add numbers to the row of their step."""
        if step not in self.rows and len(self.rows) >= MAX_STEPS:
            self.notes[f"more than {MAX_STEPS} steps were logged; the curves end with these"] = None
            return
        row = self.rows.get(step)
        if row is not None and row["values"].keys() & values.keys():
            row["time"] = time_ms  # in a store the later of two values of a step counts
        if row is None:
            self.rows[step] = {"epoch": step, "time": time_ms, "seconds": max(0.0, (time_ms - self.last) / 1000), "values": {}}
            self.last = time_ms
        self.rows[step]["values"] |= {self._name(name): value for name, value in values.items()}
        self.untold[step] = None

    def num_points(self, name: str) -> int:
        """How many points a curve has."""
        return sum(self._name(name) in row["values"] for row in self.rows.values())

    def take(self, file: "LoggedFile") -> None:
        """Add what was logged into a file since the last time."""
        for line in file.lines():
            row = returned.curve_row(line)
            if row is None:
                self.notes[f"{file.path.name} has lines that are no JSON mapping with a step, which are left out"] = None
            else:
                self.add(row[0], int(time.time() * 1000) if row[1] is None else row[1], row[2])

    def _name(self, name: str) -> str:
        """The curve's name in a store, which takes only some letters and no empty parts, and in which nothing else is called so."""
        parts = [part.strip() for part in re.sub(r"[^\w./ -]", "_", name).split("/")]
        plain = "/".join(part for part in parts if part.strip("."))[:LONGEST] or "_"
        return f"curves/{plain}" if plain in self.taken or plain.startswith(RESERVED) else plain

    def keep(self, path: Path, seconds: float) -> None:
        """Add what was not told yet to the file for the next attempt, with the seconds of this one so far, in a line of its own.

        A kill may cut the last line short, so each begins with the end of the one before.
        """
        line = json.dumps({"started": self.started, "seconds": self.seconds + seconds, "rows": [self.rows[step] for step in self.untold]})
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}")

    def go_on(self, path: Path) -> None:
        """Begin with the rows that earlier attempts kept, if there were any."""
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    earlier = json.loads(line)
                    self.rows |= {int(row["epoch"]): row for row in earlier["rows"]}
                    self.started, self.seconds = float(earlier["started"]), float(earlier["seconds"])

    def events(self) -> Iterator[dict[str, Any]]:
        """An event for each row that is new or has new numbers."""
        for step in self.untold:
            row = self.rows[step]
            yield {"kind": "epoch", "epoch": step, "row": {**row, "values": dict(row["values"])}}
        self.untold.clear()


class LoggedFile:
    """A file to which lines are added while it is read."""

    def __init__(self, path: Path) -> None:
        self.path, self._place, self._lines = path, 0, Lines()

    def lines(self) -> Iterator[str]:
        """The lines that were added since the last call."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(self._place)
            while data := file.read(2**20):
                self._place += len(data)
                yield from self._lines.take(data)
