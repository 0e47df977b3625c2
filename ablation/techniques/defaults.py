"""The defaults of the built-in techniques, which are known without importing the families, and torch with them."""

import json
import sys
from typing import Any

from pydantic_core import PydanticUndefined

from ablation.system.kept import kept
from ablation.techniques.technique import FAMILIES, Technique, family

ANY = "*"  # stands for every name that is not listed, where a family has such a class


def field_defaults(family_name: str, name: str) -> dict[str, Any]:
    """field -> default as plain data, under its names in the file and in Python, of a built-in technique; empty if it is none.

    A field that must be set has none.
    """
    by_name = (
        _of_family(family_name) if FAMILIES[family_name] in sys.modules else kept("defaults", family_name, lambda: _of_family(family_name))
    )
    return by_name.get(name, by_name.get(ANY, {}))


def _of_family(family_name: str) -> dict[str, dict[str, Any]]:
    technique_family = family(family_name)
    classes = dict(technique_family.techniques) | ({ANY: technique_family.any_name} if technique_family.any_name else {})
    return {name: _of_class(technique) for name, technique in classes.items()}


def _of_class(technique: type[Technique]) -> dict[str, Any]:
    values = {
        alias: field.get_default(call_default_factory=True, validated_data={})
        for field_name, field in technique.model_fields.items()
        for alias in {field_name, field.alias or field_name}
    }
    plain: dict[str, Any] = json.loads(json.dumps({name: value for name, value in values.items() if value is not PydanticUndefined}))
    return plain
