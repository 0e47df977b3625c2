"""Each metric is told in its own unit, and only of some is less better."""

import math

import numpy as np
import pytest

from ablation.training import evaluation
from ablation.report import metrics


@pytest.mark.parametrize(
    ("name", "mean", "sd", "value", "difference"),
    [
        ("accuracy", 0.8422, 0.0031, "84.22 ± 0.31", "+0.84 ± 0.00"),
        ("ece", 0.0512, math.nan, "5.12", "+0.05"),
        ("nll", 1.23456, 0.0124, "1.235 ± 0.012", "+1.235 ± 0.012"),
        ("nll", 0.0004, math.nan, "0.000", "+0.000"),
        ("nll", math.nan, math.nan, "–", "–"),
    ],
)
def test_numbers_are_told_in_the_metrics_unit(name, mean, sd, value, difference):
    """Fractions in percent to two decimals, nats as they are to three; differences always with a sign."""
    assert metrics.value(name, mean, sd) == value
    assert metrics.difference(name, mean, sd) == difference


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("accuracy", ("accuracy_vs_parent_low_points", "accuracy_vs_parent_high_points")),
        ("nll", ("nll_vs_parent_low", "nll_vs_parent_high")),
        ("ece", ("ece_vs_parent_low_points", "ece_vs_parent_high_points")),
    ],
)
def test_columns_of_intervals_say_their_unit(name, columns):
    """The ends of a difference's interval are points, and nats where the metric is."""
    assert metrics.interval_columns(name, "parent") == columns


def test_the_report_knows_the_metrics_that_are_computed():
    """Every metric of its tables is one of the evaluation, and every one of the evaluation that is no class's is in a table."""
    labels, scores = [0, 1, 2], [[3.0, 0, 0], [0, 3.0, 0], [3.0, 0, 0]]
    groups = {"many": (0,), "medium": (1,), "few": (2,)}
    computed = evaluation.metrics(*map(np.array, (labels, scores)), ["a", "b", "c"], groups)
    told = [*metrics.HEADLINE, *metrics.RELIABILITY]
    assert set(told) == {name for name in computed if name.count("/") == 1}
    assert len(told) == len(set(told))
    assert set(metrics.TITLES) == {metrics.short_name(name) for name in told}
    assert [metrics.short_name(name) for name in told if metrics.is_lower_better(metrics.short_name(name))] == ["nll", "ece"]


def test_a_class_or_group_called_like_a_metric_is_a_fraction():
    """Only the metric itself is in nats."""
    assert metrics.unit("recall/nll") is metrics.FRACTION
    assert not metrics.is_lower_better("recall/ece")
