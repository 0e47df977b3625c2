"""The table that a run ends with: what came out, in a terminal's width, without reading predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report.differences import differences
from ablation.report.inference import LEVEL, seeds_needed_to_flip, smallest_p
from ablation.report.metrics import HEADLINE
from ablation.report.references import References
from ablation.report.tables import Recorded, arm_rows, run_rows
from ablation.report.words import interval, percent, table

COLUMNS = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro-F1", "few": "few"}
HEADER = ["arm", "n", *COLUMNS.values(), "vs parent [95 %]", "verdict", "labels"]


def brief(recorded: Recorded, arms: Sequence[str]) -> str:
    """One row per arm: n, percent (mean and sd over seeds), the accuracy's difference to the parent in points, and the verdict on it.

    The interval in brackets is the 95 % t interval over seeds; the verdict is after Holm's correction. One line below says so where
    the seeds are too few for a claim.
    """
    plan, runs = recorded.plan, run_rows(recorded)
    frame = arm_rows(plan, runs, HEADLINE, References())
    compared = differences(plan, runs, ["test/accuracy"]).query("role == 'parent' and arm in @arms", engine="python")
    by_arm = {row["arm"]: row for row in compared.to_dict("records")}
    rows = [_row(row, by_arm.get(row["arm"], {})) for row in frame[frame["arm"].isin(arms)].to_dict("records")]
    return "\n\n".join(filter(None, [_without_empty(rows), too_few_seeds(compared)]))


def too_few_seeds(compared: pd.DataFrame) -> str:
    """Why none of these comparisons can be claimed by a sign-flip test, however large it is; nothing where one could be."""
    tested = compared[(compared["pairs"] > 0) & (compared["tests"] > 0)]
    if tested.empty or any(tests * smallest_p(pairs) <= LEVEL for pairs, tests in zip(tested["pairs"], tested["tests"], strict=True)):
        return ""
    pairs, tests = int(tested["pairs"].max()), int(tested["tests"].max())
    corrected = f", after Holm's correction of {tests} comparisons {seeds_needed_to_flip(tests)}" if tests > 1 else ""
    needed = f"a sign-flip test needs {seeds_needed_to_flip()} seeds{corrected}"
    if pairs == 1:
        return f"Too few seeds to claim a difference: one shows no spread to test by; {needed}."
    return f"Too few seeds to claim a difference without assuming normal ones: {pairs} reach p = {smallest_p(pairs):.2g} at best; {needed}."


def _row(row: Mapping[Any, Any], compared: Mapping[Any, Any]) -> list[str]:
    count = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
    values = [percent(row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else "" for name in COLUMNS]
    has_pairs = compared.get("pairs", 0) > 0
    shown = interval(compared["mean"], compared["low"], compared["high"]) if has_pairs else ""
    alike = f"= {row['same_as']}" if row["same_as"] else ""
    labels = ", ".join(filter(None, [row["labels"], alike]))
    return [row["arm"], count, *values, shown, str(compared.get("verdict", "")), labels]


def _without_empty(rows: Sequence[Sequence[str]]) -> str:
    """The table without columns in which no arm has a word, since a terminal is narrow."""
    kept = [place for place, name in enumerate(HEADER) if name in ("arm", "n") or any(row[place].strip("–") for row in rows)]
    return table([HEADER[place] for place in kept], [[row[place] for place in kept] for row in rows], left=1)
