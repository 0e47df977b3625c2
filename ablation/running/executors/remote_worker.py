"""One slot on another machine: a process like those of `local`, begun and watched there. All that goes in and out is JSON."""

import json
import os
from collections.abc import Mapping
from typing import Any

from ablation.planning.jobs import Job
from ablation.running.executors.local import LocalExecutor
from ablation.running.executors.remote import ENDS
from ablation.running.worker import Order
from ablation.system import environment

AT_ONCE = 1000  # events in an answer: a job that always has one more must not keep its worker from answering


class RemoteWorker:
    """What an engine starts where a job shall run; its methods are called one after another.

    A job has a process of its own here, as everywhere: what kills that process counts as the job's failure, and what kills this one, which
    does nothing but wait, does not. The process ends with this one. No library is imported here, so that this one always answers at once.
    """

    def __init__(self, place: str) -> None:
        asked = json.loads(place)
        environment.settle()
        os.chdir(asked["folder"])
        self._slot = _OneSlot(asked["device"], asked["task"], asked["code"])

    def begin(self) -> str:
        """The GPU that the engine gave to this slot, as the driver names it, or ""."""
        return json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "")})

    def work(self, order: str, seconds: float) -> str:
        """Start a job; its first events."""
        self._slot.take(json.loads(order))
        return self.events(seconds)

    def events(self, seconds: float) -> str:
        """What the job did since the last call, after at most so many seconds; the last event may be its end."""
        events = self._slot.events(seconds)
        while 0 < len(events) < AT_ONCE and events[-1]["kind"] not in ENDS and (more := self._slot.events(0)):
            events += more
        return json.dumps(events)

    def ask_to_stop(self) -> None:
        """Have the job end at its next epoch."""
        self._slot.ask_to_stop()

    def end(self) -> None:
        """End the process, so that it holds nothing of its device; the next job has another."""
        self._slot.close()


class _OneSlot(LocalExecutor):
    """A process on this machine, whose device other slots may share; the job goes on to it as it came."""

    def __init__(self, device: str, task: str, code: list[str]) -> None:
        super().__init__([device], 1, task)
        self._asked: Mapping[str, Any] = {}
        self._code = tuple(code)

    def take(self, asked: Mapping[str, Any]) -> None:
        """Start what an order of `remote.RemoteExecutor` asks for."""
        self._asked = asked
        self.submit(Job(asked["key"], "", "", (), self._task, None), alone=asked["alone"])

    def _order(self, job: Job, num_jobs: int) -> Order:
        asked = self._asked
        return Order(asked["job"], asked["num_jobs"], asked["owner"], asked["attempt"], self._code)
