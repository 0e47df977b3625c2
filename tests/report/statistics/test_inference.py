"""Intervals, tests and corrections against SciPy, statsmodels and plain Python, and by simulation. S seeds, D differences."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from ablation.report.statistics import inference

NAN = math.nan


def normal(seeds, columns, mean=0.0, sd=1.0, key=0):
    return np.random.default_rng(key).normal(mean, sd, (seeds, columns))


# --- one column at a time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 8, 20])
def test_summary_equals_statsmodels(seeds):
    """Mean, sd, interval and p of each column are those of statsmodels, whatever the number of columns."""
    values_SD = normal(seeds, 7, 0.4)
    rows = inference.summary(pd.DataFrame(values_SD, columns=list("abcdefg")))
    assert list(rows.index) == list("abcdefg")
    for name, values_S in zip("abcdefg", values_SD.T, strict=True):
        expected, row = DescrStatsW(values_S), rows.loc[name]
        assert row["pairs"] == seeds
        assert row[["mean", "sd", "p_t"]].tolist() == pytest.approx([values_S.mean(), values_S.std(ddof=1), expected.ttest_mean(0)[1]])
        assert row[["low", "high"]].tolist() == pytest.approx(expected.tconfint_mean(0.05))


def test_missing_seeds_make_no_pairs():
    """Each column is judged by its own pairs, wherever its NaN are."""
    values_SD = normal(6, 3, 0.5)
    values_SD[[0, 4], 1] = NAN
    values_SD[1:, 2] = NAN
    rows = inference.summary(values_SD)
    assert rows["pairs"].tolist() == [6, 4, 1]
    alone = inference.summary(values_SD[[1, 2, 3, 5], 1:2]).loc[0]
    assert rows.loc[1].tolist() == pytest.approx(alone.tolist())
    assert rows.loc[2, "mean"] == values_SD[0, 2]
    assert rows.loc[2, ["sd", "low", "high", "p_t", "p_flip"]].isna().all()


def test_infinities_make_no_pairs():
    """A column with infinities is judged by its finite pairs, and one of nothing else has none."""
    values_SD = normal(6, 3, 0.5)
    values_SD[[0, 4], 1] = [math.inf, -math.inf]
    values_SD[:, 2] = -math.inf
    rows = inference.summary(values_SD)
    assert rows["pairs"].tolist() == [6, 4, 0]
    assert rows.loc[1].tolist() == pytest.approx(inference.summary(values_SD[[1, 2, 3, 5], 1:2]).loc[0].tolist())
    assert inference.flip_p(values_SD)[1] == rows.loc[1, "p_flip"]
    assert rows.loc[2].drop("pairs").isna().all()


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (3, 2)])
def test_no_pairs_give_no_numbers(shape):
    """Nothing to compare is no error, and counts zero pairs."""
    rows = inference.summary(np.full(shape, NAN))
    assert list(rows.columns) == inference.SUMMARY
    assert rows["pairs"].tolist() == [0] * shape[1]
    assert rows.drop(columns="pairs").isna().all(axis=None)


@pytest.mark.parametrize(
    "values",
    [[1.0, 1.0, 1.0], [100 * (0.7 - 0.6), 100 * (0.6 - 0.5), 100 * (0.9 - 0.8)], [0.0, 0.0, 0.0]],
    ids=["equal", "rounded", "zero"],
)
def test_equal_differences_tell_t_nothing(values):
    """Where all differences are equal, but for rounding, there is no interval and no p of t; signs can still be flipped."""
    row = inference.summary(np.array(values)[:, None]).loc[0]
    assert (row["sd"], row["p_flip"]) == (0.0, 1.0 if values[0] == 0 else 0.25)
    assert row[["low", "high", "p_t"]].isna().all()
    assert np.isnan(inference.equivalence_p(row.to_frame().T.astype(float), 100.0)).all()


# --- the sign-flip test ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", range(2, 8))
def test_flip_p_counts_all_patterns(seeds):
    """p is the share of sign patterns, counted in plain Python, whose mean is as far from 0; ties count, also after rounding."""
    tied = np.round(np.random.default_rng(seeds).integers(-3, 4, (seeds, 40)) * 0.1, 10)
    for values_SD in (normal(seeds, 5, 0.5), tied):
        for p, values_S in zip(inference.flip_p(values_SD), values_SD.T, strict=True):
            sums = [
                round(abs(sum(sign * value for sign, value in zip(signs, values_S, strict=True))), 9)
                for signs in product((1, -1), repeat=seeds)
            ]
            assert p == pytest.approx(sum(total >= sums[0] for total in sums) / len(sums))


@pytest.mark.parametrize("seeds", [3, 8, 12])
def test_flip_p_equals_scipy(seeds):
    """The same p as SciPy's permutation test of one sample."""
    values_SD = normal(seeds, 4, 0.3)
    expected = stats.permutation_test(
        (values_SD,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, axis=0
    )
    assert inference.flip_p(values_SD) == pytest.approx(expected.pvalue)


def test_many_seeds_are_flipped_at_random_and_repeatably():
    """Twenty pairs have a million patterns; a hundred thousand of them give the same p each time, near SciPy's."""
    values_SD = normal(20, 3, 0.4)
    p_values = inference.flip_p(values_SD)
    assert (p_values == inference.flip_p(values_SD)).all()
    expected = stats.permutation_test(
        (values_SD,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        axis=0,
        rng=np.random.default_rng(1),
    )
    assert p_values == pytest.approx(expected.pvalue, abs=0.015)
    assert inference.flip_p(np.full((20, 1), 2.0)) == pytest.approx([1 / inference.MOST_PATTERNS], abs=3e-5)  # never 0


@pytest.mark.parametrize("pairs", range(1, 9))
def test_smallest_p_counts_the_sign_patterns(pairs):
    """The most extreme of all sign patterns and its mirror, out of every pattern there is; the test reaches it and no less."""
    sums = [abs(sum(signs)) for signs in product((-1, 1), repeat=pairs)]
    assert inference.smallest_p(pairs) == pytest.approx(sum(value == pairs for value in sums) / len(sums))
    if pairs > 1:
        assert inference.flip_p(np.linspace(1, 2, pairs)[:, None]) == pytest.approx([inference.smallest_p(pairs)])


@pytest.mark.parametrize(("tests", "seeds"), [(0, 6), (1, 6), (2, 7), (3, 7), (4, 8), (5, 8), (7, 9), (70, 12)])
def test_seeds_needed_to_flip(tests, seeds):
    """Six pairs reach 0.03125 and survive no correction; eight survive Holm's over five tests."""
    assert inference.seeds_needed_to_flip(tests) == seeds
    count = max(tests, 1)
    reached = [inference.holm([inference.smallest_p(pairs)] + [1.0] * (count - 1))[0] <= inference.LEVEL for pairs in (seeds - 1, seeds)]
    assert reached == [False, True]


# --- several tests, equivalence, power -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", range(5))
def test_holm_equals_statsmodels(key):
    """The adjusted p values are statsmodels', in the order given; NaN are no tests, stay NaN and do not count."""
    p_values = np.random.default_rng(key).uniform(0, 0.2, 9) ** (key + 1)
    p_values[3] = p_values[5]
    expected = multipletests(p_values, method="holm")[1]
    assert inference.holm(p_values) == pytest.approx(expected)
    assert inference.holm(np.insert(p_values, [0, 4], NAN)) == pytest.approx(np.insert(expected, [0, 4], NAN), nan_ok=True)


def test_holm_counts_planned_tests():
    """Tests without a p value so far count as if theirs were 1."""
    expected = multipletests([0.01, 0.02, 1.0, 1.0], method="holm")[1][:2]
    assert inference.holm([0.01, 0.02], 4) == pytest.approx(expected)
    assert inference.holm([0.01, 0.02, 0.03], 1) == pytest.approx(inference.holm([0.01, 0.02, 0.03]))
    assert inference.holm([]).shape == (0,)


@pytest.mark.parametrize("margin", [0.2, 0.5, 2.0])
def test_equivalence_equals_statsmodels(margin):
    """The p of two one-sided tests is that of statsmodels for the two arms' values."""
    ours, theirs = normal(6, 5, 0.1, 0.3), normal(6, 5, 0.0, 0.3, key=1)
    p_values = inference.equivalence_p(inference.summary(ours - theirs), margin)
    expected = [ttost_paired(ours[:, d], theirs[:, d], -margin, margin)[0] for d in range(5)]
    assert p_values == pytest.approx(expected)


def test_power_equals_statsmodels():
    """The power of a paired t test is that of statsmodels, also where both tails count."""
    seeds, effects = np.meshgrid([2, 3, 5, 8, 20], [0.0, 0.1, 0.5, 1.0, 1.5])
    expected = [TTestPower().power(effect, count, 0.05) for effect, count in zip(effects.ravel(), seeds.ravel(), strict=True)]
    assert inference.power(seeds, effects).ravel() == pytest.approx(expected)


@pytest.mark.parametrize("sd", [0.2, 0.5, 1.0, 1.7, 4.0])
def test_seeds_needed_is_the_fewest_with_power(sd):
    """The number that statsmodels solves for, rounded up."""
    needed = inference.seeds_needed(sd, 0.5)
    assert TTestPower().power(0.5 / sd, int(needed), 0.05) >= 0.8
    assert needed == 2 or TTestPower().power(0.5 / sd, int(needed) - 1, 0.05) < 0.8
    if sd >= 0.5:
        assert needed == math.ceil(TTestPower().solve_power(0.5 / sd, None, 0.05, 0.8))


@pytest.mark.parametrize(("sd", "tests"), [(0.5, 3), (1.0, 15), (2.0, 70)])
def test_seeds_needed_after_holm(sd, tests):
    """With several tests the number is what statsmodels solves for at the level of Holm's first step, so more than for one."""
    needed = inference.seeds_needed(sd, 0.5, tests)
    assert needed == math.ceil(TTestPower().solve_power(0.5 / sd, None, 0.05 / tests, 0.8)) > inference.seeds_needed(sd, 0.5)
    assert inference.seeds_needed(sd, 0.5, 0) == inference.seeds_needed(sd, 0.5)


def test_seeds_needed_beyond_all_and_with_nothing_to_reckon_with():
    """No number without a spread or a known sd, infinitely many beyond a thousand; two where the spread is tiny."""
    needed = inference.seeds_needed(np.array([0.0, NAN, math.inf, 10.0, 1e9, 1e-6]), 0.5)
    assert needed == pytest.approx([NAN, NAN, NAN, math.inf, math.inf, 2], nan_ok=True)
    assert (inference.seeds_needed(4.0, 0.5), inference.seeds_needed(4.0, 0.5, 70)) == (505, math.inf)


# --- do they keep what they promise? ---------------------------------------------------------------------------------------------

STUDIES = 4000


def beyond_chance(share, count):
    """Four standard errors of a simulated share."""
    return 4 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_intervals_cover_the_true_difference(seeds):
    """95 of 100 intervals hold the true mean, with few seeds too."""
    rows = inference.t_summary(normal(seeds, 5 * STUDIES, 1.3, 0.7))
    covered = ((rows["low"] <= 1.3) & (rows["high"] >= 1.3)).mean()
    assert covered == pytest.approx(0.95, abs=beyond_chance(0.95, 5 * STUDIES))


@pytest.mark.parametrize("p", ["p_t", "p_flip"])
def test_a_study_of_nothing_claims_nothing(p):
    """Where five arms equal their common baseline, at most 5 of 100 studies claim any difference after Holm; without it more do."""
    arms = normal(8, 6 * STUDIES).reshape(8, STUDIES, 6)
    p_of_studies = inference.summary((arms[..., 1:] - arms[..., :1]).reshape(8, -1))[p].to_numpy().reshape(STUDIES, 5)
    wrong = np.mean([(inference.holm(p_values) <= inference.LEVEL).any() for p_values in p_of_studies])
    assert wrong <= 0.05 + beyond_chance(0.05, STUDIES)
    assert (p_of_studies <= inference.LEVEL).any(axis=1).mean() > 0.1


def test_equivalence_errs_at_most_as_often_as_promised():
    """A difference as large as the margin is called none in at most 5 of 100 studies, and one of zero far more often."""
    at_margin = inference.equivalence_p(inference.t_summary(normal(5, 5 * STUDIES, 0.5, 0.3)), 0.5)
    assert np.mean(at_margin <= 0.05) <= 0.05 + beyond_chance(0.05, 5 * STUDIES)
    assert np.mean(inference.equivalence_p(inference.t_summary(normal(5, STUDIES, 0.0, 0.3)), 0.5) <= 0.05) > 0.3


@pytest.mark.parametrize("seeds", [4, 10])
def test_power_is_how_often_an_effect_is_found(seeds):
    """The share of studies that find a difference of one sd is the power that was reckoned, and above the level."""
    share = (inference.t_summary(normal(seeds, STUDIES, 1.0))["p_t"] <= inference.LEVEL).mean()
    reckoned = float(inference.power(seeds, 1.0))
    assert share == pytest.approx(reckoned, abs=beyond_chance(reckoned, STUDIES))
    assert share > 0.2
