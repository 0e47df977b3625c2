"""Many, medium and few."""

import numpy as np
import pytest
from scipy import stats

from ablation.errors import ConfigError
from ablation.study.groups import resolve

CLASSES = tuple("abcdefghij")
REPORTS = [5000 - 500 * i for i in range(10)]


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5, 10, 100])
def test_thirds(num_classes):
    """Thirds are by rank of the training counts, what the division leaves being medium."""
    counts = np.random.default_rng(0).permutation(np.arange(num_classes) * 3 + 1).tolist()
    groups_by_name = resolve("thirds", counts, [str(c) for c in range(num_classes)])
    ranked = sorted(range(num_classes), key=lambda c: (-counts[c], c))
    third = num_classes // 3
    assert groups_by_name == {
        "many": tuple(sorted(ranked[:third])),
        "medium": tuple(sorted(ranked[third : num_classes - third])),
        "few": tuple(sorted(ranked[num_classes - third :])),
    }


@pytest.mark.parametrize("num_classes", [2, 3, 4, 10, 100])
def test_classes_with_equal_counts_are_in_one_third(num_classes):
    """They have the mean of their ranks; of a balanced data set all are medium, of a step each half is a group."""
    classes = [str(c) for c in range(num_classes)]
    assert resolve("thirds", [50] * num_classes, classes) == {"many": (), "medium": tuple(range(num_classes)), "few": ()}
    counts = np.random.default_rng(1).integers(1, 6, num_classes)
    ranks = stats.rankdata(-counts) - 1
    third, expected = num_classes // 3, {"many": [], "medium": [], "few": []}
    for c in range(num_classes):
        expected["many" if ranks[c] < third else "few" if ranks[c] >= num_classes - third else "medium"].append(c)
    assert resolve("thirds", counts.tolist(), classes) == {name: tuple(members) for name, members in expected.items()}


def test_the_halves_of_a_step():
    """The head is many, the tail few, whatever their order."""
    assert resolve("thirds", [50, 5000] * 5, CLASSES) == {"many": (1, 3, 5, 7, 9), "medium": (), "few": (0, 2, 4, 6, 8)}


@pytest.mark.parametrize("classes", [("01", "02", "03"), ("1", "2", "3"), ("1.0", "2.0", "3.0"), ("-1", "+2", "+3")])
def test_numbers_are_no_places_where_classes_are_called_by_numbers(classes):
    """01 without quotes is 1 in YAML, and no one can tell the class from the place."""
    for number in (0, 10):
        with pytest.raises(ConfigError, match=r"found the number \d+, but the classes are called by numbers; expected a class in quotes"):
            resolve({"few": [number]}, [3, 2, 1], classes)
    assert resolve({"few": [classes[2]]}, [3, 2, 1], classes)["few"] == (2,)


def test_the_reports_thirds():
    """Ten classes are 3, 4 and 3."""
    assert resolve("thirds", REPORTS, CLASSES) == {"many": (0, 1, 2), "medium": (3, 4, 5, 6), "few": (7, 8, 9)}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"many": ">100", "few": "<20"}, {"many": (0,), "medium": (1, 2, 3), "few": (4,)}),
        ({"many": ">=100", "few": " <= 20 "}, {"many": (0, 1), "medium": (2,), "few": (3, 4)}),
        ({"many": ">100", "medium": ">=20", "few": "<20"}, "twice"),
        ({"many": ["a", "c"], "few": ["b"]}, {"many": (0, 2), "medium": (3, 4), "few": (1,)}),
        ({"few": ["e"]}, {"many": (), "medium": (), "few": (4,)}),
        ({"many": [0, 1], "few": [4]}, {"many": (0, 1), "medium": (2, 3), "few": (4,)}),
        ({"many": ">99999999999999999999", "few": "<1"}, {"many": (), "medium": (0, 1, 2, 3, 4), "few": ()}),
    ],
)
def test_bounds_and_lists(groups, expected):
    """A group is a bound on the counts or a list of classes; medium is what is left where the other two are given."""
    counts, classes = [500, 100, 50, 20, 5], list("abcde")
    if expected == "twice":
        with pytest.raises(ConfigError, match="groups: the class 'a' is named twice"):
            resolve(groups, counts, classes)
    else:
        assert resolve(groups, counts, classes) == expected


def test_names_come_before_numbers():
    """Where classes are called by numbers, a number in the list is such a name."""
    assert resolve({"few": [9, "7"]}, [3, 2, 1], ["7", "8", "9"])["few"] == (2, 0)


@pytest.mark.parametrize(
    ("groups", "path", "words"),
    [
        ("halves", "groups", "found 'halves'; expected thirds, or a mapping"),
        (3, "groups", "found 3"),
        (["a"], "groups", "expected thirds, or a mapping"),
        ({"mny": ">1"}, "groups", r"unknown group 'mny'.*Did you mean 'many'\?"),
        ({"many": 100}, "groups.many", "found 100; expected a bound"),
        ({"many": "100"}, "groups.many", "expected a bound on the training counts such as '>100'"),
        ({"many": ">-1"}, "groups.many", "expected a bound"),
        ({"many": None}, "groups.many", "found None"),
        ({"many": ["x"]}, "groups.many", "unknown class 'x'"),
        ({"many": [99]}, "groups.many", "unknown class '99'"),
        ({"many": [-1]}, "groups.many", "unknown class '-1'"),
        ({"many": [True]}, "groups.many", "unknown class 'True'"),
        ({"many": ["a"], "few": ["a"]}, "groups", "the class 'a' is named twice"),
        ({"many": ["a", "a"]}, "groups", "the class 'a' is named twice"),
    ],
)
def test_bad_groups(groups, path, words):
    """Each mistake in the groups names its place, what was found and what was expected."""
    with pytest.raises(ConfigError, match=words) as error:
        resolve(groups, REPORTS, CLASSES)
    assert error.value.path == path
