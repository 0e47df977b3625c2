"""A plan in words."""

from dataclasses import replace

import pytest

from ablation.planning import explain
from ablation.planning.listing import listing
from ablation.planning.plan import make_plan
from ablation.planning.recorded_values import lacking_metric
from ablation.planning.states import RecordedState
from tests.studies import BASE, planner, study

SECTIONS = {
    "ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}, "mixup": {"mix": {"name": "mixup", "alpha": 0.4}}},
    "variants": {"focal": {"loss": "focal"}, "reweight": {"sampler": "class_balanced"}},
    "sweeps": {
        "alpha": {"of": "mixup", "over": {"mix.alpha": [0.2, 1.0]}},
        "both": {"over": {"batch_size": [32, 64], "drop_last": [True, False]}},
    },
    "drop_one": ["mixup"],
    "conditions": {"averaged": {"average": {"name": "ema", "decay": 0.9}}},
}
LONG = {f"variant-with-a-long-name-{i}": {"loss": {"name": "focal", "gamma": 0.5 + i}} for i in range(30)}


def plan_of(folder, **sections):
    resolved = study(folder, **({"base": BASE} | sections))
    return make_plan(resolved, resolved.seeds, [arm.name for arm in resolved.arms], planner(resolved), RecordedState())


def screen(plan):
    """What `ablate plan` prints."""
    return explain.screen(plan, planner(plan.study), 2)


def test_the_arms_are_a_line_for_each_family(tmp_path):
    """The ladder, the variants, each sweep with its axes, what is dropped, each condition with its change."""
    lines = screen(plan_of(tmp_path, **SECTIONS)).splitlines()
    assert lines[0] == "s: 26 arms x 2 seeds = 52 runs (52 to do)"
    rows = [" ".join(line.split()) for line in lines[3:10]]
    assert rows == [
        "ladder 3 baseline, cb and mixup",
        "variants 2 focal and reweight",
        "alpha 2 of mixup; mix.alpha 0.2 and 1.0",
        "both 4 of baseline; batch_size 32 and 64 x drop_last true and false",
        "drop one 2 mixup without cb and mixup",
        "averaged 13 average ema (decay 0.9): baseline, cb, mixup, focal, reweight, alpha/0.2, alpha/1.0,",
        "both/32/true and 5 more",
    ]


def test_the_images_of_each_class_stand_below_its_name(tmp_path):
    """The classes are side by side, with a line for each split."""
    lines = screen(plan_of(tmp_path)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("data: digits"))
    assert lines[start + 1].split() == ["images", *"abcdefghij"]
    assert lines[start + 2].split() == ["training", "140", "126", "112", "98", "84", "70", "56", "42", "28", "14"]


def test_many_classes_are_a_range():
    """Of more than twenty classes the smallest and the largest are told."""
    account = {"classes": [f"class {i}" for i in range(30)], "counts": {"training": list(range(5, 35)), "test": [20] * 30}}
    assert explain._classes(account) == [
        "  training: 5 to 34 images per class (fewest: class 0, most: class 29)",
        "  test: 20 images per class",
    ]


def test_the_metric_and_its_reason(tmp_path):
    """What verdicts go by is told with the reason, or that the file says so."""
    assert "\nmetric: accuracy (all 10 classes have 36 test images)\n" in screen(plan_of(tmp_path))
    assert "\nmetric: macro-F1 (set in the file)\n" in screen(plan_of(tmp_path, metric="macro_f1"))


def test_runs_without_the_metric_are_told(tmp_path):
    """Those that are recorded and used as they are; `--rerun cached` tests them again."""
    fresh = plan_of(tmp_path, metric="auroc")
    plan = replace(fresh, runs=tuple(replace(run, state="done") for run in fresh.runs))
    known = [
        {
            "tags": {"ablation.kind": "run", "ablation.arm": run.arm, "ablation.seed": str(run.seed), "ablation.key": run.used_key},
            "status": "FINISHED",
            "metrics": {"test/accuracy": 0.5},
        }
        for run in plan.runs
    ]
    assert lacking_metric(fresh, known) == []
    assert lacking_metric(plan, known) == ["note: 2 of 2 recorded runs have no AUROC; --rerun cached tests them again"]
    known[0]["metrics"]["test/auroc"] = 0.9
    assert lacking_metric(plan, known) == ["note: 1 of 2 recorded runs has no AUROC; --rerun cached tests them again"]
    known[1]["metrics"]["test/auroc"] = 0.9
    assert lacking_metric(plan, known) == []
    assert "\nmetric: AUROC (set in the file)\n" in screen(plan)


@pytest.mark.parametrize("sections", [SECTIONS, {"variants": LONG}])
def test_nothing_is_wider_than_100_columns(tmp_path, sections):
    """Neither the screen, which has at most 40 lines, nor all arms, runs and stages."""
    plan = plan_of(tmp_path, **sections)
    text, at_length = screen(plan), listing(plan)
    assert len(text.splitlines()) <= 40
    assert max(map(len, [*text.splitlines(), *at_length.splitlines()])) <= 100


def test_all_is_listed_at_length(tmp_path):
    """Every arm with its change, every run with its reason, every stage with what shares it."""
    text = listing(plan_of(tmp_path, **SECTIONS))
    assert "\n  cb (against baseline): sampler class_balanced\n" in text
    assert "\n  reweight (against baseline): sampler class_balanced; same training as cb\n" in text
    assert "\n  focal seeds 0-1: missing, new\n" in text
    assert len([line for line in text.splitlines() if " seed 0: missing, 6 epochs" in line]) > 3


def test_reasons_are_counted_and_the_rest_summed_up(tmp_path):
    """The six commonest reasons have a line each, the others one."""
    plan = plan_of(tmp_path, variants={f"v{i}": {"loss": {"name": "focal", "gamma": 1.0 + i}} for i in range(8)})
    runs = tuple(run.__class__(**{**vars(run), "reason": f"reason {run.arm}"}) for run in plan.runs)
    lines = explain._reasons(plan.__class__(**{**vars(plan), "runs": runs}))
    assert lines[0] == "why:"
    assert lines[1] == "  2 runs  reason baseline"
    assert lines[-1] == "  6 runs  for 3 other reasons"
    assert len(lines) == 8
