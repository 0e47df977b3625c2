"""Sections of Markdown, with details that may be folded, and the facts that each section needs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ablation.report.frames.facts import NOTHING, Needs
from ablation.report.sections.content import Content


@dataclass(frozen=True)
class Section:
    """A part of the report: its title, its text in Markdown (tables too), and folded parts.

    `figure` is what stands beside the text where there is room. Details that are `is_minor` are left out of a Markdown document where they
    are long; it has `elsewhere` in their place, which says where their numbers are.
    """

    title: str
    body: str = ""
    details: tuple["Section", ...] = ()
    figure: str = ""
    is_minor: bool = False
    elsewhere: str = ""


@dataclass(frozen=True)
class SectionSpec:
    """How a part of the report is made, and the facts that it needs. It may still have nothing to say."""

    make: Callable[[Content], Sequence[Section]]
    needs: Needs = NOTHING


def sections_of(specs: Iterable[SectionSpec], content: Content) -> list[Section]:
    """The sections whose needs the study meets, in order."""
    return [section for spec in specs if spec.needs <= content.facts for section in spec.make(content)]
