"""The labels, compared with separate calculations."""

import math
import re
from pathlib import Path

import pytest

from ablation.study.resolving import load_study
from ablation.tasks.images.labels import budget, images_per_epoch, labels, remaining_share, updates_per_epoch
from tests.studies import BASE, arms
from tests.tiny import Planned
from tests.tiny import write as write_tiny

EXPERIMENTS = Path(__file__).parents[3] / "experiments.yaml"
REPORTS = sum(5000 - 500 * i for i in range(10))


def labels_of(folder, layer, num_train=1000, parent_train=1000, **base):
    """The labels of a variant of the base."""
    arms_by_name = arms(folder, base={**BASE, **base}, variants={"v": layer})
    return labels(arms_by_name["v"], arms_by_name["baseline"], num_train, parent_train, 10)


def test_the_lag_of_the_reports():
    """27,500 images in batches of 128 for 30 epochs are 6,420 updates, after which 0.9999 leaves 53 % of the initial weights."""
    baseline = load_study(EXPERIMENTS).arms[0]
    assert REPORTS == 27_500
    assert budget(baseline, REPORTS).updates == 30 * (27_500 // 128) == 6420
    assert remaining_share(baseline.stages, REPORTS) == pytest.approx(math.exp(6420 * math.log(0.9999))) == pytest.approx(0.526, abs=5e-4)
    assert labels(baseline, None, REPORTS, REPORTS, 10) == {"lag": "53 % of the average are still the weights that it began with"}


@pytest.mark.parametrize(
    ("num_train", "batch_size", "drop_last", "updates", "images"),
    [(1000, 128, True, 7, 896), (1000, 128, False, 8, 1000), (256, 128, True, 2, 256), (256, 128, False, 2, 256), (3, 5, False, 1, 3)],
)
def test_an_epochs_budget(tmp_path, num_train, batch_size, drop_last, updates, images):
    """A last batch that is not full counts unless drop_last leaves it out."""
    stage = arms(tmp_path, base={**BASE, "batch_size": batch_size, "drop_last": drop_last})["baseline"].stages[0]
    assert updates_per_epoch(stage, num_train) == updates
    assert images_per_epoch(stage, num_train) == images


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"loss": "focal"}, None),
        ({"loss": {"name": "focal", "weights": "inverse"}}, None),
        ({"loss": "focal", "mix": "mixup"}, "changes 2 families at once: mix, loss"),
        ({"stages": [{"epochs": "2/3"}, {"epochs": "1/3", "loss": "weighted_cross_entropy"}]}, None),
        ({"stages": [{"epochs": "2/3"}, {"epochs": "1/3", "train": "head"}]}, None),
        (
            {"stages": [{"epochs": "2/3"}, {"epochs": "1/3", "train": "head", "sampler": "class_balanced"}]},
            "changes 2 families at once: sampler, stages",
        ),
    ],
)
def test_bundle(tmp_path, layer, words):
    """Changes of several families are a bundle; those of one technique's fields or stage are not."""
    assert labels_of(tmp_path, layer).get("bundle") == words


@pytest.mark.parametrize(
    ("layer", "num_train", "words"),
    [
        ({"epochs": 7}, 1000, "49 updates instead of 42, 6,272 images instead of 5,376"),
        ({"epochs": 5}, 1000, None),
        ({"batch_size": 64}, 1000, "90 updates instead of 42, 5,760 images instead of 5,376"),
        ({"drop_last": False}, 1000, "48 updates instead of 42, 6,000 images instead of 5,376"),
        ({"loss": "focal"}, 1200, "54 updates instead of 42, 6,912 images instead of 5,376"),
        ({"stages": [{"epochs": 6}, {"epochs": 1, "train": "head"}]}, 1000, "49 updates instead of 42, 6,272 images instead of 5,376"),
        ({"sampler": "class_balanced"}, 1000, None),
    ],
)
def test_budget(tmp_path, layer, num_train, words):
    """More updates or images than the parent's give the label, with both numbers; fewer do not."""
    reason = labels_of(tmp_path, layer, num_train).get("budget")
    assert reason == (words and f"spends more than baseline: {words}")


