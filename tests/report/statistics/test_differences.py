"""Differences, families, corrections and verdicts, against SciPy and statsmodels one comparison at a time."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from ablation.report.statistics.differences import (
    CLASS_COLUMNS,
    COLUMNS,
    SAME,
    class_differences,
    comparisons,
    differences,
    is_other_test,
    verdicts,
)
from tests.report.studies import arm

NAN = math.nan
SEEDS = range(8)


def planned(*arms, **more):
    """A plan of these arms."""
    return {"arms": list(arms), **more}


def runs(metric="test/accuracy", **values):
    """Runs with these values per arm, seed by seed; NaN is a run that failed."""
    rows = [
        {"arm": name, "seed": seed, "state": "failed" if math.isnan(value) else "done", metric: value}
        for name, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    return pd.DataFrame(rows)


def noise(key, mean=0.0, sd=0.01):
    return 0.7 + np.random.default_rng(key).normal(mean, sd, len(SEEDS))


LADDER = (arm("baseline", None), arm("a", "baseline"), arm("b", "a"), arm("c", "b"))
VALUES = {"baseline": noise(0), "a": noise(1, 0.03), "b": noise(2, 0.03), "c": noise(3, 0.05)}


def row(frame, name, role="parent", metric="accuracy"):
    (only,) = frame[(frame["arm"] == name) & (frame["role"] == role) & (frame["metric"] == metric)].to_dict("records")
    return only


def test_a_row_is_what_scipy_and_statsmodels_say():
    """Mean, sd, interval and every p of each arm and role are those of the paired tests on the two arms' values, in points."""
    frame = differences(planned(*LADDER, margin=0.7), runs(**VALUES), ["test/accuracy"])
    assert list(frame.columns) == COLUMNS
    partners = {"parent": {"a": "baseline", "b": "a", "c": "b"}, "baseline": dict.fromkeys("abc", "baseline")}
    for role, against in partners.items():
        pairs = {name: (100 * VALUES[name], 100 * VALUES[other]) for name, other in against.items()}
        p_values = {name: stats.ttest_rel(*both).pvalue for name, both in pairs.items()}
        p_equal = {name: ttost_paired(*both, -0.7, 0.7)[0] for name, both in pairs.items()}
        sds = [np.std(np.subtract(*both), ddof=1) for both in pairs.values()]
        needed = math.ceil(TTestPower().solve_power(0.7 / math.sqrt(np.mean(np.square(sds))), None, 0.05 / 3, 0.8))
        for place, (name, both) in enumerate(pairs.items()):
            tested, interval = row(frame, name, role), stats.ttest_rel(*both).confidence_interval()
            assert (tested["against"], tested["family"], tested["tests"], tested["pairs"]) == (against[name], "ladder", 3, 8)
            assert (tested["mean"], tested["sd"], tested["low"], tested["high"]) == pytest.approx(
                (np.subtract(*both).mean(), sds[place], *interval)
            )
            assert (tested["p_t"], tested["p_equal"]) == pytest.approx((p_values[name], p_equal[name]))
            assert tested["p_t_holm"] == pytest.approx(multipletests(list(p_values.values()), method="holm")[1][place])
            assert tested["p_equal_holm"] == pytest.approx(multipletests(list(p_equal.values()), method="holm")[1][place])
            assert tested["seeds_needed"] == needed


def test_families_are_corrected_apart():
    """The ladder, the variants, each sweep, those with or without one rung, the grid and each condition are families of their own."""
    arms = (
        *LADDER[:3],
        arm("v", "a", "variant"),
        *(arm(f"s/{label}", "a", "sweep") for label in "xyz"),
        *(arm(f"t/{label}", "a", "sweep") for label in "xy"),
        arm("b/without-a", "b", "drop_one"), arm("baseline/with-b", "baseline", "add_one"), arm("grid/a", "baseline", "grid"),
        arm("cold/baseline", "baseline", "condition", "cold/baseline"), arm("cold/s/x", "cold/baseline", "condition", "cold/baseline"),
    )  # fmt: skip
    frame = differences(planned(*arms), runs(baseline=VALUES["baseline"]), ["test/accuracy"]).set_index(["arm", "role"])
    sizes = frame.loc[(slice(None), "parent"), :].groupby("family")["tests"].agg(["size", "first"])
    expected = {"ladder": 2, "variants": 1, "sweep s": 3, "sweep t": 2, "drop_one": 1, "add_one": 1, "grid": 1, "condition cold": 2}
    assert sizes["size"].to_dict() == sizes["first"].to_dict() == expected
    assert frame.loc[("cold/s/x", "baseline"), "tests"] == 1  # the condition's own baseline has none


