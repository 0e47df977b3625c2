"""Ready, submitted, done: hands jobs to an executor and results to the recorder; a failure stops what depends on it, nothing else.

Stages begin in the plan's order, all arms of the first seed first, so that whatever is there when it ends is balanced. Without a budget
one begins before those in front of it where the whole would last longer otherwise.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ablation.planning.jobs import Job
from ablation.planning.plan import Node, Plan, Run
from ablation.running.clock import Clock
from ablation.running.outcomes import Outcome, Outcomes, Record
from ablation.running.packing import Packing
from ablation.study.task import load_task
from ablation.tracking.messages import first_line

ATTEMPTS = 2  # how often a job is tried whose process ended, unless it ended for lack of memory


class Executor(Protocol):
    """Where jobs run: in processes that share this machine's folders, or at least `mlruns/`, where results are written.

    Every event is a mapping with `kind`, `stage` (the job's key) and `device`. A job sends `started`; `epoch` with its number and a
    `row` (epoch, time, seconds, values by name, and a rate where items are counted), on CUDA also `memory`; `damaged` with a `message`;
    `result` (with `seconds` where the job is no more than that run) or `untested` for each `run` (the key of what was asked for); and in
    the end `done`, `stopped` (with `why`, where it was not the user), or `failed`.
    `failed` and `untested` have `failure` (memory, nan, data, store, killed, timeout, bug), `message`, `log`, `jobs`, the number at once
    on the device, and `is_fresh`, whether it is the first job of its process. `failed` has `exit` where a process ended,
    `may_lack_memory` where it was killed (true if nothing tells whether that was for lack of memory), and else `has_begun`, false if the
    process could not begin on the device; `is_lost` where the place itself was lost or taken away, which is no failure of the job: it goes
    on elsewhere, however often. `told` has a `message` that is said once.
    """

    @property
    def num_free(self) -> int:
        """How many jobs could start now."""

    @property
    def num_slots(self) -> int:
        """How many jobs can run at once."""

    @property
    def num_idle(self) -> int:
        """How many devices nothing runs on."""

    def submit(self, job: Job, *, alone: bool = False) -> None:
        """Start a job; `alone`, with nothing else on its device until it ends."""

    def resize(self, device: str, num_jobs: int) -> int:
        """Run so many jobs at once on a device, as soon as can be; the number as it is now."""

    def shrink(self, device: str, *, is_full: bool = False) -> int:
        """Run one job fewer at once on a device, on which one must just have ended; the number that is left.

        Where no process can begin since the device `is_full`, none may be left, if there are other devices.
        """

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """What happened since the last call, after at most `timeout` seconds."""

    def ask_to_stop(self) -> None:
        """Have every job end at its next epoch."""

    def close(self) -> None:
        """End everything."""


def execute(
    plan: Plan,
    executor: Executor,
    record: Record,
    view: Callable[[dict[str, Any]], None],
    *,
    should_stop: Callable[[], bool],
    budget: float = 0,
    packing: Packing | None = None,
) -> Outcome:
    """Train and test what the plan lacks; `view` sees every event.

    With a `packing`, as many jobs share each device as that finds worth while; else as many as the executor has.
    With a `budget` in seconds (0: no end) a stage begins only if it is expected to end within it, and nothing after one that is not; what
    still runs when it is used up ends at its next epoch. A stage longer than the whole of it would never begin: it does when nothing
    that runs beside it will end in time.
    """
    return _Scheduler(plan, executor, record, view, packing).run(should_stop, budget)


class _Scheduler:
    def __init__(
        self, plan: Plan, executor: Executor, record: Record, view: Callable[[dict[str, Any]], None], packing: Packing | None
    ) -> None:
        self.plan, self.executor, self.record, self.view, self.packing = plan, executor, record, view, packing
        self.waiting = {key: node for key, node in plan.nodes.items() if node.state != "done" or node.job.requests}
        self.done = {key for key, node in plan.nodes.items() if node.state == "done"}
        self.running: dict[str, Node] = {}
        self.attempts: dict[str, int] = {}
        self.alone: set[str] = set()  # what is tried with nothing beside it on its device
        self.untested: dict[str, dict[str, Any]] = {}  # trainings whose tests did not fit into memory, and what told that
        self.history: dict[str, list[Mapping[str, Any]]] = {}
        self.runs: dict[str, list[Run]] = {}  # by the key of what is tested
        for run in plan.waiting:
            self.runs.setdefault(run.key, []).append(run)
        self.outcomes = Outcomes(plan, record, view)
        self.clock = Clock(plan, executor.num_slots)
        self.longest = max(chain_seconds(plan.nodes, lambda key: plan.nodes[key].seconds).values(), default=0.0)
        self.sizes: dict[str, int] = {}  # how many jobs share each device, where that was changed
        self.capped: set[str] = set()  # devices on which no further process can begin
        self.has_begun = False  # whether any process could

    def run(self, should_stop: Callable[[], bool], budget: float) -> Outcome:
        began, stopping, is_asked = time.monotonic(), False, False
        while self.running or (self.waiting and not stopping):
            left = budget - (time.monotonic() - began) if budget else math.inf
            if (should_stop() or left < 0) and not is_asked:
                stopping = is_asked = True
                self.executor.ask_to_stop()
            stopping = stopping or bool(self.outcomes.why)
            if not stopping:
                self._submit(left, budget or math.inf)
                stopping = not self.running  # nothing that is left fits into the budget
            for event in self.executor.events(0.2) if self.running else []:
                self._handle(event)
            self.view({"kind": "tick"})
        return self.outcomes.outcome

    def _submit(self, left: float, budget: float) -> None:
        """Begin what is ready, in the plan's order, up to the first stage that would not end in the seconds that are left."""
        while key := self._next(left, budget):
            node = self.running[key] = self.waiting.pop(key)
            self.executor.submit(node.job, alone=True) if key in self.alone else self.executor.submit(node.job)

    def _next(self, left: float, budget: float) -> str:
        """The first stage that can begin now, "" if none can; one that goes alone stands first, and holds all up until a device is idle."""
        if left == math.inf and not self.alone and (key := self._critical()):
            return key
        for key in self.waiting:
            is_ready = self._is_ready(key)
            if not self.executor.num_free or not self._fits(key, left, budget, is_ready=is_ready):
                return ""
            if key in self.alone and not self.executor.num_idle:
                return ""
            if is_ready:
                return key
        return ""

    def _critical(self) -> str:
        """The ready stage with the longest chain, if that takes as long as all that waits will on all slots; "" if none does."""
        num_slots = self.executor.num_slots
        at_least = self.clock.idle_estimate - sum(node.seconds for node in self.running.values())  # summed up once, for much may wait
        if not self.executor.num_free or not self.clock.is_known or self.longest * num_slots < at_least:
            return ""
        chains = chain_seconds(self.waiting, self.clock.seconds_of)
        left = sum(map(self.clock.seconds_of, self.waiting))
        key = max(filter(self._is_ready, self.waiting), key=chains.__getitem__, default="")
        return key if key and chains[key] * num_slots >= left else ""

    def _is_ready(self, key: str) -> bool:
        parent = self.waiting[key].job.parent
        return not parent or parent in self.done

    def _fits(self, key: str, left: float, budget: float, *, is_ready: bool) -> bool:
        """Whether a stage lets those after it begin: it would end in time, or no budget of this size could hold it."""
        if left == math.inf or self._until_end(key) <= left:
            return True
        if is_ready:
            return self.clock.seconds_of(key) > budget and all(self.clock.seconds_of(other) > left for other in self.running)
        return self._until_end(key) > budget

    def _until_end(self, key: str) -> float:
        """Seconds until a stage could end: its own, and those of what it goes on from."""
        parent = self.plan.nodes[key].job.parent
        before = self._until_end(parent) if parent and parent not in self.done else 0.0
        return before + self.clock.seconds_of(key)

    def _handle(self, event: dict[str, Any]) -> None:
        key, kind = event["stage"], event["kind"]
        node = self.running[key]
        self.clock.see(event)
        self.has_begun = self.has_begun or kind in ("epoch", "result", "untested", "done")
        if kind == "epoch":
            self.history.setdefault(key, []).append(event["row"])
            self.record.live(node, self.history[key])
        elif kind == "result":
            for run in self.runs.get(event["run"], []):
                self.outcomes.finish(run)
        elif kind == "untested" and _is_memory(event) and self._goes_alone(key, event):
            self.untested[key] = event
        elif kind == "untested":
            self.outcomes.fail(self.runs.get(event["run"], []), _as_out_of_memory(event, node.job.task))
        elif kind in ("done", "stopped"):
            self._ended(key, kind)
            self.outcomes.why = event.get("why", self.outcomes.why)
        elif kind == "failed" and self._tries_again(key, event):
            event = event | {"kind": "stopped"}
        elif kind == "failed":
            event = _as_out_of_memory(event, node.job.task)
            self._failed(key, event)
        self.view(event)
        if self.packing is not None:
            self.packing.see(event, node.job.kind)
            self._resize(event["device"], self.packing)

    def _ended(self, key: str, kind: str) -> None:
        """Take note of a job's end; what is left to be tested waits for another attempt."""
        node = self.running.pop(key)
        if kind == "done":
            self.done.add(key)
            if key in self.untested:
                self._make_room(self.untested.pop(key))
                self.waiting = {key: node, **self.waiting}

    def _tries_again(self, key: str, event: dict[str, Any]) -> bool:
        """Whether the job waits for another attempt: it did not fit beside others, or its process was killed, and not too often yet."""
        if event.get("is_lost"):
            return self._waits_again(key)
        self.attempts[key] = self.attempts.get(key, 0) + 1
        if not event.get("has_begun", True) and self.executor.num_slots > 1 and (_is_memory(event) or self._begins_elsewhere(event)):
            self._shrink(event["device"], is_full=True, why="" if _is_memory(event) else first_line(event["message"]))
        elif _is_memory(event) and self._goes_alone(key, event):
            self._make_room(event)
        elif self.attempts[key] >= ATTEMPTS and "may_lack_memory" in event and self._goes_alone(key, event):
            pass  # killed once more: a daemon may do so before the kernel finds that memory is lacking
        elif not (event["failure"] == "killed" or "exit" in event) or self.attempts[key] >= ATTEMPTS:
            return False
        return self._waits_again(key)

    def _begins_elsewhere(self, event: dict[str, Any]) -> bool:
        """Whether another process may do what this one could not, which is to begin: on another device, or as one has on this."""
        return self.has_begun or event.get("jobs", 1) < self.executor.num_slots

    def _waits_again(self, key: str) -> bool:
        """Have a job begin again before all that waits, from its last checkpoint."""
        self.untested.pop(key, None)
        self.clock.again(key)
        self.waiting = {key: self.running.pop(key), **self.waiting}  # first, as parents stand before their children
        self.history.pop(key, None)  # what is trained again is told again
        return True

    def _goes_alone(self, key: str, event: dict[str, Any]) -> bool:
        """Whether what did not fit is tried again in a new process with nothing beside it, as it was not yet."""
        was_alone = event.get("jobs", 1) == 1 and event.get("is_fresh", True) and event.get("has_begun", True)
        if key not in self.untested and (key in self.alone or was_alone):
            return False
        self.alone.add(key)
        return True

    def _make_room(self, event: dict[str, Any]) -> None:
        """Run one job fewer at once on a device where memory did not suffice; where only one ran, it is told that it begins anew."""
        device = event["device"]
        if event.get("jobs", 1) > 1:
            self._shrink(device)
        else:
            why = (
                "since earlier jobs of its process may still hold some" if event.get("has_begun", True) else "which other programs may hold"
            )
            self.view({"kind": "told", "message": f"out of memory on {device}, {why}: what did not fit is tried again in a new process"})

    def _shrink(self, device: str, *, is_full: bool = False, why: str = "") -> None:
        """Run one job fewer at once on a device where memory did not suffice, and none where not even a process could begin.

        `why` says what else than memory kept it from that.
        """
        left = self.sizes[device] = self.executor.shrink(device, is_full=True) if is_full else self.executor.shrink(device)
        if why:
            self.capped.add(device)
        elif self.packing is not None:
            self.packing.fewer(max(1, left))
        self.view({"kind": "memory", "device": device, "jobs": left, "slots": self.executor.num_slots, "why": why})

    def _resize(self, device: str, packing: Packing) -> None:
        """Let as many jobs share a device as is worth while, but no more than before where none would have a job."""
        before = self.sizes.get(device, 1)
        if not before:  # a full device
            return
        ready = list(filter(self._is_ready, self.waiting))
        is_more = len(self.running) + len(ready) > self.executor.num_slots
        wanted = packing.jobs if is_more and device not in self.capped else min(packing.jobs, before)
        if wanted != before:
            self.sizes[device] = self.executor.resize(device, wanted)
        if self.sizes.get(device, 1) != before:
            about = {"device": device, "jobs": self.sizes[device], "slots": self.executor.num_slots, "reason": packing.reason}
            self.view({"kind": "packing", **about})

    def _failed(self, key: str, event: dict[str, Any]) -> None:
        node = self.running.pop(key)
        if key in self.done:  # only what it tests failed: what goes on from it does so
            self.outcomes.fail([run for request in node.job.requests for run in self.runs.get(request, [])], event)
            return
        lost = {key}
        for other, waiting in self.waiting.items():  # parents stand before their children
            if waiting.job.parent in lost:
                lost.add(other)
        self.waiting = {other: waiting for other, waiting in self.waiting.items() if other not in lost}
        training = [run for run in self.outcomes.left if not run.choice]
        self.outcomes.fail([run for run in training if any(node.job.key in lost for node in self.plan.lineage(run))], event)


def chain_seconds(nodes: Mapping[str, Node], seconds_of: Callable[[str], float]) -> dict[str, float]:
    """The seconds of each stage and of the longest chain of those that go on from it; parents stand before their children."""
    seconds: dict[str, float] = {}
    after: dict[str, float] = {}
    for key in reversed(list(nodes)):
        seconds[key] = seconds_of(key) + after.get(key, 0.0)
        parent = nodes[key].job.parent
        after[parent] = max(after.get(parent, 0.0), seconds[key])
    return seconds


def _is_memory(event: dict[str, Any]) -> bool:
    """Whether memory did not suffice: an error said so, or the system killed the process, as it does then."""
    return event["failure"] == "memory" or bool(event.get("may_lack_memory"))


def _as_out_of_memory(event: dict[str, Any], task: str) -> dict[str, Any]:
    """The failure of a job that was alone and did not fit, told as such; any other as it is."""
    if not _is_memory(event):
        return event
    problem = (
        f"{event['message']}, with no other job beside it too" if "exit" in event else "out of memory even with no other job beside it"
    )
    if not event.get("has_begun", True):
        problem = f"no process can begin on {event['device']}, since its memory is full: other programs may hold it"
    return event | {"message": f"{problem}; {load_task(task).memory_advice} may help"}
