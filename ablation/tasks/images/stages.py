"""The stages of an arm: their lengths in epochs, what restarts in each, and the settings that do not go together."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from ablation.errors import ConfigError
from ablation.study.config import Overrides
from ablation.study.overrides import PartialArm, apply_overrides, split_stage
from ablation.study.task import SettingsSchema
from ablation.techniques.technique import Technique, build
from ablation.training.settings import RESTARTS, Settings, Stage, StageOptions


def resolve_stages(
    partial: PartialArm, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]], schema: SettingsSchema
) -> tuple[Stage, ...]:
    """An arm's stages, lengths in epochs and restarts worked out; `finish` has the last word on each stage's settings."""
    every = partial.stages or ({},)
    options, settings = [], []
    for i, stage_overrides in enumerate(every):
        place = f"{partial.stages_at}.{i}" if partial.stages else where
        own, changed = split_stage(stage_overrides, schema)
        options.append(_options(own, place, len(every)))
        _check_whole_arm(changed, place, schema)
        settings.append(build(Settings, finish(i, apply_overrides(PartialArm(partial.settings), changed, place, schema).settings)))
        _check_stage(i, options, settings, {name.partition(".")[0] for name in changed}, place, last=i == len(every) - 1)
        _check_together(settings[i], place)
    epochs = _lengths([option.epochs for option in options], partial.settings["epochs"])
    restarts = [_restarts(i, options) for i in range(len(every))]
    stages = []
    for i, option in enumerate(options):
        begin = max(j for j in range(i + 1) if "schedule" in restarts[j])
        end = next((j for j in range(i + 1, len(every)) if "schedule" in restarts[j]), len(every))
        named = settings[i].schedule.epochs
        stages.append(
            Stage(
                settings=settings[i],
                epochs=epochs[i],
                first_epoch=sum(epochs[:i]),
                schedule_epoch=sum(epochs[begin:i]),
                schedule_span=named if isinstance(named, int) else sum(epochs[begin:end]),
                span=sum(epochs[begin:end]),
                train=option.train,
                head=option.head,
                backbone=option.backbone if option.backbone != "auto" else ("eval" if option.train == "head" else "train"),
                start=option.start,
                restart=restarts[i],
            )
        )
    _check_mixing(stages, where)
    return tuple(stages)


def _check_mixing(stages: Sequence[Stage], where: str) -> None:
    """Raise where a mixing mixes in none of the epochs that it is set for."""
    for mix in {stage.settings.mix for stage in stages}:
        own = [stage for stage in stages if stage.settings.mix == mix]
        if not any(mix.is_on(stage.schedule_epoch + epoch, stage.span) for stage in own for epoch in range(stage.epochs)):
            num_epochs = sum(stage.epochs for stage in own)
            expected = "expected lower off_first and off_last, or more epochs"
            raise ConfigError(f"{where}.mix", f"{mix.name} mixes in none of its {num_epochs} epochs; {expected}")


def _options(own: Overrides, where: str, num_stages: int) -> StageOptions:
    try:
        options = build(StageOptions, own)
    except ConfigError as error:
        raise error.under(where) from None
    if num_stages > 1 and options.epochs == "all":
        raise ConfigError(f"{where}.epochs", "is missing; expected a count, or a fraction of the arm's epochs such as 1/3")
    return options


def _check_whole_arm(changed: Iterable[str], where: str, schema: SettingsSchema) -> None:
    for name in changed:
        if name.partition(".")[0] in schema.whole_arm:
            raise ConfigError(f"{where}.{name}", "cannot differ between stages; set it for the whole arm")


def _check_stage(i: int, options: list[StageOptions], settings: list[Settings], changed: set[str], where: str, *, last: bool) -> None:
    for name in ("select", "tta", "posthoc"):
        if name in changed and not last:
            raise ConfigError(f"{where}.{name}", "acts on the last stage only; set it there")
    option = options[i]
    _check_classifier(i, options, settings, where)
    if i == 0:
        for name, value, default in (("head", option.head, "keep"), ("start", option.start, "weights")):
            if value != default:
                raise ConfigError(
                    f"{where}.{name}", f"found {value!r} in the first stage, before which there is none; expected {default!r}"
                )
        return
    if option.start == "average" and not settings[i - 1].average.averages:
        raise ConfigError(
            f"{where}.start", "found 'average', but the stage before keeps none; expected an average there, or start: weights"
        )
    carries_on = option.train == options[i - 1].train and "optimizer" not in option.restart
    if carries_on and settings[i].optimizer.name != settings[i - 1].optimizer.name:
        raise ConfigError(
            f"{where}.optimizer", "another optimizer cannot take over the state of the one before; expected restart: [optimizer]"
        )


def _check_classifier(i: int, options: list[StageOptions], settings: list[Settings], where: str) -> None:
    """Another classifier is possible only where the classifier alone begins to be trained."""
    new, place = settings[i].classifier, f"{where}.classifier"
    if new.on_trained and (i == 0 or options[i].train != "head"):
        raise ConfigError(place, f"found {new.name!r}, which needs a trained linear layer; expected it in a later stage with train: head")
    if i == 0 or new == settings[i - 1].classifier:
        return
    if not (options[i].train == "head" != options[i - 1].train):
        raise ConfigError(
            place, "can change only where a stage begins to train the head alone; expected train: head there, or one classifier"
        )
    if new.on_trained and (options[i].head == "new" or settings[i - 1].classifier.name != "linear"):
        raise ConfigError(
            place, f"found {new.name!r}, which goes on from a trained linear layer; expected head: keep, after a linear classifier"
        )
    if not new.on_trained and options[i].head == "keep":
        raise ConfigError(place, f"found {new.name!r}, which cannot take over another classifier's weights; expected head: new")


def _check_together(settings: Settings, where: str) -> None:
    """Raise where a technique does not go with the other settings."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Technique):
                try:
                    one.check(settings)
                except ConfigError as error:
                    raise error.under(f"{where}.{name}" if where else name) from None


def _restarts(i: int, options: list[StageOptions]) -> tuple[str, ...]:
    if i == 0 or options[i].train != options[i - 1].train:
        return RESTARTS
    return tuple(name for name in RESTARTS if name in options[i].restart)


def _lengths(lengths: Sequence[Any], total: int) -> list[int]:
    """Epochs of each stage; fractions are rounded at their running sum, so that stages of 2/3 and 1/3 add up to the whole."""
    epochs, done = [], Fraction(0)
    for one in lengths:
        if isinstance(one, int):
            epochs.append(one)
            continue
        fraction = Fraction(1) if one == "all" else Fraction(one)
        epochs.append(max(1, round((done + fraction) * total) - round(done * total)))
        done += fraction
    return epochs
