"""What there is to know of each technique, as data: its formula, its settings, its line in a file."""

import inspect
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from ablation.study.task import load_task
from ablation.techniques.technique import FAMILIES, Nested, Technique, family, make, technique_name

TITLES = {"tta": "Test-time augmentation", "posthoc": "Post-hoc adjustment", "longtail": "Long tails"}  # others: the family's own name
ANY_NAME = "NAME"  # stands for the name of a technique that takes any name, such as a model of timm's
EXAMPLES: Mapping[str, Mapping[str, Any]] = {  # values for settings without a default
    f"model: {ANY_NAME}": {"name": "efficientnet_b0"},
    "data.longtail: linear": {"largest": 5000, "smallest": 500},
    "data: folder": {"root": "images"},
    "data: csv": {"file": "images.csv"},
    "data: lists": {"train_list": "train.txt"},
    "data: npz": {"file": "images.npz"},
}


@dataclass(frozen=True)
class Place:
    """The setting that takes a family's technique: `loss`, `data.longtail`. With `many`, it takes a list of them."""

    key: str
    many: bool


@dataclass(frozen=True)
class Setting:
    """One row of a technique's table; `family` is set where the setting takes another technique, and otherwise empty."""

    name: str
    default: str
    allowed: str
    meaning: str
    family: str


@dataclass(frozen=True)
class Entry:
    """One technique, or one short form, as a reader of the catalogue sees it."""

    family: str
    name: str
    paragraphs: Sequence[str]
    settings: Sequence[Setting]
    line: str


# --- entries -----------------------------------------------------------------------------------------------------------------


@cache
def places() -> dict[str, Place]:
    """family -> its place in the file; the families of settings come before those within techniques."""
    place_by_family: dict[str, Place] = {}
    pending: deque[tuple[str, type[Technique]]] = deque([("", load_task().schema.settings)])
    while pending:
        prefix, technique_class = pending.popleft()
        for field, nested in _nested_fields(technique_class).items():
            if nested.family not in place_by_family:
                place = place_by_family[nested.family] = Place(prefix + field, nested.many)
                pending += [(f"{place.key}.", nested_class) for nested_class in family(nested.family).techniques.values()]
    return {name: place_by_family[name] for name in FAMILIES}


def _nested_fields(technique_class: type[Technique]) -> dict[str, Nested]:
    """The fields that hold techniques."""
    fields = technique_class.model_fields.items()
    return {name: nested for name, field in fields for nested in field.metadata if isinstance(nested, Nested)}


def entries(family_name: str) -> list[Entry]:
    """The built-in techniques of a family, in order; the one that takes any name comes last."""
    return [_example_entry(family_name, technique_class) for technique_class in family(family_name).built_in]


def short_forms(family_name: str) -> list[Entry]:
    """The family's short forms; the line of each is what it stands for."""
    forms = family(family_name).short_forms.items()
    return [Entry(family_name, name, _paragraphs(form), (), yaml_line(family_name, make(family_name, name))) for name, form in forms]


def name_of(technique_class: type[Technique]) -> str:
    """The name in the file, or NAME if the technique takes any name."""
    return ANY_NAME if technique_class.model_fields["name"].is_required() else technique_name(technique_class)


def _example_entry(family_name: str, technique_class: type[Technique]) -> Entry:
    name = name_of(technique_class)
    technique = make(family_name, {"name": name, **EXAMPLES.get(heading(family_name, name), {})})
    return entry(family_name, technique)


def entry(family_name: str, technique: Technique) -> Entry:
    """The page's entry of a technique."""
    technique_class = type(technique)
    return Entry(
        family_name,
        name_of(technique_class),
        _paragraphs(technique_class),
        tuple(_setting_rows(technique)),
        yaml_line(family_name, technique),
    )


