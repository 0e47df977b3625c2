"""How a table is laid out as floats: beside or below, broken into lines, over columns and over pages, so that nothing is too wide.

All lengths are in points, of Computer Modern, which is wider than what journals use.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ablation.report.documents.latex_text import PREFIX, comment
from ablation.report.sections.common import places_by_room

# a column of a two-column article on A4, and the text of a one-column article: the narrowest usual ones, less a few points
COLUMN, TEXT = 217.0, 340.0
HEIGHT = 500.0  # of a page's text, less some space around the float
GAP, LINE, CAPTION_LINE, NOTE_LINE, FRAME = 6.0, 9.6, 12.0, 8.4, 45.0
SIZE, SMALL_SIZE, CAPTION_SIZE = 8.0, 7.0, 10.0
LEAST = 60.0  # the width of a column of words that is broken into lines, unless all its words are short
WIDTHS = (("ijl.,:;'!|()[] ", 0.34), ("frstcez-", 0.48), ("0123456789", 0.54), ("ABCDEFGHIJKLMNOPQRSTUVWXYZmw%&@±", 0.85))  # of the size
WIDTH_OF = {letter: share for letters, share in WIDTHS for letter in letters}
OTHER, BOLD = 0.6, 1.12  # the share of any other letter, and how much wider bold letters are
OVER = rf"\providecommand{{\{PREFIX}Over}}[2]{{\begin{{tabular}}[t]{{@{{}}r@{{}}}}#1\\{{\scriptsize$#2$}}\end{{tabular}}}}"
BESIDE, BELOW = r"%s\,{\scriptsize$%s$}", rf"\{PREFIX}Over{{%s}}{{%s}}"

Parts = tuple[str, str]  # a number or words, and the sd or interval, which may be nothing


@dataclass(frozen=True)
class Column:
    """A column of a table: its header and a cell per row, all in LaTeX; words may break into lines, numbers may not."""

    head: str
    cells: Sequence[Parts]
    is_words: bool = False
    is_upright: bool = False  # whether its header is written upwards


@dataclass(frozen=True)
class Row:
    """What belongs to a row besides its cells: the arm and its runs, for a comment; the family, which a rule ends; and its remarks."""

    arm: str
    runs: str = ""
    family: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """A table of any size. All texts are LaTeX except `about`, the plain words for its command and label."""

    about: Sequence[str]
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Layout:
    """How the columns are set: a LaTeX column each, where the second parts of numbers stand, and in what kind of float."""

    specs: Sequence[str]
    pattern: str
    environment: str
    widths: Sequence[float]  # of the columns of words that are broken into lines, else infinite


@dataclass(frozen=True)
class Float:
    """A part of a table that fits on a page."""

    table: Table
    layout: Layout

    def typeset(self, label: str) -> str:
        """The float, with its caption above and its notes below."""
        table, layout = self.table, self.layout
        heads = [f"\\rotatebox{{90}}{{{column.head}}}" if column.is_upright else column.head for column in table.columns]
        notes = [*table.notes, *(note for row in table.rows for note in row.notes)]
        return "\n".join(
            [
                f"\\begin{{{layout.environment}}}[htbp]",
                "\\centering",
                f"\\caption[{{{table.title}}}]{{{table.title} {table.caption}}}\\label{{tab:{label}}}\\smallskip",
                "\\footnotesize\\setlength{\\tabcolsep}{3pt}",
                f"\\begin{{tabular}}{{@{{}}{''.join(layout.specs)}@{{}}}}",
                f"\\toprule\n{_line(heads)}\n\\midrule",
                *self._rows(),
                "\\bottomrule\n\\end{tabular}",
                *([f"\\par\\smallskip\\parbox{{\\linewidth}}{{\\scriptsize\\raggedright {' '.join(notes)}}}"] if notes else []),
                f"\\end{{{layout.environment}}}",
            ]
        )

    def _rows(self) -> Iterator[str]:
        above = self.table.rows[0].family
        for place, row in enumerate(self.table.rows):
            cells = [_cell(column.cells[place], self.layout.pattern) for column in self.table.columns]
            rule, above = "\\midrule\n" if row.family != above else "", row.family
            runs = f"\n% runs: {comment(row.runs) or 'none'}" if row.arm else ""
            yield f"{rule}{_line(cells)}{f' % {comment(row.arm)}' if row.arm else ''}{runs}"


def floats(table: Table) -> Iterator[Float]:
    """The table as floats: its columns side by side if they fit, else over several; and as many rows in each as a page has room for."""
    for part in _parts(table):
        layout = _layout(part.columns, is_last=True)
        assert layout is not None
        rows = _pages(part, layout)
        for page in rows:
            yield Float(_of_rows(part, page), layout)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(parts: Parts, pattern: str) -> str:
    return pattern % parts if parts[1] else parts[0]


# --- columns -------------------------------------------------------------------------------------------------------------------


def _parts(table: Table) -> Iterator[Table]:
    """The table, or its columns in halves, each after the first column, until they fit."""
    first, *others = table.columns
    if len(others) < 2 or _layout(table.columns):
        yield table
        return
    half = (len(others) + 1) // 2
    for columns in (others[:half], others[half:]):
        yield from _parts(replace(table, columns=[first, *columns]))


def _layout(columns: Sequence[Column], *, is_last: bool = False) -> Layout | None:
    """The first layout that fits: in a column rather than the text, in one line rather than two; with `is_last`, there is one."""
    for most, environment in ((COLUMN, "table"), (TEXT, "table*")):
        for is_broken in (False, True):
            for pattern in (BESIDE, BELOW):
                specs = _specs(columns, most, pattern, is_broken=is_broken, is_forced=is_last and most == TEXT and pattern == BELOW)
                if specs:
                    return Layout([spec for spec, _ in specs], pattern, environment, [width for _, width in specs])
    return None


def _specs(columns: Sequence[Column], most: float, pattern: str, *, is_broken: bool, is_forced: bool) -> list[tuple[str, float]]:
    """A LaTeX column and its width for each column; nothing if they do not fit."""
    widths = [_natural(column, pattern) for column in columns]
    room = most - GAP * (len(columns) - 1)
    if sum(widths) <= room:
        return [("l" if column.is_words else "c" if column.is_upright else "r", math.inf) for column in columns]
    if not is_broken:
        return []
    room -= sum(width for column, width in zip(columns, widths, strict=True) if not column.is_words)
    words = [(width, _least(column, width)) for column, width in zip(columns, widths, strict=True) if column.is_words]
    if sum(least for _, least in words) > room and not is_forced:
        return []
    broken = iter(_shared(words, room))
    return [_spec(next(broken)) if column.is_words else ("c" if column.is_upright else "r", math.inf) for column in columns]


def _spec(width: float) -> tuple[str, float]:
    return f">{{\\raggedright\\arraybackslash}}p{{{width:.0f}pt}}", width


def _shared(words: Sequence[tuple[float, float]], room: float) -> list[float]:
    """The room for columns of words, by how much more than the least each would like; less than the least where room lacks."""
    least = sum(low for _, low in words)
    wish = sum(width - low for width, low in words) or 1.0
    if least > room:
        return [max(1.0, room * low / least) for _, low in words]
    return [math.floor(low + (room - least) * (width - low) / wish) for width, low in words]


def _least(column: Column, natural: float) -> float:
    """The narrowest that a column of words may be: its longest word, and not less than LEAST if it has more to say."""
    words = [word for first, _ in column.cells for word in re.split(r" |\\allowbreak\{\}|(?<=-)", first)]
    return min(natural, max([LEAST, *(width(word) + 2 for word in words)]))


def _natural(column: Column, pattern: str) -> float:
    head = 10.0 if column.is_upright else width(column.head)
    return max([head, *(_width(parts, pattern) for parts in column.cells)])


def _width(parts: Parts, pattern: str) -> float:
    first, second = width(parts[0]), width(f"{parts[1].replace('+', '±').replace('-', '±')}", SMALL_SIZE)
    return max(first, second) if pattern == BELOW else first + second + 2 * bool(second)


def width(text: str, size: float = SIZE) -> float:
    """The width of a text in LaTeX, on the safe side."""
    plain = re.sub(rf"\\{PREFIX}Letter\{{(.)\}}\{{\w*\}}", "U+MM\\1", text)  # wider where the code point is printed
    plain = re.sub(rf"\\{PREFIX}Yes\{{\}}|\\circ", "MM", plain)
    plain = re.sub(r"\\text(superscript|bf|it)|\\(allowbreak|ensuremath|scriptsize)|[{}\\$]|\\,", "", re.sub(r"\$[-+]\$|\\pm", "±", plain))
    return size * (BOLD if "\\textbf" in text else 1.0) * sum(WIDTH_OF.get(letter, OTHER) for letter in plain)


# --- pages ---------------------------------------------------------------------------------------------------------------------


def _pages(table: Table, layout: Layout) -> list[list[int]]:
    """The places of the rows of each float, as many as a page has room for."""
    is_narrow = layout.environment == "table"
    line = COLUMN if is_narrow else TEXT
    room = HEIGHT - FRAME - CAPTION_LINE * math.ceil(width(f"{table.title}{table.caption}", CAPTION_SIZE) / line)
    room -= sum(_note_height(note, line) for note in table.notes) + max(width(c.head) if c.is_upright else 0.0 for c in table.columns)
    rows = enumerate(table.rows)
    heights = [LINE * _num_lines(table, layout, place) + sum(_note_height(note, line) for note in row.notes) for place, row in rows]
    return places_by_room(heights, room)


def _note_height(note: str, line: float) -> float:
    return NOTE_LINE * width(note, SMALL_SIZE) / line


def _num_lines(table: Table, layout: Layout, place: int) -> int:
    """How many lines a row may take; a word that does not fit at a line's end leaves some of it empty."""
    cells = [column.cells[place] for column in table.columns]
    broken = [math.ceil(1.3 * width(first) / most) for (first, _), most in zip(cells, layout.widths, strict=True) if first]
    return max([1, *broken, *(2 for _, second in cells if second and layout.pattern == BELOW)])


def _of_rows(table: Table, places: Sequence[int]) -> Table:
    columns = [replace(column, cells=[column.cells[place] for place in places]) for column in table.columns]
    return replace(table, columns=columns, rows=[table.rows[place] for place in places])
