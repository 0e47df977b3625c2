"""The honest labels of an arm: bundle, budget, double correction, selected on test, chosen, lag; computed, never typed."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.study.changes import families
from ablation.study.config import Arm
from ablation.tasks.images.schema import SCHEMA
from ablation.techniques.models import num_parameters
from ablation.training.settings import Stage

LAG = 0.05  # share of the initial weights in an average, above which it is said


@dataclass(frozen=True)
class Budget:
    """What an arm spends on training, for one seed."""

    updates: int
    images: int


def budget(arm: Arm, num_train: int) -> Budget:
    """The arm's updates, and the images that they look at."""
    updates = [stage.epochs * updates_per_epoch(stage, num_train) for stage in arm.stages]
    images = [stage.epochs * images_per_epoch(stage, num_train) for stage in arm.stages]
    return Budget(sum(updates), sum(images))


def updates_per_epoch(stage: Stage, num_train: int) -> int:
    """How many batches an epoch has."""
    whole, rest = divmod(num_train, stage.settings.batch_size)
    return whole + (1 if rest and not stage.settings.drop_last else 0)


def images_per_epoch(stage: Stage, num_train: int) -> int:
    """How many images an epoch looks at."""
    size = stage.settings.batch_size
    return min(num_train, updates_per_epoch(stage, num_train) * size)


def labels(arm: Arm, parent: Arm | None, num_train: int, parent_train: int, num_classes: int) -> dict[str, str]:
    """The arm's labels, each with the reason in words."""
    found: dict[str, str] = {}
    touched = families(arm.change, SCHEMA)
    if len(touched) > 1:
        found["bundle"] = f"changes {len(touched)} families at once: {', '.join(touched)}"
    if parent is not None:
        more = _more(budget(parent, parent_train), budget(arm, num_train), *_parameters(parent, arm, num_classes))
        if more:
            found["budget"] = f"spends more than {parent.name}: {more}"
    reasons = (_double_correction(stage, is_last=i == len(arm.stages) - 1) for i, stage in enumerate(arm.stages))
    double = next(filter(None, reasons), "")
    if double:
        found["double correction"] = double
    if arm.stages[-1].settings.select == "best_on_test":
        found["selected on test"] = "its epoch was chosen by the accuracy on the test images"
    share = remaining_share(arm.stages, num_train)
    if share > LAG:
        found["lag"] = f"{100 * share:.0f} % of the average are still the weights that it began with"
    return found


def labels_of_choice(points: Sequence[dict[str, str]], arm: Arm) -> dict[str, str]:
    """The labels of an arm that chooses: those that any of its points has, and that it is chosen."""
    assert arm.choice is not None, arm
    found = {label: reason for point in reversed(points) for label, reason in point.items()}
    how = f"for each seed the best of {len(arm.choice.among)} arms by {arm.choice.metric} on the validation images"
    return found | {"chosen": how}


def _parameters(parent: Arm, arm: Arm, num_classes: int) -> tuple[int, int]:
    """The trained parameters of both, counted only where the models differ."""
    before, after = parent.settings, arm.settings
    if (before.model, before.classifier) == (after.model, after.classifier):
        return 0, 0
    return num_parameters(before.model, before.classifier, num_classes), num_parameters(after.model, after.classifier, num_classes)


def _more(parent: Budget, arm: Budget, parent_parameters: int, parameters: int) -> str:
    pairs = (
        ("updates", parent.updates, arm.updates),
        ("images", parent.images, arm.images),
        ("parameters", parent_parameters, parameters),
    )
    return ", ".join(f"{after:,} {what} instead of {before:,}" for what, before, after in pairs if after > before)


def _double_correction(stage: Stage, *, is_last: bool) -> str:
    """The techniques of a stage that correct for the class counts, where there are two or more; post-hoc ones act on the last stage."""
    settings = stage.settings
    found = {
        f"the sampler {settings.sampler.name}": settings.sampler.balances,
        f"the class weights {settings.loss.weights.name}": settings.loss.weights.name != "none",
        f"the training prior of {settings.loss.name}": getattr(settings.loss, "prior", "") == "training",
        f"the post-hoc {settings.posthoc.name}": is_last and settings.posthoc.corrects_prior,
    }
    names = [name for name, corrects in found.items() if corrects]
    return f"{' and '.join(names)} {'both' if len(names) == 2 else 'all'} correct for the class counts" if len(names) > 1 else ""


def remaining_share(stages: Sequence[Stage], num_train: int) -> float:
    """The share, in the average that is tested, of the weights with which it began."""
    average, updates = stages[-1].settings.average, 0
    for later, stage in zip([None, *reversed(stages)], reversed(stages), strict=False):
        if later is not None and ("average" in later.restart or stage.settings.average != average):
            break
        updates += stage.epochs * updates_per_epoch(stage, num_train)
    return float(average.remaining(updates))
