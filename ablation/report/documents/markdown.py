"""The report as one Markdown document."""

import re
from collections.abc import Iterator, Sequence

from ablation.report.sections import Content, made_by
from ablation.report.sections.section import Section

LONGEST = 2_000  # letters of a section's minor details; beyond, a document names the files that have them


def render(content: Content, sections: Sequence[Section]) -> str:
    """The whole document. Its first line has the options it was made with."""
    parts = [f"<!-- {made_by(content)} -->"]
    for place, section in enumerate(sections):
        parts += _rendered(section, level=2 if place else 1, inner=3)
    return "\n\n".join(parts) + "\n"


def _rendered(section: Section, level: int, inner: int) -> Iterator[str]:
    """The heading, the text, the figure, and each detail in a block that opens on a click; long minor ones are elsewhere."""
    yield f"{'#' * min(level, 6)} {section.title}"
    for part in (section.body, section.figure):
        if part:
            yield part
    details = shown_details(section)
    for detail in details:
        yield f"<details><summary>{as_html(detail.title)}</summary>"
        yield from _rendered(detail, inner, inner + 1)
        yield "</details>"
    if len(details) < len(section.details):
        yield section.elsewhere


def shown_details(section: Section) -> Sequence[Section]:
    """The details, without the minor ones if those are long and the section says where they are."""
    is_long = sum(_length(detail) for detail in section.details if detail.is_minor) > LONGEST
    return [detail for detail in section.details if not (section.elsewhere and is_long and detail.is_minor)]


def _length(section: Section) -> int:
    return len(section.body) + sum(map(_length, section.details))


def as_html(title: str) -> str:
    """A title inside a tag, where Markdown's backslashes would be visible."""
    return re.sub(r"\\([\\`*\[\]|~_])", r"\1", title)
