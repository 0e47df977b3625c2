"""The recall of every class of an arm against its baseline, with intervals, the classes with the most training images first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablation.report.figures import dots, labels, style
from ablation.report.figures.differences import INTERVAL
from ablation.report.figures.fonts import drawn_names
from ablation.report.figures.page import ArmsShown, Page, file_name, sized, some
from ablation.report.frames.classes import on_common_seeds, seeds_words
from ablation.report.metrics import MetricTable
from ablation.report.statistics import best

ROW = 0.2  # inches
BESIDE, BESIDE_ARROWS = 3.5, 7.0  # points between the names and the panel
MOST_ARMS = 3
FOR_PAPERS = 2  # the best arm and the last rung
OUTSIDE = ""  # the group of a class without a group


@dataclass(frozen=True)
class ClassRecall:
    """One class: its group and training images (-1 if unknown), both recalls in percent, and the interval of the difference in points."""

    name: str
    group: str
    images: int
    before: float
    after: float
    low: float
    high: float


def recall_pages(
    recalls: Mapping[str, pd.DataFrame], differences: pd.DataFrame, images: Mapping[str, int], groups: Mapping[str, str],
    arms: Sequence[str], shown: ArmsShown,
) -> list[Page]:  # fmt: skip
    """A page for each of these arms that has a baseline, of the seeds that both have; `images` are the training images by class.

    `recalls` has a frame per arm, with a row per seed and a column per class.
    """
    kept = [arm for arm in arms if arm in shown.compared(recalls)][:MOST_ARMS]
    order = list(dict.fromkeys(groups.values()))
    pages = []
    for number, arm in enumerate(kept):
        baseline = shown.baseline(arm)
        common = on_common_seeds(recalls, [arm, baseline])
        if baseline not in common:
            continue
        drawn = drawn_names([str(name) for name in recalls[arm].columns])
        rows = _rows(common[baseline].mean(), common[arm].mean(), _ends(differences, arm), images, groups)
        seeds = seeds_words(recalls, common)
        title = f"Recall by class: {shown.names[arm]} against {shown.names[baseline]}{f', {seeds}' if seeds else ''}"
        draw = partial(recall_page, [replace(row, name=drawn[row.name]) for row in rows], title, order)
        pages.append(sized(f"recall-{file_name(arm)}", "recall", title, _words(title, rows), draw, for_paper=number < FOR_PAPERS))
    return pages


def arms_that_matter(runs: pd.DataFrame, arms: pd.DataFrame, name: str, metrics: MetricTable, shown: ArmsShown) -> list[str]:
    """The best arm outside conditions (see `statistics.best`), and the ladder's rungs from the last one."""
    is_plain = (arms["condition"] == "") & arms["arm"].isin(shown.names)
    values = best.complete_values(runs, best.rankable(arms[is_plain]), metrics.full_name(name))
    same_as = {arm: same for arm, same in zip(arms["arm"], arms["same_as"], strict=True) if same}
    leading = best.best_of(values, is_lower_better=metrics.is_lower_better(name), same_as=same_as)[:1]
    ladder = [arm for arm in arms["arm"] if arm in shown.names and shown.kinds[arm] == "ladder"]
    return list(dict.fromkeys([*leading, *reversed(ladder)]))


def _ends(differences: pd.DataFrame, arm: str) -> dict[str, tuple[float, float]]:
    rows = differences[(differences["arm"] == arm) & (differences["role"] == "baseline")]
    return {str(name): (float(low), float(high)) for name, low, high in rows[["class", "low", "high"]].itertuples(index=False)}


def _rows(
    before: pd.Series, after: pd.Series, ends: Mapping[str, tuple[float, float]], images: Mapping[str, int], groups: Mapping[str, str]
) -> list[ClassRecall]:
    """The classes with test images, those with the most training images first."""
    rows = [
        ClassRecall(
            str(name), groups.get(str(name), OUTSIDE), images.get(str(name), -1), 100 * float(before.get(name, math.nan)),
            100 * float(value), *ends.get(str(name), (math.nan, math.nan)),
        )
        for name, value in after.items()
    ]  # fmt: skip
    return sorted((row for row in rows if math.isfinite(row.before + row.after)), key=lambda row: -row.images)


def _words(title: str, rows: Sequence[ClassRecall]) -> str:
    """The alt text: the classes whose recall moved most."""
    moved = sorted(rows, key=lambda row: -abs(row.after - row.before))[:5]
    return f"{title}; the classes that moved most: {some([f'{row.name} {row.before:.1f} to {row.after:.1f} %' for row in moved])}."


def recall_page(rows: Sequence[ClassRecall], title: str, order: Sequence[str], wide: float) -> Figure:
    """A row per class; with over thirty classes a point per class over its place, and the mean of each group."""
    return _named(rows, title, order, wide) if len(rows) <= style.MOST_NAMED_CLASSES else _unnamed(rows, title, order, wide)


def _handles(rows: Sequence[ClassRecall], order: Sequence[str]) -> list[Any]:
    has_ends = len(rows) <= style.MOST_NAMED_CLASSES and any(math.isfinite(row.low) for row in rows)
    label = f"arm, {INTERVAL}" if has_ends else "arm"
    handles: list[Any] = [
        Line2D([], [], marker="o", linestyle="", markerfacecolor="white", markeredgecolor=style.GREY, markersize=5, label="baseline"),
        Line2D([], [], marker="o", color=style.INK, linewidth=1.0 if has_ends else 0, markersize=5, label=label),
    ]
    for group in [group for group in order if any(row.group == group for row in rows)]:
        colour = style.group_colour(group, order)
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour, markersize=5, label=group))
    return handles


