import numpy as np
import pytest

from ablation.data import Dataset, split
from ablation.data.splits import stratified
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make


def dataset(train, test=(5, 5, 5), validation=(), groups=None, digest="d", original_order=True):
    """A dataset of the given images per class in each part, its numbers shuffled."""
    labels, parts = [], []
    for part, counts in enumerate((train, validation, test)):
        for c, count in enumerate(counts):
            labels += [c] * count
            parts += [part] * count
    order = np.random.default_rng(0).permutation(len(labels))
    return Dataset(
        images_NHWC=np.zeros((len(labels), 1, 1, 3), dtype=np.uint8),
        labels_N=np.array(labels)[order],
        split_N=np.array(parts, dtype=np.int8)[order],
        group_N=np.arange(len(labels)) if groups is None else groups(np.arange(len(labels))),
        classes=tuple("abcdefghij"[: len(train)]),
        digest=digest,
        names=[str(i) for i in range(len(labels))],
        original_order=original_order,
    )


def source(**settings):
    return make("data", {"name": "digits", **settings})


LINEAR = {"name": "linear", "largest": 60, "smallest": 20}


def test_the_tail_is_cut_before_the_validation_part_is_taken():
    """Counts follow the named profile first; the validation part is the fraction of each class of it."""
    data = dataset([100, 100, 100])
    parts = split(data, source(longtail=LINEAR, validation=0.25), 0)
    assert parts.counts_C.tolist() == [45, 30, 15]
    assert np.bincount(data.labels_N[parts.validation_N]).tolist() == [15, 10, 5]
    assert np.bincount(data.labels_N[parts.train_N]).tolist() == parts.counts_C.tolist()


def test_the_parts_are_sorted_disjoint_and_from_their_pools():
    """Validation images come from the training images, test images are all the source's own."""
    data = dataset([100, 100, 100])
    parts = split(data, source(longtail=LINEAR, validation=0.25), 0)
    for indices_N in (parts.train_N, parts.validation_N, parts.test_N):
        assert (np.diff(indices_N) > 0).all()
    assert not set(parts.train_N.tolist()) & set(parts.validation_N.tolist())
    assert (data.split_N[parts.train_N] == 0).all()
    assert (data.split_N[parts.validation_N] == 0).all()
    assert parts.test_N.tolist() == np.flatnonzero(data.split_N == 2).tolist()


def test_without_settings_everything_trains():
    """The source's own validation images stay what they are."""
    data = dataset([4, 5, 6], validation=[1, 1, 1])
    parts = split(data, source(), 0)
    assert parts.counts_C.tolist() == [4, 5, 6]
    assert (data.split_N[parts.validation_N] == 1).all()
    assert len(parts.validation_N) == 3


def test_a_seed_has_one_split_and_seeds_differ():
    """The same arguments give the same images; another seed other training images and the same test."""
    data = dataset([100, 100, 100])
    first, again, other = (split(data, source(longtail=LINEAR, validation=0.1), seed) for seed in (0, 0, 1))
    assert first.train_N.tolist() == again.train_N.tolist()
    assert first.digest == again.digest
    assert first.train_N.tolist() != other.train_N.tolist()
    assert first.validation_N.tolist() != other.validation_N.tolist()
    assert first.test_N.tolist() == other.test_N.tolist()
    assert first.digest != other.digest


def test_the_digest_follows_the_data_and_the_parts():
    """Other pixels, or a validation part, is another digest."""
    digests = {
        split(dataset([9, 9, 9], digest=digest), source(validation=fraction), 0).digest for digest in "de" for fraction in (0.0, 0.3)
    }
    assert len(digests) == 4
    assert all(len(digest) == 16 for digest in digests)


def test_historical_indices_are_the_same_for_all_seeds_and_those_of_the_published_code():
    """Within each class, in the source's order, the ranks are LDAM-DRW's."""
    data = dataset([50, 50, 50])
    tail = {"name": "exponential", "imbalance": 10, "indices": "historical"}
    first, other = (split(data, source(longtail=tail), seed) for seed in (0, 1))
    assert first.train_N.tolist() == other.train_N.tolist()
    legacy, expected = np.random.RandomState(0), []
    for c, count in enumerate([50, int(50 * 0.1**0.5), 5]):
        members = np.flatnonzero((data.labels_N == c) & (data.split_N == 0))
        legacy.shuffle(members)
        expected += members[:count].tolist()
    assert first.train_N.tolist() == sorted(expected)
    assert first.train_N.tolist() != split(data, source(longtail={**tail, "indices": "seeded"}), 0).train_N.tolist()


