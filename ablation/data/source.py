"""The interface of an image source: `Source`, the files that it finds, and the labels, splits and images read from them."""

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
DEFAULT_TEST = 0.2  # of the images, where none are given as test images
MAX_LISTED = 10  # problems or words that a message lists


@dataclass(frozen=True)
class Contents:
    """What was read from a source; the images may still be encoded."""

    images: np.ndarray | tuple[Task, ...]  # pixels_NHWC, or the tasks that decode them
    labels_N: np.ndarray
    split_N: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    names: Sequence[str]
    original_order: bool = True  # whether images have the numbers that published index lists use
    test: float = 0.0  # the fraction of the training images that becomes the test, drawn once the pixels are known


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source, found but not yet read."""

    size: int  # height and width of the decoded images
    files: tuple[tuple[str, Path], ...]  # each with a name that does not depend on where the source lies
    read: Callable[[], Contents]
    split_origin: str = ""  # how training, validation and test images were told apart, in words
    remarks: tuple[str, ...] = ()  # what was noticed on the way and may be a mistake, a sentence each
    listed: str = ""  # a digest of the labels, splits and groups that were read with the names, if any were


class Source(Technique, ABC):
    """Where images come from, which of them train, and which of those validate."""

    places: ClassVar[frozenset[str]] = frozenset({"root", "file"})  # settings that say where the source lies, not what it is
    longtail: Annotated[Any, Nested("longtail")] = "none"
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @abstractmethod
    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The source's files; relative paths start at `base`."""


def join_lines(problems: Sequence[str]) -> str:
    """The problems as lines, at most `MAX_LISTED`; unprintable characters, such as a newline in a file name, are escaped."""
    more = len(problems) - MAX_LISTED
    return "\n  ".join([*map(printable, problems[:MAX_LISTED]), *([f"... and {more:,} more"] if more > 0 else [])])


def printable(text: str) -> str:
    """The text with an escape for every character that cannot be printed, lone surrogates included."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def join_words(words: Iterable[str], total: int) -> str:
    """The words on one line, at most `MAX_LISTED` of the `total`."""
    shown = list(islice(words, MAX_LISTED))
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")


def check_label_numbers(place: str, labels: Sequence[int], num_class_names: int) -> None:
    """Raise DataError unless the training labels are all the numbers from 0 to the last named class, or to the largest label."""
    present = set(labels)
    if not present:
        raise DataError(f"{place!r} has no training images")
    num_classes = num_class_names or max(present) + 1
    out_of_range = sorted(label for label in present if not 0 <= label < num_classes)
    if out_of_range:
        raise DataError(f"{place!r} has the label {out_of_range[0]}; expected 0 to {num_classes - 1}, one of {num_classes} classes")
    if len(present) < num_classes:
        missing = join_words((str(label) for label in range(num_classes) if label not in present), num_classes - len(present))
        raise DataError(f"{place!r} has no training image with the label {missing}; expected every number from 0 to {num_classes - 1}")
