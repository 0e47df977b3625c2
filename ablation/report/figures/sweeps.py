"""A sweep: the metric against the swept value, or a heat map where two axes are crossed."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, NullLocator

from ablation.formatting import listed, ranges
from ablation.report.figures import dots, labels, style
from ablation.report.figures.differences import INTERVAL
from ablation.report.figures.page import some
from ablation.report.figures.results import Axis, Results, Row, best_of, row_words
from ablation.report.statistics.best import has_same_seeds, shared_seeds

DECADE = 10.0
COLOURS = "cividis"
CELL = 0.42  # inches
MOST_LETTERED = 8  # values with their mean beside them
MOST_OF_A_PARENT = 15  # letters
UNRANKED = ListedColormap(["0.92"])


@dataclass(frozen=True)
class Sweep:
    """The axes with their levels, the rows by level, the parent, and the parent's own levels where it is on every axis.

    `note` says of which seeds the means are where some rows, or the parent, have others; `is_shared` whether all share any.
    """

    axes: Mapping[str, Sequence[str]]
    rows: Mapping[tuple[str, ...], Row]
    parent: Row | None
    own: tuple[str, ...] | None
    note: str = ""
    is_shared: bool = True

    @property
    def axes_words(self) -> str:
        """The names of the axes: `mix.alpha and smoothing.epsilon`."""
        return " and ".join(self.axes)


def sweep_of(arms: Sequence[str], results: Results) -> Sweep | None:
    """The sweep that these arms make; None for a single axis that has words on it, which are better read as rows."""
    points = {arm: dict(results.planned[arm].get("factors") or {}) for arm in arms}
    points = {arm: factors for arm, factors in points.items() if factors}
    if not points:
        return None
    names = list(next(iter(points.values())))
    levels = {name: list(dict.fromkeys(str(factors.get(name, "")) for factors in points.values())) for name in names}
    kept = {name: _ordered(found) for name, found in levels.items() if len(found) > 1} or {names[0]: levels[names[0]]}
    if len(kept) == 1 and any(number_of(level) is None for level in next(iter(kept.values()))):
        return None
    rows = {tuple(str(factors.get(name, "")) for name in kept): results.row(arm) for arm, factors in points.items()}
    first = next(iter(points))
    parent = str(results.planned[first].get("parent") or "")
    found = results.row(parent) if parent else None
    sweep = Sweep(kept, rows, found if found is not None and found.values else None, _own(list(kept), results.planned[first]))
    return _on_shared_seeds(sweep, results)


def _on_shared_seeds(sweep: Sweep, results: Results) -> Sweep:
    """The sweep with all means over the seeds that its rows and the parent share: means over others would show the seeds as well."""
    values = {row.arm: row.values for row in _with_parent(sweep) if row.values}
    if has_same_seeds(values):
        return sweep
    seeds, everything = shared_seeds(values), f"all points{' and the parent' * (sweep.parent is not None)}"
    if not seeds:
        return replace(sweep, note=f"no seed is common to {everything}, so that each mean is over other seeds", is_shared=False)
    rows = {levels: results.over(row, seeds) if row.values else row for levels, row in sweep.rows.items()}
    parent = results.over(sweep.parent, seeds) if sweep.parent is not None else None
    which = f"means over seeds {listed(ranges(seeds).split(', '))}" if len(seeds) > 1 else f"values of seed {seeds[0]}"
    return replace(sweep, rows=rows, parent=parent, note=f"{which}, which {everything} have")


def _own(axes: Sequence[str], planned: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The parent's own levels, if it differs in nothing else; None if one is unset or unknown."""
    change = planned["change"]
    before = [(change.get(axis) or [None])[0] for axis in axes]
    is_known = change.keys() <= set(axes) and not any(level is None or isinstance(level, list) for level in before)
    return tuple(str(level) for level in before) if is_known else None


def number_of(level: str) -> float | None:
    """The level as a finite number, or None."""
    try:
        value = float(level)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _ordered(levels: Sequence[str]) -> list[str]:
    """Numbers in their order, words in the file's."""
    numbers = [number_of(level) for level in levels]
    if any(number is None for number in numbers):
        return list(levels)
    return [level for _, level in sorted(zip((number or 0.0 for number in numbers), levels, strict=True), key=lambda pair: pair[0])]


