"""The JSON schema of the file, for editors: made of the models that read it, and of the techniques of all families."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from ablation.study.config import AUTO, NAME, NAMED_SECTIONS, OWN_FIELDS, Grid, Profile, StudyFile, Sweep
from ablation.study.settings_schema import SettingsSchema
from ablation.techniques.technique import FAMILIES, Nested

Schema = dict[str, Any]
IMAGES_ONLY = ("groups", "margin", "keep")  # the sections that a file with a task cannot have

STRING_SCHEMA: Schema = {"type": "string"}
SEEDS_SCHEMA: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
LENGTH_SCHEMA: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "string", "pattern": r"^\s*[0-9]+/[0-9]+\s*$"},
    ]
}
GROUP_SCHEMA: Schema = {"anyOf": [{"type": "string", "pattern": r"^\s*(>=|<=|>|<)\s*[0-9]+\s*$"}, {"type": "array"}]}
GROUPS_SCHEMA: Schema = {
    "anyOf": [
        {"const": "thirds"},
        {"type": "object", "properties": dict.fromkeys(("many", "medium", "few"), GROUP_SCHEMA), "additionalProperties": False},
    ]
}
ARM_DETAILS: dict[str, Schema] = {
    "label": {**STRING_SCHEMA, "description": "What documents call the arm."},
    "note": {**STRING_SCHEMA, "description": "What there is to say about it."},
    "published": {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100},
        "description": "Accuracies in percent, by the report that prints them.",
    },
}
OF_SCHEMA: Schema = {**STRING_SCHEMA, "description": "The arm that it differs from."}
OVER_WORDS = (
    "The axes, which are crossed: a setting or a dotted field with its values. A field of a technique that is none, such as "
    "smoothing.epsilon over smoothing: none, stands for the one technique that has it, otherwise at its defaults."
)
ARMS_SCHEMA: Schema = {"type": "array", "items": STRING_SCHEMA, "minItems": 1, "description": "Names or globs of the arms that are meant."}


def study_schema(settings_schema: SettingsSchema, own_sections: Schema) -> Schema:
    """The schema of a study's file; it accepts whatever `load` accepts, and refuses what a schema can refuse of the rest.

    A file with a `task` may set anything, since only the code knows its settings; `own_sections` are the schemas of what it declares. A
    file that extends such a one is recognised if it repeats the task.
    """
    documented = StudyFile.model_json_schema()["properties"]
    sections = _section_schemas(settings_schema)
    own = {**sections, **_free_sections(), **own_sections}
    described = {name: {"description": documented[name]["description"]} for name in documented}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of ablate",
        "description": StudyFile.__doc__,
        "type": "object",
        "properties": {**described, "extends": {**STRING_SCHEMA, "description": "Another study's file, to which this one adds."}},
        "additionalProperties": False,
        "if": {"required": ["task"]},
        "then": {
            "properties": {name: schema for name, schema in own.items() if name not in IMAGES_ONLY} | dict.fromkeys(IMAGES_ONLY, False),
            "anyOf": [{"required": ["seeds", "metrics"]}, {"required": ["extends"]}],
        },
        "else": {
            "properties": {**sections, **dict.fromkeys(OWN_FIELDS, False)},
            "anyOf": [{"required": ["seeds", "base"]}, {"required": ["extends"]}],
        },
        "$defs": _definition_schemas(settings_schema),
    }


def _free_sections() -> Schema:
    """The sections with settings, where any name may be one."""
    arm = _or_null({"type": "object", "properties": {**ARM_DETAILS, "of": OF_SCHEMA}})
    axis: Schema = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]}
    over = {"type": "object", "additionalProperties": axis, "minProperties": 1, "description": "The axes, which are crossed."}
    sweep = {"type": "object", "properties": {"of": OF_SCHEMA, "over": over, "choose": STRING_SCHEMA}, "required": ["over"]}
    condition = _or_null({"type": "object", "properties": {"arms": ARMS_SCHEMA}})
    profile = {"seeds": SEEDS_SCHEMA, "metric": STRING_SCHEMA, "base": {"type": "object"}}
    return {
        "metric": STRING_SCHEMA,
        "base": {"type": "object"},
        "ladder": {"type": "object", "additionalProperties": arm, "minProperties": 1},
        "variants": {"type": "object", "additionalProperties": arm},
        "sweeps": {"type": "object", "additionalProperties": sweep},
        "conditions": {"type": "object", "additionalProperties": condition},
        "profiles": {
            "type": "object",
            "additionalProperties": {"type": "object", "properties": profile, "additionalProperties": False},
        },
    }


def _section_schemas(settings_schema: SettingsSchema) -> dict[str, Schema]:
    """The sections of the file, without their descriptions."""
    definition_by_section = dict(zip(NAMED_SECTIONS, ("rung", "variant", "sweep", "condition", "profile"), strict=True))
    return {
        "study": {**STRING_SCHEMA, "pattern": f"^{NAME}$"},
        "seeds": SEEDS_SCHEMA,
        "groups": GROUPS_SCHEMA,
        "metric": _metric_schema(settings_schema),
        **{name: StudyFile.model_json_schema()["properties"][name] for name in ("margin", "keep")},
        "base": _overrides_schema(settings_schema, {}),
        **{
            name: {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{definition}"}}
            for name, definition in definition_by_section.items()
        },
        "ladder": {"type": "object", "additionalProperties": {"$ref": "#/$defs/rung"}, "minProperties": 1},
        "drop_one": {"type": "array", "items": STRING_SCHEMA},
        "add_one": {"type": "array", "items": STRING_SCHEMA},
        "grid": Grid.model_json_schema(),
    }


def _metric_schema(settings_schema: SettingsSchema) -> Schema:
    """A metric by its name, with or without `test/`, or that of a class."""
    names = [AUTO, *settings_schema.metrics, *(f"test/{name}" for name in settings_schema.metrics)]
    return {"anyOf": [{"enum": names}, {"type": "string", "pattern": f"^(test/)?({'|'.join(settings_schema.class_metrics)})/."}]}


def _definition_schemas(settings_schema: SettingsSchema) -> dict[str, Schema]:
    point = _or_null(_overrides_schema(settings_schema, ARM_DETAILS))
    axis = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "additionalProperties": point, "minProperties": 1}]}
    over = {"type": "object", "additionalProperties": axis, "minProperties": 1, "description": OVER_WORDS}
    choose = {
        "enum": ["none", *settings_schema.choices],
        "description": "The metric by which the arm NAME/best takes, for each seed, one of the points.",
    }
    return {
        "settings": _settings_schema(settings_schema),
        "stages": {
            "type": "array",
            "items": _stage_schema(settings_schema),
            "minItems": 1,
            "description": "Stretches of training, one after another.",
        },
        "rung": _or_null(_overrides_schema(settings_schema, ARM_DETAILS)),
        "variant": _or_null(_overrides_schema(settings_schema, {**ARM_DETAILS, "of": OF_SCHEMA})),
        "sweep": {
            **_overrides_schema(settings_schema, {"of": OF_SCHEMA, "over": over, "choose": choose}),
            "required": ["over"],
            "description": Sweep.__doc__,
        },
        "condition": _or_null(_overrides_schema(settings_schema, {"arms": ARMS_SCHEMA})),
        "profile": {
            "type": "object",
            "properties": {
                "seeds": SEEDS_SCHEMA,
                "groups": GROUPS_SCHEMA,
                "metric": _metric_schema(settings_schema),
                "base": _overrides_schema(settings_schema, {}),
            },
            "additionalProperties": False,
            "description": Profile.__doc__,
        },
    }


def _settings_schema(settings_schema: SettingsSchema) -> Schema:
    """All settings; those that take a technique are described by the docstring of its family's module."""
    schema = settings_schema.settings.model_json_schema(by_alias=True)
    for name, field in settings_schema.settings.model_fields.items():
        for nested in field.metadata:
            if isinstance(nested, Nested):
                schema["properties"][name]["description"] = _first_sentence(str(import_module(FAMILIES[nested.family]).__doc__))
    return {name: value for name, value in schema.items() if name != "required"}  # a required setting may be in another layer of the file


