"""Losses. Shapes: B batch, C classes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques import losses
from ablation.techniques.losses import (
    LDAM,
    BalancedSoftmax,
    CrossEntropy,
    Equalization,
    Focal,
    LogitAdjusted,
    Seesaw,
    VectorScaling,
    average,
)
from ablation.techniques.technique import make

COUNTS = torch.tensor([500, 100, 20, 5])
SAMPLED = torch.tensor([150.0, 160.0, 155.0, 160.0])
LOGITS = torch.tensor([[2, 1, 0.5, -1], [0.2, -0.3, 0.1, 0.4], [1.5, 0, -0.5, 0.7]])
LABELS = torch.tensor([0, 3, 1])
COSINES = torch.tensor([[0.8, 0.3, 0.1, -0.4], [0.1, -0.2, 0.05, 0.3], [0.5, 0.2, -0.3, 0.4]])
SPECS = [
    {"name": "cross_entropy"},
    {"name": "balanced_softmax"},
    {"name": "balanced_softmax", "prior": "sampled"},
    {"name": "logit_adjusted", "tau": 0.5},
    {"name": "logit_adjusted", "tau": 2.0, "prior": "sampled"},
    {"name": "vs"},
    {"name": "vs", "gamma": 0.3, "tau": 0.0, "prior": "sampled"},
    {"name": "ldam"},
    {"name": "ldam", "max_margin": 0.3, "scale": 3.0, "weights": "inverse"},
    {"name": "equalization"},
    {"name": "equalization", "gamma": 0.4, "rarity": 4.0},
    {"name": "equalization", "gamma": 1.0, "rarity": 5.0},
    {"name": "seesaw"},
    {"name": "seesaw", "p": 0.5, "q": 0.7, "weights": "effective_number"},
    {"name": "focal"},
    {"name": "focal", "gamma": 0.5},
    {"name": "focal", "gamma": 0.0},
    {"name": "focal", "form": "sigmoid"},
    {"name": "weighted_cross_entropy"},
    {"name": "class_balanced"},
    {"name": "class_balanced_focal", "gamma": 1.0, "form": "sigmoid"},
    {"name": "class_balanced_sigmoid"},
]
each_loss = pytest.mark.parametrize("spec", SPECS, ids=str)


def one_hot(labels_B, num_classes=4):
    return torch.eye(num_classes)[labels_B]


def plain_softmax_term(logits, label, factors):
    """-ln of exp(z_label) over the sum of factor * exp(z), in plain Python floats."""
    return math.log(sum(f * math.exp(z - logits[label]) for f, z in zip(factors, logits, strict=True)))


def plain_hash(bits):
    """Wellons's lowbias32."""
    bits = (bits ^ bits >> 16) * 0x7FEB352D % 2**32
    bits = (bits ^ bits >> 15) * 0x846CA68B % 2**32
    return bits ^ bits >> 16


def plain_beta(spec, position, state):
    """The equalization loss's draw for a place in the batch."""
    seed = plain_hash(plain_hash(int(state["step"])) ^ int(state["seed"]) % 2**32) if state else 0
    return int((plain_hash(plain_hash(position) ^ seed) >> 9) / 2**23 < spec.get("gamma", 0.9))


def plain_margin_term(spec, logits, label, counts):
    margin = spec.get("max_margin", 0.5) * (min(counts) / counts[label]) ** 0.25
    shifted = [z - spec.get("scale", 30.0) * margin * (c == label) for c, z in enumerate(logits)]
    return plain_softmax_term(shifted, label, [1] * len(counts))


def plain_equalization_term(spec, logits, label, counts, row, state):
    is_rare = [n / sum(counts) < spec.get("rarity", 0.5) / len(counts) for n in counts]
    factors = [1 - plain_beta(spec, row * len(counts) + c, state) * is_rare[c] * (c != label) for c in range(len(counts))]
    return plain_softmax_term(logits, label, factors)


