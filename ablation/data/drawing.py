"""Drawing a part of the images at random: stratified by class, with groups and equal images kept together."""

# N images, C classes

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from ablation.data.source import TEST, TRAIN, VALIDATION
from ablation.errors import DataError
from ablation.system.randomness import numpy_generator

Counts: TypeAlias = list[tuple[int, int]]  # the images of a group: (class, number) pairs
Group: TypeAlias = tuple[int, Counts]


def take_test(labels_N: np.ndarray, split_N: np.ndarray, group_N: np.ndarray, fraction: float) -> np.ndarray:
    """The splits after a stratified fraction of the training images became test images, the same for every seed.

    Groups that hold validation images too, which are copies of theirs, are not drawn from.
    """
    train_N = np.flatnonzero(split_N == TRAIN)
    copied_N = np.unique(group_N[split_N == VALIDATION])
    taken_N = stratified(labels_N[train_N], group_N[train_N], fraction, numpy_generator(0, "test"), copied_N)
    if not taken_N.any():
        kept = ", groups and equal images kept together" + (", copies of validation images left out" if len(copied_N) else "")
        problem = f"the test split has no images: {100 * fraction:g} % of {len(train_N):,} images{kept}"
        raise DataError(f"{problem}; expected more images, smaller groups, or a larger test")
    with_test_N = split_N.copy()
    with_test_N[train_N[taken_N]] = TEST
    return with_test_N


def has_groups(group_N: np.ndarray) -> bool:
    """Whether any two images are of one group."""
    return int(np.bincount(group_N).max()) > 1


def joined_groups(group_N: np.ndarray, inspections_N: np.ndarray) -> np.ndarray:
    """The groups, joined where they hold the same picture, so that a draw puts equal pixels on one side only.

    A joined group has the smallest of its numbers. Blank images (of one colour) join nothing: they may be in every group.
    """
    digests, picture_N, counts = np.unique(inspections_N["digest"], return_inverse=True, return_counts=True)
    joins_N = (counts[picture_N] > 1) & ~inspections_N["is_blank"]
    if not joins_N.any():
        return group_N
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    num_groups = int(group_N.max()) + 1
    edges = (np.ones(joins_N.sum(), dtype=bool), (group_N[joins_N], num_groups + picture_N[joins_N]))
    num_nodes = num_groups + len(digests)
    component_of_node = connected_components(coo_matrix(edges, shape=(num_nodes, num_nodes)), directed=False)[1]
    smallest = np.full(num_nodes, num_nodes)
    np.minimum.at(smallest, component_of_node[:num_groups], np.arange(num_groups))
    joined_N: np.ndarray = smallest[component_of_node[group_N]]
    return joined_N


def stratified(
    labels_N: np.ndarray, group_N: np.ndarray, fraction: float, generator: np.random.Generator, barred: Sequence[int] | np.ndarray = ()
) -> np.ndarray:
    """A mask of about `fraction` of each class, whole groups only.

    The target of each class is the rounded fraction, at least one image. Groups come in random order, so that large ones are not
    preferred. A group is taken if it brings the classes closer to their targets (squared relative distance); without groups every
    target is met exactly. If that takes nothing at all, each class gets the group that comes nearest. The last images of a class, and
    groups that are `barred`, are never taken.
    """
    kept_out = set(np.asarray(barred).tolist())
    groups = [(group, counts) for group, counts in _shuffled_groups(labels_N, group_N, generator) if group not in kept_out]
    chosen = _chosen(labels_N, groups, fraction, nearest=False) or _chosen(labels_N, groups, fraction, nearest=True)
    return np.isin(group_N, chosen)


def _chosen(labels_N: np.ndarray, groups: Sequence[Group], fraction: float, *, nearest: bool) -> list[int]:
    """The groups that are taken; with `nearest`, for each class without images the one that brings it nearest to its target."""
    total_C = np.bincount(labels_N)
    targets = np.maximum(1, np.floor(fraction * total_C + 0.5)).tolist()
    remaining = total_C.tolist()
    taken = [0] * len(targets)
    chosen: list[int] = []

    def gain(counts: Counts) -> float:
        return float(sum(((taken[c] - targets[c]) ** 2 - (taken[c] + n - targets[c]) ** 2) / targets[c] ** 2 for c, n in counts))

    def can_take(counts: Counts) -> bool:
        return all(remaining[c] > n for c, n in counts)

    def take(group: int, counts: Counts) -> None:
        chosen.append(group)
        for c, n in counts:
            taken[c] += n
            remaining[c] -= n

    for group, counts in [] if nearest else groups:
        if gain(counts) > 0 and can_take(counts):
            take(group, counts)
    for c in range(len(targets)) if nearest else ():
        candidates = [(group, counts) for group, counts in groups if c in dict(counts) and can_take(counts)]
        if not taken[c] and candidates:
            take(*max(candidates, key=lambda candidate: gain(candidate[1])))
    return chosen


def _shuffled_groups(labels_N: np.ndarray, group_N: np.ndarray, generator: np.random.Generator) -> Iterator[Group]:
    """Each group with its (class, images) pairs, in random order."""
    groups, inverse_N = np.unique(group_N, return_inverse=True)
    pairs, counts = np.unique(np.stack([inverse_N, labels_N], axis=1), axis=0, return_counts=True)
    starts = np.searchsorted(pairs[:, 0], np.arange(len(groups) + 1)).tolist()
    classes, pair_counts, ids = pairs[:, 1].tolist(), counts.tolist(), groups.tolist()
    for g in generator.permutation(len(groups)).tolist():
        span = slice(starts[g], starts[g + 1])
        yield ids[g], list(zip(classes[span], pair_counts[span], strict=True))
