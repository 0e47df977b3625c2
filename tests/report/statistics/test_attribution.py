"""What rungs are worth in other orders, what crossed settings do, what conditions alter, and who paid."""

import itertools
import json
import math
import statistics as plain
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablation.planning.describe import describe
from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedState
from ablation.report.statistics.attribution import ATTRIBUTION, CONDITIONS, EFFECTS, attribution, conditions, effects, shapley, trades
from ablation.report.statistics.differences import differences as all_differences
from tests.studies import BASE, planner, study

METRIC = "test/accuracy"
LADDER = {
    "baseline": {},
    "cb": {"sampler": "class_balanced"},
    "mixup": {"mix": "mixup"},
    "ls": {"smoothing": "label_smoothing"},
}
RUNGS = ("cb", "mixup", "ls")
NO_LAG = {"average": {"name": "ema", "decay": 0.9}}
CROSS = {"batch_size": [32, 64, 16], "loss": {"plain": {}, "focal": {"loss": "focal"}}, "tta": ["none", "hflip"]}


def planned(folder, seeds=(0, 1, 2, 3), only=None, **sections):
    """The recorded plan of a study, as it comes back from JSON."""
    resolved = study(folder, seeds=seeds, base={**BASE, "epochs": 1}, **sections)
    names = [arm.name for arm in resolved.arms if only is None or arm.name in only]
    of_images = planner(resolved)
    plan = make_plan(resolved, resolved.seeds, names, of_images, RecordedState())
    return json.loads(json.dumps(describe(plan, of_images)))


def ran(plan, metric=METRIC, absent=(), value=None):
    """A run of every arm and seed, arms that resolve alike having the same numbers."""
    rows = []
    for arm, seed in itertools.product(plan["arms"], plan["seeds"]):
        name = arm["same_as"] or arm["name"]
        number = float(np.random.default_rng([seed, *name.encode()]).uniform(0.5, 0.9)) if value is None else value(arm, seed)
        is_there = (arm["name"], seed) not in absent
        rows.append({"arm": arm["name"], "seed": seed, "state": "done" if is_there else "failed", metric: number if is_there else math.nan})
    return pd.DataFrame(rows)


def values(runs, arm, metric=METRIC):
    """A plain list of an arm's values, seed by seed."""
    return runs[runs["arm"] == arm].sort_values("seed")[metric].tolist()


def minus(runs, arm, against, scale=100):
    return [scale * (a - b) for a, b in zip(values(runs, arm), values(runs, against), strict=True)]


def ways(frame, condition=""):
    rows = frame[frame["condition"] == condition]
    return list(rows[["rung", "way", "arm", "against"]].itertuples(index=False, name=None))


def assert_summary(row, differences):
    """A row tells the pairs, the mean, the sd, the interval and the p of a paired t test, and an exact sign-flip test."""
    count, mean, sd = len(differences), plain.mean(differences), plain.stdev(differences)
    half = stats.t.ppf(0.975, count - 1) * sd / math.sqrt(count)
    flipped = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) for signs in itertools.product((1, -1), repeat=count)
    ]
    expected = {
        "pairs": count,
        "mean": mean,
        "sd": sd,
        "low": mean - half,
        "high": mean + half,
        "p_t": stats.ttest_1samp(differences, 0).pvalue,
        "p_flip": sum(value >= abs(sum(differences)) - 1e-9 for value in flipped) / len(flipped),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)


# --- rungs -----------------------------------------------------------------------------------------------------------------------


LADDER_STEPS = [("cb", "ladder", "cb", "baseline"), ("mixup", "ladder", "mixup", "cb"), ("ls", "ladder", "ls", "mixup")]
FIRST_IN = [("cb", "first in", "cb", "baseline"), *((rung, "first in", f"baseline/with-{rung}", "baseline") for rung in ("mixup", "ls"))]
LAST_OUT = [*((rung, "last out", "ls", f"ls/without-{rung}") for rung in ("cb", "mixup")), ("ls", "last out", "ls", "mixup")]
ALIKE = {
    "alone": {"mix": {"name": "mixup"}},
    "reweight": {"sampler": "class_balanced"},
    "other": {"of": "cb", "smoothing": "label_smoothing"},
}