def test_a_partner_that_is_not_planned_is_no_test():
    """`run --arm` may leave a parent out; the family is corrected over the comparisons that there can be."""
    frame = differences(
        planned(*LADDER[:2], arm("c", "b")), runs(baseline=VALUES["baseline"], a=VALUES["a"], c=VALUES["c"]), ["test/accuracy"]
    )
    assert frame.set_index(["arm", "role"])["tests"].to_dict() == {
        ("a", "parent"): 1, ("a", "baseline"): 2, ("c", "parent"): 0, ("c", "baseline"): 2
    }  # fmt: skip
    assert frame.set_index(["arm", "role"]).loc[("c", "parent"), "verdict"] == "parent not run"


def test_the_same_training_is_compared_once_and_never_with_itself():
    """Twins make one hypothesis, either way round; a comparison of a training with itself has no p and counts nowhere."""
    arms = (*LADDER[:3], arm("twin", "baseline", same_as="a"), arm("self", "a", same_as="a"), arm("mirror", "b", same_as="a"))
    values = {name: VALUES[name] for name in ("baseline", "a", "b")} | dict.fromkeys(("twin", "self", "mirror"), VALUES["a"])
    frame = differences(planned(*arms), runs(**values), ["test/accuracy"])
    same = row(frame, "self")
    assert (same["verdict"], same["pairs"], same["mean"]) == (SAME, 8, 0.0)
    assert all(math.isnan(same[name]) for name in ("p_t", "p_flip", "p_t_holm", "p_flip_holm", "p_equal", "p_equal_holm"))
    assert {row(frame, name)["tests"] for name in ("a", "b", "twin", "mirror")} == {2}
    p_values = [stats.ttest_rel(VALUES["a"], VALUES["baseline"]).pvalue, stats.ttest_rel(VALUES["b"], VALUES["a"]).pvalue]
    adjusted = multipletests(p_values, method="holm")[1]
    assert [row(frame, name)["p_t_holm"] for name in ("a", "twin", "b", "mirror")] == pytest.approx(np.repeat(adjusted, 2))
    assert row(frame, "mirror")["mean"] == pytest.approx(-row(frame, "b")["mean"])


@pytest.mark.parametrize("short", ["a", "twin"])
def test_another_name_with_other_seeds_has_its_own_p(short):
    """One pair claims nothing under whatever name; the test of the hypothesis is the one with the most pairs."""
    arms = (*LADDER[:3], arm("twin", "baseline", same_as="a"))
    values = {name: VALUES[name] for name in ("baseline", "a", "b")} | {"twin": VALUES["a"]}
    values[short] = [values[short][0] - 1, *[NAN] * 7]
    frame = differences(planned(*arms), runs(**values), ["test/accuracy"])
    whole, part = (row(frame, name) for name in (("twin", "a") if short == "a" else ("a", "twin")))
    assert (part["pairs"], part["verdict"]) == (1, "inconclusive")
    assert math.isnan(part["p_t_holm"])
    p_values = [stats.ttest_rel(VALUES["a"], VALUES["baseline"]).pvalue, 1.0 if short == "a" else row(frame, "b")["p_t"]]
    assert whole["p_t_holm"] == pytest.approx(multipletests(p_values, method="holm")[1][0])


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e7])
def test_a_metric_of_any_size_has_the_same_tests(size):
    """What counts as rounding grows with the metric: neither is a small effect hidden by it, nor noise of the last digit an effect."""
    ours, base = [5.4, 5.3, 5.5, 5.1, 5.6], [5.0, 5.1, 5.2, 4.9, 5.0]
    sizes = [{"name": "test/mse", "title": "MSE", "better": "lower", "unit": "m", "margin": None, "table": "", "is_headline": True}]
    plan = planned(*LADDER[:2], metrics=sizes, metric="test/mse")
    found = row(
        differences(plan, runs("test/mse", baseline=np.multiply(base, size), a=np.multiply(ours, size)), ["test/mse"]), "a", metric="mse"
    )
    assert (found["p_t"], found["p_flip"]) == pytest.approx((stats.ttest_rel(ours, base).pvalue, exact_flip(np.subtract(ours, base))))
    equal = row(
        differences(plan, runs("test/mse", baseline=np.multiply(base, size), a=np.add(base, 0.3) * size), ["test/mse"]), "a", metric="mse"
    )
    assert (equal["sd"], equal["verdict"]) == (0, "inconclusive (no spread)")


