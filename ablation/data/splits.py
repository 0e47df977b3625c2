"""The split of a seed: which images it trains on, validates on and tests on."""

# N images, C classes

import hashlib
import json
from dataclasses import dataclass
from typing import cast

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.drawing import joined_groups, stratified
from ablation.data.source import TEST, TRAIN, VALIDATION, Source
from ablation.errors import ConfigError, DataError
from ablation.system.randomness import numpy_generator
from ablation.techniques.longtail import RANKS, LongTail
from ablation.techniques.technique import Technique


@dataclass(frozen=True)
class Split:
    """Indices into a dataset, each sorted; `counts_C` are the training images per class.

    `group_counts_C` are those by which classes are many, medium or few: of the long tail, before validation images are drawn from it, so
    that an arm with some has the groups of the others.
    """

    train_N: np.ndarray
    validation_N: np.ndarray
    test_N: np.ndarray
    counts_C: np.ndarray
    group_counts_C: np.ndarray
    digest: str


def split(dataset: Dataset, source: Technique, seed: int) -> Split:
    """The seed's training images, validation images and test images.

    The long tail is cut first, so that counts follow the profile in the study's file. The validation split is then taken from the
    rest, stratified by class and with groups kept together, and `counts_C` counts what remains for training.
    """
    settings = cast(Source, source)
    kept_N = _keep_long_tail(dataset, settings.longtail, seed)
    train_N, validation_N = _split_validation(dataset, kept_N, settings.validation, seed)
    test_N = np.flatnonzero(dataset.split_N == TEST)
    if len(test_N) == 0:
        raise DataError("the test split has no images")
    counts_C = _class_counts(dataset, train_N)
    _check_no_empty_class(dataset, counts_C, "no training images are left once the validation part is taken")
    digest = _digest(dataset.digest, train_N, validation_N, test_N)
    return Split(train_N, validation_N, test_N, counts_C, _class_counts(dataset, kept_N), digest)


def test_set_of(dataset: Dataset, parts: Split) -> str:
    """32 hex digits that are equal where the test images are, as they are stored, and their labels; the size asked for does not count."""
    sha256 = hashlib.sha256(dataset.inspections_N["content"][parts.test_N].tobytes())
    sha256.update(json.dumps([dataset.classes[label] for label in dataset.labels_N[parts.test_N]]).encode())
    return sha256.hexdigest()[:32]


def _keep_long_tail(dataset: Dataset, longtail: LongTail, seed: int) -> np.ndarray:
    """The training images that the long tail keeps, sorted."""
    pool_N = np.flatnonzero(dataset.split_N == TRAIN)
    available_C = _class_counts(dataset, pool_N)
    _check_no_empty_class(dataset, available_C, "it has no training images")
    counts_C = longtail(available_C)
    _check_long_tail(dataset, available_C, counts_C, longtail)
    ranks = RANKS[longtail.indices](available_C, counts_C, seed)
    by_class_N = pool_N[np.argsort(dataset.labels_N[pool_N], kind="stable")]
    members = np.split(by_class_N, np.cumsum(available_C)[:-1])
    return np.sort(np.concatenate([members[c][ranks[c]] for c in range(len(members))]))


def _check_long_tail(dataset: Dataset, available_C: np.ndarray, counts_C: np.ndarray, longtail: LongTail) -> None:
    if longtail.indices == "historical" and not dataset.original_order:
        raise ConfigError(
            "data.longtail.indices",
            "found 'historical', which needs the images in their original order, and these files keep another; "
            "expected 'seeded', or CIFAR's python batches",
        )
    for c in np.flatnonzero(counts_C > available_C)[:1]:
        raise DataError(
            f"class {dataset.classes[c]!r} has {available_C[c]} training images; expected at least {counts_C[c]}, "
            f"which is what the long tail asks for"
        )
    _check_no_empty_class(dataset, counts_C, "the long tail leaves it none")


def _split_validation(dataset: Dataset, pool_N: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images; the latter are the source's own, or `fraction` of the training images."""
    validation_N = np.flatnonzero(dataset.split_N == VALIDATION)
    if fraction == 0:
        return pool_N, validation_N
    if len(validation_N):
        raise ConfigError(
            "data.validation", f"found {fraction}, but the source has {len(validation_N)} validation images of its own; expected 0"
        )
    group_N = joined_groups(dataset.group_N, dataset.inspections_N)[pool_N]
    taken_N = stratified(dataset.labels_N[pool_N], group_N, fraction, numpy_generator(seed, "split"))
    if not taken_N.any():
        raise DataError(f"the validation split has no images: {fraction} of {len(pool_N)} training images, groups kept together")
    return pool_N[~taken_N], pool_N[taken_N]


def _class_counts(dataset: Dataset, indices_N: np.ndarray) -> np.ndarray:
    return np.bincount(dataset.labels_N[indices_N], minlength=len(dataset.classes)).astype(np.int64)


def _check_no_empty_class(dataset: Dataset, counts_C: np.ndarray, reason: str) -> None:
    empty = [repr(dataset.classes[c]) for c in np.flatnonzero(counts_C == 0)]
    if empty:
        raise DataError(f"class {', '.join(empty)} is empty: {reason}")


def _digest(dataset_digest: str, *parts: np.ndarray) -> str:
    sha256 = hashlib.sha256(dataset_digest.encode())
    for part_N in parts:
        sha256.update(f"/{len(part_N)}/".encode())
        sha256.update(part_N.astype("<i8").tobytes())
    return sha256.hexdigest()[:16]