def in_order(*steps):
    """The steps by rung, as the table has them."""
    return sorted(steps, key=lambda step: (RUNGS.index(step[0]), ("ladder", "first in", "last out", "shapley").index(step[1])))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, LADDER_STEPS),
        ({"add_one": ["baseline"]}, [*LADDER_STEPS, *FIRST_IN]),
        ({"drop_one": ["ls"]}, [*LADDER_STEPS, *LAST_OUT]),
        ({"drop_one": ["ls"], "add_one": ["baseline"]}, [*LADDER_STEPS, *FIRST_IN, *LAST_OUT]),
        ({"variants": {"reweight": {"sampler": "class_balanced"}}}, LADDER_STEPS),
        ({"variants": ALIKE}, [*LADDER_STEPS, FIRST_IN[0], ("mixup", "first in", "alone", "baseline")]),
        (
            {"sweeps": {"s": {"over": {"smoothing.epsilon": [0.1, 0.3]}, "smoothing": "label_smoothing"}}},
            [*LADDER_STEPS, FIRST_IN[0], ("ls", "first in", "s/0.1", "baseline")],
        ),
        ({"add_one": ["baseline"], "variants": ALIKE}, [*LADDER_STEPS, *FIRST_IN]),
        ({"add_one": ["cb", "baseline"]}, [*LADDER_STEPS, *FIRST_IN]),
        ({"add_one": ["cb"]}, LADDER_STEPS),
        ({"drop_one": ["mixup", "ls"]}, [*LADDER_STEPS, *LAST_OUT]),
        (
            {"drop_one": ["mixup"]},
            [*LADDER_STEPS, ("cb", "last out", "mixup", "mixup/without-cb"), ("mixup", "last out", "mixup", "cb")],
        ),
        ({"grid": {"of": "cb", "rungs": ["ls"]}}, LADDER_STEPS),
        (
            {"grid": {"of": "cb", "rungs": ["mixup", "ls"]}},
            [
                *LADDER_STEPS,
                ("mixup", "last out", "grid/mixup+ls", "grid/ls"),
                ("ls", "last out", "grid/mixup+ls", "grid/mixup"),
                *((rung, "shapley", "grid/mixup+ls", "cb") for rung in ("mixup", "ls")),
            ],
        ),
        (
            {"grid": {"rungs": ["ls", "cb"]}},
            [
                *LADDER_STEPS,
                FIRST_IN[0],
                ("ls", "first in", "grid/ls", "baseline"),
                ("cb", "last out", "grid/cb+ls", "grid/ls"),
                ("ls", "last out", "grid/cb+ls", "grid/cb"),
                *((rung, "shapley", "grid/cb+ls", "baseline") for rung in ("cb", "ls")),
            ],
        ),
    ],
)
def test_ways(tmp_path, sections, expected):
    """Each way in which the plan's arms add a rung is told once, with the arm that has the rung and the one that has it not."""
    plan = planned(tmp_path, ladder=LADDER, **sections)
    rows = attribution(plan, ran(plan), [METRIC])
    assert ways(rows) == in_order(*expected)
    assert list(rows.columns) == ATTRIBUTION
    assert set(rows["metric"]) == {"accuracy"}
    assert not rows.duplicated(["rung", "condition", "way"]).any()


def test_arms_that_resolve_alike_are_told_once(tmp_path):
    """Where drop_one, add_one and the whole grid make the same trainings, each difference has one row, the grid's Shapley values beside."""
    plan = planned(tmp_path, ladder=LADDER, drop_one=["ls"], add_one=["baseline"], grid={"rungs": list(RUNGS)})
    rows = attribution(plan, ran(plan), [METRIC])
    values = [(rung, "shapley", "grid/cb+mixup+ls", "baseline") for rung in RUNGS]
    assert ways(rows) == in_order(*LADDER_STEPS, *FIRST_IN, *LAST_OUT, *values)


def test_differences_of_rungs(tmp_path):
    """Every row is the paired difference of its arms, in points, over the seeds that both finished."""
    plan = planned(tmp_path, ladder=LADDER, drop_one=["ls"], add_one=["baseline"])
    runs = ran(plan)
    for row in attribution(plan, runs, [METRIC]).to_dict("records"):
        assert_summary(row, minus(runs, row["arm"], row["against"]))
    holes = ran(plan, absent={("mixup", 1), ("cb", 2)})
    rows = attribution(plan, holes, [METRIC]).set_index(["rung", "way"])
    assert_summary(rows.loc["mixup", "ladder"], [value for value in minus(holes, "mixup", "cb") if not math.isnan(value)])
    assert rows.loc["mixup", "ladder"]["pairs"] == 2
    assert rows.loc["ls", "first in"]["pairs"] == 4


