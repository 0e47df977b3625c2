"""Groups of classes are the same in all arms, whatever their long tails: a mean over other classes makes no pair."""

import json
from dataclasses import replace

import pytest

from ablation.study import groups
from ablation.system import sealed
from tests.studies import BASE, context, planner, source, study
from tests.tiny import Planned, write

COUNTS = {"baseline": (100, 71, 50, 35, 25, 17, 12, 9, 6, 5), "natural": (142, 146, 141, 146, 145, 145, 145, 143, 139, 144)}


def made(folder, counts=COUNTS, **sections):
    """A planner whose arms have these training images."""
    longtail = {"name": "exponential", "imbalance": 20, "largest": 40}
    base = {**BASE, "data": {"name": "digits", "longtail": longtail}}
    whole = study(folder, base=base, variants={"natural": {"data.longtail": "none"}}, **sections)
    known = replace(context(), source=lambda arm, seed: source(counts[arm.name]))
    return planner(whole, known), {arm.name: arm for arm in whole.arms}


def requested(folder, counts=COUNTS, **sections):
    """The groups that each arm is tested with."""
    of_study, arms = made(folder, counts, **sections)
    return {name: of_study.request(arm, 0, of_study.steps(arm, 0)).groups for name, arm in arms.items()}


@pytest.mark.parametrize("written", ["thirds", {"many": ">60", "few": "<20"}, {"many": ">1000", "few": "<20"}, {"few": "<20"}])
def test_all_arms_have_the_groups_of_the_first(tmp_path, written):
    """By rank, by bounds, and where one of them is empty."""
    asked = requested(tmp_path, groups=written)
    expected = groups.resolve(written, COUNTS["baseline"], source().classes)
    assert asked["baseline"] == written
    for name, counts in COUNTS.items():
        assert groups.resolve(asked[name], counts, source().classes) == expected, name


@pytest.mark.parametrize("written", ["thirds", {"many": ["a", "b"], "few": ["j"]}])
def test_arms_with_the_same_groups_are_tested_as_the_file_says(tmp_path, written):
    """So that their keys are what they were."""
    counts = COUNTS | {"natural": tuple(2 * count for count in COUNTS["baseline"])}
    assert requested(tmp_path, counts, groups=written) == {"baseline": written, "natural": written}


def test_facts_and_metric_are_by_the_same_groups(tmp_path):
    """A metric of a group that the arm's own images would leave empty is that of the first arm's classes."""
    of_study, arms = made(tmp_path, groups={"many": ">60", "few": "<20"}, metric="few")
    facts = [of_study.facts(arm, [0])["groups"] for arm in arms.values()]
    assert facts[0] == facts[1]
    assert facts[0]["few"] == ["f", "g", "h", "i", "j"]
    assert of_study.metric(arms["natural"], 0)[0] == "test/few"


def test_a_run_is_tested_by_them(tmp_path):
    """The recorded recall of a group is the mean over the first arm's classes."""
    longtail = {"name": "exponential", "imbalance": 20, "largest": 40}
    layers = {"base": {"data": {"name": "digits", "longtail": longtail}, "epochs": 1}, "variants": {"natural": {"data.longtail": "none"}}}
    planned = Planned(write(tmp_path, groups={"many": ">30", "few": "<5"}, **layers), tmp_path / "mlruns")
    planned.carry_out()
    few = planned.planner.facts(planned.planner.study.arms[0], [0])["groups"]["few"]
    assert len(few) > 1
    for arm in ("baseline", "natural"):
        metrics = json.loads((planned.result(arm) / sealed.RESULT).read_text())["metrics"]
        recalls = [metrics[f"test/recall/{name}"] for name in few]
        assert metrics["test/few"] == pytest.approx(sum(recalls) / len(recalls))
