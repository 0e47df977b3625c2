"""What every arm costs, and what it gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablation.report.figures import style
from ablation.report.figures.page import ArmsShown, Page, numbered
from ablation.report.metrics import MetricTable, with_unit

ROUNDING = 1e-9  # means of the same numbers may differ by rounding


@dataclass(frozen=True)
class Gain:
    """An arm's cost per seed, its difference to the baseline and the interval of that difference."""

    name: str
    cost: float
    mean: float
    low: float
    high: float


def cost_pages(runs: pd.DataFrame, differences: pd.DataFrame, shown: ArmsShown, name: str, metrics: MetricTable) -> list[Page]:
    """The one page with every arm outside conditions that has a difference to the baseline; `name` is the metric's."""
    arms, unit = gains(runs, differences, shown, name)
    best = front(arms, is_lower_better=metrics.is_lower_better(name))
    return numbered(
        "cost",
        f"Cost and gain of {metrics.title(name)}",
        [arms] if len(arms) > 1 else [],
        lambda part: cost_page(part, unit, name, metrics),
        lambda part: (
            f"Difference of {metrics.title(name)} to the baseline over the {unit}; "
            f"no arm that costs less has a better mean than {', '.join(arm.name for arm in best)}."
        ),
    )


def gains(runs: pd.DataFrame, differences: pd.DataFrame, shown: ArmsShown, name: str) -> tuple[list[Gain], str]:
    """The arms' gains (zero for the baseline), and the unit of their costs: epochs, or seconds if all train equally many epochs."""
    done = runs[runs["state"] == "done"]
    costs = {what: (done[f"{what}/own"] + done[f"{what}/shared"]).groupby(done["arm"]).mean() for what in ("epochs", "time")}
    rows = differences[(differences["role"] == "baseline") & (differences["metric"] == name)].set_index("arm")
    ends = rows[["mean", "low", "high"]].astype(float).dropna(subset=["mean"])
    known = {str(arm): tuple(ends.loc[arm]) for arm in ends.index}
    arms = [arm for arm in shown.arms(conditions=False) if arm in known]
    bases = list(dict.fromkeys(shown.baseline(arm) for arm in arms))
    epochs = costs["epochs"].reindex([*bases, *arms]).dropna()
    chosen, unit = ("time", "seconds of training per seed") if epochs.nunique() <= 1 else ("epochs", "epochs of training per seed")
    known |= dict.fromkeys(bases, (0.0, 0.0, 0.0))
    spent = costs[chosen].to_dict()
    by_arm = [Gain(shown.names.get(arm, arm), spent.get(arm, np.nan), *known[arm]) for arm in dict.fromkeys([*bases, *arms])]
    return [arm for arm in by_arm if np.isfinite(arm.cost)], unit


def front(arms: Sequence[Gain], *, is_lower_better: bool) -> list[Gain]:
    """The arms that no equally cheap or cheaper arm beats, the cheapest first."""
    good = -1 if is_lower_better else 1
    best: list[Gain] = []
    for arm in sorted(arms, key=lambda gain: (gain.cost, -good * gain.mean)):
        if not best or good * arm.mean > good * best[-1].mean + ROUNDING:
            best.append(arm)
    return best


def cost_page(arms: Sequence[Gain], unit: str, name: str, metrics: MetricTable) -> Figure:
    """Points with their intervals; those on the front are named and joined by steps."""
    sheet = style.Sheet(1, 1, width=5.6, height=3.6, left=0.8, right=2.3, top=0.45, bottom=0.55)
    figure = sheet.blank()
    axes = figure.add_axes(sheet.box(0))
    best = front(arms, is_lower_better=metrics.is_lower_better(name))
    axes.axhline(0, color=style.INK, linewidth=0.6)
    _points(axes, [arm for arm in arms if arm not in best], style.GREY, "o", 3.5)
    _points(axes, best, style.UP, "D", 5.5)
    costs = [arm.cost for arm in arms]
    room = max(max(costs) - min(costs), 0.05 * max(costs), 1e-9)
    right = max(costs) + 0.06 * room
    limits = style.robust_range([arm.mean for arm in arms], [arm.low for arm in arms], [arm.high for arm in arms], 0.01)
    axes.step([*(arm.cost for arm in best), right], [*(arm.mean for arm in best), best[-1].mean], where="post", color=style.UP, linewidth=1)
    axes.set(xlim=(min(costs) - 0.06 * room, right), ylim=limits, xlabel=unit)
    axes.set_ylabel(with_unit(f"difference of {metrics.title(name)} to the baseline", metrics.unit(name).differences))
    _names(axes, best, right, limits)
    _beyond(axes, [arm for arm in arms if arm.mean < limits[0]], limits[0], "v")
    _beyond(axes, [arm for arm in arms if arm.mean > limits[1]], limits[1], "^")
    handles = [
        Line2D([], [], marker="D", color=style.UP, markersize=5.5, linewidth=1, label="none as cheap has a better mean"),
        Line2D([], [], marker="o", color=style.GREY, markersize=3.5, linewidth=0.8, label="other arms; bars are 95 % intervals"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=2, frameon=False, borderaxespad=0.3)
    return figure


def _points(axes: Axes, arms: Sequence[Gain], colour: str, marker: str, size: float) -> None:
    spans = [arm for arm in arms if np.isfinite(arm.low)]
    axes.vlines(
        [arm.cost for arm in spans], [arm.low for arm in spans], [arm.high for arm in spans], color=colour, linewidth=0.8, alpha=0.6
    )
    axes.plot([arm.cost for arm in arms], [arm.mean for arm in arms], linestyle="", marker=marker, color=colour, markersize=size)


def _beyond(axes: Axes, arms: Sequence[Gain], edge: float, marker: str) -> None:
    """An arm beyond the panel is an arrow at its edge."""
    if arms:
        axes.plot([arm.cost for arm in arms], [edge] * len(arms), marker=marker, linestyle="", color=style.GREY, clip_on=False)


def _names(axes: Axes, best: Sequence[Gain], right: float, limits: tuple[float, float]) -> None:
    """The front's names beside the panel, each with a thin line to its point, so that none covers another."""
    places = style.spaced([arm.mean for arm in best], 0.05 * (limits[1] - limits[0]), *limits)
    for arm, place in zip(best, places, strict=True):
        axes.plot([arm.cost, right], [arm.mean, place], color=style.GREY, linewidth=0.4, linestyle=":")
        axes.annotate(
            style.short(arm.name, 36), (right, place), (3, 0), textcoords="offset points", va="center", fontsize=7, annotation_clip=False
        )
