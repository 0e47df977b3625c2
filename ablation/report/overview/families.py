"""The arms of a report by family: the ladder, the variants, each sweep, drop-one, each condition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablation.formatting import setting
from ablation.report.metrics import MetricTable
from ablation.report.statistics import best
from ablation.report.statistics.differences import family

NEAR_CHANCE = "near chance"  # the label of arms that have learnt little, which only their numbers tell
TITLES = {"ladder": "Ladder", "variants": "Variants", "drop_one": "Drop one", "add_one": "Add one", "grid": "Grid"}


@dataclass(frozen=True)
class Row:
    """An arm: its numbers, and its differences to parent and baseline, which are rows of the frame of differences or empty.

    `values` are the finite values of the report's metric by seed, in the store's unit; `done` is the number of finished runs, `planned`
    that of planned ones, and `most_planned` the largest such number of any arm shown.
    """

    arm: str
    label: str
    parent: str
    change: str
    labels: Sequence[str]
    same_as: str
    planned: int
    most_planned: int
    done: int
    values: Mapping[int, float]
    mean: float  # of the report's metric, in the store's unit
    sd: float
    vs_parent: Mapping[Any, Any]
    vs_baseline: Mapping[Any, Any]
    factors: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of runs that have a finite value of the metric."""
        return len(self.values)

    @property
    def is_complete(self) -> bool:
        """Whether every planned run has a value."""
        return 0 < self.n == self.planned

    @property
    def verdict(self) -> str:
        """That of the difference to the parent; empty if there is none."""
        return str(self.vs_parent.get("verdict", ""))

    @property
    def is_on_test(self) -> bool:
        """Whether the arm was chosen on the test items, so that its number is too good."""
        return best.ON_TEST in self.labels


@dataclass(frozen=True)
class Family:
    """Arms that are read together. `name` is that of their family of tests and of their figure, such as `sweep epsilon`.

    `reference` is the arm that all of them are compared with, if it is one and stands in another family; `best` are the arms with the best
    mean over the seeds that all complete ones share, the reference among them. `axes` has the values of each swept setting, and `own` those
    of the reference, where known.
    """

    name: str
    rows: Sequence[Row]
    reference: Row | None
    best: Sequence[str]
    axes: Mapping[str, Sequence[str]]
    own: Mapping[str, str]

    @property
    def kind(self) -> str:
        """ladder, variants, sweep, drop_one, add_one, grid or condition."""
        return self.name.partition(" ")[0]

    @property
    def title(self) -> str:
        """`Ladder`, `Sweep epsilon`, `Condition no-lag`."""
        return TITLES.get(self.name, self.name[:1].upper() + self.name[1:])

    @property
    def all_rows(self) -> list[Row]:
        """The reference, if there is one, and the arms."""
        return [*([self.reference] if self.reference else []), *self.rows]


def families(
    plan: Mapping[str, Any], runs: pd.DataFrame, arms: pd.DataFrame, differences: pd.DataFrame, metric: str, metrics: MetricTable
) -> list[Family]:
    """The shown arms by family, the ladder first. `runs`, `arms` and `differences` are the frames; `metric` is a short name."""
    planned = {arm["name"]: arm for arm in plan["arms"]}
    places = {name: place for place, name in enumerate(planned)}
    pairs = {(row["arm"], row["role"]): row for row in differences[differences["metric"] == metric].to_dict("records")}
    records = sorted(arms.to_dict("records"), key=lambda row: places[row["arm"]])  # a family has the plan's order
    values = best.values_of(runs, [row["arm"] for row in records], metrics.full_name(metric))
    most = max((row["planned"] for row in records), default=0)
    rows = {row["arm"]: _row(row, planned[row["arm"]], metric, values[row["arm"]], pairs, most) for row in records}
    members: dict[str, list[Row]] = {}
    for name, row in rows.items():
        members.setdefault(family(planned[name]), []).append(row)
    ordered = sorted(members, key=lambda name: (name != "ladder", name.startswith("condition ")))
    return [_family(name, members[name], rows, planned, metrics.is_lower_better(metric)) for name in ordered]


def _row(
    row: Mapping[Any, Any],
    planned: Mapping[str, Any],
    metric: str,
    values: Mapping[int, float],
    pairs: Mapping[tuple[str, str], Mapping[Any, Any]],
    most_planned: int,
) -> Row:
    return Row(
        arm=row["arm"],
        label=row["label"],
        parent=row["parent"],
        change=row["change"],
        labels=tuple(planned["labels"]),
        same_as=row["same_as"],
        planned=row["planned"],
        most_planned=most_planned,
        done=row["n"],
        values=values,
        mean=row[f"{metric}_mean"],
        sd=row[f"{metric}_sd"],
        vs_parent=pairs.get((row["arm"], "parent"), {}),
        vs_baseline=pairs.get((row["arm"], "baseline"), {}),
        factors=dict(planned.get("factors") or {}),
    )


def _family(
    name: str, members: Sequence[Row], rows: Mapping[str, Row], planned: Mapping[str, Mapping[str, Any]], is_lower_better: bool
) -> Family:
    parents = {row.parent for row in members}
    shared = next(iter(parents)) if len(parents) == 1 and name != "ladder" else ""
    reference = rows.get(shared)
    axes: dict[str, list[str]] = {}
    for row in members if name.startswith("sweep ") else ():
        for axis, value in row.factors.items():
            axes.setdefault(axis, []).append(value)
    own = {axis: value for axis in axes if (value := _own_value(axis, members, planned)) and reference}
    leading = best_of([*([reference] if reference else []), *members], is_lower_better=is_lower_better)
    return Family(name, members, reference, leading, {axis: list(dict.fromkeys(values)) for axis, values in axes.items()}, own)


def _own_value(axis: str, members: Sequence[Row], planned: Mapping[str, Mapping[str, Any]]) -> str:
    """The parent's value of a swept setting, which is the old value of the points' change; empty if it has none.

    Empty, too, where the axis is a name that the file gave, which may also be that of a setting: the points' values are other ones then.
    """
    changes = {row.factors[axis]: planned[row.arm]["change"].get(axis) for row in members if axis in row.factors}
    if any(change and value not in (str(change[1]), setting(change[1])) for value, change in changes.items()):
        return ""
    old = next((change[0] for change in changes.values() if change), None)
    return "" if old is None else setting(old)


def plain_rows(families: Sequence[Family]) -> list[Row]:
    """The arms outside conditions; all of them if all are under one."""
    rows = [row for family in families if family.kind != "condition" for row in family.rows]
    return rows or [row for family in families for row in family.rows]


def once(rows: Sequence[Row]) -> list[Row]:
    """One row of each training: see `statistics.best`."""
    kept = best.once({row.arm: row.values for row in rows}, same_as(rows))
    return [row for row in rows if row.arm in kept]


def same_as(rows: Sequence[Row]) -> dict[str, str]:
    """arm -> the arm whose training it is, of those that are another one's."""
    return {row.arm: row.same_as for row in rows if row.same_as}


def rivals(rows: Sequence[Row]) -> dict[str, Mapping[int, float]]:
    """The values of the arms of which one may be the best: complete ones that can be ranked, by their labels."""
    return {row.arm: row.values for row in rows if row.is_complete and best.may_be_best(row.labels)}


def best_of(rows: Sequence[Row], *, is_lower_better: bool) -> list[str]:
    """The arms with the best mean of those that may have it, over the seeds that all of these share."""
    return best.best_of(rivals(rows), is_lower_better=is_lower_better, same_as=same_as(rows))
