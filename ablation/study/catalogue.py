"""What techniques there are: a page of all of them and entries for the terminal, made of their docstrings and fields."""

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
ANY_NAME = "NAME"  # what stands for a name that no list has
EXAMPLES: Mapping[str, Mapping[str, Any]] = {  # of what has no default
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
    """Where the file says which technique of a family it takes: `loss`, `data.longtail`; with `many`, a list of them."""

    key: str
    many: bool


@dataclass(frozen=True)
class Setting:
    """One row of a technique's table; `family` is that of a technique within the technique, and else empty."""

    name: str
    default: str
    allowed: str
    meaning: str
    family: str


@dataclass(frozen=True)
class Entry:
    """One technique, or one short form, as the file's reader sees it."""

    family: str
    name: str
    paragraphs: Sequence[str]
    settings: Sequence[Setting]
    line: str


# --- what there is -----------------------------------------------------------------------------------------------------------


@cache
def places() -> dict[str, Place]:
    """family -> its place in the file, the settings' own families before those within techniques."""
    found: dict[str, Place] = {}
    waiting: deque[tuple[str, type[Technique]]] = deque([("", load_task().schema.settings)])
    while waiting:
        prefix, model = waiting.popleft()
        for field, nested in _nested(model).items():
            if nested.family not in found:
                place = found[nested.family] = Place(prefix + field, nested.many)
                waiting += [(f"{place.key}.", technique) for technique in family(nested.family).techniques.values()]
    return {name: found[name] for name in FAMILIES}


def _nested(model: type[Technique]) -> dict[str, Nested]:
    """The fields that hold techniques."""
    fields = model.model_fields.items()
    return {name: mark for name, field in fields for mark in field.metadata if isinstance(mark, Nested)}


def entries(family_name: str) -> list[Entry]:
    """The family's techniques in their order, the one for any other name last; those of other packages are not among them."""
    return [_example(family_name, technique) for technique in family(family_name).built_in]


def short_forms(family_name: str) -> list[Entry]:
    """The family's short forms, whose line is what they stand for."""
    forms = family(family_name).short_forms.items()
    return [Entry(family_name, name, _paragraphs(form), (), line(family_name, make(family_name, name))) for name, form in forms]


def name_of(technique: type[Technique]) -> str:
    """The name in the file, or NAME where it may be any."""
    return ANY_NAME if technique.model_fields["name"].is_required() else technique_name(technique)


def _example(family_name: str, technique: type[Technique]) -> Entry:
    name = name_of(technique)
    made = make(family_name, {"name": name, **EXAMPLES.get(_heading(family_name, name), {})})
    return _entry(family_name, made)


def _entry(family_name: str, made: Technique) -> Entry:
    technique = type(made)
    return Entry(family_name, name_of(technique), _paragraphs(technique), tuple(_settings(made)), line(family_name, made))


def _settings(made: Technique) -> Iterator[Setting]:
    technique = type(made)
    schemas, nested = technique.model_json_schema()["properties"], _nested(technique)
    for name, (own, value) in _fields(made).items():
        field = technique.model_fields[own]
        default = "required" if field.is_required() else written(value)
        inner, values = (nested[own].family, _any_of(nested[own])) if own in nested else ("", allowed(schemas[name]))
        yield Setting(name, default, values, field.description or "", inner)


def _any_of(nested: Nested) -> str:
    return f"any {places()[nested.family].key}" + (f" but {nested.without}" if nested.without else "")


def _fields(made: Technique) -> dict[str, tuple[str, Any]]:
    """The name in the file -> the field and its value; those that the whole family has come last."""
    fields = {own: field.alias or own for own, field in type(made).model_fields.items() if own != "name"}
    ordered = sorted(fields, key=lambda own: own not in type(made).__annotations__)
    return {fields[own]: (own, getattr(made, own)) for own in ordered}


def _paragraphs(documented: object) -> list[str]:
    """The docstring's paragraphs, one line each."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(documented) or "").split("\n\n")]


def introduction(family_name: str) -> str:
    """What the family's module says of it, without its title and the names of its tensors' dimensions."""
    text = _paragraphs(import_module(FAMILIES[family_name]))[0].partition(" Shapes: ")[0].removeprefix(f"{title(family_name)}: ")
    return text[0].upper() + text[1:]


def title(family_name: str) -> str:
    """The family's name as a heading."""
    return TITLES.get(family_name, family_name.replace("_", " ").capitalize())


# --- as YAML and in words ----------------------------------------------------------------------------------------------------


def line(family_name: str, technique: Technique) -> str:
    """The technique as a line of the file, all of its settings written out."""
    place = places()[family_name]
    return f"{place.key}: {written([technique] if place.many else technique)}"


def written(value: Any) -> str:
    """A setting's value as the file would have it, on one line; a technique without settings is its name."""
    if isinstance(value, Technique):
        fields = [f", {name}: {written(one)}" for name, (_, one) in _fields(value).items()]
        name = written(value.model_dump(include={"name"})["name"])
        return f"{{name: {name}{''.join(fields)}}}" if fields else name
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value))
    is_plain = re.fullmatch(r"[A-Za-z][\w./-]*|\d+/\d+", str(value)) and str(value).lower() not in ("true", "false", "null")
    return str(value) if isinstance(value, int) or is_plain else json.dumps(value, ensure_ascii=False)


