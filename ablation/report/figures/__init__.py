"""The figures of a report, in one style and without pyplot's state. Their places in a document are in `sections`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.pop("MPLBACKEND", None)  # of a notebook, say: our figures need none, and matplotlib refuses one that it lacks

from ablation.report.figures.classes import class_distribution_png, distribution_pages, slope_pages
from ablation.report.figures.cost import cost_pages
from ablation.report.figures.curves import curve_pages
from ablation.report.figures.differences import forest_pages
from ablation.report.figures.families import family_pages
from ablation.report.figures.files import write
from ablation.report.figures.matrices import confusion_matrix_png, confusion_pages, difference_pages
from ablation.report.figures.page import ArmsShown, Page, arms_shown
from ablation.report.figures.ranking import ranking_pages
from ablation.report.figures.recall import arms_that_matter, recall_pages
from ablation.report.figures.reliability import reliability_pages
from ablation.report.figures.waterfall import waterfall_pages
from ablation.report.frames.facts import CLASSIFIED, NOTHING, Needs, class_groups, classes_of, groups_of, train_counts
from ablation.report.frames.tables import Frames
from ablation.report.metrics import MetricTable, metrics_of, short_name
from ablation.report.statistics import best
from ablation.study.metrics import has_own_code

__all__ = ["Page", "class_distribution_png", "confusion_matrix_png", "pages", "write"]


@dataclass(frozen=True)
class Source:
    """The data of all pages; `name` is the short name of the metric whose differences are shown."""

    frames: Frames
    plan: Mapping[str, Any]
    name: str
    metrics: MetricTable
    arms: ArmsShown

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return classes_of(self.plan)


@dataclass(frozen=True)
class PageSpec:
    """How the pages of one kind are made, and the facts that they need. There may still be nothing to show."""

    make: Callable[[Source], Sequence[Page]]
    needs: Needs = NOTHING


def _families(source: Source) -> list[Page]:
    return family_pages(source.frames.runs, source.frames.differences, source.plan, source.arms, source.name, source.metrics)


def _forests(source: Source) -> list[Page]:
    return forest_pages(source.frames.differences, source.arms, source.name, source.metrics)


def _waterfalls(source: Source) -> list[Page]:
    return waterfall_pages(source.frames.arms, source.frames.differences, source.plan, source.name, source.metrics)


def _slopes(source: Source) -> list[Page]:
    return slope_pages(source.frames.per_class, source.classes, class_groups(source.plan), source.arms, source.frames.recalls)


def _recalls(source: Source) -> list[Page]:
    frames, plan = source.frames, source.plan
    images = dict(zip(source.classes, train_counts(plan), strict=True)) if plan.get("counts") else {}
    places = {arm["name"]: place for place, arm in enumerate(plan["arms"])}
    ordered = frames.arms.sort_values("arm", key=lambda names: names.map(places), kind="stable")  # whatever --sort says
    arms = arms_that_matter(frames.runs, ordered, source.name, source.metrics, source.arms)
    return recall_pages(frames.recalls, frames.class_differences, images, class_groups(plan), arms, source.arms)


def _rankings(source: Source) -> list[Page]:
    frames = source.frames
    if frames.predictions is None:
        return []
    rungs = [arm["name"] for arm in source.plan["arms"] if arm["kind"] == "ladder" and arm["name"] in source.arms.names]
    return ranking_pages(frames.predictions, frames.runs, rungs, source.classes, groups_of(source.plan).get("few", []))


def _confusions(source: Source) -> list[Page]:
    return confusion_pages(source.frames.confusion, source.classes, source.arms)


def _confusion_differences(source: Source) -> list[Page]:
    return difference_pages(source.frames.confusion, source.classes, source.arms, source.frames.recalls)


def _distributions(source: Source) -> list[Page]:
    plan = source.plan
    counts = {f"training images (seed {plan['seeds'][0]})": train_counts(plan), "test images": list(plan["test_counts"])}
    return distribution_pages(counts, source.classes, class_groups(plan))


def _curves(source: Source) -> list[Page]:
    return curve_pages(source.frames.curves, source.arms, source.metrics, is_own=has_own_code(source.plan))


def _costs(source: Source) -> list[Page]:
    frames = source.frames
    rivals = best.complete_values(frames.runs, best.rankable(frames.arms), source.metrics.full_name(source.name))
    return cost_pages(frames.runs, frames.differences, source.arms, source.name, source.metrics, rivals)


def _reliabilities(source: Source) -> list[Page]:
    plain = source.arms.arms(conditions=False)
    calibration = source.frames.calibration
    shown = calibration[calibration["arm"].isin(plain)] if plain else calibration
    return reliability_pages(shown, source.frames.arms, source.plan, source.arms)


PAGES = (
    PageSpec(_families),
    PageSpec(_forests),
    PageSpec(_waterfalls),
    PageSpec(_slopes, needs=CLASSIFIED),
    PageSpec(_recalls, needs=CLASSIFIED),
    PageSpec(_rankings, needs=CLASSIFIED),
    PageSpec(_confusions, needs=CLASSIFIED),
    PageSpec(_confusion_differences, needs=CLASSIFIED),
    PageSpec(_distributions, needs=frozenset({"classes", "counts"})),
    PageSpec(_curves, needs=frozenset({"curves"})),
    PageSpec(_costs),
    PageSpec(_reliabilities, needs=frozenset({"predictions"})),
)


def pages(frames: Frames, plan: Mapping[str, Any], metric: str) -> list[Page]:
    """All pages for these frames, with differences of that metric. They are drawn later."""
    source = Source(frames, plan, short_name(metric), metrics_of(plan), arms_shown(frames.arms))
    facts = frames.facts(plan)
    return [page for spec in PAGES if spec.needs <= facts for page in spec.make(source)]