def _blank(rows: Sequence[ClassRecall], title: str, order: Sequence[str], wide: float, left: float, right: float, high: float) -> Axes:
    """The one panel of a figure with its legend and title; lengths are in inches."""
    handles = _handles(rows, order)
    top, bottom = style.legend_height(wide, handles) + 0.3, 0.42
    tall = top + high + bottom
    figure = Figure(figsize=(wide, tall), dpi=110)
    style.legend(figure, handles)
    axes = figure.add_axes((left / wide, bottom / tall, (wide - left - right) / wide, high / tall))
    axes.set_title(style.fitted(title, 8, wide - 0.1), loc="left", x=(0.05 - left) / (wide - left - right))
    return axes


def _named(rows: Sequence[ClassRecall], title: str, order: Sequence[str], wide: float) -> Figure:
    counts = [f"{row.images:,}" if row.images >= 0 else "" for row in rows]
    right = 0.14 + style.widest([*counts, "training"], 6.5)
    left = min(0.45 * wide, 0.14 + style.widest((row.name for row in rows), 7))
    axes = _blank(rows, title, order, wide, left, right, ROW * len(rows))
    limits = _limits(rows)
    axes.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), xlabel="recall, percent")
    for place, row in enumerate(rows):
        colour = style.group_colour(row.group, order)
        axes.plot([row.before, row.after], [place, place], color=colour, linewidth=2.6, alpha=0.5, solid_capstyle="butt", zorder=1)
        axes.plot([row.before], [place], marker="o", markerfacecolor="white", markeredgecolor=style.GREY, markersize=5, zorder=3)
        axes.plot([row.after], [place], marker="o", color=colour, markersize=5, zorder=4)
    known = [(place, row) for place, row in enumerate(rows) if math.isfinite(row.low)]
    spans = [(float(place), row.before + row.low, row.before + row.high) for place, row in known]
    dots.intervals(axes, spans, [style.darker(style.group_colour(row.group, order)) for _, row in known], linewidth=0.8)
    axes.set_yticks(range(len(rows)), labels.fitted([row.name for row in rows], 7, [left - 0.14] * len(rows)), fontsize=7)
    axes.tick_params(axis="y", length=0, pad=BESIDE_ARROWS if any(start < limits[0] for _, start, _ in spans) else BESIDE)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xticks([tick for tick in axes.get_xticks() if limits[0] <= tick <= min(limits[1], 100)])
    if any(counts):
        for place, count in enumerate(["training\nimages", *counts], start=-1):
            axes.annotate(
                count, (1, -0.6 if place < 0 else place), (72 * (right - 0.05), 0), xycoords=("axes fraction", "data"), ha="right",
                textcoords="offset points", va="bottom" if place < 0 else "center", fontsize=6.5, color="0.35", annotation_clip=False,
            )  # fmt: skip
    return style.figure_of(axes)


def _limits(rows: Sequence[ClassRecall]) -> tuple[float, float]:
    """The range of all recalls, and of the intervals up to half of it beyond; not above 100 percent."""
    levels = [level for row in rows for level in (row.before, row.after)]
    low, high = min(levels), max(levels)
    room = max(high - low, 5.0)
    ends = [row.before + end for row in rows for end in (row.low, row.high) if math.isfinite(end)]
    inside = [end for end in ends if low - room / 2 <= end <= high + room / 2]
    return max(min([low, *inside]), 0.0) - 0.04 * room, min(max([high, *inside]), 100.0) + 0.04 * room


def _unnamed(rows: Sequence[ClassRecall], title: str, order: Sequence[str], wide: float) -> Figure:
    """Recalls over the classes' places, with a line for each group's mean before (dashed) and after."""
    axes = _blank(rows, title, order, wide, 0.55, 0.1, 2.4)
    places = np.arange(len(rows))
    before, after = np.array([row.before for row in rows]), np.array([row.after for row in rows])
    colours = [style.group_colour(row.group, order) for row in rows]
    axes.vlines(places, before, after, colors=colours, linewidth=0.8, alpha=0.6)
    axes.plot(places, before, marker="o", linestyle="", markersize=2.5, markerfacecolor="white", markeredgecolor=style.GREY)
    axes.scatter(places, after, s=8, c=colours, zorder=3)
    for group in dict.fromkeys(row.group for row in rows):
        inside = np.array([row.group == group for row in rows])
        ends, colour = [places[inside].min(), places[inside].max()], style.darker(style.group_colour(group, order))
        axes.plot(ends, [before[inside].mean()] * 2, color=colour, linestyle="--", linewidth=1.2, zorder=4)
        axes.plot(ends, [after[inside].mean()] * 2, color=colour, linewidth=1.6, zorder=4)
    has_counts = rows[0].images >= 0
    ends_words = f", {rows[0].images:,} training images to {rows[-1].images:,}" if has_counts else ""
    axes.set_xlabel(style.fitted(f"{len(rows)} classes{ends_words}; lines: means", 7, wide - 0.7), fontsize=7)
    axes.set(ylabel="recall, percent", ylim=(max(0, min(before.min(), after.min()) - 3), min(101, max(before.max(), after.max()) + 3)))
    axes.set_xticks([])
    return style.figure_of(axes)