def test_more_parameters(tmp_path):
    """A larger model gives the label, with its number of trained parameters."""
    import timm

    small, large = (
        sum(p.numel() for p in timm.create_model(name, num_classes=10).parameters()) for name in ("test_efficientnet", "test_resnet")
    )
    names = ["test_efficientnet", "test_resnet"] if large > small else ["test_resnet", "test_efficientnet"]
    reasons = labels_of(tmp_path, {"model": {"name": names[1], "image_size": 32}}, model={"name": names[0], "image_size": 32})
    assert reasons["budget"] == f"spends more than baseline: {max(small, large):,} parameters instead of {min(small, large):,}"
    assert "budget" not in labels_of(tmp_path, {"model.drop": 0.1})


def test_parameters_count_where_they_are_trained(tmp_path):
    """An arm that trains the whole net spends more than a parent that trains the head alone; a larger net of which only the head is
    trained does not.
    """
    import timm

    whole = sum(p.numel() for p in timm.create_model("test_efficientnet", num_classes=10).parameters())
    head = sum(p.numel() for p in timm.create_model("test_efficientnet", num_classes=10).get_classifier().parameters())
    reasons = labels_of(tmp_path, {"stages": [{"epochs": 4, "train": "all"}]}, stages=[{"epochs": 4, "train": "head"}])
    assert reasons["budget"] == f"spends more than baseline: {whole:,} parameters instead of {head:,}"
    layer = {"model": {"name": "test_resnet", "image_size": 32}, "stages": [{"epochs": 4, "train": "head"}]}
    assert "budget" not in labels_of(tmp_path, layer, stages=[{"epochs": 4}])


SAMPLED = {"name": "balanced_softmax", "prior": "sampled"}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"sampler": "class_balanced"}, None),
        ({"loss": "weighted_cross_entropy"}, None),
        ({"sampler": "class_balanced", "loss": "weighted_cross_entropy"}, "the sampler class_balanced and the class weights inverse"),
        ({"sampler": "class_balanced", "loss": "class_balanced"}, "the class weights effective_number"),
        ({"sampler": "class_balanced", "loss": "balanced_softmax"}, "the training prior of balanced_softmax"),
        ({"sampler": "class_balanced", "loss": SAMPLED}, None),
        ({"loss": SAMPLED}, None),
        ({"loss": SAMPLED, "posthoc": "logit_adjustment"}, "the training prior of balanced_softmax and the post-hoc logit_adjustment"),
        ({"loss": SAMPLED | {"weights": "inverse"}}, "the class weights inverse and the training prior of balanced_softmax"),
        ({"sampler": {"name": "power", "power": 1}, "loss": SAMPLED, "posthoc": "logit_adjustment"}, "the training prior of"),
        ({"stages": [{"epochs": 3}, {"epochs": 3, "sampler": "class_balanced", "loss": "balanced_softmax"}]}, "the training prior"),
    ],
)
def test_double_correction(tmp_path, layer, words):
    """Two corrections for the class counts give the label, in any stage; a sampler that does not balance samples the training prior."""
    reason = labels_of(tmp_path, layer).get("double correction")
    assert (reason is None) if words is None else (words in reason and reason.endswith("both correct for the class counts"))


def test_selected_on_test(tmp_path):
    """Only a selection by the accuracy on the test images gives the label."""
    assert "selected on test" in labels_of(tmp_path, {"select": "best_on_test"})
    assert "selected on test" not in labels_of(tmp_path, {"select": "best_on_validation"})