def plain_seesaw_term(spec, logits, label, counts, state):
    p = [math.exp(z) / sum(math.exp(other) for other in logits) for z in logits]
    seen = [max(n, 1) for n in (state["seen"].tolist() if state else counts)]
    factors = [1.0] * len(counts)
    for other in range(len(counts)):
        if other != label:
            factors[other] = min(1, (seen[other] / seen[label]) ** spec.get("p", 0.8))
            factors[other] *= max(1, (p[other] / max(p[label], 0.01)) ** spec.get("q", 2.0))
    return plain_softmax_term(logits, label, factors)


def plain_focal_term(spec, logits, label):
    gamma = 0 if spec["name"] == "class_balanced_sigmoid" else spec.get("gamma", 2.0)
    if spec.get("form") != "sigmoid" and spec["name"] != "class_balanced_sigmoid":
        p = math.exp(logits[label]) / sum(math.exp(z) for z in logits)
        return -((1 - p) ** gamma) * math.log(p)
    true = [1 / (1 + math.exp(-z if c == label else z)) for c, z in enumerate(logits)]
    return sum(-((1 - q) ** gamma) * math.log(q) for q in true)


def plain_loss(spec, logits, label, counts, sampled, row, state):
    """The loss of one sample for one label, written from the papers in plain Python floats."""
    name, ones = spec["name"], [1] * len(counts)
    prior = sampled if spec.get("prior") == "sampled" else counts
    shares = [n / sum(prior) for n in prior]
    if name == "balanced_softmax":
        return plain_softmax_term([z + math.log(n) for z, n in zip(logits, prior, strict=True)], label, ones)
    if name == "logit_adjusted":
        return plain_softmax_term([z + spec["tau"] * math.log(pi) for z, pi in zip(logits, shares, strict=True)], label, ones)
    if name == "vs":
        gamma, tau = spec.get("gamma", 0.15), spec.get("tau", 1.25)
        scaled = [z * (n / max(prior)) ** gamma for z, n in zip(logits, prior, strict=True)]
        return plain_softmax_term([z + tau * math.log(pi) for z, pi in zip(scaled, shares, strict=True)], label, ones)
    if name == "ldam":
        return plain_margin_term(spec, logits, label, counts)
    if name == "equalization":
        return plain_equalization_term(spec, logits, label, counts, row, state)
    if name == "seesaw":
        return plain_seesaw_term(spec, logits, label, counts, state)
    if name in ("focal", "class_balanced_focal", "class_balanced_sigmoid"):
        return plain_focal_term(spec, logits, label)
    return plain_softmax_term(logits, label, ones)


def plain_weights(spec, counts):
    """The class weights, in plain Python floats."""
    raw = [1.0 for _ in counts]
    if spec["name"] == "weighted_cross_entropy" or spec.get("weights") == "inverse":
        raw = [1 / n for n in counts]
    if spec["name"].startswith("class_balanced") or spec.get("weights") == "effective_number":
        raw = [(1 - 0.9999) / (1 - 0.9999**n) for n in counts]
    return [w * len(counts) / sum(raw) for w in raw]


def plain_mean(spec, logits_BC, targets_BC, counts, sampled, state):
    """Sum of target * weight * loss over the sum of target * weight, in plain Python floats."""
    weights = plain_weights(spec, counts)
    total, share = 0.0, 0.0
    for row, (logits, targets) in enumerate(zip(logits_BC.double().tolist(), targets_BC.double().tolist(), strict=True)):
        for label, target in enumerate(targets):
            total += target * weights[label] * plain_loss(spec, logits, label, counts, sampled, row, state)
            share += target * weights[label]
    return total / share