def test_nats(tmp_path):
    """Differences of the NLL are in nats, not in points."""
    plan = planned(tmp_path, ladder=LADDER)
    runs = ran(plan, "test/nll")
    first = attribution(plan, runs, ["test/nll"]).iloc[0]
    expected = plain.mean(a - b for a, b in zip(values(runs, "cb", "test/nll"), values(runs, "baseline", "test/nll"), strict=True))
    assert (first["metric"], first["mean"]) == ("nll", pytest.approx(expected))


def test_rungs_within_conditions(tmp_path):
    """A condition has its own rows out of its own arms; a step over a rung that the condition leaves out is none of one rung."""
    some = {"average": {"name": "ema", "decay": 0.5}, "arms": ["baseline", "cb", "ls", "ls/without-cb", "baseline/with-ls"]}
    plan = planned(tmp_path, ladder=LADDER, drop_one=["ls"], add_one=["baseline"], conditions={"no-lag": NO_LAG, "some": some})
    runs = ran(plan)
    rows = attribution(plan, runs, [METRIC])
    everything = in_order(*LADDER_STEPS, *FIRST_IN, *LAST_OUT)
    assert ways(rows) == everything
    assert ways(rows, "no-lag") == [(rung, way, f"no-lag/{arm}", f"no-lag/{against}") for rung, way, arm, against in everything]
    assert ways(rows, "some") == [
        ("cb", "ladder", "some/cb", "some/baseline"),
        ("cb", "first in", "some/cb", "some/baseline"),
        ("cb", "last out", "some/ls", "some/ls/without-cb"),
        ("ls", "first in", "some/baseline/with-ls", "some/baseline"),
    ]
    for row in rows[rows["condition"] != ""].to_dict("records"):
        assert_summary(row, minus(runs, row["arm"], row["against"]))


def test_a_part_of_the_plan(tmp_path):
    """Of a plan with some arms only, the rows are those of which both arms are there; an old plan without factors has its ladder."""
    part = planned(tmp_path, ladder=LADDER, drop_one=["ls"], grid={"rungs": ["cb", "ls"]}, only={"ls", "ls/without-cb", "grid/ls", "mixup"})
    assert ways(attribution(part, ran(part), [METRIC])) == [
        ("ls", "ladder", "ls", "mixup"),
        ("ls", "last out", "ls", "mixup"),
        ("cb", "last out", "ls", "ls/without-cb"),
    ]
    old = planned(tmp_path, ladder=LADDER, drop_one=["ls"], conditions={"c": NO_LAG})
    for arm in old["arms"]:
        del arm["factors"]
    assert ways(attribution(old, ran(old), [METRIC])) == LADDER_STEPS
    alone = planned(tmp_path, ladder=LADDER, conditions={"c": NO_LAG}, drop_one=["ls"], only={"c/ls", "c/ls/without-mixup"})
    assert ways(attribution(alone, ran(alone), [METRIC]), "c") == [("mixup", "last out", "c/ls", "c/ls/without-mixup")]


# --- Shapley ---------------------------------------------------------------------------------------------------------------------


def by_orders(worth, rungs):
    """Shapley values as the mean over all orders of what each rung adds where it comes in."""
    total = dict.fromkeys(rungs, 0.0)
    for order in itertools.permutations(rungs):
        for position, rung in enumerate(order):
            total[rung] += worth(frozenset(order[: position + 1])) - worth(frozenset(order[:position]))
    return {rung: sum_of_gains / math.factorial(len(rungs)) for rung, sum_of_gains in total.items()}


def name_of(members):
    return "grid/" + "+".join(rung for rung in RUNGS if rung in members) if members else "baseline"


@pytest.mark.parametrize("condition", ["", "no-lag"])
def test_shapley_values(tmp_path, condition):
    """They are means over all orders, seed by seed, of the seeds with all subsets; and they sum to all rungs minus none."""
    prefix = f"{condition}/" if condition else ""
    plan = planned(tmp_path, ladder=LADDER, grid={"rungs": ["ls", "cb", "mixup"]}, conditions={"no-lag": NO_LAG})
    runs = ran(plan, absent={(f"{prefix}grid/mixup+ls", 1)})
    number = runs.set_index(["arm", "seed"])[METRIC]
    all_rows = attribution(plan, runs, [METRIC])
    rows = all_rows[(all_rows["way"] == "shapley") & (all_rows["condition"] == condition)].set_index("rung")
    seeds = (0, 2, 3)
    expected = [by_orders(lambda members, seed=seed: 100 * number[prefix + name_of(members), seed], RUNGS) for seed in seeds]
    for rung in RUNGS:
        assert_summary(rows.loc[rung], [by_rung[rung] for by_rung in expected])
        assert (rows.loc[rung, "arm"], rows.loc[rung, "against"]) == (f"{prefix}grid/cb+mixup+ls", f"{prefix}baseline")
    whole = plain.mean(100 * (number[f"{prefix}grid/cb+mixup+ls", seed] - number[f"{prefix}baseline", seed]) for seed in seeds)
    assert rows["mean"].sum() == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("num_rungs", [1, 2, 3, 5])
