"""Refuses what an arm or a condition writes and no stage uses, since each of them writes something else."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.errors import ConfigError
from ablation.formatting import worded
from ablation.study.changes import flatten, is_same
from ablation.study.config import Arm, Overrides
from ablation.study.overrides import PartialArm
from ablation.study.specs import ArmSpec, settings_of
from ablation.techniques.technique import dump

LENGTH = "epochs"  # the setting by which stages with fractions are as long as they are
NO_LENGTH = "every stage of every arm has its length as a count; expected fractions such as 2/3 there, or other counts (stages.0.epochs)"
Stages = Mapping[str, Sequence[Overrides]]  # arm -> its stages as they are written


def has_counts_alone(stages: Sequence[Overrides]) -> bool:
    """Whether each stage has its length as a count, so that the arm's `epochs` does nothing."""
    return bool(stages) and all(isinstance(stage.get(LENGTH), int) for stage in stages)


def check_arms(specs: Mapping[str, ArmSpec], arms: Mapping[str, Arm], stages: Stages) -> None:
    """Raise ConfigError for a setting that a rung, a variant or a point of a sweep writes, and that none of its stages has.

    What the first rung writes may be there for the arms below it.
    """
    for spec in specs.values():
        if spec.kind not in ("ladder", "variant", "sweep") or spec.choice is not None or not stages[spec.name]:
            continue
        num_inherited = len(specs[spec.parent].overrides) if spec.parent else 0
        users = [spec.name] if spec.parent else list(specs)
        for where, overrides in spec.overrides[num_inherited:]:
            for path, value in overrides.items():
                if not _is_of_stages(path) and not any(_acts(path, arms[name], stages[name], arms[name].settings) for name in users):
                    raise ConfigError(f"{where}.{path}", _problem(path, value, spec.name, stages[spec.name]))


def check_conditions(
    specs: Mapping[str, ArmSpec], arms: Mapping[str, Arm], stages: Stages, conditions: Mapping[str, tuple[Overrides, PartialArm]]
) -> None:
    """Raise ConfigError for a setting of a condition that all of its arms, or all of their stages, replace.

    `conditions` maps each to what it writes, and to the settings that its arms start from.
    """
    for condition, (overrides, base) in conditions.items():
        members = [spec for spec in specs.values() if spec.condition == condition and spec.choice is None]
        for path, value in settings_of(overrides).items():
            if _is_of_stages(path) or any(_reaches(path, spec, arms[spec.name], stages[spec.name], base) for spec in members):
                continue
            if path == LENGTH and any(has_counts_alone(stages[spec.name]) for spec in members):
                problem = "does nothing, since every arm or its stages have lengths of their own; expected fractions such as 2/3 there"
            else:
                problem = "does nothing, since every arm or its stages set their own; expected a setting that an arm leaves open"
            raise ConfigError(f"conditions.{condition}.{path}", f"found {_named(value)}, which {problem}")


def check_lengths(bases: Sequence[tuple[str, Overrides]], arms: Mapping[str, Arm], stages: Stages) -> None:
    """Raise ConfigError for the length in a profile's base that no stage of any arm asks for, unless it only states their sum."""
    if not all(map(has_counts_alone, stages.values())):
        return
    totals = {sum(stage.epochs for stage in arm.stages) for arm in arms.values()}
    for where, overrides in bases:
        if LENGTH in overrides and overrides[LENGTH] not in totals:
            raise ConfigError(f"{where}.{LENGTH}", f"found {overrides[LENGTH]}, but {NO_LENGTH}")


def _reaches(path: str, spec: ArmSpec, arm: Arm, stages: Sequence[Overrides], base: PartialArm) -> bool:
    """Whether a setting of the arm's condition is that of at least one of its stages."""
    if any(_replaces(key, path) for _, overrides in spec.overrides for key in overrides):
        reference = _at(base.settings, path)
        return any(is_same(_at(dump(stage.settings), path), reference) for stage in arm.stages)
    return _acts(path, arm, stages, arm.settings)


def _acts(path: str, arm: Arm, stages: Sequence[Overrides], settings: Any) -> bool:
    """Whether a setting of the whole arm is that of at least one of its stages."""
    if path == LENGTH and has_counts_alone(stages):
        return bool(settings.epochs == sum(stage.epochs for stage in arm.stages))  # it is written for the reader
    if not stages or not all(any(_replaces(key, path) for key in stage) for stage in stages):
        return True
    reference = _at(dump(settings), path)
    return any(is_same(_at(dump(stage.settings), path), reference) for stage in arm.stages)


def _replaces(key: str, path: str) -> bool:
    """Whether setting `key` replaces what is at `path`: it is the same, or the technique that has it."""
    return path == key or path.startswith(f"{key}.")


def _is_of_stages(path: str) -> bool:
    return path.partition(".")[0] == "stages"


def _at(settings: Any, path: str) -> dict[str, Any]:
    """The values at a path, a setting or a whole technique."""
    return {name: value for name, value in flatten(settings).items() if _replaces(path, name)}


def _problem(path: str, value: Any, arm: str, stages: Sequence[Overrides]) -> str:
    if path == LENGTH:
        return f"found {value}, but the stages of {arm!r} have lengths of their own; expected fractions such as 2/3 there, or no epochs"
    number = "the stage" if len(stages) == 1 else f"each of the {len(stages)} stages"
    expected = f"expected it in a stage, such as stages.0.{path}, or no such setting"
    return f"found {_named(value)}, but {number} of {arm!r} sets its own; {expected}"


def _named(value: Any) -> str:
    """A technique by its name, any other value as it is."""
    return worded(value.get("name", dict(value)) if isinstance(value, Mapping) else value)
