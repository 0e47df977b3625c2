"""The page of all techniques, in Markdown: docs/techniques.md."""

import re
from collections.abc import Sequence

from ablation.study.catalogue.entries import Entry, Setting, entries, heading, introduction, places, short_forms, title
from ablation.techniques.technique import FAMILIES, family

INTRODUCTION = """\
Every entry ends with a line as a study's file takes it, all settings at their defaults. The name alone means the same, so
`loss: focal` is enough, and `loss.gamma: 1.0` changes one setting of what the arm has already. A family whose key has a dot stands
inside another technique: `data.longtail: step` in an arm is `longtail: step` among the settings of its `data`. In a terminal,
`ablate techniques focal` tells of one of them.

In formulas z are the logits, p their softmax, n_c the training images of class c, and C or K the number of classes.
"""
SHORT_FORMS = "Short forms"


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
    links = [f"[{entry.name}](#{heading_anchor(heading(family_name, entry.name))})" for entry in entries(family_name)]
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


def _entry_section(entry: Entry) -> list[str]:
    has_meanings = any(setting.meaning for setting in entry.settings)
    header = ["setting", "default", "allowed", *(["meaning"] if has_meanings else [])]
    rows = [_setting_cells(setting)[: len(header)] for setting in entry.settings]
    table = [_table(header, rows)] if rows else []
    return [f"### `{heading(entry.family, entry.name)}`", *map(escape_markdown, entry.paragraphs), *table, f"```yaml\n{entry.line}\n```"]


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
