"""How numbers, settings and names are written, wherever they are shown. Needs the standard library only."""

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

DASH = "–"
IRREGULAR = ("mouse", "child", "man", "woman", "foot", "tooth", "leaf", "datum")  # names of groups that take no s
WIDTH = 100  # letters of a line in the terminal, at most


# --- numbers -----------------------------------------------------------------------------------------------------------------


def number(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """`0.512 ± 0.004`, without the ± if there is no sd; a dash if there is no number."""
    return f"{mean:.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def percent(mean: float, sd: float = math.nan) -> str:
    """Two fractions in percent: `84.22 ± 0.31`, without the ± if there is no sd; a dash if there is no number."""
    return number(100 * mean, 100 * sd)


def change(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """A number with its sign, never a negative zero: `+0.012 ± 0.004`."""
    return f"{round(mean, decimals) + 0.0:+.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def _plus_minus(sd: float, decimals: int) -> str:
    return f" ± {sd:.{decimals}f}" if math.isfinite(sd) else ""


def interval(mean: float, low: float, high: float, decimals: int = 2) -> str:
    """A difference and its interval, if there is one: `+0.75 [-0.10, +1.60]`."""
    difference = change(mean, decimals=decimals)
    bounds = f" [{change(low, decimals=decimals)}, {change(high, decimals=decimals)}]"
    return difference + bounds if math.isfinite(mean) and math.isfinite(low) and math.isfinite(high) else difference


def p_value(p: float) -> str:
    """`0.031` or `<0.001`; a dash if there was no test."""
    if not math.isfinite(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """`1 arm`, `2 arms`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def counted_groups(count: int, name: str) -> str:
    """So many of what a column or pattern names: `301 patients`, `1 patient`, or `301 values of 患者` of a name without a plural here."""
    is_plain = re.fullmatch(r"[A-Za-z]+", name) and name.lower() not in IRREGULAR and not name.lower().endswith(("is", "us"))
    if not is_plain:
        return f"{count:,} {'value' if count == 1 else 'values'} of {name}"
    plural = re.sub(r"(?<=[^aeiou])y$", "ie", name) + ("es" if name.endswith(("x", "ch", "sh", "ss")) else "s")
    return f"{count:,} {name if count == 1 or re.search('[^s]s$', name) else plural}"


def cluster_words(clusters: Mapping[str, object]) -> str:
    """`301 patients, none in two splits`: the groups of images that a plan or an account has; empty if there are none."""
    if not clusters:
        return ""
    parts, shared = (sum(int(str(clusters[split])) for split in ("train", "validation", "test")), int(str(clusters["shared"])))
    number = int(str(clusters.get("all", parts - shared)))  # older plans have no such number; none of their groups is in three splits
    return f"{counted_groups(number, str(clusters['name']))}, {shared or 'none'} in two splits"


def ranges(numbers: Sequence[int]) -> str:
    """`0-2, 5`: consecutive numbers become a range."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """`3.2 GB`, `120 MB`, `14 kB`; a kB is the least that is not nothing."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    if num_bytes >= 1e6:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{max(min(1, round(num_bytes)), round(num_bytes / 1e3))} kB"


# --- settings ----------------------------------------------------------------------------------------------------------------


def setting(value: object) -> str:
    """A setting's value as it is written in a study's file: words and numbers as they are, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def worded(value: object) -> str:
    """A setting's value as it is written in a study's file, with every digit of a number."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- names -------------------------------------------------------------------------------------------------------------------


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def shortened(items: Sequence[str], most: int = 6) -> str:
    """`a, b, c and 12 more`."""
    rest = [f"{len(items) - most} more"] if len(items) > most else []
    return listed([*items[:most], *rest])


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and the rest unchanged; a path such as val/loss stays as it is."""
    return text if "/" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def escaped(text: object) -> str:
    """The text on one line, with everything escaped that Markdown or HTML would interpret."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)


# --- lines -------------------------------------------------------------------------------------------------------------------


def wrapped(text: str, indent: int = 0, most: int = 0) -> list[str]:
    """The text in lines of at most WIDTH letters, those after the first indented; at most so many, if a number is given."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
    return lines if not most or len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: WIDTH - 6]} [...]"]


# --- tables ------------------------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, padded so that it also reads well as plain text. The first `left` columns are words, the rest numbers."""
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]
    ruler = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([_line(header, widths, left), _line(ruler, widths, left), *(_line(row, widths, left) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = (
        cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"
