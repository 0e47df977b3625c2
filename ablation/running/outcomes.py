"""What became of the runs: who finished, who failed and why, and who is left; a choice among arms follows from its arms."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ablation.planning.plan import Node, Plan, Run


class Record(Protocol):
    """What is told of the runs."""

    def live(self, node: Node, history: list[Mapping[str, Any]]) -> None:
        """A training's epochs so far."""

    def finished(self, run: Run) -> None:
        """A run's results are there."""

    def failed(self, run: Run, kind: str, reason: str, log: str) -> None:
        """A run cannot go on."""


class Failure(NamedTuple):
    """A run that cannot go on: why in one word, and in a sentence."""

    run: Run
    kind: str
    reason: str


@dataclass
class Outcome:
    """What became of the runs: those that finished, those that failed, and those that were not begun or not ended."""

    finished: list[Run] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    left: list[Run] = field(default_factory=list)
    why: str = ""  # why nothing more was begun, where neither the user nor a budget ended it
    is_given_up: bool = False  # whether some are left since to go on was in vain


class Outcomes:
    """Takes what is known of runs, tells the record of it, and ends the arms that choose among others once these have ended."""

    def __init__(self, plan: Plan, record: Record, view: Callable[[dict[str, Any]], None]) -> None:
        self.record, self.view = record, view
        self.why = ""  # why nothing more is begun, where neither the user nor a budget ended it
        self.is_given_up = False  # whether to go on was in vain
        self._finished: list[Run] = []
        self._failed: list[Failure] = []
        self._left = {(run.arm, run.seed): run for run in plan.waiting}
        self._choosing = [run for run in plan.waiting if run.choice]
        self._available = {(run.arm, run.seed) for run in plan.runs if run.state in ("done", "evaluated")}

    @property
    def outcome(self) -> Outcome:
        """What became of the runs so far."""
        return Outcome(list(self._finished), list(self._failed), list(self._left.values()), self.why, self.is_given_up)

    @property
    def left(self) -> list[Run]:
        """The runs that have neither finished nor failed."""
        return list(self._left.values())

    def finish(self, run: Run) -> None:
        """Take note that a run's results are there."""
        if self._left.pop((run.arm, run.seed), None) is None:
            return
        self._finished.append(run)
        self.record.finished(run)
        self.view({"kind": "finished", "arm": run.arm, "seed": run.seed})
        self._available.add((run.arm, run.seed))
        for other in self._choosing:
            if other.choice and other.seed == run.seed and all((name, run.seed) in self._available for name in other.choice.among):
                self.finish(other)

    def fail(self, failed: Iterable[Run], event: Mapping[str, Any]) -> None:
        """Give up these runs, and those that choose among them; the event has the `failure`, the `message` and the `log`."""
        failed = [run for run in failed if (run.arm, run.seed) in self._left]
        for run in failed:
            self._give_up(run, event["failure"], event["message"], event["log"])
        for run in [run for run in self._choosing if (run.arm, run.seed) in self._left]:
            lacking = [point.arm for point in failed if point.seed == run.seed and run.choice and point.arm in run.choice.among]
            if lacking:
                self._give_up(run, event["failure"], f"{lacking[0]}, among which it chooses, failed: {event['message']}", "")

    def _give_up(self, run: Run, kind: str, reason: str, log: str) -> None:
        del self._left[run.arm, run.seed]
        self._failed.append(Failure(run, kind, reason))
        self.record.failed(run, kind, reason, log)
        self.view({"kind": "given up", "arm": run.arm, "seed": run.seed, "failure": kind, "message": reason})
