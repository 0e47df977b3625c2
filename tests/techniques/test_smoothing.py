"""Smoothing. Shapes: B batch, C classes."""

import math

import pytest
import torch
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.losses import CrossEntropy
from ablation.techniques.smoothing import LabelAware, LabelSmoothing, NoSmoothing, check_strength
from ablation.techniques.technique import make

COUNTS = torch.tensor([500, 100, 20, 5])
LOGITS = torch.tensor([[2, 1, 0.5, -1], [0.2, -0.3, 0.1, 0.4], [1.5, 0, -0.5, 0.7]])
TARGETS = torch.eye(4)[torch.tensor([0, 3, 1])]
SPREADS = ("all", "others", "classy")
EVERY = [
    *(LabelSmoothing(epsilon=0.3, spread=spread) for spread in SPREADS),
    *(LabelAware(tail=0.1, spread=spread, shape=shape) for spread in ("all", "others") for shape in ("concave", "linear", "convex")),
]


def plain_row(true, epsilon, spread, num_classes):
    """The smoothed target of one class, in plain Python from its definition."""
    each, sure = {
        "all": (epsilon / num_classes, 1 - epsilon + epsilon / num_classes),
        "others": (epsilon / (num_classes - 1), 1 - epsilon),
        "classy": (epsilon / num_classes / (1 + epsilon), (1 + epsilon / num_classes) / (1 + epsilon)),
    }[spread]
    return [sure if c == true else each for c in range(num_classes)]


def plain_epsilons(counts, head, tail, shape):
    """Each class's epsilon by the three formulas of the official code, in plain Python."""
    most, least = max(counts), min(counts)
    places = [(n - least) / (most - least) for n in counts]
    return {
        "concave": [tail + (head - tail) * math.sin(x * math.pi / 2) for x in places],
        "linear": [tail + (head - tail) * x for x in places],
        "convex": [head + (head - tail) * math.sin(1.5 * math.pi + x * math.pi / 2) for x in places],
    }[shape]


@pytest.mark.parametrize(
    ("spread", "row"),
    [
        ("all", [0.85, 0.05, 0.05, 0.05]),
        ("others", [0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3]),
        ("classy", [1.05 / 1.2, 0.05 / 1.2, 0.05 / 1.2, 0.05 / 1.2]),
    ],
)
def test_a_hard_target_is_spread_by_hand(spread, row):
    """epsilon 0.2 over four classes gives the row computed by hand."""
    smoothed = LabelSmoothing(epsilon=0.2, spread=spread)(TARGETS, COUNTS)
    torch.testing.assert_close(smoothed[0], torch.tensor(row))


@pytest.mark.parametrize(("spread", "expected"), [("all", 1.276480), ("others", 1.290369), ("classy", 1.272692)])
def test_known_losses(spread, expected):
    """Cross-entropy under the smoothed targets is the known number; torch computes the one over all classes."""
    loss = CrossEntropy()(LOGITS, LabelSmoothing(spread=spread)(TARGETS, COUNTS), COUNTS)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    if spread == "all":
        torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, TARGETS.argmax(1), label_smoothing=0.1))


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_rows_of_any_targets_keep_their_sum(technique):
    """Hard or mixed, a target's classes sum to one after smoothing too, and none is below zero."""
    for targets in (TARGETS, 0.3 * TARGETS + 0.7 * TARGETS.flip(0)):
        smoothed = technique(targets, COUNTS)
        torch.testing.assert_close(smoothed.sum(1), torch.ones(3))
        assert (smoothed >= 0).all()


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_smoothing_mixed_targets_is_mixing_smoothed_targets(technique):
    """Every convention is linear, so the order of mixing and smoothing does not matter."""
    mixed = 0.3 * TARGETS + 0.7 * TARGETS.flip(0)
    expected = 0.3 * technique(TARGETS, COUNTS) + 0.7 * technique(TARGETS.flip(0), COUNTS)
    torch.testing.assert_close(technique(mixed, COUNTS), expected)
    torch.testing.assert_close(technique(mixed, COUNTS), mixed @ technique(torch.eye(4), COUNTS))


def test_the_conventions_convert():
    """e of `others` is e * C / (C - 1) of `all`, and e of `classy` is e / (1 + e) of `all`."""
    torch.testing.assert_close(LabelSmoothing(epsilon=0.15, spread="others")(TARGETS, COUNTS), LabelSmoothing(epsilon=0.2)(TARGETS, COUNTS))
    torch.testing.assert_close(LabelSmoothing(epsilon=0.25, spread="classy")(TARGETS, COUNTS), LabelSmoothing(epsilon=0.2)(TARGETS, COUNTS))


@pytest.mark.parametrize(
    "technique",
    [
        NoSmoothing(),
        *(LabelSmoothing(epsilon=0.0, spread=spread) for spread in SPREADS),
        LabelAware(head=0.0),
        LabelAware(head=0.0, spread="others", shape="convex"),
    ],
    ids=str,
)
def test_no_epsilon_changes_nothing(technique):
    """Without epsilon the targets stay, which is told, and without a name a mapping is label smoothing."""
    assert torch.equal(technique(TARGETS, COUNTS), TARGETS)
    assert bool(technique.why_neutral) == (technique != NoSmoothing())
    assert make("smoothing", {"epsilon": 0.2}) == LabelSmoothing(epsilon=0.2)


