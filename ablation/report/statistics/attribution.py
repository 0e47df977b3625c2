"""The effect of each rung in different orders, the effects of crossed settings, and the effect of a condition.

Shapes: S seeds, D differences (one column per comparison), L levels of an axis; a cube has one axis of seeds and one per factor.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.formatting import interval, listed
from ablation.report.metrics import metrics_of, short_name
from ablation.report.statistics import descriptive, inference
from ablation.report.statistics.differences import is_other_test, test_sets_of

Floats = npt.NDArray[np.float64]
Arm = Mapping[str, Any]  # an arm in the recorded plan
Arms = Mapping[str, Arm]  # the arms of one condition, by their names without it
Column = tuple[pd.Series, float]  # the differences by seed, and the largest absolute value that they are taken of
Pair = tuple[str, str, str]  # a rung, an arm with it, the arm against which it is compared

WAYS = ("ladder", "first in", "last out", "shapley")
ATTRIBUTION = ["rung", "condition", "way", "arm", "against", "metric", *inference.SUMMARY]
EFFECTS = ["group", "kind", "term", "metric", *inference.SUMMARY, "p_t_holm"]
CONDITIONS = ["arm", "condition", "metric", "n", "mean", "sd", "pairs", "difference", "difference_sd", "low", "high", "p_t"]


@dataclass(frozen=True)
class Step:
    """One way of adding a rung: an arm with it, and the arm that differs from it by this rung only."""

    rung: str
    condition: str
    way: str
    arm: str
    against: str


@dataclass(frozen=True)
class Factorial:
    """Arms that combine the levels of several axes: the points of a sweep, or all subsets of a grid's rungs.

    If `has_other_test`, some of them are known to have other test items than others, and no seed makes a pair of them.
    """

    name: str
    condition: str
    axes: Mapping[str, Sequence[str]]
    cells: Mapping[tuple[str, ...], str]  # levels -> the arm that has them
    has_other_test: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every combination of the levels is an arm of the plan."""
        return len(self.cells) == math.prod(len(levels) for levels in self.axes.values())

    @property
    def group(self) -> str:
        """Its name in documents, after that of its condition."""
        return f"{self.condition}/{self.name}" if self.condition else self.name

    def cube(self, runs: pd.DataFrame, metric: str, scale: float) -> Floats:
        """The metric, times `scale`, by seed and by level of each axis; crossed axes only have the seeds with all cells."""
        names = [self.cells[levels] for levels in itertools.product(*self.axes.values())]
        values = descriptive.finite(descriptive.by_seed(runs, names, metric)) * (math.nan if self.has_other_test else 1.0)
        whole = values.dropna() if len(self.axes) > 1 else values
        shape = (len(whole), *(len(levels) for levels in self.axes.values()))
        return scale * whole.to_numpy(dtype=np.float64).reshape(shape)


# --- what each rung is worth -----------------------------------------------------------------------------------------------------


