"""The report, section by section, as Markdown: what is short comes first, details can be folded away."""

from ablation.report.section import Section
from ablation.report.sections.claims import claims
from ablation.report.sections.comparison import comparisons
from ablation.report.sections.content import Content, Shown, made_by
from ablation.report.sections.details import details
from ablation.report.sections.differences import conditions, differences
from ablation.report.sections.gains import attribution, gains
from ablation.report.sections.opening import gaps, opening, unmatched
from ablation.report.sections.quality import quality

__all__ = ["Content", "Shown", "made_by", "sections"]


def sections(content: Content) -> list[Section]:
    """The whole report; titles are Markdown too, and the first one is the document's."""
    return [
        opening(content),
        *gaps(content),
        claims(content),
        *comparisons(content),
        *differences(content),
        *gains(content),
        *attribution(content),
        *conditions(content),
        quality(content),
        *unmatched(content),
        details(content),
    ]
