"""The patterns by which numbers are found in what is printed: regular expressions, in which {number} stands for any number."""

import re
from collections.abc import Iterator
from functools import cached_property

NUMBER = "{number}"
NO_NUMBER = r"(?:[+-]?(?i:nan|inf(?:inity)?)|(?i:n/a|none|null))(?!\w)"  # as programs print a number that they do not have
ANY_NUMBER = rf"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|{NO_NUMBER})"
GOES_ON = re.compile(r"\.?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|[eE][+-]?\d+")  # after a number of which a pattern took the beginning
UNIT = re.compile(r"[kKMGT](?![^\W_])|[_'’]\d+")  # which multiplies the number, unless the pattern names it; or digits after a mark
BEGINS = re.compile(r"(?:\d[\d.,]*|(?<![^\s:=(,;])[+\-\u2212.]+)$")  # before a number of which a pattern took the end
DECIMALS = re.compile(r",\d+(?![\d.])")  # after a comma, as in German, unless the pattern names it
WHOLE = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)")  # what such decimals follow; in German a point marks thousands
THOUSANDS = re.compile(r"(?:,\d{3})+(?!\d)(?:\.\d+)?")
PARTS = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|( +)|(\((?!\?)|\(\?P<\w+>)|(\()|(\))", re.DOTALL)  # set, blanks, group, parentheses


class Expression:
    """A pattern of a study's file, with the one number that it finds in a line."""

    def __init__(self, written: str) -> None:
        self.written = written
        self._pattern = compiled(written)

    def find(self, line: str) -> Iterator[tuple[str, str]]:
        """What the group took, and the number of which that is the beginning, or the same; a NaN or a `n/a` counts as a number."""
        found = [*self._pattern.finditer(line), *(self._unusual.finditer(line) if self._unusual else ())]
        taken = dict[int, re.Match[str]]()
        for match in sorted(found, key=lambda match: (match.start(), match.start(1))):
            taken.setdefault(match.start(), match)
        for match in taken.values():
            text = match[1] or ""
            rest = _rest(text, line[match.end(1) :]) if text else ""
            rest = rest or (_unnamed_rest(text, line[match.end(1) :]) if match.end() == match.end(1) else "")
            yield text, (_before(text, line[: match.start(1)]) + text + rest) if text else ""

    @cached_property
    def _unusual(self) -> re.Pattern[str] | None:
        """The pattern with NaN, infinity and the like in its group's place; None where {number} stands for them already."""
        span = None if NUMBER in self.written else _group(self.written)
        try:
            return re.compile(f"{self.written[: span[0]]}({NO_NUMBER}){self.written[span[1] :]}") if span else None
        except re.error:  # such as a group that is referred to by its name
            return None


def compiled(written: str) -> re.Pattern[str]:
    """The regular expression; raises ValueError with what was expected instead."""
    try:
        pattern = re.compile(_with_numbers(written) if NUMBER in written else written)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    if pattern.groups != 1:
        raise ValueError(f"a regular expression with one group or one {NUMBER}, such as 'loss {NUMBER}', not {pattern.groups}")
    if pattern.search(""):
        raise ValueError("a pattern that needs some text; its pattern can match nothing")
    return pattern


def _with_numbers(written: str) -> str:
    """The expression with a group for each {number}, and with blanks for any run of blanks."""
    return PARTS.sub(lambda part: r"\s+" if part[2] else part[0], written).replace(NUMBER, ANY_NUMBER)


def _group(written: str) -> tuple[int, int] | None:
    """Where the one group begins and ends."""
    begin, depth = -1, 0
    for part in PARTS.finditer(written):
        if part[3] and begin < 0:
            begin, depth = part.start(), 0
        depth += bool(part[3] or part[4]) - bool(part[5])
        if begin >= 0 and part[5] and depth == 0:
            return begin, part.end()
    return None


def _before(text: str, before: str) -> str:
    """How a number begins before what was taken of it: digits, a sign or a point, or thousands; "" where it was taken whole."""
    begin = BEGINS.search(before) if text[0].isdigit() or text[0] == "." else None
    if begin and begin[0].endswith(",") and not re.match(r"\d{3}(?!\d)", text):
        return ""
    return begin[0] if begin else ""


def _unnamed_rest(text: str, after: str) -> str:
    """The unit or the decimals that follow a number, where the pattern ends; "" where none do."""
    rest = UNIT.match(after) if text[-1:].isdigit() else None
    rest = rest or (DECIMALS.match(after) if WHOLE.fullmatch(text) else None)
    return rest[0] if rest else ""


def _rest(text: str, after: str) -> str:
    """How a number goes on after what was taken of it; "" where it was taken whole."""
    if not text[-1].isdigit() and text[-1] != ".":
        return ""
    rest = GOES_ON.match(after) or (THOUSANDS.match(after) if re.fullmatch(r"[+-]?\d{1,3}", text) else None)
    return rest[0] if rest else ""
