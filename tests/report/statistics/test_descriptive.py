"""Numbers against sklearn, SciPy's definition of a paired difference, and plain Python."""

import math
import statistics as plain
from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from ablation.report.metrics import metrics_of
from ablation.report.statistics import descriptive

METRICS = metrics_of({})
ARMS = pd.DataFrame({"arm": ["a", "b"], "parent": ["", "a"], "baseline": ["", "a"]})


def runs(values):
    """Runs of arms a and b, by (arm, seed)."""
    rows = [
        {"arm": arm, "seed": seed, "state": "failed" if math.isnan(value) else "done", "x": value} for (arm, seed), value in values.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("num_classes", [2, 5, 100])
def test_confusion_matrix_equals_sklearn(num_classes):
    """Rows are true classes and columns predicted ones, for every class whether it occurs or not."""
    labels, predicted = np.random.default_rng(num_classes).integers(0, num_classes, (2, 300))
    expected = sklearn_confusion_matrix(labels, predicted, labels=range(num_classes))
    assert (descriptive.confusion_matrix(labels, predicted, num_classes) == expected).all()


@pytest.mark.parametrize("never", [None, "predicted", "label"])
def test_class_figures_equal_sklearn(never):
    """Precision, recall, F1, support and averages are those of classification_report; a class without images counts in no average."""
    labels, predicted = np.random.default_rng(7).integers(0, 6, (2, 200))
    if never:
        (predicted if never == "predicted" else labels)[(predicted if never == "predicted" else labels) == 3] = 2
    expected = classification_report(labels, predicted, labels=range(6), output_dict=True, zero_division=0)
    there = [c for c in range(6) if c in labels]
    macro = {name: np.mean([expected[str(c)][name] for c in there]) for name in ("precision", "recall", "f1-score")}
    expected["macro avg"] = macro
    figures = descriptive.class_figures(descriptive.confusion_matrix(labels, predicted, 6)[None])
    averages = descriptive.average_figures(figures)
    if never == "label":
        assert np.isnan([figures[name][0, 3] for name in ("precision", "recall", "f1")]).all()
        for name in ("precision", "recall", "f1-score"):
            expected["3"][name] = math.nan
    for figure, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("support", "support")):
        assert figures[figure][0] == pytest.approx([expected[str(c)][name] for c in range(6)], nan_ok=True)
    for average, figure in product(("macro avg", "weighted avg"), ("precision", "recall", "f1")):
        assert averages[average][figure][0] == pytest.approx(expected[average]["f1-score" if figure == "f1" else figure])
    assert averages["accuracy"]["f1"][0] == pytest.approx(np.mean(labels == predicted))


def test_normalised_rows_sum_to_one_and_an_empty_row_is_nan():
    """A class without test images has no shares, rather than shares of zero."""
    shares = descriptive.normalised([[3, 1], [0, 0]])
    assert shares[0] == pytest.approx([0.75, 0.25])
    assert np.isnan(shares[1]).all()


def test_differences_are_paired_by_seed():
    """A seed that one arm did not finish is in no pair, but still in the other arm's mean."""
    a = {("a", 0): 0.5, ("a", 1): 0.6, ("a", 2): 0.9}
    b = {("b", 0): 0.7, ("b", 1): math.nan, ("b", 2): 0.8}
    row = descriptive.compare(runs(a | b), ARMS, "x", METRICS).iloc[1]
    differences = [100 * (0.7 - 0.5), 100 * (0.8 - 0.9)]
    assert (row["x_mean"], row["x_sd"]) == pytest.approx((0.75, plain.stdev([0.7, 0.8])))
    assert row["x_vs_parent_points"] == row["x_vs_baseline_points"] == pytest.approx(plain.mean(differences))
    assert row["x_vs_parent_sd_points"] == pytest.approx(plain.stdev(differences))
    assert row["x_vs_parent_pairs"] == 2


def test_differences_in_nats_are_as_they_are():
    """The NLL is no fraction: its differences are not multiplied, and no column calls them points; those of the ECE are points."""
    values = runs({("a", 0): 2.5, ("a", 1): 2.0, ("b", 0): 2.25, ("b", 1): 2.125})
    row = descriptive.compare(values.rename(columns={"x": "test/nll"}), ARMS, "test/nll", METRICS).iloc[1]
    assert (row["nll_mean"], row["nll_vs_parent"], row["nll_vs_baseline"]) == pytest.approx((2.1875, -0.0625, -0.0625))
    assert row["nll_vs_parent_sd"] == pytest.approx(plain.stdev([-0.25, 0.125]))
    assert not [column for column in row.index if "points" in column]
    row = descriptive.compare(values.rename(columns={"x": "test/ece"}), ARMS, "test/ece", METRICS).iloc[1]
    assert (row["ece_mean"], row["ece_vs_parent_points"]) == pytest.approx((2.1875, -6.25))


def test_no_class_with_images_gives_no_warning():
    """Where there are no images at all, every average is 0 and no class has a recall."""
    averages = descriptive.average_figures(descriptive.class_figures(np.zeros((2, 3, 3), dtype=int)))
    assert averages["macro avg"]["recall"].tolist() == averages["accuracy"]["f1"].tolist() == [0, 0]


def test_infinite_numbers_make_no_pair():
    """An infinite NLL is in its arm's mean, which then is no number, and in no difference; two of them neither."""
    a = {("a", 0): math.inf, ("a", 1): 2.0, ("a", 2): math.inf}
    b = {("b", 0): 1.0, ("b", 1): 2.5, ("b", 2): math.inf}
    row = descriptive.compare(runs(a | b).rename(columns={"x": "test/nll"}), ARMS, "test/nll", METRICS).iloc[1]
    assert (row["nll_vs_parent_pairs"], row["nll_vs_parent"]) == (1, 0.5)
    assert row["nll_mean"] == math.inf


def test_one_seed_has_a_difference_and_no_deviation():
    """One pair gives a number without a spread."""
    row = descriptive.compare(runs({("a", 4): 0.5, ("b", 4): 0.75}), ARMS, "x", METRICS).iloc[1]
    assert row["x_vs_parent_points"] == pytest.approx(25)
    assert math.isnan(row["x_sd"])
    assert math.isnan(row["x_vs_parent_sd_points"])


@pytest.mark.parametrize("values", [{("a", 0): 0.5, ("b", 1): 0.6}, {("a", 0): math.nan, ("b", 0): 0.5}])
def test_no_common_seed_gives_no_difference(values):
    """Arms that share no finished seed are not compared."""
    row = descriptive.compare(runs(values), ARMS, "x", METRICS).iloc[1]
    assert row["x_vs_parent_pairs"] == 0
    assert math.isnan(row["x_vs_parent_points"])