def test_other_test_images_are_told(tmp_path):
    """A part drawn otherwise is another test; another size of the same images is not."""
    variants = {"more": {"data.test": 0.5}, "large": {"model.image_size": 40}, "of-more": {"of": "more", "loss": "focal"}}
    planned = Planned(write_tiny(tmp_path, base={"data": {"name": "digits", "test": 0.2}}, variants=variants), tmp_path / "mlruns")
    reasons = {name: labels_of_arm.get("other test images", "") for name, labels_of_arm in planned.plan.labels.items()}
    assert (reasons["baseline"], reasons["large"]) == ("", "")
    assert reasons["more"].endswith("test images are not those of baseline")
    assert reasons["of-more"] == reasons["more"]
    facts = {name: planned.planner.arm_facts(arm)["test_set"] for name, arm in ((arm.name, arm) for arm in planned.study.arms)}
    assert facts["baseline"] == facts["large"] != facts["more"] == facts["of-more"]


LATE = {"name": "multi_step", "milestones": [4]}


@pytest.mark.parametrize(
    ("schedule", "stages", "words"),
    [
        (LATE, [{"epochs": 4}, {"epochs": 2}], None),
        (LATE, [{"epochs": 4}, {"epochs": 2, "train": "head"}], "stage 1 ends 4 epochs after the schedule begins, before the milestone 4"),
        (LATE, [{"epochs": 5}, {"epochs": 1, "train": "head"}], "stage 2 ends 1 epoch after the schedule begins, before the milestone 4"),
        ({"name": "cosine", "warmup_epochs": 2}, [{"epochs": 4}, {"epochs": 2, "train": "head"}], "stage 2 .*, within the warm-up of 2"),
        ({"name": "cosine", "warmup_epochs": 2}, [{"epochs": 3}, {"epochs": 3, "train": "head"}], None),
        ({"name": "multi_step", "milestones": ["1/2"]}, [{"epochs": 3}, {"epochs": 3, "train": "head"}], None),
    ],
)
def test_a_schedule_that_begins_anew_and_does_not_get_far(tmp_path, schedule, stages, words):
    """Where a stage begins it anew, its milestones or the end of its warm-up may be out of reach."""
    reason = labels_of(tmp_path, {"stages": stages, "loss": "focal"}, schedule=schedule).get("schedule")
    assert reason is None if words is None else re.match(words, reason)


AVERAGE = {"name": "ema", "decay": 0.99}
STEPS = 1000 // 128  # updates per epoch


@pytest.mark.parametrize(
    ("stages", "updates"),
    [
        ([{"epochs": 6}], 6 * STEPS),
        ([{"epochs": 4}, {"epochs": 2}], 6 * STEPS),
        ([{"epochs": 4}, {"epochs": 2, "train": "head"}], 2 * STEPS),
        ([{"epochs": 4}, {"epochs": 2, "restart": ["average"]}], 2 * STEPS),
        ([{"epochs": 4}, {"epochs": 2, "restart": ["schedule"]}], 6 * STEPS),
        ([{"epochs": 2}, {"epochs": 2, "restart": ["average"]}, {"epochs": 2}], 4 * STEPS),
        ([{"epochs": 4, "average": "none"}, {"epochs": 2}], 2 * STEPS),
        ([{"epochs": 4, "batch_size": 64}, {"epochs": 2}], 4 * (1000 // 64) + 2 * STEPS),
    ],
)
def test_remaining_share(tmp_path, stages, updates):
    """The initial weights' share is decay ** updates, counted from where the tested average began."""
    arm = arms(tmp_path, base={**BASE, "average": AVERAGE}, variants={"v": {"stages": stages, "loss": "focal"}})["v"]
    assert remaining_share(arm.stages, 1000) == pytest.approx(0.99**updates)


@pytest.mark.parametrize(
    ("average", "share"),
    [("none", 0.0), ({"name": "ema", "warmup": True}, 0.0), ({"name": "ema", "decay": 0.93}, 0.93**42), (AVERAGE, 0.99**42)],
)
def test_lag(tmp_path, average, share):
    """A share above 5 % gives the label; no average, a warm-up or a faster average does not."""
    reasons = labels_of(tmp_path, {"loss": "focal"}, average=average)
    assert reasons.get("lag") == (f"{100 * share:.0f} % of the average are still the weights that it began with" if share > 0.05 else None)
