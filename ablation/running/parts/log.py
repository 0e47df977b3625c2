"""The log of a part: a file for each attempt at it, with a line of JSON for whatever happens, read by whoever follows the part.

An attempt makes its own file, under the next number that is free. So no two processes write to one file, on whatever hosts they are, and
what a lost attempt goes on to write stands apart from what counts.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import AblateError

if TYPE_CHECKING:
    from ablation.planning.plan import Node, Run

INTERRUPTED = 130  # the exit status of a part that was asked to end
BEGIN, END, FINISHED, FAILED = "part begins", "part ends", "run finished", "run failed"
NOT_KEPT = frozenset({"tick", "finished", "given up", "result", "untested"})  # events that say nothing, or nothing final, of a run


def log_file(folder: Path, part: int, attempt: int) -> Path:
    """The file of one attempt at a part, both counted from 1, in the folder of the split."""
    return folder / f"part-{part}.attempt-{attempt}.jsonl"


class PartLog:
    """Writes what happens in one attempt at a part: it is its record of runs, and a view of its events."""

    def __init__(self, folder: Path, part: int) -> None:
        self.folder, self.part, self.attempt, self._file, self._torn = folder, part, 1, -1, b""
        while self._file < 0:
            try:
                self._file = os.open(log_file(folder, part, self.attempt), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                self.attempt += 1

    def begin(self) -> None:
        """Say who begins, and where."""
        self._write({"kind": BEGIN, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}, is_kept=True)

    def end(self, status: int, why: str = "") -> None:
        """Say with which exit status the part ends, and why if it is not plain."""
        with contextlib.suppress(AblateError):  # on a network disk, of a folder that was deleted since all of it is recorded
            self._write({"kind": END, "status": status, "why": why, "time": time.time()}, is_kept=True)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event of the scheduler."""
        if event["kind"] not in NOT_KEPT:
            self._write(event)

    def live(self, node: "Node", history: list[Mapping[str, Any]]) -> None:
        """Nothing: each epoch is an event."""

    def finished(self, run: "Run") -> None:
        """A run's results are there."""
        self._write({"kind": FINISHED, "run": run.key}, is_kept=True)

    def failed(self, run: "Run", kind: str, reason: str, log: str) -> None:
        """A run cannot go on."""
        about = {"failure": kind, "message": reason, "log": log}
        self._write({"kind": FAILED, "run": run.key, "time": time.time(), **about}, is_kept=True)

    def _write(self, line: Mapping[str, Any], *, is_kept: bool = False) -> None:
        """Add a line; with `is_kept`, wait until other hosts can read it, and raise AblateError if it cannot be written."""
        text = self._torn + json.dumps(line).encode() + b"\n"
        self._torn = b"\n"  # if this one cannot be written whole, the next begins a line of its own
        try:
            if os.write(self._file, text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = b""
            if is_kept:
                os.fsync(self._file)
        except OSError as error:
            if is_kept:
                told = f"the log of part {self.part} could not be written: {error.strerror}; expected room in {self.folder}"
                raise AblateError(told) from None


class LogReader:
    """Reads a part's log as it grows; once an attempt has begun, nothing more of those before it."""

    def __init__(self, folder: Path, part: int) -> None:
        self.folder, self.part = folder, part
        self.attempt = 0  # the newest
        self.begun: dict[str, Any] = {}  # what it said when it began
        self.ended: dict[str, Any] = {}  # and when it ended
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        """The lines that were written since the last call, whole ones only, each with the number of its `attempt`."""
        lines: list[dict[str, Any]] = []
        while log_file(self.folder, self.part, self.attempt + 1).exists():
            lines += self._rest()
            lines += self.read_one(self.attempt + 1)
        return lines + self._rest()

    def read_one(self, attempt: int) -> list[dict[str, Any]]:
        """All lines of one attempt."""
        self.attempt, self.begun, self.ended, self._position = attempt, {}, {}, 0
        return self._rest()

    def _rest(self) -> list[dict[str, Any]]:
        """What the newest attempt has written since the last call."""
        try:
            with log_file(self.folder, self.part, self.attempt).open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        lines = [line | {"attempt": self.attempt} for text in whole.splitlines() if (line := _parsed(text))]
        self.begun = next((line for line in lines if line["kind"] == BEGIN), self.begun)
        self.ended = next((line for line in lines if line["kind"] == END), self.ended)
        return lines


def num_in_vain(folder: Path, part: int, attempt: int) -> int:
    """How many attempts before this one, in a row, ended as they were asked to before anything new came of them."""
    in_vain, told = 0, dict[tuple[str, int], Any]()
    for number in range(1, attempt):
        reader = LogReader(folder, part)
        is_new = _add_told(told, reader.read_one(number))
        in_vain = in_vain + 1 if reader.ended.get("status") == INTERRUPTED and not is_new else 0
    return in_vain


def _add_told(told: dict[tuple[str, int], Any], lines: list[dict[str, Any]]) -> bool:
    """Whether these lines of an attempt tell of a run that ended, or of values that no epoch of a stage had before; they are added."""
    kinds = [line["kind"] for line in lines]
    after = lines[kinds.index("started") :] if "started" in kinds else []  # before that stands what was computed already
    rows = {(line["stage"], line["epoch"]): line["row"].get("values") for line in after if line["kind"] == "epoch"}
    is_new = any(epoch not in told or told[epoch] != values for epoch, values in rows.items())
    told |= rows
    return is_new or any(line["kind"] in (FINISHED, FAILED) for line in after)


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line as it was written; None for what is none, such as the zeros that a host leaves that lost its power."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "kind" in line else None
