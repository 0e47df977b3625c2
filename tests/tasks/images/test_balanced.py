"""Arms that correct for class counts on data that has nothing to correct."""

import pytest
import torch

from ablation.tasks.images.balanced import balanced_notes
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
    "loss balanced_softmax (bsm and late) and posthoc logit_adjustment (post): there the plain loss and scores give the same"
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
    assert planned.remarks([]) == []


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
