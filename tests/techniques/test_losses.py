"""Losses. Shapes: B batch, C classes."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.losses import BalancedSoftmax, CrossEntropy, Focal, average
from ablation.techniques.technique import make

COUNTS = torch.tensor([500, 100, 20, 5])
LOGITS = torch.tensor([[2, 1, 0.5, -1], [0.2, -0.3, 0.1, 0.4], [1.5, 0, -0.5, 0.7]])
LABELS = torch.tensor([0, 3, 1])
SPECS = [
    "cross_entropy",
    "balanced_softmax",
    {"name": "balanced_softmax", "prior": "sampled"},
    "focal",
    {"name": "focal", "gamma": 0.5},
    {"name": "focal", "gamma": 0.0},
    {"name": "focal", "form": "sigmoid"},
    "weighted_cross_entropy",
    "class_balanced",
    {"name": "class_balanced_focal", "gamma": 1.0, "form": "sigmoid"},
]


def one_hot(labels_B, num_classes=4):
    return torch.eye(num_classes)[labels_B]


def plain_loss(spec, logits, label, counts, sampled):
    """The loss of one sample for one label, in plain Python floats."""
    spec = {"name": spec} if isinstance(spec, str) else spec
    name, gamma = spec["name"], spec.get("gamma", 2.0)
    if name == "balanced_softmax":
        prior = sampled if spec.get("prior") == "sampled" else counts
        logits = [z + math.log(n) for z, n in zip(logits, prior, strict=True)]
    p = [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]
    if "focal" not in name:
        return -math.log(p[label])
    if spec.get("form") != "sigmoid":
        return -((1 - p[label]) ** gamma) * math.log(p[label])
    true = [1 / (1 + math.exp(-z if c == label else z)) for c, z in enumerate(logits)]
    return sum(-((1 - q) ** gamma) * math.log(q) for q in true)


def plain_weights(spec, counts):
    """The class weights, in plain Python floats."""
    name = spec if isinstance(spec, str) else spec["name"]
    raw = [1.0 for _ in counts]
    if name == "weighted_cross_entropy":
        raw = [1 / n for n in counts]
    if name.startswith("class_balanced"):
        raw = [(1 - 0.9999) / (1 - 0.9999**n) for n in counts]
    return [w * len(counts) / sum(raw) for w in raw]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("cross_entropy", [0.495182, 1.117151, 2.092108]),
        ("balanced_softmax", [0.079734, 4.561929, 3.162536]),
        ("focal", [0.075526, 0.505673, 1.607535]),
        ({"name": "focal", "form": "sigmoid"}, [1.103742, 0.629465, 1.870677]),
    ],
)
def test_known_losses(spec, expected):
    """Each sample's loss is the known one to six digits."""
    losses_BC = make("losses", spec).losses_BC(LOGITS, COUNTS)
    torch.testing.assert_close(losses_BC[torch.arange(3), LABELS], torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_weighted_mean_is_over_the_sum_of_weights():
    """The class-balanced mean is the one over the sum of weights, with hard targets as torch computes it."""
    loss = make("losses", "class_balanced")(LOGITS, one_hot(LABELS), COUNTS)
    weights_C = make("class_weights", "effective_number")(COUNTS)
    assert loss.item() == pytest.approx(1.157326, abs=1e-6)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS, weight=weights_C))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_soft_targets_equal_plain_python(spec):
    """The mean under soft targets is the sum of target * weight * loss over the sum of target * weight."""
    generator = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(5, 4, generator=generator) * 3
    targets_BC = torch.rand(5, 4, generator=generator).softmax(1)
    sampled = [150.0, 160.0, 155.0, 160.0]
    loss = make("losses", spec)(logits_BC, targets_BC, COUNTS, torch.tensor(sampled))
    weights = plain_weights(spec, COUNTS.tolist())
    total, share = 0.0, 0.0
    for logits, targets in zip(logits_BC.double().tolist(), targets_BC.double().tolist(), strict=True):
        for label in range(4):
            total += targets[label] * weights[label] * plain_loss(spec, logits, label, COUNTS.tolist(), sampled)
            share += targets[label] * weights[label]
    assert loss.item() == pytest.approx(total / share, rel=2e-5)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_gradient_is_the_loss_function_s(spec):
    """Automatic derivatives agree with finite differences in float64."""
    logits_BC = LOGITS.double().requires_grad_()
    targets_BC = (one_hot(LABELS) * 0.7 + 0.3 / 4).double()
    loss = make("losses", spec)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets_BC, COUNTS, torch.ones(4)), (logits_BC,))


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.0, 80.0])
def test_extreme_logits_stay_finite(spec, dtype, size):
    """Logits of +-80, right or wrong, give a finite float32 loss and finite gradients."""
    logits_BC = (torch.tensor([[1.0, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, -1, -1]]) * size).to(dtype).requires_grad_()
    loss = make("losses", spec)(logits_BC, one_hot(torch.tensor([0, 0, 2])), COUNTS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits_BC.grad).all()


