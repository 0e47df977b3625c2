"""The one style of every figure: colours, sheets of equal panels, letters and files.

Shapes: N letters, P colours of a palette.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath, text_to_path
from matplotlib.transforms import Affine2D, IdentityTransform
from PIL import Image

from ablation.report.figures.fonts import wide_families
from ablation.report.figures.vector import is_plain, svg_of
from ablation.system.code import package_version
from ablation.system.kept import kept

GREY = "0.55"
INK = "0.15"
UP, DOWN = "#0173b2", "#de8f05"  # blue and orange: told apart by every kind of colour-blind eye
GROUPS = {"many": "#0173b2", "medium": "#949494", "few": "#de8f05"}
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 2)))
SMALLEST = 6  # points: the smallest size that is readable in print
COLUMN, BESIDE, PAGE, WIDEST = 3.3, 4.2, 5.6, 9.0  # inches: a column of a paper, beside a table, a page of one or two panels, of many
MOST_NAMED_CLASSES = 30
MOST_ANNOTATED_CLASSES = 15
LONGEST_CLASS = 14
NEARLY_WHITE = 252
MANY = 4  # times that each of a page's letters is drawn, on average, from which it is worth its own artist
FINDING_TABLES = ("cmap", "post", "OS/2")
LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "kern")
BACKENDS = ("backend", "backend_fallback")  # settings of pyplot, which looks for a display when they are read
Colours = str | ListedColormap
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.edgecolor": "0.4",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titley": 1.0,  # where it is anyway; looking for ticks above each panel takes a tenth of the time
    "axes.unicode_minus": False,  # as in the tables
    "text.parse_math": False,  # a class may be called $a_b$
    "svg.hashsalt": "ablate",  # otherwise the ids in the file would differ each time
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


def line_colours() -> list[Any]:
    """Six colours of seaborn's colour-blind palette and black, in the order in which they are easiest to tell apart."""
    palette = [tuple(colour) for colour in _of_seaborn()["colorblind"]]
    return [palette[0], palette[1], (0.0, 0.0, 0.0), palette[9], palette[4], palette[5]]


def diverging_colours() -> ListedColormap:
    """Seaborn's colours from blue over white to red, for what may be below and above zero."""
    return ListedColormap(_of_seaborn()["vlag"])


@cache
def _of_seaborn() -> dict[str, list[list[float]]]:
    """The colours that we take from seaborn; they are kept, since it imports much of SciPy and what else its plots need."""

    def find() -> dict[str, list[list[float]]]:
        import seaborn

        return {"colorblind": [list(colour) for colour in seaborn.color_palette("colorblind")], "vlag": seaborn.cm.vlag.colors}

    return kept("colours", package_version("seaborn"), find)


def group_colour(group: str, groups: Sequence[str]) -> Any:
    """The colour of a group of classes, and a light grey for classes that are in none."""
    if group in GROUPS:
        return GROUPS[group]
    return line_colours()[list(groups).index(group) % 6] if group in groups else "0.8"


def darker(colour: Any) -> Any:
    """The colour for text on white."""
    return tuple(0.7 * part for part in to_rgb(colour))


