"""Confusion matrices on one colour scale, and their differences to the baseline's.

Shapes: C true classes, C predicted classes, N letters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, TransformedBbox

from ablation.formatting import change
from ablation.report.figures import labels, style
from ablation.report.figures.fonts import drawable
from ablation.report.figures.page import ArmsShown, Page, chunks, file_name, numbered, some
from ablation.report.statistics.descriptive import normalised

Floats = npt.NDArray[np.float64]

COLOURS = "cividis"  # perceptually uniform, also for colour-blind readers
SHARES = Normalize(0, 1)  # one scale, so that matrices can be compared
MATRICES_PER_PAGE = 12
GAP = 3.5  # points between a picture and the names beside it
BEYOND = 5  # points between the names and what they name
MOST_OF_A_NAME = 46  # letters


def confusion_pages(confusion: Mapping[str, npt.ArrayLike], classes: Sequence[str], shown: ArmsShown) -> list[Page]:
    """The matrices of the arms outside conditions, at most 12 per page, on one colour scale; then one page for each arm there is."""
    arms, drawn = [arm for arm in shown.arms(conditions=False) if arm in confusion], drawable(classes)
    together = numbered(
        "confusion",
        "Confusion matrices",
        chunks(arms, MATRICES_PER_PAGE),
        lambda part: confusion_page({shown.names[arm]: confusion[arm] for arm in part}, drawn),
        lambda part: f"Row-normalised confusion matrices, true classes down and predicted classes across, of {some(part)}.",
    )
    return together + [_single_page(arm, confusion[arm], classes, shown) for arm in shown.arms(conditions=True) if arm in confusion]


def _single_page(arm: str, counts_CC: npt.ArrayLike, classes: Sequence[str], shown: ArmsShown) -> Page:
    """The page of one arm, `confusion/ARM`: a file by itself, which any program opens and scales."""
    shares_CC = normalised(counts_CC)
    apart = [(shares_CC[row, column], row, column) for row, column in np.ndindex(shares_CC.shape) if row != column]
    known = sorted(((share, row, column) for share, row, column in apart if share > 0), reverse=True)[:3]
    most = some([f"{classes[row]} as {classes[column]} {100 * share:.0f} %" for share, row, column in known])
    alt = f"Row-normalised confusion matrix of {arm}; {f'most often confused: {most}' if most else 'nothing is confused'}."
    (page,) = numbered(
        "confusion-of-one", f"Confusion matrix of {arm}", [counts_CC],
        lambda part: one_matrix(part, drawable(classes), shown.names[arm], wide=4.2), lambda part: alt,
    )  # fmt: skip
    return replace(page, name=f"confusion/{file_name(arm)}", suffixes=("svg",))


def difference_pages(
    confusion: Mapping[str, npt.ArrayLike], classes: Sequence[str], shown: ArmsShown, recalls: Mapping[str, pd.DataFrame] | None = None
) -> list[Page]:
    """Every arm's matrix minus its baseline's, in points; without arms that have other seeds than it, by the index of their recalls."""
    seeds, drawn = {arm: set(frame.index) for arm, frame in (recalls or {}).items()}, drawable(classes)
    arms = [arm for arm in shown.compared(confusion) if seeds.get(arm) == seeds.get(shown.baseline(arm))]
    return numbered(
        "confusion-difference",
        "Confusion matrices minus the baseline's",
        chunks(arms, MATRICES_PER_PAGE),
        lambda part: difference_page({shown.names[arm]: (confusion[arm], confusion[shown.baseline(arm)]) for arm in part}, drawn),
        lambda part: f"Each arm's row-normalised confusion matrix minus its baseline's, in points, of {some(part)}.",
    )


def confusion_page(confusion: Mapping[str, npt.ArrayLike], classes: Sequence[str]) -> Figure:
    """One page of row-normalised matrices with their colour bar; a class without test images is a blank row."""
    shares = {arm: normalised(counts_CC) for arm, counts_CC in confusion.items()}
    figure = _panels(shares, classes, SHARES, COLOURS, share_texts)
    style.colour_bar(figure, SHARES, COLOURS, "% of row", [0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    return figure


def difference_page(pairs: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], classes: Sequence[str]) -> Figure:
    """One page of differences of matrices in points, on one symmetric scale with a colour bar."""
    points = {arm: 100 * (normalised(arm_CC) - normalised(base_CC)) for arm, (arm_CC, base_CC) in pairs.items()}
    largest = max((float(np.nanmax(np.abs(points_CC), initial=0)) for points_CC in points.values()), default=0)
    limit = max(1.0, float(np.ceil(largest)))
    colours = style.diverging_colours()
    figure = _panels(points, classes, Normalize(-limit, limit), colours, point_texts)
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    style.colour_bar(figure, Normalize(-limit, limit), colours, "points", ticks, [f"{tick:+.4g}" if tick else "0" for tick in ticks])
    return figure


def confusion_matrix_png(counts_CC: npt.ArrayLike, classes: Sequence[str], path: Path, title: str) -> Path:
    """Write a small figure of one run's row-normalised matrix; there is one for every run."""
    classes = drawable(classes)
    with style.styled():
        figure = one_matrix(counts_CC, classes, title, wide=4.0 + style.room_for(classes))
        figure.set_dpi(100)
        return style.save(figure, path)