def test_shapley_sums_to_the_whole(num_rungs):
    """Whatever the numbers, each seed's values sum to all rungs minus none, and equal the means over orders."""
    cube = np.random.default_rng(num_rungs).normal(size=(4, *(2,) * num_rungs))
    phi_SK = shapley(cube)
    assert phi_SK.shape == (4, num_rungs)
    ends = cube.reshape(4, -1)
    np.testing.assert_allclose(phi_SK.sum(axis=1), ends[:, -1] - ends[:, 0], rtol=0, atol=1e-12)
    for seed in range(4):
        expected = by_orders(lambda members, seed=seed: cube[(seed, *(int(i in members) for i in range(num_rungs)))], range(num_rungs))
        np.testing.assert_allclose(phi_SK[seed], list(expected.values()), rtol=0, atol=1e-12)


def test_shapley_of_known_games():
    """Two gloves of one hand and one of the other share as 1/6, 1/6, 2/3; a sum of parts gives each its part; no seeds give none."""
    gloves = np.zeros((1, 2, 2, 2))
    gloves[0, 1, 0, 1] = gloves[0, 0, 1, 1] = gloves[0, 1, 1, 1] = 1
    np.testing.assert_allclose(shapley(gloves), [[1 / 6, 1 / 6, 2 / 3]])
    parts = np.array([[[0.0, 3.0], [5.0, 8.0]]])
    np.testing.assert_allclose(shapley(parts), [[5, 3]])
    assert shapley(np.empty((0, 2, 2))).shape == (0, 2)


def test_a_grid_of_many_rungs_is_quick():
    """Twelve rungs, four thousand subsets, take a moment."""
    began = time.process_time()
    shapley(np.random.default_rng(0).normal(size=(3, *(2,) * 12)))
    assert time.process_time() - began < 2


# --- effects ---------------------------------------------------------------------------------------------------------------------


def test_effects_of_a_crossed_sweep(tmp_path):
    """Main effects and interactions are differences of means over the other axes, paired by seed, of the seeds with all cells."""
    plan = planned(tmp_path, sweeps={"x": {"over": CROSS}})
    runs = ran(plan, absent={("x/16/focal/none", 2)})
    number = runs.set_index(["arm", "seed"])[METRIC]
    rows = effects(plan, runs, [METRIC]).set_index("term")

    def mean(seed, **fixed):
        axes = {"batch_size": ("32", "64", "16"), "loss": ("plain", "focal"), "tta": ("none", "hflip")}
        cells = itertools.product(*((fixed[axis],) if axis in fixed else levels for axis, levels in axes.items()))
        return plain.mean(100 * number["/".join(["x", *cell]), seed] for cell in cells)

    assert list(rows[rows["kind"] == "main"].index) == [
        "batch_size: 64 against 32",
        "batch_size: 16 against 32",
        "loss: focal against plain",
        "tta: hflip against none",
    ]
    assert_summary(rows.loc["batch_size: 16 against 32"], [mean(s, batch_size="16") - mean(s, batch_size="32") for s in (0, 1, 3)])
    assert_summary(rows.loc["tta: hflip against none"], [mean(s, tta="hflip") - mean(s, tta="none") for s in (0, 1, 3)])
    assert list(rows[rows["kind"] == "interaction"].index) == [
        "batch_size x loss: 64 and focal against 32 and plain",
        "batch_size x loss: 16 and focal against 32 and plain",
        "batch_size x tta: 64 and hflip against 32 and none",
        "batch_size x tta: 16 and hflip against 32 and none",
        "loss x tta: focal and hflip against plain and none",
    ]
    expected = [
        (mean(s, batch_size="16", loss="focal") - mean(s, batch_size="16", loss="plain"))
        - (mean(s, batch_size="32", loss="focal") - mean(s, batch_size="32", loss="plain"))
        for s in (0, 1, 3)
    ]
    assert_summary(rows.loc["batch_size x loss: 16 and focal against 32 and plain"], expected)
    assert set(rows["group"]) == {"x"}
    assert list(rows.reset_index()[EFFECTS].columns) == list(effects(plan, runs, [METRIC]).columns)


