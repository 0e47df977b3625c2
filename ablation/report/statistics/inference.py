"""Inference from paired differences: intervals, tests, corrections for several tests, and the seeds that a claim needs.

Shapes: S seeds, D differences (one column per comparison), P patterns of signs. Only seeds that both arms finished make a pair.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from ablation.report.statistics.descriptive import finite

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000
MOST_PATTERNS = 100_000  # up to so many sign patterns all are tried; otherwise so many random ones
ROUNDING = 1e-13  # how far apart equal numbers may be computed, as a share of the largest number that they are computed from
SUMMARY = ["pairs", "mean", "sd", "low", "high", "p_t", "p_flip"]


def summary(differences_SD: pd.DataFrame | Floats, largest: npt.ArrayLike = 100.0) -> pd.DataFrame:
    """One row per column: pairs, mean, sd, the 95 % t interval, and the p of the paired t test and of the sign-flip test.

    NaN and infinities are no pairs. With one pair there is only a mean. If all differences are equal, the interval and the p of the t
    test are NaN, since it would take the missing spread of these seeds for the true one. `largest` is the largest absolute value that
    the differences are taken of, of each column or of all: with it rounding errors grow. By default they are of percentages.
    """
    return t_summary(differences_SD, largest).assign(p_flip=flip_p(differences_SD, largest))


def t_summary(differences_SD: pd.DataFrame | Floats, largest: npt.ArrayLike = 100.0) -> pd.DataFrame:
    """The summary without the sign-flip test, for very many columns."""
    differences = finite(pd.DataFrame(differences_SD).astype(float))
    error_D = rounding_errors(largest, differences.shape[1])
    columns = {name: np.full(differences.shape[1], np.nan) for name in ("mean", "sd", "low", "high", "p_t")}
    for pairs, where, values_SD in _by_pairs(differences):
        columns["mean"][where] = values_SD.mean(axis=0)
        if pairs > 1:
            varies = np.ptp(values_SD, axis=0) > error_D[where]
            columns["sd"][where] = np.where(varies, values_SD.std(axis=0, ddof=1), 0.0)
            for name, numbers_D in zip(("p_t", "low", "high"), _t_test(values_SD[:, varies]), strict=True):
                columns[name][where[varies]] = numbers_D
    return pd.DataFrame({"pairs": differences.count().to_numpy(), **columns}, index=differences.columns)


def _t_test(values_SD: Floats) -> tuple[Floats, Floats, Floats]:
    """The two-sided p of the t test of each column's mean against 0 and the ends of its interval, bit by bit those of scipy.stats."""
    pairs, mean_D = len(values_SD), values_SD.mean(axis=0)
    error_D = np.sqrt(np.square(values_SD - mean_D).mean(axis=0) * (pairs / (pairs - 1)) / pairs)
    tail = (1 - (1 - LEVEL)) / 2
    low, high = special.stdtrit(pairs - 1, [tail, 1 - tail])
    return 2 * special.stdtr(pairs - 1, -np.abs(mean_D / error_D)), low * error_D + mean_D, high * error_D + mean_D


def rounding_errors(largest: npt.ArrayLike, num_columns: int) -> Floats:
    """By how much equal differences may differ, for each column; 0 where no value is known."""
    return np.broadcast_to(ROUNDING * np.nan_to_num(np.asarray(largest, dtype=np.float64), nan=0.0), num_columns)


def largest_of(*values_SD: pd.DataFrame | Floats) -> Floats:
    """The largest absolute value of each column in any of these arrays of the same columns; 0 where all are NaN."""
    sizes = [np.nan_to_num(np.abs(np.asarray(values, dtype=np.float64)), nan=0.0, posinf=0.0) for values in values_SD]
    largest: Floats = np.max([size.max(axis=0, initial=0.0) for size in sizes], axis=0)
    return largest


