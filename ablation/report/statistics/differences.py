"""Compares every arm with its parent and its baseline, paired by seed: families of tests, corrections, verdicts.

Shapes: S seeds, D comparisons, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report.metrics import MetricTable, metrics_of, short_name
from ablation.report.statistics.descriptive import by_seed, finite
from ablation.report.statistics.inference import LEVEL, SUMMARY, equivalence_p, holm, largest_of, seeds_needed, summary

Words = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]
Family = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]  # see _families

ROLES = ("parent", "baseline")
NAMES = ["arm", "role", "against", "family"]
ADJUSTED = {"p_t": "p_t_holm", "p_flip": "p_flip_holm", "p_equal": "p_equal_holm"}
COLUMNS = [*NAMES, "metric", *SUMMARY, "p_t_holm", "p_flip_holm", "tests", "p_equal", "p_equal_holm", "seeds_needed", "verdict"]
CLASS_COLUMNS = ["arm", "role", "against", "class", "group", *SUMMARY, "p_t_holm", "p_flip_holm", "verdict"]
SAME = "same training"
NOT_COMPARABLE = "not comparable (other test items)"
NO_EFFECT = "seed without effect"  # also the label of arms whose different seeds all gave equal numbers
NOT_RUN = "not run"  # how the verdict ends where the partner is not in the plan: `parent not run`
UNTESTED = ("", SAME, NOT_COMPARABLE, *(f"{role} {NOT_RUN}" for role in ROLES))  # the verdicts where there is no test
NO_SPREAD = "inconclusive (no spread)"


def comparisons(plan: Mapping[str, Any]) -> pd.DataFrame:
    """One row per arm and role (parent, baseline) that has a partner, with the family of tests.

    `hypothesis` is equal for comparisons of the same two trainings, in either order: they are one test. If `is_same`, both arms are one
    training; if `has_other_test`, they are known to have other test items, of which none make a pair. There is no test then, nor where the
    partner is not planned (`is_planned`): `is_tested`. If `is_void`, the seeds of one of both have no effect: such a test means nothing.
    """
    test_sets, void = test_sets_of(plan), {arm["name"] for arm in plan["arms"] if arm.get("no_effect")}
    origins = {arm["name"]: arm.get("same_as") or arm["name"] for arm in plan["arms"]}
    rows = [
        {"arm": arm["name"], "role": role, "against": arm[role], "family": family(arm)}
        for role in ROLES
        for arm in plan["arms"]
        if isinstance(arm[role], str) and arm[role]
    ]
    pairs = pd.DataFrame(rows, columns=NAMES)
    ends = [(origins[arm], origins.get(against, against)) for arm, against in zip(pairs["arm"], pairs["against"], strict=True)]
    pairs["is_same"] = pd.Series([arm == against for arm, against in ends], dtype=bool)
    tested = [(test_sets[arm], test_sets.get(against)) for arm, against in zip(pairs["arm"], pairs["against"], strict=True)]
    pairs["has_other_test"] = pd.Series([is_other_test(*both) for both in tested], dtype=bool)
    pairs["is_void"] = pairs["arm"].isin(void) | pairs["against"].isin(void)
    pairs["is_planned"] = pairs["against"].isin(origins).astype(bool)
    pairs["is_tested"] = pairs["is_planned"] & ~pairs["is_same"] & ~pairs["has_other_test"]
    numbers: dict[frozenset[str], int] = {}
    pairs["hypothesis"] = [numbers.setdefault(frozenset(trainings), len(numbers)) for trainings in ends]
    return pairs


def test_sets_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """arm -> its test set: a text, or one for each seed; None or empty where it is not known."""
    return {arm["name"]: arm.get("test_set") for arm in plan["arms"]}


def is_other_test(*test_sets: Any) -> bool:
    """Whether any of these test sets, as plans have them, are known to differ: those of all seeds, or of a seed that two of them have."""
    by_seed = [tested if isinstance(tested, Mapping) else {"": tested} for tested in test_sets if tested]
    first: dict[Any, Any] = {}
    return any(first.setdefault(seed, digest) != digest for tested in by_seed for seed, digest in tested.items())


def family(arm: Mapping[str, Any]) -> str:
    """The tests that are corrected together: a ladder's, the variants', one sweep's, one condition's, ..."""
    if arm["kind"] == "condition":
        return f"condition {arm['name'].partition('/')[0]}"
    if arm["kind"] == "sweep":
        return f"sweep {arm['name'].partition('/')[0]}"
    return "variants" if arm["kind"] == "variant" else str(arm["kind"])


def differences(plan: Mapping[str, Any], runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per arm, role and metric: the paired differences in the metric's unit, their tests, and the verdict.

    Holm's correction is over the family as it was planned, so that the claims of an unfinished study do not depend on which runs are
    done; `tests` counts the family's different hypotheses. `seeds_needed` is the number of seeds that finds a true difference of the
    metric's margin with 80 % power at the first step of Holm's correction, with the family's pooled sd; infinite above 1,000. A metric
    without a margin has no `seeds_needed` and no tests of equivalence.
    """
    pairs, known_metrics = comparisons(plan), metrics_of(plan)
    families = list(_families(pairs))
    by_metric = [_of_metric(pairs, families, runs, metric, known_metrics) for metric in metrics]
    order = {arm["name"]: place for place, arm in enumerate(plan["arms"])}
    rows = pd.concat(by_metric, ignore_index=True) if by_metric else pd.DataFrame(columns=COLUMNS)
    return rows.sort_values("arm", key=lambda names: names.map(order), kind="stable")[COLUMNS].reset_index(drop=True)