def test_effects_of_a_grid_are_a_factorial(tmp_path):
    """A grid's effects are the coefficients of least squares in which each rung is minus or plus a half, and each seed has its level."""
    formula = pytest.importorskip("statsmodels.formula.api", reason="the independent figures are statsmodels'")
    plan = planned(tmp_path, ladder=LADDER, grid={"rungs": list(RUNGS)})
    runs = ran(plan)
    rows = []
    for size in range(4):
        for members in itertools.combinations(RUNGS, size):
            halves = {rung: 0.5 if rung in members else -0.5 for rung in RUNGS}
            rows += [{"y": 100 * y, "seed": seed, **halves} for seed, y in enumerate(values(runs, name_of(members)))]
    fitted = formula.ols("y ~ C(seed) + cb * mixup * ls", pd.DataFrame(rows)).fit().params
    means = effects(plan, runs, [METRIC]).set_index("term")["mean"]
    assert means.to_dict() == pytest.approx(
        {
            **{f"{rung}: with against without": fitted[rung] for rung in RUNGS},
            **{f"{a} x {b}: with and with against without and without": fitted[f"{a}:{b}"] for a, b in itertools.combinations(RUNGS, 2)},
        }
    )


def test_effects_of_one_axis(tmp_path):
    """Of one axis each level is compared with the first, over the seeds of those two."""
    plan = planned(tmp_path, sweeps={"e": {"smoothing": "label_smoothing", "over": {"smoothing.epsilon": [0.1, 0.2, 0.3]}}})
    runs = ran(plan, absent={("e/0.3", 0)})
    rows = effects(plan, runs, [METRIC])
    assert rows[["group", "kind", "term"]].to_numpy().tolist() == [
        ["e", "main", "smoothing.epsilon: 0.2 against 0.1"],
        ["e", "main", "smoothing.epsilon: 0.3 against 0.1"],
    ]
    assert_summary(rows.iloc[0], minus(runs, "e/0.2", "e/0.1"))
    assert_summary(rows.iloc[1], minus(runs, "e/0.3", "e/0.1")[1:])


def test_effects_within_conditions(tmp_path):
    """A condition's sweep is a group of its own, named as its arms are; without all its points a crossed one has no effects."""
    crossed = {"over": {"batch_size": [32, 64], "tta": ["none", "hflip"]}}
    some = {"average": {"name": "ema", "decay": 0.5}, "arms": ["x/32/*", "x/64/none"]}
    plan = planned(tmp_path, sweeps={"x": crossed}, conditions={"no-lag": NO_LAG, "some": some})
    runs = ran(plan)
    rows = effects(plan, runs, [METRIC])
    assert rows["group"].tolist() == ["x"] * 3 + ["no-lag/x"] * 3
    half = [
        (a + b) / 2 for a, b in zip(*(minus(runs, f"no-lag/x/64/{tta}", f"no-lag/x/32/{tta}") for tta in ("none", "hflip")), strict=True)
    ]
    assert_summary(rows.iloc[3], half)


def test_infinite_numbers_are_in_no_difference(tmp_path):
    """A run whose NLL is infinite makes no pair, in any table."""
    grid, sweep = {"rungs": list(RUNGS)}, {"x": {"over": {"batch_size": [32, 64], "tta": ["none", "hflip"]}}}
    plan = planned(tmp_path, ladder=LADDER, grid=grid, sweeps=sweep, conditions={"no-lag": NO_LAG})
    metric = "test/nll"
    runs = ran(plan, metric)
    lost = runs["seed"] == 1
    finite = runs.assign(**{metric: runs[metric].mask(lost)})
    infinite = runs.assign(**{metric: runs[metric].mask(lost, math.inf)})
    for table in (attribution, effects):
        pd.testing.assert_frame_equal(table(plan, infinite, metric), table(plan, finite, metric))
    same = [name for name in CONDITIONS if name not in ("n", "mean", "sd")]
    pd.testing.assert_frame_equal(conditions(plan, infinite, [metric])[same], conditions(plan, finite, [metric])[same])


