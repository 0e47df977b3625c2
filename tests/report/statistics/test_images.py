"""What the test images say, against SciPy, statsmodels, and plain Python over the predictions. N images, C classes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from ablation.report.statistics import images
from ablation.report.statistics.differences import comparisons
from ablation.training import evaluation
from tests.report.studies import arm

NUM_CLASSES = 4


def table(key, images=200, right=0.6, shift=0, as_list=False):
    """A run's predictions: `right` of the images get their label the highest score."""
    generator = np.random.default_rng([key, images])
    labels = np.random.default_rng(images).choice(NUM_CLASSES, images, p=[0.4, 0.3, 0.2, 0.1])  # the same for every run
    logits = generator.normal(size=(images, NUM_CLASSES))
    logits[np.arange(images), np.where(generator.random(images) < right, labels, (labels + 1) % NUM_CLASSES)] += 3
    columns = pd.DataFrame({"index": np.arange(images) + shift, "label": labels, "predicted": logits.argmax(1)})
    if as_list:
        return columns.assign(logits=list(logits.astype(np.float32)))
    return pd.concat([columns, pd.DataFrame(logits.astype(np.float32), columns=[f"logit/{c}" for c in "wxyz"])], axis=1)


def results(**tables):
    return {
        name: {seed: images.read(seed_table, NUM_CLASSES) for seed, seed_table in enumerate(arm_tables)}
        for name, arm_tables in tables.items()
    }


PAIRS = comparisons({"arms": [arm("baseline", None), arm("a", "baseline"), arm("b", "a")]})
BASE, ARM = [table(key) for key in range(3)], [table(key, right=0.7) for key in range(10, 13)]


def changes(ours, theirs):
    """Per seed and image, whether it was gained (1) or lost (-1)."""
    return np.array(
        [(a["label"] == a["predicted"]).astype(int) - (b["label"] == b["predicted"]) for a, b in zip(ours, theirs, strict=True)]
    )


def test_the_interval_is_scipys_bootstrap_of_the_images():
    """Accuracy's interval is, within its noise, SciPy's percentile bootstrap of each image's mean over seeds, in points."""
    changes_SN = changes(ARM, BASE)
    row = images.image_rows(PAIRS, results(baseline=BASE, a=ARM)).set_index(["arm", "role", "metric"]).loc[("a", "parent", "accuracy")]
    expected = stats.bootstrap(
        (100 * changes_SN.mean(axis=0),), np.mean, n_resamples=20_000, method="percentile", batch=1000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert row["mean"] == pytest.approx(100 * changes_SN.mean())
    assert row[["low", "high"]].tolist() == pytest.approx(list(expected), abs=0.5)
    assert (row["images"], row["against"]) == (200, "baseline")
    assert row[["gained", "lost"]].tolist() == pytest.approx([(changes_SN > 0).sum() / 3, (changes_SN < 0).sum() / 3])


def test_balanced_accuracy_is_drawn_within_each_class():
    """Its mean is that of the classes' means, and its interval that of drawing each class's images again."""
    changes_SN, labels_N = changes(ARM, BASE), BASE[0]["label"].to_numpy()
    row = (
        images.image_rows(PAIRS, results(baseline=BASE, a=ARM))
        .set_index(["arm", "role", "metric"])
        .loc[("a", "parent", "balanced_accuracy")]
    )
    parts = [100 * changes_SN.mean(axis=0)[labels_N == c] for c in range(NUM_CLASSES)]
    assert len({len(part) for part in parts}) > 1
    generator = np.random.default_rng(1)
    drawn = np.mean([generator.choice(part, (20_000, len(part))).mean(axis=1) for part in parts], axis=0)
    assert row["mean"] == pytest.approx(np.mean([part.mean() for part in parts]))
    assert row[["low", "high"]].tolist() == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.5)