def _of_metric(pairs: pd.DataFrame, families: Sequence[Family], runs: pd.DataFrame, metric: str, metrics: MetricTable) -> pd.DataFrame:
    margin = metrics.margin(metric)
    rows = pd.concat([pairs, paired_summary(runs, pairs, metric, metrics.unit(metric).scale)], axis=1).assign(metric=short_name(metric))
    rows.loc[~rows["is_tested"], ["p_t", "p_flip"]] = np.nan
    rows["p_equal"] = np.nan if margin is None else np.where(rows["is_tested"], equivalence_p(rows, margin), np.nan)
    rows = rows.assign(**_of_families(rows, families, margin))
    return rows.assign(verdict=_of_planned(rows, verdicts(rows, margin, is_lower_better=metrics.is_lower_better(metric))))


def _of_families(rows: pd.DataFrame, families: Sequence[Family], margin: float | None) -> dict[str, npt.NDArray[Any]]:
    """The columns that a row has from its family: the number of tests, the adjusted p values, and the seeds that are needed."""
    tests, p_values = np.zeros(len(rows), dtype=int), {column: rows[column].to_numpy() for column in ADJUSTED}
    adjusted = {column: np.full(len(rows), np.nan) for column in ("seeds_needed", *ADJUSTED.values())}
    sd, pairs = rows["sd"].to_numpy(), rows["pairs"].to_numpy()
    fullest = [_fullest(pairs[places], hypotheses) for places, hypotheses in families]
    for (places, hypotheses), first in zip(families, fullest, strict=True):
        tests[places] = len(first)
        for column, name in ADJUSTED.items():
            adjusted[name][places] = _corrected(p_values[column][places], hypotheses, first)
    if margin is not None and families:
        of_tests = [places[first] for (places, _), first in zip(families, fullest, strict=True)]
        needed = seeds_needed([_pooled(sd[rows_H], pairs[rows_H]) for rows_H in of_tests], margin, np.array([len(one) for one in of_tests]))
        for (places, _), seeds in zip(families, needed, strict=True):
            adjusted["seeds_needed"][places] = seeds
    return {"tests": tests, **adjusted}


