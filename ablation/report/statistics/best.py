"""Which arms are the best by a metric: one rule for sentences, tables and figures.

Arms are ranked by their means over the seeds that all of them have. Means over different seeds would rank the seeds as well.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from ablation.report.statistics.descriptive import by_seed, finite

ON_TEST = "selected on test"  # the label of arms that were chosen on the test items
OTHER_TEST = "other test images"  # the label of arms that were tested on others than their parent or their baseline
Values = Mapping[str, Mapping[int, float]]  # arm -> seed -> a finite value


def may_be_best(labels: Iterable[str]) -> bool:
    """Whether an arm with these labels can be ranked: not if its number is too good, or of other images."""
    return not {ON_TEST, OTHER_TEST} & {*labels}


def chosen_on_test(plan: Mapping[str, Any]) -> frozenset[str]:
    """The plan's arms, shown or not, that were chosen on the test items."""
    return frozenset(arm["name"] for arm in plan["arms"] if ON_TEST in arm["labels"])


def rankable(arms: pd.DataFrame) -> list[str]:
    """Those of the frame of arms that can be ranked."""
    return [str(arm) for arm, labels in zip(arms["arm"], arms["labels"], strict=True) if may_be_best(labels.split(", "))]


def values_of(runs: pd.DataFrame, arms: Collection[str], metric: str) -> dict[str, dict[int, float]]:
    """The finite values of the metric, by its full name, of each of these arms."""
    values_SA = finite(by_seed(runs, list(arms), metric))
    seeds = [int(seed) for seed in values_SA.index]
    columns = zip(values_SA.columns, values_SA.to_numpy().T, strict=True)
    return {str(arm): {seed: float(v) for seed, v in zip(seeds, column, strict=True) if math.isfinite(v)} for arm, column in columns}


def planned_runs(runs: pd.DataFrame) -> dict[str, int]:
    """arm -> how many runs are planned, from the frame with a row for each."""
    return {str(arm): int(number) for arm, number in runs.groupby("arm", sort=False).size().items()}


def complete_values(runs: pd.DataFrame, arms: Collection[str], metric: str) -> dict[str, dict[int, float]]:
    """The values of those of the arms of which every planned run has a finite one."""
    planned = planned_runs(runs)
    return {arm: values for arm, values in values_of(runs, arms, metric).items() if 0 < len(values) == planned.get(arm)}


def shared_seeds(values: Values) -> list[int]:
    """The seeds that all of the arms have, in their order."""
    return sorted(set.intersection(*(set(by_seed) for by_seed in values.values()))) if values else []


def has_same_seeds(values: Values) -> bool:
    """Whether all of the arms have the same seeds, so that their means can be compared as they are."""
    return len({frozenset(by_seed) for by_seed in values.values()}) <= 1


def mean_over(by_seed: Mapping[int, float], seeds: Collection[int]) -> float:
    """The mean over these seeds, in any order."""
    return math.fsum(by_seed[seed] for seed in seeds) / len(seeds)


def once(values: Values, same_as: Mapping[str, str]) -> dict[str, Mapping[int, float]]:
    """The values of each training once: of several names of it those of the one with the most seeds, its own name before the others.

    `same_as` has, by arm, the arm whose training it is; arms that it lacks are trainings of their own.
    """
    chosen: dict[str, str] = {}
    for arm in sorted(values, key=lambda arm: (-len(values[arm]), arm in same_as)):
        chosen.setdefault(same_as.get(arm, arm), arm)
    return {arm: by_seed for arm, by_seed in values.items() if chosen[same_as.get(arm, arm)] == arm}


def best_of(values: Values, *, is_lower_better: bool, same_as: Mapping[str, str] | None = None) -> list[str]:
    """The arms with the best mean over the seeds that all have, by all their names; none if they share no seed, or if there is only one.

    Each training counts once: see `once`.
    """
    same_as = same_as or {}
    trainings = once(values, same_as)
    seeds = shared_seeds(trainings)
    if len(trainings) < 2 or not seeds:
        return []
    means = {arm: mean_over(by_seed, seeds) for arm, by_seed in trainings.items()}
    best = (min if is_lower_better else max)(means.values())
    leading = [arm for arm, mean in means.items() if math.isclose(mean, best, rel_tol=1e-9, abs_tol=1e-12)]
    of_training = {same_as.get(arm, arm): values[arm] for arm in leading}
    return [arm for arm, by_seed in values.items() if of_training.get(same_as.get(arm, arm)) == by_seed]
