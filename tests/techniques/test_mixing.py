"""Mixing. Shapes: B batch, C classes or channels, H height, W width."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ablation.techniques.mixing import CutMix, MixUp, NoMix, beta_draws, partners
from ablation.techniques.technique import make

TAIL = torch.tensor([False, False, True])


def batch(num_images=6, height=12, width=16):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(num_images, 3, height, width, generator=generator), torch.eye(3)[torch.arange(num_images) % 3]


def rows(technique, number=0, num_batches=40, batch_size=6, seed=0):
    """One batch's slices of an epoch's draws."""
    drawn = technique.draw(torch.Generator().manual_seed(seed), num_batches, batch_size)
    return {name: table[number] for name, table in drawn.items()}


def plain_box(weight, center, height, width):
    """The box of the official CutMix code, in plain Python: first and last row, first and last column."""
    cut = math.sqrt(1 - weight)
    box = []
    for side, place in ((height, center[0]), (width, center[1])):
        size, middle = int(side * cut), int(side * place)
        box += [min(max(middle - size // 2, 0), side), min(max(middle + size // 2, 0), side)]
    return box


def test_no_mix_returns_the_same_tensors():
    """Absence draws nothing and changes nothing."""
    images, targets = batch()
    mixed = NoMix()(images, targets, rows(NoMix()), TAIL)
    assert mixed[0] is images
    assert mixed[1] is targets


@pytest.mark.parametrize("spec", ["mixup", {"name": "mixup", "alpha": 0.2}, {"name": "mixup", "lambda": 0.4}], ids=str)
def test_mixup_is_the_weighted_sum(spec):
    """Images and targets are m * x1 + (1 - m) * x2, computed in NumPy."""
    technique, (images, targets) = make("mixing", spec), batch()
    draws = rows(technique)
    weight, partner = draws["lambda"].item(), draws["partner"].numpy()
    mixed_images, mixed_targets = technique(images, targets, draws, TAIL)
    np.testing.assert_allclose(mixed_images, weight * images.numpy() + (1 - weight) * images.numpy()[partner], rtol=1e-5)
    np.testing.assert_allclose(mixed_targets, weight * targets.numpy() + (1 - weight) * targets.numpy()[partner], rtol=1e-5)
    assert not torch.equal(mixed_images, images)


def test_a_fixed_lambda_takes_alpha_away():
    """The resolved settings name one of the two, and make the technique again."""
    technique = make("mixing", {"name": "mixup", "lambda": 0.4})
    assert technique.model_dump(by_alias=True) == {"name": "mixup", "alpha": None, "lambda": 0.4}
    assert make("mixing", {"name": "mixup", "alpha": 1.0, "lambda": 0.4}) == technique
    assert technique == MixUp(fixed_lambda=0.4)
    assert technique.draw(torch.Generator(), 3, 2)["lambda"].tolist() == [0.4] * 3


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_mixup_at_its_ends(weight):
    """lambda 1 keeps the image, lambda 0 takes the partner's."""
    technique, (images, targets) = MixUp(fixed_lambda=weight), batch()
    draws = rows(technique)
    kept = torch.arange(6) if weight else draws["partner"]
    mixed_images, mixed_targets = technique(images, targets, draws, TAIL)
    assert torch.equal(mixed_images, images[kept])
    assert torch.equal(mixed_targets, targets[kept])


@pytest.mark.parametrize("alpha", [0.001, 0.2, 0.4, 1.0, 8.0])
def test_weights_follow_the_beta_distribution(alpha):
    """The draws pass the Kolmogorov-Smirnov test against SciPy's distribution, for small alphas too."""
    weights = beta_draws(alpha, 4000, torch.Generator().manual_seed(0)).numpy()
    assert weights.min() >= 0
    assert weights.max() <= 1
    if alpha < 0.01:  # nearly all are 0 or 1 as floats, and half each
        assert np.mean(weights > 0.5) == pytest.approx(0.5, abs=0.03)
    else:
        assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("technique", [MixUp(), CutMix()])
def test_partners_are_a_permutation_of_the_batch(technique):
    """Each batch has a permutation of its own, and every pairing comes equally often."""
    partner = technique.draw(torch.Generator().manual_seed(0), 3000, 4)["partner"]
    assert torch.equal(partner.sort(1).values, torch.arange(4).expand(3000, 4))
    shares = torch.stack([(partner == place).float().mean(0) for place in range(4)])
    torch.testing.assert_close(shares, torch.full((4, 4), 0.25), atol=0.04, rtol=0)


@pytest.mark.parametrize("technique", [MixUp(), CutMix(), CutMix(only="tail")])
def test_a_short_last_batch_is_mixed_within_itself(technique):
    """Fewer images than drawn for are paired by a permutation of their own."""
    images, targets = batch(4)
    draws = rows(technique, batch_size=6)
    mixed_images, mixed_targets = technique(images, targets, draws, TAIL)
    assert sorted(partners(draws["partner"], 4).tolist()) == [0, 1, 2, 3]
    assert mixed_images.shape == images.shape
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("only", ["all", "tail"])
def test_cutmix_equals_the_official_box(number, only):
    """The pasted box, its clipping and the recomputed lambda equal plain Python, pair by pair."""
    technique, (images, targets) = CutMix(only=only), batch()
    draws = rows(technique, number)
    mixed_images, mixed_targets = technique(images, targets, draws, TAIL)
    top, bottom, left, right = plain_box(draws["lambda"].item(), draws["center"].tolist(), 12, 16)
    for i, j in enumerate(draws["partner"].tolist()):
        expected, weight = images[i].clone(), 1.0
        if only == "all" or 2 in (i % 3, j % 3):
            expected[:, top:bottom, left:right] = images[j][:, top:bottom, left:right]
            weight = 1 - (bottom - top) * (right - left) / (12 * 16)
        assert torch.equal(mixed_images[i], expected)
        torch.testing.assert_close(mixed_targets[i], weight * targets[i] + (1 - weight) * targets[j])


def test_cutmix_changes_images_and_targets():
    """Over an epoch most batches are changed, and tail-only changes fewer images."""
    images, targets = batch()
    changed = {}
    for technique in (CutMix(), CutMix(only="tail")):
        mixed = [technique(images, targets, rows(technique, number), TAIL)[0] for number in range(40)]
        changed[technique.only] = sum((one != images).flatten(1).any(1).sum().item() for one in mixed)
    assert changed["all"] > changed["tail"] > 40


def test_only_the_tail_needs_the_tail():
    """Only tail-only CutMix asks which classes are the tail."""
    assert [t.needs_tail for t in (NoMix(), MixUp(), CutMix(), CutMix(only="tail"))] == [False, False, False, True]


def test_half_precision_images_stay_so():
    """Mixing keeps the images' type."""
    images, targets = batch()
    for technique in (MixUp(), CutMix()):
        mixed_images, mixed_targets = technique(images.bfloat16(), targets, rows(technique), TAIL)
        assert mixed_images.dtype == torch.bfloat16
        assert mixed_targets.dtype == torch.float32