def states(loss, num_classes, targets_BC):
    """No state, and the one after two batches."""
    state = loss.state(num_classes, torch.Generator().manual_seed(3))
    for _ in range(2):
        loss.advance(state, targets_BC)
    return None, state


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("cross_entropy", [0.495182, 1.117151, 2.092108]),
        ("balanced_softmax", [0.079734, 4.561929, 3.162536]),
        ("logit_adjusted", [0.079734, 4.561929, 3.162536]),
        ("focal", [0.075526, 0.505673, 1.607535]),
        ({"name": "focal", "form": "sigmoid"}, [1.103742, 0.629465, 1.870677]),
    ],
)
def test_known_losses(spec, expected):
    """Each sample's loss is the known one to six digits."""
    losses_BC = make("losses", spec).losses_BC(LOGITS, COUNTS)
    torch.testing.assert_close(losses_BC[torch.arange(3), LABELS], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 1.737901), (2.0, 4.592943)])
def test_known_means_of_logit_adjustment(tau, expected):
    """The mean adjusted loss is the known one to six digits."""
    assert LogitAdjusted(tau=tau)(LOGITS, one_hot(LABELS), COUNTS).item() == pytest.approx(expected, abs=1e-6)


def test_known_losses_of_ldam():
    """On cosines times 30 each sample's loss, and the mean with deferred weights, is the known one to six digits."""
    losses_BC = LDAM().losses_BC(COSINES * 30, COUNTS)
    torch.testing.assert_close(losses_BC[torch.arange(3), LABELS], torch.tensor([0.000035, 9.201615, 16.141650]), atol=2e-6, rtol=0)
    deferred = make("losses", {"name": "ldam", "weights": "effective_number"})
    assert deferred(COSINES * 30, one_hot(LABELS), COUNTS).item() == pytest.approx(9.441449, abs=2e-6)


def test_the_weighted_mean_is_over_the_sum_of_weights():
    """The class-balanced mean is the one over the sum of weights, with hard targets as torch computes it; for probabilities torch has N."""
    loss = make("losses", "class_balanced")(LOGITS, one_hot(LABELS), COUNTS)
    weights_C = make("class_weights", "effective_number")(COUNTS)
    assert weights_C.tolist() == pytest.approx([0.031280, 0.153319, 0.763538, 3.051863], abs=1e-6)
    assert make("losses", "cross_entropy")(LOGITS, one_hot(LABELS), COUNTS).item() == pytest.approx(1.234813, abs=1e-6)
    assert loss.item() == pytest.approx(1.157326, abs=1e-6)
    assert functional.cross_entropy(LOGITS, one_hot(LABELS), weights_C).item() == pytest.approx(1.248547, abs=1e-6)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS, weight=weights_C))


def test_weights_with_smoothing_make_a_mean_of_their_own():
    """Where torch divides the smoothed, weighted sum by the labels' weights or by the batch, ours is divided by what it is weighed with."""
    smoothed_BC = one_hot(LABELS) * 0.9 + 0.1 / 4
    weights_C = make("class_weights", "effective_number")(COUNTS)
    by_labels = functional.cross_entropy(LOGITS, LABELS, weight=weights_C, label_smoothing=0.1)
    by_batch = functional.cross_entropy(LOGITS, smoothed_BC, weight=weights_C)
    ours = make("losses", "class_balanced")(LOGITS, smoothed_BC, COUNTS)
    assert [by_labels.item(), by_batch.item(), ours.item()] == pytest.approx([1.225537, 1.322135, 1.234557], abs=1e-6)
    torch.testing.assert_close(ours * (smoothed_BC @ weights_C).sum(), by_labels * weights_C[LABELS].sum())
    torch.testing.assert_close(ours * (smoothed_BC @ weights_C).sum(), by_batch * 3)


@each_loss
def test_soft_targets_equal_plain_python(spec):
    """The mean under soft targets is the papers' formula, weighed by target and class weight, with and without a state."""
    generator = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(5, 4, generator=generator) * 3
    targets_BC = torch.rand(5, 4, generator=generator).softmax(1)
    loss = make("losses", spec)
    for state in states(loss, 4, targets_BC):
        result = loss(logits_BC, targets_BC, COUNTS, SAMPLED, state)
        expected = plain_mean(spec, logits_BC, targets_BC, COUNTS.tolist(), SAMPLED.tolist(), state)
        assert result.item() == pytest.approx(expected, rel=2e-5)


