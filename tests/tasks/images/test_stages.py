"""The checks of an arm's stages against each other."""

import pytest

from ablation.errors import ConfigError
from tests.studies import BASE, study

UNIFORM = {"name": "linear", "initial_bias": "uniform"}
SIGMOID = {"name": "focal", "form": "sigmoid"}
HALVES = [{"epochs": "1/2"}, {"epochs": "1/2"}]


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"variants": {"v": {"classifier": UNIFORM}}}, "variants.v"),
        ({"variants": {"v": {"classifier": UNIFORM, "loss": "focal"}}}, "variants.v"),
        ({"variants": {"v": {"classifier": UNIFORM, "stages": [HALVES[0], {**HALVES[1], "loss": "balanced_softmax"}]}}}, "variants.v"),
        ({"base": {**BASE, "classifier": UNIFORM}}, "base"),
        ({"base": {**BASE, "classifier": UNIFORM, "loss": SIGMOID}, "variants": {"v": {"loss": "cross_entropy"}}}, "base"),
    ],
)
def test_equal_biases_under_a_softmax(tmp_path, sections, path):
    """They change nothing there, so that the arm would only look like another."""
    with pytest.raises(
        ConfigError, match=r"found uniform, which changes nothing under [a-z_]+, whose softmax .*; expected a loss"
    ) as error:
        study(tmp_path, **sections)
    assert error.value.path == f"{path}.classifier.initial_bias"


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss": SIGMOID},
        {"loss": "class_balanced_sigmoid"},
        {"loss": "vs"},
        {"loss": SIGMOID, "stages": [HALVES[0], {**HALVES[1], "loss": "cross_entropy"}]},
    ],
)
def test_equal_biases_that_act(tmp_path, overrides):
    """Under sigmoids, in one of the stages at least, or where each class's logits have a factor of their own."""
    assert study(tmp_path, variants={"v": {"classifier": UNIFORM, **overrides}}).arms
