"""What tells a class besides the content of its images: the format of their files, their size as stored, or that they are grey."""

# N images, C classes, V values

from collections.abc import Iterator

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.finding import Finding
from ablation.data.raster import FORMATS
from ablation.data.source import join_words

FEWEST_IMAGES = 10  # of a class, and of the others together, for which something is said
RARE = 5  # images: sizes that fewer have are one value, for a size of one image alone tells nothing
NEARLY_ALL = 0.95  # the share of a class that has its values, and of the images with these values that are of the class
MOST_EXAMPLES = 3  # classes in a sentence
OTHER = -1  # the value of all rare sizes


def giveaways(dataset: Dataset, used_N: np.ndarray) -> Iterator[Finding]:
    """A finding for each property that tells some class from the others."""
    seen_N, labels_N = dataset.inspections_N[used_N], dataset.labels_N[used_N]
    size_N = seen_N["width"].astype(np.int64) << 32 | seen_N["height"]
    for what, value_N in (("format of the files", seen_N["kind"]), ("size as stored", _common(size_N)), ("colour", seen_N["is_grey"])):
        values, value_of_N = np.unique(value_N, return_inverse=True)
        told = _told(value_of_N, labels_N, len(values), len(dataset.classes)) if len(values) > 1 else {}
        if told:
            named = [f"{dataset.classes[c]!r}: {_in_words(what, int(values[v]))}" for c, v in list(told.items())[:MOST_EXAMPLES]]
            is_all = len(told) == len(np.unique(labels_N))
            which = "every class" if is_all else f"{len(told)} of {len(dataset.classes)} classes"
            effect = "a network may learn it instead of the content"
            yield Finding(f"{what} tells classes", f"the {what} alone tells {which} ({join_words(named, len(told))}): {effect}")


def _common(size_N: np.ndarray) -> np.ndarray:
    """The sizes, with one value for all that are rare."""
    _, inverse_N, counts = np.unique(size_N, return_inverse=True, return_counts=True)
    return np.where(counts[inverse_N] < RARE, OTHER, size_N)


def _told(value_of_N: np.ndarray, labels_N: np.ndarray, num_values: int, num_classes: int) -> dict[int, int]:
    """The classes that have values of their own, each with the commonest of them."""
    counts_VC = np.bincount(value_of_N * num_classes + labels_N, minlength=num_values * num_classes).reshape(num_values, num_classes)
    is_own_VC = counts_VC >= NEARLY_ALL * np.maximum(1, counts_VC.sum(axis=1, keepdims=True))
    total_C, own_C = counts_VC.sum(axis=0), (counts_VC * is_own_VC).sum(axis=0)
    is_told_C = (own_C >= NEARLY_ALL * total_C) & (np.minimum(total_C, len(labels_N) - total_C) >= FEWEST_IMAGES)
    return {c: int(counts_VC[:, c].argmax()) for c in np.flatnonzero(is_told_C).tolist()}


def _in_words(what: str, value: int) -> str:
    if what == "format of the files":
        return FORMATS[value - 1] if value else "no file"
    if what == "colour":
        return "grey" if value else "coloured"
    return "rare sizes" if value == OTHER else f"{value >> 32} x {value & 0xFFFFFFFF}"
