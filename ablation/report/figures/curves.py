"""Training curves: one panel per metric and family of arms, with few lines each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, ScalarFormatter

from ablation.report.figures import labels, style
from ablation.report.figures.page import ArmsShown, Page, chunks, family, numbered, some
from ablation.report.metrics import PERCENT, MetricTable

LINES_PER_PANEL = 6
COLUMNS = 3
MOST_JOINED = 5
PANEL_ROWS_PER_PAGE = 5
MOST_OF_A_NAME = 36  # letters
PLAIN = (1e-3, 1e6)  # ticks of axes that end before or beyond may be 2e-05 or 2e+06
JOINED = " = "
LABELS = {"loss": "loss, each arm's own", "lr": "learning rate"}  # the units of curves that are no metrics


@dataclass(frozen=True)
class Curve:
    """One metric of one arm by epoch: the mean over seeds, the smallest and the largest value."""

    epochs: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


Curves = Mapping[str, Mapping[str, Curve]]  # arm -> metric -> curve


@dataclass(frozen=True)
class Strip:
    """The panels of some arms of one family: their names in the figure, and the baseline for reference."""

    family: str
    names: Mapping[str, str]
    reference: str


def curve_pages(points: pd.DataFrame, shown: ArmsShown, metrics: MetricTable, *, is_own: bool = False) -> list[Page]:
    """Every curve, at most six arms per panel, with the baseline in grey; those of one's own code (`is_own`) by its own steps."""
    names, row = sorted(set(points["metric"])), "step" if is_own else "epoch"
    labels = {name: own_label(name, metrics) if is_own else axis_label(name, metrics) for name in names}
    if not labels:
        return []
    curves = by_arm(points, first=0 if is_own else 1)
    rows = -(-len(labels) // COLUMNS)
    return numbered(
        "curves",
        "Training curves",
        chunks(strips(points, shown), max(1, PANEL_ROWS_PER_PAGE // rows)),
        lambda part: curve_page(part, curves, labels, row),
        lambda part: f"Curves of {', '.join(labels)} by {row}, mean and range over seeds: {_arms(part)}.",
    )


def axis_label(name: str, metrics: MetricTable) -> str:
    """The unit of a curve: that of its metric; fractions are drawn as they are."""
    metric = name.rpartition("/")[2]
    unit = metrics.unit(metric)
    return LABELS.get(metric, "fraction" if unit.values == PERCENT.values else unit.values)


def own_label(name: str, metrics: MetricTable) -> str:
    """The same of a curve of one's own code: nothing, unless the study declares a metric of that name."""
    declared = {metric.rpartition("/")[2]: metric for metric in metrics.full_names}
    metric = declared.get(name.rpartition("/")[2])
    return axis_label(metric, metrics) if metric else ""


def _arms(part: Sequence[Strip]) -> str:
    return some([name for strip in part for name in strip.names.values()])


def by_arm(points: pd.DataFrame, first: int = 1) -> Curves:
    """Every arm's curves; epochs count from `first`, where the store counts from 0."""
    merged = points.groupby(["arm", "metric", "step"], sort=True)["value"].agg(["mean", "min", "max"]).reset_index()
    curves: dict[str, dict[str, Curve]] = {}
    for (arm, metric), rows in merged.groupby(["arm", "metric"], sort=False):
        values = (rows[name].to_numpy(dtype=float) for name in ("mean", "min", "max"))
        curves.setdefault(str(arm), {})[str(metric)] = Curve(rows["step"].to_numpy(dtype=np.int64) + first, *values)
    return curves


def strips(points: pd.DataFrame, shown: ArmsShown) -> list[Strip]:
    """The arms outside conditions by family, six at a time; arms with equal curves are one training and share a line."""
    ordered = points.sort_values(["metric", "seed", "step"], kind="stable")
    prints = {str(arm): rows[["seed", "step", "value"]].to_numpy(dtype=float).tobytes() for arm, rows in ordered.groupby("arm", sort=False)}
    families: dict[tuple[str, str], dict[bytes, list[str]]] = {}
    for arm in shown.arms(conditions=False):
        if arm in prints:
            place = family(arm, shown.kinds[arm]), shown.baseline(arm) or arm
            families.setdefault(place, {}).setdefault(prints[arm], []).append(arm)
    return [
        Strip(title, {arms[0]: JOINED.join(shown.names[arm] for arm in arms) for arms in part}, reference if reference in prints else "")
        for (title, reference), trainings in families.items()
        for part in chunks(list(trainings.values()), LINES_PER_PANEL)
    ]


def curve_page(part: Sequence[Strip], curves: Curves, labels: Mapping[str, str], row: str = "epoch") -> Figure:
    """One page of strips, each with a panel per curve of `labels` and a legend at the right."""
    columns = min(COLUMNS, len(labels))
    rows = -(-len(labels) // columns)
    sheet = style.Sheet(
        columns, rows * len(part), width=2.4 if columns > 2 else 3.0, height=1.4, left=0.7, right=2.4, across=0.65, down=0.6
    )
    figure = sheet.blank()
    for number, strip in enumerate(part):
        first = number * rows * columns
        for place, (name, label) in enumerate(labels.items(), start=first):
            axes = figure.add_axes(sheet.box(place))
            _panel(axes, strip, curves, name, label)
            axes.set_title(f"{strip.family}: {name}", loc="left")
            if number == len(part) - 1 and place + columns >= first + len(labels):
                axes.set_xlabel(row)
        _legend(figure, sheet, first + columns - 1, strip)
    return figure


def _panel(axes: Axes, strip: Strip, curves: Curves, name: str, label: str) -> None:
    by_name = {arm: curves[arm][name] for arm in strip.names if name in curves[arm]}
    colours = style.line_colours()
    reference = curves.get(strip.reference, {}).get(name)
    if reference is not None and strip.reference not in by_name:
        axes.plot(reference.epochs, reference.mean, color=style.GREY, linewidth=2.2, zorder=1)
    for number, arm in enumerate(strip.names):
        if arm in by_name:
            curve = by_name[arm]
            axes.plot(curve.epochs, curve.mean, color=colours[number], linestyle=style.LINES[number], linewidth=1.1, marker=_dot(curve))
            if (curve.high > curve.low).any():
                axes.fill_between(curve.epochs, curve.low, curve.high, color=colours[number], alpha=0.15, linewidth=0)
    axes.set_ylabel(label, fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(_tick_numbers(axes))


def _tick_numbers(axes: Axes) -> Formatter:
    """The whole number at each tick, without a factor or an offset above the axis, where the title is."""
    is_plain = PLAIN[0] <= max(abs(end) for end in axes.get_ylim()) < PLAIN[1]
    return ScalarFormatter(useOffset=False) if is_plain else FuncFormatter(lambda value, _: f"{value:g}")


def _dot(curve: Curve) -> str:
    """A point if there is only one epoch, and so no line."""
    return "o" if len(curve.epochs) == 1 else ""


def _wrapped(name: str, short: Mapping[str, str]) -> str:
    """The joined names on separate lines, some if there are many; `short` has each as it is written."""
    names = name.split(JOINED)
    first = [short[arm] for arm in names[:MOST_JOINED]]
    rest = [f"{len(names) - MOST_JOINED} more"] if len(names) > MOST_JOINED else []
    return " =\n".join([*first, *rest])


def _legend(figure: Figure, sheet: style.Sheet, place: int, strip: Strip) -> None:
    colours = style.line_colours()
    arms = [arm for name in strip.names.values() for arm in name.split(JOINED)]
    short = dict(zip(arms, labels.cut(arms, MOST_OF_A_NAME), strict=True))
    handles = [
        Line2D([], [], color=colours[number], linestyle=style.LINES[number], linewidth=1.1, label=_wrapped(name, short))
        for number, name in enumerate(strip.names.values())
    ]
    if strip.reference and strip.reference not in strip.names:
        handles.append(Line2D([], [], color=style.GREY, linewidth=2.2, label=f"{strip.reference} (for reference)"))
    left, bottom, width, height = sheet.box(place)
    corner = (left + width + 0.1 / sheet.size[0], bottom + height)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, frameon=False, borderaxespad=0, handlelength=2.6)
