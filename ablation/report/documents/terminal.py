"""The table at the end of a run, in a terminal's width; predictions are not read for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import DASH, table
from ablation.report.frames.facts import groups_of
from ablation.report.frames.references import References
from ablation.report.frames.tables import Recorded, arm_rows, run_rows
from ablation.report.metrics import MetricTable, metrics_of
from ablation.report.statistics.differences import differences
from ablation.report.statistics.inference import LEVEL, seeds_needed_to_flip, smallest_p


def brief(recorded: Recorded, arms: Sequence[str]) -> str:
    """One row per arm: n, the headline metrics (mean and sd), the study's metric's difference to the parent, and the verdict.

    The interval in brackets is the 95 % t interval over seeds; the verdict is after Holm's correction. A line below says if there are
    too few seeds for a claim.
    """
    plan, runs = recorded.plan, run_rows(recorded)
    metrics = metrics_of(plan)
    names = columns(metrics, plan)
    frame = arm_rows(plan, runs, [metrics.full_name(name) for name in names], References())
    compared = differences(plan, runs, [metrics.full_name(metrics.default)]).query("role == 'parent' and arm in @arms", engine="python")
    by_arm = {row["arm"]: row for row in compared.to_dict("records")}
    header = ["arm", "n", *(metrics.title(name) for name in names), "vs parent [95 %]", "verdict", "labels"]
    records = frame[frame["arm"].isin(arms)].to_dict("records")
    rows = [_row(row, by_arm.get(row["arm"], {}), names, metrics) for row in records]
    return "\n\n".join(filter(None, [_without_empty(header, rows), too_few_seeds(compared)]))


def columns(metrics: MetricTable, plan: Mapping[str, Any]) -> list[str]:
    """The short names of the metrics that fit: the headlines, and the last group of classes, for which methods are made."""
    last_group = list(groups_of(plan))[-1:]
    return list(dict.fromkeys([*metrics.headlines, *(name for name in metrics.names if name in last_group)]))


def too_few_seeds(compared: pd.DataFrame) -> str:
    """Why a sign-flip test cannot confirm any of these comparisons, however large; empty if it can."""
    tested = compared[(compared["pairs"] > 0) & (compared["tests"] > 0)]
    if tested.empty or any(tests * smallest_p(pairs) <= LEVEL for pairs, tests in zip(tested["pairs"], tested["tests"], strict=True)):
        return ""
    pairs, tests = int(tested["pairs"].max()), int(tested["tests"].max())
    corrected = f", after Holm's correction of {tests} comparisons {seeds_needed_to_flip(tests)}" if tests > 1 else ""
    needed = f"a sign-flip test needs {seeds_needed_to_flip()} seeds{corrected}"
    if pairs == 1:
        return f"Too few seeds to claim a difference: one shows no spread to test by; {needed}."
    return f"Too few seeds to claim a difference without assuming normal ones: {pairs} reach p = {smallest_p(pairs):.2g} at best; {needed}."


def _row(row: Mapping[Any, Any], compared: Mapping[Any, Any], names: Sequence[str], metrics: MetricTable) -> list[str]:
    count = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
    values = [metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else "" for name in names]
    difference = metrics.interval(metrics.default, compared) if compared.get("pairs", 0) > 0 else ""
    alike = f"= {row['same_as']}" if row["same_as"] else ""
    labels = ", ".join(filter(None, [row["labels"], alike]))
    return [row["arm"], count, *values, difference, str(compared.get("verdict", "")), labels]


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table without empty columns, since a terminal is narrow."""
    kept = [place for place, name in enumerate(header) if name in ("arm", "n") or any(row[place].strip(DASH) for row in rows)]
    return table([header[place] for place in kept], [[row[place] for place in kept] for row in rows], left=1)