@each_loss
def test_soft_targets_are_the_weighted_sum_of_the_hard_answers(spec):
    """A soft target costs what the hard labels cost, weighed by target and class weight."""
    loss, state = make("losses", spec), None
    targets_BC = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    weights = plain_weights(spec, COUNTS.tolist())
    hard = [loss(LOGITS[:1], one_hot(torch.tensor([c])), COUNTS, SAMPLED, state).item() for c in range(4)]
    shares = [target * weight for target, weight in zip(targets_BC[0].tolist(), weights, strict=True)]
    expected = sum(share * cost for share, cost in zip(shares, hard, strict=True)) / sum(shares)
    assert loss(LOGITS[:1], targets_BC, COUNTS, SAMPLED, state).item() == pytest.approx(expected, rel=1e-5)


@each_loss
def test_the_gradient_is_the_loss_function_s(spec):
    """Automatic derivatives agree with finite differences in float64, what the paper keeps constant being constant."""
    if spec["name"] == "seesaw":
        spec = {**spec, "q": 0.0}  # compensation has no gradient by definition; see the next test
    logits_BC = LOGITS.double().requires_grad_()
    targets_BC = (one_hot(LABELS) * 0.7 + 0.3 / 4).double()
    loss = make("losses", spec)
    for state in states(loss, 4, targets_BC):
        assert torch.autograd.gradcheck(lambda z, state=state: loss(z, targets_BC, COUNTS, torch.ones(4), state), (logits_BC,))


def test_seesaw_has_no_gradient_through_its_factors():
    """The seesaw loss's slope is the weighted softmax's with its factors held fixed."""
    logits_BC = LOGITS.double().requires_grad_()
    Seesaw()(logits_BC, one_hot(LABELS).double(), COUNTS).backward()
    for logits, label, slope in zip(LOGITS.double(), LABELS, logits_BC.grad, strict=True):
        p, n = logits.softmax(0), COUNTS.double()
        factors = (n / n[label]).clamp(max=1) ** 0.8 * (p / p[label].clamp(min=0.01)).clamp(min=1) ** 2
        factors[label] = 1
        expected = factors * logits.exp() / (factors * logits.exp()).sum() - functional.one_hot(label, 4)
        torch.testing.assert_close(slope, expected / 3)


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(spec, dtype):
    """Logits of 16 bits give the loss of the same numbers in 32."""
    loss, logits_BC = make("losses", spec), (LOGITS * 3).to(dtype)
    arguments = (one_hot(LABELS), COUNTS, SAMPLED)
    assert loss(logits_BC, *arguments).dtype == torch.float32
    assert torch.equal(loss(logits_BC, *arguments), loss(logits_BC.float(), *arguments))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 80.0])
def test_extreme_logits_keep_value_and_gradient(spec, dtype, size):
    """Logits of +-80, right or wrong, give finite values and gradients that equal float64's."""
    signs_BC = torch.tensor([[1.0, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, -1, -1], [1, 1, -1, -1]])
    results = []
    for kind in (dtype, torch.float64):
        logits_BC = (signs_BC * size).to(kind).requires_grad_()
        loss = make("losses", spec)(logits_BC, one_hot(torch.tensor([0, 0, 2, 3])), COUNTS, SAMPLED)
        loss.backward()
        results.append((loss.double(), logits_BC.grad.double()))
    (loss, slope), (expected_loss, expected_slope) = results
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@each_loss
def test_a_class_with_one_image_and_one_sample(spec):
    """A batch of one, of a class with one image, has a finite loss that plain Python has too."""
    counts, sampled = [1000, 1], [500.0, 501.0]
    logits_BC, targets_BC = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.0, 1.0]])
    loss = make("losses", spec)
    for state in states(loss, 2, targets_BC):
        result = loss(logits_BC, targets_BC, torch.tensor(counts), torch.tensor(sampled), state)
        assert result.item() == pytest.approx(plain_mean(spec, logits_BC, targets_BC, counts, sampled, state), rel=2e-5)


