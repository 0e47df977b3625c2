"""The computed labels of an arm: bundle, budget, double correction, selected on test, schedule, lag, chosen, other test images."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.study.changes import families
from ablation.study.config import Arm
from ablation.tasks.images.balanced import has_training_prior
from ablation.tasks.images.metrics import words_of
from ablation.tasks.images.schema import SCHEMA
from ablation.techniques.effects import unfinished_schedule
from ablation.techniques.models import num_parameters
from ablation.training.settings import Stage

OTHER_TEST = "other test images"  # the label of an arm whose test images are not those of its parent or its baseline; never the best
MAX_REMAINING_SHARE = 0.05  # of the initial weights in an average; above it the arm has the label `lag`


@dataclass(frozen=True)
class Budget:
    """The cost of an arm's training, for one seed."""

    updates: int
    images: int


def budget(arm: Arm, num_train: int) -> Budget:
    """The numbers of updates of an arm, and of the images in them."""
    updates = [stage.epochs * updates_per_epoch(stage, num_train) for stage in arm.stages]
    images = [stage.epochs * images_per_epoch(stage, num_train) for stage in arm.stages]
    return Budget(sum(updates), sum(images))


def updates_per_epoch(stage: Stage, num_train: int) -> int:
    """The number of batches of an epoch."""
    num_full, remainder = divmod(num_train, stage.settings.batch_size)
    return num_full + (1 if remainder and not stage.settings.drop_last else 0)


def images_per_epoch(stage: Stage, num_train: int) -> int:
    """The number of images of an epoch."""
    batch_size = stage.settings.batch_size
    return min(num_train, updates_per_epoch(stage, num_train) * batch_size)


def labels(arm: Arm, parent: Arm | None, num_train: int, parent_train: int, num_classes: int) -> dict[str, str]:
    """The arm's labels, each with its reason in words."""
    reasons: dict[str, str] = {}
    changed_families = families(arm.change, SCHEMA)
    if len(changed_families) > 1:
        reasons["bundle"] = f"changes {len(changed_families)} families at once: {', '.join(changed_families)}"
    if parent is not None:
        additional_cost = _additional_cost(budget(parent, parent_train), budget(arm, num_train), *_parameters(parent, arm, num_classes))
        if additional_cost:
            reasons["budget"] = f"spends more than {parent.name}: {additional_cost}"
    by_stage = (_double_correction(stage, is_last=i == len(arm.stages) - 1) for i, stage in enumerate(arm.stages))
    double_correction = next(filter(None, by_stage), "")
    if double_correction:
        reasons["double correction"] = double_correction
    if arm.stages[-1].settings.select == "best_on_test":
        reasons["selected on test"] = "its epoch was chosen on the test images"
    if unfinished := unfinished_schedule(arm.stages):
        reasons["schedule"] = unfinished
    share = remaining_share(arm.stages, num_train)
    if share > MAX_REMAINING_SHARE:
        reasons["lag"] = f"{100 * share:.0f} % of the average are still the weights that it began with"
    return reasons


def labels_of_choice(labels_of_points: Sequence[dict[str, str]], arm: Arm) -> dict[str, str]:
    """The labels of an arm that is chosen among others: all labels that any of these has, and `chosen`."""
    assert arm.choice is not None, arm
    reasons = {label: reason for labels_of_point in reversed(labels_of_points) for label, reason in labels_of_point.items()}
    chosen = f"for each seed the best of {len(arm.choice.among)} arms by {words_of(arm.choice.metric)} on the validation images"
    return reasons | {"chosen": chosen}


def _parameters(parent: Arm, arm: Arm, num_classes: int) -> tuple[int, int]:
    """The numbers of parameters that both arms train in any stage; zeros if they train the same of the same model."""
    before, after = ((one.settings.model, one.settings.classifier, _trains(one)) for one in (parent, arm))
    return (0, 0) if before == after else (num_parameters(*before, num_classes), num_parameters(*after, num_classes))


def _trains(arm: Arm) -> str:
    """What of the model the arm trains: all, or the head alone."""
    return "all" if any(stage.train == "all" for stage in arm.stages) else "head"


def _additional_cost(parent: Budget, arm: Budget, parent_parameters: int, parameters: int) -> str:
    pairs = (
        ("updates", parent.updates, arm.updates),
        ("images", parent.images, arm.images),
        ("parameters", parent_parameters, parameters),
    )
    return ", ".join(f"{after:,} {unit} instead of {before:,}" for unit, before, after in pairs if after > before)


def _double_correction(stage: Stage, *, is_last: bool) -> str:
    """A sentence if two or more techniques of a stage correct for the class counts; post-hoc ones act on the last stage."""
    settings = stage.settings
    corrects_by_name = {
        f"the sampler {settings.sampler.name}": settings.sampler.balances,
        f"the class weights {settings.loss.weights.name}": settings.loss.weights.name != "none",
        f"the training prior of {settings.loss.name}": has_training_prior(settings),
        f"the post-hoc {settings.posthoc.name}": is_last and settings.posthoc.corrects_prior,
    }
    names = [name for name, corrects in corrects_by_name.items() if corrects]
    return f"{' and '.join(names)} {'both' if len(names) == 2 else 'all'} correct for the class counts" if len(names) > 1 else ""


def remaining_share(stages: Sequence[Stage], num_train: int) -> float:
    """The share of the initial weights in the average that is tested."""
    average, updates = stages[-1].settings.average, 0
    for later, stage in zip([None, *reversed(stages)], reversed(stages), strict=False):
        if later is not None and ("average" in later.restart or stage.settings.average != average):
            break
        updates += stage.epochs * updates_per_epoch(stage, num_train)
    return float(average.remaining(updates))