@dataclass(frozen=True)
class Sheet:
    """A page of equal panels, row by row; every length is in inches."""

    columns: int
    rows: int
    width: float
    height: float
    left: float = 0.6
    right: float = 0.2
    top: float = 0.35
    bottom: float = 0.5
    across: float = 0.1
    down: float = 0.3

    @property
    def size(self) -> tuple[float, float]:
        """The page's width and height."""
        across = self.left + self.columns * self.width + (self.columns - 1) * self.across + self.right
        return across, self.top + self.rows * self.height + (self.rows - 1) * self.down + self.bottom

    def blank(self) -> Figure:
        """An empty figure of that size."""
        return Figure(figsize=self.size, dpi=110)

    def box(self, place: int, below: float = 0, height: float | None = None) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel, or of a strip `below` inches under its top, as shares of the page."""
        wide, tall = self.size
        row, column = divmod(place, self.columns)
        deep = self.height if height is None else height
        top = self.top + row * (self.height + self.down) + below
        return (self.left + column * (self.width + self.across)) / wide, 1 - (top + deep) / tall, self.width / wide, deep / tall

    def is_left(self, place: int) -> bool:
        """Whether the panel is in the first column."""
        return place % self.columns == 0

    def is_lowest(self, place: int, count: int) -> bool:
        """Whether none of the `count` panels is below this one."""
        return place + self.columns >= count


def sheet_of(count: int, columns: int, **lengths: float) -> Sheet:
    """The sheet for that many panels, at most `columns` beside each other."""
    across = max(1, min(columns, count))
    return Sheet(columns=across, rows=-(-max(1, count) // across), **lengths)


def letters(figure: Figure, places_N2: npt.ArrayLike, texts_N: Sequence[str], colours_N: Sequence[Any], size: float = SMALLEST) -> None:
    """Draw short texts, centred at places given as shares of the page; each text is drawn at all its places at once.

    Drawn one by one, they would take most of a page's time.
    """
    by_text: dict[str, list[int]] = {}
    for number, text in enumerate(texts_N):
        by_text.setdefault(text, []).append(number)
    offsets_N2 = np.asarray(places_N2, dtype=float)
    # Outlines that are used a few times each take longer as an artist each than in one.
    parts = list(by_text.values()) if len(texts_N) > MANY * len(by_text) else [list(range(len(texts_N)))] if by_text else []
    for numbers in parts:
        texts = [texts_N[number] for number in numbers]
        paths = [_outline(text, size) for text in (texts[:1] if len(set(texts)) == 1 else texts)]
        collection = PathCollection(
            paths, sizes=[1.0], offsets=offsets_N2[numbers], offset_transform=figure.transFigure,
            facecolors=[colours_N[number] for number in numbers], linewidths=0, label=" ".join(dict.fromkeys(texts)),
        )  # fmt: skip
        collection.set_transform(IdentityTransform())  # in points, not in shares of the page
        figure.add_artist(collection)


def names(figure: Figure, places_N2: npt.ArrayLike, texts_N: Sequence[str], size: float, *, upright: bool = False) -> float:
    """Draw names that end at places given as shares of the page, from the left or (upright) from below; returns the longest in points.

    As labels of an axis's ticks they would take as long as the rest of a small figure.
    """
    paths = [_outline(text, size, 1.0) for text in texts_N]
    collection = PathCollection(
        [_upright(path) for path in paths] if upright else paths,
        sizes=[1.0], offsets=np.asarray(places_N2, dtype=float), offset_transform=figure.transFigure, facecolors=["black"], linewidths=0,
        label=" ".join(texts_N),
    )  # fmt: skip
    collection.set_transform(IdentityTransform())
    figure.add_artist(collection)
    return max((_reach(text, size) for text in texts_N), default=0.0)


@lru_cache(maxsize=1024)
def _outline(text: str, size: float, end: float = 0.5) -> Outline:
    """A text's outline, with the origin at its middle (or another part of its length) and half a digit above its line."""
    if not text.strip():
        return Outline([(0, 0)])  # nothing to draw, which matplotlib cannot handle
    path = TextPath((0, 0), text, size=size)
    reach = path.get_extents()
    return path.transformed(Affine2D().translate(-reach.x0 - end * (reach.x1 - reach.x0), -0.36 * size))


@lru_cache(maxsize=1024)
def _upright(path: Outline) -> Outline:
    return path.transformed(Affine2D().rotate_deg(90))


@lru_cache(maxsize=1024)
def _reach(text: str, size: float) -> float:
    """How far an outline that ends at its origin goes, in points."""
    return float(-_outline(text, size, 1.0).get_extents().x0)


def colour_bar(figure: Figure, norm: Any, colours: Colours, title: str, ticks: Sequence[float], labels: Sequence[str]) -> None:
    """Draw one colour bar for the whole page, in its right margin."""
    wide, tall = figure.get_size_inches()
    height = min(2.2, 0.5 * tall)
    axes = figure.add_axes((1 - 0.6 / wide, 0.5 - height / 2 / tall, 0.14 / wide, height / tall), label="bar")
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), cax=axes)
    bar.set_ticks(list(ticks), labels=list(labels))
    bar.outline.set_linewidth(0.4)
    axes.set_title(title, fontsize=7)


def short(text: str, longest: int = LONGEST_CLASS) -> str:
    """The text on one line, cut if it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def spaced(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions, moved apart as little as possible so that neighbours keep the gap, within the range if they fit."""
    if not len(wanted):
        return []
    from scipy.optimize import isotonic_regression  # which takes long to import

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    # Positions minus their steps only have to stay in order, which is what isotonic regression does.
    free = np.clip(isotonic_regression(np.asarray(wanted, dtype=float)[order] - steps).x, low, max(low, high - steps[-1]))
    placed = np.empty(len(order))
    placed[order] = free + steps
    return [float(value) for value in placed]


def text_width(text: str, size: float) -> float:
    """The width of a text on one line in inches, as wide as it may get when its letters are fitted to pixels."""
    line = " ".join(text.split())
    return 1.05 * float(text_to_path.get_text_width_height_descent(line, FontProperties(size=size), ismath=False)[0]) / 72


def widest(texts: Iterable[str], size: float) -> float:
    """The width of the widest of the texts in inches, 0 for none."""
    return max((text_width(text, size) for text in texts), default=0.0)


def fitted(text: str, size: float, room: float) -> str:
    """The text on one line, cut in its middle where it is wider than the room in inches, so that its beginning and its end are read."""
    line = " ".join(text.split())
    kept = len(line)
    cut = line
    while kept > 2 and text_width(cut, size) > room:
        kept -= 1
        cut = f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"
    return cut