def words(sweep: Sweep, axis: Axis) -> str:
    """The alt text: each value with its mean and its difference to the parent, and the best mean."""
    known, best = _with_parent(sweep), best_of(_with_parent(sweep), axis)
    found = some([row_words(row, axis) for row in sweep.rows.values()], 12)
    dots_words = ", with a dot per seed" if len(sweep.axes) == 1 else ""
    start = f"{axis.title} over {sweep.axes_words}{dots_words}{f'; {sweep.note}' * bool(sweep.note)}"
    ending = f"; the best mean is that of {listed([row.label for row in known if row.arm in best])}" if best else ""
    parent = f"; the parent {sweep.parent.label} has {axis.number(sweep.parent.mean)}" if sweep.parent is not None else ""
    return f"{start}: {found}{ending}{parent}."


def _with_parent(sweep: Sweep) -> list[Row]:
    """The points, and the parent, which is as good as they are where it is none of them."""
    return [*sweep.rows.values(), *([sweep.parent] if sweep.parent else [])]


def page(sweep: Sweep, axis: Axis, wide: float) -> Figure:
    """A curve over one axis of numbers; otherwise heat maps of the first two axes, one for each combination of the others."""
    return _curve(sweep, axis, wide) if len(sweep.axes) == 1 else _heat(sweep, axis, wide)


# --- one axis ------------------------------------------------------------------------------------------------------------------


def _curve(sweep: Sweep, axis: Axis, wide: float) -> Figure:
    ((name, levels),) = sweep.axes.items()
    rows = [(number_of(level) or 0.0, sweep.rows[(level,)]) for level in levels if (level,) in sweep.rows]
    own = number_of(sweep.own[0]) if sweep.own is not None and sweep.parent is not None else None
    if own is not None and sweep.parent is not None and own not in [value for value, _ in rows]:
        rows = sorted([*rows, (own, replace(sweep.parent, difference=None, is_reference=True))], key=lambda pair: pair[0])
    handles = _curve_handles(sweep, own)
    size = 8.0 if wide > style.COLUMN else 7.0
    note = _note_lines(sweep, wide)
    top, bottom, tall = style.legend_height(wide, handles) + 0.1, 0.45 + _note_height(note), 2.3 if wide > style.COLUMN else 1.9
    figure = Figure(figsize=(wide, top + tall + bottom), dpi=110)
    style.legend(figure, handles)
    axes = figure.add_axes((0.62 / wide, bottom / (top + tall + bottom), (wide - 0.8) / wide, tall / (top + tall + bottom)))
    axes.set_ylabel(axis.words, fontsize=min(size, size * tall / max(0.1, style.text_width(axis.words, size))))
    axes.set_xlabel(name, fontsize=size)
    everything = [row for _, row in rows] + ([sweep.parent] if sweep.parent is not None else [])
    low, high = dots.limits(everything, axis)
    axes.set_ylim(low, high + 0.06 * (high - low))
    _scale(axes, [value for value, _ in rows])
    if sweep.parent is not None:
        _parent(axes, sweep.parent)
    _points(axes, rows, axis, is_joined=sweep.is_shared)
    _write_note(figure, note)
    return figure


def _note_lines(sweep: Sweep, wide: float) -> list[str]:
    return labels.filled(sweep.note, style.SMALLEST, wide - 0.1) if sweep.note else []


def _note_height(lines: Sequence[str]) -> float:
    """The height in inches of the note below a figure."""
    return 1.4 * style.SMALLEST / 72 * len(lines) + 0.04 if lines else 0.0


def _write_note(figure: Figure, lines: Sequence[str]) -> None:
    if lines:
        wide, tall = figure.get_size_inches()
        figure.text(0.05 / wide, 0.04 / tall, "\n".join(lines), va="bottom", fontsize=style.SMALLEST, color="0.35", linespacing=1.2)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """To scale, with the values as ticks; a log scale if they are positive and span more than a decade."""
    places = sorted(set(values))
    if min(places) > 0 and max(places) / min(places) > DECADE:
        axes.set_xscale("log")
        room = (max(places) / min(places)) ** 0.08
        axes.set_xlim(min(places) / room, max(places) * room)
    else:
        room = 0.08 * (max(places) - min(places)) or max(abs(places[0]), 1.0)
        axes.set_xlim(min(places) - room, max(places) + room)
    axes.xaxis.set_minor_locator(NullLocator())
    kept = _apart(axes, places)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.set_xticks(kept, [f"{value:g}" for value in kept])


