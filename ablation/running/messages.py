"""What is said and kept of a run beside its display: the state for `ablate status`, measured speeds, and changes of concurrency."""

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ablation.planning.plan import Plan
from ablation.planning.workspace import Workspace, note_speed
from ablation.running.packing import Packing, has_mps
from ablation.running.progress import ProgressState, View
from ablation.system.files import write_json

NOTE_EVERY = 5.0  # seconds between two notes of the speed of a kind of job


class RunMessages:
    """Passes events on to the display, and keeps beside it what `ablate status` shows and the measured speeds."""

    def __init__(self, plan: Plan, workspace: Workspace, packing: Packing | None, state: ProgressState, console: Console) -> None:
        self.plan, self.workspace, self.packing, self.state, self.console = plan, workspace, packing, state, console
        self.path = workspace.root / "status" / f"{plan.study.name}{workspace.part}.json"
        self.written = 0.0
        self.noted: dict[str, float] = {}  # when the speed of a kind of job was kept last
        self.shrunk: set[str] = set()  # devices on which memory did not suffice
        self.told: set[str] = set()  # what was said
        self.fresh: set[str] = set()  # stages that have begun, and have no epoch yet

    def __call__(self, event: dict[str, Any], display: View) -> None:
        """Pass an event on to the display, and take note of it."""
        display(event)
        if event["kind"] == "damaged" or (event["kind"] == "told" and event["message"] not in self.told):
            self.told.add(event["message"])
            self._say(event["message"])
        seconds = _seconds_per_item(event)
        if seconds is not None and (self.packing is None or self.packing.jobs == 1):  # beside others it is slower
            self._note_speed(self.plan.nodes[event["stage"]].job.kind, seconds, is_first=event["stage"] in self.fresh)
        if event["kind"] == "started":
            self.fresh.add(event["stage"])
        elif event["kind"] == "epoch":
            self.fresh.discard(event["stage"])
        if event["kind"] == "memory":
            self._shrink(event)
        elif event["kind"] == "packing":
            self._packed(event)
        if time.monotonic() - self.written > 1:
            self.write("running")

    def _note_speed(self, kind: str, seconds: float, *, is_first: bool) -> None:
        """Keep a measured speed, of each kind of job now and then; after a first epoch, which also loads and captures, that of the next."""
        if time.monotonic() - self.noted.get(kind, -math.inf) > NOTE_EVERY:
            self.noted[kind] = -math.inf if is_first else time.monotonic()
            with contextlib.suppress(OSError):
                note_speed(self.workspace.speeds, kind, seconds)

    def _say(self, text: str) -> None:
        with contextlib.suppress(Exception):  # of a display: the work goes on
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _shrink(self, event: Mapping[str, Any]) -> None:
        """Take note that fewer jobs run at once; the user is told the first time that it happens on a device."""
        self.state.clock.num_slots = event["slots"]
        if event["device"] not in self.shrunk:
            self.shrunk.add(event["device"])
            self._say(_cannot_begin(event) if event.get("why") else _lacks_memory(event))

    def _packed(self, event: Mapping[str, Any]) -> None:
        """Tell how many runs share a GPU from now on."""
        self.state.clock.num_slots = event["slots"]
        how = "" if event["jobs"] == 1 or has_mps() else "; they take turns, but would run truly at once with NVIDIA's MPS (docs/gpu.md)"
        self._say(f"{event['jobs']} at once on {event['device']} from now on: {event['reason']}{how}")

    def write(self, state: str) -> None:
        """The state of the matrix in a file, whole."""
        self.written = time.monotonic()
        with contextlib.suppress(Exception):  # neither a full disk nor the display's state may end the training
            about = {"state": state, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), **self.state.snapshot()}
            write_json(self.path, about, is_kept=False)

    def close(self) -> None:
        """Say that nobody is at it any more."""
        self.write("ended")


def _lacks_memory(event: Mapping[str, Any]) -> str:
    """That fewer jobs run at once on a device since memory did not suffice, or none."""
    if not event["jobs"]:
        nowhere = "its memory is full before a job begins, so nothing runs there from now on; other programs may hold it"
        return f"{event['device']}: {nowhere}"
    again = ", and one fewer whenever it happens again" if event["jobs"] > 1 else ""
    why = f"out of memory on {event['device']} (or a process was killed as the system does then)"
    return f"{why}: {event['jobs']} at once from now on{again}; what did not fit is tried again alone, its settings as they were"


def _cannot_begin(event: Mapping[str, Any]) -> str:
    """The same of a device on which no process can begin, for another reason."""
    if not event["jobs"]:
        return f"{event['device']}: no process can begin there ({event['why']}), so nothing runs there from now on"
    return f"{event['device']}: no other process can begin there ({event['why']}): {event['jobs']} at once from now on"


def _seconds_per_item(event: Mapping[str, Any]) -> float | None:
    """How long an item took, as an epoch tells by its rate, and a run that is one item by its result; None if an event tells neither."""
    rate = event["row"].get("rate") if event["kind"] == "epoch" else None
    seconds: float | None = event.get("seconds") if event["kind"] == "result" else None
    return seconds if rate is None else 1 / max(rate, 1e-9)