def _first_sentence(text: str) -> str:
    return text.split("\n\n", maxsplit=1)[0].partition(". ")[0].rstrip(".") + "."


def _overrides_schema(settings_schema: SettingsSchema, other_keys: dict[str, Schema]) -> Schema:
    """A mapping with any settings, their fields by dotted path, stages, and these other keys."""
    settings = {name: {"$ref": f"#/$defs/settings/properties/{name}"} for name in settings_schema.names}
    return {
        "type": "object",
        "properties": {**settings, "stages": {"$ref": "#/$defs/stages"}, **other_keys},
        "patternProperties": {_field_pattern(settings_schema.names): {}, r"^stages\.[0-9]+\.": {}},
        "additionalProperties": False,
    }


def _stage_schema(settings_schema: SettingsSchema) -> Schema:
    options = settings_schema.stage_options.model_json_schema()["properties"]
    names = [name for name in settings_schema.names if name not in (*settings_schema.whole_arm, *options)]
    return {
        "type": "object",
        "properties": {
            **{name: {"$ref": f"#/$defs/settings/properties/{name}"} for name in names},
            **options,
            "epochs": {**LENGTH_SCHEMA, "description": options["epochs"]["description"]},
        },
        "patternProperties": {_field_pattern(names): {}},
        "additionalProperties": False,
        "description": settings_schema.stage_options.__doc__,
    }


def _field_pattern(names: Iterable[str]) -> str:
    """The pattern of dotted paths to the fields of these settings."""
    return rf"^({'|'.join(names)})\."


def _or_null(schema: Schema) -> Schema:
    """The schema, or null: nothing after the colon."""
    return {"anyOf": [schema, {"type": "null"}]}
