"""What has changed since a run was recorded, in words."""

import pytest

from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedRun, RecordedState
from ablation.study.params import changed_params, params
from ablation.study.task import load_task
from ablation.tasks.images.schema import SCHEMA
from tests.studies import BASE, planner, source, study
from tests.studies import context as context_of

MIXED = {**BASE, "mix": {"name": "mixup", "alpha": 0.4}}


def planned(folder, base, known=None, past=(), name="study.yaml", **sections):
    """The plan of a study with one arm and one seed, given what is recorded of it."""
    resolved = study(folder, base=base, seeds=(0,), name=name, **sections)
    state = RecordedState({("baseline", 0): list(past)})
    return make_plan(resolved, (0,), ["baseline"], planner(resolved, known), state)


def record(plan, known=None, **inputs):
    """The plan's run as the store has it once it is finished; with other inputs, it was made of these."""
    (run,), (arm,) = plan.runs, plan.study.arms
    made_of = planner(plan.study, known).inputs(arm, 0) | inputs
    return RecordedRun(run.key, run.content, "FINISHED", "", "", params(arm, 0, load_task()), made_of)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"mix": {"name": "mixup", "alpha": 0.3}}, "mix.alpha 0.4 -> 0.3"),
        ({"mix": "none"}, "mix mixup -> none"),
        ({"epochs": 7, "batch_size": 64}, "epochs 6 -> 7; batch_size 128 -> 64"),
        ({"augment": ["hflip"]}, "augment.0 none -> hflip"),
        ({"model": {"name": "test_efficientnet", "image_size": 16}}, "model.image_size 32 -> 16"),
        ({"stages": [{"epochs": 2}, {"epochs": 4, "loss": "focal"}]}, "has changed: stages 1 -> 2"),
    ],
)
def test_settings_are_named_with_both_values(tmp_path, now, words):
    """A run that has other settings than the recorded one says which, old -> new; of a replaced technique only its name."""
    before = record(planned(tmp_path, MIXED))
    (run,) = planned(tmp_path, MIXED | now, past=[before]).runs
    assert (run.state, run.reason.partition(": ")[0]) == ("missing", "has changed")
    assert words in run.reason
    assert ("alpha" in run.reason) == (words.startswith("mix.alpha"))


def test_many_changes_are_counted(tmp_path):
    """Four changes are named, the rest counted."""
    before = record(planned(tmp_path, MIXED))
    more = {"epochs": 7, "batch_size": 64, "tta": "hflip", "loss": "focal", "sampler": "class_balanced", "average": "ema"}
    (run,) = planned(tmp_path, MIXED | more, past=[before]).runs
    assert run.reason.count(" -> ") == 4
    assert run.reason.endswith("and 2 other changes")


@pytest.mark.parametrize(
    ("known", "sections", "words"),
    [
        (context_of(source(digest="other")), {}, "other images or another split"),
        (context_of(weights="other"), {}, "other weights to start from"),
        (context_of(precision="bf16"), {}, "precision fp32 -> bf16"),
        (None, {"groups": {"many": ">90", "few": "<30"}}, 'groups "thirds" -> {"many": ">90", "few": "<30"}'),
    ],
)
def test_what_is_no_setting_is_named_too(tmp_path, known, sections, words):
    """Data, weights, precision and groups make another run as well, and are told apart."""
    before = record(planned(tmp_path, BASE))
    (run,) = planned(tmp_path, BASE, known, [before], **sections).runs
    assert run.reason == f"has changed: {words}"


def test_what_makes_a_result_stale(tmp_path):
    """Of a run whose key alone differs, the version or the device is named that does, and the code if none does."""
    plan = planned(tmp_path, BASE)
    same = record(plan)
    reasons = []
    for inputs in ({"torch": "1.0"}, {"device": "cuda X"}, {}):
        made_of = {**same.inputs, **inputs}
        past = RecordedRun("another key", same.content, "FINISHED", "", "", same.params, made_of)
        (run,) = planned(tmp_path, BASE, past=[past]).runs
        assert run.state == "stale"
        reasons.append(run.reason.removeprefix("has changed since it was recorded: "))
    assert reasons == [f"torch 1.0 -> {same.inputs['torch']}", "device cuda X -> cpu", "the code"]


def test_a_finished_run_is_compared_before_a_failed_one(tmp_path):
    """What changed is told against the newest finished run, and not against a later one that failed."""
    finished, failed = (record(planned(tmp_path, MIXED | {"epochs": epochs})) for epochs in (5, 8))
    failed = RecordedRun(failed.key, failed.content, "FAILED", "nan", "", failed.params, failed.inputs)
    (run,) = planned(tmp_path, MIXED, past=[failed, finished]).runs
    assert run.reason == "has changed: epochs 5 -> 6"


def test_paths_and_unset_settings_do_not_differ():
    """Where files lie is no change, nor is a setting that one record lacks and the other has as none."""
    old = {"arm": "a", "seed": "0", "data.root": "/a", "x": "null", "mix.alpha": "0.40"}
    assert changed_params(old, {"arm": "b", "seed": "1", "data.root": "/b", "mix.alpha": "0.40"}, SCHEMA) == []


def test_a_technique_that_was_not_recorded_is_none():
    """Records of versions without a technique differ from later ones only where it does something."""
    old, off, on = {"loss.gamma": "2"}, {"loss.gamma": "3", "mix.name": "none"}, {"loss.gamma": "3", "mix.name": "cutmix", "mix.alpha": "1"}
    assert changed_params(old, off, SCHEMA) == ["loss.gamma 2 -> 3"]
    assert changed_params(off, old, SCHEMA) == ["loss.gamma 3 -> 2"]
    assert changed_params(old, on, SCHEMA) == ["loss.gamma 2 -> 3", "mix none -> cutmix"]
    assert changed_params(off, on, SCHEMA) == ["mix none -> cutmix"]