def test_a_half_done_family_is_corrected_as_planned():
    """An arm that has not run yet counts among the tests, so that the others' claims do not change when it does."""
    frame = differences(planned(*LADDER), runs(baseline=VALUES["baseline"], a=VALUES["a"]), ["test/accuracy"])
    done = row(frame, "a")
    assert done["p_t_holm"] == pytest.approx(3 * done["p_t"])
    missing = row(frame, "c")
    assert (missing["pairs"], missing["verdict"], missing["tests"]) == (0, "", 3)
    assert math.isnan(missing["mean"])


@pytest.mark.parametrize(
    ("values", "pairs", "verdict"),
    [
        ([0.8, NAN, NAN, NAN], 1, "inconclusive"),
        ([NAN, NAN, NAN, NAN], 0, ""),
        ([0.6, 0.7, 0.8, 0.5], 4, "inconclusive (no spread)"),  # equal to the baseline's
        ([0.7, 0.8, 0.9, 0.6], 4, "inconclusive (no spread)"),  # always ten points more
        ([0.7, 0.81, NAN, 0.62], 3, "better (t only)"),
    ],
)
def test_few_or_odd_pairs(values, pairs, verdict):
    """One pair, none, no difference at all, and one without spread claim nothing; seeds that only one arm finished make no pair."""
    tested = row(differences(planned(*LADDER[:2]), runs(baseline=[0.6, 0.7, 0.8, 0.5], a=values), ["test/accuracy"]), "a")
    assert (tested["pairs"], tested["verdict"]) == (pairs, verdict)
    assert math.isnan(tested["p_t"]) == (verdict != "better (t only)")


def test_an_arm_whose_partner_is_not_planned_has_no_pair():
    """A plan of some arms only compares those."""
    tested = row(differences(planned(LADDER[1]), runs(a=VALUES["a"]), ["test/accuracy"]), "a")
    assert (tested["pairs"], tested["verdict"]) == (0, "parent not run")


@pytest.mark.parametrize("plan", [planned(), planned(LADDER[0])])
def test_no_partner_no_row(plan):
    """A study of one arm, or none, compares nothing."""
    rows = differences(plan, runs(baseline=VALUES["baseline"]), ["test/accuracy", "test/nll"])
    assert rows.empty
    assert list(rows.columns) == COLUMNS


@pytest.mark.parametrize(("name", "unit"), [("nll", 1), ("ece", 100), ("accuracy", 100)])
def test_directions_and_units(name, unit):
    """Less is better of NLL and ECE; NLL differences are nats, and its tests know no margin of points."""
    values = {"baseline": VALUES["baseline"], "a": VALUES["baseline"] + np.linspace(0.1, 0.11, 8)}
    tested = row(differences(planned(*LADDER[:2]), runs(f"test/{name}", **values), [f"test/{name}"]), "a", metric=name)
    assert tested["mean"] == pytest.approx(unit * 0.105)
    assert tested["verdict"] == ("better" if name == "accuracy" else "worse")
    assert math.isnan(tested["p_equal"]) == math.isnan(tested["seeds_needed"]) == (name == "nll")