def one_matrix(counts_CC: npt.ArrayLike, classes: Sequence[str], title: str, *, wide: float) -> Figure:
    """One row-normalised matrix on a figure of that width, with numbers if there is room for them, otherwise with a colour bar."""
    names, shares_CC = style.room_for(classes), normalised(counts_CC)
    has_numbers = len(classes) <= style.MOST_ANNOTATED_CLASSES and (wide - names - 0.1) / len(classes) > 0.16
    right = 0.1 if has_numbers else 0.6
    side = wide - names - right
    sheet = style.Sheet(1, 1, width=side, height=side, left=names, right=right, top=0.3, bottom=names)
    figure, box = sheet.blank(), Bbox.from_bounds(*sheet.box(0))
    picture = BboxImage(
        TransformedBbox(box, figure.transFigure), cmap=COLOURS, norm=SHARES, interpolation="nearest"
    )  # an axis takes longer
    picture.set_data(np.ma.masked_invalid(shares_CC))
    figure.add_artist(picture)
    title = style.fitted(title, 8, side + 0.1)
    figure.text(box.x0 + box.width / 2, 1 - 0.22 / sheet.size[1], title, ha="center", fontsize=8)
    _name_columns(figure, box, classes)
    _name_rows(figure, box, classes)
    if has_numbers:
        _annotate(figure, [(sheet.box(0), shares_CC)], SHARES, COLOURS, share_texts)
    else:
        style.colour_bar(figure, SHARES, COLOURS, "% of row", [0, 0.5, 1], ["0", "50", "100"])
    return figure


def share_texts(shares_CC: Floats) -> list[list[str]]:
    """Whole percents; empty if they round to zero, and for a class without test images."""
    return [[f"{percents:.0f}" if abs(np.rint(percents)) > 0 else "" for percents in row] for row in (100 * shares_CC).tolist()]


def point_texts(points_CC: Floats) -> list[list[str]]:
    """Whole points with their sign; empty if they round to zero, and for a class without test images."""
    return [[change(points, decimals=0) if abs(np.rint(points)) > 0 else "" for points in row] for row in points_CC.tolist()]


