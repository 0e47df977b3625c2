"""The catalogue of techniques, made of their docstrings and fields: a page of all of them, and entries for the terminal."""

import inspect
import json
import re
import textwrap
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from ablation.errors import ConfigError, unknown_name
from ablation.study.task import load_task
from ablation.techniques.technique import FAMILIES, Nested, Technique, family, make, plugin, technique_name

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
INTRODUCTION = """\
Every entry ends with a line as a study's file takes it, all settings at their defaults. The name alone means the same, so
`loss: focal` is enough, and `loss.gamma: 1.0` changes one setting of what the arm has already. A family whose key has a dot stands
inside another technique: `data.longtail: step` in an arm is `longtail: step` among the settings of its `data`. In a terminal,
`ablate techniques focal` tells of one of them.

In formulas z are the logits, p their softmax, n_c the training images of class c, and C or K the number of classes.
"""
SHORT_FORMS = "Short forms"
WIDTH = 100  # columns of a terminal


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
    technique = make(family_name, {"name": name, **EXAMPLES.get(_heading(family_name, name), {})})
    return _entry(family_name, technique)


def _entry(family_name: str, technique: Technique) -> Entry:
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


# --- the page ----------------------------------------------------------------------------------------------------------------


def markdown_page() -> str:
    """The page of all techniques."""
    contents = "\n".join(_contents_line(name) for name in FAMILIES)
    parts = [
        "# Techniques",
        "<!-- Written by `ablate techniques --format markdown`; change the docstrings instead. -->",
        INTRODUCTION.strip(),
        contents,
        *(part for name in FAMILIES for part in _section(name)),
    ]
    return "\n\n".join(parts) + "\n"


def _contents_line(family_name: str) -> str:
    links = [f"[{entry.name}](#{heading_anchor(_heading(family_name, entry.name))})" for entry in entries(family_name)]
    links += [f"[{SHORT_FORMS.lower()}](#{heading_anchor(_short_forms_title(family_name))})"] if short_forms(family_name) else []
    return f"- [{title(family_name)}](#{heading_anchor(title(family_name))}): {', '.join(links)}"


def _section(family_name: str) -> list[str]:
    entry_parts = [part for entry in entries(family_name) for part in _entry_section(entry)]
    return [
        f"## {title(family_name)}",
        escape_markdown(introduction(family_name)),
        _usage(family_name),
        *entry_parts,
        *_short_forms_section(family_name),
    ]


def _usage(family_name: str) -> str:
    """How the family is used in a file and in Python."""
    place, unnamed = places()[family_name], family(family_name).unnamed
    list_note = ", a list, applied in its order" if place.many else ""
    unnamed_note = f" A mapping without a name is `{unnamed}`." if unnamed else ""
    return f'In the file: `{place.key}`{list_note}. In Python: `ablation.make("{family_name}", ...)`.{unnamed_note}'


def _short_forms_section(family_name: str) -> list[str]:
    rows = [[f"`{entry.name}`", escape_markdown(" ".join(entry.paragraphs)), f"`{entry.line}`"] for entry in short_forms(family_name)]
    return [f"### {_short_forms_title(family_name)}", _table(["name", "is", "written out"], rows)] if rows else []


def _short_forms_title(family_name: str) -> str:
    return f"{SHORT_FORMS} of {title(family_name).lower()}"


def _heading(family_name: str, name: str) -> str:
    return f"{places()[family_name].key}: {name}"


def _entry_section(entry: Entry) -> list[str]:
    has_meanings = any(setting.meaning for setting in entry.settings)
    header = ["setting", "default", "allowed", *(["meaning"] if has_meanings else [])]
    rows = [_setting_cells(setting)[: len(header)] for setting in entry.settings]
    table = [_table(header, rows)] if rows else []
    return [f"### `{_heading(entry.family, entry.name)}`", *map(escape_markdown, entry.paragraphs), *table, f"```yaml\n{entry.line}\n```"]


def _setting_cells(setting: Setting) -> list[str]:
    default = setting.default if setting.default == "required" else f"`{setting.default}`"
    return [f"`{setting.name}`", default, _allowed_with_link(setting), escape_markdown(setting.meaning)]


