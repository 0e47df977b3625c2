"""What a source hands over: the files found, and, once they are read, labels, splits, groups and pixels."""

# N images, H height, W width, C channels

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ablation.data.decoding import Task
from ablation.techniques.technique import Nested, Technique

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("training", "validation", "test")


@dataclass(frozen=True)
class Contents:
    """A source read: everything but the pixels that are still encoded."""

    images: np.ndarray | tuple[Task, ...]  # pixels_NHWC at once, or the tasks that decode them
    labels_N: np.ndarray
    split_N: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    names: Sequence[str]
    original_order: bool = True  # whether image numbers mean what they mean in published index lists


@dataclass(frozen=True)
class Found:
    """A source's files, found but not read."""

    size: int  # height and width of the decoded images
    files: tuple[tuple[str, Path], ...]  # a name that does not depend on where the source lies, and the place
    read: Callable[[], Contents]


class Source(Technique, ABC):
    """Where images come from, which of them train, and which of those validate."""

    longtail: Annotated[Any, Nested("longtail")] = "none"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @abstractmethod
    def __call__(self, base: Path, image_size: int) -> Found:
        """The source's files; relative paths start at `base`."""
