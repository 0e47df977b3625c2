"""The images of every class, and the recall of every class from the baseline to each arm."""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ablation.formatting import change
from ablation.report.figures import labels, style
from ablation.report.figures.fonts import drawable, drawn_names
from ablation.report.figures.page import ArmsShown, Page, chunks, numbered, some
from ablation.report.frames.classes import on_common_seeds, seeds_words

ARMS_PER_PAGE = 12
ARMS_PER_COLUMN = 6
MOST_MOVED = 3
SMALL = style.SMALLEST
LEFT = 0.5  # inches
LONGEST_LINE = 24
LEFT_TO_RIGHT = "\u200e"  # a mark that keeps the number behind an Arabic name
OUTSIDE = ""  # the group of a class without a group
Pair = tuple[pd.Series, pd.Series]  # recalls of each class in the baseline and in an arm, in percent


def distribution_pages(counts_by_split: Mapping[str, Sequence[int]], classes: Sequence[str], groups: Mapping[str, str]) -> list[Page]:
    """The one page with the images per class of every split."""
    drawn = drawn_names(classes)
    shown, groups = list(drawn.values()), _of_drawn(groups, drawn)
    return numbered(
        "classes",
        "Images per class",
        [counts_by_split],
        lambda part: distribution_page(part, shown, groups),
        lambda part: (
            "; ".join(
                f"{split}: {len(counts)} classes, {max(counts)} images in the largest and {min(counts)} in the smallest"
                for split, counts in part.items()
            )
            + "."
        ),
        lambda part: distribution_page(part, shown, groups, style.COLUMN),
    )


def _of_drawn(groups: Mapping[str, str], drawn: Mapping[str, str]) -> dict[str, str]:
    """The groups of the classes by the names that are drawn."""
    return {drawn.get(name, name): group for name, group in groups.items()}


def distribution_page(
    counts_by_split: Mapping[str, Sequence[int]], classes: Sequence[str], groups: Mapping[str, str], wide: float = 0
) -> Figure:
    """One panel of bars per split, coloured by group; as wide as the classes need, or as told."""
    width = wide - 0.75 if wide else float(np.clip(0.32 * len(classes), 3.5, 8.5))
    members = [groups.get(name, OUTSIDE) for name in classes]
    order = list(dict.fromkeys(group for group in [*groups.values(), *members]))
    handles = _group_handles([group for group in order if group in members], order, Patch)
    top, bottom = 0.25 + style.legend_height(width + 0.75, handles), style.room_for(classes)
    sheet = style.sheet_of(len(counts_by_split), 1, width=width, height=1.7, left=0.6, right=0.15, top=top, bottom=bottom)
    figure = sheet.blank()
    for place, (split, counts) in enumerate(counts_by_split.items()):
        axes = figure.add_axes(sheet.box(place))
        bars = axes.bar(np.arange(len(classes)), counts, width=0.8, color=[style.group_colour(group, order) for group in members])
        if width / len(classes) > style.widest(map(str, counts), style.SMALLEST) + 0.02:
            axes.bar_label(bars, fontsize=style.SMALLEST, padding=1)
        axes.set(ylabel="images", xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1.12 * max(1, *counts)))
        axes.set_xticks([])
        axes.set_title(split, loc="left")
    axes.set_xlabel("class")
    if len(classes) <= style.MOST_NAMED_CLASSES:
        axes.set_xticks(np.arange(len(classes)), labels.cut(classes, style.LONGEST_CLASS), rotation=90)
        axes.tick_params(axis="x", length=0)
    style.legend(figure, handles)
    return figure


