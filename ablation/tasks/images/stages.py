"""The stages of an arm: their lengths in epochs, what restarts in each, and checks of the settings against each other."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from ablation.errors import ConfigError
from ablation.study.config import Overrides
from ablation.study.overrides import PartialArm, apply_overrides, split_stage
from ablation.study.settings_schema import SettingsSchema
from ablation.techniques.classifiers import ignores_equal_biases
from ablation.techniques.technique import Technique, build
from ablation.training.settings import RESTARTS, Settings, Stage, StageOptions, implied_restarts


def resolve_stages(
    partial: PartialArm, where: str, finish: Callable[[int, dict[str, Any]], dict[str, Any]], schema: SettingsSchema
) -> tuple[Stage, ...]:
    """An arm's stages, with lengths in epochs and restarts resolved; `finish` makes the last changes to each stage's settings."""
    all_overrides = partial.stages or ({},)
    options, settings = [], []
    for i, stage_overrides in enumerate(all_overrides):
        place = f"{partial.stages_at}.{i}" if partial.stages else where
        stage_options, changed = split_stage(stage_overrides, place, schema)
        options.append(_options(stage_options, place, len(all_overrides)))
        _check_whole_arm(changed, place, schema)
        settings.append(build(Settings, finish(i, apply_overrides(PartialArm(partial.settings), changed, place, schema).settings)))
        _check_stage(i, options, settings, {name.partition(".")[0] for name in changed}, place, last=i == len(all_overrides) - 1)
        _check_together(settings[i], place)
    epochs = _lengths([option.epochs for option in options], partial.settings["epochs"])
    restarts = [_restarts(i, options) for i in range(len(all_overrides))]
    stages = []
    for i, option in enumerate(options):
        begin = max(j for j in range(i + 1) if "schedule" in restarts[j])
        end = next((j for j in range(i + 1, len(all_overrides)) if "schedule" in restarts[j]), len(all_overrides))
        schedule_epochs = settings[i].schedule.epochs
        stages.append(
            Stage(
                settings=settings[i],
                epochs=epochs[i],
                first_epoch=sum(epochs[:i]),
                schedule_epoch=sum(epochs[begin:i]),
                schedule_span=schedule_epochs if isinstance(schedule_epochs, int) else sum(epochs[begin:end]),
                span=sum(epochs[begin:end]),
                train=option.train,
                head=option.head,
                backbone=option.backbone if option.backbone != "auto" else ("eval" if option.train == "head" else "train"),
                start=option.start,
                restart=restarts[i],
            )
        )
    _check_mixing(stages, where)
    _check_initial_bias(stages, where)
    return tuple(stages)


def _check_mixing(stages: Sequence[Stage], where: str) -> None:
    """Raise if a mixing is off in all epochs that it is set for."""
    for mix in {stage.settings.mix for stage in stages}:
        mixed = [stage for stage in stages if stage.settings.mix == mix]
        if not any(mix.is_on(stage.schedule_epoch + epoch, stage.span) for stage in mixed for epoch in range(stage.epochs)):
            num_epochs = sum(stage.epochs for stage in mixed)
            expected = "expected lower off_first and off_last, or more epochs"
            raise ConfigError(f"{where}.mix", f"{mix.name} mixes in none of its {num_epochs} epochs; {expected}")


def _check_initial_bias(stages: Sequence[Stage], where: str) -> None:
    """Raise if a classifier starts with equal biases under losses that equal biases change nothing for.

    Of a loss of the user's own it is not known. A later stage may go on with the classifier under another loss.
    """
    for classifier in {stage.settings.classifier for stage in stages}:
        losses = [stage.settings.loss for stage in stages if stage.settings.classifier == classifier]
        if getattr(classifier, "initial_bias", "default") != "default" and all(ignores_equal_biases(loss) for loss in losses):
            found = f"found uniform, which changes nothing under {losses[0].name}, whose softmax leaves out what all classes have in common"
            expected = "expected a loss with sigmoids, such as {name: focal, form: sigmoid}, or default"
            raise ConfigError(f"{where}.classifier.initial_bias", f"{found}; {expected}")


def _options(overrides: Overrides, where: str, num_stages: int) -> StageOptions:
    try:
        options = build(StageOptions, overrides)
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
    carries_on = "optimizer" not in _restarts(i, options)
    if carries_on and settings[i].optimizer.name != settings[i - 1].optimizer.name:
        raise ConfigError(
            f"{where}.optimizer", "another optimizer cannot take over the state of the one before; expected restart: [optimizer]"
        )


def _check_classifier(i: int, options: list[StageOptions], settings: list[Settings], where: str) -> None:
    """Raise if the classifier changes anywhere but where a stage begins to train the classifier alone."""
    new, place = settings[i].classifier, f"{where}.classifier"
    if new.on_trained and (i == 0 or options[i].train != "head"):
        raise ConfigError(place, f"found {new.name!r}, which needs a trained linear layer; expected it in a later stage with train: head")
    goes_on = f"found {new.name!r}, which goes on from a trained linear layer; expected head: keep, after a linear classifier"
    if new.on_trained and options[i].head == "new":
        raise ConfigError(place, goes_on)
    if i == 0 or new == settings[i - 1].classifier:
        return
    if not (options[i].train == "head" != options[i - 1].train):
        raise ConfigError(
            place, "can change only where a stage begins to train the head alone; expected train: head there, or one classifier"
        )
    if new.on_trained and settings[i - 1].classifier.name != "linear":
        raise ConfigError(place, goes_on)
    if not new.on_trained and options[i].head == "keep":
        raise ConfigError(place, f"found {new.name!r}, which cannot take over another classifier's weights; expected head: new")


def _check_together(settings: Settings, where: str) -> None:
    """Raise if a technique does not fit the other settings."""
    for name in Settings.model_fields:
        value = getattr(settings, name)
        for technique in value if isinstance(value, tuple) else (value,):
            if isinstance(technique, Technique):
                try:
                    technique.check(settings)
                except ConfigError as error:
                    raise error.under(f"{where}.{name}" if where else name) from None


def _restarts(i: int, options: list[StageOptions]) -> tuple[str, ...]:
    implied = implied_restarts(is_new=i == 0 or options[i].train != options[i - 1].train, head=options[i].head)
    return tuple(name for name in RESTARTS if name in (*options[i].restart, *implied))


def _lengths(lengths: Sequence[Any], total: int) -> list[int]:
    """The epochs of each stage; the running sum of fractions is rounded, so that stages of 2/3 and 1/3 add up to the total.

    A stage has one epoch at least: where a fraction rounds to none, as 1/3 of one epoch, they add up to more than the total.
    """
    epochs, done = [], Fraction(0)
    for length in lengths:
        if isinstance(length, int):
            epochs.append(length)
            continue
        fraction = Fraction(1) if length == "all" else Fraction(length)
        epochs.append(max(1, round((done + fraction) * total) - round(done * total)))
        done += fraction
    return epochs
