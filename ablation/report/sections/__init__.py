"""The report's sections as Markdown. Documents are made from them in `documents`; numbers are in `frames`."""

from ablation.report.frames.facts import CLASSIFIED
from ablation.report.sections.claims import claims
from ablation.report.sections.comparison import comparisons
from ablation.report.sections.content import Content, Shown, made_by
from ablation.report.sections.data import data
from ablation.report.sections.details import details
from ablation.report.sections.differences import conditions, differences
from ablation.report.sections.gains import attribution, gains
from ablation.report.sections.opening import gaps, opening, unmatched
from ablation.report.sections.quality import quality
from ablation.report.sections.section import Section, SectionSpec, sections_of

__all__ = ["Content", "Shown", "made_by", "sections"]

# The order of the report: short sections first, rarely needed details folded at the end.
SECTIONS = (
    SectionSpec(opening),
    SectionSpec(gaps),
    SectionSpec(data),
    SectionSpec(claims),
    SectionSpec(comparisons),
    SectionSpec(differences),
    SectionSpec(gains, needs=CLASSIFIED),
    SectionSpec(attribution),
    SectionSpec(conditions),
    SectionSpec(quality),
    SectionSpec(unmatched),
    SectionSpec(details),
)


def sections(content: Content) -> list[Section]:
    """The whole report. Titles are Markdown too; the first one is the document's."""
    return sections_of(SECTIONS, content)
