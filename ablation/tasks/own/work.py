"""What a worker needs for one run of one's own training code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.tasks.own.definition import Definition


@dataclass(frozen=True)
class OwnRequest:
    """The results of one run: their identity, and the identity without code, versions and device."""

    key: str
    content: str


@dataclass(frozen=True)
class OwnWork:
    """One run: the code as the file declares it, and the settings and the seed that it is called with."""

    key: str  # of the job
    request: OwnRequest
    seed: int
    settings: Mapping[str, Any]  # resolved, as plain data
    definition: Definition
    stages: Path  # holds a folder for each job, named by its key: its checkpoints
    results: Path  # holds a folder for each computed run, named by its key
    code: str  # the identity of the code as it was planned, `keys.code_of(definition)`
    packages: Mapping[str, str]  # the versions that it was planned with, `keys.packages(definition)`
    data: str  # the identity of the declared data
    empty_store: Path | None = None  # an empty MLflow database; a copy is what the code logs into
    hold_after: int = 0  # a function that has logged so many steps waits a while to be stopped; 0: it never waits