def test_effects_are_corrected_by_group(tmp_path):
    """Holm is over all terms of a group, the main effects and the interactions together."""
    plan = planned(tmp_path, sweeps={"x": {"over": CROSS}, "e": {"over": {"epochs": [2, 3]}}})
    rows = effects(plan, ran(plan), [METRIC])
    assert rows.groupby(["group", "kind"]).size().to_dict() == {("e", "main"): 1, ("x", "interaction"): 5, ("x", "main"): 4}
    for _, part in rows.groupby("group"):
        ordered = part.sort_values("p_t")
        highest, expected = 0.0, []
        for rank, p in enumerate(ordered["p_t"]):
            highest = max(highest, min(1.0, p * (len(part) - rank)))
            expected.append(highest)
        assert ordered["p_t_holm"].tolist() == pytest.approx(expected)


def test_effects_of_an_unfinished_sweep_are_corrected_as_planned(tmp_path):
    """Terms without a number yet are tests all the same."""
    plan = planned(tmp_path, sweeps={"e": {"over": {"epochs": [2, 3, 4, 5]}}})
    values = ran(plan)
    found = {
        state: effects(plan, frame, [METRIC]).iloc[0]
        for state, frame in (("all", values), ("some", values[~values["arm"].isin(["e/4", "e/5"])]))
    }
    assert found["some"]["p_t_holm"] == pytest.approx(min(1, 3 * found["some"]["p_t"]))
    assert found["all"]["p_t"] == pytest.approx(found["some"]["p_t"])


def test_a_choice_is_no_level(tmp_path):
    """The arm that chooses among a sweep's points is none of its levels, and an axis of one level has no effect."""
    base = {**BASE, "data": {"name": "digits", "validation": 0.1}}
    resolved = study(tmp_path, base=base, sweeps={"t": {"posthoc": "tau_norm", "over": {"posthoc.tau": [0.5, 1.0]}, "choose": "val/nll"}})
    names, of_images = [arm.name for arm in resolved.arms], planner(resolved)
    plan = describe(make_plan(resolved, resolved.seeds, names, of_images, RecordedState()), of_images)
    assert "t/best" in names
    assert effects(plan, ran(plan), [METRIC])["term"].tolist() == ["posthoc.tau: 1.0 against 0.5"]
    single = planned(tmp_path, sweeps={"x": {"over": {"batch_size": [32], "tta": ["hflip", "vflip"]}}})
    assert effects(single, ran(single), [METRIC])["term"].tolist() == ["tta: vflip against hflip"]


@pytest.mark.parametrize("table", [attribution, effects, conditions])
def test_nothing_to_tell(tmp_path, table):
    """Without rungs, axes or conditions a table has its columns and no rows; without a run its rows have no pairs."""
    columns = {attribution: ATTRIBUTION, effects: EFFECTS, conditions: CONDITIONS}[table]
    bare = planned(tmp_path)
    empty = table(bare, ran(bare), [METRIC])
    assert (list(empty.columns), len(empty)) == (columns, 0)
    plan = planned(tmp_path, ladder=LADDER, grid={"rungs": list(RUNGS)}, sweeps={"x": {"over": CROSS}}, conditions={"c": NO_LAG})
    none = table(plan, ran(plan).assign(state="missing"), [METRIC])
    assert len(none) > 0
    assert set(none["pairs"]) == {0}
    single = table(plan, ran(plan).query("seed == 0"), [METRIC])
    assert set(single["pairs"]) == {1}
    assert single["p_t"].isna().all()
    whole = table(plan, ran(plan), [METRIC])
    assert [name for name in ("rung", "way", "term", "arm") if name in columns and not none[name].equals(whole[name])] == []


# --- conditions ------------------------------------------------------------------------------------------------------------------


