"""Which arms are the best by a metric: one rule for sentences, tables and figures.

Arms are ranked by their means over the seeds that all of them have. Means over different seeds would rank the seeds as well.
"""

import math
from collections.abc import Collection, Mapping

import pandas as pd

from ablation.report.statistics.descriptive import by_seed, finite

ON_TEST = "selected on test"  # the label of arms that were chosen on the test items, so that they are never the best
Values = Mapping[str, Mapping[int, float]]  # arm -> seed -> a finite value


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


def best_of(values: Values, *, is_lower_better: bool) -> list[str]:
    """The arms with the best mean over the seeds that all have; none if they share no seed, or if there is only one."""
    seeds = shared_seeds(values)
    if len(values) < 2 or not seeds:
        return []
    means = {arm: mean_over(by_seed, seeds) for arm, by_seed in values.items()}
    best = (min if is_lower_better else max)(means.values())
    return [arm for arm, mean in means.items() if math.isclose(mean, best, rel_tol=1e-9, abs_tol=1e-12)]
