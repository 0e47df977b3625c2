import numpy as np
import pytest

from ablation.data import Dataset, split
from ablation.data.drawing import stratified
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import distinct_images


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
        inspections_N=distinct_images(len(labels)),
        labels_N=np.array(labels)[order],
        split_N=np.array(parts, dtype=np.int8)[order],
        group_N=np.arange(len(labels)) if groups is None else groups(np.arange(len(labels))),
        classes=tuple("abcdefghij"[: len(train)]) if len(train) <= 10 else tuple(map(str, range(len(train)))),
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
    with pytest.raises(ConfigError, match="needs the images in their original order") as error:
        split(dataset([50, 50, 50], original_order=False), source(longtail=tail), 0)
    assert error.value.path == "data.longtail.indices"


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
    with pytest.raises(DataError) as error:
        split(data, source(**settings), 0)
    assert words in str(error.value)


def test_two_validation_parts_are_one_too_many():
    """A fraction contradicts validation images that the source names itself."""
    with pytest.raises(ConfigError, match=r"found 0\.2, but the source has 3 validation images of its own; expected 0") as error:
        split(dataset([5, 5, 5], validation=[1, 1, 1]), source(validation=0.2), 0)
    assert error.value.path == "data.validation"


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


def cifar_labels(num_classes):
    """A training set as large as CIFAR's, its classes mixed, and a test set of one image a class."""
    labels_N = np.random.default_rng(1).permutation(np.repeat(np.arange(num_classes), 50_000 // num_classes))
    return Dataset(
        images_NHWC=np.zeros((1, 1, 1, 3), dtype=np.uint8),
        inspections_N=distinct_images(50_000 + num_classes),
        labels_N=np.concatenate([labels_N, np.arange(num_classes)]),
        split_N=np.concatenate([np.zeros(50_000, dtype=np.int8), np.full(num_classes, 2, dtype=np.int8)]),
        group_N=np.arange(50_000 + num_classes),
        classes=tuple(map(str, range(num_classes))),
        digest="d",
        names=(),
    )


def published_tail(labels, num_classes, factor):
    """LDAM-DRW's `gen_imbalanced_data`, written from its description: the indices kept, by the global generator that it uses."""
    counts = [int(len(labels) / num_classes * factor ** (i / (num_classes - 1.0))) for i in range(num_classes)]
    state = np.random.get_state()
    try:
        np.random.seed(0)
        kept = []
        for c, count in enumerate(counts):
            indices = np.where(np.array(labels) == c)[0]
            np.random.shuffle(indices)
            kept += indices[:count].tolist()
    finally:
        np.random.set_state(state)
    return kept


@pytest.mark.parametrize(
    ("num_classes", "imbalance", "total", "last"),
    [
        (10, 10, 20431, 500),
        (10, 50, 13996, 100),
        (10, 100, 12406, 50),
        (100, 10, 19573, 50),
        (100, 50, 12608, 10),
        (100, 100, 10847, 5),
        (100, 200, 9502, 2),
    ],
)
def test_the_fields_long_tails_of_cifar_are_cut_exactly(num_classes, imbalance, total, last):
    """CIFAR-10-LT and CIFAR-100-LT have the published totals, and their images are those of the published code, for every seed."""
    data = cifar_labels(num_classes)
    tail = {"name": "exponential", "imbalance": imbalance, "indices": "historical"}
    first, other = (split(data, source(longtail=tail), seed) for seed in (0, 3))
    assert (len(first.train_N), int(first.counts_C[-1]), int(first.counts_C[0])) == (total, last, 50_000 // num_classes)
    assert first.train_N.tolist() == other.train_N.tolist()
    assert first.train_N.tolist() == sorted(published_tail(data.labels_N[:50_000].tolist(), num_classes, 1 / imbalance))


def test_the_seed_0_indices_of_cifar10_lt_are_the_published_ones():
    """The within-class ranks of the images kept, at an imbalance of 100, contain the known first ones and have the known sums."""
    data = cifar_labels(10)
    kept_N = split(data, source(longtail={"name": "exponential", "indices": "historical"}), 0).train_N
    ranks = []
    for c in range(10):
        members_N = np.flatnonzero(data.labels_N[:50_000] == c)
        ranks.append(np.searchsorted(members_N, kept_N[data.labels_N[kept_N] == c]))
    assert len(ranks[0]) == 5000
    assert {2204, 3816, 2206, 2507, 1926} <= set(ranks[9].tolist())
    assert (int(ranks[1].sum()), int(ranks[9].sum())) == (7517660, 129276)


def test_every_class_of_many_keeps_its_own_images():
    """Classes of several sizes, their images mixed, train on all of them, and a cut class on as many of its own as it should."""
    counts = [7, 3, 5, 1, 4] * 40
    data = dataset(counts, test=[1] * 200)
    whole, cut = split(data, source(), 0), split(data, source(longtail={"name": "linear", "largest": 1, "smallest": 1}), 0)
    assert whole.train_N.tolist() == np.flatnonzero(data.split_N == 0).tolist()
    assert whole.counts_C.tolist() == counts
    assert np.bincount(data.labels_N[cut.train_N]).tolist() == [1] * 200
