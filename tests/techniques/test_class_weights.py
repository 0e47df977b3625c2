"""Class weights. Shapes: C classes."""

from fractions import Fraction

import pytest
import torch
from timm.loss import compute_class_weights

from ablation.techniques.class_weights import EffectiveNumber, Inverse, NoWeights

COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]  # the exponential long tail of CIFAR-10 with imbalance 100


@pytest.mark.parametrize(
    ("technique", "expected"),
    [
        (EffectiveNumber(), [0.050611, 0.076900, 0.121134, 0.195037, 0.318805, 0.524590, 0.868349, 1.442627, 2.409223, 3.992724]),
        (EffectiveNumber(beta=0.999), [0.181187, 0.189414, 0.215742, 0.272859, 0.378479, 0.560581, 0.868804, 1.386165, 2.258450, 3.688319]),
        (Inverse(), [0.040236, 0.067128, 0.112017, 0.186799, 0.311911, 0.519851, 0.867166, 1.447356, 2.423885, 4.023650]),
        (NoWeights(), [1.0] * 10),
    ],
)
def test_known_weights(technique, expected):
    """The weights are the published ones to six digits."""
    torch.testing.assert_close(technique(torch.tensor(COUNTS)), torch.tensor(expected), atol=6e-7, rtol=0)


@pytest.mark.parametrize(
    ("technique", "method", "beta"),
    [(Inverse(), "inv_freq", 0.5), (EffectiveNumber(beta=0.9), "effective_num", 0.9), (EffectiveNumber(), "effective_num", 0.9999)],
)
def test_equals_timm(technique, method, beta):
    """timm computes the same weights."""
    _, expected_C = compute_class_weights(COUNTS, sum(COUNTS), method, beta=beta)
    torch.testing.assert_close(technique(torch.tensor(COUNTS)), expected_C)


def test_effective_number_lies_between_its_limits():
    """beta 0 gives ones, and beta near 1 the inverse frequency."""
    counts_C = torch.tensor([1.0, 7.0, 90.0])
    torch.testing.assert_close(EffectiveNumber(beta=0.0)(counts_C), torch.ones(3))
    torch.testing.assert_close(EffectiveNumber(beta=1 - 1e-12)(counts_C), Inverse()(counts_C))


@pytest.mark.parametrize("technique", [Inverse(), EffectiveNumber()])
def test_an_empty_class_has_no_weight(technique):
    """A count of zero is our own mistake, since the caller checks the data."""
    with pytest.raises(AssertionError):
        technique(torch.tensor([3, 0]))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 1 - 1e-9])
@pytest.mark.parametrize("counts", [[1, 1], [1, 2], [1, 40]])
def test_a_class_with_one_image(beta, counts):
    """The weights beside a class with one image are those of exact fractions."""
    raw = [1 / (1 - Fraction(beta) ** n) for n in counts]
    expected = [float(2 * weight / sum(raw)) for weight in raw]
    assert EffectiveNumber(beta=beta)(torch.tensor(counts)).tolist() == pytest.approx(expected, rel=1e-6)