FLIP = 0.008
KINDS = {"is_same": False, "has_other_test": False, "is_void": False}
CASES = [
    ("better", {"mean": 1.0, "p_t_holm": 0.01, "p_flip_holm": FLIP}),
    ("worse", {"mean": -1.0, "p_t_holm": 0.05, "p_flip_holm": 0.05}),
    ("better (t only)", {"mean": 1.0, "p_t_holm": 0.01, "p_flip_holm": 0.25}),
    ("worse (t only)", {"mean": -1.0, "p_t_holm": 0.01}),
    ("better, by less than 0.4", {"mean": 0.1, "p_t_holm": 0.01, "p_equal_holm": 0.01, "p_flip_holm": FLIP}),
    ("worse, by less than 0.4 (t only)", {"mean": -0.1, "p_t_holm": 0.01, "p_equal_holm": 0.01, "p_flip_holm": 0.06}),
    ("no difference beyond 0.4", {"mean": 0.1, "p_t_holm": 0.2, "p_equal_holm": 0.05, "p_flip_holm": FLIP}),
    ("inconclusive", {"mean": 1.0, "p_t_holm": 0.051, "p_equal_holm": 0.051, "p_flip_holm": FLIP}),
    ("inconclusive", {"mean": 1.0}),
    ("inconclusive", {"mean": 1.0, "pairs": 1, "sd": NAN}),
    ("inconclusive (no spread)", {"mean": 1.0, "sd": 0.0, "p_flip_holm": FLIP}),
    ("inconclusive (no spread)", {"mean": 0.0, "sd": 0.0}),
    ("", {"mean": NAN, "pairs": 0, "sd": NAN}),
    (SAME, {"mean": 0.0, "sd": 0.0, "is_same": True}),
    ("not comparable (other test items)", {"mean": 5.0, "p_t_holm": 0.01, "p_flip_holm": FLIP, "has_other_test": True}),
    ("seed without effect", {"mean": 5.0, "p_t_holm": 0.01, "p_flip_holm": FLIP, "p_equal_holm": 0.01, "is_void": True}),
    ("seed without effect", {"mean": 0.0, "sd": 0.0, "is_void": True}),
]


@pytest.mark.parametrize(("words", "numbers"), CASES)
def test_verdicts(words, numbers):
    """The words follow from the adjusted p values, the t test's deciding and the sign-flip test's confirming."""
    rows = pd.DataFrame([{"pairs": 8, "sd": 1.0, **KINDS, "p_t_holm": NAN, "p_flip_holm": NAN, "p_equal_holm": NAN} | numbers])
    assert verdicts(rows, 0.4, is_lower_better=False) == [words]
    turned = rows.assign(mean=-rows["mean"])
    assert verdicts(turned, 0.4, is_lower_better=True) == [words]


def test_other_test_items_make_no_pair():
    """There is nothing to compute a mean, an interval or a p of, neither of arms nor of classes; the others keep theirs."""
    plan = planned(*LADDER[:2], arm("other", "baseline", test_set={0: "x", 1: "z"}), arm("alike", "baseline", test_set={2: "y"}))
    plan["arms"][0] = {**plan["arms"][0], "test_set": {1: "y"}}
    rows = differences(plan, runs(**{one["name"]: VALUES["a"] for one in plan["arms"]}), ["test/accuracy"]).set_index(["arm", "role"])
    assert rows.loc["other", "pairs"].tolist() == [0, 0]
    assert rows.loc["other", ["mean", "sd", "low", "high", "p_t", "p_flip"]].isna().all(axis=None)
    assert rows.loc[["a", "alike"], "pairs"].tolist() == [8] * 4
    recall = pd.DataFrame({"w": [0.5, 0.6, 0.8]})
    recalls = {"baseline": recall, "other": recall.iloc[::-1].reset_index(drop=True), "alike": recall}
    of_classes = class_differences(comparisons(plan), recalls, ["w"], {}).set_index(["arm", "role"])
    assert of_classes.loc["other", "pairs"].tolist() == [0, 0]
    assert of_classes.loc["other", ["mean", "low", "high"]].isna().all(axis=None)
    assert of_classes.loc["alike", "pairs"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("test_sets", "is_other"),
    [
        (["x", "x", None, ""], False),
        (["x", None, "y"], True),
        ([{0: "a", 1: "b"}, {1: "b", 2: "c"}, {}, {2: "c"}], False),
        ([{0: "a"}, {1: "b"}, {0: "a", 1: "c"}], True),
    ],
)
def test_test_sets_are_other_ones_where_any_two_are_known_to_differ(test_sets, is_other):
    """Of all seeds, or of a seed that two of them have."""
    assert is_other_test(*test_sets) == is_other


