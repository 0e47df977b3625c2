"""The tables of arms in a terminal: one set of columns for all families, as many as fit."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from ablation.report.documents.terminal_text import Screen, aligned, filled, padded, short_names, widest
from ablation.report.metrics import MetricTable
from ablation.report.overview import Row
from ablation.report.overview.families import once, rivals
from ablation.report.statistics.best import has_same_seeds

GAP = "  "
NAMES_PART, LONGEST_HEADER = 5, 18  # a fifth of the width is for names, before columns are left out; cells
ON_TEST, BEST = " (T)", " *"


@dataclass(frozen=True)
class Section:
    """Arms under a title; `best` have the best mean of their family."""

    title: str
    rows: Sequence[Row]
    best: Collection[str] = ()


@dataclass(frozen=True)
class Layout:
    """What the columns show; a difference is an `interval`, a `mean` or left out."""

    has_sd: bool
    vs_parent: str
    vs_baseline: str
    has_verdict: bool = True


LAYOUTS = (  # from the widest to the narrowest
    Layout(has_sd=True, vs_parent="interval", vs_baseline="interval"),
    Layout(has_sd=True, vs_parent="interval", vs_baseline="mean"),
    Layout(has_sd=False, vs_parent="interval", vs_baseline="mean"),
    Layout(has_sd=False, vs_parent="interval", vs_baseline=""),
    Layout(has_sd=False, vs_parent="mean", vs_baseline="mean"),
    Layout(has_sd=False, vs_parent="mean", vs_baseline=""),
    Layout(has_sd=False, vs_parent="mean", vs_baseline="", has_verdict=False),
)


@dataclass(frozen=True)
class Column:
    """A header, and a cell for each arm."""

    header: str
    cells: Mapping[str, str]

    @property
    def width(self) -> int:
        """The cells that it takes."""
        return widest([self.header, *self.cells.values()])


@dataclass(frozen=True)
class Tables:
    """The sections in one set of columns; `extra`, a metric's header and the numbers of each arm, is shown beside `metric`."""

    sections: Sequence[Section]
    metric: str
    metrics: MetricTable
    screen: Screen
    extra: tuple[str, Mapping[str, str]] | None = None

    @property
    def rows(self) -> list[Row]:
        """The arms of all sections."""
        return [row for section in self.sections for row in section.rows]

    @property
    def best(self) -> set[str]:
        """The arms that have the best mean of the section in which they stand; a section's `best` may also name its parent elsewhere."""
        return {row.arm for section in self.sections for row in section.rows if row.arm in section.best}

    def blocks(self) -> list[list[Text]]:
        """What the numbers are, and a block of lines for each section."""
        wanted = min(self.screen.width // NAMES_PART, widest([row.arm + ON_TEST * row.is_on_test for row in self.rows]))
        laid_out = [self.columns(layout) for layout in LAYOUTS]
        columns = next((found for found in laid_out if self.room(found) >= wanted), laid_out[-1])
        names, titles = self.names(self.room(columns)), self.titles(self.room(columns))
        width = max(len(GAP) + widest(list(names.values())), widest(titles))
        return [self.caption(columns), *(_block(*part, columns, names, width) for part in zip(titles, self.sections, strict=True))]

    def titles(self, room: int) -> list[str]:
        """The titles of the sections, which stand above the names."""
        short = short_names(list(dict.fromkeys(section.title for section in self.sections)), len(GAP) + room)
        return [self.screen.letters(short[section.title]) for section in self.sections]

    def names(self, width: int) -> dict[str, str]:
        """The arms as they are shown, with a mark where one was chosen on the test items."""
        is_marked = any(row.is_on_test for row in self.rows)
        short = short_names([row.arm for row in self.rows], width - len(ON_TEST) * is_marked)
        return {row.arm: self.screen.letters(short[row.arm]) + ON_TEST * row.is_on_test for row in self.rows}

    def room(self, columns: Sequence[Column]) -> int:
        """The cells that these columns leave for names."""
        return self.screen.width - len(GAP) - sum(len(GAP) + column.width for column in columns)

    # --- columns -----------------------------------------------------------------------------------------------------------------

    def columns(self, layout: Layout) -> list[Column]:
        """The columns of a layout that are not empty."""
        found = [
            ("runs", self.counts()),
            (self.title(self.metric), self.values(layout)),
            *([(self.title(self.extra[0]), aligned([self.extra[1][row.arm] for row in self.rows]))] if self.extra else []),
            *(self.differences(role, form) for role, form in (("parent", layout.vs_parent), ("baseline", layout.vs_baseline)) if form),
            ("verdict", [row.verdict if layout.has_verdict else "" for row in self.rows]),
        ]
        return [self.column(header, cells) for header, cells in found if any(cell.strip() for cell in cells)]

    def column(self, header: str, cells: Sequence[str]) -> Column:
        """The cells by arm, in letters that can be shown."""
        shown = [self.screen.letters(cell) for cell in cells]
        return Column(self.screen.letters(header), {row.arm: cell for row, cell in zip(self.rows, shown, strict=True)})

    def title(self, metric: str) -> str:
        """The metric's title, shortened."""
        return next(iter(short_names([self.metrics.title(metric)], LONGEST_HEADER).values()))

    def counts(self) -> list[str]:
        """`2/3` where runs are missing anywhere; `3` where arms only have different numbers of them."""
        if any(not row.is_complete for row in self.rows):
            return [f"{row.n}/{row.planned}" for row in self.rows]
        is_even = all(row.planned == row.most_planned for row in self.rows)
        return ["" if is_even else str(row.n) for row in self.rows]

    def values(self, layout: Layout) -> list[str]:
        """`97.21 ± 0.39`, with a star where it is the best of its family."""
        best = self.best
        texts = aligned([self.metrics.value(self.metric, row.mean, row.sd if layout.has_sd else math.nan) for row in self.rows])
        return [text + BEST * (row.arm in best) for text, row in zip(texts, self.rows, strict=True)]

    def differences(self, role: str, form: str) -> tuple[str, list[str]]:
        """The header and the cells of the differences to the parent or the baseline."""
        pairs = [row.vs_parent if role == "parent" else row.vs_baseline for row in self.rows]
        cells = [self.difference(pair, form) if pair.get("pairs") else "" for pair in pairs]
        few = [_few(pair, row) for pair, row in zip(pairs, self.rows, strict=True)]
        header = f"vs {role}{' [95 %]' if any('[' in cell for cell in cells) else ''}"
        return header, [cell + mark for cell, mark in zip(aligned(cells), few, strict=True)]

    def difference(self, pair: Mapping[str, float], form: str) -> str:
        """`+0.75 [-0.10, +1.60]`, or the mean alone."""
        return self.metrics.interval(self.metric, pair) if form == "interval" else self.metrics.difference(self.metric, pair["mean"])

    def caption(self, columns: Sequence[Column]) -> list[Text]:
        """What the numbers are."""
        unit = self.metrics.unit(self.metric)
        has_sd = any("±" in cell for column in columns for cell in column.cells.values())
        shared = "" if has_same_seeds(rivals(once(self.rows))) else " over the seeds that its complete arms share"
        star = f"* {'lowest' if self.metrics.is_lower_better(self.metric) else 'highest'} mean of its family{shared}"
        parts = [
            f"{self.metrics.words(self.metric)}{f' in {unit.values}' if unit.values else ''}{', mean ± sd' if has_sd else ''}",
            f"differences{f' in {unit.differences}' if unit.differences else ''}" if any(row.vs_parent for row in self.rows) else "",
            "verdicts against the parent" if any(row.verdict for row in self.rows) else "",
            star if self.best else "",
            "(T) chosen on the test items, so too good" if any(row.is_on_test for row in self.rows) else "",
        ]
        words = self.screen.letters("; ".join(filter(None, parts))).split()
        return [Text(line, "dim") for line in filled(words, self.screen.width)]


def _few(pair: Mapping[str, float], row: Row) -> str:
    """` (8 of 9)` where a difference has fewer pairs than the arms have seeds."""
    pairs = pair.get("pairs", 0)
    return f" ({pairs} of {row.most_planned})" if 0 < pairs < row.most_planned else ""


def _block(title: str, section: Section, columns: Sequence[Column], names: Mapping[str, str], width: int) -> list[Text]:
    header = _line(title, [padded(column.header, column.width) for column in columns], width)
    cells = {row.arm: [padded(column.cells[row.arm], column.width) for column in columns] for row in section.rows}
    return [Text(header, "bold"), *(Text(_line(GAP + names[arm], found, width)) for arm, found in cells.items())]


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return GAP.join([padded(name, width), *cells]).rstrip()
