"""The report as one Markdown document."""

import re
from collections.abc import Iterator, Sequence

from ablation.report.sections import Content, made_by
from ablation.report.sections.section import Section


def render(content: Content, sections: Sequence[Section]) -> str:
    """The whole document. Its first line has the options it was made with."""
    parts = [f"<!-- {made_by(content)} -->"]
    for place, section in enumerate(sections):
        parts += _rendered(section, level=2 if place else 1, inner=3)
    return "\n\n".join(parts) + "\n"


def _rendered(section: Section, level: int, inner: int) -> Iterator[str]:
    """The heading, the text, and each detail in a block that opens on a click."""
    yield f"{'#' * min(level, 6)} {section.title}"
    if section.body:
        yield section.body
    for detail in section.details:
        yield f"<details><summary>{as_html(detail.title)}</summary>"
        yield from _rendered(detail, inner, inner + 1)
        yield "</details>"


def as_html(title: str) -> str:
    """A title inside a tag, where Markdown's backslashes would be visible."""
    return re.sub(r"\\([\\`*\[\]|~_])", r"\1", title)
