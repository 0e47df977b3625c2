"""Overrides of settings, applied one after another: whole techniques by name, single fields by dotted path, stages by number."""

import copy
import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ablation.errors import ConfigError, nearest, unknown_name
from ablation.study.config import Overrides
from ablation.study.task import SettingsSchema
from ablation.techniques.technique import build, dump


@dataclass(frozen=True)
class PartialArm:
    """What is resolved of an arm so far: full settings as plain data, and what its stages override, still raw."""

    settings: dict[str, Any]
    stages: tuple[Overrides, ...] = ()
    stages_at: str = ""  # the place in the file that lists them


def apply_overrides(partial: PartialArm, overrides: Mapping[str, Any], where: str, schema: SettingsSchema) -> PartialArm:
    """The arm with overrides applied; a plain name replaces a technique, a dotted path one field of it, whatever their order."""
    whole = {name: value for name, value in overrides.items() if "." not in name}
    dotted = {name: value for name, value in overrides.items() if "." in name}
    for name in whole:
        if name not in (*schema.names, "stages"):
            raise unknown_name(where, "setting", name, [*schema.names, "stages"])
    stages, stages_at = [dict(stage) for stage in partial.stages], partial.stages_at
    if "stages" in whole:
        stages, stages_at = _stages(whole.pop("stages"), where), f"{where}.stages"
    settings = canonical({**partial.settings, **whole}, where, schema) if whole else partial.settings
    fields = {name: value for name, value in dotted.items() if name.partition(".")[0] != "stages"}
    for name in sorted(dotted.keys() - fields.keys(), key=lambda name: (name.count("."), name)):  # a technique before its fields
        _override_stage(stages, name.removeprefix("stages."), dotted[name], f"{where}.{name}" if where else name)
    if fields:
        settings = copy.deepcopy(settings)
        for name, value in fields.items():
            _set_dotted(settings, name, value, where)
        settings = canonical(settings, where, schema)
    return PartialArm(settings, tuple(stages), stages_at)


def canonical(settings: Mapping[str, Any], where: str, schema: SettingsSchema) -> dict[str, Any]:
    """The settings written out in full; errors are told under `where`."""
    try:
        return dump(build(schema.settings, settings))
    except ConfigError as error:
        raise error.under(where) from None


def _stages(value: object, where: str) -> list[Overrides]:
    if not isinstance(value, list) or not value or not all(isinstance(stage, Mapping) for stage in value):
        raise ConfigError(
            f"{where}.stages".lstrip("."), f"found {value!r}; expected a list of stages, each a mapping such as {{epochs: 2/3}}"
        )
    return [dict(stage) for stage in value]


def _override_stage(stages: list[Overrides], rest: str, value: Any, where: str) -> None:
    number, _, name = rest.partition(".")
    if not is_position(number, stages):
        raise ConfigError(where, f"there is no stage {number!r}; the arm has {len(stages)} (counted from 0)")
    stage = stages[int(number)]
    if not name:
        raise ConfigError(where, "names a whole stage; expected one setting of it, such as stages.1.loss")
    if "." not in name:
        for dotted in [key for key in stage if key.startswith(f"{name}.")]:
            del stage[dotted]
    stage[name] = value


def _set_dotted(settings: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, last = dotted.split(".")
    here: Any = settings
    for depth, part in enumerate(parents):
        here = _step(here, part, ".".join(parents[: depth + 1]), where)
    _step(here, last, dotted, where)
    here[int(last) if isinstance(here, list | tuple) else last] = value


def is_position(part: str, sequence: Sized) -> bool:
    """Whether this part of a dotted path counts an item of the sequence."""
    return re.fullmatch("[0-9]{1,6}", part) is not None and int(part) < len(sequence)


def _step(here: Any, part: str, so_far: str, where: str) -> Any:
    path = f"{where}.{so_far}" if where else so_far
    if isinstance(here, list | tuple):
        if not is_position(part, here):
            raise ConfigError(path, f"found {part!r}; expected a number below {len(here)}, the length of the list")
        return here[int(part)]
    if not isinstance(here, dict):
        raise ConfigError(path, f"cannot be set: what is there has no fields (it is {here!r})")
    if part not in here:
        owner = f"{so_far.rpartition('.')[0]} is {here['name']!r}, which has" if "name" in here else "there is"
        fields = [name for name in here if name != "name"]
        top = so_far.rpartition(".")[0]
        expected = f"one of {', '.join(fields)}" if fields else f"another {top}, set as a whole beside or before it"
        raise ConfigError(path, f"{owner} no field {part!r}; expected {expected}.{nearest(part, fields)}")
    if isinstance(here[part], tuple):
        here[part] = list(here[part])
    return here[part]


def split_stage(overrides: Overrides, schema: SettingsSchema) -> tuple[Overrides, Overrides]:
    """What a stage says, as (its options, the settings that it overrides)."""
    options = {name: value for name, value in overrides.items() if name in schema.option_names}
    return options, {name: value for name, value in overrides.items() if name not in options}
