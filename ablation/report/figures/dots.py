"""Rows of dots: an arm's seeds, their mean, and the interval of its difference to its parent at the parent's level."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablation.report.figures import labels, style
from ablation.report.figures.differences import INTERVAL, looks, short_verdict
from ablation.report.figures.results import Axis, Row

ROW = 0.235  # inches
TICK = 0.42  # inches that a number at the axis takes
BESIDE_NAMES = 0.16  # inches
SHORTEST_NAME = 0.3  # inches that a name has beside the longest remark


def page(rows: Sequence[Row], axis: Axis, wide: float) -> Figure:
    """One panel with a row per arm; at the right the means and the differences."""
    size = 8.0 if wide > style.COLUMN else 7.0
    numbers = [(axis.number(row.mean), _step(row, axis)) for row in rows]
    heads = ("mean", "to parent") if any(step for _, step in numbers) else ("mean", "")
    first, second = (style.widest([heads[place], *(pair[place] for pair in numbers)], size - 0.5) for place in (0, 1))
    right = 0.12 + first + 0.1 + second + 0.06
    left = _room_for(rows, size, wide)
    handles = _handles(rows)
    top = style.legend_height(wide, handles) + 0.16
    tall = top + ROW * len(rows) + 0.42
    figure = Figure(figsize=(wide, tall), dpi=110)
    style.legend(figure, handles)
    axes = figure.add_axes((left / wide, 0.42 / tall, (wide - left - right) / wide, ROW * len(rows) / tall))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=limits(rows, axis), xlabel=axis.words)
    axes.xaxis.label.set_fontsize(min(size, size * (wide - 0.1) / max(0.1, style.text_width(axis.words, size))))
    axes.set_yticks(range(len(rows)), _labels(rows, size, left - BESIDE_NAMES), fontsize=size)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color("0.45" if row.is_reference else "black")
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=int(np.clip((wide - left - right) // TICK, 2, 5))))
    _draw(axes, rows)
    for place, pair in enumerate([heads, *numbers], start=-1):
        for text, end in zip(pair, (0.12 + first, right - 0.06), strict=True):
            _number(axes, text, place, end, size - 0.5, is_head=place < 0)
    return figure


def _room_for(rows: Sequence[Row], size: float, wide: float) -> float:
    """Inches for the names: for all of them up to less than half of the figure, and for each remark in any case."""
    remarks = style.widest((row.remark for row in rows), size)
    most = max(0.46 * wide, BESIDE_NAMES + SHORTEST_NAME + remarks) if remarks else 0.42 * wide
    return min(most, BESIDE_NAMES + style.widest((row.label for row in rows), size))


def _labels(rows: Sequence[Row], size: float, room: float) -> list[str]:
    """Each name, cut where it is too long, with the whole of its remark."""
    rooms = [room - style.text_width(row.label, size) + style.text_width(row.name, size) for row in rows]
    names = labels.fitted([row.name for row in rows], size, rooms)
    return [f"{name}{row.remark}" for name, row in zip(names, rows, strict=True)]


def _number(axes: Axes, text: str, place: int, end: float, size: float, *, is_head: bool) -> None:
    """Write a number, or its heading, that ends so many inches right of the panel."""
    axes.annotate(
        text, (1, -0.62 if is_head else place), (72 * end, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="right", va="bottom" if is_head else "center", fontsize=size, color="0.45" if is_head else "black", annotation_clip=False,
    )  # fmt: skip


def _step(row: Row, axis: Axis) -> str:
    return "" if row.difference is None else axis.change(row.difference["mean"])


def limits(rows: Sequence[Row], axis: Axis) -> tuple[float, float]:
    """A range with all seeds, and with the intervals that are not far wider than they are apart."""
    levels = [value for row in rows for value in row.values.values()]
    low, high = (min(levels), max(levels)) if levels else (0.0, 1.0)
    room = max(high - low, 10.0**-axis.decimals)
    ends = [end for row in rows if row.interval for end in row.interval]
    near = [end for end in ends if low - room / 2 <= end <= high + room / 2]
    low, high = min([low, *near]), max([high, *near])
    low, high = (low, high) if len(near) == len(ends) else (low - 0.1 * room, high + 0.1 * room)
    room = 0.05 * max(high - low, 10.0**-axis.decimals)
    top = 100 + room if axis.is_percent and max(levels, default=0) <= 100 else math.inf
    return low - room, min(high + room, top)


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw all rows' marks of a kind at once: an artist for each would take most of the time."""
    ends = [
        [(rows[place - 1].values[seed], place - 1), (row.values[seed], place)]
        for place, row in enumerate(rows)
        if row.is_joined
        for seed in row.values
        if seed in rows[place - 1].values
    ]
    if ends:
        axes.add_collection(LineCollection(ends, colors="0.8", linewidths=0.6, zorder=1))
    intervals(axes, [(place, *row.interval) for place, row in enumerate(rows) if row.interval is not None])
    compared = [(row.parent_level, place) for place, row in enumerate(rows) if np.isfinite(row.parent_level) and row.difference is not None]
    _marks(axes, compared, marker="|", color=style.GREY, markersize=10, markeredgewidth=1.4, zorder=2)
    seeds = [(value, place) for place, row in enumerate(rows) for value in row.values.values()]
    _marks(axes, seeds, marker="o", color="0.45", alpha=0.75, markersize=3, zorder=3)
    chosen = [(row.mean, place) for place, row in enumerate(rows) if row.is_chosen]
    _marks(axes, chosen, marker="o", markersize=11, markerfacecolor="none", markeredgecolor=style.INK, zorder=2)
    for look in dict.fromkeys(map(_look, rows)):
        marker, colour, full = look
        means = [(row.mean, place) for place, row in enumerate(rows) if _look(row) == look]
        _marks(axes, means, marker=marker, markersize=6, markeredgecolor=colour, markerfacecolor=colour if full else "white", zorder=4)