def test_the_families_sd_is_pooled():
    """Each variance counts by its degrees of freedom, and arms that differ by the same in all seeds tell nothing of the spread."""
    base = VALUES["baseline"]
    few = [*noise(5)[:3], *[NAN] * 5]
    arms = (arm("baseline", None), *(arm(name, "baseline") for name in ("a", "few", "constant", "one")))
    values = {"baseline": base, "a": VALUES["a"], "few": few, "constant": base + 0.1, "one": [0.9, *[NAN] * 7]}
    rows = differences(planned(*arms), runs(**values), ["test/accuracy"])
    variances = [np.var(100 * (VALUES["a"] - base), ddof=1), np.var(100 * (np.array(few) - base)[:3], ddof=1)]
    sd = math.sqrt((7 * variances[0] + 2 * variances[1]) / 9)
    needed = math.ceil(TTestPower().solve_power(0.5 / sd, None, 0.05 / 4, 0.8))
    assert set(rows["seeds_needed"]) == {needed}


def test_more_seeds_than_anyone_has_are_infinitely_many():
    """A margin far below the spread takes more than a thousand seeds, which is not the same as no number."""
    wide = differences(planned(*LADDER[:2], margin=0.01), runs(baseline=VALUES["baseline"], a=VALUES["a"]), ["test/accuracy"])
    assert set(wide["seeds_needed"]) == {math.inf}
    constant = runs(baseline=VALUES["baseline"], a=VALUES["baseline"] + 0.1)
    assert differences(planned(*LADDER[:2], margin=0.01), constant, ["test/accuracy"])["seeds_needed"].isna().all()


def test_infinite_numbers_make_no_pairs():
    """A run whose NLL is infinite is left out of the differences, wherever it is, and also where both arms' are."""
    base, ours = noise(0), noise(1)
    base[0] = ours[0] = ours[3] = math.inf
    tested = row(differences(planned(*LADDER[:2]), runs("test/nll", baseline=base, a=ours), ["test/nll"]), "a", metric="nll")
    rest = [1, 2, 4, 5, 6, 7]
    assert (tested["pairs"], tested["mean"]) == (6, pytest.approx((ours[rest] - base[rest]).mean()))
    assert tested["p_t"] == pytest.approx(stats.ttest_rel(ours[rest], base[rest]).pvalue)


def test_the_plan_of_old_has_a_margin():
    """A plan recorded without a margin is judged by half a point."""
    close = runs(baseline=VALUES["baseline"], a=VALUES["baseline"] + np.linspace(-0.001, 0.001, 8))
    assert row(differences(planned(*LADDER[:2]), close, ["test/accuracy"]), "a")["verdict"] == "no difference beyond 0.5"
    assert row(differences(planned(*LADDER[:2], margin=0.02), close, ["test/accuracy"]), "a")["verdict"] == "inconclusive"


# --- classes -------------------------------------------------------------------------------------------------------------------------


