"""Slots on other machines, whatever engine begins them there: which job goes where, and what becomes of it when its slot is lost."""

import json
import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablation.planning.jobs import Job
from ablation.running.executors.local import GRACE
from ablation.running.job_json import job_to_json
from ablation.system.fencing import Token

HEARTBEAT_TIMEOUT = 30.0  # seconds after which a worker that says nothing is given up
POLL = 2.0  # seconds after which a worker that has nothing to say says so
PATIENCE = 60.0  # seconds that jobs wait for a worker before that is said
FAILED_STARTS = 3  # how often in a row the slots of a node may fail to begin
ENDS = ("done", "failed", "stopped")  # the kinds of event after which a job sends none


class Gone(Exception):  # noqa: N818  it is no error of ours
    """A worker is no longer there; `for_memory` if the engine says that it ended it for lack of memory."""

    def __init__(self, why: str, *, for_memory: bool = False) -> None:
        super().__init__(why)
        self.for_memory = for_memory


class Broken(Exception):  # noqa: N818  the same
    """A worker raised an exception, which its message names."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what each of its slots takes of it."""

    id: str
    name: str
    num_slots: int
    share: Mapping[str, float] = field(default_factory=dict)  # resource -> how much


class Cluster(Protocol):
    """What an engine does for us. A worker is a `remote_worker.RemoteWorker` there, and an answer what one of its methods will return."""

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""

    def new_nodes(self) -> tuple[list[Node], list[str]]:
        """The nodes that have come since the last call and can be used, and a sentence for each that cannot."""

    def is_alive(self, node: Node) -> bool:
        """Whether the engine holds the node for alive; one that it does not comes again as another."""

    def start(self, node: Node) -> Any:
        """A worker on that node, which begins as soon as there is room for it."""

    def ask(self, worker: Any, method: str, *words: Any) -> Any:
        """Call a method of the worker after those that it was asked before; its answer."""

    def answered(self, answers: Sequence[Any], timeout: float) -> list[Any]:
        """Those of the answers that are there, after at most `timeout` seconds."""

    def take(self, answer: Any) -> str:
        """What an answer that is there says; raises Gone or Broken."""

    def end(self, worker: Any) -> None:
        """End a worker whatever it does."""

    def close(self) -> None:
        """Let go of the cluster."""


@dataclass(eq=False)
class Slot:
    """A worker, the answer that it owes, and its job."""

    node: Node
    worker: Any
    answer: Any  # of its beginning, or of its job; None while it has nothing to do
    device: str = ""  # known once it has begun
    job: Job | None = None
    is_alone: bool = False  # whether nothing else may run on its device meanwhile
    silence: float = 0.0  # seconds for which it has owed the answer

    @property
    def is_idle(self) -> bool:
        """Whether a job can begin there at once."""
        return bool(self.device) and self.job is None


