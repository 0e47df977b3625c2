"""What several sections need: cells with differences, and links to figures and runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report import metrics
from ablation.report.sections.content import Content
from ablation.report.words import DASH, escaped, interval

ROLES = ("parent", "baseline")
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference"  # how verdicts begin


def count(row: Mapping[Any, Any]) -> str:
    """The number of runs that are done, linked to the list of runs: `3`, or `2/3` where some are not."""
    told = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
    return f"[{told}](#runs)"


def difference(name: str, row: Mapping[Any, Any]) -> str:
    """`+0.75 [-0.10, +1.60]` of a row with pairs, mean, low and high; a dash where there is no pair."""
    return interval(row["mean"], row["low"], row["high"], metrics.unit(name).decimals) if row["pairs"] else DASH


def of_metric(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of that metric."""
    return frame[frame["metric"] == name]


def images(content: Content, *kinds: str) -> str:
    """The pictures that show this, if they were drawn."""
    return "\n\n".join(f"![{escaped(alt)}]({path})" for what in kinds for path, alt in content.figures.get(what, ()))


def bullets(lines: Sequence[str]) -> str:
    """The lines as a list."""
    return "\n".join(f"- {line}" for line in lines)


def paragraphs(*parts: str) -> str:
    """The parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def condition_of(content: Content) -> dict[str, str]:
    """arm -> its condition, "" if it has none."""
    return dict(zip(content.frames.arms["arm"], content.frames.arms["condition"], strict=True))
