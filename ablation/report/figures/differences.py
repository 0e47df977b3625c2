"""Every arm's difference to its parent and to the baseline with its interval."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ablation.formatting import interval
from ablation.report.figures import labels, style
from ablation.report.figures.page import ArmsShown, Page, family, numbered, some
from ablation.report.metrics import MetricTable, with_unit
from ablation.report.statistics.differences import NO_EFFECT

ARMS_PER_PAGE = 30
ROLES = {"parent": "against its parent", "baseline": "against the baseline"}
LINE_HEIGHT = 0.19  # inches
INTERVAL = "95 % interval of the difference"
MOST_OF_A_NAME, MOST_OF_A_PARENT = 40, 24  # letters
VERDICTS = {"better": "^", "worse": "v", "no difference": "s", "inconclusive": "o", "same training": "|", NO_EFFECT: "x"}


@dataclass(frozen=True)
class Row:
    """One arm of a forest plot: its family, its name, its parent, and its difference by role."""

    family: str
    name: str
    parent: str
    by_role: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Scale:
    """What all pages share: the label of the axis, the decimals, the range of the differences, and the margin."""

    axis: str
    decimals: int
    low: float
    high: float
    margin: float  # 0 if there is none
    margin_words: str


def forest_pages(differences: pd.DataFrame, shown: ArmsShown, name: str, metrics: MetricTable) -> list[Page]:
    """Every arm's differences in the file's order, family by family, at most 30 arms a page; `name` is the metric's."""
    rows = forest_rows(differences[differences["metric"] == name], shown)
    scale, title = forest_scale(rows, name, metrics), metrics.title(name)
    return numbered(
        "differences",
        f"Differences of {title}, with 95 % intervals",
        paged(rows),
        lambda part: forest_page(part, scale),
        lambda part: _forest_words(part, title),
    )


def forest_rows(differences: pd.DataFrame, shown: ArmsShown) -> list[Row]:
    """The rows of the arms with a difference; an arm with the same settings and partners as another has no row."""
    by_arm: dict[str, dict[str, dict[str, Any]]] = {}
    for difference in differences.to_dict("records"):
        if difference["arm"] in shown.stands_for and np.isfinite(difference["mean"]):
            by_role = by_arm.setdefault(str(difference["arm"]), {})
            by_role[str(difference["role"])] = {str(name): value for name, value in difference.items()}
    rows = []
    for arm, by_role in by_arm.items():
        drawn = shown.stands_for[arm]
        if arm != drawn and _partners(by_role, shown) == _partners(by_arm.get(drawn, {}), shown):
            continue
        is_alone = arm == drawn
        parent = str(by_role.get("parent", {}).get("against", ""))
        rows.append(Row(family(arm, shown.kinds[arm]), shown.names[arm] if is_alone else arm, parent, by_role))
    return rows


def _partners(by_role: Mapping[str, Mapping[str, Any]], shown: ArmsShown) -> dict[str, str]:
    return {role: shown.stands_for.get(row["against"], str(row["against"])) for role, row in by_role.items()}


def forest_scale(rows: Sequence[Row], name: str, metrics: MetricTable) -> Scale:
    """One range for all pages."""
    differences = [difference for row in rows for difference in row.by_role.values()]
    means, lows, highs = ([difference[column] for difference in differences] for column in ("mean", "low", "high"))
    margin, unit = metrics.margin(name) or 0.0, metrics.unit(name)
    better = "left" if metrics.is_lower_better(name) else "right"
    axis = f"{with_unit(metrics.title(name), unit.differences)} ({better} is better)"
    limits = style.robust_range(means, lows, highs, 2 * margin or 0.01)
    return Scale(axis, unit.decimals, *limits, margin, metrics.margin_words(name))


