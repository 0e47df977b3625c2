"""The matrix of rungs: which of them each arm has, and which of those a later rung replaces."""

import pytest

from ablation.report.documents.latex_matrix import replaced_in, rungs_in
from ablation.study.resolving import load_study

BASE = """
study: rungs
seeds: [0]
base: {data: digits, model: test_efficientnet, optimizer: {name: adamw, lr: 1e-3}, epochs: 4}
ladder:
  baseline: {}
"""


def marks(tmp_path, layers):
    """arm -> its row: a letter for each rung, `y` for one that holds, `o` for one that is replaced, `.` for one that it lacks."""
    file = tmp_path / "rungs.yaml"
    file.write_text(BASE + layers, encoding="utf-8")
    kept = ("name", "parent", "kind", "change", "factors")
    plan = {"arms": [{name: getattr(arm, name) for name in kept} for arm in load_study(file).arms]}
    members = rungs_in(plan, [arm["name"] for arm in plan["arms"]])
    replaced = replaced_in(plan, members)
    rungs = [arm["name"] for arm in plan["arms"] if arm["kind"] == "ladder"][1:]
    return {
        arm: "".join("o" if rung in replaced[arm] else "y" if rung in of_arm else "." for rung in rungs) for arm, of_arm in members.items()
    }


def test_a_replaced_loss(tmp_path):
    """Balanced softmax ends the weights of the loss before it; without it, they are back."""
    found = marks(
        tmp_path,
        "  weighted: {loss: weighted_cross_entropy}\n  mixup: {mix: mixup}\n  balanced-softmax: {loss: balanced_softmax}\n"
        "drop_one: [balanced-softmax]\n",
    )
    assert found == {
        "baseline": "...", "weighted": "y..", "mixup": "yy.", "balanced-softmax": "oyy",
        "balanced-softmax/without-weighted": ".yy", "balanced-softmax/without-mixup": "o.y",
        "balanced-softmax/without-balanced-softmax": "yy.",
    }  # fmt: skip


def test_an_arm_below_one_that_was_not_run_is_left_out():
    """Nothing tells what the arm above it sets, so no mark could be right."""
    arms = [
        {"name": name, "parent": parent, "kind": kind, "change": {}, "factors": factors}
        for name, parent, kind, factors in (
            ("baseline", None, "ladder", {}),
            ("mixup", "cb", "ladder", {}),
            ("tta", "mixup", "ladder", {}),
            ("tta/without-cb", "tta", "drop_one", {"without": "cb"}),
            ("ls", "baseline", "ladder", {}),
        )
    ]
    assert rungs_in({"arms": arms}, [one["name"] for one in arms]) == {"baseline": [], "ls": ["ls"]}


ALONE = {"baseline/with-weighted": "y.", "baseline/with-balanced-softmax": ".y"}
SUBSETS = {"grid/weighted": "y.", "grid/balanced-softmax": ".y", "grid/weighted+balanced-softmax": "oy"}


@pytest.mark.parametrize(
    ("mode", "added"),
    [("add_one: [baseline]\n", ALONE), ("grid: {rungs: [weighted, balanced-softmax]}\n", SUBSETS)],
    ids=["add one", "grid"],
)
def test_rungs_over_another_arm(tmp_path, mode, added):
    """A rung alone holds; together, one replaces the other, as on the ladder."""
    found = marks(tmp_path, f"  weighted: {{loss: weighted_cross_entropy}}\n  balanced-softmax: {{loss: balanced_softmax}}\n{mode}")
    assert found == {"baseline": "..", "weighted": "y.", "balanced-softmax": "oy", **added}


def test_decoupled_stages(tmp_path):
    """A sampler that one stage replaces is replaced; what a stage sets holds until a later rung sets it for all stages."""
    found = marks(
        tmp_path,
        "  balanced: {sampler: class_balanced}\n"
        "  decoupled: {stages: [{epochs: 3, sampler: shuffle}, {epochs: 1, train: head}]}\n"
        "  root: {sampler: square_root, stages: [{epochs: 3}, {epochs: 1, train: head}]}\n",
    )
    assert found == {"baseline": "...", "balanced": "y..", "decoupled": "oy.", "root": "ooy"}


def test_another_split_of_the_epochs_keeps_them(tmp_path):
    """The epochs in all are as many."""
    found = marks(tmp_path, "  longer: {epochs: 6}\n  decoupled: {stages: [{epochs: 3}, {epochs: 3, train: head}]}\n")
    assert found["decoupled"] == "yy"


def test_an_augmentation_in_the_place_of_another(tmp_path):
    """Its settings are gone with it; one after it keeps it."""
    layers = "  flip: {augment: [hflip]}\n  both: {augment: [hflip, crop]}\n  other: {augment: [crop]}\n"
    found = marks(tmp_path, layers)
    assert found == {"baseline": "...", "flip": "y..", "both": "yy.", "other": "ooy"}