def test_conditions_side_by_side(tmp_path):
    """Each arm of a condition has its own mean and sd as fractions, and its paired difference to the plain arm in points."""
    some = {"average": {"name": "ema", "decay": 0.5}, "arms": ["cb"]}
    plan = planned(tmp_path, ladder=LADDER, conditions={"no-lag": NO_LAG, "some": some})
    runs = ran(plan, absent={("no-lag/cb", 0), ("cb", 1)})
    frame = conditions(plan, runs, [METRIC])
    assert list(frame.columns) == CONDITIONS
    assert list(zip(frame["arm"], frame["condition"], strict=True)) == [*((name, "no-lag") for name in LADDER), ("cb", "some")]
    rows = frame.set_index(["condition", "arm"])
    for condition, arm in rows.index:
        arm_values = [value for value in values(runs, f"{condition}/{arm}") if not math.isnan(value)]
        row = rows.loc[(condition, arm)]
        expected = (len(arm_values), pytest.approx(plain.mean(arm_values)), pytest.approx(plain.stdev(arm_values)))
        assert (row["n"], row["mean"], row["sd"]) == expected
        differences = [value for value in minus(runs, f"{condition}/{arm}", arm) if not math.isnan(value)]
        test = stats.ttest_1samp(differences, 0)
        numbers = [row[name] for name in ("pairs", "difference", "difference_sd", "low", "high", "p_t")]
        interval = test.confidence_interval()
        assert numbers == pytest.approx([len(differences), plain.mean(differences), plain.stdev(differences), *interval, test.pvalue])
    assert rows.loc[("no-lag", "cb"), "pairs"] == 2


def with_test_sets(plan, **sets):
    """The plan, in which these arms (`__` for `/`) have other test items than the rest."""
    names = {name.replace("__", "/").replace("_", "-"): tested for name, tested in sets.items()}
    return {**plan, "arms": [{**arm, "test_set": names.get(arm["name"], "x")} for arm in plan["arms"]]}


def test_other_test_items_make_no_pair(tmp_path):
    """Neither of a rung's step, nor in a sweep, a grid or a condition; each arm keeps its own mean, and the others their pairs."""
    numbers = ["mean", "sd", "low", "high", "p_t"]
    plan = planned(
        tmp_path,
        ladder={"baseline": {}, "cb": LADDER["cb"], "mixup": LADDER["mixup"]},
        grid={"rungs": ["cb", "mixup"]},
        conditions={"no-lag": {**NO_LAG, "arms": ["baseline", "cb"]}},
    )
    other = with_test_sets(plan, mixup="y", grid__cb="y", no_lag__cb="y")
    runs = ran(plan)
    steps = attribution(other, runs, [METRIC]).set_index(["rung", "condition", "way"])
    assert steps.loc[("cb", "", "ladder"), "pairs"] == 4
    for way in ("ladder", "shapley"):
        assert steps.loc[("mixup", "", way), "pairs"] == 0
        assert steps.loc[("mixup", "", way), numbers].isna().all()
    assert attribution(plan, runs, [METRIC])["pairs"].eq(4).all()
    found = effects(other, runs, [METRIC])
    assert found["group"].tolist() == effects(plan, runs, [METRIC])["group"].tolist()
    assert found["pairs"].eq(0).all()
    assert found[[*numbers, "p_t_holm"]].isna().all(axis=None)
    rows = conditions(other, runs, [METRIC]).set_index("arm")
    assert rows["pairs"].to_dict() == {"baseline": 4, "cb": 0}
    assert rows.loc["cb", ["difference", "difference_sd", "low", "high", "p_t"]].isna().all()
    assert (rows.loc["cb", "n"], rows.loc["cb", "mean"]) == (4, pytest.approx(plain.mean(values(runs, "no-lag/cb"))))


def test_the_points_of_a_sweep_with_other_test_items_have_no_effects(tmp_path):
    """Also of one axis alone."""
    plan = planned(tmp_path, ladder={"baseline": {}}, sweeps={"size": {"over": {"batch_size": [32, 64]}}})
    found = effects(with_test_sets(plan, size__64="y"), ran(plan), [METRIC])
    assert (found["pairs"].tolist(), found["low"].isna().all()) == ([0], True)


def test_an_arm_that_its_condition_does_not_alter(tmp_path):
    """An arm that keeps its own setting under a condition differs by exactly nothing."""
    plan = planned(tmp_path, ladder={"baseline": {}, "focal": {"loss": "focal"}}, conditions={"c": {"loss": "balanced_softmax"}})
    row = conditions(plan, ran(plan), [METRIC]).set_index("arm").loc["focal"]
    assert (row["pairs"], row["difference"], row["difference_sd"]) == (4, 0.0, 0.0)


# --- trades ----------------------------------------------------------------------------------------------------------------------


NAN = float("nan")


