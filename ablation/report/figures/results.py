"""The values of every arm by seed, with its difference to its parent: what the figures of families are made of."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablation.formatting import change, number
from ablation.report.metrics import MetricTable, with_unit
from ablation.report.statistics import best
from ablation.report.statistics.descriptive import by_seed, finite, mean_and_sd


@dataclass(frozen=True)
class Axis:
    """The metric's axis: its title, its words with the unit, the decimals of its numbers, and which way is better."""

    title: str
    words: str
    decimals: int
    is_percent: bool
    is_lower_better: bool

    def number(self, value: float) -> str:
        """The value with the metric's decimals, as in the tables."""
        return number(value, decimals=self.decimals)

    def change(self, difference: float) -> str:
        """The difference with its sign and the metric's decimals."""
        return change(float(difference), decimals=self.decimals)


@dataclass(frozen=True)
class Row:
    """One arm: its name, its values by seed, their mean and standard deviation (NaN for one), its parent with that one's mean, its
    difference to it (None: it is not compared), what is remarked behind its name, and the arm whose training it is, if it is another
    one's.

    `is_joined` says whether its seeds are joined with those of the row above, `is_rival` whether it may be the best arm: it is complete
    and was not chosen on the test items.
    """

    arm: str
    name: str
    values: Mapping[int, float]
    mean: float
    sd: float
    parent: str
    parent_level: float
    difference: Mapping[str, Any] | None
    remark: str = ""
    same_as: str = ""
    is_reference: bool = False
    is_joined: bool = False
    is_chosen: bool = False
    is_rival: bool = True

    @property
    def label(self) -> str:
        """The name with the remark."""
        return f"{self.name}{self.remark}"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the difference, beginning at the parent's level; None if it has none."""
        if self.difference is None or not np.isfinite(self.difference["low"]):
            return None
        start = self.mean - float(self.difference["mean"])
        return start + float(self.difference["low"]), start + float(self.difference["high"])


@dataclass(frozen=True)
class Results:
    """Finite values in the store's unit (a row per seed, a column per arm) with the factor to the metric's unit, and by arm their means
    and standard deviations in that unit; differences to parents by arm, and the arms of the plan.

    The means are those of the tables: the factor times the mean, not the mean of products, which may be rounded another way.
    `chosen` are the arms that a choice took for at least one seed, and `rivals` those of which one may be the best.
    """

    stored: pd.DataFrame
    scale: int
    means: Mapping[str, float]
    sds: Mapping[str, float]
    differences: Mapping[str, Mapping[str, Any]]
    planned: Mapping[str, Mapping[str, Any]]
    num_seeds: int
    chosen: frozenset[str]
    rivals: frozenset[str]

    def has_values(self, arm: str) -> bool:
        """Whether any run of the arm has a value."""
        return arm in self.stored and bool(self.stored[arm].notna().any())

    def row(self, arm: str, name: str = "") -> Row:
        """The arm's row; it remarks how many seeds there are, if some are missing."""
        values = self._stored(arm)
        parent = str((self.planned.get(arm) or {}).get("parent") or "")
        level, difference = self.means.get(parent, math.nan), self.differences.get(arm)
        if difference is not None and parent in self.stored and {*values} != {*self._stored(parent)}:
            level = self.means[arm] - float(difference["mean"])  # the parent's, as the seeds that both have tell it
        return Row(
            arm=arm,
            name=name or arm,
            values={seed: self.scale * value for seed, value in values.items()},
            mean=self.means.get(arm, math.nan),
            sd=self.sds.get(arm, math.nan),
            parent=parent,
            parent_level=level,
            difference=difference,
            remark=f" ({len(values)} of {self.num_seeds} seeds)" if len(values) < self.num_seeds else "",
            same_as=str((self.planned.get(arm) or {}).get("same_as") or ""),
            is_chosen=arm in self.chosen,
            is_rival=arm in self.rivals,
        )

    def over(self, row: Row, seeds: Collection[int]) -> Row:
        """The row with its mean over these seeds, which the arm has, and with its difference only if that is of the same seeds."""
        values = self._stored(row.arm)
        if {*values} == {*seeds}:
            return row
        sd = self.scale * float(np.std([values[seed] for seed in seeds], ddof=1)) if len(seeds) > 1 else math.nan
        is_same = row.difference is not None and int(row.difference["pairs"]) == len(seeds)
        mean = self.scale * best.mean_over(values, seeds)
        return replace(row, mean=mean, sd=sd, difference=row.difference if is_same else None)

    def _stored(self, arm: str) -> dict[int, float]:
        known = self.stored[arm].dropna() if arm in self.stored else pd.Series(dtype=float)
        return dict(zip(map(int, known.index), map(float, known), strict=True))


def results_of(runs: pd.DataFrame, differences: pd.DataFrame, plan: Mapping[str, Any], name: str, metrics: MetricTable) -> Results:
    """The values and the differences of that metric. A difference that is not finite is none."""
    planned, scale = {str(arm["name"]): arm for arm in plan["arms"]}, metrics.unit(name).scale
    values = by_seed(runs, list(planned), metrics.full_name(name))
    stored, (means, sds) = finite(values), mean_and_sd(values)
    is_known = np.isfinite(means)  # where a value is infinite, those that are not have a mean
    means, sds = means.where(is_known, stored.mean()), sds.where(is_known, stored.std())
    rows = differences[(differences["metric"] == name) & (differences["role"] == "parent") & np.isfinite(differences["mean"].astype(float))]
    by_arm = {str(row["arm"]): {str(key): value for key, value in row.items()} for row in rows.to_dict("records")}
    picked = frozenset(str(arm) for arm in runs["chosen"].fillna("") if arm)
    rankable = [arm for arm in planned if best.may_be_best(planned[arm]["labels"])]
    rivals = best.complete_values(runs, rankable, metrics.full_name(name))
    return Results(
        stored, scale, _scaled(means, scale), _scaled(sds, scale), by_arm, planned, len(plan["seeds"]), picked, frozenset(rivals)
    )


def _scaled(numbers: pd.Series, scale: int) -> dict[str, float]:
    return {str(arm): scale * float(value) for arm, value in numbers.items()}


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
    signed = [axis.change(found[name]) for name in ("mean", "low", "high")]
    ends = f", 95 % interval {signed[1]} to {signed[2]}" if np.isfinite(found["low"]) else ""
    return f"{row.label} {axis.number(row.mean)} ({signed[0]} to its parent{ends})"


def best_of(rows: Sequence[Row], axis: Axis) -> list[str]:
    """The arms with the best mean, as everywhere: see `statistics.best`."""
    values = {row.arm: row.values for row in rows if row.is_rival}
    return best.best_of(values, is_lower_better=axis.is_lower_better, same_as={row.arm: row.same_as for row in rows if row.same_as})