def allowed(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema admits, in words."""
    if "anyOf" in schema:
        return _either([allowed(one) for one in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return _either([written(value) for value in schema.get("enum", [schema.get("const")])])
    kind = schema.get("type")
    if kind == "array":
        parts = [allowed(one) for one in schema.get("prefixItems", ())]
        return f"[{', '.join(parts)}]" if parts else f"list, each {allowed(schema['items'])}"
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


def _either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    words = list(dict.fromkeys(words))
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


# --- the page ----------------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """The page of all techniques."""
    contents = "\n".join(_contents(name) for name in FAMILIES)
    parts = [
        "# Techniques",
        "<!-- Written by `ablate techniques --format markdown`; change the docstrings instead. -->",
        INTRODUCTION.strip(),
        contents,
        *(part for name in FAMILIES for part in _section(name)),
    ]
    return "\n\n".join(parts) + "\n"


def _contents(family_name: str) -> str:
    links = [f"[{one.name}](#{anchor(_heading(family_name, one.name))})" for one in entries(family_name)]
    links += [f"[{SHORT_FORMS.lower()}](#{anchor(_shorts_title(family_name))})"] if short_forms(family_name) else []
    return f"- [{title(family_name)}](#{anchor(title(family_name))}): {', '.join(links)}"


def _section(family_name: str) -> list[str]:
    bodies = [part for one in entries(family_name) for part in _body(one)]
    return [f"## {title(family_name)}", prose(introduction(family_name)), _where(family_name), *bodies, *_shorts(family_name)]


def _where(family_name: str) -> str:
    """How the file and Python call the family."""
    place, unnamed = places()[family_name], family(family_name).unnamed
    many = ", a list, applied in its order" if place.many else ""
    nameless = f" A mapping without a name is `{unnamed}`." if unnamed else ""
    return f'In the file: `{place.key}`{many}. In Python: `ablation.make("{family_name}", ...)`.{nameless}'


def _shorts(family_name: str) -> list[str]:
    rows = [[f"`{one.name}`", prose(" ".join(one.paragraphs)), f"`{one.line}`"] for one in short_forms(family_name)]
    return [f"### {_shorts_title(family_name)}", _table(["name", "is", "written out"], rows)] if rows else []


def _shorts_title(family_name: str) -> str:
    return f"{SHORT_FORMS} of {title(family_name).lower()}"


def _heading(family_name: str, name: str) -> str:
    return f"{places()[family_name].key}: {name}"


def _body(entry: Entry) -> list[str]:
    has_meanings = any(one.meaning for one in entry.settings)
    header = ["setting", "default", "allowed", *(["meaning"] if has_meanings else [])]
    rows = [_row(one)[: len(header)] for one in entry.settings]
    table = [_table(header, rows)] if rows else []
    return [f"### `{_heading(entry.family, entry.name)}`", *map(prose, entry.paragraphs), *table, f"```yaml\n{entry.line}\n```"]


def _row(setting: Setting) -> list[str]:
    default = setting.default if setting.default == "required" else f"`{setting.default}`"
    return [f"`{setting.name}`", default, _linked(setting), prose(setting.meaning)]


def _linked(setting: Setting) -> str:
    """The allowed values; those of a family lead to its section."""
    if not setting.family:
        return prose(setting.allowed)
    key = places()[setting.family].key
    return setting.allowed.replace(key, f"[{key}](#{anchor(title(setting.family))})", 1)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def anchor(heading: str) -> str:
    """The name by which a link finds the heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def prose(text: str) -> str:
    """The text with what Markdown would take for its own escaped, but for code; operators between spaces are safe as they are."""
    pieces = re.split(r"(`[^`]*`)", text)
    own = r"\\|(?<![\s*~])[*~]+|[*~]+(?![\s*~])|<(?=[A-Za-z/!?])|\](?=\()|(?<![^\W_])_|_(?![^\W_])"
    return "".join(piece if piece.startswith("`") else re.sub(own, _escape, piece) for piece in pieces)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\{character}" for character in match[0])


# --- the terminal ------------------------------------------------------------------------------------------------------------


def overview() -> str:
    """Every family's key and names, and how to ask for more."""
    rows = [[place.key, _names(name)] for name, place in places().items()]
    indent = max(len(key) for key, _ in rows) + 2
    lines = [textwrap.fill(names, WIDTH, initial_indent=f"{key:{indent}}", subsequent_indent=" " * indent) for key, names in rows]
    return "\n".join([*lines, "", "ablate techniques NAME tells of a family or of a technique, such as loss or focal.", ""])


def _names(family_name: str) -> str:
    """The names that a family lists, and in words those that it does not."""
    kind = family(family_name)
    return "; ".join(filter(None, [", ".join(kind.names), introduction(family_name) if kind.any_name else ""]))


def family_of(asked: str) -> str:
    """The family that goes by this name, or by this key of the file; raises ConfigError where there is none."""
    keys = {place.key: name for name, place in places().items()} | {name: name for name in FAMILIES}
    if asked not in keys:
        raise unknown_name("FAMILY", "family", asked, keys)
    return keys[asked]


def terminal(asked: str) -> str:
    """What there is to say of a family (by its key in the file, or as Python calls it) or of every technique of that name."""
    families = [name for name, place in places().items() if asked in (name, place.key)]
    if families:
        return "\n".join(map(_family_told, families))
    known = [one for name in FAMILIES for one in [*entries(name), *short_forms(name)]]
    found = [*(one for one in known if one.name == asked), *_plugged_in(asked)] or _by_any_name(asked)
    if not found:
        names = {name for kind in FAMILIES for name in family(kind).names}
        raise unknown_name("", "technique", asked, {*FAMILIES, *(place.key for place in places().values()), *names})
    return "\n".join(map(_told, found))


def _plugged_in(asked: str) -> list[Entry]:
    """The entries of the techniques that other packages register under that name."""
    kinds = [kind for kind in map(family, FAMILIES) if asked in kind.plugins]
    return [_entry(kind.name, _unchecked(plugin(kind, asked, ""))) for kind in kinds]


def _unchecked(technique: type[Technique]) -> Technique:
    """One with its defaults; what has none is an ellipsis, since no example of it is known."""
    required = {name: "..." for name, field in technique.model_fields.items() if field.is_required()}
    return technique.model_construct(None, **required)


def _by_any_name(asked: str) -> list[Entry]:
    """The entries of families that take more names than they list, where this is one of them."""
    found = []
    for name in (name for name in FAMILIES if family(name).any_name):
        try:
            found.append(_entry(name, make(name, asked)))
        except ConfigError:
            continue
    return found


def _family_told(family_name: str) -> str:
    lines = [_heading(family_name, one.name) + "\n" + _wrapped(_first_sentence(one)) for one in entries(family_name)]
    shorts = [f"{_heading(family_name, one.name)}\n{_wrapped(one.paragraphs[0])}\n    {one.line}" for one in short_forms(family_name)]
    return "\n\n".join([introduction(family_name), *lines, *shorts]) + "\n"


def _first_sentence(entry: Entry) -> str:
    return re.split(r"(?<!\bal)\.\s", entry.paragraphs[0], maxsplit=1)[0].rstrip(".:") + "."


def _told(entry: Entry) -> str:
    rows = [["setting", "default", "allowed", "meaning"], *([one.name, one.default, one.allowed, one.meaning] for one in entry.settings)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines[0] = lines[0] if any(one.meaning for one in entry.settings) else lines[0].removesuffix("  meaning").rstrip()
    table = [textwrap.indent("\n".join(lines), "    ")] if entry.settings else []
    return "\n\n".join([_heading(entry.family, entry.name), *map(_wrapped, entry.paragraphs), *table, f"    {entry.line}"]) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