def _panels(matrices: Mapping[str, Floats], classes: Sequence[str], norm: Any, colours: style.Colours, texts: Any) -> Figure:
    side, names = 2.7, style.room_for(classes)
    sheet = style.sheet_of(len(matrices), 3, width=side, height=side, left=names, right=0.8, bottom=names, across=0.15, down=0.35)
    figure = sheet.blank()
    titles = labels.cut(list(matrices), MOST_OF_A_NAME)
    for place, (title, values_CC) in enumerate(zip(titles, matrices.values(), strict=True)):
        axes = figure.add_axes(sheet.box(place))
        _picture(axes, values_CC, norm, colours)
        axes.set_title(title)
        # Only at the page's edges: all panels have the same classes, and drawing letters takes most of the time.
        if sheet.is_left(place):
            _name_rows(figure, axes.get_position(), classes)
        if sheet.is_lowest(place, len(matrices)):
            _name_columns(figure, axes.get_position(), classes)
    if len(classes) <= style.MOST_ANNOTATED_CLASSES:
        _annotate(figure, [(sheet.box(place), values_CC) for place, values_CC in enumerate(matrices.values())], norm, colours, texts)
    return figure


def _picture(axes: Axes, values_CC: Floats, norm: Any, colours: style.Colours) -> None:
    """Draw an image instead of a mesh, so that the SVG of a hundred classes stays small; "none" keeps the pixels sharp."""
    axes.imshow(values_CC, cmap=colours, norm=norm, interpolation="none", aspect="auto")
    axes.set_axis_off()


def _annotate(figure: Figure, panels: Sequence[tuple[tuple[float, ...], Floats]], norm: Any, colours: style.Colours, texts: Any) -> None:
    """Draw all panels' numbers at once, dark on light and light on dark."""
    import matplotlib as mpl

    places, words, values = [], [], []
    for (left, bottom, width, height), values_CC in panels:
        size = len(values_CC)
        for row, line in enumerate(texts(values_CC)):
            for column, text in enumerate(line):
                if text:
                    places.append((left + (column + 0.5) / size * width, bottom + (1 - (row + 0.5) / size) * height))
                    words.append(text)
                    values.append(values_CC[row, column])
    lightness_N = mpl.colormaps.get_cmap(colours)(norm(np.array(values, dtype=float)))[:, :3] @ [0.2126, 0.7152, 0.0722]
    style.letters(figure, places, words, ["black" if lightness > 0.5 else "white" for lightness in lightness_N])


def _name_rows(figure: Figure, box: Bbox, classes: Sequence[str]) -> None:
    """Name the true classes down the side, unless there are too many."""
    beside = (_named(figure, box, classes, upright=False) + BEYOND) / 72 / figure.get_figwidth()
    place = (box.x0 - beside, box.y0 + box.height / 2)
    figure.text(*place, "true", ha="center", va="center", rotation=90, rotation_mode="anchor", fontsize=8)


def _name_columns(figure: Figure, box: Bbox, classes: Sequence[str]) -> None:
    """Name the predicted classes along the bottom."""
    below = (_named(figure, box, classes, upright=True) + BEYOND) / 72 / figure.get_figheight()
    figure.text(box.x0 + box.width / 2, box.y0 - below, "predicted", ha="center", va="top", fontsize=8)


def _named(figure: Figure, box: Bbox, classes: Sequence[str], *, upright: bool) -> float:
    """Draw the names beside the picture in that box, and return their length in points."""
    if len(classes) > style.MOST_NAMED_CLASSES:
        return 0.0
    wide, tall = figure.get_size_inches()
    middles_C = (np.arange(len(classes)) + 0.5) / len(classes)
    if upright:
        places_C2 = [(box.x0 + middle * box.width, box.y0 - GAP / 72 / tall) for middle in middles_C]
    else:
        places_C2 = [(box.x0 - GAP / 72 / wide, box.y1 - middle * box.height) for middle in middles_C]
    return GAP + style.names(figure, places_C2, labels.cut(classes, style.LONGEST_CLASS), _name_size(classes), upright=upright)


def _name_size(classes: Sequence[str]) -> float:
    return 7 if len(classes) <= style.MOST_ANNOTATED_CLASSES else style.SMALLEST
