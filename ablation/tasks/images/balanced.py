"""What corrects for class counts, and has nothing to correct where these are equal or none of them is small."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ablation.formatting import listed, shortened
from ablation.study.config import Arm
from ablation.training.settings import Settings

PRIOR_LOSSES = ("balanced_softmax", "logit_adjusted", "vs")  # which equal counts make the cross-entropy, but for a sampler's own
CLASS_WEIGHTS = ("inverse", "effective_number")


def balanced_notes(arms: Iterable[Arm]) -> list[str]:
    """A sentence if some of these arms, whose classes have equally many training images each, correct for their counts all the same."""
    arms_by_name: dict[str, dict[str, None]] = {}
    for arm in arms:
        for i, stage in enumerate(arm.stages):
            for name in _idle(stage.settings, is_last=i == len(arm.stages) - 1):
                arms_by_name.setdefault(name, {})[arm.name] = None
    if not arms_by_name:
        return []
    what = listed([f"{name} ({shortened(list(names), 3)})" for name, names in arms_by_name.items()])
    nothing = "all classes have equally many training images, which leaves nothing to correct for"
    return [f"{nothing} {what}: there the plain loss and scores give the same"]


def idle_notes(planned: Mapping[tuple[str, tuple[int, ...]], Arm]) -> list[str]:
    """A sentence each about what changes nothing in planned arms, given by name and training counts; equal counts say it all."""
    equal = {name: arm for (name, counts), arm in planned.items() if len(set(counts)) == 1}
    others = [(arm, counts) for (name, counts), arm in planned.items() if name not in equal]
    rareless = {arm.name: arm for arm, counts in others if finds_no_rare(arm, counts)}
    sampled = {arm.name: arm for arm, _ in others if samples_as_it_is(arm)}
    return [*balanced_notes(equal.values()), *rareless_notes(rareless.values()), *sampled_notes(sampled.values())]


def finds_no_rare(arm: Arm, counts: Sequence[int]) -> bool:
    """Whether in a stage of the arm the equalization loss takes no class with these training images as rare."""
    losses = [stage.settings.loss for stage in arm.stages]
    return any(loss.name == "equalization" and min(counts) * len(counts) >= loss.rarity * sum(counts) for loss in losses)


def rareless_notes(arms: Iterable[Arm]) -> list[str]:
    """A sentence if there are such arms, whose equalization loss finds no rare class."""
    names = [arm.name for arm in arms]
    rare = "no class is rare, with fewer images than rarity times an equal share of them"
    return [f"{rare}, for loss equalization ({shortened(names, 3)}): there the cross-entropy gives the same"] if names else []


def samples_as_it_is(arm: Arm) -> bool:
    """Whether in a stage of the arm the loss takes out the sampler's prior, and the sampler draws the classes as the images have them."""
    stages = [stage.settings for stage in arm.stages]
    return any(getattr(one.loss, "prior", "") == "sampled" and not one.sampler.balances for one in stages)


def sampled_notes(arms: Iterable[Arm]) -> list[str]:
    """A sentence if there are such arms."""
    names = [arm.name for arm in arms]
    same = "the sampler draws the classes as the training images have them, for loss.prior sampled"
    return [f"{same} ({shortened(names, 3)}): there loss.prior training gives the same"] if names else []


def has_training_prior(settings: Settings) -> bool:
    """Whether the loss takes out the training images' prior, be it as that of a sampler which draws the classes as they are."""
    prior = getattr(settings.loss, "prior", "")
    return prior == "training" or (prior == "sampled" and not settings.sampler.balances)


def _idle(settings: Settings, *, is_last: bool) -> Iterator[str]:
    """What changes nothing in a stage with equal counts; a post-hoc technique acts on the last stage."""
    loss, posthoc = settings.loss, settings.posthoc
    if loss.weights.name in CLASS_WEIGHTS:
        yield f"class weights {loss.weights.name}"
    is_rare_free = loss.name == "equalization" and loss.rarity <= 1
    if is_rare_free or (loss.name in PRIOR_LOSSES and has_training_prior(settings)):
        yield f"loss {loss.name}"
    if is_last and posthoc.name == "logit_adjustment":
        yield f"posthoc {posthoc.name}"
