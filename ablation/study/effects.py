"""Refuses what is written in a file and changes nothing: an arm that differs in its settings alone would be read as a finding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablation.errors import ConfigError
from ablation.study.config import Arm, Overrides
from ablation.study.specs import ArmSpec
from ablation.techniques.effects import as_acting, of_schedules, of_stage, techniques_in

Layers = Sequence[tuple[str, Overrides]]  # overrides in order, each with its place in the file


def check_effects(specs: Mapping[str, ArmSpec], arms: Mapping[str, Arm], bases: Layers, conditions: Mapping[str, Overrides | None]) -> None:
    """Raise ConfigError for a technique without effect, or a schedule of which a part never acts.

    A neutral value is allowed where it is a control: where another arm has the technique with effect, beside the points of a sweep or
    above in the base, and where it switches off what the parent has. What depends on the length is not looked at with a profile's base,
    which is there to shorten.
    """
    acting = {(setting, name) for arm in arms.values() for _, setting, name, why in _techniques(arm) if not why}
    is_whole = not any(overrides for _, overrides in bases[1:])
    for spec in specs.values():
        above = [*bases, *((f"conditions.{name}", overrides or {}) for name, overrides in conditions.items() if name == spec.condition)]
        layers, arm = [*above, *spec.overrides], arms[spec.name]
        other, problem = of_schedules(arm.stages, arm.settings.schedule) if is_whole else ("", "")
        if problem:
            raise ConfigError(place_of(layers, "schedule", other), problem)
        if spec.written and spec.parent and _acting(arm) == _acting(arms[spec.parent]):
            problem = "changes nothing beside model.weights, whose file is read with either value; expected no such arm, or weights: none"
            raise ConfigError(f"{spec.overrides[-1][0]}.model.pretrained", problem)
        if spec.kind in ("drop_one", "add_one", "grid"):
            continue  # made of rungs, which are looked at themselves
        parent = _compared_with(spec, arms)
        for path, setting, name, why in _techniques(arm):
            known = acting if parent is None else {(s, n) for _, s, n, reason in _techniques(parent) if not reason}
            if setting == "select" and not is_whole:
                continue
            if why and (setting, name) not in known and not (parent and _has(parent, path, name, why)):
                raise ConfigError(place_of(layers, path), f"{name} changes nothing: {why}")


def _acting(arm: Arm) -> list[Any]:
    """The arm's stages, without what another of their settings leaves without effect."""
    return [replace(stage, settings=as_acting(stage.settings)) for stage in arm.stages]


def _compared_with(spec: ArmSpec, arms: Mapping[str, Arm]) -> Arm | None:
    """The arm that a written arm was written on top of; None for the base and the points of a sweep."""
    if spec.condition:
        return arms[spec.name.removeprefix(f"{spec.condition}/")]
    return arms[spec.parent] if spec.written and spec.parent else None


def _techniques(arm: Arm) -> Iterator[tuple[str, str, str, str]]:
    """(path, setting, name, why it changes nothing) of every technique of every stage."""
    for stage in arm.stages:
        whys = dict(of_stage(stage, is_last=stage is arm.stages[-1]))
        for path, setting, technique in techniques_in(stage.settings):
            yield path, setting, getattr(technique, "name", ""), technique.why_neutral or whys.pop(setting, "")
        yield from ((setting, setting, str(getattr(stage.settings, setting)), why) for setting, why in whys.items())


def _has(parent: Arm, path: str, name: str, why: str) -> bool:
    """Whether the parent has the same without effect, so that it is told there or allowed there."""
    return any((path, name, why) == (p, n, w) for p, _, n, w in _techniques(parent))


def place_of(layers: Layers, *paths: str) -> str:
    """Where the file sets one of these last."""
    settings = {path.partition(".")[0]: path for path in paths}
    for where, overrides in reversed(layers):
        for setting, path in settings.items():
            if any(setting in (name.partition(".")[0], *_in_stage(name)) for name in overrides):
                return f"{where}.{path}"
            if "stages" in overrides and any(setting == name.partition(".")[0] for stage in overrides["stages"] for name in stage):
                return f"{where}.stages"
    return f"base.{paths[0]}"


def place_in_stages(layers: Layers, stages_at: str, place: str) -> str:
    """Where the file sets a setting of a stage last: in the list of stages at `stages_at`, or above it by a path such as stages.1.loss."""
    number, _, setting = place.removeprefix(f"{stages_at}.").partition(".")
    for where, overrides in reversed(layers):
        if "stages" in overrides:
            break
        own = [name.removeprefix(f"stages.{number}.") for name in overrides if name.startswith(f"stages.{number}.")]
        if any(f"{setting}.".startswith(f"{name}.") or f"{name}.".startswith(f"{setting}.") for name in own):
            return f"{where}.stages.{number}.{setting}"
    return place


def _in_stage(name: str) -> list[Any]:
    """The setting of a path such as stages.1.loss."""
    parts = name.split(".")
    return parts[2:3] if parts[0] == "stages" else []
