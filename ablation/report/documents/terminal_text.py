"""How text fits a terminal: widths in cells, names shortened without becoming ambiguous, aligned numbers, lines that do not wrap.

A wide East Asian letter takes two cells, a combining mark none.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise, zip_longest

from rich.cells import cell_len, chop_cells

WIDTH, NARROWEST = 100, 60  # columns: at most, and the fewest that a table needs
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
PLAIN_LETTERS = {"±": "+/-", "…": "~", "–": "-", "→": "->", "·": "|"}  # for encodings that lack them


@dataclass(frozen=True)
class Screen:
    """What is written on: its columns, and the encoding of its letters."""

    width: int = WIDTH
    encoding: str = "utf-8"

    def letters(self, text: str) -> str:
        """The text, with other signs for those that the encoding lacks."""
        for letter, plain in PLAIN_LETTERS.items():
            if letter in text and not self._has(letter):
                text = text.replace(letter, plain)
        return text

    def _has(self, letter: str) -> bool:
        try:
            letter.encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True


# --- names ---------------------------------------------------------------------------------------------------------------------


def short_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Each name in at most `width` cells, at least 6, shortened in the middle; no two are alike, and none could mean another name."""
    width = max(6, width)
    found = {name: name if cell_len(name) <= width else "" for name in names}
    for name in (name for name, short in found.items() if not short):
        others, taken = [other for other in names if other != name], {*found.values(), *names}
        cuts = (f"{head}…{tail}" for head, tail in _cuts(name, width) if not any(_may_mean(head, tail, other) for other in others))
        found[name] = next(short for short in chain(cuts, _numbered(name, width)) if short not in taken)
    return found


def _cuts(name: str, width: int) -> Iterator[tuple[str, str]]:
    """The name's beginning and end with one cut at each place, the middle first."""
    room = width - 1
    for cells in sorted(range(1, room), key=lambda cells: abs(2 * cells - room)):
        head, tail = _beginning(name, room - cells), _end(name, cells)
        if cell_len(f"{head}…{tail}") <= width:
            yield head, tail


def _may_mean(head: str, tail: str, name: str) -> bool:
    return len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)


def _beginning(text: str, cells: int) -> str:
    """The longest beginning in so many cells."""
    return next(text[:length] for length in range(min(len(text), 2 * cells), -1, -1) if cell_len(text[:length]) <= cells)


def _end(text: str, cells: int) -> str:
    """The longest end in so many cells."""
    return next(text[start:] for start in range(max(0, len(text) - 2 * cells), len(text) + 1) if cell_len(text[start:]) <= cells)


def _numbered(name: str, width: int) -> Iterator[str]:
    """The beginning and a number, for names that differ only inside."""
    for number in count(1):
        yield f"{_beginning(name, max(1, width - 2 - len(str(number))))}…#{number}"


# --- cells and lines -----------------------------------------------------------------------------------------------------------


def padded(text: str, width: int) -> str:
    """The text, filled up with spaces on the right."""
    return text + " " * (width - cell_len(text))


def widest(texts: Sequence[str]) -> int:
    """The cells of the widest text."""
    return max(map(cell_len, texts), default=0)


def aligned(cells: Sequence[str]) -> list[str]:
    """The cells with their first, second, third numbers below each other; all have one number of decimals."""
    numbers = [NUMBER.findall(cell) or ([cell] if cell.strip() else []) for cell in cells]
    widths = [widest(column) for column in zip_longest(*numbers, fillvalue="")]
    lined = [_lined(cell, found, widths) for cell, found in zip(cells, numbers, strict=True)]
    return [padded(cell, widest(lined)) for cell in lined]


def _lined(cell: str, numbers: Sequence[str], widths: Sequence[int]) -> str:
    parts, rest = [], cell
    for number, width in zip(numbers, widths, strict=False):
        before, _, rest = rest.partition(number)
        parts.append(before + " " * (width - cell_len(number)) + number)
    return "".join(parts) + rest


def filled(items: Sequence[str], width: int, first: str = "", rest: str = "", between: str = " ") -> list[str]:
    """The items in lines of at most `width` cells; the lines begin with `first` and `rest`. Only what is wider than a line is cut."""
    end = len(between.rstrip())
    room = width - max(cell_len(first), cell_len(rest)) - end
    lines, start = [""], first
    for part in (part for item in items for part in _cut(item, room)):
        longer = f"{lines[-1]}{between}{part}" if lines[-1] else start + part
        if lines[-1] and cell_len(longer) + end > width:
            lines[-1] = f"{lines[-1]}{between}".rstrip()
            longer, start = rest + part, rest
            lines.append("")
        lines[-1] = longer
    return lines


def _cut(item: str, width: int) -> list[str]:
    return [item] if cell_len(item) <= width else chop_cells(item, max(2, width))


def command_in(command: str, width: int, indent: str = "  ") -> list[str]:
    """A command in lines that a shell reads as one, broken before its options; only an option that is too long is wider."""
    words = [shlex.quote(word) for word in shlex.split(command)]
    starts = [0, *(place for place, word in enumerate(words) if word.startswith("--")), len(words)]
    options = [" ".join(words[start:end]) for start, end in pairwise(starts)]
    lines = [indent + options[0]]
    for option in options[1:]:
        if cell_len(f"{lines[-1]} {option} \\") <= width:
            lines[-1] += f" {option}"
        else:
            lines.append(f"{indent}{indent}{option}")
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]