@pytest.mark.parametrize("shape", ["concave", "linear", "convex"])
@pytest.mark.parametrize(("head", "tail"), [(0.3, 0.0), (0.4, 0.1), (0.0, 0.2)])
@pytest.mark.parametrize("spread", ["all", "others"])
def test_label_aware_equals_plain_python(shape, head, tail, spread):
    """Each class's target is the hard one spread by that class's epsilon of the official formulas."""
    technique = LabelAware(head=head, tail=tail, shape=shape, spread=spread)
    epsilons = plain_epsilons(COUNTS.tolist(), head, tail, shape)
    expected = [plain_row(c, epsilon, spread, 4) for c, epsilon in enumerate(epsilons)]
    torch.testing.assert_close(technique(torch.eye(4), COUNTS), torch.tensor(expected))


def test_label_aware_gives_the_loss_of_its_code():
    """The mean loss is (1 - e) * -ln p_y + e * mean over the classes of -ln p, with each sample's own e."""
    labels, minus_logs = TARGETS.argmax(1).tolist(), -functional.log_softmax(LOGITS, dim=1)
    epsilons = plain_epsilons(COUNTS.tolist(), 0.3, 0.0, "concave")
    rows = [(1 - epsilons[y]) * row[y] + epsilons[y] * row.mean() for y, row in zip(labels, minus_logs, strict=True)]
    loss = CrossEntropy()(LOGITS, LabelAware()(TARGETS, COUNTS), COUNTS)
    torch.testing.assert_close(loss, sum(rows) / 3)


@pytest.mark.parametrize("shape", ["concave", "linear", "convex"])
@pytest.mark.parametrize("counts", [[7, 7, 7, 7], [1, 1, 1, 1]], ids=str)
def test_equal_counts_have_the_heads_epsilon(shape, counts):
    """Where no class is rarer than another, label-aware smoothing is plain smoothing with the head's epsilon."""
    result = LabelAware(head=0.2, shape=shape)(TARGETS, torch.tensor(counts))
    torch.testing.assert_close(result, LabelSmoothing(epsilon=0.2)(TARGETS, COUNTS))


@pytest.mark.parametrize("technique", [*(LabelSmoothing(spread=spread) for spread in ("all", "classy")), LabelAware()], ids=str)
def test_one_class_stays_certain(technique):
    """With a single class there is nothing to spread over."""
    torch.testing.assert_close(technique(torch.ones(2, 1), torch.tensor([5])), torch.ones(2, 1))


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_acts(technique):
    """Smoothing changes targets, loss and gradient."""
    results = []
    for smoothing in (NoSmoothing(), technique):
        logits = LOGITS.clone().requires_grad_()
        loss = CrossEntropy()(logits, smoothing(TARGETS, COUNTS), COUNTS)
        loss.backward()
        results.append((loss.item(), logits.grad))
    assert results[0][0] != results[1][0]
    assert not torch.allclose(results[0][1], results[1][1])


def test_label_aware_smooths_common_classes_more():
    """The true class's share falls with its count, most in the concave shape."""
    kept = {shape: LabelAware(shape=shape)(torch.eye(4), COUNTS).diagonal() for shape in ("concave", "linear", "convex")}
    assert all((shares.diff() > 0).all() for shares in kept.values())
    assert (kept["concave"][1:3] < kept["linear"][1:3]).all()
    assert (kept["linear"][1:3] < kept["convex"][1:3]).all()


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 0.5, 2 / 3, 0.9, 1.0])
@pytest.mark.parametrize("spread", SPREADS)
def test_a_label_is_the_likeliest_class_or_refused(num_classes, epsilon, spread):
    """An epsilon is allowed as long as the labelled class has the largest target."""
    one = {"name": "label_smoothing", "epsilon": epsilon, "spread": spread}
    aware = [{"name": "label_aware", "head": head, "tail": tail, "spread": spread} for head, tail in ((epsilon, 0.0), (0.0, epsilon))]
    for spec in [one, *(aware if spread != "classy" else [])]:
        smoothing, eye_CC = make("smoothing", spec), torch.eye(num_classes, dtype=torch.float64)
        smoothed_CC = smoothing(eye_CC, torch.arange(num_classes, 0, -1))
        others_C = smoothed_CC.masked_fill(eye_CC.bool(), -1).max(1).values
        if bool((smoothed_CC.diag() > others_C + 1e-6).all()):
            check_strength(smoothing, num_classes)
        else:
            with pytest.raises(ConfigError, match=rf"found {epsilon:g} with spread: {spread}, which gives the labelled one of .* classes"):
                check_strength(smoothing, num_classes)


def test_a_smoothing_that_inverts_the_labels_names_the_limit():
    """Two classes with 0.9 spread over the other one are taken for each other."""
    words = "gives the labelled one of 2 classes 0.1 and each other one 0.9; expected less than 0.5"
    with pytest.raises(ConfigError, match=words) as error:
        check_strength(LabelSmoothing(epsilon=0.9, spread="others"), 2)
    assert error.value.path == "epsilon"
    check_strength(NoSmoothing(), 2)
