"""A finding: a sentence about images, a few of which it names, and all of them for scripts."""

# N images

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.source import join_words, printable

MOST_EXAMPLES = 3  # in a sentence


@dataclass(frozen=True)
class Finding:
    """Something that may make a result worth less: its kind, a sentence, and the images concerned, each with those equal to it."""

    kind: str
    sentence: str
    images: tuple[tuple[str, ...], ...] = ()


def some(kind: str, is_such_N: np.ndarray, used_N: np.ndarray, dataset: Dataset, words: str) -> Finding:
    """A finding about single images: `3 of 24 images are ...`."""
    number = int(is_such_N.sum())
    sentence = f"{number:,} of {len(used_N):,} images {'is' if number == 1 else 'are'} {words}"
    return finding_of(kind, sentence, dataset, [(row,) for row in used_N[is_such_N].tolist()])


def finding_of(kind: str, sentence: str, dataset: Dataset, groups: Sequence[tuple[int, ...]]) -> Finding:
    """A finding with the names of its images, the first of which are in the sentence."""
    images = tuple(tuple(dataset.names[int(row)] for row in rows) for rows in groups)
    examples = [" = ".join(printable(name) for name in names[:MOST_EXAMPLES]) for names in images[:MOST_EXAMPLES]]
    return Finding(kind, f"{sentence} ({join_words(examples, len(images))})", images)