@each_loss
def test_nothing_waits_for_the_device(spec):
    """Loss and state work on a device that has shapes but no values."""
    loss = make("losses", spec)
    state = {name: tensor.to("meta") for name, tensor in loss.state(4, torch.Generator()).items()}
    logits_BC = LOGITS.to("meta").requires_grad_()
    loss.advance(state, one_hot(LABELS).to("meta"))
    loss(logits_BC, one_hot(LABELS).to("meta"), COUNTS.to("meta"), SAMPLED.to("meta"), state).backward()
    assert logits_BC.grad.shape == LOGITS.shape


@each_loss
def test_each_loss_acts(spec):
    """Each loss differs from cross-entropy, but for the focal loss without focus."""
    arguments = (LOGITS, one_hot(LABELS), COUNTS, torch.tensor([9, 1, 1, 1]))
    is_same = torch.isclose(make("losses", spec)(*arguments), CrossEntropy()(*arguments)).item()
    assert is_same == (spec in ({"name": "cross_entropy"}, {"name": "focal", "gamma": 0.0}))


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


@pytest.mark.parametrize("gap", [-60.0, -15.0, 0.0, 15.0, 25.0, 60.0])
def test_ldam_keeps_its_digits_near_certainty(gap):
    """In float32 the loss of a label far ahead of the others is theirs in float64, where ln(1 - p) would have lost it."""
    logits_BC = torch.tensor([[gap, 0.0, -1.0]], requires_grad=True)
    LDAM(scale=2.0)(logits_BC, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([16, 1, 4])).backward()
    others = math.log(1 + math.exp(-1))
    excess = others - gap + 2 * 0.5 * (1 / 16) ** 0.25
    cost = LDAM(scale=2.0).losses_BC(logits_BC, torch.tensor([16, 1, 4]))[0, 0]
    assert cost.item() == pytest.approx(math.log1p(math.exp(excess)), rel=1e-5)
    assert logits_BC.grad[0, 0].item() == pytest.approx(-1 / (1 + math.exp(-excess)), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "equal"),
    [
        (Focal(gamma=0.0), CrossEntropy()),
        (LogitAdjusted(tau=0.0), CrossEntropy()),
        (VectorScaling(gamma=0.0, tau=0.0), CrossEntropy()),
        (LDAM(max_margin=0.0), CrossEntropy()),
        (Equalization(gamma=0.0), CrossEntropy()),
        (Seesaw(p=0.0, q=0.0), CrossEntropy()),
        (LogitAdjusted(), BalancedSoftmax()),
        (VectorScaling(gamma=0.0, tau=0.5), LogitAdjusted(tau=0.5)),
    ],
    ids=str,
)
def test_a_loss_at_rest_is_the_one_it_extends(loss, equal):
    """Each loss with its strength at zero is the loss that it extends, gradient included."""
    first, second = (LOGITS.clone().requires_grad_() for _ in range(2))
    loss(first, one_hot(LABELS), COUNTS).backward()
    equal(second, one_hot(LABELS), COUNTS).backward()
    torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(loss(first, one_hot(LABELS), COUNTS), equal(second, one_hot(LABELS), COUNTS))


def test_equals_timm():
    """timm's soft-target and binary cross-entropies are ours."""
    targets_BC = one_hot(LABELS) * 0.6 + 0.1
    torch.testing.assert_close(CrossEntropy()(LOGITS, targets_BC, COUNTS), SoftTargetCrossEntropy()(LOGITS, targets_BC))
    ours = Focal(form="sigmoid", gamma=0.0)(LOGITS, one_hot(LABELS), COUNTS)
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing=0.0, sum_classes=True)(LOGITS, one_hot(LABELS)))


@pytest.mark.parametrize("loss", [BalancedSoftmax, LogitAdjusted, VectorScaling])
def test_the_prior_is_the_chosen_one(loss):
    """With the sampled prior of a balancing sampler the loss is plain cross-entropy; with the training prior it is not."""
    arguments = (LOGITS, one_hot(LABELS), COUNTS, torch.full((4,), 156.25))
    plain = CrossEntropy()(*arguments)
    torch.testing.assert_close(loss(prior="sampled")(*arguments), plain)
    assert not torch.isclose(loss()(*arguments), plain)


