"""Names in the room that there is for them: cut inside, and never so that two that differ look alike."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count

from ablation.report.figures import style

CUT = "…"
SHORTEST = 3  # letters; a name of so many is not cut
Fits = Callable[[str, str], bool]  # whether what is left of a name fits where the name stands


def one_line(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def cut(names: Sequence[str], longest: int) -> list[str]:
    """Each name on one line, in at most so many letters."""
    return _cut([one_line(name) for name in names], lambda _, text: len(text) <= longest)


def fitted(names: Sequence[str], size: float, rooms: Sequence[float]) -> list[str]:
    """Each name on one line, in its room in inches."""
    lines = [one_line(name) for name in names]
    narrowest: dict[str, float] = {}
    for line, room in zip(lines, rooms, strict=True):
        narrowest[line] = min(room, narrowest.get(line, room))
    return _cut(lines, lambda line, text: style.text_width(text, size) <= narrowest[line])


def filled(text: str, size: float, room: float) -> list[str]:
    """The text in lines of that many inches; a word that is wider has a line for itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and style.text_width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(lines: Sequence[str], fits: Fits) -> list[str]:
    """The names cut at or near their middle. No two are alike, and none could be what is left of another one."""
    names = list(dict.fromkeys(lines))
    found = {name: name for name in names if len(name) <= SHORTEST or fits(name, name)}
    for name in (name for name in names if name not in found):
        taken, others = {*names, *found.values()}, [other for other in names if other != name]
        texts = (text for text in _cuts(name, others, fits) if text not in taken)
        found[name] = next(chain(texts, _numbered(name, taken, fits)))
    return [found[line] for line in lines]


def _cuts(name: str, others: Sequence[str], fits: Fits) -> Iterator[str]:
    """The longest cuts that fit and that could be of no other name, those near the middle first."""
    for kept in range(_most_kept(name, fits), 1, -1):
        parts = [(name[:head], name[len(name) - kept + head :]) for head in _heads(kept)]
        clear = [(head, tail) for head, tail in parts if not any(_may_be_of(other, head, tail) for other in others)]
        if not clear:  # what is shorter is no clearer
            return
        texts = [f"{head}{CUT}{tail}" for head, tail in clear]
        yield from (text for text in texts if kept == 2 or fits(name, text))


def _most_kept(name: str, fits: Fits) -> int:
    """How many letters can be kept where the middle is cut out; two at least."""

    def is_too_long(kept: int) -> bool:
        return not fits(name, f"{name[: (kept + 1) // 2]}{CUT}{name[len(name) - kept // 2 :]}")

    return 2 + bisect_left(range(3, len(name)), True, key=is_too_long)


def _heads(kept: int) -> list[int]:
    """How many of the letters that are kept are before the cut, half of them first."""
    return sorted(range(1, kept), key=lambda head: abs(head - (kept + 1) // 2))


def _may_be_of(name: str, head: str, tail: str) -> bool:
    return len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)


def _numbered(name: str, taken: set[str], fits: Fits) -> Iterator[str]:
    """The beginning and a number, for names that differ only inside."""
    for digits in count(1):
        beginning = _beginning(name, f"{CUT}#{'0' * digits}", fits)
        texts = (f"{beginning}{CUT}#{number}" for number in range(10 ** (digits - 1), 10**digits))
        yield from (text for text in texts if text not in taken)


def _beginning(name: str, end: str, fits: Fits) -> str:
    """The longest beginning, a letter at least, that fits with the end behind it."""

    def is_too_long(kept: int) -> bool:
        return not fits(name, f"{name[:kept]}{end}")

    return name[: max(1, bisect_left(range(1, len(name)), True, key=is_too_long))]