def _marks(axes: Axes, points: Sequence[tuple[float, float]], **look: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), linestyle="", **look)


def intervals(
    axes: Axes, spans: Sequence[tuple[float, float, float]], colours: Sequence[Any] = (style.INK,), linewidth: float = 1.1
) -> None:
    """Draw the intervals inside the panel, with an arrow at each end that is beyond it; the colours are taken in turn."""
    low, high = axes.get_xlim()
    if spans:
        places, starts, ends = zip(*spans, strict=True)
        axes.hlines(places, np.maximum(starts, low), np.minimum(ends, high), color=colours, linewidth=linewidth, zorder=2)
    by_colour: dict[Any, list[tuple[float, float, float]]] = {}
    for number, span in enumerate(spans):
        by_colour.setdefault(colours[number % len(colours)], []).append(span)
    for colour, alike in by_colour.items():
        arrow: dict[str, Any] = {"color": colour, "markersize": 4, "clip_on": False, "zorder": 2}
        _marks(axes, [(low, place) for place, start, _ in alike if start < low], marker="<", **arrow)
        _marks(axes, [(high, place) for place, _, end in alike if end > high], marker=">", **arrow)


def _look(row: Row) -> tuple[str, str, bool]:
    return looks(row.difference["verdict"]) if row.difference is not None else ("D", style.INK, True)


def _handles(rows: Sequence[Row]) -> list[Any]:
    """The legend: what dots, marks, ticks and lines are, and the verdicts that occur."""
    dot = Line2D([], [], marker="o", linestyle="", color="0.45", markersize=3, label="a seed")
    handles: list[Any] = [dot]
    compared = [row for row in rows if row.difference is not None]
    if any(row.difference is None for row in rows):
        handles.append(Line2D([], [], marker="D", linestyle="", color=style.INK, markersize=5, label="mean"))
    words = {_look(row): _verdict(row) for row in compared}
    for (marker, colour, full), word in sorted(words.items(), key=lambda item: item[1]):
        face = colour if full else "white"
        look: dict[str, Any] = {"marker": marker, "linestyle": "", "markeredgecolor": colour, "markerfacecolor": face, "markersize": 5}
        handles.append(Line2D([], [], label=word, **look))
    if compared:
        handles.append(Line2D([], [], marker="|", linestyle="", color=style.GREY, markersize=8, label="parent's mean"))
    if any(row.interval for row in rows):
        handles.append(Line2D([], [], color=style.INK, linewidth=1.1, label=INTERVAL))
    if any(row.is_chosen for row in rows):
        ring: dict[str, Any] = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markeredgecolor": style.INK, "markersize": 8}
        handles.append(Line2D([], [], label="chosen", **ring))
    return handles


def _verdict(row: Row) -> str:
    return short_verdict(row.difference["verdict"] if row.difference is not None else "")