def test_without_sampled_counts_the_prior_is_the_training_s():
    """A loss that is not told what the sampler draws takes the training counts."""
    arguments = (LOGITS, one_hot(LABELS), COUNTS)
    assert torch.equal(BalancedSoftmax(prior="sampled")(*arguments), BalancedSoftmax()(*arguments))


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (SimpleNamespace(name="linear"), "found classifier 'linear'; expected classifier {name: cosine, scale: 30.0}, because"),
        (SimpleNamespace(name="cosine", scale=16.0), "scale: found 30.0, and 16.0 in the classifier; expected classifier {name: cosine"),
    ],
)
def test_ldam_needs_the_cosine_classifier_of_its_scale(classifier, message):
    """Margins on logits of another kind or scale are refused, with what was found and expected."""
    with pytest.raises(ConfigError) as caught:
        LDAM().check(SimpleNamespace(classifier=classifier))
    assert str(caught.value).startswith(message)


def test_ldam_fits_the_cosine_classifier():
    """With the cosine classifier of its scale, and for other losses with any, nothing is said."""
    LDAM(scale=16.0).check(SimpleNamespace(classifier=SimpleNamespace(name="cosine", scale=16.0)))
    CrossEntropy().check(SimpleNamespace(classifier=SimpleNamespace(name="linear")))


def test_equalization_draws_are_those_of_seed_and_step():
    """Equal seeds and steps draw the same, others not, and the share of ones is gamma."""
    loss, logits_BC = Equalization(gamma=0.3), torch.zeros(200, 50)
    drawn = {}
    for seed in (0, 1):
        state = loss.state(50, torch.Generator().manual_seed(seed))
        for step in range(3):
            drawn[seed, step] = loss.drawn_BC(logits_BC, state)
            assert torch.equal(drawn[seed, step], loss.drawn_BC(logits_BC, state))
            loss.advance(state, logits_BC)
    shares = [one.float().mean().item() for one in drawn.values()]
    assert shares == pytest.approx([0.3] * 6, abs=0.02)
    names = list(drawn)
    agreements = [(drawn[a] == drawn[b]).float().mean().item() for i, a in enumerate(names) for b in names[:i]]
    assert agreements == pytest.approx([0.3**2 + 0.7**2] * 15, abs=0.025)


def test_equalization_leaves_rare_classes_alone():
    """A rare class has no gradient from the samples of other classes, a frequent one has."""
    logits_BC = LOGITS.clone().requires_grad_()
    Equalization(gamma=1.0)(logits_BC, one_hot(torch.tensor([0, 0, 3])), COUNTS).backward()
    assert (logits_BC.grad[:2, 2:] == 0).all()
    assert (logits_BC.grad[:2, 1] > 0).all()
    assert logits_BC.grad[2, 3] < 0


def test_seesaw_counts_what_it_saw():
    """The state begins at nothing seen and adds up the targets, soft ones too, in place."""
    loss = Seesaw()
    state = loss.state(4, torch.Generator())
    held = state["seen"]
    loss.advance(state, one_hot(LABELS))
    loss.advance(state, torch.full((2, 4), 0.25))
    assert held.tolist() == [1.5, 1.5, 0.5, 1.5]


def test_seesaw_in_chunks_is_the_same(monkeypatch):
    """However few labels are computed at a time, values and gradients are the same."""
    results = []
    for chunk in (2**24, 2 * LOGITS.numel() + 1, 1):
        monkeypatch.setattr(losses, "CHUNK", chunk)
        logits_BC = LOGITS.clone().requires_grad_()
        values_BC = Seesaw().losses_BC(logits_BC, COUNTS)
        values_BC.square().sum().backward()
        results.append((values_BC, logits_BC.grad))
    for values_BC, slope in results[1:]:
        torch.testing.assert_close(values_BC, results[0][0])
        torch.testing.assert_close(slope, results[0][1])


