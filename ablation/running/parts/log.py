"""The log of a part: what happens in it, a line of JSON each, appended by the part and read by whoever follows it."""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.planning.plan import Node, Run

ALIVE_EVERY = 10.0  # seconds between two signs of life
BEGIN, END, FINISHED, FAILED = "part begins", "part ends", "run finished", "run failed"
NOT_KEPT = frozenset({"tick", "finished", "result", "untested"})  # events that say nothing, or nothing final, of a run


class PartLog:
    """Appends to the log of one part: it is its record of runs, and a view of its events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        newest = LogReader(path)
        newest.read()
        self.attempt = newest.attempt + 1
        self._file = path.open("ab", buffering=0)
        if path.stat().st_size and not _ends_a_line(path):  # of an attempt that was killed in the middle of one
            self._file.write(b"\n")
        self._alive = time.monotonic()

    def begin(self) -> None:
        """Say who begins, and where."""
        self._write({"kind": BEGIN, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()})

    def end(self, status: int, why: str = "") -> None:
        """Say with which exit status the part ends, and why if it is not plain."""
        self._write({"kind": END, "status": status, "why": why, "time": time.time()})

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event of the scheduler."""
        if event["kind"] not in NOT_KEPT:
            self._write(event)
        elif time.monotonic() - self._alive > ALIVE_EVERY:
            self._alive = time.monotonic()
            os.utime(self.path)

    def live(self, node: Node, history: list[Mapping[str, Any]]) -> None:
        """Nothing: each epoch is an event."""

    def finished(self, run: Run) -> None:
        """A run's results are there."""
        self._write({"kind": FINISHED, "run": run.key})

    def failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        """A run cannot go on."""
        self._write({"kind": FAILED, "run": run.key, "failure": kind, "message": reason, "log": log})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"attempt": self.attempt, **line}).encode() + b"\n")


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


class LogReader:
    """Reads a part's log as it grows; what an attempt writes after a later one has begun is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = 0
        self.begun: dict[str, Any] = {}  # what the newest attempt said when it began
        self.ended: dict[str, Any] = {}  # and when it ended
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        """The lines that were written since the last call, whole ones only."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [line for text in whole.splitlines() if (line := _parsed(text)) and self._counts(line)]

    def _counts(self, line: dict[str, Any]) -> bool:
        """Whether a line is of the newest attempt, of which note is taken."""
        if line["attempt"] < self.attempt:
            return False
        if line["kind"] == BEGIN:
            self.attempt, self.begun, self.ended = line["attempt"], line, {}
        elif line["kind"] == END:
            self.ended = line
        return True


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line as it was written; None for one that was cut off by a kill."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"attempt", "kind"} <= line.keys() else None
