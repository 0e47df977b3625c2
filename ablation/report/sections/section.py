"""What every document is made of: sections of Markdown, of which the details may be folded away, and what each of them needs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ablation.report.frames.plan import NOTHING, Needs
from ablation.report.sections.content import Content


@dataclass(frozen=True)
class Section:
    """A part of the report: its title, its text in Markdown (tables too), and further parts that a reader opens if need be."""

    title: str
    body: str = ""
    details: tuple["Section", ...] = ()


@dataclass(frozen=True)
class SectionSpec:
    """How a part of the report is made, and what a study must have for it; it may still find nothing to say."""

    make: Callable[[Content], Sequence[Section]]
    needs: Needs = NOTHING


def sections_of(specs: Iterable[SectionSpec], content: Content) -> list[Section]:
    """The sections that this study has enough for, in their order."""
    return [section for spec in specs if spec.needs <= content.facts for section in spec.make(content)]