def _fullest(pairs_F: npt.NDArray[np.int64], hypotheses_F: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of each hypothesis of a family the row with the most pairs, the first of them: that of its test."""
    order = np.lexsort((-pairs_F, hypotheses_F))
    return order[np.unique(hypotheses_F[order], return_index=True)[1]]


def _corrected(p_F: Floats, hypotheses_F: npt.NDArray[np.intp], first_H: npt.NDArray[np.intp]) -> Floats:
    """The adjusted p of each row of a family. Names of one training share a test, unless their seeds, and so their p values, differ."""
    p_H = p_F[first_H]
    adjusted_F = holm(p_H, len(p_H))[hypotheses_F]
    for row in np.flatnonzero(~np.isclose(p_F, p_H[hypotheses_F], rtol=1e-9, atol=0, equal_nan=True)):
        own_H = np.where(np.arange(len(p_H)) == hypotheses_F[row], p_F[row], p_H)
        adjusted_F[row] = holm(own_H, len(p_H))[hypotheses_F[row]]
    return adjusted_F


def paired_summary(runs: pd.DataFrame, pairs: pd.DataFrame, metric: str, scale: float) -> pd.DataFrame:
    """One row per comparison: the summary of the arm minus its partner, times `scale`, over the seeds that are done in both.

    Arms that are known to have other test items make no pair.
    """
    values = finite(by_seed(runs, sorted({*pairs["arm"], *pairs["against"]}), metric))
    ours_SD, theirs_SD = (values[pairs[side]].to_numpy() for side in ("arm", "against"))
    theirs_SD = np.where(pairs["has_other_test"], np.nan, theirs_SD)
    return summary(scale * (ours_SD - theirs_SD), scale * largest_of(ours_SD, theirs_SD))


def verdicts(rows: pd.DataFrame, margin: float | None, *, is_lower_better: bool) -> list[str]:
    """The verdict of each row at the level of 0.05, by its p values after Holm's correction; `UNTESTED` where there are none.

    The t test decides. If the sign-flip test, which assumes less, does not agree, the verdict says `(t only)`. If all seeds show the
    same difference, even 0, it says `(no spread)`: neither test knows how much another seed would differ.
    """
    gain = -rows["mean"] if is_lower_better else rows["mean"]
    if margin is None:
        return _worded(rows, gain, "", "inconclusive")
    is_equal = rows["p_equal_holm"] <= LEVEL
    less = np.where(is_equal, f", by less than {margin:g}", "")
    no_more = np.where(is_equal, f"no difference beyond {margin:g}", "inconclusive")
    return _worded(rows, gain, less, no_more)


def _worded(rows: pd.DataFrame, gain: pd.Series, less: str | Words, undecided: str | Words) -> list[str]:
    """`better`, `worse (t only)`, ...; `less` follows the direction, and `undecided` is the word if there is no direction.

    Whatever the numbers are, no such word is said where the seeds of an arm have no effect.
    """
    direction = np.where(gain > 0, "better", "worse").astype(object)
    claimed = direction + less + np.where(rows["p_flip_holm"] <= LEVEL, "", " (t only)")
    has_no_spread = (rows["pairs"] > 1) & (rows["sd"] == 0)
    kinds = [rows["is_same"], rows["has_other_test"], rows["pairs"] == 0, rows["is_void"], has_no_spread, rows["p_t_holm"] <= LEVEL]
    return [str(word) for word in np.select(kinds, [SAME, NOT_COMPARABLE, "", NO_EFFECT, NO_SPREAD, claimed], undecided)]


def _of_planned(rows: pd.DataFrame, verdicts: Sequence[str]) -> list[str]:
    """The verdicts, with `parent not run` or `baseline not run` where the partner is not in the plan."""
    is_planned = rows["is_planned"] | rows["is_same"]
    known = zip(verdicts, rows["role"], is_planned, strict=True)
    return [verdict if is_there else f"{role} {NOT_RUN}" for verdict, role, is_there in known]


def class_differences(
    pairs: pd.DataFrame, recalls: Mapping[str, pd.DataFrame], classes: Sequence[str], groups: Mapping[str, str]
) -> pd.DataFrame:
    """One row per comparison and class: the recall's paired differences in points; Holm is over the arm's classes, not over arms.

    `recalls` has a frame per arm, with a row per seed and a column per class; NaN for a class without test images.
    """
    kept = pairs[pairs["arm"].isin(recalls) & pairs["against"].isin(recalls)].reset_index(drop=True)
    if kept.empty:
        return pd.DataFrame(columns=CLASS_COLUMNS)
    seeds = sorted({seed for frame in recalls.values() for seed in frame.index})
    values = {arm: frame.reindex(seeds).to_numpy(dtype=float) for arm, frame in recalls.items()}
    both = zip(kept["arm"], kept["against"], kept["has_other_test"], strict=True)
    differences_SD = np.concatenate([values[arm] - (np.nan if is_other else values[against]) for arm, against, is_other in both], axis=1)
    kinds = ["is_same", "has_other_test", "is_void", "is_planned", "is_tested"]
    rows = kept.loc[kept.index.repeat(len(classes)), ["arm", "role", "against", *kinds]].reset_index(drop=True)
    rows = pd.concat([rows, summary(100 * differences_SD)], axis=1).assign(**{"class": list(classes) * len(kept)})
    rows["group"] = [groups.get(name, "") for name in rows["class"]]
    rows.loc[~rows["is_tested"], ["p_t", "p_flip"]] = np.nan
    tests_A = (rows["pairs"].to_numpy().reshape(len(kept), -1) > 0).sum(axis=1)  # classes without spread have no p, and count all the same
    for column in ("p_t", "p_flip"):
        p_AC = rows[column].to_numpy().reshape(len(kept), -1)
        rows[ADJUSTED[column]] = np.concatenate([holm(p_C, tests) for p_C, tests in zip(p_AC, tests_A, strict=True)])
    return rows.assign(verdict=_of_planned(rows, _worded(rows, rows["mean"], "", "inconclusive")))[CLASS_COLUMNS]


def _families(pairs: pd.DataFrame) -> Iterator[Family]:
    """Per role and family: the rows that are tests, and the number of each one's hypothesis, from 0."""
    tested = pairs[pairs["is_tested"]]
    for _, part in tested.groupby(["role", "family"], sort=False):
        places = part.index.to_numpy()
        yield places, np.unique(pairs["hypothesis"].to_numpy()[places], return_inverse=True)[1]


def pooled_sd(rows: pd.DataFrame) -> float:
    """The root of the mean variance, weighted by pairs - 1; differences without spread are left out."""
    return _pooled(rows["sd"].to_numpy(), rows["pairs"].to_numpy())


def _pooled(sd_D: npt.NDArray[np.float64], pairs_D: npt.NDArray[np.int64]) -> float:
    known_D = np.isfinite(sd_D) & (sd_D > 0)
    return float(np.sqrt(np.average(np.square(sd_D[known_D]), weights=pairs_D[known_D] - 1))) if known_D.any() else float("nan")
