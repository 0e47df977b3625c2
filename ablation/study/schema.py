"""A JSON schema of the file, for editors: made of the models that read it and of the families' techniques."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from ablation.study.config import NAME, NAMED, Grid, Profile, StudyFile, Sweep
from ablation.study.task import SettingsSchema
from ablation.techniques.technique import FAMILIES, Nested

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SEEDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
LENGTH: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^\s*[0-9]+/[0-9]+\s*$"},
    ]
}
GROUP: Schema = {"anyOf": [{"type": "string", "pattern": r"^\s*(>=|<=|>|<)\s*[0-9]+\s*$"}, {"type": "array"}]}
GROUPS: Schema = {
    "anyOf": [
        {"const": "thirds"},
        {"type": "object", "properties": dict.fromkeys(("many", "medium", "few"), GROUP), "additionalProperties": False},
    ]
}
SAID: dict[str, Schema] = {
    "label": {**TEXT, "description": "What documents call the arm."},
    "note": {**TEXT, "description": "What there is to say about it."},
    "published": {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100},
        "description": "Accuracies in percent, by the report that prints them.",
    },
}
OF: Schema = {**TEXT, "description": "The arm that it differs from."}
ARMS: Schema = {"type": "array", "items": TEXT, "minItems": 1, "description": "Names or globs of the arms that are meant."}


def study_schema(fields: SettingsSchema) -> Schema:
    """The schema of a study's file; it admits all that `load` takes, and of the rest refuses what a schema can."""
    written = StudyFile.model_json_schema()["properties"]
    sections = {name: {**schema, "description": written[name]["description"]} for name, schema in _sections(fields).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of ablate",
        "description": StudyFile.__doc__,
        "type": "object",
        "properties": {**sections, "extends": {**TEXT, "description": "Another study's file, to which this one adds."}},
        "additionalProperties": False,
        "anyOf": [{"required": ["seeds", "base"]}, {"required": ["extends"]}],
        "$defs": _definitions(fields),
    }


def _sections(fields: SettingsSchema) -> dict[str, Schema]:
    """The file's keys, without their descriptions."""
    named = dict(zip(NAMED, ("rung", "variant", "sweep", "condition", "profile"), strict=True))
    return {
        "study": {**TEXT, "pattern": f"^{NAME}$"},
        "seeds": SEEDS,
        "groups": GROUPS,
        **{name: StudyFile.model_json_schema()["properties"][name] for name in ("margin", "keep")},
        "base": _overrides(fields, {}),
        **{name: {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{one}"}} for name, one in named.items()},
        "ladder": {"type": "object", "additionalProperties": {"$ref": "#/$defs/rung"}, "minProperties": 1},
        "drop_one": {"type": "array", "items": TEXT},
        "add_one": {"type": "array", "items": TEXT},
        "grid": Grid.model_json_schema(),
    }


def _definitions(fields: SettingsSchema) -> dict[str, Schema]:
    point = _optional(_overrides(fields, SAID))
    axis = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "additionalProperties": point, "minProperties": 1}]}
    over = {"type": "object", "additionalProperties": axis, "minProperties": 1}
    choose = {
        "enum": ["none", *fields.choices],
        "description": "The metric by which the arm NAME/best takes, for each seed, one of the points.",
    }
    return {
        "settings": _settings(fields),
        "stages": {"type": "array", "items": _stage(fields), "minItems": 1, "description": "Stretches of training, one after another."},
        "rung": _optional(_overrides(fields, SAID)),
        "variant": _optional(_overrides(fields, {**SAID, "of": OF})),
        "sweep": {**_overrides(fields, {"of": OF, "over": over, "choose": choose}), "required": ["over"], "description": Sweep.__doc__},
        "condition": _optional(_overrides(fields, {"arms": ARMS})),
        "profile": {
            "type": "object",
            "properties": {"seeds": SEEDS, "groups": GROUPS, "base": _overrides(fields, {})},
            "additionalProperties": False,
            "description": Profile.__doc__,
        },
    }


def _settings(fields: SettingsSchema) -> Schema:
    """All settings; each family's is told by its module."""
    schema = fields.settings.model_json_schema(by_alias=True)
    for name, field in fields.settings.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Nested):
                schema["properties"][name]["description"] = _first_sentence(str(import_module(FAMILIES[mark.family]).__doc__))
    return {name: value for name, value in schema.items() if name != "required"}  # they may be spread over several layers


def _first_sentence(text: str) -> str:
    return text.split("\n\n", maxsplit=1)[0].partition(". ")[0].rstrip(".") + "."


def _overrides(fields: SettingsSchema, words: dict[str, Schema]) -> Schema:
    """Any settings, their fields by dotted paths, stages, and the words that may stand beside them."""
    settings = {name: {"$ref": f"#/$defs/settings/properties/{name}"} for name in fields.names}
    return {
        "type": "object",
        "properties": {**settings, "stages": {"$ref": "#/$defs/stages"}, **words},
        "patternProperties": {_fields_of(fields.names): {}, r"^stages\.[0-9]+\.": {}},
        "additionalProperties": False,
    }


def _stage(fields: SettingsSchema) -> Schema:
    own = fields.stage_options.model_json_schema()["properties"]
    names = [name for name in fields.names if name not in (*fields.whole_arm, *own)]
    return {
        "type": "object",
        "properties": {
            **{name: {"$ref": f"#/$defs/settings/properties/{name}"} for name in names},
            **own,
            "epochs": {**LENGTH, "description": own["epochs"]["description"]},
        },
        "patternProperties": {_fields_of(names): {}},
        "additionalProperties": False,
        "description": fields.stage_options.__doc__,
    }


def _fields_of(names: Iterable[str]) -> str:
    """The pattern of dotted paths into these settings."""
    return rf"^({'|'.join(names)})\."


def _optional(schema: Schema) -> Schema:
    """The same, or nothing after the colon."""
    return {"anyOf": [schema, {"type": "null"}]}
