"""Every figure: confusion matrices, class distributions and training curves, in one style and drawn without pyplot's state.

Shapes: C true classes, C predicted classes.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ablation.report.statistics import normalised

COLOURS = "cividis"  # even in lightness, and the same to colour-blind eyes
SHARES = Normalize(0, 1)  # one scale for every matrix, so that two of them can be compared
MATRICES_PER_PAGE = 12
ARMS_PER_CURVE_PAGE = 8
MOST_NAMED_CLASSES = 30
MOST_ANNOTATED_CLASSES = 15
LONGEST_NAME = 14
LINES = ("-", "--", "-.", ":")
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a class may be called $a_b$
}


def confusion_pages(confusion: Mapping[str, npt.ArrayLike], classes: Sequence[str], folder: Path) -> list[Path]:
    """The files with every arm's matrix, at most 12 a page, all on one colour scale."""
    arms = list(confusion)
    pages = [arms[first : first + MATRICES_PER_PAGE] for first in range(0, len(arms), MATRICES_PER_PAGE)]
    return [
        _save(confusion_page({arm: confusion[arm] for arm in page}, classes), folder / f"confusion-{number}.png")
        for number, page in enumerate(pages, start=1)
    ]


def confusion_page(confusion: Mapping[str, npt.ArrayLike], classes: Sequence[str]) -> Figure:
    """One page of row-normalised matrices with their colour bar; a class without test images is a blank row."""
    import seaborn

    num_columns = min(3, len(confusion))
    num_rows = -(-len(confusion) // num_columns)
    annotated = len(classes) <= MOST_ANNOTATED_CLASSES
    with _style():
        figure = _grid(3.5 * num_columns, 3.7 * num_rows, left=1.1, right=0.9, top=0.3, bottom=1.1)
        for place, (arm, counts_CC) in enumerate(confusion.items()):
            axes = figure.add_subplot(num_rows, num_columns, place + 1)
            shares_CC = normalised(counts_CC)
            seaborn.heatmap(
                shares_CC, ax=axes, norm=SHARES, cmap=COLOURS, annot=_annotations(shares_CC) if annotated else False, fmt="",
                annot_kws={"size": 6}, cbar=False, square=True, xticklabels=False, yticklabels=False,
            )  # fmt: skip
            axes.set_title(_short(arm, 44))
            # Only at the page's edge: all panels have the same classes, and letters are what takes the time.
            if place % num_columns == 0:
                _name_rows(axes, classes, centre=0.5)
            if place + num_columns >= len(confusion):
                _name_columns(axes, classes, centre=0.5)
        _colour_bar(figure)
    return figure


def confusion_matrix_png(counts_CC: npt.ArrayLike, classes: Sequence[str], path: Path, title: str) -> Path:
    """The file with one run's row-normalised matrix; drawn for every run, hence an image and not a seaborn heatmap."""
    shares_CC = normalised(counts_CC)
    with _style():
        figure = Figure(figsize=(5, 4.6), dpi=100)
        axes = figure.add_axes((0.2, 0.2, 0.68, 0.72))
        axes.imshow(shares_CC, cmap=COLOURS, norm=SHARES, interpolation="nearest")
        _name_rows(axes, classes)
        _name_columns(axes, classes)
        axes.set_title(_short(title, 60))
        if len(classes) <= MOST_ANNOTATED_CLASSES:
            _annotate(axes, shares_CC)
        else:
            _colour_bar(figure)
        return _save(figure, path)


def class_distribution_png(counts_by_split: Mapping[str, Sequence[int]], classes: Sequence[str], path: Path) -> Path:
    """The file with the images per class of every split, the first filled and the others outlined."""
    with _style():
        figure = Figure(figsize=(6, 3.2), dpi=100)
        axes = figure.add_axes((0.12, 0.3, 0.85, 0.58))
        edges = np.arange(len(classes) + 1) - 0.5
        for place, (split, counts) in enumerate(counts_by_split.items()):
            look = {"fill": True, "color": "0.75"} if place == 0 else {"color": "black", "linestyle": LINES[place % len(LINES)]}
            axes.stairs(counts, edges, label=split, **look)
        _name_columns(axes, classes)
        axes.set(xlabel="class", ylabel="images", xlim=(-0.5, len(classes) - 0.5), ylim=(0, None))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(counts_by_split), fontsize=8)
        return _save(figure, path)


