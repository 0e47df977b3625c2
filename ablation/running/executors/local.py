"""Worker processes on this machine: one for each slot, each importing torch once for many jobs."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from ablation.planning.jobs import Job
from ablation.running.worker import work
from ablation.study.task import DEFAULT
from ablation.system import signals


@dataclass
class _Slot:
    """One worker process, its pipe, and the key of what it works on."""

    process: SpawnProcess
    pipe: Connection
    device: str
    busy: str = ""
    is_alone: bool = False  # whether nothing else may run on its device while it is busy
    must_be_replaced: bool = False  # an error of CUDA stays with its process: it may have no other job

    def kill(self) -> None:
        """End the process, whatever it does; what it held of the device's memory is free then."""
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
        """Start a job in a free slot; `alone`, on an idle device that holds nothing else until the job ends, not even an idle process."""
        slot = next(slot for slot in self._free() if not alone or slot.device in self._idle())
        if alone:
            for neighbour in [neighbour for neighbour in self._slots if neighbour.device == slot.device]:
                neighbour.kill()
        if not slot.process.is_alive():
            number = self._slots.index(slot)
            slot = self._slots[number] = self._start(slot.device)
        try:
            slot.pipe.send(job)
        except OSError:  # it ended just now
            number = self._slots.index(slot)
            slot.kill()
            slot = self._slots[number] = self._start(slot.device)
            slot.pipe.send(job)
        slot.busy, slot.is_alone = job.key, alone

    def resize(self, device: str, num_jobs: int) -> int:
        """Run so many jobs at once on a device, more only as those that are too many end; the number as it is now."""
        while self._num_on(device) < num_jobs:
            self._slots.append(self._start(device))
        for slot in [slot for slot in self._slots if slot.device == device and not slot.busy][: max(0, self._num_on(device) - num_jobs)]:
            slot.kill()
            self._slots.remove(slot)
        return self._num_on(device)

    def shrink(self, device: str) -> int:
        """Run one job fewer at once on a device, on which one must just have ended; the number that is left, at least one."""
        slot = next((slot for slot in self._slots if slot.device == device and not slot.busy), None)
        if slot is None:  # `resize` has just taken it
            return self._num_on(device)
        slot.kill()
        if self._num_on(device) > 1:
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
            event = {"kind": "failed", "stage": slot.busy, "failure": "killed", "message": f"its process ended with {code}", "log": ""}
            event |= {"exit": code, "device": slot.device}
        if event["kind"] in ("failed", "untested"):
            event["jobs"] = self._num_on(slot.device)
        if event["kind"] in ("done", "failed", "stopped"):
            slot.busy = ""
        if event["kind"] in ("failed", "untested"):
            slot.must_be_replaced |= event["failure"] == "bug" and slot.device.startswith("cuda")  # an error of CUDA stays with its process
        if event["kind"] == "failed" and event["failure"] == "memory":
            slot.kill()  # what it still holds is in the way of the others
        elif not slot.busy and slot.must_be_replaced:
            slot.kill()
        return event

    def ask_to_stop(self) -> None:
        """Have every job end at its next epoch."""
        self._stop.value = 1

    def close(self) -> None:
        """End all processes, whatever they do."""
        for slot in self._slots:
            with contextlib.suppress(OSError, ValueError):
                slot.process.kill()  # they block anything milder
        for slot in self._slots:
            slot.process.join(5)


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
