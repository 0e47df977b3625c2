"""The table that a run ends with: what came out, in a terminal's width, without reading predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report.metrics import HEADLINE
from ablation.report.references import References
from ablation.report.tables import Recorded, arm_rows, run_rows
from ablation.report.words import percent, points, table

COLUMNS = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro-F1", "few": "few"}


def brief(recorded: Recorded, arms: Sequence[str]) -> str:
    """One row per arm: n, percent (mean and sd over seeds), and the accuracy's difference to the parent, in points."""
    frame = arm_rows(recorded.plan, run_rows(recorded), HEADLINE, References())
    rows = [_row(row) for row in frame[frame["arm"].isin(arms)].to_dict("records")]
    return table(["arm", "n", *COLUMNS.values(), "vs parent", "labels"], rows, left=1)


def _row(row: Mapping[Any, Any]) -> list[str]:
    count = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
    values = [percent(row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else "" for name in COLUMNS]
    difference = row["accuracy_vs_parent_points"]
    shown = points(difference, row["accuracy_vs_parent_sd_points"]) if pd.notna(difference) else ""
    alike = f"= {row['same_as']}" if row["same_as"] else ""
    return [row["arm"], count, *values, shown, ", ".join(filter(None, [row["labels"], alike]))]
