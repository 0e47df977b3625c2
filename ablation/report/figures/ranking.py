"""ROC and precision-recall curves of the ladder: every rung's mean over classes, and the last rung's classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablation.errors import AblateError
from ablation.formatting import counted
from ablation.report.figures import labels, style
from ablation.report.figures.fonts import drawn_names
from ablation.report.figures.page import Page, sized, some
from ablation.report.frames.classes import on_common_seeds, seeds_words
from ablation.report.statistics import ranking
from ablation.report.statistics.images import scores

Floats = npt.NDArray[np.float64]

MOST_CLASSES = 10
MOST_OF_A_NAME = 24  # letters
RIGHT = 0.15  # inches beside the last panel
MOST_SCORES = 20_000_000  # of one run; more would take longer than all other figures
KINDS = {
    "roc": ("ROC", "AUROC", "share of false alarms", "sensitivity"),
    "precision-recall": ("Precision over recall", "AP", "recall", "precision"),
}


@dataclass(frozen=True)
class Curve:
    """A curve over the grid: its name, the mean over seeds, the lowest and the highest seed, and the mean area below it."""

    name: str
    mean_G: Floats
    low_G: Floats
    high_G: Floats
    area: float


@dataclass(frozen=True)
class Curves:
    """The curves of both panels: of the rungs, over all classes, and of the last rung's classes.

    `which` and `why` say which classes these are, if not all; `seeds` of which seeds all curves are, where a rung has others.
    """

    rungs: Sequence[Curve]
    last: str
    classes: Sequence[Curve]
    which: str = ""
    why: str = ""
    seeds: str = ""


@dataclass(frozen=True)
class Classes:
    """All classes in their order, and those of the group of which some are shown if there are more than ten."""

    names: Sequence[str]
    few: Sequence[str]


def ranking_pages(
    read: Callable[[str], pd.DataFrame], runs: pd.DataFrame, rungs: Sequence[str], classes: Sequence[str], few: Sequence[str]
) -> list[Page]:
    """`roc` and `precision-recall`, if there are predictions with scores; of the seeds that all rungs have which are drawn.

    With more than ten classes the ten with the lowest areas are shown, of the group `few` if it has any.
    """
    if len(classes) < 2:
        return []
    known, drawn = Classes(classes, [name for name in classes if name in set(few)]), drawn_names(classes)
    done = runs[(runs["state"] == "done") & runs["arm"].isin(rungs)]
    by_run = {run_id: found for run_id in dict.fromkeys(done["run_id"]) if (found := _ranking(read, run_id)) is not None}
    by_arm: dict[str, dict[int, ranking.Ranking]] = {}
    for arm, seed, run_id in zip(done["arm"], done["seed"], done["run_id"], strict=True):
        if run_id in by_run:
            by_arm.setdefault(str(arm), {})[int(seed)] = by_run[run_id]
    seeds_of = {arm: pd.DataFrame(index=pd.Index(list(by_seed))) for arm, by_seed in by_arm.items()}
    common = on_common_seeds(seeds_of, rungs)
    shared = {rung: [by_arm[rung][seed] for seed in frame.index] for rung, frame in common.items()}
    pages = []
    for kind, (title, area, *_) in KINDS.items() if shared else ():
        curves = replace(_curves(kind, shared, known), seeds=seeds_words(seeds_of, common))
        seen = replace(curves, classes=[replace(curve, name=drawn[curve.name]) for curve in curves.classes])
        words = _words(title, area, curves)
        pages.append(sized(kind, kind, f"{title} of the ladder", words, partial(ranking_page, kind, seen), wide=style.PAGE))
    return pages


def _ranking(read: Callable[[str], pd.DataFrame], run_id: str) -> ranking.Ranking | None:
    """The run's curves; None if its predictions cannot be read, which the report says elsewhere, or are too many."""
    try:
        table = read(run_id)
    except AblateError:
        return None
    found_NC = scores(table)
    if found_NC.size == 0 or found_NC.size > MOST_SCORES or not np.isfinite(found_NC).all():
        return None
    return ranking.ranking(table["label"].to_numpy(dtype=np.int64), found_NC)


def _curves(kind: str, by_rung: Mapping[str, Sequence[ranking.Ranking]], classes: Classes) -> Curves:
    over_classes = [_curve(rung, [_mean(*_of(kind, found)) for found in of_rung]) for rung, of_rung in by_rung.items()]
    name_of_last, rankings = list(by_rung.items())[-1]
    last = [_of(kind, found) for found in rankings]
    by_class = [
        _curve(name, [(curves_CG[place], float(areas_C[place])) for curves_CG, areas_C in last]) for place, name in enumerate(classes.names)
    ]
    known = [curve for curve in by_class if np.isfinite(curve.area)]
    return Curves(over_classes, name_of_last, *_picked(known, classes))


def _picked(known: Sequence[Curve], classes: Classes) -> tuple[list[Curve], str, str]:
    """The curves of the classes that are shown, which these are where they are not all, and why these."""
    if len(classes.names) <= MOST_CLASSES:
        return list(known), "", ""
    inside = [curve for curve in known if curve.name in classes.few]
    pool, total, of_group = (inside, len(classes.few), " of few") if inside else (list(known), len(classes.names), "")
    picked = sorted(pool, key=lambda curve: curve.area)[:MOST_CLASSES] if len(pool) > MOST_CLASSES else pool
    part = f"{len(picked)} of the" if len(picked) < total else "the"
    return (
        picked,
        f"{part} {counted(total, 'class', 'classes')}{of_group}",
        "those with the lowest areas" if len(picked) < len(pool) else "",
    )