@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax", "focal", "ldam", "vs", "logit_adjusted"])
def test_a_loss_without_a_state_carries_nothing(name):
    """Most losses start with an empty state and leave it so."""
    loss = make("losses", name)
    state = loss.state(4, torch.Generator())
    loss.advance(state, one_hot(LABELS))
    assert state == {}


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
        (
            {"name": "class_balanced_sigmoid", "beta": 0.99},
            {"name": "focal", "gamma": 0.0, "form": "sigmoid", "weights": {"name": "effective_number", "beta": 0.99}},
        ),
    ],
)
def test_short_forms(short, full):
    """A short form resolves to the loss that it stands for."""
    assert make("losses", short) == make("losses", full)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("weighted_cross_entropy", "weights", "none"),
        ("class_balanced", "weights", "none"),
        ("class_balanced_focal", "weights", "none"),
        ("class_balanced_sigmoid", "weights", "none"),
        ("class_balanced_sigmoid", "gamma", 2.0),
        ("class_balanced_sigmoid", "form", "softmax"),
    ],
)
def test_a_short_form_takes_nothing_that_it_sets(name, field, value):
    """A field beside a name that sets it is a contradiction, and told as one."""
    with pytest.raises(ConfigError, match=f"{field}: found {value!r}; expected no {field}, because {name} sets its own"):
        make("losses", {"name": name, field: value})


def test_mixed_targets_are_the_mixed_losses():
    """Under MixUp's targets the weighted mean is Zhang's two terms, each with its class's weight."""
    targets_BC = 0.3 * one_hot(LABELS) + 0.7 * one_hot(LABELS.flip(0))
    losses_BC = CrossEntropy().losses_BC(LOGITS, COUNTS).numpy()
    weights = np.array(plain_weights({"name": "class_balanced"}, COUNTS.tolist()))
    first, second = LABELS.numpy(), LABELS.flip(0).numpy()
    rows = np.arange(3)
    total = (0.3 * weights[first] * losses_BC[rows, first] + 0.7 * weights[second] * losses_BC[rows, second]).sum()
    expected = total / (0.3 * weights[first] + 0.7 * weights[second]).sum()
    assert make("losses", "class_balanced")(LOGITS, targets_BC, COUNTS).item() == pytest.approx(expected, rel=1e-5)


def test_one_sample():
    """A batch of one has its own loss, whatever its weight."""
    assert average(torch.tensor([[3.0, 5.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([9.0, 0.5])).item() == 5.0


# --- the field's numbers for CIFAR-10-LT at imbalance 100 -----------------------------------------------------

CIFAR_COUNTS = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
CIFAR_MARGINS = [0.158114, 0.179697, 0.204238, 0.232091, 0.263829, 0.299768, 0.340675, 0.387221, 0.440497, 0.5]
CIFAR_LOG_PRIOR = [-0.908742, -1.420568, -1.932618, -2.444001, -2.956685, -3.467511, -3.979198, -4.491462, -5.007095, -5.513913]


def test_the_margins_are_those_of_the_paper():
    """At equal logits the cost of a label is ln(1 + (C - 1) * exp(margin)), from which the margin of each class can be read."""
    loss = make("losses", {"name": "ldam", "scale": 1.0})
    costs_C = loss.losses_BC(torch.zeros(1, 10, dtype=torch.float64), CIFAR_COUNTS)[0]
    margins = torch.log(torch.expm1(costs_C) / 9).tolist()
    assert margins == pytest.approx(CIFAR_MARGINS, abs=1e-6)


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjusted"])
def test_what_is_added_is_the_log_prior(name):
    """At equal logits the cost of a label is minus the logarithm of its share of the training images."""
    costs_C = make("losses", name).losses_BC(torch.zeros(1, 10, dtype=torch.float64), CIFAR_COUNTS)[0]
    assert (-costs_C).tolist() == pytest.approx(CIFAR_LOG_PRIOR, abs=1e-6)
