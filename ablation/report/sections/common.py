"""What several sections need: cells with differences, and links to figures and runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report import inference, metrics
from ablation.report.sections.content import Content
from ablation.report.words import DASH, escaped, interval

ROLES = ("parent", "baseline")
ON_TEST = "chosen by looking at the test images, so too good by an unknown amount"
BETTER, WORSE, NO_DIFFERENCE, INCONCLUSIVE = "better", "worse", "no difference", "inconclusive"  # how verdicts begin


def named(content: Content, arm: str) -> str:
    """The arm's name, with a mark where it was chosen on the test images: `swa (T)`."""
    return escaped(arm) + mark(content, arm)


def mark(content: Content, *arms: str) -> str:
    """What stands behind a name or number for which one of these arms was chosen on the test images."""
    return " (T)" if content.on_test & {*arms} else ""


def seeds_needed(number: float) -> str:
    """`42`, or `more than 1,000` where no number up to there is enough; a dash where it is not known."""
    if math.isnan(number):
        return DASH
    return f"{number:.0f}" if math.isfinite(number) else f"more than {inference.MOST_SEEDS:,}"


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


def counted_once(content: Content) -> pd.DataFrame:
    """The runs of the shown arms, each once, however many arms it is the run of."""
    keys = {(run["arm"], int(run["seed"])): run["key"] for run in content.plan["runs"]}
    runs = content.frames.runs
    planned = [keys[arm, seed] for arm, seed in zip(runs["arm"], runs["seed"], strict=True)]
    return runs.assign(run=runs["run_id"].where(runs["run_id"] != "", pd.Series(planned, index=runs.index))).drop_duplicates("run")


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
    """arm -> its condition, "" if it has none; of all arms of the plan, shown or not."""
    return {arm["name"]: arm["name"].partition("/")[0] if arm["kind"] == "condition" else "" for arm in content.plan["arms"]}