def test_historical_indices_need_the_original_order():
    """Files in another order are refused, with the reason."""
    tail = {"name": "exponential", "imbalance": 10, "indices": "historical"}
    with pytest.raises(ConfigError, match="needs the images in their original order") as told:
        split(dataset([50, 50, 50], original_order=False), source(longtail=tail), 0)
    assert told.value.path == "data.longtail.indices"


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (dataset([5, 0, 5]), {}, "class 'b' is empty: it has no training images"),
        (dataset([5, 0, 0]), {}, "class 'b', 'c' is empty"),
        (dataset([100, 39, 100]), {"longtail": LINEAR}, "class 'b' has 39 training images; expected at least 40"),
        (
            dataset([9, 9, 9]),
            {"longtail": {"name": "exponential", "imbalance": 100}},
            "class 'b', 'c' is empty: the long tail leaves it none",
        ),
        (dataset([5, 5, 5], test=()), {}, "the test split has no images"),
        (dataset([1, 1, 1]), {"validation": 0.5}, "the validation split has no images: 0.5 of 3 training images"),
        (dataset([9, 9, 9], groups=lambda i: i * 0), {"validation": 0.1}, "the validation split has no images"),
    ],
)
def test_data_that_cannot_be_split_are_told(data, settings, words):
    """The message names the class, what was found and what was expected."""
    with pytest.raises(DataError) as told:
        split(data, source(**settings), 0)
    assert words in str(told.value)


def test_two_validation_parts_are_one_too_many():
    """A fraction contradicts validation images that the source names itself."""
    with pytest.raises(ConfigError, match=r"found 0\.2, but the source has 3 validation images of its own; expected 0") as told:
        split(dataset([5, 5, 5], validation=[1, 1, 1]), source(validation=0.2), 0)
    assert told.value.path == "data.validation"


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.15, 1 / 3, 0.5, 0.9])
def test_single_images_are_stratified_exactly(fraction):
    """Each class gives the rounded fraction, at least one and never its last image."""
    counts = [200, 50, 10, 3, 2, 1]
    labels_N = np.repeat(np.arange(6), counts)
    taken_N = stratified(labels_N, np.arange(len(labels_N)), fraction, np.random.default_rng(0))
    expected = [min(max(1, int(fraction * n + 0.5)), n - 1) for n in counts]
    assert np.bincount(labels_N[taken_N], minlength=6).tolist() == expected


def mixed_groups(seed):
    """Eighty groups of 1 to 11 images, most of one class and some of the next."""
    generator = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(80), generator.integers(1, 12, 80))
    return (group_N + (generator.random(len(group_N)) < 0.2)) % 4, group_N


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_taken_whole_and_near_the_fraction(seed):
    """Groups of several sizes over several classes stay whole, and no class strays far from its fraction."""
    labels_N, group_N = mixed_groups(seed)
    taken_N = stratified(labels_N, group_N, 0.2, np.random.default_rng(seed))
    assert not set(group_N[taken_N].tolist()) & set(group_N[~taken_N].tolist())
    shares = np.bincount(labels_N[taken_N], minlength=4) / np.bincount(labels_N)
    assert (np.abs(shares - 0.2) < 0.1).all()
    assert abs(taken_N.mean() - 0.2) < 0.05


def test_large_groups_are_not_preferred():
    """The groups taken have about the size of all groups; patients with many images do not all become the test."""
    difference = []
    for seed in range(100):
        labels_N, group_N = mixed_groups(seed)
        sizes = np.bincount(group_N)
        difference.append(sizes[np.unique(group_N[stratified(labels_N, group_N, 0.2, np.random.default_rng(seed))])].mean() - sizes.mean())
    assert abs(np.mean(difference)) < 0.6


def test_every_image_is_equally_likely_to_be_taken():
    """Over many draws no place in the order is preferred."""
    labels_N, taken = np.repeat([0, 1], 20), np.zeros(40)
    for seed in range(400):
        taken += stratified(labels_N, np.arange(40), 0.25, np.random.default_rng(seed))
    # 400 draws at 1/4: standard deviation 0.022, so four of them on either side
    assert np.abs(taken / 400 - 0.25).max() < 0.09
