"""One part as whoever follows it knows it: what is left of it, its job, and how often that was in vain."""

from dataclasses import dataclass, field

from ablation.planning.plan import Run
from ablation.running.parts.engine import ALIVE, JobState
from ablation.running.parts.log import LogReader


@dataclass
class Part:
    """A part; `left` has the runs that are not finished, by the key of their results."""

    number: int
    left: dict[str, list[Run]]
    reader: LogReader
    job: str = ""
    state: JobState | None = None  # None: the engine does not know it
    gone_since: float | None = None  # when the engine was first found not to know it, or to have ended it
    due: float | None = None  # when it is to be submitted again
    is_over: bool = False
    has_begun: bool = False  # since it was submitted last
    is_idle: bool = True  # nothing came of it since it was submitted or begun last
    is_alone: bool = False  # with one run at once, since memory did not suffice for more
    num_silent: int = 0  # jobs in a row that ended before the part began, unless they were lost
    num_idle: int = 0  # jobs in a row of which nothing came, though the part began, unless they were lost
    num_vain: int = 0  # jobs in a row of which nothing came, however they ended
    num_refused: int = 0  # times in a row that the engine did not take it
    running: set[str] = field(default_factory=set)  # stages
    reached: dict[str, int] = field(default_factory=dict)  # stage -> its last epoch in any attempt
    unseen: set[str] = field(default_factory=set)  # finished runs whose results a network disk does not show yet

    @property
    def is_alive(self) -> bool:
        """Whether its job waits or runs."""
        return self.state is not None and self.state.state in ALIVE

    @property
    def why_gone(self) -> str:
        """Why its job is gone, in a few words."""
        return self.state.reason.lower() if self.state and self.state.reason else "it is no longer in the queue"

    def reach(self, stage: str, epoch: int) -> None:
        """Take note of an epoch; one that an earlier attempt had trained and could not save is no progress."""
        before = self.reached.get(stage, -1)
        self.is_idle = self.is_idle and epoch <= before
        self.reached[stage] = max(epoch, before)

    def count(self, *, is_lost: bool) -> None:
        """Count its job, which has ended."""
        self.num_refused, self.num_vain = 0, self.num_vain + 1 if self.is_idle else 0
        self.num_silent = 0 if self.has_begun else self.num_silent + (not is_lost)
        self.num_idle = self.num_idle + (self.has_begun and not is_lost) if self.is_idle else 0
