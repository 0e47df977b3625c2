"""Settings with which a technique changes nothing, and why: written in a file, they make an arm that only looks like another."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ablation.techniques.technique import Technique

Rule = tuple[Callable[[Any], bool], str]  # whether the technique changes nothing; why, and what is expected instead

# (setting, name of the technique) -> its rule
RULES: Mapping[tuple[str, str], Rule] = {
    ("augment", "hflip"): (lambda t: t.probability == 0, "probability 0 mirrors no image; expected more, or no hflip"),
    ("augment", "vflip"): (lambda t: t.probability == 0, "probability 0 turns no image; expected more, or no vflip"),
    ("augment", "crop"): (lambda t: t.padding == 0, "padding 0 leaves one window, the image itself; expected more, or no crop"),
    ("augment", "affine"): (
        lambda t: t.degrees == t.shear == 0 and t.translate == (0, 0) and t.scale == (1, 1),
        "degrees, translate and shear are 0 and scale is [1, 1], so every image stays; expected one of them, such as degrees: 15",
    ),
    ("augment", "color_jitter"): (
        lambda t: t.brightness == t.contrast == t.saturation == 0,
        "brightness, contrast and saturation are 0, so every image stays; expected one of them above 0",
    ),
    ("augment", "erase"): (
        lambda t: t.probability == 0 or t.area[1] == 0,
        "probability or area 0 erases nothing; expected both above 0, or no erase",
    ),
    ("mix", "mixup"): (
        lambda t: t.fixed_lambda in (0, 1),
        "lambda 0 or 1 leaves every image whole; expected a lambda between them, or mix: none",
    ),
    ("mix", "cmo"): (lambda t: t.probability == 0, "probability 0 mixes nothing; expected more, or mix: none"),
    ("mix", "switch"): (
        lambda t: t.probability in (0, 1) or t.one == t.other,
        "one of its two mixings is always taken; expected two that differ and a probability between 0 and 1, or that mixing alone",
    ),
    ("smoothing", "label_smoothing"): (lambda t: t.epsilon == 0, "epsilon 0 smooths nothing; expected more, or smoothing: none"),
    ("smoothing", "label_aware"): (
        lambda t: t.head == t.tail,
        "head and tail are equal, so every class is smoothed alike; expected two that differ, or label_smoothing with that epsilon",
    ),
    ("loss", "focal"): (
        lambda t: t.gamma == 0 and t.form == "softmax",
        "gamma 0 is the cross-entropy; expected more, or loss: cross_entropy",
    ),
    ("loss", "ldam"): (lambda t: t.max_margin == 0, "max_margin 0 is the cross-entropy; expected more, or loss: cross_entropy"),
    ("loss", "logit_adjusted"): (lambda t: t.tau == 0, "tau 0 is the cross-entropy; expected more, or loss: cross_entropy"),
    ("loss", "vs"): (
        lambda t: t.gamma == t.tau == 0,
        "gamma and tau 0 are the cross-entropy; expected one above 0, or loss: cross_entropy",
    ),
    ("loss", "equalization"): (lambda t: t.gamma == 0, "gamma 0 is the cross-entropy; expected more, or loss: cross_entropy"),
    ("loss", "seesaw"): (lambda t: t.p == t.q == 0, "p and q 0 are the cross-entropy; expected one above 0, or loss: cross_entropy"),
    ("loss.weights", "effective_number"): (lambda t: t.beta == 0, "beta 0 weighs every class alike; expected more, or weights: none"),
    ("sampler", "effective_number"): (lambda t: t.beta == 0, "beta 0 keeps the data's shares; expected more, or sampler: shuffle"),
    ("sampler", "power"): (lambda t: t.power == 1, "power 1 keeps the data's shares; expected less, or sampler: shuffle"),
    ("average", "ema"): (lambda t: t.decay == 0, "decay 0 keeps the last weights alone; expected more, such as 0.99, or average: none"),
    ("posthoc", "logit_adjustment"): (lambda t: t.tau == 0, "tau 0 adjusts nothing; expected more, or posthoc: none"),
    ("posthoc", "tau_norm"): (lambda t: t.tau == 0, "tau 0 leaves every vector its length; expected more, or posthoc: none"),
    ("posthoc", "temperature"): (lambda t: t.temperature == 1, "temperature 1 leaves every score; expected another, or posthoc: none"),
    ("schedule", "exponential"): (lambda t: t.gamma == 1, "gamma 1 never lowers the rate; expected less, or schedule: constant"),
    ("schedule", "multi_step"): (
        lambda t: t.gamma == 1 or not t.milestones,
        "gamma 1 or no milestones never lower the rate; expected both, or schedule: constant",
    ),
}


@cache
def techniques_in(settings: Technique) -> tuple[tuple[str, str, Technique], ...]:
    """Every technique in the settings: (its dotted path, the same without numbers, the technique)."""
    return tuple(_within(settings, "", ""))


def _within(settings: Technique, path: str, setting: str) -> Iterator[tuple[str, str, Technique]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for i, technique in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(technique, Technique):
                place = f"{path}{name}" + (f".{i}" if isinstance(value, tuple) else "")
                yield place, f"{setting}{name}", technique
                yield from _within(technique, f"{place}.", f"{setting}{name}.")


def of_stage(stage: Any, *, is_last: bool) -> Iterator[tuple[str, str]]:
    """(setting, why it changes nothing) of what depends on the stage's length or on another setting."""
    settings = stage.settings
    if getattr(settings.schedule, "final_lr", None) == settings.optimizer.lr > 0:
        yield "schedule", "final_lr is the optimizer's lr, so the rate stays; expected less, or schedule: constant"
    if settings.sampler.name == "progressive" and stage.span == 1:
        yield "sampler", "its first epoch has the data's shares, and there is no other; expected more epochs"
    if is_last and settings.select == "best_on_validation" and stage.epochs == 1:
        yield "select", "there is one epoch to choose among; expected more epochs, or select: last"


def why_nothing(setting: str, technique: Technique) -> str:
    """Why the technique changes nothing with its settings, and what is expected; empty if it may change something."""
    rule = RULES.get((setting.replace("mix.one", "mix").replace("mix.other", "mix"), getattr(technique, "name", "")))
    return rule[1] if rule is not None and rule[0](technique) else ""
