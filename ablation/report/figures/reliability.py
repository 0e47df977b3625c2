"""Reliability diagrams: the accuracy by confidence, and the share of images with each confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablation.report.figures import labels, style
from ablation.report.figures.page import ArmsShown, Page, chunks, numbered, some
from ablation.report.frames.posthoc import distance_arms, sigmoid_arms
from ablation.training.evaluation import NUM_BINS

ARMS_PER_PAGE = 12
STRIP = 0.32  # inches: the height of the bars below each panel
DISTANCES = "scores are distances, not probabilities"
SIGMOIDS = "learnt a sigmoid for each class, ECE says little"
MOST_OF_A_NAME = 34  # letters


@dataclass(frozen=True)
class Reliability:
    """One arm's bins of confidence, its calibration error, and whether its scores are distances, or were learnt as sigmoids."""

    name: str
    bins: pd.DataFrame
    ece: float
    is_distance: bool
    is_sigmoid: bool = False

    @property
    def remark(self) -> str:
        """Why the diagram, or its error, is not to be read as others are."""
        return DISTANCES if self.is_distance else SIGMOIDS if self.is_sigmoid else ""


def reliability_pages(calibration: pd.DataFrame, arms: pd.DataFrame, plan: Mapping[str, Any], shown: ArmsShown) -> list[Page]:
    """Every arm's reliability diagram outside conditions, at most 12 a page."""
    bins = {str(arm): rows.sort_values("bin") for arm, rows in calibration.groupby("arm", sort=False)}
    errors = dict(zip(arms["arm"], arms["ece_mean"], strict=True)) if "ece_mean" in arms else {}
    distances, sigmoids = distance_arms(plan), sigmoid_arms(plan)
    diagrams = [
        Reliability(shown.names[arm], bins[arm], float(errors.get(arm, np.nan)), arm in distances, arm in sigmoids)
        for arm in shown.arms(conditions=False)
        if arm in bins
    ]
    return numbered(
        "reliability",
        "Reliability diagrams",
        chunks(diagrams, ARMS_PER_PAGE),
        reliability_page,
        lambda part: f"Accuracy over confidence, and the share of images by confidence: {some([_words(diagram) for diagram in part])}.",
    )


def reliability_page(part: Sequence[Reliability]) -> Figure:
    """One panel per arm, with the shares of the images below it."""
    sheet = style.sheet_of(len(part), 4, width=1.9, height=1.9 + 0.08 + STRIP, left=0.6, top=0.5, across=0.2, down=0.8)
    figure = sheet.blank()
    highest = 100 * max(float(diagram.bins["share"].max()) for diagram in part)
    names = labels.cut([diagram.name for diagram in part], MOST_OF_A_NAME)
    for place, (name, diagram) in enumerate(zip(names, part, strict=True)):
        axes = figure.add_axes(sheet.box(place, height=1.9))
        strip = figure.add_axes(sheet.box(place, below=1.98, height=STRIP))
        _diagram(axes, diagram, name)
        _shares(strip, diagram, highest)
        if sheet.is_left(place):
            axes.set_ylabel("accuracy, %")
            axes.set_yticks([0, 50, 100])
            strip.set_ylabel("% of\nimages", fontsize=style.SMALLEST)
            strip.set_yticks([0, highest], ["0", f"{highest:.0f}"], fontsize=style.SMALLEST)
        if sheet.is_lowest(place, len(part)):
            strip.set_xticks([0, 50, 100])
            strip.set_xlabel("confidence, %")
    return figure


def _diagram(axes: Axes, diagram: Reliability, name: str) -> None:
    confidence, accuracy = (100 * diagram.bins[name].to_numpy(dtype=float) for name in ("confidence", "accuracy"))
    axes.plot([0, 100], [0, 100], color=style.GREY, linestyle="--", linewidth=0.8)
    axes.vlines(confidence, confidence, accuracy, color=style.DOWN, linewidth=1.5)
    axes.plot(confidence, accuracy, color=style.UP, linewidth=0.6)
    # The area shows the share: a bin of three images says little, however far it is from the diagonal.
    axes.scatter(confidence, accuracy, s=3 + 60 * diagram.bins["share"].to_numpy(dtype=float), color=style.UP, zorder=3, clip_on=False)
    axes.set(xlim=(0, 100), ylim=(0, 103))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(name if diagram.is_distance else f"{name}\nECE {100 * diagram.ece:.1f} %")
    if diagram.remark:
        axes.text(50, 4, diagram.remark.replace(", ", ",\n"), ha="center", fontsize=style.SMALLEST)


def _shares(axes: Axes, diagram: Reliability, highest: float) -> None:
    edges = 100 * np.arange(NUM_BINS) / NUM_BINS
    shares = np.zeros(NUM_BINS)
    shares[diagram.bins["bin"].to_numpy(dtype=int)] = 100 * diagram.bins["share"].to_numpy(dtype=float)
    axes.bar(edges, shares, width=100 / NUM_BINS, align="edge", color=style.GREY, edgecolor="white", linewidth=0.3)
    axes.set(xlim=(0, 100), ylim=(0, highest))
    axes.set_xticks([])
    axes.set_yticks([])


def _words(diagram: Reliability) -> str:
    error = "" if diagram.is_distance else f"ECE {100 * diagram.ece:.1f} %"
    return f"{diagram.name} ({'; '.join(filter(None, [error, diagram.remark]))})"
