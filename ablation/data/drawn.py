"""What a drawn split could not avoid: copies that are not equal on both sides, and groups that are too many to be tested."""

# N images

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.drawing import has_groups, joined_groups
from ablation.data.finding import Finding, finding_of
from ablation.data.source import TEST, TRAIN

NEARLY_EQUAL = 0.98  # the correlation of two images' values from which on they are one picture: those of a copy differ by its compression
FEWEST_HELD = 3  # groups that are kept together, for which something is said


def near_copies(dataset: Dataset, parts: Mapping[str, np.ndarray], settings: Any) -> Iterator[Finding]:
    """Images of two splits that are called alike but for their endings, and look alike: one picture in two formats."""
    kind_N = dataset.inspections_N["kind"]
    if not kind_N.any() or kind_N.min() == kind_N.max():
        return
    pairs = _alike(dataset, parts)
    way = "; group: '(.+)[.]' keeps them in one split" if getattr(settings, "name", "") == "folder" and settings.group == "none" else ""
    for other, name in combinations(parts, 2):
        found = pairs.get((other, name), [])
        if found:
            number = len({row for row, _ in found})
            words = f"{number:,} of the {len(parts[name]):,} {name} images {'is' if number == 1 else 'are'}"
            yield finding_of(
                f"near copies in {other} and {name}",
                f"{words} {other} images too, in another format: called alike but for the ending, and nearly equal{way}",
                dataset,
                found,
            )


def _alike(dataset: Dataset, parts: Mapping[str, np.ndarray]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """For each two splits the rows of one picture, that of the later split first."""
    by_stem: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for part, rows_N in parts.items():
        for row in rows_N.tolist():
            by_stem[os.path.splitext(dataset.names[row])[0]].append((part, row))
    kind_N, digest_N = dataset.inspections_N["kind"], dataset.inspections_N["digest"]
    pairs = defaultdict(list)
    for same in by_stem.values():
        for (other, first), (part, row) in combinations(same, 2):
            is_copy = other != part and kind_N[first] != kind_N[row] and digest_N[first] != digest_N[row]
            if is_copy and _are_nearly_equal(dataset.images_NHWC[first], dataset.images_NHWC[row]):
                pairs[other, part].append((row, first))
    return pairs


def _are_nearly_equal(first_HWC: np.ndarray, second_HWC: np.ndarray) -> bool:
    first, second = (image_HWC.astype(np.float64).ravel() - image_HWC.mean() for image_HWC in (first_HWC, second_HWC))
    return bool(first @ second > NEARLY_EQUAL * np.sqrt((first @ first) * (second @ second)))


def held_groups(dataset: Dataset) -> Iterator[Finding]:
    """Groups that share pictures, as with one that stands for `no image`, and are together too large for the drawn test."""
    if not dataset.drawn_test or not has_groups(dataset.group_N):
        return
    joined_N = joined_groups(dataset.group_N, dataset.inspections_N)
    pool_N = np.isin(dataset.split_N, (TRAIN, TEST))
    groups, firsts = np.unique(dataset.group_N, return_index=True)
    components, counts = np.unique(joined_N[firsts], return_counts=True)
    for component in components[counts >= FEWEST_HELD].tolist():
        is_held_N = joined_N == component
        is_tested = bool((dataset.split_N[is_held_N] == TEST).any())
        if is_tested or (is_held_N & pool_N).sum() <= dataset.drawn_test * pool_N.sum():
            continue
        rows = _most_shared(dataset, np.flatnonzero(is_held_N))
        number = int(counts[components == component][0])
        words = f"{number:,} of {len(groups):,} groups are kept together since they share pictures, and none of them is tested"
        yield finding_of("groups held together", f"{words}: leave out the one that most of them have if it shows nothing", dataset, [rows])


def _most_shared(dataset: Dataset, rows_N: np.ndarray) -> tuple[int, ...]:
    """The rows of the picture that is in most groups, the first of each group."""
    rows_of: dict[bytes, dict[int, int]] = defaultdict(dict)
    for row in rows_N[~dataset.inspections_N["is_blank"][rows_N]].tolist():
        rows_of[dataset.inspections_N["digest"][row].tobytes()].setdefault(int(dataset.group_N[row]), row)
    return tuple(max(rows_of.values(), key=len).values())
