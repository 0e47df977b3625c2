"""The same in a terminal: all families, one family, or one technique."""

import re
import textwrap

from ablation.errors import ConfigError, unknown_name
from ablation.study.catalogue.entries import Entry, entries, entry, heading, introduction, places, short_forms
from ablation.techniques.technique import FAMILIES, Technique, family, make, plugin

WIDTH = 100  # columns of a terminal


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
    return [entry(technique_family.name, _with_defaults(plugin(technique_family, name, ""))) for technique_family in families]


def _with_defaults(technique_class: type[Technique]) -> Technique:
    """The technique with its defaults; a setting without one becomes an ellipsis."""
    required = {name: "..." for name, field in technique_class.model_fields.items() if field.is_required()}
    return technique_class.model_construct(None, **required)


def _unlisted_entries(name: str) -> list[Entry]:
    """The entries of the families that do not list this name but accept it."""
    matches = []
    for family_name in (family_name for family_name in FAMILIES if family(family_name).any_name):
        try:
            matches.append(entry(family_name, make(family_name, name)))
        except ConfigError:
            continue
    return matches


def _family_text(family_name: str) -> str:
    lines = [heading(family_name, entry.name) + "\n" + _indented(_first_sentence(entry)) for entry in entries(family_name)]
    shorts = [
        f"{heading(family_name, entry.name)}\n{_indented(entry.paragraphs[0])}\n    {entry.line}" for entry in short_forms(family_name)
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
    return "\n\n".join([heading(entry.family, entry.name), *map(_indented, entry.paragraphs), *table, f"    {entry.line}"]) + "\n"


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