class RemoteExecutor:
    """Runs jobs in the slots of a cluster; what it does for the scheduler, `scheduler.Executor` says.

    `owner` names the study, of whose `stages` only the newest attempt may write: an orphan on a lost node may live on.
    Where a worker is gone, or silent for `heartbeat` seconds, its job ends as `failed` with `is_lost`, and another takes its place.
    """

    def __init__(self, cluster: Cluster, owner: str, stages: Path, heartbeat: float = HEARTBEAT_TIMEOUT) -> None:
        self.cluster, self._owner, self._stages, self._heartbeat = cluster, owner, stages, heartbeat
        self._poll = min(POLL, heartbeat / 4)
        self._slots: list[Slot] = []
        self._held: deque[tuple[Job, bool]] = deque()  # jobs for which no slot is ready yet, and whether each goes alone
        self._told: list[dict[str, Any]] = []  # events of our own
        self._attempts: dict[str, int] = {}  # the last one at each job
        self._failed_starts: dict[str, int] = {}  # by node
        self._seen = self._stuck_since = time.monotonic()

    def add(self, nodes: Sequence[Node]) -> None:
        """Begin the slots of these nodes."""
        for node in nodes:
            for _ in range(node.num_slots):
                self._add_slot(node)

    def _add_slot(self, node: Node) -> None:
        worker = self.cluster.start(node)
        self._slots.append(Slot(node, worker, self.cluster.ask(worker, "begin")))

    # --- how many ----------------------------------------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        """How many jobs could start now, or as soon as workers are there; one also if all nodes are lost, until some come."""
        return max(0, len(self._open()) - len(self._held)) if self._slots else int(not self._held)

    @property
    def num_slots(self) -> int:
        """How many jobs can run at once."""
        return max(1, len(self._slots))

    @property
    def num_idle(self) -> int:
        """How many devices nothing runs on; those of workers that are still to come are one."""
        if self._held:
            return 0
        return len(self._idle()) or int(not self._slots or any(not slot.device for slot in self._slots))

    def _open(self) -> list[Slot]:
        """The slots that have no job, and on whose device no job goes alone."""
        closed = {slot.device for slot in self._slots if slot.job and slot.is_alone}
        return [slot for slot in self._slots if slot.job is None and slot.device not in closed]

    def _idle(self) -> set[str]:
        return {slot.device for slot in self._slots if slot.is_idle} - {slot.device for slot in self._slots if slot.job}

    def _num_on(self, device: str) -> int:
        return sum(slot.device == device for slot in self._slots)

    def resize(self, device: str, num_jobs: int) -> int:
        """The number of jobs on a device as it is: what each takes of it was asked of the engine at its start."""
        return self._num_on(device)

    def shrink(self, device: str, *, is_full: bool = False) -> int:
        """Run one job fewer at once on a device, on which one must just have ended; the number that is left, at least one.

        Where no process can begin since the device `is_full`, none may be left, if there are other devices.
        """
        slot = next((slot for slot in self._slots if slot.device == device and slot.is_idle), None)
        if slot is not None and (self._num_on(device) > 1 or (is_full and self.num_slots > 1)):
            self._drop(slot)
        elif slot is not None:
            self.cluster.ask(slot.worker, "end")
        return self._num_on(device)

    # --- jobs --------------------------------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, alone: bool = False) -> None:
        """Start a job as soon as a worker is free for it; `alone`, on an idle device that holds nothing else until the job ends."""
        if not self._held:
            self._stuck_since = time.monotonic()
        self._held.append((job, alone))
        self._place()

    def _place(self) -> None:
        """Begin the jobs that are held, as far as slots are ready."""
        while self._held:
            job, alone = self._held[0]
            idle = self._idle() if alone else ()
            num_busy = Counter(slot.device for slot in self._slots if slot.job)
            ready = [slot for slot in self._open() if slot.is_idle and (not alone or slot.device in idle)]
            slot = min(ready, key=lambda slot: num_busy[slot.device], default=None)
            if slot is None:
                return
            self._held.popleft()
            for neighbour in [other for other in self._slots if alone and other is not slot and other.device == slot.device]:
                self.cluster.ask(neighbour.worker, "end")
            self._begin(slot, job, alone=alone)

    def _begin(self, slot: Slot, job: Job, *, alone: bool) -> None:
        """Have a slot do a job."""
        owner = f"{self._owner}/{job.key}"
        order = {
            "key": job.key,
            "job": job_to_json(job),
            "alone": alone,
            "num_jobs": 1 if alone else self._num_on(slot.device),
            "owner": owner,
            "attempt": self._new_attempt(job.key, owner),
        }
        slot.job, slot.is_alone, slot.silence = job, alone, 0.0
        slot.answer = self.cluster.ask(slot.worker, "work", json.dumps(order), self._poll)

    def _new_attempt(self, key: str, owner: str) -> int:
        """A number above that of every earlier attempt: the time in milliseconds, unless another host's clock was ahead of ours."""
        there = Token.read(self._stages / key)
        known = max(self._attempts.get(key, 0), there.attempt if there and there.owner == owner else 0)
        self._attempts[key] = max(known + 1, int(time.time() * 1000))
        return self._attempts[key]

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """What happened since the last call, after at most `timeout` seconds: as `scheduler.Executor` describes them."""
        self._look()
        self._place()
        owed = {slot.answer: slot for slot in self._slots if slot.answer is not None}
        answered = self.cluster.answered(list(owed), 0.0 if self._told else timeout)
        events = [event for answer in answered for event in self._receive(owed[answer])]
        events += self._given_up()
        self._place()
        events, self._told = self._told + events, []
        return events

    def _receive(self, slot: Slot) -> list[dict[str, Any]]:
        """The events that a worker has answered with."""
        try:
            answer = json.loads(self.cluster.take(slot.answer))
        except Broken as error:
            return self._ended(slot, {"kind": "failed", "failure": "bug", "message": str(error).splitlines()[-1], "log": str(error)})
        except Gone as error:
            return self._lost(slot, error)
        slot.answer, slot.silence = None, 0.0
        if slot.job is None:
            device = f"cuda:{answer['gpu'] or 0}" if self.cluster.kind == "cuda" else "cpu"
            slot.device = f"{device} of {slot.node.name}"
            self._failed_starts.pop(slot.node.id, None)
            return []
        events = [self._with_facts(event, slot, slot.job) for event in answer]
        if events and events[-1]["kind"] in ENDS:
            slot.job, slot.is_alone = None, False
        else:
            slot.answer = self.cluster.ask(slot.worker, "events", self._poll)
        return events

    def _with_facts(self, event: dict[str, Any], slot: Slot, job: Job) -> dict[str, Any]:
        """An event with what the engine reads beside; a failure says how many jobs shared the device."""
        is_shared = event["kind"] in ("failed", "untested")
        jobs = {"jobs": 1 if slot.is_alone else self._num_on(slot.device)} if is_shared else {}
        return event | jobs | {"stage": job.key, "device": slot.device}

    # --- what is lost ------------------------------------------------------------------------------------------------------------

    def _given_up(self) -> list[dict[str, Any]]:
        """The ends of the jobs whose workers have said nothing for too long; what this process itself slept does not count."""
        now = time.monotonic()
        passed, self._seen = min(now - self._seen, self._poll), now
        late = []
        for slot in [slot for slot in self._slots if slot.job is not None]:
            slot.silence += passed
            late += [slot] if slot.silence > self._heartbeat else []
        return [event for slot in late for event in self._lost(slot, Gone(f"no sign of life for {self._heartbeat:.0f} s"))]

    def _lost(self, slot: Slot, error: Gone) -> list[dict[str, Any]]:
        """The end of a worker's job: for lack of memory, if the engine says so, else through no fault of its own."""
        if slot.job is None:
            self._failed_starts[slot.node.id] = self._failed_starts.get(slot.node.id, 0) + 1
            return self._ended(slot, why=str(error))
        failed = {"kind": "failed", "message": str(error), "log": ""}
        if error.for_memory:
            return self._ended(slot, failed | {"failure": "memory", "exit": -9})
        self._tell(f"a worker on {slot.node.name} was lost: its job goes on from the last checkpoint", slot.job)
        return self._ended(slot, failed | {"failure": "killed", "is_lost": True})

    def _ended(self, slot: Slot, event: dict[str, Any] | None = None, why: str = "") -> list[dict[str, Any]]:
        """Put another slot in the place of one that is gone, if its node is there; the end of its job."""
        events = [self._with_facts(event, slot, slot.job)] if slot.job and event else []
        self._drop(slot)
        if self._failed_starts.get(slot.node.id, 0) >= FAILED_STARTS:
            return events + self._without_workers(slot.node, why)
        if self.cluster.is_alive(slot.node):
            self._add_slot(slot.node)
        return events

    def _without_workers(self, node: Node, why: str) -> list[dict[str, Any]]:
        """The end of all that is held, and why nothing more can begin, if no slot is left that ever could."""
        if self._slots:
            return []
        held, self._held = self._held, deque()
        about = {"kind": "stopped", "why": f"no worker can begin on {node.name}: {why}", "device": ""}
        return [about | {"stage": job.key} for job, _ in held]

    def _drop(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self.cluster.end(slot.worker)

    def _look(self) -> None:
        """Take in the nodes that have come, and say once if jobs have waited long for room."""
        nodes, told = self.cluster.new_nodes()
        self.add(nodes)
        if not self._held or any(slot.job for slot in self._slots):
            self._stuck_since = time.monotonic()
        elif time.monotonic() - self._stuck_since > PATIENCE:
            self._stuck_since = math.inf
            told = [*told, "no worker has begun for a minute, since others use the cluster, or its nodes are slow or gone: this waits"]
        for message in told:
            self._tell(message, *(job for job, _ in self._held), *(slot.job for slot in self._slots if slot.job))

    def _tell(self, message: str, *jobs: Job) -> None:
        """Have a message said, beside the first of these jobs."""
        self._told += [{"kind": "told", "stage": job.key, "device": "", "message": message} for job in jobs[:1]]

    # --- the end -----------------------------------------------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """Have every job end at its next epoch, and those that are held not begin."""
        for slot in self._slots:
            self.cluster.ask(slot.worker, "ask_to_stop")
        self._told += [{"kind": "stopped", "stage": job.key, "device": ""} for job, _ in self._held]
        self._held.clear()

    def close(self) -> None:
        """End all workers, in order where they hold a GPU."""
        if self.cluster.kind == "cuda":
            self._end_in_order([self.cluster.ask(slot.worker, "end") for slot in self._slots if slot.device])
        for slot in list(self._slots):
            self._drop(slot)
        self.cluster.close()

    def _end_in_order(self, answers: list[Any]) -> None:
        """Wait for these ends, but not longer than a process has for its own."""
        until = time.monotonic() + GRACE
        while answers and time.monotonic() < until:
            there = self.cluster.answered(answers, 1.0)
            answers = [answer for answer in answers if answer not in there]
