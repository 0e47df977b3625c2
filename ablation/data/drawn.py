"""What a drawn split could not avoid: copies that are not equal on both sides, and groups that are too many to be tested."""

# N images

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.drawing import has_groups, joined_groups
from ablation.data.finding import Finding, finding_of
from ablation.data.naming import split_of
from ablation.data.source import TEST, TRAIN

NEARLY_EQUAL = 0.98  # the correlation of two images' values from which on they are one picture: those of a copy differ by its compression
MOST_OFF = 0.25  # of the share that was asked for: a drawn test that is smaller or larger by more is told
FEWEST_HELD = 3  # groups that are kept together, for which something is said


def near_copies(dataset: Dataset, parts: Mapping[str, np.ndarray], settings: Any) -> Iterator[Finding]:
    """Images of two splits that are called alike but for their endings, and look alike: one picture in two files."""
    if len({posixpath.splitext(name)[1] for name in dataset.names}) < 2:
        return
    pairs = _alike(dataset, parts)
    is_drawn = bool(dataset.drawn_test) and getattr(settings, "name", "") == "folder" and settings.group == "none"
    way = "; group: '(.+)[.]' keeps them in one split" if is_drawn else ""
    for other, name in combinations(parts, 2):
        found = pairs.get((other, name), [])
        if found:
            number = len({row for row, _ in found})
            words = f"{number:,} of the {len(parts[name]):,} {name} images {'is' if number == 1 else 'are'}"
            yield finding_of(
                f"near copies in {other} and {name}",
                f"{words} {other} images too, in another file: called alike but for the ending, and nearly equal{way}",
                dataset,
                found,
            )


def _alike(dataset: Dataset, parts: Mapping[str, np.ndarray]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """For each two splits the rows of one picture, that of the later split first.

    Images with one ending are left out: where splits are given, each numbers its own.
    """
    by_stem: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    for part, rows_N in parts.items():
        for row in rows_N.tolist():
            stem, ending = posixpath.splitext(dataset.names[row])
            by_stem[_without_split(stem)].append((part, row, ending))
    digest_N = dataset.inspections_N["digest"]
    pairs = defaultdict(list)
    for same in by_stem.values():
        for (other, first, first_ending), (part, row, ending) in combinations(same, 2):
            is_candidate = other != part and first_ending != ending and digest_N[first] != digest_N[row]
            if is_candidate and _are_nearly_equal(dataset.images_NHWC[first], dataset.images_NHWC[row]):
                pairs[other, part].append((row, first))
    return pairs


def _without_split(path: str) -> str:
    """A path without the folders that name a split: `a/0` of `train/a/0`."""
    *folders, name = path.split("/")
    return "/".join([*(folder for folder in folders if split_of(folder) is None), name])


def _are_nearly_equal(first_HWC: np.ndarray, second_HWC: np.ndarray) -> bool:
    first, second = (image_HWC.astype(np.float64).ravel() - image_HWC.mean() for image_HWC in (first_HWC, second_HWC))
    return bool(first @ second > NEARLY_EQUAL * np.sqrt((first @ first) * (second @ second)))


def drawn_share(dataset: Dataset) -> Iterator[Finding]:
    """Groups that make the drawn test much larger or smaller than was asked for, since they are never divided."""
    asked = dataset.drawn_test
    if not asked or not has_groups(dataset.group_N):
        return
    pool = int(np.isin(dataset.split_N, (TRAIN, TEST)).sum())
    tested = int((dataset.split_N == TEST).sum())
    if abs(tested / pool - asked) > MOST_OFF * asked:
        words = f"{tested:,} of {pool:,} images, {100 * tested / pool:.0f} %, are test images, and not {100 * asked:g} %"
        yield Finding("drawn share", f"{words}: groups are kept whole, and these have no other shares")


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
