"""The bootstrap over test items and clusters, and how often it and the verdicts over seeds claim an effect where there is none."""

import math

import numpy as np
import pandas as pd
import pytest

from ablation.report.metrics import MetricTable, metrics_of
from ablation.report.statistics import items
from ablation.report.statistics.differences import comparisons, differences
from ablation.study.metrics import Metric, metric_rows
from tests.report.own_study import ARMS, GAIN, MAE

METRICS = MetricTable([MAE, GAIN])
PAIRS = comparisons({"arms": ARMS[:2]})


def table(scores, names=None, clusters=None):
    """A run's table of scores, as it is in the store."""
    frame = pd.DataFrame({"item": range(len(scores)) if names is None else names, MAE.name: scores})
    return frame if clusters is None else frame.assign(cluster=clusters)


def rows(by_arm, values=None):
    """The rows of the comparison of `deep` with `base`, whose tables are by seed; their means are the metric unless `values` has others."""
    results = {arm: {seed: items.read(frame) for seed, frame in by_seed.items()} for arm, by_seed in by_arm.items()}
    means = {(arm, seed, MAE.name): frame[MAE.name].mean() for arm, by_seed in by_arm.items() for seed, frame in by_seed.items()}
    return items.item_rows(PAIRS, results, means | (values or {}), METRICS).set_index("role")


# --- what is compared -------------------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_item_whatever_their_order():
    """The mean is that of the arm minus the partner."""
    base = np.array([1.0, 5.0, 9.0, 2.0])
    ours = {0: table(base[::-1] - [0.5, 0.5, 0.5, 0.9], names=[3, 2, 1, 0])}
    row = rows({"base": {0: table(base)}, "deep": ours}).loc["parent"]
    assert row["mean"] == pytest.approx(-0.6)
    assert -0.9 <= row["low"] < -0.6 < row["high"] <= -0.5
    assert (row["items"], row["clusters"], row["seeds"], row["why_not"]) == (4, 0, 1, "")


@pytest.mark.parametrize("change", [0.0, 0.1])
@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(4), 3)])
def test_items_that_differ_alike_have_no_interval(change, clusters):
    """A width of nothing would read as certainty; the mean is there, and rounding makes no spread."""
    base = np.array([1.1, 5.3, 9.7, 2.9, 3.1, 0.3, 7.7, 8.1, 1.9, 4.3, 2.2, 6.6])
    moved = change * (np.ones(12) if clusters is None else np.tile([0, 1, 2], 4))  # each cluster's mean is the same
    row = rows({"base": {0: table(base, clusters=clusters)}, "deep": {0: table(base + moved, clusters=clusters)}}).loc["parent"]
    assert row["mean"] == pytest.approx(change)
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["why_not"] == ""


def test_an_item_of_several_seeds_is_one_item():
    """Whether all seeds have the same items, or each has some of them: its differences are drawn together."""
    generator = np.random.default_rng(1)
    base, gain = generator.normal(size=40), generator.normal(size=40)
    by_seed = {
        "base": {seed: table(base) for seed in (0, 1)},
        "deep": {seed: table(base + gain + change) for seed, change in ((0, 0.5), (1, -0.5))},
    }
    both = rows(by_seed).loc["parent"]
    one = rows({"base": {0: table(base)}, "deep": {0: table(base + gain)}}).loc["parent"]
    assert (both["mean"], both["low"], both["high"]) == pytest.approx((one["mean"], one["low"], one["high"]))
    halves = {0: np.arange(25), 1: np.arange(15, 40)}
    split = rows(
        {
            "base": {seed: table(base[half], half) for seed, half in halves.items()},
            "deep": {seed: table((base + gain)[half], half) for seed, half in halves.items()},
        }
    ).loc["parent"]
    assert split["items"] == 40
    assert split["mean"] == pytest.approx(np.concatenate([gain[half] for half in halves.values()]).mean())


def test_clusters_are_drawn_whole():
    """Alike items of a cluster give a wider interval, as wide as if the cluster were one item."""
    generator = np.random.default_rng(2)
    base, gain = generator.normal(size=30), generator.normal(size=30)

    def row(clusters=None):
        return rows(
            {
                "base": {0: table(np.repeat(base, 4), clusters=clusters)},
                "deep": {0: table(np.repeat(base + gain, 4), clusters=clusters)},
            }
        ).iloc[0]

    single = rows({"base": {0: table(base)}, "deep": {0: table(base + gain)}}).iloc[0]
    whole, loose = row(np.repeat(np.arange(30), 4)), row()
    assert (whole["low"], whole["high"]) == pytest.approx((single["low"], single["high"]))
    assert whole["clusters"] == 30
    assert whole["high"] - whole["low"] > 1.7 * (loose["high"] - loose["low"])


def test_numbers_are_in_the_metric_s_unit():
    """Fractions in points."""
    metrics = MetricTable([Metric("test/iou", "iou", "higher", "percent")])
    frames = {"base": [0.5, 0.25, 1.0], "deep": [0.75, 0.5, 1.0]}
    results = {arm: {0: items.read(table(scores).rename(columns={MAE.name: "test/iou"}))} for arm, scores in frames.items()}
    values = {(arm, 0, "test/iou"): float(np.mean(scores)) for arm, scores in frames.items()}
    assert items.item_rows(PAIRS, results, values, metrics)["mean"].tolist() == pytest.approx([50 / 3] * 2)


