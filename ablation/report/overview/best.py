"""The best arm, and how much of its lead may be luck.

Shapes: S seeds, A arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report.metrics import MetricTable
from ablation.report.overview.families import Row, once, rivals
from ablation.report.statistics import best, descriptive, inference

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Best:
    """The arm with the best mean of those that may be compared: complete, under no condition, not chosen on the test items.

    `seeds` are those that all of them have, over which they are ranked; `mean` is over these, and `is_partial` says whether any of them
    has others. `tied` is the number of others with the same mean. `alike` are the other arms that no paired t test tells apart from it,
    after Holm's correction over all `others`, and `untested` those of which there is no such test: with fewer than two seeds in common,
    or the same difference on each. `ahead` are arms that are not ranked though their mean is better, the best one first. `repeated` is
    its difference to the baseline without the luck of having been picked: the best arm of the other seeds, measured on the one left out;
    NaN where there is one seed, one other arm or no baseline. If `is_steady`, it is the best one whichever seed is left out; then this is
    its plain difference, of which luck may be a part.
    """

    row: Row
    seeds: Sequence[int]
    mean: float
    is_partial: bool
    others: int
    tied: int
    alike: Sequence[str]
    untested: Sequence[str]
    ahead: Sequence[Row]
    repeated: float
    is_steady: bool


def best_arm(rows: Sequence[Row], others: Sequence[Row], runs: pd.DataFrame, metric: str, metrics: MetricTable) -> Best | None:
    """The best of the arms in `rows`; None if fewer than two are complete, or if they share no seed. Arms of the same training are one.

    The `others` are those under conditions, which are not ranked with them.
    """
    values, lower = rivals(once(rows)), metrics.is_lower_better(metric)
    leading = best.best_of(values, is_lower_better=lower)
    if not leading:
        return None
    row = next(row for row in rows if row.arm == leading[0])
    names, seeds = list(values), best.shared_seeds(values)
    rest = [name for name in names if name != row.arm]
    values_SA = descriptive.finite(descriptive.by_seed(runs, names, metrics.full_name(metric)))
    baseline = str(row.vs_baseline.get("against", row.arm))  # without one, it is the baseline itself
    sign = -1 if lower else 1
    gain, picked = _repeated(sign * values_SA.to_numpy(), names, baseline)
    is_steady = picked == {row.arm}
    repeated = float(row.vs_baseline["mean"]) if is_steady and row.vs_baseline else sign * metrics.unit(metric).scale * gain
    mean = best.mean_over(row.values, seeds)
    alike, untested = _alike(values_SA, row.arm, rest)
    return Best(
        row=row,
        seeds=seeds,
        mean=mean,
        is_partial=not best.has_same_seeds(values),
        others=len(rest),
        tied=len(leading) - 1,
        alike=alike,
        untested=untested,
        ahead=_ahead([one for one in (*rows, *others) if one.arm not in values], max(sign * mean, sign * row.mean), sign),
        repeated=repeated,
        is_steady=is_steady,
    )


def _ahead(rows: Sequence[Row], least: float, sign: int) -> list[Row]:
    """Those of the arms with a mean, times `sign`, above `least` that could be ranked by their labels; the best one first."""
    found = [row for row in once(rows) if row.n and best.may_be_best(row.labels) and sign * row.mean > least]
    return sorted(found, key=lambda row: -sign * row.mean)


def _alike(values_SA: pd.DataFrame, best: str, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arms that the paired t test does not tell apart from the best one, after Holm's correction over all; and those without a test."""
    best_S1, others_SO = values_SA[[best]].to_numpy(), values_SA[list(others)].to_numpy()
    p = inference.t_summary(best_S1 - others_SO, inference.largest_of(values_SA).max())["p_t"].to_numpy(dtype=np.float64)
    adjusted = inference.holm(p, len(others))
    found = list(zip(others, adjusted, strict=True))
    return [arm for arm, p_arm in found if p_arm > inference.LEVEL], [arm for arm, p_arm in found if np.isnan(p_arm)]


def _repeated(values_SA: Floats, arms: Sequence[str], baseline: str) -> tuple[float, set[str]]:
    """The mean, over the seeds, of the gain on that seed of the arm that is best on all the others, and these arms; higher is better."""
    whole = values_SA[np.isfinite(values_SA).all(axis=1)]
    if len(whole) < 2 or len(arms) < 3 or baseline not in arms:
        return float("nan"), set()
    of_others_SA = whole.sum(axis=0) - whole  # the mean over the other seeds orders as their sum does
    error = len(whole) * inference.ROUNDING * np.abs(whole).max()
    picked = np.argmax(of_others_SA >= of_others_SA.max(axis=1, keepdims=True) - error, axis=1)  # the first of equal ones
    gains = whole[np.arange(len(whole)), picked] - whole[:, list(arms).index(baseline)]
    return float(gains.mean()), {arms[place] for place in picked}
