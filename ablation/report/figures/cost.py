"""What every arm costs, and what it gains."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablation.report.figures import labels, style
from ablation.report.figures.page import ArmsShown, Page, numbered
from ablation.report.metrics import MetricTable, with_unit

UNIT = "epochs of training per seed"
MOST_NAMES = 24
ROUNDING = 1e-9  # means of the same numbers may differ by rounding


@dataclass(frozen=True)
class Gain:
    """An arm's epochs per seed, its difference to the baseline and the interval of that difference.

    `is_rival` says whether it may be the best: it is complete, and was not chosen on the test items; `is_main` whether it is a baseline
    or a rung of the ladder, which are named before others.
    """

    name: str
    cost: float
    mean: float
    low: float
    high: float
    is_rival: bool = True
    is_main: bool = False


def cost_pages(
    runs: pd.DataFrame,
    differences: pd.DataFrame,
    shown: ArmsShown,
    name: str,
    metrics: MetricTable,
    rivals: Collection[str] | None = None,
) -> list[Page]:
    """The one page with every arm outside conditions that has a difference to the baseline; none if all cost the same.

    `name` is the metric's; `rivals` are the arms of which one may be the best (None: all).
    """
    arms = gains(runs, differences, shown, name, rivals)
    best = front(arms, is_lower_better=metrics.is_lower_better(name))
    names = ", ".join(f"{arm.name} ({arm.cost:g} epochs)" for arm in best)
    named = f"; {_named_words(arms)}" if len(arms) > MOST_NAMES else ""
    return numbered(
        "cost",
        f"Cost and gain of {metrics.title(name)}",
        [arms] if len({arm.cost for arm in arms}) > 1 else [],
        lambda part: cost_page(part, name, metrics),
        lambda part: (
            f"Difference of {metrics.title(name)} to the baseline over the {UNIT}; none as cheap has a better mean than {names}{named}."
        ),
        lambda part: cost_page(part, name, metrics, style.COLUMN),
    )


def gains(runs: pd.DataFrame, differences: pd.DataFrame, shown: ArmsShown, name: str, rivals: Collection[str] | None = None) -> list[Gain]:
    """The arms' gains (zero for the baseline) over their epochs: seconds depend on the machine, and on what else it does.

    None where nobody counts epochs.
    """
    done = runs[runs["state"] == "done"]
    if "epochs/own" not in done:
        return []
    spent = (done["epochs/own"] + done["epochs/shared"]).groupby(done["arm"]).mean().to_dict()
    rows = differences[(differences["role"] == "baseline") & (differences["metric"] == name)].set_index("arm")
    ends = rows[["mean", "low", "high"]].astype(float).dropna(subset=["mean"])
    known = {str(row["arm"]): (row["mean"], row["low"], row["high"]) for row in ends.reset_index().to_dict("records")}
    arms = [arm for arm in shown.arms(conditions=False) if arm in known]
    bases = list(dict.fromkeys(shown.baseline(arm) for arm in arms))
    known |= dict.fromkeys(bases, (0.0, 0.0, 0.0))
    by_arm = [
        Gain(
            shown.names.get(arm, arm),
            spent.get(arm, np.nan),
            *known[arm],
            rivals is None or arm in rivals,
            arm in bases or shown.kinds[arm] == "ladder",
        )
        for arm in dict.fromkeys([*bases, *arms])
    ]
    return [arm for arm in by_arm if np.isfinite(arm.cost)]


def named_arms(arms: Sequence[Gain], *, is_lower_better: bool) -> list[Gain]:
    """The arms whose names are drawn: those on the front, and of the others the main ones before those with the best means."""
    best = front(arms, is_lower_better=is_lower_better)
    others = sorted((arm for arm in arms if arm not in best), key=lambda arm: arm.mean, reverse=not is_lower_better)
    kept = sorted(others, key=lambda arm: not arm.is_main)[: max(0, MOST_NAMES - len(best))]
    return [*best[:MOST_NAMES], *(arm for arm in others if arm in kept)]


def _named_words(arms: Sequence[Gain]) -> str:
    return f"{MOST_NAMES} of the {len(arms)} arms are named"


def front(arms: Sequence[Gain], *, is_lower_better: bool) -> list[Gain]:
    """The arms of which one may be the best that no equally cheap or cheaper one beats, the cheapest first; of all if none may."""
    good = -1 if is_lower_better else 1
    best: list[Gain] = []
    for arm in sorted([arm for arm in arms if arm.is_rival] or arms, key=lambda gain: (gain.cost, -good * gain.mean)):
        if not best or good * arm.mean > good * best[-1].mean + ROUNDING:
            best.append(arm)
    return best


def cost_page(arms: Sequence[Gain], name: str, metrics: MetricTable, wide: float = 8.0) -> Figure:
    """Points with their intervals; those on the front are joined by steps, and the names of all that fit stand beside."""
    handles = [
        Line2D([], [], marker="D", color=style.UP, markersize=5.5, linewidth=1, label="none as cheap has a better mean"),
        Line2D([], [], marker="o", color=style.GREY, markersize=3.5, linewidth=0.8, label="other arms; bars are 95 % intervals"),
    ]
    handles += [Line2D([], [], linestyle="", label=_named_words(arms))] if len(arms) > MOST_NAMES else []
    size = 7.0 if wide > style.COLUMN else 6.0
    right_room = min(0.4 * wide, 0.15 + style.widest((arm.name for arm in arms), size))
    top = 0.1 + style.legend_height(wide, handles)
    sheet = style.Sheet(1, 1, width=wide - 0.6 - right_room, height=3.4, left=0.6, right=right_room, top=top, bottom=0.5)
    figure = sheet.blank()
    style.legend(figure, handles)
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
    axes.set(xlim=(min(costs) - 0.06 * room, right), ylim=limits, xlabel=UNIT)
    words = with_unit(f"difference of {metrics.title(name)} to the baseline", metrics.unit(name).differences)
    axes.set_ylabel(words, fontsize=min(8.0, 8.0 * 3.4 / style.text_width(words, 8)))
    _names(axes, named_arms(arms, is_lower_better=metrics.is_lower_better(name)), best, right, limits, size)
    _beyond(axes, [arm for arm in arms if arm.mean < limits[0]], limits[0], "v")
    _beyond(axes, [arm for arm in arms if arm.mean > limits[1]], limits[1], "^")
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


def _names(axes: Axes, arms: Sequence[Gain], best: Sequence[Gain], right: float, limits: tuple[float, float], size: float) -> None:
    """The names beside the panel, each with a thin line to its point, so that none covers another."""
    places = style.spaced([arm.mean for arm in arms], 1.25 * size / 72 / 3.4 * (limits[1] - limits[0]), *limits)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    room = figure.get_size_inches()[0] * (1 - axes.get_position().x1) - 0.08
    names = labels.fitted([arm.name for arm in arms], size, [room] * len(arms))
    for arm, name, place in zip(arms, names, places, strict=True):
        axes.plot([arm.cost, right], [arm.mean, place], color=style.GREY, linewidth=0.4, linestyle=":")
        axes.annotate(
            name, (right, place), (3, 0), textcoords="offset points", va="center", fontsize=size,
            color="black" if arm in best else "0.4", annotation_clip=False,
        )  # fmt: skip
