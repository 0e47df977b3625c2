"""Helpers for several sections: names with marks, links to figures and runs, lines of text."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import DASH, capitalised, counted, escaped, listed
from ablation.formatting import table as padded_table
from ablation.report.frames.facts import Needs
from ablation.report.frames.own import NO_CHANGE
from ablation.report.overview import strip
from ablation.report.sections.content import Content
from ablation.report.statistics import inference
from ablation.report.statistics.best import OTHER_TEST
from ablation.report.statistics.differences import NO_EFFECT

ROLES = ("parent", "baseline")
MOST_PADDED_ROWS = 8
# in pixels, as GitHub draws Markdown: the width of a page's text, of a letter, and what surrounds a cell's text
PAGE, LETTER, PADDING = 820, 10, 27
BETTER, WORSE, NO_DIFFERENCE, INCONCLUSIVE = "better", "worse", "no difference", "inconclusive"  # how verdicts begin
# label -> its mark in the tables, and its meaning
LABELS = {
    "bundle": ("B", "the change spans several {parts}, so a difference belongs to all of them together"),
    "budget": ("U", "more updates, {items} or trainable parameters than its parent"),
    "double correction": (
        "D",
        "two or more of sampler, class weights, training prior and post-hoc adjustment correct for the class counts",
    ),
    "chosen": ("C", "each seed's run is another arm's, picked {picked}"),
    "selected on test": ("T", "chosen by looking at the test {items}, so too good by an unknown amount"),
    OTHER_TEST: ("I", "tested on other {items} than its parent or its baseline, so neither comparable with it nor ever the best"),
    "schedule": ("R", "in a stage the schedule of the learning rate ends before it lowers the rate, or before its warm-up does"),
    "lag": ("L", "the averaged weights still hold much of the initial ones"),
    "near chance": ("N", "hardly above guessing"),
    NO_EFFECT: ("S", "different seeds gave equal numbers, so they are no repetitions and intervals mean nothing"),
    NO_CHANGE: ("E", "equal to its parent to the last digit, though its settings differ"),
}


OTHER_MARK = f"({LABELS[OTHER_TEST][0]})"  # in the place of a difference


def label_meaning(content: Content, label: str) -> str:
    """The label's meaning; empty if the label is unknown."""
    parts, picked = ("settings", _chosen_by(content)) if content.own else ("families", f"on the validation {content.items}")
    return LABELS[label][1].format(items=content.items, parts=parts, picked=picked) if label in LABELS else ""


def _chosen_by(content: Content) -> str:
    """`by val/mae`, the metrics by which arms choose."""
    arms = content.plan.get("written", {}).get("arms", {}).values()
    return f"by {listed(list(dict.fromkeys(arm['choice'][0] for arm in arms if arm.get('choice')))) or 'a validation metric'}"


def named(content: Content, arm: str) -> str:
    """The arm's name, with a mark if it was chosen on the test items: `swa (T)`."""
    return escaped(arm) + mark(content, arm)


def mark(content: Content, *arms: str) -> str:
    """The mark of a name or number if one of its arms was chosen on the test items."""
    return " (T)" if content.on_test & {*arms} else ""


def seeds_needed(number: float) -> str:
    """`42`, or `more than 1,000` if 1,000 are not enough; a dash if the number is unknown."""
    if math.isnan(number):
        return DASH
    return f"{number:.0f}" if math.isfinite(number) else f"more than {inference.MOST_SEEDS:,}"


def count(row: Mapping[Any, Any]) -> str:
    """The number of finished runs, linked to the list of runs: `3`, or `2/3` if some are missing."""
    number = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
    return f"[{number}](#runs)"


def few(content: Content, row: Mapping[Any, Any], name: str) -> str:
    """` (2 of 3)` where some of an arm's finished runs have no number for the metric."""
    n = len(content.values(name)[row["arm"]])
    return f" ({n} of {row['planned']})" if 0 < n < row["n"] else ""


def mean_and_sd(content: Content, names: Sequence[str]) -> str:
    """What the numbers of a table of these metrics are: their units, if named, and how many seeds, if all arms have as many."""
    units, found = content.metrics.value_units(names), {len(by_seed) for name in names for by_seed in content.values(name).values()} - {0}
    seeds = counted(found.pop(), "seed") if len(found) == 1 else "n seeds"
    numbers = "of 1 seed" if seeds == "1 seed" else f"mean ± standard deviation over {seeds}"
    return capitalised(f"{escaped(units)}, {numbers}" if units else numbers)


def of_metric(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of that metric."""
    return frame[frame["metric"] == name]


def counted_once(content: Content) -> pd.DataFrame:
    """The runs of the shown arms, each once, even if several arms share it."""
    return strip.counted_once(content.plan, content.frames.runs)


def pictures(content: Content, *kinds: str) -> str:
    """The pictures of these kinds, if they were drawn."""
    return "\n\n".join(f"![{escaped(alt)}]({path})" for kind in kinds for path, alt in content.figures.get(kind, ()))


def lines_for(content: Content, lines: Iterable[tuple[str, Needs]]) -> list[str]:
    """The lines whose needs the study meets."""
    return [line for line, needs in lines if needs <= content.facts]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table: padded if it is short, so that it reads well as plain text, else without a space too many."""
    if len(rows) <= MOST_PADDED_ROWS:
        return padded_table(header, rows, left)
    ruler = ["-" if column < left else "-:" for column in range(len(header))]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in (header, ruler, *rows))


def of_columns(columns: Sequence[Sequence[str]], left: int = 1) -> str:
    """The table of these columns, each with its title first."""
    return table([column[0] for column in columns], list(zip(*(column[1:] for column in columns), strict=True)), left)


def chunked(columns: Sequence[Sequence[str]], fixed: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places of the columns in as many tables as fit on a page each, beside the fixed columns; a column is all of its cells."""
    return places_by_room([_narrowest(column) for column in columns], PAGE - sum(map(_narrowest, fixed)))


def places_by_room(sizes: Sequence[float], room: float) -> list[list[int]]:
    """The places of these sizes in parts, in order: each part holds as many as it has room for, and at least one."""
    parts: list[list[int]] = [[]]
    left = room
    for place, size in enumerate(sizes):
        if size > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(place)
        left -= size
    return parts


def _narrowest(cells: Sequence[str]) -> float:
    """The width in pixels that a column takes at least: that of its longest word."""
    words = (word for cell in cells for word in re.split(r"[\s-]+", re.sub(r"[\\*`]|\(#\w+\)", "", cell)))
    return LETTER * max((len(word) for word in words), default=0) + PADDING


def bullets(lines: Sequence[str]) -> str:
    """The lines as a list."""
    return "\n".join(f"- {line}" for line in lines)


def paragraphs(*parts: str) -> str:
    """The parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def condition_of(content: Content) -> dict[str, str]:
    """arm -> its condition, "" if it has none; of all arms of the plan, shown or not."""
    return {arm["name"]: arm["name"].partition("/")[0] if arm["kind"] == "condition" else "" for arm in content.plan["arms"]}


def in_code(text: object) -> str:
    """The text within backquotes, on one line."""
    line = " ".join(str(text).replace("`", "'").split())
    return f"`{line}`" if line else "not recorded"