def _allowed_with_link(setting: Setting) -> str:
    """The allowed values; a family among them links to its section."""
    if not setting.family:
        return escape_markdown(setting.allowed)
    key = places()[setting.family].key
    return setting.allowed.replace(key, f"[{key}](#{heading_anchor(title(setting.family))})", 1)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def heading_anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and GitLab make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def escape_markdown(text: str) -> str:
    """The text with Markdown's special characters escaped, except in code and where an operator stands between spaces."""
    pieces = re.split(r"(`[^`]*`)", text)
    special = r"\\|(?<![\s*~])[*~]+|[*~]+(?![\s*~])|<(?=[A-Za-z/!?])|\](?=\()|(?<![^\W_])_|_(?![^\W_])"
    return "".join(piece if piece.startswith("`") else re.sub(special, _escape, piece) for piece in pieces)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\{character}" for character in match[0])


# --- the terminal ------------------------------------------------------------------------------------------------------------


def overview() -> str:
    """The key and the names of every family, and how to ask for more."""
    rows = [[place.key, _names_text(name)] for name, place in places().items()]
    indent = max(len(key) for key, _ in rows) + 2
    lines = [textwrap.fill(names, WIDTH, initial_indent=f"{key:{indent}}", subsequent_indent=" " * indent) for key, names in rows]
    return "\n".join([*lines, "", "ablate techniques NAME explains a family or a technique, such as loss or focal.", ""])


def _names_text(family_name: str) -> str:
    """The names that a family lists, and a description of those that it takes beyond them."""
    technique_family = family(family_name)
    return "; ".join(filter(None, [", ".join(technique_family.names), introduction(family_name) if technique_family.any_name else ""]))


def family_of(name: str) -> str:
    """The family with this name, or with this key in the file; raises ConfigError if there is none."""
    keys = {place.key: family_name for family_name, place in places().items()} | {family_name: family_name for family_name in FAMILIES}
    if name not in keys:
        raise unknown_name("FAMILY", "family", name, keys)
    return keys[name]


def terminal_text(name: str) -> str:
    """The description of a family (by its name or its key in the file), or of every technique with this name."""
    families = [family_name for family_name, place in places().items() if name in (family_name, place.key)]
    if families:
        return "\n".join(map(_family_text, families))
    listed = [entry for family_name in FAMILIES for entry in [*entries(family_name), *short_forms(family_name)]]
    matches = [*(entry for entry in listed if entry.name == name), *_plugin_entries(name)] or _unlisted_entries(name)
    if not matches:
        names = {listed_name for family_name in FAMILIES for listed_name in family(family_name).names}
        raise unknown_name("", "technique", name, {*FAMILIES, *(place.key for place in places().values()), *names})
    return "\n".join(map(_entry_text, matches))


def _plugin_entries(name: str) -> list[Entry]:
    """The entries of the techniques that other packages register under this name."""
    families = [technique_family for technique_family in map(family, FAMILIES) if name in technique_family.plugins]
    return [_entry(technique_family.name, _with_defaults(plugin(technique_family, name, ""))) for technique_family in families]


def _with_defaults(technique_class: type[Technique]) -> Technique:
    """The technique with its defaults; a setting without one becomes an ellipsis."""
    required = {name: "..." for name, field in technique_class.model_fields.items() if field.is_required()}
    return technique_class.model_construct(None, **required)


def _unlisted_entries(name: str) -> list[Entry]:
    """The entries of the families that do not list this name but accept it."""
    matches = []
    for family_name in (family_name for family_name in FAMILIES if family(family_name).any_name):
        try:
            matches.append(_entry(family_name, make(family_name, name)))
        except ConfigError:
            continue
    return matches


def _family_text(family_name: str) -> str:
    lines = [_heading(family_name, entry.name) + "\n" + _indented(_first_sentence(entry)) for entry in entries(family_name)]
    shorts = [
        f"{_heading(family_name, entry.name)}\n{_indented(entry.paragraphs[0])}\n    {entry.line}" for entry in short_forms(family_name)
    ]
    return "\n\n".join([introduction(family_name), *lines, *shorts]) + "\n"


def _first_sentence(entry: Entry) -> str:
    return re.split(r"(?<!\bal)\.\s", entry.paragraphs[0], maxsplit=1)[0].rstrip(".:") + "."


def _entry_text(entry: Entry) -> str:
    rows = [
        ["setting", "default", "allowed", "meaning"],
        *([setting.name, setting.default, setting.allowed, setting.meaning] for setting in entry.settings),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines[0] = lines[0] if any(setting.meaning for setting in entry.settings) else lines[0].removesuffix("  meaning").rstrip()
    table = [textwrap.indent("\n".join(lines), "    ")] if entry.settings else []
    return "\n\n".join([_heading(entry.family, entry.name), *map(_indented, entry.paragraphs), *table, f"    {entry.line}"]) + "\n"


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