def attribution(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per metric, rung, condition and way of adding it: the change of the metric, paired by seed, in its unit of differences.

    Arms with other test items make no pair, here and in all of this file.

    "ladder" is the rung's step on the ladder, and "first in" the rung alone over the first one. "last out" is what the longest ladder
    of `drop_one` (else the grid's whole set) loses without it. "shapley" is the mean over all orders in which the grid's k rungs can be
    added, phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (v(S with i) - v(S)); these sum to v(all) - v(none). Shapley, "A
    value for n-person games", 1953. A ladder's step depends on the rungs above it: if the ways differ, rungs interact.
    """
    arms, table = _Planned(plan), metrics_of(plan)
    pairs, grids = list(arms.steps()), [grid for grid in arms.grids() if len(grid.axes) > 1]
    names = sorted({name for step in pairs for name in (step.arm, step.against)})
    labels, columns = list[dict[str, str]](), list[Column]()
    for metric in metrics:
        scale, values = table.unit(metric).scale, descriptive.finite(descriptive.by_seed(runs, names, metric))
        found = [
            (step, _difference(values[step.arm], values[step.against], scale, has_other_test=arms.has_other_test(step.arm, step.against)))
            for step in pairs
        ]
        for grid in grids:
            everything, nothing = (grid.cells[(level,) * len(grid.axes)] for level in ("with", "without"))
            cube = grid.cube(runs, metric, scale)
            steps = [Step(rung, grid.condition, "shapley", everything, nothing) for rung in grid.axes]
            found += [(step, _column(phi_S, cube)) for step, phi_S in zip(steps, shapley(cube).T, strict=True)]
        for step, column in sorted(found, key=lambda pair: arms.place(pair[0])):
            labels.append({**vars(step), "metric": short_name(metric)})
            columns.append(column)
    return _summarised(labels, columns, ATTRIBUTION)


def shapley(cube: npt.ArrayLike) -> Floats:
    """phi_SK: each seed's Shapley values of the K axes, which have two levels each, without and with."""
    values = np.asarray(cube, dtype=np.float64)
    num_rungs = values.ndim - 1
    sizes = np.indices((2,) * (num_rungs - 1)).sum(axis=0)  # of the coalition that the rung joins, per cell
    weights = np.array([1 / (num_rungs * math.comb(num_rungs - 1, size)) for size in range(num_rungs)])[sizes]
    gains = [np.diff(values, axis=axis + 1).reshape(len(values), weights.size) @ weights.ravel() for axis in range(num_rungs)]
    return np.stack(gains, axis=1)


class _Planned:
    """The plan's arms by condition and plain name, and the ways in which they add rungs."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.arms: dict[str, dict[str, Arm]] = {"": {}}
        for arm in plan["arms"]:
            condition = arm.get("condition") or ""
            self.arms.setdefault(condition, {})[arm["name"].removeprefix(f"{condition}/" if condition else "")] = arm
        self.above = {name: arm["parent"] or "" for name, arm in self.arms[""].items() if arm["kind"] == "ladder"}
        self._test_sets = test_sets_of(plan)

    def has_other_test(self, *names: str) -> bool:
        """Whether any of these arms, by their whole names, are known to have other test items than others."""
        return is_other_test(*(self._test_sets.get(name) for name in names))

    @cached_property
    def rungs(self) -> list[str]:
        """The rungs of the ladder, followed by those that only other arms of the plan are made with."""
        named = [rung for arms in self.arms.values() for name, arm in arms.items() for rung in _rungs_of(name, arm)]
        return list(dict.fromkeys([*self.above, *named]))

    def place(self, step: Step) -> tuple[int, int, int]:
        """The step's position in the table: by condition, rung and way."""
        return list(self.arms).index(step.condition), self.rungs.index(step.rung), WAYS.index(step.way)

    def steps(self) -> Iterator[Step]:
        """Every way but Shapley's in which the plan's arms add a rung; the first, if several pairs of arms show the same."""
        for condition, arms in self.arms.items():
            ways = {"ladder": [(rung, rung, above) for rung, above in self.above.items()]}
            ways |= {"first in": self._first_in(arms), "last out": self._last_out(arms)}
            for way, pairs in ways.items():
                there = {rung: (arm, against) for rung, arm, against in reversed(pairs) if arm in arms and against in arms}
                for rung, (arm, against) in there.items():
                    yield Step(rung, condition, way, arms[arm]["name"], arms[against]["name"])

    def _first_in(self, arms: Arms) -> list[Pair]:
        """Arms with one rung alone over the first one, and, if there are any, the second rung, which always is one."""
        first = next((rung for rung, above in self.above.items() if not above), "")
        added = [(arm["factors"]["with"], name, _base_of(name, arm)) for name, arm in arms.items() if _kind_of(name, arm) == "add_one"]
        subsets = self._subsets(arms)
        added += [(members[0], name, subsets[()]) for members, name in subsets.items() if len(members) == 1]
        over_first = [pair for pair in [*added, *self._alike(arms, first)] if pair[2] == first]
        return [(rung, rung, above) for rung, above in self.above.items() if over_first and above == first] + over_first

    def _last_out(self, arms: Arms) -> list[Pair]:
        """Arms against those without one of their rungs, the longest first, and the last rung's step, which always is one."""
        dropped = [
            (arm["factors"]["without"], _base_of(name, arm), name) for name, arm in arms.items() if _kind_of(name, arm) == "drop_one"
        ]
        last_rungs = [(top, top, self.above[top]) for top in dict.fromkeys(top for _, top, _ in dropped) if top in self.above]
        subsets = self._subsets(arms)
        everything = max(subsets, key=len, default=())
        rest = {rung: tuple(member for member in everything if member != rung) for rung in everything if len(everything) > 1}
        of_grid = [(rung, subsets[everything], subsets[others]) for rung, others in rest.items() if others in subsets]
        return [*sorted(last_rungs + dropped, key=lambda pair: -self._position(pair[1])), *of_grid]

    def _alike(self, arms: Arms, first: str) -> list[Pair]:
        """Arms that change the first rung exactly as another rung changes the ladder."""
        steps = [rung for rung, above in self.above.items() if above != first and _is_over(arms, rung, above)]
        singles = [name for name, arm in arms.items() if arm["change"] and _is_over(arms, name, first)]
        return [(rung, name, first) for rung in steps for name in singles if arms[name]["change"] == arms[rung]["change"]]

    def _subsets(self, arms: Arms) -> dict[tuple[str, ...], str]:
        """The grid's arms by their rungs, and the arm without any; empty unless the plan has both."""
        subsets = {tuple(_rungs_of(name, arm)): name for name, arm in arms.items() if _kind_of(name, arm) == "grid"}
        plain = self.arms[""]
        nothing = next((str(plain[name]["parent"]) for name in subsets.values() if name in plain), "")
        return {(): nothing, **subsets} if nothing in arms else {}

    def _position(self, name: str) -> int:
        return self.rungs.index(name) if name in self.rungs else len(self.rungs)

    def sweeps(self) -> Iterator[Factorial]:
        """The complete sweeps, in every condition."""
        for condition, arms in self.arms.items():
            points: dict[str, list[Arm]] = {}
            for name, arm in arms.items():
                if _kind_of(name, arm) == "sweep":
                    points.setdefault(_base_of(name, arm), []).append(arm)
            sweeps = (_sweep(name, condition, points_of) for name, points_of in points.items())
            yield from (self._tested(sweep) for sweep in sweeps if sweep.is_complete)

    def grids(self) -> Iterator[Factorial]:
        """The grid in every condition, if it is complete."""
        for condition, arms in self.arms.items():
            subsets = self._subsets(arms)
            if subsets:
                rungs = list(arms[list(subsets.values())[-1]]["factors"])
                cells = {
                    tuple("with" if rung in members else "without" for rung in rungs): arms[name]["name"]
                    for members, name in subsets.items()
                }
                grid = Factorial("grid", condition, dict.fromkeys(rungs, ("without", "with")), cells)
                if grid.is_complete:
                    yield self._tested(grid)

    def _tested(self, factorial: Factorial) -> Factorial:
        """The same, which knows whether its arms have other test items."""
        return replace(factorial, has_other_test=self.has_other_test(*factorial.cells.values()))


def _sweep(name: str, condition: str, points: Sequence[Arm]) -> Factorial:
    axes = {axis: list(dict.fromkeys(arm["factors"][axis] for arm in points)) for axis in points[0]["factors"]}
    return Factorial(name, condition, axes, {tuple(arm["factors"].values()): arm["name"] for arm in points})


def _kind_of(name: str, arm: Arm) -> str:
    """add_one, drop_one, grid, sweep or "", from the name and the factors, since the kind of a condition's arm is `condition`."""
    factors = arm.get("factors") or {}
    for word, kind in (("with", "add_one"), ("without", "drop_one")):
        if list(factors) == [word] and name.endswith(f"/{word}-{factors[word]}"):
            return kind
    if factors and name == "grid/" + "+".join(rung for rung, level in factors.items() if level == "with"):
        return "grid"
    return "sweep" if factors else ""


def _base_of(name: str, arm: Arm) -> str:
    """The rung that the arm is based on, or the sweep's name."""
    word = {"add_one": "with-", "drop_one": "without-"}.get(_kind_of(name, arm), "")
    return name.removesuffix(f"/{word}{'/'.join(arm['factors'].values())}")


def _rungs_of(name: str, arm: Arm) -> list[str]:
    """The rungs that the arm adds or drops."""
    kind = _kind_of(name, arm)
    if kind == "grid":
        return [rung for rung, level in arm["factors"].items() if level == "with"]
    return list(arm["factors"].values()) if kind in ("add_one", "drop_one") else []


def _is_over(arms: Arms, name: str, above: str) -> bool:
    """Whether both arms are there and the second is the parent of the first."""
    return name in arms and above in arms and arms[name]["parent"] == arms[above]["name"]


# --- what crossed settings do ----------------------------------------------------------------------------------------------------


def effects(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per metric and term of each sweep and grid of the plan: the main effects and two-way interactions, paired by seed.

    A main effect is a level minus the axis's first level, averaged over the levels of the other axes. An interaction is the change of
    that difference between a level of another axis and its first one, averaged over the rest: (ab - b) - (a - 1), without the factor
    1/2 of some textbooks. If it is not 0, the main effects depend on each other. Holm's correction is over all terms of a group, of each
    metric by itself.
    """
    arms, table = _Planned(plan), metrics_of(plan)
    factorials = [*arms.sweeps(), *arms.grids()]
    labels, columns = list[dict[str, str]](), list[Column]()
    for metric, factorial in itertools.product(metrics, factorials):
        cube = factorial.cube(runs, metric, table.unit(metric).scale)
        for kind, term, effect_S in itertools.chain(_main(factorial, cube), _interactions(factorial, cube)):
            labels.append({"group": factorial.group, "kind": kind, "term": term, "metric": short_name(metric)})
            columns.append(_column(effect_S, cube))
    rows = _summarised(labels, columns, EFFECTS[:-1])
    return rows.assign(p_t_holm=rows.groupby(["metric", "group"])["p_t"].transform(lambda p: inference.holm(p, len(p))))


def _main(factorial: Factorial, cube: Floats) -> Iterator[tuple[str, str, Floats]]:
    for number, (axis, levels) in enumerate(factorial.axes.items()):
        means_SL = _averaged(cube, [number])
        for level in range(1, len(levels)):
            yield "main", f"{axis}: {levels[level]} against {levels[0]}", means_SL[:, level] - means_SL[:, 0]


def _interactions(factorial: Factorial, cube: Floats) -> Iterator[tuple[str, str, Floats]]:
    for (i, (first, levels)), (j, (second, others)) in itertools.combinations(enumerate(factorial.axes.items()), 2):
        means_SLL = _averaged(cube, [i, j])
        for a, b in itertools.product(range(1, len(levels)), range(1, len(others))):
            effect_S = (means_SLL[:, a, b] - means_SLL[:, 0, b]) - (means_SLL[:, a, 0] - means_SLL[:, 0, 0])
            yield "interaction", f"{first} x {second}: {levels[a]} and {others[b]} against {levels[0]} and {others[0]}", effect_S


def _averaged(cube: Floats, kept: Sequence[int]) -> Floats:
    """The cube's mean over all axes but the seeds and the `kept` ones."""
    means: Floats = cube.mean(axis=tuple(axis + 1 for axis in range(cube.ndim - 1) if axis not in kept))
    return means


# --- conditions side by side -----------------------------------------------------------------------------------------------------


def conditions(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per metric and arm of a condition: the metric in the store's unit, and its difference to the plain arm, paired by seed."""
    table, planned = metrics_of(plan), _Planned(plan)
    pairs = [(name, condition, arm["name"]) for condition, arms in planned.arms.items() if condition for name, arm in arms.items()]
    others = [planned.has_other_test(name, full) for name, _, full in pairs]
    labels, columns, own = list[dict[str, str]](), list[Column](), list[pd.DataFrame]()
    for metric in metrics:
        values = descriptive.by_seed(runs, [full for _, _, full in pairs], metric)
        plain = descriptive.finite(descriptive.by_seed(runs, [name for name, _, _ in pairs], metric))
        ours_AS, plain_AS, scale = descriptive.finite(values).to_numpy().T, plain.to_numpy().T, table.unit(metric).scale
        labels += [{"arm": name, "condition": condition, "metric": short_name(metric)} for name, condition, _ in pairs]
        columns += [
            _difference(pd.Series(ours_S), pd.Series(plain_S), scale, has_other_test=is_other)
            for ours_S, plain_S, is_other in zip(ours_AS, plain_AS, others, strict=True)
        ]
        mean, sd = descriptive.mean_and_sd(values)
        own.append(pd.DataFrame({"n": values.count().to_numpy(), "mean": mean.to_numpy(), "sd": sd.to_numpy()}))
    rows = _summarised(labels, columns, ["arm", "condition", "metric", *inference.SUMMARY])
    rows = rows.rename(columns={"mean": "difference", "sd": "difference_sd"})
    return pd.concat([rows, pd.concat(own, ignore_index=True)], axis=1)[CONDITIONS]


# --- who gained and who paid -----------------------------------------------------------------------------------------------------


def trades(differences: pd.DataFrame, groups: Sequence[str]) -> dict[str, str]:
    """arm -> the groups of classes that gained and paid against the baseline, by the t test after Holm's correction in the family.

    If the sign-flip test, corrected too, does not agree, it says `(t only)`, as the verdicts do.
    """
    rows = differences[(differences["role"] == "baseline") & differences["metric"].isin(list(groups))]
    return {str(arm): _trade(part, groups) for arm, part in descriptive.records_by(rows, "arm").items()}


def _trade(rows: Sequence[Mapping[Any, Any]], groups: Sequence[str]) -> str:
    """`few +5.10 [+1.00, +9.20] for many -2.00 [-3.00, -1.00]`."""
    ordered = sorted(rows, key=lambda row: -list(groups).index(row["metric"]))  # the last group first: methods are made for it
    sure = [row for row in ordered if row["p_t_holm"] <= inference.LEVEL]
    gained, paid = ([_gain(row) for row in sure if sign * row["mean"] > 0] for sign in (1, -1))
    if gained or paid:
        return " for ".join(listed(part) for part in (gained, paid) if part)
    if any(math.isfinite(row["low"]) for row in rows):
        return "no group's difference is sure"
    return "no group changed" if all(row["mean"] == row["sd"] == 0 for row in rows) else "no group has an interval"


def _gain(row: Mapping[Any, Any]) -> str:
    """`few +5.10 [+1.00, +9.20]`, with a remark if only the t test finds it."""
    words = f"{row['metric']} {interval(row['mean'], row['low'], row['high'])}"
    return words if row["p_flip_holm"] <= inference.LEVEL else f"{words} (t only)"


def _difference(ours_S: pd.Series, theirs_S: pd.Series, scale: float, *, has_other_test: bool) -> Column:
    paired_S = theirs_S * math.nan if has_other_test else theirs_S
    return scale * (ours_S - paired_S), scale * float(inference.largest_of(ours_S.to_numpy(), theirs_S.to_numpy()))


def _column(differences_S: Floats, values: Floats) -> Column:
    return pd.Series(differences_S), float(inference.largest_of(values.ravel()))


def _summarised(labels: Sequence[Mapping[str, str]], found: Sequence[Column], columns: Sequence[str]) -> pd.DataFrame:
    """One row per label, with the summary of its differences."""
    differences_SD = pd.concat([differences for differences, _ in found], axis=1, ignore_index=True) if found else pd.DataFrame()
    named = pd.DataFrame(list(labels), columns=[name for name in columns if name not in inference.SUMMARY])
    summary = inference.summary(differences_SD, [largest for _, largest in found])
    return pd.concat([named, summary.reset_index(drop=True)], axis=1)[list(columns)]
