"""Settings that change nothing, and why: written in a file, they make an arm that only looks like another.

Of one technique its own `why_neutral` tells; here is what depends on its stage.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ablation.formatting import counted
from ablation.techniques.schedules import exact_fraction
from ablation.techniques.technique import Technique


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
    if is_last and settings.select == "best_on_validation" and stage.epochs == 1:
        yield "select", "there is one epoch to choose among; expected more epochs, or select: last"


def as_acting(settings: Any) -> Any:
    """The settings, where one field leaves another without effect with the same value of that: `pretrained` beside a file of weights."""
    model = settings.model
    if getattr(model, "weights", "none") == "none" or not type(model).__module__.startswith("ablation."):
        return settings
    return settings.model_copy(update={"model": model.model_copy(update={"pretrained": True})})


def of_schedules(stages: Sequence[Any], inherited: Any) -> tuple[str, str]:
    """What of a schedule does not fit, after the setting that it does not fit to; both empty if all of it acts.

    A stage's own schedule acts in its epochs, the arm's `inherited` one in those of the whole arm.
    """
    total = sum(stage.epochs for stage in stages)
    for stage in stages:
        schedule, rate = stage.settings.schedule, stage.settings.optimizer.lr
        followed = [other for other in stages if other.settings.schedule == schedule]
        own_end = max(other.schedule_epoch + other.epochs for other in followed)
        end = total if schedule == inherited else own_end
        if getattr(schedule, "final_lr", 0.0) > rate:
            problem = f"final_lr {schedule.final_lr:g} is above the optimizer's lr {rate:g}, so that the rate would rise; expected less"
            return "optimizer", problem
        if problem := _too_late(schedule, end, max(other.schedule_span for other in followed)):
            return "epochs", problem
    return "", ""


def _too_late(schedule: Any, end: int, span: int) -> str:
    """What of a schedule never acts in its epochs, which end before `end`, and what is expected; empty if all of it does."""
    warm_up, epochs = getattr(schedule, "warmup_epochs", 0), "1 epoch" if end == 1 else f"{end} epochs"
    if warm_up > max(1, end - (schedule.name != "constant")):
        lasting = (
            f"the warm-up of {warm_up} epochs does not end" if warm_up > end else f"after the warm-up of {warm_up} epochs none is left"
        )
        return f"{lasting} in a training of {epochs}, so that {schedule.name} never acts; expected fewer warmup_epochs, or more epochs"
    held = span if isinstance(schedule.epochs, int) else end  # the epochs that it names, after which the rate stays
    late = [m for m, start in _starts(schedule, span).items() if start >= end or start > held]
    if late and end > 1:
        known = "expected milestones below the number of epochs, or fractions such as 0.8"
        epochs = epochs if held >= end else f"{epochs}, whose schedule has {held}"
        return f"the milestone {late[0]} is never reached in a training of {epochs}; {known}"
    return ""


def _starts(schedule: Any, span: int) -> dict[Any, Any]:
    """milestone -> the epoch at which it acts."""
    return {m: m if isinstance(m, int) else exact_fraction(m) * span for m in getattr(schedule, "milestones", ())}


def unfinished_schedule(stages: Sequence[Any]) -> str:
    """In which stage a schedule ends before it lowers the rate, or before its warm-up does, since it begins anew; empty if in none."""
    for number, stage in enumerate(stages, start=1):
        schedule, last = stage.settings.schedule, min(stage.span, stage.schedule_span)
        where = f"stage {number} ends" if len(stages) > 1 else "training ends"
        where = f"{where} {counted(stage.span, 'epoch')} after the schedule begins"
        warm_up, starts = getattr(schedule, "warmup_epochs", 0), _starts(schedule, stage.schedule_span)
        if warm_up >= max(2, stage.span):
            return f"{where}, within the warm-up of {warm_up}"
        if starts and all(start >= stage.span or start > last for start in starts.values()):
            return f"{where}, before the milestone {next(iter(starts))}, so that the rate never falls"
    return ""