def _apart(axes: Axes, places: Sequence[float]) -> list[float]:
    """The values whose labels do not touch, the first one always."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    wide = axes.get_position().width * figure.get_size_inches()[0]
    kept: list[float] = []
    edge = -math.inf
    for place in places:
        low, high = axes.get_xlim()
        share = math.log(place / low) / math.log(high / low) if axes.get_xscale() == "log" else (place - low) / (high - low)
        half = style.text_width(f"{place:g}", 7) / 2 + 0.03
        if share * wide - half >= edge:
            kept.append(place)
            edge = share * wide + half
    return kept


def _parent(axes: Axes, parent: Row) -> None:
    """The parent's mean as a line, and the range of its seeds as a band."""
    values = list(parent.values.values())
    axes.axhspan(min(values), max(values), color="0.93", linewidth=0, zorder=0)
    axes.axhline(parent.mean, color=style.GREY, linewidth=1.0, linestyle="--", zorder=1)


def _points(axes: Axes, rows: Sequence[tuple[float, Row]], axis: Axis, *, is_joined: bool) -> None:
    low, high = axes.get_ylim()
    for seed in dict.fromkeys(seed for _, row in rows for seed in row.values):
        line = [(value, row.values[seed]) for value, row in rows if seed in row.values]
        axes.plot(*zip(*line, strict=True), marker="o", color="0.45", alpha=0.5, linewidth=0.6, markersize=3, zorder=2)
    places, means = [value for value, _ in rows], [row.mean for _, row in rows]
    axes.plot(places, means, color=style.UP, linestyle="-" if is_joined else "", linewidth=1.4, marker="o", markersize=5, zorder=4)
    best = best_of([row for _, row in rows], axis)
    for value, row in rows:
        if row.interval is not None:
            _interval(axes, value, *row.interval, low, high)
        if row.is_reference:
            axes.plot([value], [row.mean], marker="D", markersize=6, markerfacecolor="white", markeredgecolor=style.INK, zorder=5)
        if row.is_chosen:
            axes.plot([value], [row.mean], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=style.INK, zorder=5)
        if len(rows) <= MOST_LETTERED:
            weight = "bold" if row.arm in best else "normal"
            is_last = value == max(places) and len(rows) > 1
            axes.annotate(
                axis.number(row.mean), (value, row.mean), (-5 if is_last else 5, 4), textcoords="offset points",
                ha="right" if is_last else "left", fontsize=7, fontweight=weight, zorder=6,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.4},
            )  # fmt: skip


def _interval(axes: Axes, value: float, start: float, end: float, low: float, high: float) -> None:
    axes.vlines(value, max(start, low), min(end, high), color=style.UP, linewidth=1.1, alpha=0.8, zorder=3)
    for is_outside, edge, marker in ((start < low, low, "v"), (end > high, high, "^")):
        if is_outside:
            axes.plot([value], [edge], marker=marker, color=style.UP, markersize=4, clip_on=False, zorder=3)


def _curve_handles(sweep: Sweep, own: float | None) -> list[Any]:
    rows = list(sweep.rows.values())
    handles: list[Any] = [
        Line2D([], [], marker="o", color="0.45", linewidth=0.6, markersize=3, label="a seed"),
        Line2D([], [], marker="o", color=style.UP, linestyle="-" if sweep.is_shared else "", linewidth=1.4, markersize=5, label="mean"),
    ]
    if any(row.interval for row in rows):
        handles.append(Line2D([], [], color=style.UP, linewidth=1.1, label=INTERVAL))
    if sweep.parent is not None:
        label = f"parent {style.short(sweep.parent.name, MOST_OF_A_PARENT)}{sweep.parent.remark}"
        handles.append(Line2D([], [], color=style.GREY, linewidth=1.0, linestyle="--", label=label))
        handles.append(Patch(color="0.93", label="range of its seeds"))
    if own is not None:
        face: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": style.INK}
        handles.append(Line2D([], [], marker="D", linestyle="", markersize=5, label="its own value", **face))
    if any(row.is_chosen for row in rows):
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.INK}
        handles.append(Line2D([], [], marker="o", linestyle="", markersize=8, label="chosen", **ring))
    return handles


