"""One slot on another machine: a process like those of `local`, begun and watched there. All that goes in and out is JSON."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.planning.jobs import Job
from ablation.running.executors.local import LocalExecutor
from ablation.running.executors.remote import ENDS
from ablation.running.job_json import job_from_json
from ablation.running.worker import OTHER_CODE, Order
from ablation.system import environment
from ablation.techniques.technique import allow_code


class RemoteWorker:
    """What an engine starts where a job shall run; its methods are called one after another.

    A job has a process of its own here, as everywhere: what kills that process counts as the job's failure, and what kills this one, which
    does nothing but wait, does not. The process ends with this one.
    """

    def __init__(self, place: str) -> None:
        asked = json.loads(place)
        environment.settle()
        os.chdir(asked["folder"])
        if asked["code"]:
            allow_code(*map(Path, asked["code"]))
        self._pool = _OneSlot(asked["device"], asked["task"])

    def begin(self) -> str:
        """The GPU that the engine gave to this slot, as the driver names it, or ""."""
        return json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "")})

    def work(self, order: str, seconds: float) -> str:
        """Start a job; its first events."""
        asked = json.loads(order)
        try:
            job = job_from_json(asked["job"])
        except Exception:  # its classes are imported now, from a file that was edited since the study was planned
            return json.dumps([OTHER_CODE])
        self._pool.asked = asked
        self._pool.submit(job, alone=asked["alone"])
        return self.events(seconds)

    def events(self, seconds: float) -> str:
        """What the job did since the last call, after at most so many seconds; the last event may be its end."""
        events = self._pool.events(seconds)
        while events and events[-1]["kind"] not in ENDS and (more := self._pool.events(0)):
            events += more
        return json.dumps(events)

    def ask_to_stop(self) -> None:
        """Have the job end at its next epoch."""
        self._pool.ask_to_stop()

    def end(self) -> None:
        """End the process, so that it holds nothing of its device; the next job has another."""
        self._pool.close()


class _OneSlot(LocalExecutor):
    """A process on this machine, whose device other slots may share."""

    def __init__(self, device: str, task: str) -> None:
        super().__init__([device], 1, task)
        self.asked: Mapping[str, Any] = {}

    def _order(self, job: Job, num_jobs: int) -> Order:
        """The job, with the number of all slots of the device."""
        return Order(job, max(num_jobs, self.asked["num_jobs"]))
