"""Samplers. Shapes: N training images, C classes."""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from ablation.techniques.samplers import ClassBalanced, EffectiveNumber, Power, Progressive, Shuffle, SquareRoot

LABELS = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
COUNTS = torch.tensor([900, 90, 10])
CIFAR = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])  # CIFAR-10 at the imbalance 100

WEIGHTED = [ClassBalanced(), SquareRoot(), Power(power=0.3), Progressive(), EffectiveNumber(), EffectiveNumber(beta=0.9)]
each_weighted = pytest.mark.parametrize("technique", WEIGHTED, ids=str)
IMAGE_WEIGHTS = {  # of an image whose class has n, out of N and C classes, in the epoch 7 of 30
    "class_balanced": lambda technique, n, total, classes: 1 / n,
    "square_root": lambda technique, n, total, classes: 1 / math.sqrt(n),
    "power": lambda technique, n, total, classes: n**technique.power / n,
    "progressive": lambda technique, n, total, classes: ((1 - 7 / 29) * n / total + 7 / 29 / classes) / n,
    "effective_number": lambda technique, n, total, classes: (1 - technique.beta) / (1 - technique.beta**n),
}


def draw(technique, seed=0, labels=LABELS, epoch=7):
    return technique(labels, 3, epoch, 30, torch.Generator().manual_seed(seed))


def image_weights(technique, counts):
    total, classes = sum(counts), len([n for n in counts if n])
    return [IMAGE_WEIGHTS[technique.name](technique, n, total, classes) if n else 0.0 for n in counts]


def test_shuffle_shows_every_image_once():
    """An epoch is a permutation, and another one for another generator."""
    assert torch.equal(draw(Shuffle()).sort().values, torch.arange(1000))
    assert not torch.equal(draw(Shuffle(), 0), draw(Shuffle(), 1))


@each_weighted
def test_draws_as_torch_does(technique):
    """torch's WeightedRandomSampler with the weights of the paper and an equal generator gives the same positions."""
    by_class = image_weights(technique, COUNTS.tolist())
    weights = [by_class[label] for label in LABELS.tolist()]
    expected = list(WeightedRandomSampler(weights, 1000, generator=torch.Generator().manual_seed(3)))
    assert draw(technique, 3).tolist() == expected


@pytest.mark.parametrize("technique", [Shuffle(), *WEIGHTED], ids=str)
def test_draws_follow_the_stated_probabilities(technique):
    """The shares of the classes over many epochs are the stated ones, within four standard errors."""
    drawn = torch.cat([LABELS[draw(technique, seed)] for seed in range(20)])
    shares_C = torch.bincount(drawn, minlength=3) / len(drawn)
    expected_C = technique.probabilities_C(COUNTS, 7, 30)
    errors_C = 4 * (expected_C * (1 - expected_C) / len(drawn)).sqrt()
    assert expected_C.dtype == torch.float64
    assert ((shares_C - expected_C).abs() <= errors_C).all()


@each_weighted
@pytest.mark.parametrize("counts", [[900, 90, 10], [5, 5, 5], [1, 1000, 1], [40, 0, 10]], ids=str)
def test_probabilities_are_the_images_weights_summed(technique, counts):
    """A class's chance is its images' weights over all weights, in plain Python; a class without images has none."""
    masses = [n * weight for n, weight in zip(counts, image_weights(technique, counts), strict=True)]
    expected_C = torch.tensor([mass / sum(masses) for mass in masses], dtype=torch.float64)
    torch.testing.assert_close(technique.probabilities_C(torch.tensor(counts), 7, 30), expected_C)


@pytest.mark.parametrize(
    ("technique", "expected"),
    [
        (SquareRoot(), [0.244738, 0.189478, 0.146679, 0.113586, 0.087901, 0.068088, 0.052718, 0.040806, 0.031532, 0.024474]),
        (ClassBalanced(), [0.1] * 10),
        (Shuffle(), [n / 12406 for n in CIFAR.tolist()]),
    ],
    ids=str,
)
def test_known_probabilities(technique, expected):
    """The long-tailed CIFAR-10 of imbalance 100 gives the known chances."""
    result = technique.probabilities_C(CIFAR, 0, 200)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), atol=5e-7, rtol=0)