@pytest.mark.parametrize(
    ("ours", "values", "why"),
    [
        (table([1.0, 2.0, 3.0]), {("deep", 0, MAE.name): 2.1}, items.NOT_THE_MEAN),
        (table([1.0, 2.0, 3.0]), {("deep", 0, MAE.name): math.nan}, items.NOT_THE_MEAN),
        (table([1.0, 2.0, 3.0], names=["a", "b", "c"]), {}, items.NOT_THE_SAME),
        (table([1.0, 2.0, 3.0]), {("deep", 0, MAE.name): 2.00001}, ""),
    ],
)
def test_why_there_is_no_interval(ours, values, why):
    """Items that are others, or whose mean is not the metric; a metric in single precision is still the mean."""
    row = rows({"base": {0: table([1.0, 2.0, 4.0])}, "deep": {0: ours}}, values).loc["parent"]
    assert row["why_not"] == why
    assert np.isfinite(row["low"]) == (not why)


def test_one_cluster_and_no_shared_seed_say_nothing():
    """Neither has an interval."""
    alike = {arm: {0: table([1.0, 2.0, 3.0 + place], clusters=["x"] * 3)} for place, arm in enumerate(("base", "deep"))}
    assert set(rows(alike)["why_not"]) == {items.ONE_CLUSTER}
    assert set(rows({"base": {0: table([1.0, 2.0])}, "deep": {1: table([1.0, 2.0])}})["why_not"]) == {items.NO_ITEMS}


@pytest.mark.parametrize(("clusters", "why"), [(None, items.SOME_WITHOUT_CLUSTERS), (["x", "y", "y"], items.CHANGING_CLUSTERS)])
def test_clusters_are_those_of_all_seeds(clusters, why):
    """Items of which some seeds have no clusters, or others, cannot be drawn by cluster."""
    first = {arm: table([1.0, 2.0, 3.0 + place], clusters=["x", "x", "y"]) for place, arm in enumerate(("base", "deep"))}
    others = {arm: table([1.0, 2.5, 3.0 + place], clusters=clusters) for place, arm in enumerate(("base", "deep"))}
    assert set(rows({arm: {0: first[arm], 1: others[arm]} for arm in first})["why_not"]) == {why}


# --- false claims -----------------------------------------------------------------------------------------------------------------


def most(simulated, level=0.05):
    """The level and three standard errors of a simulation of so many."""
    return level + 3 * math.sqrt(level * (1 - level) / simulated)


@pytest.mark.parametrize(("clusters", "size", "spread"), [(30, 1, "normal"), (200, 1, "heavy"), (25, 8, "normal"), (60, 5, "heavy")])
def test_the_bootstrap_claims_no_effect_where_there_is_none(clusters, size, spread):
    """In at most 5 % of simulated comparisons; items of a cluster have most of their difference in common."""
    generator, simulated = np.random.default_rng(3), 4000

    def noise(*shape):
        return generator.normal(size=shape) if spread == "normal" else generator.exponential(size=shape) - generator.exponential(size=shape)

    values_KGN = noise(simulated, clusters, 1) * (size > 1) + 0.5 * noise(simulated, clusters, size)
    low_K, high_K = items.bootstrap(values_KGN.sum(axis=2), np.full(clusters, size))
    assert ((low_K > 0) | (high_K < 0)).mean() <= most(simulated)
    if size > 1:  # what it would be if the items of a cluster were drawn one by one
        loose = values_KGN.reshape(simulated, -1)
        low_K, high_K = items.bootstrap(loose, np.ones(clusters * size, dtype=np.int64))
        assert ((low_K > 0) | (high_K < 0)).mean() > 0.2


@pytest.mark.parametrize("shared", [0.0, 3.0], ids=["independent", "paired"])
def test_verdicts_claim_no_effect_where_there_is_none(shared):
    """In at most 5 % of families of tests is any arm called better or worse, whether seeds share what they draw or not."""
    generator, simulated, seeds = np.random.default_rng(4), 300, 5
    names = [f"test/m{number}" for number in range(simulated)]
    plan = {
        "arms": list(ARMS), "margin": 0.5, "task": "own", "own": {},
        "metrics": metric_rows(Metric(name, name, "lower", "") for name in names),
    }  # fmt: skip
    common = shared * generator.normal(size=(seeds, simulated))
    runs = pd.concat(
        [
            pd.DataFrame(common + generator.normal(size=(seeds, simulated)), columns=names).assign(
                arm=arm["name"], seed=range(seeds), state="done"
            )
            for arm in ARMS
        ],
        ignore_index=True,
    )
    assert len(metrics_of(plan).full_names) == simulated
    found = differences(plan, runs, names)
    is_claimed = found["verdict"].str.startswith(("better", "worse"))
    false = is_claimed.groupby([found["metric"], found["family"], found["role"]]).any()
    for _, of_family in false.groupby(["family", "role"]):
        assert of_family.mean() <= most(simulated)
    confirmed = is_claimed & ~found["verdict"].str.contains("t only")
    assert not confirmed.any()  # five seeds cannot reach 0.05 by signs
