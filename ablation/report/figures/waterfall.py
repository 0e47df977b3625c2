"""The ladder's steps, from level to level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ablation.formatting import change
from ablation.report.figures import labels, style
from ablation.report.figures.page import Page, chunks, numbered
from ablation.report.metrics import MetricTable, with_unit

PANELS_PER_PAGE = 3


@dataclass(frozen=True)
class Ladder:
    """The ladder under one condition ("" for none): its rungs, their levels, the steps between them, and published levels."""

    condition: str
    rungs: Sequence[str]
    levels: Sequence[float]
    steps: Sequence[Mapping[str, float]]
    published: Mapping[str, Sequence[float]]


def waterfall_pages(arms: pd.DataFrame, differences: pd.DataFrame, plan: Mapping[str, Any], name: str, metrics: MetricTable) -> list[Page]:
    """The ladder's steps under every condition with all rungs, at most three conditions per page."""
    rungs = [str(arm["name"]) for arm in plan["arms"] if arm["kind"] == "ladder"]
    conditions = ["", *dict.fromkeys(str(condition) for condition in arms["condition"] if condition)]
    complete = [ladder for condition in conditions for ladder in ladders(arms, differences, rungs, condition, name, metrics)]
    pages = numbered(
        "waterfall",
        f"The ladder, rung by rung: {metrics.title(name)}",
        chunks(complete, PANELS_PER_PAGE),
        lambda part: waterfall_page(part, name, metrics),
        _waterfall_words(name, metrics),
        lambda part: waterfall_page(part, name, metrics, style.COLUMN),
    )
    return [page if number == 0 else replace(page, column=None) for number, page in enumerate(pages)]


def ladders(
    arms: pd.DataFrame, differences: pd.DataFrame, rungs: Sequence[str], condition: str, name: str, metrics: MetricTable
) -> list[Ladder]:
    """The ladder under that condition; none if a rung has no level, or other seeds than the rest: its steps would not add up."""
    names = [f"{condition}/{rung}" if condition else rung for rung in rungs]
    rows = arms.set_index("arm").reindex(names)
    scale = metrics.unit(name).scale
    levels = [scale * float(level) for level in rows[f"{name}_mean"]]
    if len(rungs) < 2 or not np.isfinite(levels).all():
        return []
    steps = differences[(differences["metric"] == name) & (differences["role"] == "parent")].set_index("arm")
    if steps.reindex(names[1:])["pairs"].nunique(dropna=False) > 1 or {*steps.reindex(names[1:])["pairs"]} != {*rows["n"]}:
        return []
    ends = steps.reindex(names[1:])[["mean", "low", "high"]].astype(float).to_dict("records")
    reports = [str(column) for column in arms.columns if str(column).startswith("published/")] if name == metrics.published else []
    published = {column.partition("/")[2]: [scale * float(value) for value in rows[column]] for column in reports}
    kept = {report: values for report, values in published.items() if np.isfinite(values).any()}
    return [Ladder(condition, rungs, levels, [{str(end): float(value) for end, value in step.items()} for step in ends], kept)]


def waterfall_page(part: Sequence[Ladder], name: str, metrics: MetricTable, wide: float = 0) -> Figure:
    """One panel per condition, on one scale; as wide as its rungs need, or as told."""
    num_rungs = max(len(ladder.rungs) for ladder in part)
    left, right = (0.7, 0.3) if not wide else (0.55, 0.1)
    width = wide - left - right if wide else float(np.clip(0.75 * (num_rungs + 1), 4.2, 8.0))
    handles = _waterfall_handles(part)
    names = [*labels.fitted(part[-1].rungs, 7, [1.1] * len(part[-1].rungs)), "level reached"]
    top = 0.3 + style.legend_height(left + width + right, handles)
    bottom = 0.15 + 0.75 * style.widest(names, 7)
    sheet = style.sheet_of(len(part), 1, width=width, height=2.2, left=left, right=right, top=top, bottom=bottom, down=0.4)
    figure = sheet.blank()
    limits = _level_limits(part, is_percent=metrics.unit(name).scale == 100)
    for place, ladder in enumerate(part):
        axes = figure.add_axes(sheet.box(place))
        _waterfall(axes, ladder, limits, metrics.unit(name).decimals, is_lower_better=metrics.is_lower_better(name))
        axes.set(xlim=(-0.6, num_rungs + 0.6), ylim=limits, ylabel=with_unit(metrics.title(name), metrics.unit(name).values))
        if metrics.unit(name).scale == 100:
            axes.set_yticks([tick for tick in axes.get_yticks() if limits[0] <= tick <= max(100, *ladder.levels)])
        axes.set_title(f"under {ladder.condition}" if ladder.condition else "the ladder", loc="left")
        axes.set_xticks(range(num_rungs + 1), [])
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    style.legend(figure, handles)
    return figure


def _level_limits(part: Sequence[Ladder], *, is_percent: bool) -> tuple[float, float]:
    """The range of all levels, published ones too, and of the steps' intervals up to twice the range of the levels.

    It ends little above 100 percent.
    """
    levels = [level for ladder in part for level in [*ladder.levels, *(value for values in ladder.published.values() for value in values)]]
    low, high = float(np.nanmin(levels)), float(np.nanmax(levels))
    room = max(high - low, 0.01)
    ends = [
        start + step[end] for ladder in part for start, step in zip(ladder.levels, ladder.steps, strict=False) for end in ("low", "high")
    ]
    inside = [end for end in ends if low - room / 2 <= end <= high + room / 2]
    low, high = min([low, *inside]), max([high, *inside])
    margin = 0.14 * (high - low + 0.01)
    return low - margin, min(high, max(100.0, float(np.nanmax(levels)))) + margin if is_percent else high + margin


