"""Overrides of settings: a whole technique by name, one field by its dotted path, a stage by its number."""

import copy
import re
from collections.abc import Collection, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ablation.errors import ConfigError, nearest, unknown_name
from ablation.study.config import Overrides
from ablation.study.implied import having, is_unset, no_field
from ablation.study.settings_schema import SettingsSchema
from ablation.techniques.technique import build, dump


@dataclass(frozen=True)
class PartialArm:
    """A partly resolved arm: its full settings as plain data, and the overrides of its stages as written."""

    settings: dict[str, Any]
    stages: tuple[Overrides, ...] = ()
    stages_at: str = ""  # where the file lists them


def apply_overrides(partial: PartialArm, overrides: Mapping[str, Any], where: str, schema: SettingsSchema) -> PartialArm:
    """The arm with the overrides applied.

    A plain name replaces a whole technique, a dotted path one of its fields; plain names are applied first, wherever they stand.
    """
    undotted = {name: value for name, value in overrides.items() if "." not in name}
    dotted = {name: value for name, value in overrides.items() if "." in name}
    _check_names(undotted, schema.arm_keys, where)
    stages, stages_at = [dict(stage) for stage in partial.stages], partial.stages_at
    if "stages" in undotted:
        stages, stages_at = _stages(undotted.pop("stages"), where), f"{where}.stages"
    settings = canonical({**partial.settings, **undotted}, where, schema) if undotted else partial.settings
    of_techniques = {f"{name}.{field}": v for name, value in undotted.items() if isinstance(value, Mapping) for field, v in value.items()}
    _check_kept(of_techniques, settings, where)
    fields = {name: value for name, value in dotted.items() if name.partition(".")[0] != "stages"}
    for name in sorted(dotted.keys() - fields.keys(), key=lambda name: (name.count("."), name)):  # a technique before its fields
        _override_stage(stages, name.removeprefix("stages."), dotted[name], f"{where}.{name}" if where else name)
    for depth in sorted({name.count(".") for name in fields}):  # a technique before its fields
        settings = copy.deepcopy(settings)
        for name, value in fields.items():
            if name.count(".") == depth:
                owner, _, field = name.rpartition(".")
                if is_unset(settings, owner, schema) and having(owner, [field], schema):
                    raise ConfigError(f"{where}.{name}".lstrip("."), no_field(owner, field, schema))
                _set_dotted(settings, name, value, where)
        settings = canonical(settings, where, schema)
    _check_kept(fields, settings, where)
    return PartialArm(settings, tuple(stages), stages_at)


def _check_kept(fields: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for a number that another field of its technique replaces, as lambda does alpha."""
    for name, value in fields.items():
        owner, _, field = name.rpartition(".")
        technique: Any = settings
        for part in owner.split("."):
            technique = technique.get(part) if isinstance(technique, Mapping) else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and isinstance(technique, Mapping) and technique.get(field, 0) is None:
            others = ", ".join(f"{key} {other}" for key, other in technique.items() if key != "name" and other is not None)
            expected = f"expected it without, or {owner} set as a whole"
            raise ConfigError(f"{where}.{name}".lstrip("."), f"found {value}, which has no effect beside {others}; {expected}")


def _check_names(overrides: Overrides, known: Collection[str], where: str, others: Collection[str] = ()) -> None:
    """Raise ConfigError for a name without a dot that is neither known nor one of the others, which are not offered."""
    for name, value in overrides.items():
        if "." in name or name in known or name in others:
            continue
        if value is None and " " in name:  # the second half of an unquoted text in braces, which YAML reads as a key without a value
            raise ConfigError(where, f"found {name!r} without a value; expected a setting, or quotes around a text that has a comma")
        raise unknown_name(where, "setting", name, known)


def canonical(settings: Mapping[str, Any], where: str, schema: SettingsSchema) -> dict[str, Any]:
    """The settings written out in full; an error names its place under `where`."""
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


def _override_stage(stages: list[Overrides], path: str, value: Any, where: str) -> None:
    number, _, name = path.partition(".")
    if not is_position(number, stages):
        raise ConfigError(where, f"there is no stage {number!r}; the arm has {len(stages)} (counted from 0)")
    stage = stages[int(number)]
    if not name:
        raise ConfigError(where, "names a whole stage; expected one setting of it, such as stages.1.loss")
    for older in [key for key in stage if key == name or key.startswith(f"{name}.")]:  # what is replaced with it
        del stage[older]
    stage[name] = value


def _set_dotted(settings: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, last = dotted.split(".")
    container: Any = settings
    for depth, key in enumerate(parents):
        container = _child(container, key, ".".join(parents[: depth + 1]), where)
    _child(container, last, dotted, where)
    container[int(last) if isinstance(container, list | tuple) else last] = value


def is_position(part: str, sequence: Sized) -> bool:
    """Whether this part of a dotted path is the position of an item in the sequence."""
    return re.fullmatch("[0-9]{1,6}", part) is not None and int(part) < len(sequence)


def _child(container: Any, key: str, path_so_far: str, where: str) -> Any:
    path = f"{where}.{path_so_far}" if where else path_so_far
    if isinstance(container, list | tuple):
        if not is_position(key, container):
            raise ConfigError(path, f"found {key!r}; expected a number below {len(container)}, the length of the list")
        return container[int(key)]
    if not isinstance(container, dict):
        raise ConfigError(path, f"cannot be set: what is there has no fields (it is {container!r})")
    if key not in container:
        owner = f"{path_so_far.rpartition('.')[0]} is {container['name']!r}, which has" if "name" in container else "there is"
        fields = [name for name in container if name != "name"]
        parent_path = path_so_far.rpartition(".")[0]
        expected = f"one of {', '.join(fields)}" if fields else f"another {parent_path}, set as a whole beside or before it"
        raise ConfigError(path, f"{owner} no field {key!r}; expected {expected}.{nearest(key, fields)}")
    if isinstance(container[key], tuple):
        container[key] = list(container[key])
    return container[key]


def split_stage(overrides: Overrides, where: str, schema: SettingsSchema) -> tuple[Overrides, Overrides]:
    """A stage's overrides, split into (its options, the settings that it overrides); raises ConfigError for a name that is neither."""
    own = dict.fromkeys([*schema.option_names, *(name for name in schema.names if name not in schema.whole_arm)])
    _check_names(overrides, own, where, schema.whole_arm)
    options = {name: value for name, value in overrides.items() if name in schema.option_names}
    return options, {name: value for name, value in overrides.items() if name not in options}
