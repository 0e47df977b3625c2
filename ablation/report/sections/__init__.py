"""What the report says, section by section, as Markdown; the forms of a document live in `documents`, numbers in `frames`."""

from ablation.report.frames.plan import CLASSIFIED
from ablation.report.sections.claims import claims
from ablation.report.sections.comparison import comparisons
from ablation.report.sections.content import Content, Shown, made_by
from ablation.report.sections.details import details
from ablation.report.sections.differences import conditions, differences
from ablation.report.sections.gains import attribution, gains
from ablation.report.sections.opening import gaps, opening, unmatched
from ablation.report.sections.quality import quality
from ablation.report.sections.section import Section, SectionSpec, sections_of

__all__ = ["Content", "Shown", "made_by", "sections"]

# The report in its order: what is short comes first, and what a reader seldom opens is folded away at the end.
SECTIONS = (
    SectionSpec(opening),
    SectionSpec(gaps),
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
    """The whole report; titles are Markdown too, and the first one is the document's."""
    return sections_of(SECTIONS, content)