def test_the_bootstrap_repeats_itself_and_covers():
    """The same data give the same interval, and of 400 samples' intervals about 95 of 100 hold the true mean."""
    generator = np.random.default_rng(0)
    samples = generator.choice([-1, 0, 1], (400, 150), p=[0.1, 0.7, 0.2])
    intervals = [images.bootstrap(values_N, np.zeros(150, np.int32), 100) for values_N in samples]
    assert intervals[:5] == [images.bootstrap(values_N, np.zeros(150, np.int32), 100) for values_N in samples[:5]]
    assert np.mean([low <= 10 <= high for _, low, high in intervals]) == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize(
    ("counts", "bounds"), [([50] * 20, (0.92, 0.98)), ([3] * 20, (0.92, 0.98)), ([200] * 5 + [20] * 5 + [3] * 5, (0.85, 0.98))]
)
def test_the_interval_covers_where_classes_have_few_images(counts, bounds):
    """Drawing n images again shows (n - 1) / n of the variance; without a correction 2 or 3 a class cover far too seldom."""
    generator, labels_N = np.random.default_rng(0), np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    samples = generator.choice([-1, 0, 1], (300, len(labels_N)), p=[0.2, 0.5, 0.3])
    covered = [low <= 10 <= high for _, low, high in (images.bootstrap(values_N, labels_N, 100) for values_N in samples)]
    assert bounds[0] <= np.mean(covered) <= bounds[1]


def test_a_class_of_one_image_has_no_interval():
    """Nothing tells how another image would do; the mean is there all the same."""
    mean, low, high = images.bootstrap(np.array([1, 0, 1, 1]), np.array([0, 0, 0, 1], np.int32), 100)
    assert mean == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("group", [None, np.repeat(np.arange(5), 2).astype(np.int32)])
@pytest.mark.parametrize("value", [0, 2])
def test_images_that_differ_alike_have_no_interval(value, group):
    """Ten images of which none moved say nothing of others, as seeds that show the same difference do; one that moved does."""
    changes_N, strata_N = np.full(10, value), np.repeat([0, 1], 5).astype(np.int32)
    for strata in (np.zeros(10, np.int32), strata_N):
        mean, low, high = images.bootstrap(changes_N, strata, 100, group)
        assert mean == 100 * value
        assert np.isnan([low, high]).all()
    changes_N[0] += 1
    _, low, high = images.bootstrap(changes_N, strata_N, 100, group)
    assert low < high


def test_images_are_paired_by_their_index():
    """The order of a table's rows changes nothing."""
    shuffled = [seed_table.sample(frac=1, random_state=seed) for seed, seed_table in enumerate(ARM)]
    pd.testing.assert_frame_equal(
        images.image_rows(PAIRS, results(baseline=BASE, a=shuffled)), images.image_rows(PAIRS, results(baseline=BASE, a=ARM))
    )


@pytest.mark.parametrize(
    "other",
    [[table(10, images=150)] * 3, [table(10, shift=1)] * 3, [table(10).assign(label=0)] * 3, []],
    ids=["fewer", "others", "other labels", "no run"],
)
def test_other_images_are_not_compared(other):
    """Arms that were tested on other images have no row."""
    by_arm = results(baseline=BASE, a=other)
    assert images.image_rows(PAIRS, by_arm).empty
    assert images.mcnemar_rows(PAIRS, by_arm).empty


def test_seeds_with_other_test_images_have_counts_and_no_interval():
    """Where each seed has its own test images, nothing can be drawn for all; gained and lost are told seed by seed all the same."""
    base, ours = [table(0), table(1, images=150)], [table(10, right=0.7), table(11, images=150, right=0.7)]
    rows = images.image_rows(PAIRS, results(baseline=base, a=ours))
    assert rows[["arm", "role", "metric"]].to_numpy().tolist() == [
        ["a", role, metric] for role in ("parent", "baseline") for metric in ("accuracy", "balanced_accuracy")
    ]
    assert rows[["mean", "low", "high"]].isna().all(axis=None)
    moved = [changes([changes_N], [other])[0] for changes_N, other in zip(ours, base, strict=True)]
    expected = (175, np.mean([(changes_N > 0).sum() for changes_N in moved]), np.mean([(changes_N < 0).sum() for changes_N in moved]))
    assert tuple(rows.loc[0, ["images", "gained", "lost"]]) == pytest.approx(expected)
    seeds = images.mcnemar_rows(PAIRS, results(baseline=base, a=ours)).query("role == 'parent'")
    assert seeds[["seed", "gained", "lost"]].to_numpy().tolist() == [
        [s, (changes_N > 0).sum(), (changes_N < 0).sum()] for s, changes_N in enumerate(moved)
    ]