@pytest.mark.parametrize("gap", [-30.0, -5.0, 5.0, 12.0, 30.0])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_keeps_its_digits_near_certainty(gap, gamma):
    """In float32 the focal loss and its slope equal those of float64 by the sigmoid, for p near 0 and near 1."""
    logits_BC = torch.tensor([[gap, 0.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits_BC, torch.tensor([[1.0, 0.0]]), torch.ones(2))
    loss.backward()
    log_p, q = -math.log1p(math.exp(-gap)), 1 / (1 + math.exp(gap))
    slope = q**gamma * (gamma * (1 - q) * log_p - q)
    # A p that float32 cannot tell from 1 costs nothing: absolute errors stay below 1e-9.
    assert loss.item() == pytest.approx(-(q**gamma) * log_p, rel=1e-3, abs=1e-9)
    assert logits_BC.grad[0, 0].item() == pytest.approx(slope, rel=1e-3, abs=1e-9)


def test_focal_without_gamma_is_cross_entropy():
    """gamma 0 takes the focus away, gradient included."""
    first, second = (LOGITS.clone().requires_grad_() for _ in range(2))
    Focal(gamma=0.0)(first, one_hot(LABELS), COUNTS).backward()
    CrossEntropy()(second, one_hot(LABELS), COUNTS).backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_balanced_softmax_follows_the_chosen_prior():
    """With the sampled prior of a balancing sampler the loss is plain cross-entropy; with the training prior it is not."""
    given = (LOGITS, one_hot(LABELS), COUNTS, torch.full((4,), 156.25))
    plain = CrossEntropy()(*given)
    torch.testing.assert_close(BalancedSoftmax(prior="sampled")(*given), plain)
    assert not torch.isclose(BalancedSoftmax()(*given), plain)


def test_without_sampled_counts_the_prior_is_the_training_s():
    """A loss that is not told what the sampler draws takes the training counts."""
    given = (LOGITS, one_hot(LABELS), COUNTS)
    assert torch.equal(BalancedSoftmax(prior="sampled")(*given), BalancedSoftmax()(*given))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in ("cross_entropy", {"name": "focal", "gamma": 0.0})], ids=str)
def test_each_loss_acts(spec):
    """Each loss differs from cross-entropy."""
    given = (LOGITS, one_hot(LABELS), COUNTS, torch.tensor([9, 1, 1, 1]))
    assert not torch.isclose(make("losses", spec)(*given), CrossEntropy()(*given))


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("weighted_cross_entropy", {"name": "cross_entropy", "weights": "inverse"}),
        ("class_balanced", {"name": "cross_entropy", "weights": "effective_number"}),
        ({"name": "class_balanced", "beta": 0.9}, {"name": "cross_entropy", "weights": {"name": "effective_number", "beta": 0.9}}),
        (
            {"name": "class_balanced_focal", "beta": 0.99, "gamma": 1.0, "form": "sigmoid"},
            {"name": "focal", "gamma": 1.0, "form": "sigmoid", "weights": {"name": "effective_number", "beta": 0.99}},
        ),
    ],
)
def test_short_forms(short, full):
    """A short form resolves to the loss that it stands for."""
    assert make("losses", short) == make("losses", full)


@pytest.mark.parametrize("name", ["weighted_cross_entropy", "class_balanced", "class_balanced_focal"])
def test_a_short_form_takes_no_weights_of_its_own(name):
    """Weights beside a name that sets them are a contradiction, and told as one."""
    with pytest.raises(ConfigError, match="weights: found 'none'; expected no weights, because"):
        make("losses", {"name": name, "weights": "none"})


def test_mixed_targets_are_the_mixed_losses():
    """Under MixUp's targets the weighted mean is Zhang's two terms, each with its class's weight."""
    targets_BC = 0.3 * one_hot(LABELS) + 0.7 * one_hot(LABELS.flip(0))
    losses_BC = CrossEntropy().losses_BC(LOGITS, COUNTS).numpy()
    weights = np.array(plain_weights("class_balanced", COUNTS.tolist()))
    first, second = LABELS.numpy(), LABELS.flip(0).numpy()
    rows = np.arange(3)
    total = (0.3 * weights[first] * losses_BC[rows, first] + 0.7 * weights[second] * losses_BC[rows, second]).sum()
    expected = total / (0.3 * weights[first] + 0.7 * weights[second]).sum()
    assert make("losses", "class_balanced")(LOGITS, targets_BC, COUNTS).item() == pytest.approx(expected, rel=1e-5)


def test_one_sample():
    """A batch of one has its own loss, whatever its weight."""
    assert average(torch.tensor([[3.0, 5.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([9.0, 0.5])).item() == 5.0
