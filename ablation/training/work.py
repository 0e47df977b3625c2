"""What one job of image classification is: a stretch of a stage that is trained, and what is tested at its end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.techniques.technique import Technique
from ablation.training.settings import Settings, Stage


@dataclass(frozen=True)
class Tracked:
    """An average that rides on the training since epoch `since`, and the splits on which its best epoch is kept."""

    id: str
    technique: Any
    since: int
    best_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestRequest:
    """One run's numbers: which weights of the stage are tested, and how."""

    __test__ = False  # it is no test of pytest's

    key: str
    content: str
    settings: Settings
    average: str  # the id of what is tested
    groups: Any
    keep_weights: bool


@dataclass(frozen=True)
class TrainingWork:
    """A stretch of one stage to be trained (unless it is), and what is to be tested at its end."""

    key: str
    stage: Stage
    seed: int
    end_epoch: int  # epochs of the stage at its end
    parent: str  # the key whose state it starts from, or ""
    parent_average: str  # the id of the average that it starts from, or "" for the weights
    parent_classifier: Technique  # the classifier of that state
    is_same_stage: bool  # whether the parent is an earlier part of the same stage
    tracked: tuple[Tracked, ...]
    keep_optimizer: bool  # whether a later stage carries on with it
    requests: tuple[TestRequest, ...]
    dataset: Path
    weights_file: Path | None
    tail: tuple[int, ...]
    stages: Path  # the folder of all stages
    results: Path  # the folder of all results
    code: str  # the identity of the code that trains and tests by the settings above
    features: Path | None  # where features of a frozen backbone lie that several trainings share, or None
    num_sharers: int  # how many trainings do


def products(tracked: tuple[Tracked, ...], *, keep_optimizer: bool) -> set[str]:
    """What a stage's file holds beside the weights."""
    names = {f"average:{average.id}" for average in tracked if average.technique.averages}
    names |= {f"best:{average.id}|{split_name}" for average in tracked for split_name in average.best_on}
    return names | ({"optimizer"} if keep_optimizer else set())
