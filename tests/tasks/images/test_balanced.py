"""Arms that correct for class counts on data that has nothing to correct."""

import pytest
import torch

from ablation.tasks.images.balanced import balanced_notes, finds_no_rare, samples_as_it_is
from ablation.techniques.losses import Equalization
from ablation.techniques.technique import make
from tests.studies import context, planner, source, study

VARIANTS = {
    "weights": {"loss": "weighted_cross_entropy"},
    "bsm": {"loss": "balanced_softmax"},
    "late": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "loss": "balanced_softmax"}]},
    "sampled": {"loss": {"name": "balanced_softmax", "prior": "sampled"}},
    "focal": {"loss": "focal"},
    "post": {"posthoc": "logit_adjustment"},
}
BALANCED = source((20,) * 10)
WORDS = (
    "all classes have equally many training images, which leaves nothing to correct for class weights inverse (weights), "
    "loss balanced_softmax (bsm, late and sampled) and posthoc logit_adjustment (post): there the plain loss and scores give the same"
)


def test_the_plan_says_so(tmp_path):
    """In its remarks and in the notes of the record, of the arms that were planned."""
    whole = study(tmp_path, variants=VARIANTS)
    planned = planner(whole, context(BALANCED))
    assert planned.remarks([]) == planned.notes(whole.arms) == []
    for arm in whole.arms:
        planned.steps(arm, 0)
    assert planned.remarks([]) == planned.notes(whole.arms) == [WORDS]


def test_a_long_tail_is_corrected(tmp_path):
    """Nothing is said where the counts differ."""
    whole = study(tmp_path, variants=VARIANTS)
    planned = planner(whole, context(source((21, *(20,) * 9))))
    for arm in whole.arms:
        planned.steps(arm, 0)
    same = "the sampler draws the classes as the training images have them, for loss.prior sampled (sampled)"
    assert planned.remarks([]) == planned.notes(whole.arms) == [f"{same}: there loss.prior training gives the same"]


def test_a_sampled_prior_acts_beside_a_sampler_that_balances(tmp_path):
    """Also in one stage alone."""
    loss = {"loss": {"name": "balanced_softmax", "prior": "sampled"}}
    stages = [{"epochs": "1/2", "sampler": "class_balanced"}, {"epochs": "1/2", "sampler": "shuffle"}]
    whole = study(tmp_path, variants={"all": {**loss, "sampler": "class_balanced"}, "half": {**loss, "stages": stages}})
    assert [samples_as_it_is(arm) for arm in whole.arms] == [False, False, True]


def test_an_equalization_without_a_rare_class(tmp_path):
    """Of the planned arms, those whose loss spares no class are named, in the remarks and in the notes of the record."""
    losses = {"eql": "equalization", "wide": {"name": "equalization", "rarity": 1.0}, "focal": "focal"}
    whole = study(tmp_path, variants={name: {"loss": loss} for name, loss in losses.items()})
    planned = planner(whole, context(source((30, *(20,) * 9))))
    for arm in whole.arms:
        planned.steps(arm, 0)
    rare = "no class is rare, with fewer images than rarity times an equal share of them"
    note = f"{rare}, for loss equalization (eql): there the cross-entropy gives the same"
    assert planned.remarks([]) == planned.notes(whole.arms) == [note]


@pytest.mark.parametrize(
    ("counts", "rarity"),
    [((40, 20, 20, 10), 0.5), ((30, 20, 20, 10), 0.5), ((300, 200, 200, 99), 0.5), ((50, 40, 20, 10), 0.1), ((5, 4), 1.0), ((9, 9), 1.5)],
)
def test_what_is_rare_is_the_loss_s_own(tmp_path, counts, rarity):
    """No class is rare exactly where the loss is the cross-entropy, also at the threshold itself."""
    arm = study(tmp_path, variants={"v": {"loss": {"name": "equalization", "rarity": rarity}}}).arms[1]
    logits_BC, counts_C = torch.randn(64, len(counts), generator=torch.Generator().manual_seed(0)), torch.tensor(counts)
    loss = Equalization(rarity=rarity).losses_BC(logits_BC, counts_C)
    is_plain = torch.allclose(loss, make("losses", "cross_entropy").losses_BC(logits_BC, counts_C))
    assert finds_no_rare(arm, counts) == is_plain


@pytest.mark.parametrize(
    "spec",
    [
        *(name for name in ("cross_entropy", "balanced_softmax", "logit_adjusted", "vs", "equalization", "weighted_cross_entropy")),
        "class_balanced",
        "seesaw",
        {"name": "equalization", "rarity": 2.0},
    ],
)
def test_which_losses_equal_counts_make_the_cross_entropy(tmp_path, spec):
    """Those that are told, and no others."""
    arms = study(tmp_path, variants={"v": {"loss": spec}} if spec != "cross_entropy" else {"v": {"loss": "focal"}}).arms
    logits_BC, targets_BC, counts_C = torch.randn(8, 4), torch.eye(4)[[0, 1, 2, 3, 3, 2, 1, 0]], torch.full((4,), 20)
    loss, plain = make("losses", spec), make("losses", "cross_entropy")(logits_BC, targets_BC, counts_C)
    is_plain = bool(torch.isclose(loss(logits_BC, targets_BC, counts_C), plain))
    assert bool(balanced_notes(arms)) == (is_plain and spec != "cross_entropy")
