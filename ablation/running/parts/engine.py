"""What the following of parts asks of an engine, which starts them as jobs somewhere: Slurm, or any other batch system."""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from ablation.formatting import counted, ranges


class State(Enum):
    """What an engine says of the job of one part."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLED = "cancelled"  # by a user or an administrator, not to make room
    NO_MEMORY = "no memory"
    LOST = "lost"  # preempted, or with its machine: nothing of it tells whether the part is all right
    ENDED = "ended"  # by itself, at its time limit, or nobody knows how


ALIVE = (State.WAITING, State.RUNNING)


class JobState(NamedTuple):
    """A state, and the engine's word for why it is so, such as `Resources`."""

    state: State
    reason: str = ""


class Engine(Protocol):
    """Starts parts, says what became of their jobs, and ends them."""

    @property
    def about(self) -> dict[str, Any]:
        """What another process needs to make the same engine, as plain data."""

    def submit(self, parts: Sequence[int], *, alone: bool = False) -> str:
        """Start these parts, if `alone` each with one run at once; the id of the job. Raises AblateError if that is refused."""

    def states(self, jobs: Collection[str]) -> dict[tuple[str, int], JobState] | None:
        """(id, part) -> state of the parts that the engine still knows, of these jobs and perhaps others; None if it does not answer."""

    def stop(self, jobs: Collection[str]) -> None:
        """Have the parts that run end at their next epoch, and those that wait not begin."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End the jobs at once."""


def waiting_words(states: Mapping[tuple[str, int], JobState]) -> str:
    """`parts 3-8 wait in the queue (Resources)`, or "" if none does."""
    waiting = {part: state.reason for (_, part), state in states.items() if state.state is State.WAITING}
    if not waiting:
        return ""
    reasons = ", ".join(dict.fromkeys(reason for reason in waiting.values() if reason))
    verb = "waits" if len(waiting) == 1 else "wait"
    return f"{counted(len(waiting), 'part')} ({ranges(sorted(waiting))}) {verb} in the queue" + (f" ({reasons})" if reasons else "")
