"""What the following of parts asks of an engine, which starts them as jobs somewhere: Slurm, or any other batch system."""

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol


class State(Enum):
    """What an engine says of the job of one part."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLED = "cancelled"  # by a user or an administrator, not to make room
    NO_MEMORY = "no memory"
    ENDED = "ended"  # also preempted, timed out, or lost with its machine


class JobState(NamedTuple):
    """A state, and the engine's word for why it is so, such as `Resources`."""

    state: State
    reason: str = ""


class Engine(Protocol):
    """Starts parts, says what became of their jobs, and ends them."""

    @property
    def about(self) -> dict[str, Any]:
        """What another process needs to make the same engine, as plain data."""

    def submit(self, parts: Sequence[int]) -> str:
        """Start these parts; the id of the job. Raises AblateError if that is refused."""

    def states(self, jobs: Collection[str]) -> dict[tuple[str, int], JobState] | None:
        """(id, part) -> state of the parts of these jobs that the engine still knows; None if it does not answer."""

    def stop(self, jobs: Collection[str]) -> None:
        """Have the parts that run end at their next epoch, and those that wait not begin."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End the jobs at once."""