def paged(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in pages. A family that does not fit begins a new page, and is only cut if it is longer than a page."""
    pages: list[list[Row]] = []
    for start, row in enumerate(rows):
        is_first = start == 0 or rows[start - 1].family != row.family
        size = sum(1 for other in rows if other.family == row.family) if is_first else 1
        if not pages or len(pages[-1]) + min(size, ARMS_PER_PAGE) > ARMS_PER_PAGE:
            pages.append([])
        pages[-1].append(row)
    return pages


def forest_page(part: Sequence[Row], scale: Scale) -> Figure:
    """One panel per role, with the arms down the side and a heading over each family."""
    lines = _lines(part)
    roles = [role for role in ROLES if any(role in row.by_role for row in part)]
    named = _labels(part)
    sheet = style.Sheet(
        len(roles),
        1,
        width=2.3,
        height=LINE_HEIGHT * (len(lines) + 1),
        left=0.25 + 0.058 * max(map(len, named)),
        right=1.3,
        top=0.65,
        bottom=0.45,
        across=1.3,
    )
    figure = sheet.blank()
    for place, role in enumerate(roles):
        axes = figure.add_axes(sheet.box(place))
        _forest(axes, lines, role, scale)
        axes.set_title(ROLES[role])
        axes.set_xlabel(scale.axis)
        axes.set_ylim(len(lines), -1)
        if place == 0:
            remaining = iter(named)
            axes.set_yticks(range(len(lines)), [next(remaining) if isinstance(line, Row) else line for line in lines])
            for label, line in zip(axes.get_yticklabels(), lines, strict=True):
                if not isinstance(line, Row):
                    label.set(fontweight="bold", color="0.35")
        else:
            axes.set_yticks([])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    _verdict_legend(figure, part, scale)
    return figure


def _lines(part: Sequence[Row]) -> list[Row | str]:
    """The rows, with a line for each family's name before them."""
    lines: list[Row | str] = []
    for place, row in enumerate(part):
        if place == 0 or part[place - 1].family != row.family:
            lines.append(row.family)
        lines.append(row)
    return lines


def _labels(part: Sequence[Row]) -> list[str]:
    """`cutmix (of cb)` for each row; within a condition, of the condition's own `…/cb`. Different names, and parents, stay different."""
    names = labels.cut([row.name for row in part], MOST_OF_A_NAME)
    parents = labels.cut([_parent(row) for row in part], MOST_OF_A_PARENT)
    return [f"{name} (of {parent})" if parent else name for name, parent in zip(names, parents, strict=True)]


def _parent(row: Row) -> str:
    first = f"{row.name.partition('/')[0]}/"
    inside = row.family.startswith("condition ") and row.parent.startswith(first)
    return f"…/{row.parent.removeprefix(first)}" if inside else row.parent


def _forest(axes: Axes, lines: Sequence[Row | str], role: str, scale: Scale) -> None:
    if scale.margin:
        axes.axvspan(-scale.margin, scale.margin, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    axes.set_xlim(scale.low, scale.high)
    rows = [(place, line.by_role[role]) for place, line in enumerate(lines) if isinstance(line, Row) and role in line.by_role]
    spans = [(place, row) for place, row in rows if np.isfinite(row["low"]) and np.isfinite(row["high"])]
    axes.hlines(
        [place for place, _ in spans],
        [np.clip(row["low"], scale.low, scale.high) for _, row in spans],
        [np.clip(row["high"], scale.low, scale.high) for _, row in spans],
        color=style.INK, linewidth=1.0, zorder=2,
    )  # fmt: skip
    _arrows(axes, [place for place, row in spans if row["low"] < scale.low], scale.low, "<")
    _arrows(axes, [place for place, row in spans if row["high"] > scale.high], scale.high, ">")
    _arrows(axes, [place for place, row in rows if row["mean"] < scale.low], scale.low, "<")
    _arrows(axes, [place for place, row in rows if row["mean"] > scale.high], scale.high, ">")
    room = 0.035 * (scale.high - scale.low)
    for place, row in rows:
        axes.annotate(
            _numbers(row, scale.decimals),
            (1, place),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=style.SMALLEST,
        )
    for look in dict.fromkeys(looks(row["verdict"]) for _, row in rows):
        same = [(place, row["mean"]) for place, row in rows if looks(row["verdict"]) == look]
        _marks(axes, np.clip([mean for _, mean in same], scale.low + room, scale.high - room), [place for place, _ in same], look)


def _numbers(row: Mapping[str, Any], decimals: int) -> str:
    """`+0.75 [-0.10, +1.60]`, as in the tables."""
    return interval(float(row["mean"]), float(row["low"]), float(row["high"]), decimals)


def _arrows(axes: Axes, places: Sequence[int], edge: float, marker: str) -> None:
    """Draw arrows at the edge for intervals that go beyond the panel."""
    if places:
        axes.plot([edge] * len(places), places, marker=marker, linestyle="", color=style.INK, markersize=4, clip_on=False)


def _marks(axes: Axes, means: npt.NDArray[np.float64], places: Sequence[int], looks: tuple[str, str, bool]) -> None:
    marker, colour, is_full = looks
    axes.plot(
        means, places, marker=marker, linestyle="", markersize=5.5, markeredgecolor=colour,
        markerfacecolor=colour if is_full else "white", markeredgewidth=1.1, zorder=3,
    )  # fmt: skip


def looks(verdict: object) -> tuple[str, str, bool]:
    """Shape, colour and whether it is filled; the shape alone shows the verdict, also in print without colours."""
    text = verdict if isinstance(verdict, str) else ""
    word = next((word for word in VERDICTS if text.startswith(word)), "inconclusive")
    colour = {"better": style.UP, "worse": style.DOWN}.get(word, style.INK)
    return VERDICTS[word], colour, word != "inconclusive" and "(t only)" not in text


def short_verdict(verdict: object) -> str:
    """`better (t only)` of `better, by less than 0.5 (t only)`: what a mark in a legend stands for."""
    text = re.sub(r", by less than [^ ]+", "", verdict if isinstance(verdict, str) else "")
    return text.removesuffix(" (no spread)") or "inconclusive"


def _verdict_legend(figure: Figure, part: Sequence[Row], scale: Scale) -> None:
    words = {looks(row["verdict"]): short_verdict(row["verdict"]) for arm in part for row in arm.by_role.values()}
    handles: list[Any] = [
        Line2D(
            [],
            [],
            marker=marker,
            linestyle="",
            markersize=5.5,
            markeredgecolor=colour,
            markerfacecolor=colour if full else "white",
            label=word,
        )
        for (marker, colour, full), word in sorted(words.items(), key=lambda item: item[1])
    ]
    if scale.margin:
        handles.append(Patch(color="0.92", label=f"within {scale.margin_words}"))
    figure.legend(
        handles=handles, loc="upper center", ncols=len(handles), frameon=False, borderaxespad=0.3, columnspacing=1.2, handletextpad=0.2
    )


def _forest_words(part: Sequence[Row], title: str) -> str:
    against = [arm.by_role["baseline"] for arm in part if "baseline" in arm.by_role]
    counts = {word: sum(str(row["verdict"]).startswith(word) for row in against) for word in VERDICTS}
    tally = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return (
        f"Differences of {title} to parent and baseline with 95 % intervals, of {some([row.name for row in part])}"
        f"{f'; against the baseline: {tally}' if tally else ''}."
    )