def _waterfall(axes: Axes, ladder: Ladder, limits: tuple[float, float], decimals: int, *, is_lower_better: bool) -> None:
    last = len(ladder.rungs)
    for place, level in ((0, ladder.levels[0]), (last, ladder.levels[-1])):
        axes.hlines(level, place - 0.4, place + 0.4, color=style.INK, linewidth=2.5)
        axes.annotate(f"{level:.{decimals}f}", (place, level), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    starts = [start for start, _ in zip(ladder.levels, ladder.steps, strict=False)]
    heights = [step["mean"] for step in ladder.steps]
    good = -1 if is_lower_better else 1
    colours = [
        to_rgba(style.UP if good * step["mean"] >= 0 else style.DOWN, 1.0 if step["low"] > 0 or step["high"] < 0 else 0.3)
        for step in ladder.steps
    ]
    axes.bar(range(1, last), heights, bottom=starts, width=0.5, color=colours)
    axes.hlines(ladder.levels[:-1], np.arange(last - 1) + 0.0, np.arange(1, last) + 0.25, color=style.GREY, linewidth=0.7, zorder=0)
    axes.hlines(ladder.levels[-1], last - 1.25, last, color=style.GREY, linewidth=0.7, zorder=0)
    spans = [
        (place, start + step["low"], start + step["high"])
        for place, (start, step) in enumerate(zip(starts, ladder.steps, strict=True), start=1)
    ]
    known = [span for span in spans if np.isfinite(span[1])]
    ends = [np.clip(span[1:], *limits) for span in known]
    axes.vlines([span[0] for span in known], [end[0] for end in ends], [end[1] for end in ends], color=style.INK, linewidth=1.0)
    inside = 0.02 * (limits[1] - limits[0])
    for place, low, high in known:  # an arrow at the edge for an end outside the panel
        for is_outside, edge, marker in ((low < limits[0], limits[0] + inside, "v"), (high > limits[1], limits[1] - inside, "^")):
            if is_outside:
                axes.plot([place], [edge], marker=marker, color=style.INK, markersize=5)
    _step_numbers(axes, starts, heights, decimals)
    for number, values in enumerate(ladder.published.values()):
        axes.plot(
            range(last), values, marker="D", linestyle="", markersize=5, markeredgecolor=style.INK, markerfacecolor=_report_colour(number)
        )


def _step_numbers(axes: Axes, starts: Sequence[float], heights: Sequence[float], decimals: int) -> None:
    """Write each step beside its end, upright where the bars are narrow."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    room = axes.get_position().width * figure.get_size_inches()[0] / (len(heights) + 2.2)
    words = [change(height, decimals=decimals) for height in heights]
    is_narrow = style.widest(words, 7) + 0.16 > room
    for place, (text, start, height) in enumerate(zip(words, starts, heights, strict=True), start=1):
        axes.annotate(
            text, (place, start + height), (1.5, 2 if height >= 0 else -2), textcoords="offset points", fontsize=6 if is_narrow else 7,
            rotation=90 if is_narrow else 0, va="bottom" if height >= 0 else "top",
        )  # fmt: skip


def _report_colour(number: int) -> Any:
    return ["white", style.line_colours()[4], style.line_colours()[5], style.GREY][number % 4]


def _waterfall_handles(part: Sequence[Ladder]) -> list[Any]:
    handles: list[Any] = [Patch(color=style.UP, label="step for the better"), Patch(color=style.DOWN, label="for the worse")]
    steps = [step for ladder in part for step in ladder.steps]
    has_intervals = any(np.isfinite(step["low"]) for step in steps)
    is_whole = all(np.isfinite(step["low"]) for step in steps)
    words = "the interval holds 0" if is_whole else "no interval, or it holds 0" if has_intervals else "no interval"
    handles.append(Patch(color=to_rgba(style.GREY, 0.3), label=f"pale: {words}"))
    if has_intervals:
        handles.append(Line2D([], [], color=style.INK, linewidth=1, label="95 % interval of the step"))
    for number, report in enumerate(dict.fromkeys(report for ladder in part for report in ladder.published)):
        look = {"marker": "D", "linestyle": "", "markeredgecolor": style.INK, "markerfacecolor": _report_colour(number)}
        handles.append(Line2D([], [], markersize=5, label=f"published {report}", **look))
    return handles


def _waterfall_words(name: str, metrics: MetricTable) -> Any:
    def words(part: Sequence[Ladder]) -> str:
        decimals = metrics.unit(name).decimals
        ladders = [
            f"{ladder.condition or 'the ladder'} from {ladder.levels[0]:.{decimals}f} to {ladder.levels[-1]:.{decimals}f} by "
            + ", ".join(
                f"{rung} {change(step['mean'], decimals=decimals)}" for rung, step in zip(ladder.rungs[1:], ladder.steps, strict=True)
            )
            for ladder in part
        ]
        return f"{metrics.title(name)} rung by rung: {'; '.join(ladders)}."

    return words
