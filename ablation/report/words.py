"""How numbers, settings and names are put into a Markdown document."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "–"


def change_words(change: Mapping[str, Sequence[Any]]) -> list[str]:
    """What an arm sets, shortly: `mix mixup`, `mix.alpha 0.4`; fields that left with the technique they belonged to are not told."""
    renamed = tuple(path.removesuffix("name") for path in change if path.endswith(".name"))
    words = []
    for path in sorted(change, key=lambda path: not path.endswith(".name")):
        new = change[path][1]
        if path.endswith(".name"):
            words.append(_setting_of(path.removesuffix(".name"), new))
        elif new is not None:
            words.append(_setting_of(path, new))
        elif not path.startswith(renamed):
            words.append(f"no {path}")
    return words


def _setting_of(path: str, value: object) -> str:
    """`mix mixup`, and with a colon where the value is a phrase: `posthoc.tau: the best of 0.5, 1.0 by val/nll`."""
    return f"{path}: {value}" if isinstance(value, str) and " " in value else f"{path} {setting(value)}"


def setting(value: object) -> str:
    """A setting's value as the file would have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def percent(mean: float, sd: float = math.nan) -> str:
    """`84.22 ± 0.31`, without the ± where there is no sd, and a dash where there is no number."""
    return number(100 * mean, 100 * sd)


def points(mean: float, sd: float = math.nan) -> str:
    """`+0.75 ± 0.10`, and a dash where there is no number."""
    return change(mean, sd)


def number(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """`0.512 ± 0.004`, without the ± where there is no sd, and a dash where there is no number."""
    return f"{mean:.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def change(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """`+0.012 ± 0.004`: the same with a sign, and never a negative zero."""
    return f"{round(mean, decimals) + 0.0:+.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def escaped(text: object) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would take for its own."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, padded so that it also reads well as text; the first `left` columns are words, the rest numbers."""
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]
    ruler = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([_line(header, widths, left), _line(ruler, widths, left), *(_line(row, widths, left) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = (
        cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _plus_minus(sd: float, decimals: int) -> str:
    return f" ± {sd:.{decimals}f}" if math.isfinite(sd) else ""
