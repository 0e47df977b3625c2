"""What an executor runs: the fields that the engine reads, and the work, into which only its task looks."""

from dataclasses import dataclass
from typing import Any

from ablation.study.task import EVERY_EPOCH, CheckpointInterval


@dataclass(frozen=True)
class Job:
    """A stretch of one stage, and the runs whose numbers are computed at its end."""

    key: str
    parent: str  # the key of the job from whose state it starts, or ""
    kind: str  # jobs of one kind are expected to be equally fast
    requests: tuple[str, ...]  # the keys of the runs whose numbers are wanted
    task: str  # the name of the kind of work
    work: Any
    checkpoint_interval: CheckpointInterval = EVERY_EPOCH