def test_class_differences_equal_scipy():
    """Recall by recall the paired t test's numbers in points, adjusted over the arm's classes; a class without images is no test."""
    generator = np.random.default_rng(0)
    recalls = {name: pd.DataFrame(generator.uniform(0, 1, (5, 4)), index=range(5), columns=list("wxyz")) for name in ("baseline", "a", "b")}
    recalls["a"]["x"] += 2
    recalls["a"]["z"] = NAN
    recalls["b"] = recalls["b"].iloc[1:]
    groups = {"w": "many", "x": "few", "y": "few"}
    frame = class_differences(comparisons(planned(*LADDER[:3])), recalls, list("wxyz"), groups)
    assert list(frame.columns) == CLASS_COLUMNS
    assert len(frame) == 4 * 4
    for name, role, other in (("a", "parent", "baseline"), ("b", "parent", "a"), ("b", "baseline", "baseline")):
        part = frame[(frame["arm"] == name) & (frame["role"] == role)].set_index("class")
        ours, theirs = (100 * recalls[letter].loc[(1 if name == "b" else 0) :] for letter in (name, other))
        tested = [letter for letter in "wxyz" if not ("a" in (name, other) and letter == "z")]
        expected = {letter: stats.ttest_rel(ours[letter], theirs[letter]) for letter in tested}
        adjusted = multipletests([letter.pvalue for letter in expected.values()], method="holm")[1]
        assert part.loc[tested, "p_t_holm"].tolist() == pytest.approx(list(adjusted))
        for letter, result in expected.items():
            assert part.loc[letter, ["mean", "low", "high", "p_t"]].tolist() == pytest.approx(
                [(ours[letter] - theirs[letter]).mean(), *result.confidence_interval(), result.pvalue]
            )
        assert part["group"].tolist() == ["many", "few", "few", ""]
        assert part["pairs"].tolist() == [len(ours)] * 3 + [len(ours) if "z" in tested else 0]
        flipped = multipletests([exact_flip(ours[letter] - theirs[letter]) for letter in tested], method="holm")[1]
        assert part.loc[tested, "p_flip_holm"].tolist() == pytest.approx(list(flipped))
    verdicts_of = frame.set_index(["arm", "role", "class"])["verdict"]
    assert verdicts_of[[("a", "parent", letter) for letter in "wxz"]].tolist() == ["inconclusive", "better (t only)", ""]


def test_classes_without_spread_are_tests_too():
    """A class that no seed changes has no p, and takes nothing from the number of tests."""
    base = pd.DataFrame({"w": [0.5, 0.52, 0.55, 0.5], **{name: [0.9] * 4 for name in "xyz"}})
    ours = base.assign(w=[0.6, 0.63, 0.64, 0.62])
    rows = class_differences(comparisons(planned(*LADDER[:2])), {"baseline": base, "a": ours}, list("wxyz"), {})
    first = rows[rows["role"] == "parent"].set_index("class").loc["w"]
    assert first["p_t_holm"] == pytest.approx(4 * first["p_t"])


def exact_flip(differences_S):
    """The share of sign patterns whose mean is as far from 0, by SciPy."""
    return stats.permutation_test((differences_S,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False).pvalue


@pytest.mark.parametrize(
    ("seeds", "change", "verdict"),
    [
        (5, (0.1, 0.12), "better (t only)"),
        (8, (0.1, 0.12), "better"),
        (8, (-0.1, -0.12), "worse"),
        (8, (0.1, 0.1), "inconclusive (no spread)"),
        (8, (0.0, 0.0), "inconclusive (no spread)"),
        (1, (0.1, 0.1), "inconclusive"),
    ],
)
def test_verdicts_of_classes(seeds, change, verdict):
    """They say `(t only)` and `(no spread)` as those of arms do."""
    base = pd.DataFrame({"w": np.linspace(0.5, 0.6, seeds), "x": np.linspace(0.2, 0.9, seeds)})
    ours = pd.DataFrame({"w": base["w"] + np.linspace(*change, seeds), "x": base["x"].to_numpy()[::-1]})
    rows = class_differences(comparisons(planned(*LADDER[:2])), {"baseline": base, "a": ours}, ["w", "x"], {})
    assert rows[rows["role"] == "parent"].set_index("class")["verdict"]["w"] == verdict


def test_class_differences_without_runs():
    """Arms without predictions have no rows, and twins no test."""
    pairs = comparisons(planned(*LADDER[:2], arm("twin", "a", same_as="a")))
    assert class_differences(pairs, {}, ["w"], {}).empty
    recall = pd.DataFrame({"w": [0.5, 0.6]})
    rows = class_differences(pairs, {"a": recall, "twin": recall}, ["w"], {})
    assert rows["verdict"].tolist() == [SAME]
    assert rows["p_t_holm"].isna().all()
