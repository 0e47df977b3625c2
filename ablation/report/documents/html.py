"""The report as one self-contained HTML page, with the same sections as the Markdown document."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

from ablation.report.sections import Content
from ablation.report.sections.section import Section

LARGEST_SVG = 300_000  # bytes; beyond, a PNG is smaller and faster to show
VERDICTS = {
    "better": "better",
    "worse": "worse",
    "no difference": "equal",
    "inconclusive": "inconclusive",
    "same training": "same",
    "not comparable": "same",
    "seed without effect": "same",
}
WIDE = ("change", "run", "reason", "setting", "from → to")  # columns whose words need a line of their own on a narrow screen
FEW_COLUMNS = 6  # so many have room for whole intervals
RUNS = "runs"  # the anchor of the section with one row per run


@dataclass(frozen=True)
class Part:
    """A section in HTML: its anchor, its heading and text, its folded parts, and the figure beside the text."""

    anchor: str
    heading: Markup
    body: Markup
    details: tuple["Part", ...]
    figure: Markup


def page(content: Content, sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """The whole page. `images` has the bytes of each picture by the path in the Markdown, and of the SVGs next to PNGs."""
    renderer = Renderer([arm["name"] for arm in content.plan["arms"]], images)
    parts = [renderer.part(section) for section in sections]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(study=" ".join(content.study.split()), parts=parts) + "\n"


class Renderer:
    """Turns sections into HTML, and remembers which anchors are taken."""

    def __init__(self, arms: Sequence[str], images: Mapping[str, bytes]) -> None:
        self.images = images
        self.anchors: set[str] = set()
        self.arms = {_plain(arm): self._anchor(f"run-{arm}") for arm in arms}
        self.without_row = set(self.arms)

    def part(self, section: Section) -> Part:
        """The section, and those within it, in HTML."""
        heading = self.parser.parseInline(section.title)
        anchor = self._anchor(_text_of(heading))
        tokens, figure = (self.parser.parse(text) for text in (section.body, section.figure))
        self._headings(tokens)
        for pictured in (tokens, figure):
            self._pictures(pictured)
        for table in tables(tokens, label=_text_of(heading)):
            self._cells(table, is_runs=anchor == RUNS)
        body, title, beside = (Markup(self.parser.renderer.render(inline, self.parser.options, {})) for inline in (tokens, heading, figure))
        return Part(anchor, title, body, tuple(self.part(detail) for detail in section.details), beside)

    @cached_property
    def parser(self) -> "Parser":
        """Markdown with tables, without HTML, and with links to this page only."""
        parser = Parser(self.images)
        parser.add_render_rule("table_open", _table_open)
        parser.add_render_rule("table_close", _table_close)
        parser.add_render_rule("text", _text)
        return parser

    def _anchor(self, text: str) -> str:
        """An anchor for a heading, as GitHub makes it, with a number if it is taken."""
        start = slug(text) or "section"
        anchor = next(
            name for number in range(len(self.anchors) + 1) if (name := f"{start}-{number}" if number else start) not in self.anchors
        )
        self.anchors.add(anchor)
        return anchor

    def _headings(self, tokens: Sequence[Token]) -> None:
        for token, inline in pairwise(tokens):
            if token.type == "heading_open":
                token.attrSet("id", self._anchor(_text_of([inline])))

    def _pictures(self, tokens: Sequence[Token]) -> None:
        """Replace the paths of pictures by the pictures themselves."""
        for picture in (child for token in tokens for child in token.children or () if child.type == "image"):
            picture.attrSet("src", data_uri(str(picture.attrGet("src")), self.images))

    def _cells(self, table: "Table", *, is_runs: bool) -> None:
        """Link an arm's number of runs to its first row in the table of runs."""
        for row in table.rows:
            arm = self._arm(row.cells[0].text) if table.header[:1] == ["arm"] else ""
            if is_runs and arm in self.without_row:
                row.token.attrSet("id", self.arms[arm])
                self.without_row.remove(arm)
            for link in (child for cell in row.cells for child in cell.children if child.type == "link_open"):
                if arm and link.attrGet("href") == f"#{RUNS}":
                    link.attrSet("href", f"#{self.arms[arm]}")

    def _arm(self, cell: str) -> str:
        """The arm that a cell names, with or without its label in brackets."""
        return cell if cell in self.arms else max((arm for arm in self.arms if cell.startswith(f"{arm} (")), key=len, default="")


class Parser(MarkdownIt):
    """Markdown without links or pictures from outside the page."""

    def __init__(self, images: Mapping[str, bytes]) -> None:
        super().__init__("commonmark", {"html": False})
        self.enable("table")
        self.images = images

    def validateLink(self, url: str) -> bool:
        """Whether the link stays in the page or is a picture in it; any other link stays text."""
        return url.startswith("#") or bool(stored(url, self.images))


