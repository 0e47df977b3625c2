"""Numbers out of what an untouched script prints: the last match of a metric's pattern, and curves while it runs."""

import math
import re
from collections.abc import Iterator, Mapping

from ablation.errors import TrainingError
from ablation.tasks.own.definition import STEP, Definition
from ablation.tasks.own.expressions import Expression
from ablation.tasks.own.handle import MAX_STEP

ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
LONGEST = 20_000  # letters of a line in which a pattern is looked for

Values = dict[str, float]


class Lines:
    """Whole lines out of pieces of output; a carriage return ends one too, as a progress bar writes it."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[str]:
        """The lines that end in this piece."""
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + data)
        if len(self._rest) > 8 * LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        yield from filter(None, map(_text, lines))

    def end(self) -> Iterator[str]:
        """What was printed after the last end of a line."""
        rest, self._rest = self._rest, b""
        yield from filter(None, [_text(rest)])


def _text(line: bytes) -> str:
    """The line without colours; of a very long one its beginning and its end, between which no pattern matches."""
    text = ANSI.sub("", line.decode("utf-8", "replace"))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]}\n{text[-LONGEST // 2 :]}"


class Printed:
    """What patterns found so far: `metrics` as texts, by name, the last match of each; `cut` has the numbers of which one took a part."""

    def __init__(self, metrics: Mapping[str, str], curves: Mapping[str, str]) -> None:
        self.metrics: dict[str, str] = {}
        self.cut: dict[str, str] = {}
        self.notes: dict[str, None] = {}
        self._patterns = {name: Expression(pattern) for name, pattern in metrics.items()}
        self._step = Expression(curves[STEP]) if STEP in curves else None
        self._curves = {name: Expression(pattern) for name, pattern in curves.items() if name != STEP}
        self._count = dict.fromkeys(self._curves, 0)
        self._current = 0
        self._numbered_by = ""

    def go_on(self, num_points: Mapping[str, int]) -> None:
        """Number the points after those that earlier attempts have, by curve, where no step does."""
        if self._step is not None:
            return
        for name in self._count:
            if num_points.get(name):
                self._count[name] = num_points[name]
                found = f"the run was stopped and went on; the points of the curve {name} are numbered as they came"
                self.notes[f"{found}, those that were printed twice too: a pattern for {STEP} in curves numbers them itself"] = None

    def see(self, line: str, stream: str = "") -> list[tuple[int, Values]]:
        """Take a line, and return the points of curves in it: (step, values).

        The step's pattern numbers what is found in its line and after it; without one, each curve counts its own matches.
        """
        for name, pattern in self._patterns.items():
            for text, whole in pattern.find(line):
                self._take(name, text, whole)
        for text, whole in self._step.find(line) if self._step else ():
            number = self._number(STEP, text)
            if number is not None and whole == text and number.is_integer() and abs(number) <= MAX_STEP:
                self._current, self._numbered_by = int(number), stream
            elif number is not None:
                odd = f"the pattern of the curve {STEP} matched {whole}, which is no whole number below 2**53"
                self.notes[f"{odd}; points after it keep the step before"] = None
        points = [point for name, pattern in self._curves.items() for point in self._points(name, pattern, line)]
        if points and self._numbered_by not in ("", stream):
            names = ", ".join(dict.fromkeys(name for _, values in points for name in values))
            odd = f"{STEP} and {names} were printed to different streams"
            self.notes[f"{odd}, so that a point may have the number of the step before it or after it"] = None
        return points

    def check(self, definition: Definition) -> None:
        """Raise TrainingError for a metric of which a pattern took only the beginning."""
        for name, whole in self.cut.items():
            found = f"its pattern '{definition.sources[name].pattern}' matched {self.metrics[name]} of {whole}"
            raise TrainingError(
                "data", f"{definition.shown(name)}: {found}; expected the whole number, which {{number}} in a pattern takes"
            )

    def _take(self, metric: str, text: str, whole: str) -> None:
        self.metrics[metric] = text
        self.cut.pop(metric, None)
        if whole != text:
            self.cut[metric] = whole

    def _points(self, name: str, pattern: Expression, line: str) -> Iterator[tuple[int, Values]]:
        for text, whole in pattern.find(line):
            if whole != text:
                self.notes[f"the pattern of the curve {name} took {text} of {whole}, which is left out; {{number}} takes all of it"] = None
            elif (number := self._number(name, text)) is not None:
                self._count[name] += 1
                yield (self._current if self._step else self._count[name]), {name: number}

    def _number(self, name: str, text: str | None) -> float | None:
        """The matched text as a finite number; a note says so where it is none."""
        number = number_in(text)
        if number is None or not math.isfinite(number):
            self.notes[f"the pattern of the curve {name} matched what is no finite number, which is left out"] = None
            return None
        return number


def number_in(text: str | None) -> float | None:
    """A text as a number; None if it is none."""
    try:
        return float((text or "").strip())
    except ValueError:
        return None