def slope_pages(
    per_class: pd.DataFrame,
    classes: Sequence[str],
    groups: Mapping[str, str],
    shown: ArmsShown,
    by_seed: Mapping[str, pd.DataFrame] | None = None,
) -> list[Page]:
    """Every arm's recall of each class beside its baseline's, at most 12 arms a page; for a paper the first six of them.

    With the recalls `by_seed`, both are of the seeds that both have, which are named where either has others.
    """
    means = {str(arm): 100 * rows.set_index("class")["recall"].reindex(list(classes)) for arm, rows in per_class.groupby("arm", sort=False)}
    pairs, seeds_of, drawn = dict[str, Pair](), dict[str, str](), drawn_names(classes)
    for arm in shown.compared(means):
        baseline = shown.baseline(arm)
        common = on_common_seeds(by_seed, [baseline, arm]) if by_seed else {}
        if by_seed and arm not in common:
            continue
        seeds = seeds_words(by_seed, common) if by_seed else ""
        seeds_of[arm] = f", {seeds}" if seeds else ""
        pairs[arm] = (_percent(common[baseline], classes), _percent(common[arm], classes)) if seeds else (means[baseline], means[arm])
    arms = list(pairs)

    def draw(part: Sequence[str], wide: float = style.WIDEST) -> Figure:
        renamed = {shown.names[arm]: (pairs[arm][0].rename(index=drawn), pairs[arm][1].rename(index=drawn)) for arm in part}
        return slope_page(renamed, _of_drawn(groups, drawn), wide, [seeds_of[arm] for arm in part])

    title = "Recall of every class, from the baseline to each arm"
    pages = numbered(
        "slopes",
        title,
        chunks(arms, ARMS_PER_PAGE),
        draw,
        _slope_words(pairs),
        lambda part: draw(part[:ARMS_PER_COLUMN], style.COLUMN),
    )
    return [page if number == 0 else replace(page, column=None) for number, page in enumerate(pages)]


def _percent(recalls_SC: pd.DataFrame, classes: Sequence[str]) -> pd.Series:
    """The mean recall of each class over these seeds."""
    return pd.Series(100 * recalls_SC.to_numpy().mean(axis=0), index=recalls_SC.columns).reindex(list(classes))


def _slope_words(pairs: Mapping[str, Pair]) -> Any:
    """The alt text of a page: the class that moved most in each arm."""

    def words(part: Sequence[str]) -> str:
        changes = {arm: (pairs[arm][1] - pairs[arm][0]).dropna().to_dict() for arm in part}
        most = {arm: max((abs(points), str(name)) for name, points in moved.items())[1] for arm, moved in changes.items() if moved}
        moves = some([f"{arm}: {name} {change(float(changes[arm][name]), decimals=1)} points" for arm, name in most.items()])
        return f"Recall of every class in the baseline and in each arm; the class that moved most: {moves}."

    return words


