"""The time that is left, by the plan's estimate and by how long things took."""

import heapq
import math
import time
from collections.abc import Mapping
from typing import Any

from ablation.planning.cost import is_unknown
from ablation.planning.plan import Node, Plan

MANY = 100  # stages under way, of which the time left is not summed anew at each question


class Clock:
    """The time left: the plan's estimate of what is not done, corrected by how long what is done took.

    A stage of which nothing is known is expected to take as long as those took of which nothing was known.
    """

    def __init__(self, plan: Plan, num_slots: int) -> None:
        self.nodes, self.num_slots = plan.nodes, num_slots
        self.is_counted = plan.study.task.words.is_counted  # whether the plan knows the epochs of its nodes
        self.epochs: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        self.ended = {key for key, node in plan.nodes.items() if not node.seconds and not node.remaining_epochs}
        self._took, self._estimated = 0.0, 0.0  # of all epochs so far
        self._began: dict[str, float] = {}
        self._unforeseen, self._num_unforeseen = 0.0, 0  # the seconds of those that ended of which nothing was known
        self._idle = {key for key in plan.nodes if key not in self.ended}  # what has not begun
        self._active: set[str] = set()  # what has, and has not ended
        self._idle_seconds = sum(self.nodes[key].seconds for key in self._idle)  # summed once, for there may be many
        self._num_idle_unknown = sum(is_unknown(self.nodes[key]) for key in self._idle)
        self._longest = [(-self.nodes[key].seconds, key) for key in self._idle]
        heapq.heapify(self._longest)
        self._summed, self._summed_at = 0.0, -math.inf

    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of a beginning, an epoch's time, or an end."""
        if event["kind"] in ("started", "epoch", "done", "failed"):
            self._begin(event["stage"])
        if event["kind"] == "started":
            self._began[event["stage"]] = time.monotonic()
        elif event["kind"] == "epoch":
            key, seconds = event["stage"], event["row"]["seconds"]
            self.spent[key] = self.spent.get(key, 0.0) + seconds
            if self.is_counted:
                self.epochs[key] = self.epochs.get(key, 0) + 1
                self._compare(seconds, _per_epoch(self.nodes[key]))
        elif event["kind"] in ("done", "failed"):
            key = event["stage"]
            self.ended.add(key)
            self._active.discard(key)
            if event["kind"] == "done" and key in self._began:
                self._ended(self.nodes[key], time.monotonic() - self._began[key])

    def again(self, key: str) -> None:
        """Take note that something ended before its end, and is to be begun again."""
        self.ended.discard(key)
        self._active.add(key)
        self._began.pop(key, None)

    def _begin(self, key: str) -> None:
        """Count something for itself from now on."""
        if key in self._idle:
            self._idle.remove(key)
            self._active.add(key)
            self._idle_seconds -= self.nodes[key].seconds
            self._num_idle_unknown -= is_unknown(self.nodes[key])

    def _ended(self, node: Node, took: float) -> None:
        """Take note of how long something took whose epochs tell nothing of it."""
        if is_unknown(node):
            self._unforeseen += took
            self._num_unforeseen += 1
        elif not self.is_counted:
            self._compare(took, node.seconds)

    def _compare(self, took: float, expected: float) -> None:
        """Take note of how long something took, if an estimate of it is known."""
        if expected:
            self._took += took
            self._estimated += expected

    @property
    def is_known(self) -> bool:
        """Whether something tells of each stage that is left how long it takes: the plan, its epochs, or those that have ended."""
        if self._num_unforeseen:
            return True
        return not self._num_idle_unknown and all(self.epochs.get(key) or not is_unknown(self.nodes[key]) for key in self._active)

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, were every slot busy; where much is under way, as they were within the last second."""
        if len(self._active) <= MANY or time.monotonic() - self._summed_at > 1:
            self._summed, self._summed_at = self._sum(), time.monotonic()
        return self._summed

    def _sum(self) -> float:
        """The seconds that are left."""
        while self._longest and self._longest[0][1] not in self._idle:
            heapq.heappop(self._longest)
        active = [self.seconds_of(key) for key in self._active]
        idle = self._factor * self._idle_seconds + self._num_idle_unknown * self._mean_unforeseen
        longest = [self._factor * -seconds for seconds, _ in self._longest[:1]]
        unknown = self._mean_unforeseen if self._num_idle_unknown else 0.0
        return max((sum(active) + max(0.0, idle)) / self.num_slots, *active, *longest, unknown)

    @property
    def _factor(self) -> float:
        """How wrong the estimates were so far."""
        return self._took / self._estimated if self._estimated else 1.0

    @property
    def _mean_unforeseen(self) -> float:
        return self._unforeseen / self._num_unforeseen if self._num_unforeseen else 0.0

    @property
    def idle_estimate(self) -> float:
        """The seconds of what has not begun, by the plan."""
        return self._idle_seconds

    def seconds_of(self, key: str) -> float:
        """The seconds that are left of one stage: by its own epochs, else by the plan, corrected by how wrong that was so far."""
        if key in self.ended:
            return 0.0
        if is_unknown(self.nodes[key]) and not self.epochs.get(key):
            return self._mean_unforeseen
        factor = self._factor
        if not self.is_counted:
            gone = time.monotonic() - self._began[key] if key in self._began else 0.0
            return max(0.0, factor * self.nodes[key].seconds - gone)
        epochs = max(0, self.nodes[key].remaining_epochs - self.epochs.get(key, 0))
        own = self.spent[key] / self.epochs[key] if self.epochs.get(key) else factor * _per_epoch(self.nodes[key])
        return epochs * own + factor * self.nodes[key].testing


def _per_epoch(node: Node) -> float:
    return (node.seconds - node.testing) / node.remaining_epochs if node.remaining_epochs else 0.0
