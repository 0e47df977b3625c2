"""The facts that a plan needs to identify trainings on images: data, weights, device and tail classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablation.data.account import Account
from ablation.study.config import Arm


@dataclass(frozen=True)
class Source:
    """The data of one arm and seed, as far as a plan needs them."""

    dataset: Path
    digest: str
    counts: tuple[int, ...]  # training images per class
    group_counts: tuple[int, ...]  # those by which classes are many, medium or few; see data/splits.py
    test_counts: tuple[int, ...]
    num_validation: int
    classes: tuple[str, ...]
    validation_counts: tuple[int, ...] = ()  # none without validation images
    test_set: str = ""  # equal where the test images are, in whatever size, and their labels
    clusters: Mapping[str, Any] = field(default_factory=dict)  # of images that are one patient's or the like; see data/account.py


@dataclass(frozen=True)
class PlanContext:
    """The facts about one study: looked up, or made up in a test."""

    source: Callable[[Arm, int], Source]
    account: Callable[[Arm, int], Account]
    weights: Callable[[Any], tuple[str, Path | None]]  # of a model: digest and file
    precision: Callable[[str], str]
    device_class: str
    tail: Callable[[Sequence[int], Sequence[str]], tuple[int, ...]]
    stages: Path  # the folder of trained stages
    results: Path  # the folder of computed results
    features: Path  # the folder of features that several trainings share
    remarks: Callable[[], Sequence[str]] = tuple  # what could not be looked up, in sentences
