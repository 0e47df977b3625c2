import numpy as np
import pytest

from ablation.errors import ConfigError
from ablation.techniques.longtail import RANKS, TECHNIQUES
from ablation.techniques.technique import make

CIFAR10 = np.full(10, 5000)
CIFAR100 = np.full(100, 500)


@pytest.mark.parametrize(
    ("imbalance", "expected"),
    [
        (10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        (50, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
    ],
)
def test_exponential_counts_on_cifar10_are_the_published_ones(imbalance, expected):
    """The counts of the field's tables come out, the last class at 50 and not at 49."""
    assert make("longtail", {"name": "exponential", "imbalance": imbalance})(CIFAR10).tolist() == expected


@pytest.mark.parametrize(("imbalance", "total", "last"), [(10, 19573, 50), (50, 12608, 10), (100, 10847, 5), (200, 9502, 2)])
def test_exponential_totals_on_cifar100_are_the_published_ones(imbalance, total, last):
    """The totals agree, and an imbalance of 200 truncates the last class to 2."""
    counts_C = make("longtail", {"name": "exponential", "imbalance": imbalance})(CIFAR100)
    assert (int(counts_C.sum()), int(counts_C[-1])) == (total, last)


def test_linear_counts_fall_by_equal_steps():
    """5000 to 500 over ten classes is 5000, 4500, ..., 500."""
    counts_C = make("longtail", {"name": "linear", "largest": 5000, "smallest": 500})(CIFAR10)
    assert counts_C.tolist() == list(range(5000, 0, -500))
    assert counts_C.sum() == 27500
    assert counts_C.dtype == np.int64


def test_linear_counts_round_halves_up():
    """Three classes from 4 to 1 have 4, 3 (from 2.5) and 1 images."""
    assert make("longtail", {"name": "linear", "largest": 4, "smallest": 1})(np.full(3, 9)).tolist() == [4, 3, 1]


@pytest.mark.parametrize(
    ("num_classes", "imbalance", "largest", "expected"),
    [(4, 10, "all", [50, 50, 5, 5]), (5, 100, 20, [20, 20, 0, 0, 0]), (3, 3, 10, [10, 3, 3]), (2, 49, 49, [49, 0])],
)
def test_step_counts_have_two_sizes(num_classes, imbalance, largest, expected):
    """The first half of the classes, rounded down, keeps everything; 49 times 1/49 is a little less than 1 and so no image."""
    spec = {"name": "step", "imbalance": imbalance, "largest": largest}
    assert make("longtail", spec)(np.full(num_classes, 50)).tolist() == expected


def test_without_a_long_tail_every_image_stays():
    """The counts are those available."""
    assert make("longtail", "none")(np.array([3, 1, 2])).tolist() == [3, 1, 2]


@pytest.mark.parametrize("spec", ["exponential", "step", {"name": "linear", "largest": 9, "smallest": 1}])
def test_one_class_is_no_division_by_zero(spec):
    """A single class has counts too."""
    assert len(make("longtail", spec)(np.array([100]))) == 1


@pytest.mark.parametrize("technique", [t for t in TECHNIQUES if t.model_fields["name"].default != "none"])
def test_every_long_tail_removes_images(technique):
    """Each cuts something from a balanced source."""
    fields = {"largest": 90, "smallest": 10} if technique.model_fields["name"].default == "linear" else {}
    assert technique(**fields)(np.full(10, 100)).sum() < 1000


@pytest.mark.parametrize("name", ["exponential", "step"])
def test_largest_caps_the_first_class(name):
    """A number for `largest` replaces what class 0 has."""
    assert make("longtail", {"name": name, "largest": 40})(np.full(10, 100))[0] == 40


def test_historical_ranks_are_those_of_ldam_drw():
    """Within-class ranks and their sums are those of the published code on CIFAR-10 with imbalance 100."""
    counts_C = make("longtail", {"name": "exponential", "imbalance": 100, "indices": "historical"})(CIFAR10)
    kept = RANKS["historical"](CIFAR10, counts_C, 0)
    assert kept[0][:5].tolist() == [398, 3833, 4836, 4572, 636]
    assert kept[9][:5].tolist() == [2204, 3816, 2206, 2507, 1926]
    assert (int(kept[1].sum()), int(kept[9].sum())) == (7517660, 129276)


def test_historical_ranks_equal_the_global_legacy_generator():
    """The same ranks come from seeding NumPy's global generator once, and the seed of the run does not matter."""
    available_C, counts_C = np.array([30, 20, 10]), np.array([5, 4, 3])
    state = np.random.get_state()
    try:
        np.random.seed(0)
        expected = []
        for available, count in zip(available_C, counts_C, strict=True):
            ranks = np.arange(available)
            np.random.shuffle(ranks)
            expected.append(ranks[:count].tolist())
    finally:
        np.random.set_state(state)
    assert [ranks.tolist() for ranks in RANKS["historical"](available_C, counts_C, 7)] == expected


def test_seeded_ranks_are_distinct_nested_and_follow_the_seed():
    """A smaller count keeps a part of a larger one's images; another seed keeps others."""
    available_C = np.array([50, 50])
    small = RANKS["seeded"](available_C, np.array([5, 9]), 0)
    large = RANKS["seeded"](available_C, np.array([20, 30]), 0)
    other = RANKS["seeded"](available_C, np.array([5, 9]), 1)
    assert all(len(set(ranks.tolist())) == count for ranks, count in zip(large, (20, 30), strict=True))
    assert all(set(a.tolist()) < set(b.tolist()) for a, b in zip(small, large, strict=True))
    assert small[0].tolist() != other[0].tolist()
    assert small[0].tolist() != small[1][:5].tolist()


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"name": "linear", "largest": 5, "smallest": 9}, "longtail.smallest", "found 9; expected at most largest, 5"),
        ({"name": "linear", "largest": 5}, "longtail.smallest", "is missing"),
        ({"name": "exponential", "imbalance": 0.5}, "longtail.imbalance", "greater than or equal to 1"),
        ({"name": "step", "largest": 0}, "longtail.largest", "found 0; expected a number of images from 1 on, or all"),
        ({"name": "step", "largest": True}, "longtail.largest", "found True"),
        ({"name": "exponential", "indices": "seed"}, "longtail.indices", "'seeded' or 'historical'"),
        ("exponentail", "longtail", "Did you mean 'exponential'?"),
    ],
)
def test_wrong_settings_are_told(spec, path, words):
    """The place, what was found and what was expected are in the message."""
    with pytest.raises(ConfigError) as error:
        make("longtail", spec, "longtail")
    assert error.value.path == path
    assert words in str(error.value)
