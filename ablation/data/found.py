"""What a source hands over: the files found, and, once they are read, labels, splits, groups and pixels."""

# N images, H height, W width, C channels

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ablation.data.decoding import Task
from ablation.errors import DataError
from ablation.techniques.technique import Nested, Technique

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = ("training", "validation", "test")
MOST_TOLD = 10  # lines of an error


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

    places: ClassVar[frozenset[str]] = frozenset({"root", "file"})  # settings that say where the source lies, not what it is
    longtail: Annotated[Any, Nested("longtail")] = "none"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @abstractmethod
    def __call__(self, base: Path, image_size: int) -> Found:
        """The source's files; relative paths start at `base`."""


def few(problems: Sequence[str]) -> str:
    """The problems as lines, cut after a few; what cannot be printed, such as a newline in a file's name, is written as an escape."""
    more = len(problems) - MOST_TOLD
    return "\n  ".join([*map(printable, problems[:MOST_TOLD]), *([f"... and {more:,} more"] if more > 0 else [])])


def printable(text: str) -> str:
    """The text with an escape for every character that cannot be printed or is half of one."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def few_words(words: Iterable[str], total: int) -> str:
    """The words on one line, cut after a few of the `total`."""
    shown = list(islice(words, MOST_TOLD))
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")


def label_numbers_without_gaps(place: str, labels: Sequence[int], num_named: int) -> None:
    """Raises DataError where training labels, which are numbers, are not 0, 1, 2, ... up to the last named class or the largest label."""
    present = set(labels)
    if not present:
        raise DataError(f"{place!r} has no training images")
    num_classes = num_named or max(present) + 1
    foreign = sorted(label for label in present if not 0 <= label < num_classes)
    if foreign:
        raise DataError(f"{place!r} has the label {foreign[0]}; expected 0 to {num_classes - 1}, one of {num_classes} classes")
    if len(present) < num_classes:
        missing = few_words((str(label) for label in range(num_classes) if label not in present), num_classes - len(present))
        raise DataError(f"{place!r} has no training image with the label {missing}; expected every number from 0 to {num_classes - 1}")