@pytest.mark.parametrize(
    ("technique", "first", "last", "digits"),
    [(Progressive(), 0.252277, 0.051774, 6), (EffectiveNumber(), 0.1193, 0.0941, 4)],
    ids=str,
)
def test_known_ends(technique, first, last, digits):
    """The first and last class of that set have the known chances in the epoch 99 of 200."""
    result = technique.probabilities_C(CIFAR, 99, 200)
    assert (round(result[0].item(), digits), round(result[-1].item(), digits)) == (first, last)


def test_progressive_goes_from_the_data_to_balance():
    """The first epoch has the data's shares, the last one equal ones, and a single epoch is the first."""
    chances = [Progressive().probabilities_C(COUNTS, epoch, 5) for epoch in range(5)]
    torch.testing.assert_close(chances[0], Shuffle().probabilities_C(COUNTS, 0, 5))
    torch.testing.assert_close(chances[4], ClassBalanced().probabilities_C(COUNTS, 0, 5))
    assert all(before[2] < after[2] for before, after in pairwise(chances))
    assert torch.equal(Progressive().probabilities_C(COUNTS, 0, 1), chances[0])


@pytest.mark.parametrize(
    ("technique", "equal"),
    [
        (Power(power=1), Shuffle()),
        (Power(power=0.5), SquareRoot()),
        (Power(power=0), ClassBalanced()),
        (EffectiveNumber(beta=0), Shuffle()),
        (EffectiveNumber(beta=1 - 1e-9), ClassBalanced()),
    ],
    ids=str,
)
@pytest.mark.parametrize("counts", [[900, 90, 10], [40, 0, 10]], ids=str)
def test_ends_of_the_ranges(technique, equal, counts):
    """At the ends of their ranges the powers and the effective number are other samplers."""
    result, expected = (sampler.probabilities_C(torch.tensor(counts), 0, 30) for sampler in (technique, equal))
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


def test_the_effective_number_keeps_its_digits():
    """With beta next to 1 the chances are those of exact arithmetic, where 1 - beta ** n has lost them."""
    from fractions import Fraction

    beta, counts = 1 - 2**-50, [5000, 50]
    shares = [n / (1 - Fraction(beta) ** n) for n in counts]
    expected = [float(share / sum(shares)) for share in shares]
    result = EffectiveNumber(beta=beta).probabilities_C(torch.tensor(counts), 0, 1)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


@each_weighted
def test_an_empty_class_is_never_drawn(technique):
    """A class without images takes nothing from the others, and one image in a class is enough."""
    labels = torch.tensor([0, 0, 2])
    positions = draw(technique, labels=labels)
    assert set(positions.tolist()) <= {0, 1, 2}
    result = technique.probabilities_C(torch.tensor([2, 0, 1]), 7, 30)
    assert result[1] == 0
    assert result.sum().item() == pytest.approx(1)
    assert (result[[0, 2]] > 0).all()


@each_weighted
def test_one_class_is_drawn_alone(technique):
    """With one class all chances are its own."""
    assert technique.probabilities_C(torch.tensor([7]), 7, 30).tolist() == [1.0]
    assert len(technique(torch.zeros(7, dtype=torch.long), 1, 7, 30, torch.Generator().manual_seed(0))) == 7


@each_weighted
def test_acts(technique):
    """Rare images are drawn more often than shuffling shows them."""
    rare = sum((LABELS[draw(technique, seed)] == 2).sum().item() for seed in range(20))
    assert rare > 20 * 10 * (1.02 if technique == EffectiveNumber(beta=0.9) else 1.5)


def test_what_they_say_of_themselves():
    """What balances is said, unless its number keeps the data's shares; only progressive sampling depends on the length."""
    assert [sampler.name for sampler in WEIGHTED if not sampler.balances] == []
    assert [sampler.balances for sampler in (Shuffle(), Power(power=1), EffectiveNumber(beta=0))] == [False] * 3
    assert [sampler.name for sampler in (Shuffle(), *WEIGHTED) if sampler.depends_on_length] == ["progressive"]
