"""The report's sections as Markdown. Documents are made from them in `documents`; numbers are in `frames`."""

from ablation.report.frames.facts import CLASSIFIED
from ablation.report.sections.comparison import requested
from ablation.report.sections.content import Content, Shown, made_by
from ablation.report.sections.data import findings
from ablation.report.sections.details import details
from ablation.report.sections.families import families
from ablation.report.sections.gains import classes
from ablation.report.sections.opening import gaps, opening
from ablation.report.sections.section import Section, SectionSpec, sections_of

__all__ = ["Content", "Shown", "made_by", "sections"]

# The order of the report: the first screen, the families of arms, the classes, and everything else, folded.
SECTIONS = (
    SectionSpec(opening),
    SectionSpec(gaps),
    SectionSpec(requested),
    SectionSpec(families),
    SectionSpec(findings),
    SectionSpec(classes, needs=CLASSIFIED),
    SectionSpec(details),
)


def sections(content: Content) -> list[Section]:
    """The whole report. Titles are Markdown too; the first one is the document's."""
    return sections_of(SECTIONS, content)