# --- crossed axes --------------------------------------------------------------------------------------------------------------


def _heat(sweep: Sweep, axis: Axis, wide: float) -> Figure:
    """Rows are the first axis, columns the second; a panel for each combination of the others, one below the other."""
    (down, rows), (across, columns), *rest = sweep.axes.items()
    panels = list(itertools.product(*(levels for _, levels in rest)))
    left = min(0.4 * wide, 0.3 + style.widest(rows, 7))
    width = min(wide - left - 0.15, 0.9 * len(columns))
    height, bottom, top = CELL * len(rows), 0.45, 0.36 if rest or sweep.parent else 0.2
    note = _note_lines(sweep, wide)
    tall = 0.1 + len(panels) * (top + height + bottom) + _note_height(note)
    figure = Figure(figsize=(wide, tall), dpi=110)
    means, best = [row.mean for row in sweep.rows.values()], best_of(_with_parent(sweep), axis)
    colours = _heat_colours(sweep, axis)
    norm = Normalize(min(means), max(means) if max(means) > min(means) else min(means) + 1)
    for place, panel in enumerate(panels):
        start = tall - 0.05 - (place + 1) * (top + height) - place * bottom
        axes = figure.add_axes((left / wide, start / tall, width / wide, height / tall))
        cells = [[sweep.rows.get((row, column, *panel)) for column in columns] for row in rows]
        _cells(axes, cells, axis, (norm, colours), width / len(columns), best)
        axes.set_xticks(range(len(columns)), labels.fitted(columns, 7, [width / len(columns) - 0.03] * len(columns)))
        axes.set_yticks(range(len(rows)), labels.fitted(rows, 7, [left - 0.3] * len(rows)))
        axes.tick_params(length=0)
        axes.set(xlabel=across, ylabel=style.fitted(down, 8, max(height, 0.6)))
        heading = ", ".join(f"{name} {level}" for (name, _), level in zip(rest, panel, strict=True))
        parent = f"parent {sweep.parent.label} {axis.number(sweep.parent.mean)}" if sweep.parent is not None else ""
        title = "; ".join(part for part in (heading, axis.words, parent) if part)
        axes.set_title(style.fitted(title, 7, wide - 0.1), fontsize=7, loc="left", x=(0.05 - left) / width)
    _write_note(figure, note)
    return figure


def _heat_colours(sweep: Sweep, axis: Axis) -> style.Colours:
    """Brighter is better; one grey where the means are of no common seed, and so in no order."""
    return (f"{COLOURS}_r" if axis.is_lower_better else COLOURS) if sweep.is_shared else UNRANKED


def _cells(
    axes: Axes,
    cells: Sequence[Sequence[Row | None]],
    axis: Axis,
    scale: tuple[Normalize, style.Colours],
    cell: float,
    best: Collection[str],
) -> None:
    """The colours, with the mean and below it the deviation in each cell; the best arms are bold, a chosen cell framed."""
    values = np.array([[row.mean if row is not None else np.nan for row in line] for line in cells])
    norm, colours = scale
    axes.imshow(np.ma.masked_invalid(values), cmap=colours, norm=norm, interpolation="none", aspect="auto")
    style.frameless(axes)
    lightness = mpl.colormaps.get_cmap(colours)(norm(np.nan_to_num(values)))[..., :3] @ [0.2126, 0.7152, 0.0722]
    for place in np.ndindex(values.shape):
        row = cells[place[0]][place[1]]
        if row is None or not row.values:
            continue
        colour, spread = "black" if lightness[place] > 0.45 else "white", f"± {axis.number(row.sd)}" if math.isfinite(row.sd) else ""
        weight = "bold" if row.arm in best else "normal"
        size = min(8.0, 8.0 * (cell - 0.04) / style.text_width(f" {axis.number(row.mean)} ", 8))
        text: dict[str, Any] = {"ha": "center", "color": colour, "clip_on": True}
        axes.text(place[1], place[0], axis.number(row.mean), va="bottom" if spread else "center", fontsize=size, fontweight=weight, **text)
        axes.text(place[1], place[0] + 0.05, spread, va="top", fontsize=style.SMALLEST, **text)
        if row.is_chosen:
            frame: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 1.5}
            axes.add_patch(Rectangle((place[1] - 0.47, place[0] - 0.47), 0.94, 0.94, **frame))