def legend(figure: Figure, handles: Sequence[Any], size: float = 7) -> float:
    """Draw a legend along the figure's top in as many columns as fit; returns its height in inches."""
    if not handles:
        return 0.0
    columns = _legend_columns(figure.get_figwidth(), handles, size)
    figure.legend(
        handles=handles, loc="upper center", ncols=columns, fontsize=size, frameon=False, borderaxespad=0.3,
        columnspacing=0.9, handletextpad=0.3, handlelength=1.6, labelspacing=0.25,
    )  # fmt: skip
    return legend_height(figure.get_figwidth(), handles, size)


def legend_height(wide: float, handles: Sequence[Any], size: float = 7) -> float:
    """The height in inches of the legend of these handles on a figure of that width."""
    if not handles:
        return 0.0
    return 0.12 + -(-len(handles) // _legend_columns(wide, handles, size)) * 1.4 * size / 72


def _legend_columns(wide: float, handles: Sequence[Any], size: float) -> int:
    """As many equal columns as fit; where one long label leaves a single one, two of their own widths if these fit."""
    words = [str(handle.get_label()) for handle in handles]
    columns = int(np.clip(wide // (0.42 + widest(words, size)), 1, len(words)))
    first = -(-len(words) // 2)  # matplotlib has the longer column first
    halves = 0.74 + widest(words[:first], size) + widest(words[first:], size)
    return 2 if columns == 1 and len(words) > 2 and halves <= wide else columns


def robust_range(means: Sequence[float], lows: Sequence[float], highs: Sequence[float], least: float) -> tuple[float, float]:
    """A range with zero, all means and all intervals, except for a few outliers that would compress all others."""
    ends = np.array([end for end in [*means, *lows, *highs] if np.isfinite(end)])
    far = 2 * max(least, float(np.quantile(np.abs(ends), 0.9))) if len(ends) else least
    near = ends[np.abs(ends) <= far]
    low, high = min(-least, near.min(initial=0)), max(least, near.max(initial=0))
    room = 0.06 * (high - low)
    return float(low - room), float(high + room)


def room_for(names: Sequence[str]) -> float:
    """Inches for the longest of these class names and the word beside them."""
    longest = max((len(short(name)) for name in names), default=0) if len(names) <= MOST_NAMED_CLASSES else 0
    return 0.35 + 0.07 * longest


def figure_of(axes: Axes) -> Figure:
    """The figure that the axes are in."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def frameless(axes: Axes) -> None:
    """Remove the ticks and frames of the axes, for a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure and return the path. The file has no version and no date, so equal figures give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        if path.suffix == ".svg" and is_plain(figure):
            path.write_text(svg_of(figure), encoding="utf-8")
        elif path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        elif path.suffix == ".pdf":
            with _lean_fonts():
                figure.savefig(path, metadata={"CreationDate": None, "Creator": None, "Producer": None})
        else:
            _few_colours(figure).save(path, compress_level=6, optimize=False)
    return path


def _few_colours(figure: Figure) -> Image.Image:
    """The figure's pixels in 256 colours: a third of the bytes, written sooner. The page, and what is nearly white, is white."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels_HW4 = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels_HW4).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    colours_P3 = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    colours_P3[(colours_P3 >= NEARLY_WHITE).all(axis=1)] = 255
    colours_P3[np.unique(np.asarray(image)[(pixels_HW4[..., :3] == 255).all(axis=2)])] = 255  # whatever pale tones share its place
    image.putpalette(colours_P3.tobytes())
    return image


@contextmanager
def _lean_fonts() -> Iterator[None]:
    """Leave the tables for laying out text out of embedded fonts, and those for finding glyphs, which a PDF names by their numbers.

    No reader of a PDF uses them, and reading them takes most of the time.
    """
    from fontTools import subset

    load = subset.load_font

    def lean(*arguments: Any, **options: Any) -> Any:
        font = load(*arguments, **options)
        by_number = "glyf" in font and mpl.__version_info__ >= (3, 11)  # before, matplotlib asked for glyphs by their letters
        if by_number:
            font.setGlyphOrder([f"glyph{number}" for number in range(font["maxp"].numGlyphs)])
        for table in (*LAYOUT_TABLES, *(FINDING_TABLES if by_number else ())):
            if table in font:
                del font[table]
        return font

    subset.load_font = lean
    try:
        yield
    finally:
        subset.load_font = load


@contextmanager
def styled() -> Iterator[None]:
    """Apply our style alone, whatever a matplotlibrc says, without warnings about letters that the font lacks: the tables have them."""
    if mpl.rcParams["svg.hashsalt"] == STYLE["svg.hashsalt"]:  # it is applied already, which takes a while
        yield
        return
    theirs = {name: value for name, value in mpl.rcParamsDefault.items() if name not in BACKENDS and mpl.rcParams[name] != value}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with mpl.rc_context({**theirs, **STYLE, "font.family": ["sans-serif", *wide_families()]}):
            yield
