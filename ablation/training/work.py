"""The work of one job of image classification: some epochs of a stage to train, and the tests at their end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ablation.techniques.technique import Nested
from ablation.training.settings import Settings, Stage

WEIGHTS = "model.safetensors"  # the file of a result with the weights that were tested, if they are kept


@dataclass(frozen=True)
class TrackedAverage:
    """An average of the weights that is updated since epoch `since`, and the splits by whose balanced accuracy its best epoch is kept."""

    id: str
    technique: Annotated[Any, Nested("averages")]
    since: int
    best_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestRequest:
    """The test of one run: which weights of the stage are tested, and how."""

    __test__ = False  # pytest must not collect it

    key: str
    content: str
    settings: Settings
    average: str  # the id of the tested average, or `none`
    groups: Any
    keep_weights: bool


@dataclass(frozen=True)
class TrainingWork:
    """Some epochs of one stage to train, unless that is done, and the tests at their end."""

    key: str
    stage: Stage
    seed: int
    end_epoch: int  # where it ends, counted from the beginning of the stage
    parent: str  # the key whose state it starts from, or ""
    parent_average: str  # the id of the average that it starts from, or "" for the weights
    parent_classifier: Annotated[Any, Nested("classifiers")]  # the classifier in that state
    is_same_stage: bool  # whether the parent is an earlier part of the same stage
    tracked: tuple[TrackedAverage, ...]
    keep_optimizer: bool  # whether a later stage continues with its state
    requests: tuple[TestRequest, ...]
    dataset: Path
    weights_file: Path | None
    weights_digest: str  # of that file when the study was planned, or ""
    tail: tuple[int, ...]
    stages: Path  # the folder of all stages
    results: Path  # the folder of all results
    code: str  # identifies the code that trains and tests with these settings
    features: Path | None  # the folder of features of a frozen backbone that several trainings share, or None
    num_sharers: int  # how many trainings share them


def products(tracked: tuple[TrackedAverage, ...], *, keep_optimizer: bool) -> set[str]:
    """What a stage's file holds besides the weights."""
    names = {f"average:{average.id}" for average in tracked if average.technique.averages}
    names |= {f"best:{average.id}|{split_name}" for average in tracked for split_name in average.best_on}
    return names | ({"optimizer"} if keep_optimizer else set())