def differences(**arms):
    """Rows as the frame of differences has them, out of (metric, low, high, adjusted p of t and of sign flips), per arm."""
    rows = [
        {
            "arm": arm,
            "role": "baseline",
            "metric": metric,
            "mean": mean,
            "sd": sd,
            "low": low,
            "high": high,
            "p_t_holm": t,
            "p_flip_holm": flip,
        }
        for arm, groups in arms.items()
        for metric, mean, sd, low, high, t, flip in groups
    ]
    of_parent = [
        {**row, "role": "parent", "mean": -9.0, "low": -9.5, "high": -8.5, "p_t_holm": 0.001, "p_flip_holm": 0.001} for row in rows
    ]
    names = ["arm", "role", "metric", "mean", "sd", "low", "high", "p_t_holm", "p_flip_holm"]
    return pd.DataFrame([*of_parent, *rows], columns=names)


def group(metric, low, high, t=0.05, flip=0.01):
    """A group's difference in the middle of its interval."""
    return metric, (low + high) / 2, 1.0, low, high, t, flip


def without_interval(metric, mean, sd):
    return metric, mean, sd, NAN, NAN, NAN, NAN


NOT_SURE = "no group's difference is sure"
TRADES = [
    (
        [group("many", -3.0, -1.0), group("medium", -1.0, 1.0, 1.0), group("few", 1.0, 9.2)],
        "few +5.10 [+1.00, +9.20] for many -2.00 [-3.00, -1.00]",
    ),
    (
        [group("many", -3.0, -1.0), group("medium", 0.5, 1.0), group("few", 1.0, 2.0, flip=0.06)],
        "few +1.50 [+1.00, +2.00] (t only) and medium +0.75 [+0.50, +1.00] for many -2.00 [-3.00, -1.00]",
    ),
    ([group("many", -3.0, 1.0, 0.3), group("few", 1.0, 2.0)], "few +1.50 [+1.00, +2.00]"),
    ([group("many", -3.0, -1.0), group("few", -1.0, 2.0, 0.3)], "many -2.00 [-3.00, -1.00]"),
    ([group("many", -3.0, -1.0, 0.051), group("few", 1.0, 2.0, 0.06)], NOT_SURE),  # 0 is outside, but the correction takes them back
    ([group("many", -3.0, 3.0, 1.0)], NOT_SURE),
    ([group("many", -3.0, 1.0, 0.2), without_interval("few", 5.0, NAN)], NOT_SURE),
    ([without_interval("many", 0.0, NAN), without_interval("few", 5.0, NAN)], "no group has an interval"),
    ([without_interval("many", NAN, NAN)], "no group has an interval"),
    ([without_interval("many", 0.0, 0.0), without_interval("few", 0.0, 0.0)], "no group changed"),
    ([group("accuracy", 1.0, 2.0), group("few", -1.0, 2.0, 0.4)], NOT_SURE),
]


@pytest.mark.parametrize(("groups", "expected"), TRADES)
def test_trades(groups, expected):
    """Against the baseline, groups that surely gained after Holm's correction, for those that surely lost."""
    assert trades(differences(a=groups, b=[group("few", -1, 2, 0.5)]), ("many", "medium", "few")) == {"a": expected, "b": NOT_SURE}


def test_trades_say_what_the_verdicts_say(tmp_path):
    """A group is told exactly where the verdict on its difference is better or worse, `(t only)` included."""
    plan = planned(tmp_path, ladder=LADDER, seeds=range(6))
    shifts = {"cb": 0.05, "mixup": 0.004, "ls": -0.3}
    values = {(arm, seed): 0.5 + shifts.get(arm, 0.0) for arm in LADDER for seed in range(6)}
    noise = np.random.default_rng(3)
    runs = ran(plan, "test/few", value=lambda arm, seed: values[arm["name"], seed] + noise.normal(0, 0.01))
    frame = all_differences(plan, runs, ["test/few"])
    verdicts = frame[frame["role"] == "baseline"].set_index("arm")["verdict"]
    words = trades(frame, ("few",))
    assert {verdict.partition(" ")[0] for verdict in verdicts} == {"better", "worse", "inconclusive"}
    for arm, verdict in verdicts.items():
        assert (words[arm] == NOT_SURE) == (verdict == "inconclusive")
        assert words[arm].endswith("(t only)") == verdict.endswith("(t only)")


def test_trades_between_groups_of_any_name():
    """The groups are the plan's own, the last of them told first."""
    words = trades(differences(a=[group("head", -2.0, -1.0), group("tail", 1.0, 2.0)]), ("head", "tail"))
    assert words == {"a": "tail +1.50 [+1.00, +2.00] for head -1.50 [-2.00, -1.00]"}
    assert trades(differences(), ("head", "tail")) == {}
