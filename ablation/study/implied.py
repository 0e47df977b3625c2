"""What a field of a technique that is not set means: the one technique that has it, in a sweep; elsewhere a mistake."""

from collections.abc import Iterable, Mapping
from typing import Any

from ablation.errors import ConfigError
from ablation.formatting import listed
from ablation.study.config import Overrides
from ablation.study.settings_schema import SettingsSchema
from ablation.techniques.technique import Technique, family

UNSET = "none"


def with_techniques(
    settings: Mapping[str, Any], overrides: Overrides, named: Iterable[str], where: str, schema: SettingsSchema
) -> Overrides:
    """The overrides, with the whole technique in the place of fields of one that is `none`: `smoothing.epsilon` means label_smoothing.

    It is the only technique of the family that has all the fields among `named`, dotted paths; raises ConfigError if several have.
    """
    completed: Overrides = {}
    for path, value in overrides.items():
        owner, _, field = path.rpartition(".")
        if owner in overrides or not is_unset(settings, owner, schema):
            completed[path] = value
        elif owner in completed:
            completed[owner][field] = value
        else:
            fields = {name.removeprefix(f"{owner}.") for name in named if name.rpartition(".")[0] == owner} | {field}
            names = having(owner, fields, schema)
            if len(names) > 1:
                raise ConfigError(f"{where}.{path}", no_field(owner, field, schema))
            completed |= {owner: {"name": names[0], field: value}} if names else {path: value}
    return completed


def is_unset(settings: Mapping[str, Any], owner: str, schema: SettingsSchema) -> bool:
    """Whether that is the path of a technique, and it is none."""
    if owner not in schema.families:
        return False
    value: Any = settings
    for part in owner.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return isinstance(value, Mapping) and value.get("name") == UNSET


def having(owner: str, fields: Iterable[str], schema: SettingsSchema) -> list[str]:
    """The names of the built-in techniques at that path that have all these fields."""
    return [name for name, technique in family(schema.families[owner]).techniques.items() if set(fields) <= _fields(technique)]


def _fields(technique: type[Technique]) -> set[str]:
    """The names of its fields in the file."""
    return {field.alias or name for name, field in technique.model_fields.items()} - {"name"}


def no_field(owner: str, field: str, schema: SettingsSchema) -> str:
    """What is wrong with a field of a technique that is none, and what may be written instead."""
    names = having(owner, [field], schema) if owner in schema.families else []
    known = f" ({listed(names)} {'has' if len(names) == 1 else 'have'} it)" if names else ""
    return f"{owner} is {UNSET!r}, which has no field {field!r}; expected another {owner}, set as a whole beside or before it{known}"