def flip_p(differences_SD: pd.DataFrame | Floats, largest: npt.ArrayLike = 100.0) -> Floats:
    """The two-sided p of the sign-flip test per column: how often the mean is as far from 0 if pairs are swapped at random.

    It only assumes that pairs can be swapped. With up to 16 pairs all sign patterns are counted, so p is exact and at least
    2 / 2**pairs; with more pairs, the data's pattern and 99,999 random ones of a fixed seed. NaN for one pair.
    """
    differences = finite(pd.DataFrame(differences_SD).astype(float))
    p_D = np.full(differences.shape[1], np.nan)
    error_D = rounding_errors(largest, differences.shape[1])
    for pairs, where, values_SD in _by_pairs(differences):
        if pairs > 1:
            signs_PS = _signs(pairs)
            parts = np.array_split(np.arange(len(where)), 1 + len(where) // 64)  # 65,536 patterns of 64 columns take 32 MB
            p_D[where] = np.concatenate([_share_as_far(signs_PS, values_SD[:, part], pairs * error_D[where[part]]) for part in parts])
    return p_D


def equivalence_p(rows: pd.DataFrame, margin: float) -> Floats:
    """The p of two one-sided t tests (TOST) per row of a summary; it is small if a difference of `margin` or more is ruled out.

    Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the equivalence of average
    bioavailability", 1987. It is the larger of both p, and NaN without spread.
    """
    pairs, sd = rows["pairs"].to_numpy(float), rows["sd"].to_numpy(float)
    error = np.divide(sd, np.sqrt(pairs), out=np.full_like(sd, np.nan), where=sd > 0)
    freedom = np.maximum(pairs - 1, 1)
    above, below = ((rows["mean"].to_numpy(float) + bound) / error for bound in (margin, -margin))
    larger: Floats = np.maximum(special.stdtr(freedom, -above), special.stdtr(freedom, below))
    return larger


def holm(p_values: npt.ArrayLike, tests: int = 0) -> Floats:
    """Holm's adjusted p values, which keep the chance of any false claim at the level.

    Holm, "A simple sequentially rejective multiple test procedure", 1979. NaN are no tests and stay NaN. `tests` is the
    size of the family, including tests without a p value so far.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted, known = np.full_like(values, np.nan), np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * (max(tests, len(order)) - np.arange(len(order)))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def power(seeds: npt.ArrayLike, effect: npt.ArrayLike, level: float | Floats = LEVEL) -> Floats:
    """The chance that a two-sided paired t test at `level` finds a true difference of `effect` standard deviations."""
    count = np.asarray(seeds, dtype=np.float64)
    shift = np.minimum(np.asarray(effect, dtype=np.float64), 100.0) * np.sqrt(count)  # beyond that, the distribution loses its digits
    bound = -special.stdtrit(count - 1, level / 2)
    wrong_way, missed = (np.nan_to_num(special.nctdtr(count - 1, shift, end)) for end in (-bound, bound))  # NaN in SciPy below 1e-200
    chance: Floats = 1 - missed + wrong_way
    return chance


def seeds_needed(sd: npt.ArrayLike, difference: float, tests: int | npt.NDArray[np.int64] = 1) -> Floats:
    """The fewest seeds with which a paired t test finds a true difference of that size with 80 % power, given the pairs' sd.

    The test is at 0.05 / `tests` (one number, or one for each sd), the first step of Holm's correction over that many tests, as for the
    report's verdicts; later steps need fewer seeds. Infinite above 1,000 seeds; NaN if the sd is 0 or unknown.
    """
    spread = np.atleast_1d(np.asarray(sd, dtype=np.float64))
    is_known = np.isfinite(spread) & (spread > 0)
    effect = np.divide(difference, spread, out=np.full_like(spread, np.nan), where=is_known)
    low, high = np.full(spread.shape, 2), np.full(spread.shape, MOST_SEEDS + 1)
    while (low < high).any():
        middle = (low + high) // 2
        is_enough = power(middle, effect, LEVEL / np.maximum(tests, 1)) >= POWER
        low, high = np.where((low < high) & ~is_enough, middle + 1, low), np.where((low < high) & is_enough, middle, high)
    needed: Floats = np.where(is_known, np.where(low <= MOST_SEEDS, low, np.inf), np.nan).reshape(np.shape(sd))
    return needed


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p of `flip_p`: two of the 2**n equally likely sign patterns are extreme, or the data's own of those tried."""
    return float(min(1.0, 2.0 ** (1 - pairs) if 2**pairs <= MOST_PATTERNS else 1 / MOST_PATTERNS))


def seeds_needed_to_flip(tests: int = 1) -> int:
    """The fewest pairs with which a sign-flip test can reach 0.05 after Holm over that many tests."""
    return next(pairs for pairs in range(1, 1000) if max(tests, 1) * 2.0 ** (1 - pairs) <= LEVEL)


def _by_pairs(differences: pd.DataFrame) -> list[tuple[int, npt.NDArray[np.intp], Floats]]:
    """Columns grouped by their number of pairs: the number, the columns, and their values without NaN."""
    values_SD = np.sort(differences.to_numpy(dtype=np.float64), axis=0)  # NaN go last; no test depends on the order of the seeds
    pairs_D = np.isfinite(values_SD).sum(axis=0)
    columns = [(int(pairs), np.flatnonzero(pairs_D == pairs)) for pairs in np.unique(pairs_D[pairs_D > 0])]
    return [(pairs, where, values_SD[:pairs, where]) for pairs, where in columns]


def _signs(pairs: int) -> Floats:
    """The sign patterns to try, the data's (all positive) first; if all are tried, only the half whose last sign is positive."""
    if 2**pairs <= MOST_PATTERNS:
        bits_PS = np.arange(2 ** (pairs - 1))  # the sums of their mirrors are as far from 0
        bits_PS = bits_PS[:, None] >> np.arange(pairs) & 1
    else:
        bits_PS = np.random.default_rng(0).integers(0, 2, (MOST_PATTERNS, pairs))
        bits_PS[0] = 0
    return 1.0 - 2.0 * bits_PS.astype(np.float64)


def _share_as_far(signs_PS: Floats, values_SD: Floats, error_D: Floats) -> Floats:
    """The share of patterns whose sum is as far from 0 as the first one's, but for an error of rounding."""
    sums_PD = np.abs(signs_PS @ values_SD)
    share: Floats = (sums_PD >= sums_PD[0] - error_D).mean(axis=0)
    return share
