"""The values of every arm by seed, with its difference to its parent: what the figures of families are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablation.report.metrics import MetricTable, with_unit
from ablation.report.statistics import best
from ablation.report.statistics.descriptive import by_seed


@dataclass(frozen=True)
class Axis:
    """The metric's axis: its title, its words with the unit, the decimals of its numbers, and which way is better."""

    title: str
    words: str
    decimals: int
    is_percent: bool
    is_lower_better: bool

    def number(self, value: float) -> str:
        """The value with the metric's decimals."""
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Row:
    """One arm: its label, its values by seed, its parent with that one's mean, its difference to it (None: it is not
    compared), and the arm whose training it is, if it is another one's.

    `is_joined` says whether its seeds are joined with those of the row above, `is_rival` whether it may be the best arm: it is complete
    and was not chosen on the test items.
    """

    arm: str
    label: str
    values: Mapping[int, float]
    parent: str
    parent_level: float
    difference: Mapping[str, Any] | None
    same_as: str = ""
    is_reference: bool = False
    is_joined: bool = False
    is_chosen: bool = False
    is_rival: bool = True

    @property
    def mean(self) -> float:
        """The mean over its seeds."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def sd(self) -> float:
        """The standard deviation over its seeds; NaN for one."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the difference, beginning at the parent's level; None if it has none."""
        if self.difference is None or not np.isfinite(self.difference["low"]):
            return None
        start = self.mean - float(self.difference["mean"])
        return start + float(self.difference["low"]), start + float(self.difference["high"])


@dataclass(frozen=True)
class Results:
    """Values in the metric's unit (a row per seed, a column per arm), differences to parents by arm, and the arms of the plan.

    `chosen` are the arms that a choice took for at least one seed, and `rivals` those of which one may be the best.
    """

    values: pd.DataFrame
    differences: Mapping[str, Mapping[str, Any]]
    planned: Mapping[str, Mapping[str, Any]]
    num_seeds: int
    chosen: frozenset[str]
    rivals: frozenset[str]

    def row(self, arm: str, label: str = "") -> Row:
        """The arm's row; its label says which seeds are missing."""
        known = self.values[arm].dropna() if arm in self.values else pd.Series(dtype=float)
        values = dict(zip(map(int, known.index), map(float, known), strict=True))
        parent = str((self.planned.get(arm) or {}).get("parent") or "")
        level, difference = float(self.values[parent].mean()) if parent in self.values else math.nan, self.differences.get(arm)
        if difference is not None and parent in self.values and known.index.symmetric_difference(self.values[parent].dropna().index).size:
            level = float(known.mean()) - float(difference["mean"])  # the parent's, as the seeds that both have tell it
        missing = f" ({len(values)} of {self.num_seeds} seeds)" if len(values) < self.num_seeds else ""
        marks = {"is_chosen": arm in self.chosen, "is_rival": arm in self.rivals}
        same_as = str((self.planned.get(arm) or {}).get("same_as") or "")
        return Row(arm, f"{label or arm}{missing}", values, parent, level, difference, same_as, **marks)


def results_of(runs: pd.DataFrame, differences: pd.DataFrame, plan: Mapping[str, Any], name: str, metrics: MetricTable) -> Results:
    """The values and the differences of that metric. A difference that is not finite is none."""
    planned = {str(arm["name"]): arm for arm in plan["arms"]}
    values = metrics.unit(name).scale * by_seed(runs, list(planned), metrics.full_name(name))
    rows = differences[(differences["metric"] == name) & (differences["role"] == "parent") & np.isfinite(differences["mean"].astype(float))]
    by_arm = {str(row["arm"]): {str(key): value for key, value in row.items()} for row in rows.to_dict("records")}
    picked = frozenset(str(arm) for arm in runs["chosen"].fillna("") if arm)
    rankable = [arm for arm in planned if best.may_be_best(planned[arm]["labels"])]
    rivals = best.complete_values(runs, rankable, metrics.full_name(name))
    return Results(values.where(np.isfinite(values)), by_arm, planned, len(plan["seeds"]), picked, frozenset(rivals))


def axis_of(name: str, metrics: MetricTable) -> Axis:
    """The axis of that metric."""
    unit, is_lower_better = metrics.unit(name), metrics.is_lower_better(name)
    words = f"{with_unit(metrics.title(name), unit.values)}{' (lower is better)' if is_lower_better else ''}"
    return Axis(metrics.title(name), words, unit.decimals, is_percent=unit.scale == 100, is_lower_better=is_lower_better)


def row_words(row: Row, axis: Axis) -> str:
    """The row for readers who cannot see it: its mean, its difference to the parent and the interval of that."""
    found = row.difference
    if found is None:
        return f"{row.label} {axis.number(row.mean)}"
    signed = [f"{found[name]:+.{axis.decimals}f}" for name in ("mean", "low", "high")]
    ends = f", 95 % interval {signed[1]} to {signed[2]}" if np.isfinite(found["low"]) else ""
    return f"{row.label} {axis.number(row.mean)} ({signed[0]} to its parent{ends})"


def best_of(rows: Sequence[Row], axis: Axis) -> list[str]:
    """The arms with the best mean, as everywhere: see `statistics.best`."""
    values = {row.arm: row.values for row in rows if row.is_rival}
    return best.best_of(values, is_lower_better=axis.is_lower_better, same_as={row.arm: row.same_as for row in rows if row.same_as})
