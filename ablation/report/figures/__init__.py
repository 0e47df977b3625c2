"""Every figure of a report in one style, drawn without pyplot's state: first the pages by name, then their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.report.figures.classes import class_distribution_png, distribution_pages, slope_pages
from ablation.report.figures.cost import cost_pages
from ablation.report.figures.curves import curve_pages
from ablation.report.figures.differences import forest_pages
from ablation.report.figures.matrices import confusion_matrix_png, confusion_pages, difference_pages
from ablation.report.figures.page import Page, cast
from ablation.report.figures.reliability import reliability_pages
from ablation.report.figures.style import save
from ablation.report.figures.waterfall import waterfall_pages
from ablation.report.frames.tables import Frames, class_groups, train_counts
from ablation.report.metrics import short_name

__all__ = ["Page", "class_distribution_png", "confusion_matrix_png", "pages", "write"]


def pages(frames: Frames, plan: Mapping[str, Any], metric: str) -> list[Page]:
    """The pages that these frames have something to show on, none of them drawn yet; differences are of that metric."""
    name, classes, groups = short_name(metric), list(plan["classes"]), class_groups(plan)
    actors = cast(frames.arms)
    counts = {f"training images (seed {plan['seeds'][0]})": train_counts(plan), "test images": list(plan["test_counts"])}
    return [
        *forest_pages(frames.differences, actors, name, float(plan.get("margin", 0.5))),
        *waterfall_pages(frames.arms, frames.differences, plan, name),
        *slope_pages(frames.per_class, classes, groups, actors),
        *confusion_pages(frames.confusion, classes, actors),
        *difference_pages(frames.confusion, classes, actors),
        *distribution_pages(counts, classes, groups),
        *curve_pages(frames.curves, actors),
        *cost_pages(frames.runs, frames.differences, actors, name),
        *reliability_pages(frames.calibration, frames.arms, plan, actors),
    ]


def write(pages: Sequence[Page], folder: Path) -> None:
    """NAME.png and NAME.svg of every page, in that folder."""
    for page in pages:
        figure = page.draw()
        save(figure, folder / f"{page.name}.png")
        save(figure, folder / f"{page.name}.svg")