def _setting_rows(technique: Technique) -> Iterator[Setting]:
    technique_class = type(technique)
    schemas, nested = technique_class.model_json_schema()["properties"], _nested_fields(technique_class)
    for name, (field_name, value) in _fields_by_file_name(technique).items():
        field = technique_class.model_fields[field_name]
        default = "required" if field.is_required() else as_yaml(value)
        inner_family, allowed_text = (
            (nested[field_name].family, _any_member(nested[field_name])) if field_name in nested else ("", allowed_values(schemas[name]))
        )
        yield Setting(name, default, allowed_text, field.description or "", inner_family)


def _any_member(nested: Nested) -> str:
    return f"any {places()[nested.family].key}" + (f" but {nested.without}" if nested.without else "")


def _fields_by_file_name(technique: Technique) -> dict[str, tuple[str, Any]]:
    """name in the file -> (field, value); the fields that the whole family shares come last."""
    fields = {field_name: field.alias or field_name for field_name, field in type(technique).model_fields.items() if field_name != "name"}
    ordered_names = sorted(fields, key=lambda field_name: field_name not in type(technique).__annotations__)
    return {fields[field_name]: (field_name, getattr(technique, field_name)) for field_name in ordered_names}


def _paragraphs(documented: object) -> list[str]:
    """The docstring's paragraphs, one line each."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(documented) or "").split("\n\n")]


def heading(family_name: str, name: str) -> str:
    """`loss: focal`: where a technique stands in the file."""
    return f"{places()[family_name].key}: {name}"


def introduction(family_name: str) -> str:
    """What the docstring of the family's module says, without its title and the legend of tensor shapes."""
    text = _paragraphs(import_module(FAMILIES[family_name]))[0].partition(" Shapes: ")[0].removeprefix(f"{title(family_name)}: ")
    return text[0].upper() + text[1:]


def title(family_name: str) -> str:
    """The family's name as a heading."""
    return TITLES.get(family_name, family_name.replace("_", " ").capitalize())


# --- as YAML and in words ----------------------------------------------------------------------------------------------------


def yaml_line(family_name: str, technique: Technique) -> str:
    """The technique as a line of the file, with all of its settings written out."""
    place = places()[family_name]
    return f"{place.key}: {as_yaml([technique] if place.many else technique)}"


def as_yaml(value: Any) -> str:
    """A setting's value as one line of YAML; a technique without settings is just its name."""
    if isinstance(value, Technique):
        fields = [f", {name}: {as_yaml(field_value)}" for name, (_, field_value) in _fields_by_file_name(value).items()]
        name = as_yaml(value.model_dump(include={"name"})["name"])
        return f"{{name: {name}{''.join(fields)}}}" if fields else name
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value))
    is_plain = re.fullmatch(r"[A-Za-z][\w./-]*|\d+/\d+", str(value)) and str(value).lower() not in ("true", "false", "null")
    return str(value) if isinstance(value, int) or is_plain else json.dumps(value, ensure_ascii=False)


def allowed_values(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return _joined_with_or([allowed_values(alternative) for alternative in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return _joined_with_or([as_yaml(value) for value in schema.get("enum", [schema.get("const")])])
    kind = schema.get("type")
    if kind == "array":
        parts = [allowed_values(item) for item in schema.get("prefixItems", ())]
        return f"[{', '.join(parts)}]" if parts else f"list, each {allowed_values(schema['items'])}"
    if kind in ("integer", "number"):
        return _bounded("whole number" if kind == "integer" else "number", schema)
    return {"boolean": "true or false", "string": "text", "null": "null", "object": "mapping"}.get(str(kind), "any value")


def _bounded(noun: str, schema: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": "<", "minimum": "≤", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = {name: f"{schema[name]:g}" for name in signs if name in schema}
    low = next((f"{bounds[name]} {signs[name]} " for name in bounds if "inimum" in name), "")
    high = next((f" {signs[name]} {bounds[name]}" for name in bounds if "aximum" in name), "")
    if low and not high:
        limit, sign = low.split()
        return f"{noun} {'>' if sign == '<' else '≥'} {limit}"
    return f"{low}{noun}{high}"


def _joined_with_or(texts: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    texts = list(dict.fromkeys(texts))
    return " or ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