@dataclass(frozen=True)
class Cell:
    """A table's cell: its opening token, and what is in it."""

    token: Token
    children: Sequence[Token]

    @cached_property
    def text(self) -> str:
        """What a reader sees."""
        return _plain(_text_of(self.children))

    def mark(self, column: str, *, is_roomy: bool) -> None:
        """Set class names instead of styles: `number`, `verdict` and its kind, and `wide` where a cell needs a line of its own.

        A cell of the body has the title of its column as a label, for screens on which a row is a card.
        """
        is_number = "right" in str(self.token.attrs.pop("style", ""))
        verdict = next((name for words, name in VERDICTS.items() if re.match(rf"{words}\b", self.text)), "") if column == "verdict" else ""
        names = [*(["number"] if is_number and column != "verdict" else []), *(["verdict", verdict] if verdict else [])]
        names += ["wide"] if column in WIDE else []
        if names:
            self.token.attrSet("class", " ".join(names))
        if self.token.type == "td_open":
            self.token.attrSet("data-label", column)
        for child in (child for child in self.children if child.type == "text"):
            child.meta["is_breakable"] = not is_number
            child.content = unbroken(child.content) if is_number and is_roomy else child.content


@dataclass(frozen=True)
class Row:
    """A table's row."""

    token: Token
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """A table in a text: the words of its header, and its rows."""

    header: Sequence[str]
    rows: Sequence[Row]


def tables(tokens: Sequence[Token], label: str) -> Iterator[Table]:
    """The tables among the tokens; each gets the heading above it as its label."""
    opening = 0
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            label = _text_of([tokens[place + 1]])
        elif token.type == "table_open":
            opening = place
            token.meta["label"] = label
        elif token.type == "table_close":
            head, *rows = _rows(tokens[opening:place])
            columns = [cell.text for cell in head.cells]
            for row in (head, *rows):
                for cell, column in zip(row.cells, columns, strict=True):
                    cell.mark(column, is_roomy=len(columns) <= FEW_COLUMNS and "change" in columns)
            for cell in head.cells:
                cell.token.attrSet("scope", "col")
            tokens[opening].meta["is_many"] = len(columns) > FEW_COLUMNS
            yield Table(columns, rows)


def _rows(tokens: Sequence[Token]) -> list[Row]:
    rows: list[tuple[Token, list[Cell]]] = []
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append((token, []))
        elif token.type in ("th_open", "td_open"):
            rows[-1][1].append(Cell(token, tokens[place + 1].children or []))
    return [Row(token, cells) for token, cells in rows]


def unbroken(text: str) -> str:
    """The text with its numbers kept together: `97.21 ± 0.59` and `[-0.10, +1.60]` are on one line each."""
    return re.sub(r"(?<=,) (?=[+-]?\d)|(?<=\d) (?=±)|(?<=±) (?=\d)", "\N{NO-BREAK SPACE}", text)


def slug(text: str) -> str:
    """The text as an anchor: lower case, words joined by hyphens, nothing but letters, digits, `_` and `-`."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text.lower()).strip())


def _text_of(tokens: Sequence[Token]) -> str:
    """The words of inline tokens, without their marks."""
    return "".join(_text_of(token.children) if token.children else token.content for token in tokens if token.type != "html_inline")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _text(renderer: Any, tokens: Sequence[Token], place: int, options: object, environment: object) -> str:
    """The text; in a cell of words, names may go on in the next line after `_`, `/` and a dot, and not elsewhere."""
    words = str(escape(tokens[place].content))
    return re.sub(r"(?<=\w[_/.])(?=[A-Za-z])", "<wbr>", words) if tokens[place].meta.get("is_breakable") else words


def _table_open(renderer: Any, tokens: Sequence[Token], place: int, options: object, environment: object) -> str:
    label = escape(f"Table: {tokens[place].meta['label']}")
    many = ' class="many"' if tokens[place].meta.get("is_many") else ""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table{many}>\n'


def _table_close(renderer: Any, tokens: Sequence[Token], place: int, options: object, environment: object) -> str:
    return "</table></div>\n"


def stored(path: str, images: Mapping[str, bytes]) -> str:
    """The name of the picture to use: the SVG if there is one that is not too large, otherwise the path itself; "" if there is none."""
    vector = str(PurePosixPath(path).with_suffix(".svg")) if path.endswith(".png") else path
    if len(images.get(vector, bytes(LARGEST_SVG + 1))) <= LARGEST_SVG:
        return vector
    return path if path in images else ""


def data_uri(path: str, images: Mapping[str, bytes]) -> str:
    """The picture as a data URI."""
    name = stored(path, images)
    kind = "svg+xml" if name.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(images[name]).decode('ascii')}"