def _of(kind: str, found: ranking.Ranking) -> tuple[Floats, Floats]:
    return (found.tpr_CG, found.auroc_C) if kind == "roc" else (found.precision_CG, found.average_precision_C)


def _mean(curves_CG: Floats, areas_C: Floats) -> tuple[Floats, float]:
    """The mean over the classes with images."""
    known = np.isfinite(areas_C)
    mean_G: Floats = curves_CG[known].mean(axis=0)
    return mean_G, float(areas_C[known].mean())


def _curve(name: str, seeds: Sequence[tuple[Floats, float]]) -> Curve:
    curves_SG, areas = np.stack([curve_G for curve_G, _ in seeds]), [area for _, area in seeds]
    return Curve(name, curves_SG.mean(axis=0), curves_SG.min(axis=0), curves_SG.max(axis=0), float(np.mean(areas)))


def _words(title: str, area: str, curves: Curves) -> str:
    rungs = some([f"{curve.name} {curve.area:.3f}" for curve in curves.rungs], 12)
    classes = some([f"{curve.name} {curve.area:.3f}" for curve in curves.classes], 10)
    which = ", ".join(filter(None, ["by class", curves.which, curves.why]))
    last = f"; of {curves.last} {which}: {classes}" if curves.classes else ""
    return f"{title}, mean over classes and {curves.seeds or 'seeds'}, with the {area}: {rungs}{last}."


def ranking_page(kind: str, curves: Curves, wide: float) -> Figure:
    """Two panels, beside each other or, in a column, one below the other; the legend beside or below each has the areas.

    There is no second one if no class has a curve.
    """
    _, area, across, up = KINDS[kind]
    columns = 2 if wide > style.COLUMN else 1
    width = (wide - 0.55 * columns - RIGHT) / columns
    side = min(width, 2.6)
    over = f"of {curves.seeds}" if curves.seeds else "mean over classes"
    panels = [(style.fitted(f"every rung, {over} ({area})", 8, side + 0.4), curves.rungs)]
    panels += [(_class_title(curves, area, side + RIGHT), curves.classes)] if curves.classes else []
    legends = [0.14 * -(-len(part) // _across(part, width)) + 0.1 for _, part in panels]
    sheet = style.sheet_of(
        len(panels), columns, width=side, height=side, left=0.5, right=RIGHT, top=0.3, bottom=0.42 + max(legends), across=0.55
    )
    sheet = style.Sheet(**{**sheet.__dict__, "down": sheet.bottom + 0.3})
    figure = sheet.blank()
    for place, (title, part) in enumerate(panels):
        axes = figure.add_axes(sheet.box(place))
        _panel(axes, part, kind)
        axes.set_title(title, loc="left")
        axes.set(xlabel=across, ylabel=up if sheet.is_left(place) else "")
        _legend(axes, part, side + 0.4, side)
    return figure


def _class_title(curves: Curves, area: str, room: float) -> str:
    """The arm, cut where it is too long, and which of its classes are shown."""
    which = f": {curves.which}" if curves.which else f", by class ({area})"
    return f"{style.fitted(curves.last, 8, room - style.text_width(which, 8))}{which}"


def _across(part: Sequence[Curve], width: float) -> int:
    """How many entries of the legend fit beside each other."""
    return max(1, int(width // (0.45 + style.widest(_labels(part), style.SMALLEST))))


def _labels(part: Sequence[Curve]) -> list[str]:
    names = labels.cut([curve.name for curve in part], MOST_OF_A_NAME)
    return [f"{name} ({curve.area:.3f})" for name, curve in zip(names, part, strict=True)]


def _panel(axes: Axes, part: Sequence[Curve], kind: str) -> None:
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.8", linestyle="--", linewidth=0.7)
    for number, curve in enumerate(part):
        axes.fill_between(ranking.GRID, curve.low_G, curve.high_G, color=_colour(number), alpha=0.12, linewidth=0)
        axes.plot(ranking.GRID, curve.mean_G, color=_colour(number), linestyle=_dashes(number), linewidth=1.1)
    lowest = min((float(curve.low_G.min()) for curve in part), default=0.0) if kind != "roc" else 0.0
    axes.set(xlim=(-0.01, 1.01), ylim=(max(-0.01, lowest - 0.05), 1.02))


def _colour(number: int) -> Any:
    return style.line_colours()[number % 6]


def _dashes(number: int) -> Any:
    return style.LINES[(number + number // 6) % len(style.LINES)]


def _legend(axes: Axes, part: Sequence[Curve], width: float, side: float) -> None:
    handles = [
        Line2D([], [], color=_colour(number), linestyle=_dashes(number), linewidth=1.1, label=label)
        for number, label in enumerate(_labels(part))
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.4 / side, -0.38 / side), ncols=_across(part, width - 0.3), frameon=False,
        fontsize=style.SMALLEST, borderaxespad=0, columnspacing=0.8, handletextpad=0.4, labelspacing=0.3,
    )  # fmt: skip