def test_seeds_in_which_the_arms_saw_other_images_are_not_counted():
    """Of two seeds of which one cannot be paired, the other's images are told, without an interval."""
    by_arm = results(baseline=BASE[:2], a=[ARM[0], table(11, shift=1)])
    rows, moved = images.image_rows(PAIRS, by_arm), changes(ARM[:1], BASE[:1])
    assert rows["mean"].isna().all()
    assert rows.loc[0, ["images", "gained", "lost"]].tolist() == [200, (moved > 0).sum(), (moved < 0).sum()]
    assert images.mcnemar_rows(PAIRS, by_arm)["seed"].tolist() == [0, 0]


def test_seeds_of_one_arm_only_are_left_out():
    """Only seeds that both arms finished are compared."""
    by_arm = results(baseline=BASE[:2], a=ARM)
    row = images.image_rows(PAIRS, by_arm).iloc[0]
    assert row["mean"] == pytest.approx(100 * changes(ARM[:2], BASE[:2]).mean())
    assert images.mcnemar_rows(PAIRS, by_arm)["seed"].tolist() == [0, 1, 0, 1]


def test_mcnemar_equals_statsmodels():
    """Each seed's p is that of statsmodels' exact test on the table of right and wrong images."""
    frame = images.mcnemar_rows(PAIRS, results(baseline=BASE, a=ARM))
    assert frame["role"].tolist() == ["parent"] * 3 + ["baseline"] * 3
    for row in frame.to_dict("records"):
        ours, theirs = ((seed_table["label"] == seed_table["predicted"]).to_numpy() for seed_table in (ARM[row["seed"]], BASE[row["seed"]]))
        expected = mcnemar(pd.crosstab(ours, theirs).to_numpy(), exact=True)
        assert row["p"] == pytest.approx(expected.pvalue)
        assert (row["gained"], row["lost"]) == ((ours & ~theirs).sum(), (~ours & theirs).sum())


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 3), (7, 1), (40, 2), (200, 230)])
def test_mcnemar_is_a_binomial_test(gained, lost):
    """p is that of SciPy's binomial test with equal chances, and 1 where no image changed."""
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert images.mcnemar_p(np.array([gained]), np.array([lost])) == pytest.approx([expected])


def test_twins_and_arms_with_other_test_images_have_no_rows():
    """A training is not compared with itself, and images that only look alike by their labels are no pairs."""
    by_arm = results(baseline=BASE, a=BASE)
    pairs = comparisons({"arms": [arm("baseline", None, test_set="x"), arm("a", "baseline", test_set="y")]})
    assert images.image_rows(pairs, by_arm).empty, "other images, whose numbers happen to be the same"
    assert images.mcnemar_rows(pairs, by_arm).empty
    pairs = comparisons({"arms": [arm("baseline", None), arm("a", "baseline", same_as="baseline")]})
    assert images.image_rows(pairs, by_arm).empty
    assert images.mcnemar_rows(pairs, by_arm).empty


@pytest.mark.parametrize("as_list", [False, True])
def test_calibration_adds_up_to_the_recorded_error(as_list):
    """Over the bins, share times the gap between accuracy and confidence is the calibration error of the pooled images."""
    tables = [table(key, as_list=as_list) for key in range(3)]
    rows = images.calibration_rows(results(baseline=tables))
    both = pd.concat([table(key) for key in range(3)])
    _, confidence_N = evaluation.certainty(both["label"].to_numpy(), images.scores(both))
    expected = evaluation.calibration_error(confidence_N, (both["label"] == both["predicted"]).to_numpy())
    assert (rows["share"] * (rows["accuracy"] - rows["confidence"]).abs()).sum() == pytest.approx(expected)
    assert rows["share"].sum() == pytest.approx(1)
    assert rows["share"].min() > 0
    assert ((rows["confidence"] > rows["bin"] / 15) & (rows["confidence"] <= (rows["bin"] + 1) / 15 + 1e-12)).all()
    assert (rows["share"] @ rows["accuracy"]) == pytest.approx((both["label"] == both["predicted"]).mean())


def test_what_is_kept_of_predictions():
    """The counts are those of the table, and no score stays in memory."""
    kept = images.read(BASE[0], NUM_CLASSES)
    assert kept.counts_CC.tolist() == pd.crosstab(BASE[0]["label"], BASE[0]["predicted"]).to_numpy().tolist()
    assert kept.bins_3B[0].sum() == len(kept.labels_N) == 200
    assert not hasattr(kept, "logits")