def slope_page(pairs: Mapping[str, Pair], groups: Mapping[str, str], wide: float = style.WIDEST, remarks: Sequence[str] = ()) -> Figure:
    """One panel per arm, on one scale, with a line per class coloured by group; the classes that moved most are named in full.

    The `remarks` stand behind the arms' names.
    """
    order = list(dict.fromkeys(groups.values()))
    room = 0.2 + style.widest((line for pair in pairs.values() for label in _moves(*pair).values() for line in label.split("\n")), SMALL)
    least = 1.1 if wide > style.COLUMN else 0.7
    columns = int(np.clip((wide - LEFT - 0.05) // (least + room), 1, 4))
    width = float(np.clip((wide - LEFT - 0.05) / columns - room, 0.6, 1.5))
    handles = _group_handles(order, order, Line2D)
    top = 0.35 + style.legend_height(wide, handles)
    sheet = style.sheet_of(
        len(pairs), columns, width=width, height=2.1, left=LEFT, right=room + 0.05, top=top, bottom=0.4, across=room, down=0.55
    )
    figure = sheet.blank()
    limits = _recall_limits(list(pairs.values()))
    titles = _titles(list(pairs), remarks or [""] * len(pairs), width + room - 0.05)
    for place, (title, (before, after)) in enumerate(zip(titles, pairs.values(), strict=True)):
        axes = figure.add_axes(sheet.box(place))
        _slopes(axes, before, after, groups, order, limits)
        axes.set(xlim=(-0.08, 1.08), ylim=limits)
        axes.set_xticks([0, 1], ["baseline", "arm"])
        axes.set_xlim(-0.08, 1.08)
        axes.set_title(title, loc="left")
        if sheet.is_left(place):
            axes.set_ylabel("recall, %")
        else:
            axes.set_yticklabels([])
    style.legend(figure, handles)
    return figure


def _recall_limits(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The range of all recalls, and a little more."""
    lowest = min(min(before.min(), after.min()) for before, after in pairs)
    highest = max(max(before.max(), after.max()) for before, after in pairs)
    more = 0.04 * max(1.0, highest - lowest)
    return lowest - more, highest + more


def _titles(arms: Sequence[str], remarks: Sequence[str], room: float) -> list[str]:
    """Each name, cut where it is too long for the room in inches, with the whole of its remark."""
    rooms = [room - style.text_width(remark, 8) for remark in remarks]
    return [f"{name}{remark}" for name, remark in zip(labels.fitted(arms, 8, rooms), remarks, strict=True)]


def _moves(before: pd.Series, after: pd.Series) -> dict[str, str]:
    """The classes that moved most with their points; long names on several lines."""
    if len(before) > style.MOST_NAMED_CLASSES:
        return {}
    moved = (after - before).abs()
    named = moved[moved >= 0.05].sort_values(ascending=False, kind="stable").index[:MOST_MOVED]
    return {
        str(name): _wrapped(f"{' '.join(str(name).split())}: {change(float(after[name] - before[name]), decimals=1)}") for name in named
    }


def _wrapped(label: str) -> str:
    """The label on lines of at most 24 letters, the number last in any script."""
    start = LEFT_TO_RIGHT if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in label) else ""
    return "\n".join(start + line for line in textwrap.wrap(label, LONGEST_LINE))


def _slopes(
    axes: Axes, before: pd.Series, after: pd.Series, groups: Mapping[str, str], order: Sequence[str], limits: tuple[float, float]
) -> None:
    members = [groups.get(str(name), OUTSIDE) for name in before.index]
    many = len(before) > style.MOST_NAMED_CLASSES
    segments = [[(0, left), (1, right)] for left, right in zip(before, after, strict=True)]
    colours = [style.group_colour(group, order) for group in members]
    styles = [_line(group, order) for group in members]
    axes.add_collection(
        LineCollection(segments, colors=colours, linestyles=styles, linewidths=0.4 if many else 1.2, alpha=0.5 if many else 1)
    )
    if many:
        for group in order:
            inside = [member == group for member in members]
            if any(inside):
                means = [float(before[inside].mean()), float(after[inside].mean())]
                axes.plot([0, 1], means, color=style.group_colour(group, order), linestyle=_line(group, order), linewidth=3)
        return
    named = _moves(before, after)
    lines = max((label.count("\n") + 1 for label in named.values()), default=1)
    places = style.spaced([float(after[name]) for name in named], 0.055 * lines * (limits[1] - limits[0]), limits[0], limits[1])
    for (name, words), place in zip(named.items(), places, strict=True):
        colour = style.darker(style.group_colour(groups.get(name, OUTSIDE), order))
        axes.annotate(
            words, (1.08, place), (3, 0), textcoords="offset points", fontsize=SMALL, va="center", color=colour, annotation_clip=False
        )


def _line(group: str, order: Sequence[str]) -> Any:
    """Groups differ by their dashes too, for print without colours."""
    return style.LINES[order.index(group) % len(style.LINES)] if group in order else style.LINES[0]


def _group_handles(groups: Sequence[str], order: Sequence[str], handle: type[Line2D] | type[Patch]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for group in groups:
        colour, label = style.group_colour(group, order), group or "in no group"
        handles.append(
            Patch(color=colour, label=label)
            if handle is Patch
            else Line2D([], [], color=colour, linestyle=_line(group, order), label=label)
        )
    return handles


def class_distribution_png(counts_by_split: Mapping[str, Sequence[int]], classes: Sequence[str], path: Path) -> Path:
    """Write a figure of one run's images per class and split, the first split filled and the others outlined."""
    classes = drawable(classes)
    with style.styled():
        figure = Figure(figsize=(6, 3.2), dpi=100)
        axes = figure.add_axes((0.12, 0.3, 0.85, 0.58))
        edges = np.arange(len(classes) + 1) - 0.5
        for place, (split, counts) in enumerate(counts_by_split.items()):
            look = {"fill": True, "color": "0.75"} if place == 0 else {"color": "black", "linestyle": style.LINES[place % len(style.LINES)]}
            axes.stairs(counts, edges, label=split, **look)
        if len(classes) <= style.MOST_NAMED_CLASSES:
            axes.set_xticks(np.arange(len(classes)), labels.cut(classes, style.LONGEST_CLASS), rotation=90)
        axes.set(xlabel="class", ylabel="images", xlim=(-0.5, len(classes) - 0.5), ylim=(0, None))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(counts_by_split), fontsize=8)
        return style.save(figure, path)