def curve_pages(curves: pd.DataFrame, folder: Path) -> list[Path]:
    """The files with every curve: a panel per metric, a line per arm, at most 8 arms a page."""
    arms = list(dict.fromkeys(curves["arm"]))
    pages = [arms[first : first + ARMS_PER_CURVE_PAGE] for first in range(0, len(arms), ARMS_PER_CURVE_PAGE)]
    return [
        _save(curve_page(curves[curves["arm"].isin(page)]), folder / f"curves-{number}.png") for number, page in enumerate(pages, start=1)
    ]


def curve_page(curves: pd.DataFrame) -> Figure:
    """One page of curves: each arm's mean over seeds, within a band of one standard deviation where there are seeds enough."""
    import seaborn

    metrics = sorted(set(curves["metric"]))
    arms = list(dict.fromkeys(curves["arm"]))
    colours = seaborn.color_palette("colorblind", len(arms))
    num_columns = min(2, len(metrics))
    num_rows = -(-len(metrics) // num_columns)
    with _style():
        figure = _grid(4.6 * num_columns, 3.2 * num_rows, left=0.6, right=2.2, top=0.3, bottom=0.5)
        figure.subplots_adjust(wspace=0.25, hspace=0.4)
        for place, metric in enumerate(metrics, start=1):
            axes = figure.add_subplot(num_rows, num_columns, place)
            points = curves[curves["metric"] == metric]
            for number, arm in enumerate(arms):
                _curve(axes, points[points["arm"] == arm], arm, colours[number], LINES[number % len(LINES)])
            axes.set(title=metric, xlabel="epoch")
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc="center left",
            bbox_to_anchor=(figure.subplotpars.right, 0.5),
            frameon=False,
            fontsize=8,
        )
    return figure


def _curve(axes: Axes, points: pd.DataFrame, arm: str, colour: Any, line: str) -> None:
    by_step = points.groupby("step")["value"]
    means, bands = by_step.mean(), by_step.std().fillna(0)
    steps = means.index.to_numpy()
    axes.plot(steps, means.to_numpy(), color=colour, linestyle=line, label=_short(arm, 28))
    if bands.any():
        axes.fill_between(steps, (means - bands).to_numpy(), (means + bands).to_numpy(), color=colour, alpha=0.2, linewidth=0)


def _annotations(shares_CC: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    """Whole percents, nothing where there is nothing to say."""
    return np.array([["" if not share >= 0.005 else f"{100 * share:.0f}" for share in row] for row in shares_CC])


def _annotate(axes: Axes, shares_CC: npt.NDArray[np.float64]) -> None:
    for (row, column), text in np.ndenumerate(_annotations(shares_CC)):
        if text:
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="black" if shares_CC[row, column] > 0.5 else "white")


def _name_rows(axes: Axes, classes: Sequence[str], centre: float = 0) -> None:
    """True classes down the side, each at `centre` from its row's number; too many names to be read are left out."""
    axes.set_ylabel("true")
    if len(classes) <= MOST_NAMED_CLASSES:
        axes.set_yticks(np.arange(len(classes)) + centre, [_short(name) for name in classes])


def _name_columns(axes: Axes, classes: Sequence[str], centre: float = 0) -> None:
    """The same for predicted classes, along the bottom."""
    axes.set_xlabel("predicted")
    if len(classes) <= MOST_NAMED_CLASSES:
        axes.set_xticks(np.arange(len(classes)) + centre, [_short(name) for name in classes], rotation=90)


def _grid(width: float, height: float, *, left: float, right: float, top: float, bottom: float) -> Figure:
    """An empty figure for panels of that size in all, with margins; everything is in inches."""
    whole, tall = left + width + right, top + height + bottom
    figure = Figure(figsize=(whole, tall), dpi=110)
    figure.subplots_adjust(left=left / whole, right=1 - right / whole, top=1 - top / tall, bottom=bottom / tall, wspace=0.08, hspace=0.15)
    return figure


def _colour_bar(figure: Figure) -> None:
    """One bar for the whole figure: the share of the row's images."""
    scale = mpl.cm.ScalarMappable(SHARES, COLOURS)
    place = figure.add_axes((1 - 0.55 / figure.get_figwidth(), 0.3, 0.15 / figure.get_figwidth(), 0.4))
    figure.colorbar(scale, cax=place, ticks=[0, 0.5, 1]).ax.set_title("share", fontsize=7)


def _short(text: str, longest: int = LONGEST_NAME) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _save(figure: Figure, path: Path) -> Path:
    """The path, written; no version is in the file, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _style():
        figure.savefig(path, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return path


@contextmanager
def _style() -> Iterator[None]:
    """Our style, and no warning where the font lacks a letter of a class's name: a box is drawn and the tables have the name."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
