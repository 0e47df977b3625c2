"""Many, medium and few."""

import numpy as np
import pytest

from ablation.errors import ConfigError
from ablation.study.groups import resolve

CLASSES = tuple("abcdefghij")
REPORTS = [5000 - 500 * i for i in range(10)]


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5, 10, 100])
def test_thirds(num_classes):
    """Thirds are by rank of the training counts, what the division leaves being medium; equal counts keep class order."""
    counts = np.random.default_rng(0).integers(1, 20, num_classes).tolist()
    groups_by_name = resolve("thirds", counts, [str(c) for c in range(num_classes)])
    ranked = sorted(range(num_classes), key=lambda c: (-counts[c], c))
    third = num_classes // 3
    assert groups_by_name == {
        "many": tuple(sorted(ranked[:third])),
        "medium": tuple(sorted(ranked[third : num_classes - third])),
        "few": tuple(sorted(ranked[num_classes - third :])),
    }


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
