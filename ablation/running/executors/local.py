"""Worker processes on this machine: one for each slot, each importing torch once for many jobs."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from ablation.planning.jobs import Job
from ablation.running.worker import END, Order, work
from ablation.study.task import DEFAULT
from ablation.system import signals
from ablation.system.oom_kills import num_oom_kills, why_killed

KILLED = int(signal.SIGKILL)  # what the system sends where memory runs out, and others at any time
GRACE = 10.0  # seconds that a process has to let go of a device in order


@dataclass
class _Slot:
    """One worker process, its pipe, and the key of what it works on."""

    process: SpawnProcess
    pipe: Connection
    device: str
    busy: str = ""
    is_alone: bool = False  # whether nothing else may run on its device while it is busy
    must_be_replaced: bool = False  # an error of CUDA stays with its process: it may have no other job
    num_begun: int = 0  # jobs
    num_oom_kills: int | None = None  # of the system, when its job began

    def ask_to_end(self) -> None:
        """Ask the process to end at once and in order: one that is killed on a device may disturb others there (under MPS)."""
        with contextlib.suppress(OSError, ValueError):
            if self.process.is_alive() and self.process.pid:
                os.kill(self.process.pid, END)
        self.pipe.close()

    def end(self) -> None:
        """End the process, in order or else whatever it does; what it held of the device's memory is free then."""
        self.ask_to_end()
        self.await_end(time.monotonic() + _grace(self.device))

    def await_end(self, deadline: float) -> None:
        """Wait for the end of the process until then, and kill it if it goes on."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            with contextlib.suppress(OSError, ValueError):
                self.process.kill()
            self.process.join(5)


class LocalExecutor:
    """Runs jobs of one kind of work in `num_jobs` processes for each device, which begin importing before the first job is there."""

    def __init__(self, devices: list[str], num_jobs: int, task: str = DEFAULT) -> None:
        self._task = task
        self._context = multiprocessing.get_context("spawn")
        self._stop: Any = self._context.RawValue("b", 0)  # not an Event, whose lock would outlive a worker that is killed in it
        with signals.blocked(), _tracker_is_quiet():  # Python's helper must not end before the others do
            resource_tracker.ensure_running()  # begun with a worker, it would unblock the signals
        self._num_lacking: dict[str, int] = {}  # how often memory did not suffice, by device
        self._slots = [self._start(device) for device in devices for _ in range(num_jobs)]

    def _start(self, device: str) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, device, self._task, self._stop, os.getpid()), daemon=True)
        with signals.blocked():
            process.start()
        theirs.close()
        return _Slot(process, ours, device)

    @property
    def num_free(self) -> int:
        """How many jobs could start now."""
        return len(self._free())

    @property
    def num_slots(self) -> int:
        """How many jobs can run at once."""
        return len(self._slots)

    @property
    def num_idle(self) -> int:
        """How many devices nothing runs on."""
        return len(self._idle())

    def _free(self) -> list[_Slot]:
        closed = {slot.device for slot in self._slots if slot.busy and slot.is_alone}
        return [slot for slot in self._slots if not slot.busy and slot.device not in closed]

    def _idle(self) -> list[str]:
        busy = {slot.device for slot in self._slots if slot.busy}
        return list(dict.fromkeys(slot.device for slot in self._slots if slot.device not in busy))

    def submit(self, job: Job, *, alone: bool = False) -> None:
        """Start a job in a free slot, on the device with the fewest jobs; `alone`, on an idle one that holds nothing else until it ends.

        Not even an idle process, that is.
        """
        free = [slot for slot in self._free() if not alone or slot.device in self._idle()]
        num_busy = Counter(slot.device for slot in self._slots if slot.busy)
        slot = min(free, key=lambda slot: self._num_lacking.get(slot.device, 0) if alone else num_busy[slot.device])
        if alone:
            for neighbour in [neighbour for neighbour in self._slots if neighbour.device == slot.device]:
                neighbour.end()
        if not slot.process.is_alive():
            number = self._slots.index(slot)
            slot = self._slots[number] = self._start(slot.device)
        order = self._order(job, 1 if alone else self._num_on(slot.device))
        try:
            slot.pipe.send(order)
        except OSError:  # it ended just now
            number = self._slots.index(slot)
            slot.end()
            slot = self._slots[number] = self._start(slot.device)
            slot.pipe.send(order)
        slot.busy, slot.is_alone, slot.num_oom_kills = job.key, alone, num_oom_kills()
        slot.num_begun += 1

    def _order(self, job: Job, num_jobs: int) -> Order:
        """What a worker is sent, on a device that so many of these slots share."""
        return Order(job, num_jobs)

    def resize(self, device: str, num_jobs: int) -> int:
        """Run so many jobs at once on a device, more only as those that are too many end; the number as it is now."""
        while self._num_on(device) < num_jobs:
            self._slots.append(self._start(device))
        for slot in [slot for slot in self._slots if slot.device == device and not slot.busy][: max(0, self._num_on(device) - num_jobs)]:
            slot.end()
            self._slots.remove(slot)
        return self._num_on(device)

    def shrink(self, device: str, *, is_full: bool = False) -> int:
        """Run one job fewer at once on a device, on which one must just have ended; the number that is left, at least one.

        Where no process can begin since the device `is_full`, none may be left, if there are other devices.
        """
        slot = next((slot for slot in self._slots if slot.device == device and not slot.busy), None)
        if slot is None:  # `resize` has just taken it
            return self._num_on(device)
        slot.end()
        if self._num_on(device) > 1 or (is_full and self.num_slots > 1):
            self._slots.remove(slot)
        return self._num_on(device)

    def _num_on(self, device: str) -> int:
        return sum(slot.device == device for slot in self._slots)

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """What happened since the last call, after at most `timeout` seconds: as `scheduler.Executor` describes them."""
        events: list[dict[str, Any]] = []
        for ready in wait([slot.pipe for slot in self._slots if slot.busy], timeout):
            slot = next(slot for slot in self._slots if slot.pipe is ready)
            events.append(self._receive(slot))
        return events

    def _receive(self, slot: _Slot) -> dict[str, Any]:
        try:
            event: dict[str, Any] = slot.pipe.recv() | {"stage": slot.busy, "device": slot.device}
        except (EOFError, OSError):  # also in the middle of a message
            slot.process.join(5)
            code = slot.process.exitcode
            event = {"kind": "failed", "stage": slot.busy, "device": slot.device, "exit": code, "log": ""}
            event |= _why_it_ended(code, slot.num_oom_kills)
        if event["kind"] in ("failed", "untested"):
            event = {"jobs": self._num_on(slot.device), "is_fresh": slot.num_begun == 1} | event
            if event["failure"] == "memory":
                self._num_lacking[slot.device] = self._num_lacking.get(slot.device, 0) + 1
        if event["kind"] in ("done", "failed", "stopped"):
            slot.busy = ""
        if event["kind"] in ("failed", "untested"):
            slot.must_be_replaced |= event["failure"] == "bug" and slot.device.startswith("cuda")  # an error of CUDA stays with its process
        if event["kind"] == "failed" and event["failure"] == "memory":
            slot.end()  # what it still holds is in the way of the others
        elif not slot.busy and slot.must_be_replaced:
            slot.end()
        return event

    def ask_to_stop(self) -> None:
        """Have every job end at its next epoch."""
        self._stop.value = 1

    def close(self) -> None:
        """End all processes, in order or else whatever they do."""
        for slot in self._slots:
            slot.ask_to_end()
        began = time.monotonic()
        for slot in self._slots:
            slot.await_end(began + _grace(slot.device))


def _why_it_ended(code: int | None, kills_before: int | None) -> dict[str, Any]:
    """The failure of a job whose process ended with that code, by whether the system has killed for lack of memory since it began."""
    if code == -KILLED:
        return why_killed(kills_before, num_oom_kills())
    return {"failure": "killed", "message": f"its process ended with {code}"}


def _grace(device: str) -> float:
    """The seconds that a process on this device has to end in order; on a CPU there is nothing to let go of."""
    return 0.0 if device == "cpu" else GRACE


@contextlib.contextmanager
def _tracker_is_quiet() -> Iterator[None]:
    """Python's helper, begun here, tidies up after workers that are killed, and does not warn of it: that is how they end."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join([*([before] if before else []), "ignore:resource_tracker"])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
