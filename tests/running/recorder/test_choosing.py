"""Which run is chosen, and how many are as good."""

from types import SimpleNamespace

import pytest

from ablation.running.recorder.choosing import best_of, chosen_values

ROUNDED = {"a": 0.5, "b": 0.71, "c": 0.7100000000000001}  # means of the same recalls in another order


@pytest.mark.parametrize(
    ("is_lower_better", "scores", "best", "equal"),
    [
        (False, ROUNDED, "b", 2),
        (True, {name: -score for name, score in ROUNDED.items()}, "b", 2),
        (False, {"a": 0.7, "b": 0.71, "c": 0.7101}, "c", 1),
        (True, {"a": 0.0, "b": 1e-300}, "a", 1),
    ],
)
def test_of_equal_ones_the_first(is_lower_better, scores, best, equal):
    """They are equal but for rounding; a difference in the fourth digit is one."""
    assert best_of(SimpleNamespace(is_lower_better=is_lower_better), scores) == best
    assert chosen_values({"metrics": []}, {}, scores[best], scores)["choice/equal"] == equal
