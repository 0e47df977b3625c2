"""Smoothing. Shapes: B batch, C classes."""

import pytest
import torch
from torch.nn import functional

from ablation.techniques.losses import CrossEntropy
from ablation.techniques.smoothing import LabelSmoothing, NoSmoothing
from ablation.techniques.technique import make

COUNTS = torch.tensor([500, 100, 20, 5])
LOGITS = torch.tensor([[2, 1, 0.5, -1], [0.2, -0.3, 0.1, 0.4], [1.5, 0, -0.5, 0.7]])
TARGETS = torch.eye(4)[torch.tensor([0, 3, 1])]


@pytest.mark.parametrize(
    ("spread", "row"),
    [("all", [0.85, 0.05, 0.05, 0.05]), ("others", [0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3])],
)
def test_a_hard_target_is_spread_by_hand(spread, row):
    """epsilon 0.2 over four classes gives the row computed by hand."""
    smoothed = LabelSmoothing(epsilon=0.2, spread=spread)(TARGETS, COUNTS)
    torch.testing.assert_close(smoothed[0], torch.tensor(row))
    torch.testing.assert_close(smoothed.sum(1), torch.ones(3))


@pytest.mark.parametrize(("spread", "expected"), [("all", 1.276480), ("others", 1.290369)])
def test_known_losses(spread, expected):
    """Cross-entropy under the smoothed targets is the known number; torch computes the one over all classes."""
    loss = CrossEntropy()(LOGITS, LabelSmoothing(spread=spread)(TARGETS, COUNTS), COUNTS)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    if spread == "all":
        torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, TARGETS.argmax(1), label_smoothing=0.1))


def test_smoothing_mixed_targets_is_mixing_smoothed_targets():
    """Both conventions are linear, so the order of mixing and smoothing does not matter."""
    mixed = 0.3 * TARGETS + 0.7 * TARGETS.flip(0)
    for spread in ("all", "others"):
        smooth = LabelSmoothing(epsilon=0.3, spread=spread)
        torch.testing.assert_close(smooth(mixed, COUNTS), 0.3 * smooth(TARGETS, COUNTS) + 0.7 * smooth(TARGETS.flip(0), COUNTS))


def test_the_conventions_convert():
    """e of `others` is e * C / (C - 1) of `all`."""
    torch.testing.assert_close(LabelSmoothing(epsilon=0.15, spread="others")(TARGETS, COUNTS), LabelSmoothing(epsilon=0.2)(TARGETS, COUNTS))


@pytest.mark.parametrize("technique", [NoSmoothing(), LabelSmoothing(epsilon=0.0), LabelSmoothing(epsilon=0.0, spread="others")])
def test_no_epsilon_changes_nothing(technique):
    """Without epsilon the targets stay, and without a name a mapping is label smoothing."""
    assert torch.equal(technique(TARGETS, COUNTS), TARGETS)
    assert make("smoothing", {"epsilon": 0.2}) == LabelSmoothing(epsilon=0.2)
