"""Samplers. Shapes: N training images, C classes."""

import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from ablation.techniques.samplers import ClassBalanced, Shuffle

LABELS = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
COUNTS = torch.tensor([900, 90, 10])


def draw(technique, seed=0):
    return technique(LABELS, 3, 0, 30, torch.Generator().manual_seed(seed))


def test_shuffle_shows_every_image_once():
    """An epoch is a permutation, and another one for another generator."""
    assert torch.equal(draw(Shuffle()).sort().values, torch.arange(1000))
    assert not torch.equal(draw(Shuffle(), 0), draw(Shuffle(), 1))


def test_class_balanced_draws_as_torch_does():
    """torch's WeightedRandomSampler with weights 1/n and an equal generator gives the same positions."""
    weights = [1 / COUNTS[label].item() for label in LABELS]
    expected = list(WeightedRandomSampler(weights, 1000, generator=torch.Generator().manual_seed(3)))
    assert draw(ClassBalanced(), 3).tolist() == expected


@pytest.mark.parametrize("technique", [Shuffle(), ClassBalanced()])
def test_draws_follow_the_stated_probabilities(technique):
    """The shares of the classes over many epochs are the stated ones, within four standard errors."""
    drawn = torch.cat([LABELS[draw(technique, seed)] for seed in range(20)])
    shares_C = torch.bincount(drawn, minlength=3) / len(drawn)
    expected_C = technique.probabilities_C(COUNTS, 0, 30)
    errors_C = 4 * (expected_C * (1 - expected_C) / len(drawn)).sqrt()
    assert expected_C.dtype == torch.float64
    assert ((shares_C - expected_C).abs() <= errors_C).all()


def test_probabilities():
    """Shuffling keeps the classes' shares, balancing makes them equal."""
    torch.testing.assert_close(Shuffle().probabilities_C(COUNTS, 0, 30), torch.tensor([0.9, 0.09, 0.01]).double())
    torch.testing.assert_close(ClassBalanced().probabilities_C(COUNTS, 0, 30), torch.full((3,), 1 / 3, dtype=torch.float64))
    assert not Shuffle.balances
    assert ClassBalanced.balances


def test_an_empty_class_is_never_drawn():
    """A class without images takes nothing from the others."""
    positions = ClassBalanced()(torch.tensor([0, 0, 2]), 3, 0, 1, torch.Generator().manual_seed(0))
    assert positions.max() <= 2
    assert ClassBalanced().probabilities_C(torch.tensor([2, 0, 1]), 0, 1).tolist() == [0.5, 0.0, 0.5]
