"""Each metric is told in its own unit, and only of some is less better."""

import math

import numpy as np
import pytest

from ablation.errors import StoreError
from ablation.report.metrics import COMPARISON, PERCENT, QUALITY, RANKING, MetricTable, metrics_of, short_name, with_unit
from ablation.study.metrics import Metric, metric_rows
from ablation.training import evaluation

IMAGES = metrics_of({})
OTHERS = MetricTable(
    [
        Metric("test/mae", "MAE", "lower", "", 1.0, is_headline=True),
        Metric("test/rmse", "RMSE", "lower", "m", table=QUALITY),
        Metric("test/r2", "R2", unit="", table=QUALITY),
    ]
)


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
    assert IMAGES.value(name, mean, sd) == value
    assert IMAGES.difference(name, mean, sd) == difference


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
    assert IMAGES.interval_columns(name, "parent") == columns


def test_the_report_knows_the_metrics_that_are_computed():
    """Every metric of its tables is one of the evaluation, and every one of the evaluation that is no class's is in a table."""
    labels, scores = [0, 1, 2], [[3.0, 0, 0], [0, 3.0, 0], [3.0, 0, 0]]
    groups = {"many": (0,), "medium": (1,), "few": (2,)}
    computed = evaluation.metrics(*map(np.array, (labels, scores)), ["a", "b", "c"], groups)
    in_tables = [*IMAGES.columns(COMPARISON), *IMAGES.columns(QUALITY), *IMAGES.columns(RANKING)]
    assert in_tables == IMAGES.names == [short_name(name) for name in IMAGES.full_names]
    assert set(IMAGES.full_names) == {name for name in computed if name.count("/") == 1}
    assert len(in_tables) == len(set(in_tables))
    assert [name for name in in_tables if IMAGES.is_lower_better(name)] == ["nll", "ece"]
    assert (IMAGES.default, IMAGES.headlines) == ("accuracy", ["accuracy", "balanced_accuracy", "macro_f1"])


def test_the_plans_metric_leads():
    """It is the default and the first headline, whether or not it is in a table; published figures are still of the accuracy."""
    by_plan = metrics_of({"metric": "test/kappa", "metric_reason": "set in the file"})
    assert (by_plan.default, by_plan.reason, by_plan.published) == ("kappa", "set in the file", "accuracy")
    assert by_plan.headlines == ["kappa", "accuracy", "balanced_accuracy", "macro_f1"]
    assert [metric.name for metric in by_plan.summarised] == [by_plan.full_name(name) for name in by_plan.headlines]
    assert (by_plan.value("kappa", 0.5), by_plan.margin_words("kappa"), by_plan.gap_column("A")) == ("0.500", "0.005", "gap/A_points")
    of_class = metrics_of({"metric": "test/recall/cat", "margin": 0.7})
    assert (of_class.default, of_class.headlines[0], of_class.columns(COMPARISON)[-1]) == ("recall/cat",) * 3
    assert (of_class.title("recall/cat"), of_class.unit("recall/cat"), of_class.margin("recall/cat")) == ("recall/cat", PERCENT, 0.7)
    assert of_class.full_names[-1] == "test/recall/cat"
    assert (IMAGES.reason, IMAGES.words("balanced_accuracy"), IMAGES.words("recall/cat")) == ("", "balanced accuracy", "recall/cat")


def test_a_class_or_group_called_like_a_metric_is_a_fraction():
    """Only the metric itself is in nats; a name that is in no table has the study's margin and its own name as the title."""
    assert IMAGES.unit("recall/nll") is PERCENT
    assert not IMAGES.is_lower_better("recall/ece")
    assert metrics_of({"margin": 0.7}).margin("recall/nll") == 0.7
    assert (IMAGES.title("recall/nll"), IMAGES.full_name("recall/nll")) == ("recall/nll", "test/recall/nll")
    assert "nll" in IMAGES
    assert "recall/nll" not in IMAGES


def test_a_metric_goes_by_both_its_names():
    """With the prefix and without."""
    for name in ("nll", "test/nll"):
        assert (IMAGES.title(name), IMAGES.unit(name).values, IMAGES.is_lower_better(name)) == ("NLL", "nats", True)
        assert (IMAGES.full_name(name), IMAGES.margin(name)) == ("test/nll", None)


@pytest.mark.parametrize(("plan", "margin"), [({}, 0.5), ({"margin": 0.7}, 0.7), ({"task": "images", "margin": 2}, 2.0)])
def test_plans_without_metrics_have_those_of_their_kind_of_work(plan, margin):
    """Their margin is the plan's, which was half a point before it could be set; nats have none."""
    metrics = metrics_of(plan)
    assert (metrics.names, metrics.margin("accuracy"), metrics.margin("nll")) == (IMAGES.names, margin, None)


def test_recorded_metrics_count():
    """Whatever the kind of work, and whatever a later version may add to them."""
    rows = [row | {"new": 1} for row in metric_rows([Metric("test/mae", "MAE", "lower", "", 1.0)])]
    metrics = metrics_of({"task": "unheard of", "metrics": rows})
    assert (metrics.names, metrics.default, metrics.margin("mae")) == (["mae"], "mae", 1.0)
    with pytest.raises(StoreError, match="kind 'unheard of' without its metrics"):
        metrics_of({"task": "unheard of"})


def test_any_other_unit_is_told_as_it_is():
    """Numbers to three decimals with the word behind them; an empty word leaves nothing behind, neither a space nor brackets."""
    assert (OTHERS.value("mae", 12.3456, 0.1), OTHERS.difference("mae", -0.5)) == ("12.346 ± 0.100", "-0.500")
    assert OTHERS.difference_columns("mae", "parent") == ("mae_vs_parent", "mae_vs_parent_sd")
    assert (OTHERS.margin_words("mae"), OTHERS.margin_words("rmse"), IMAGES.margin_words("ece")) == ("1", "", "0.5 points")
    assert metrics_of({"margin": 1}).margin_words("accuracy") == "1 point"
    assert (OTHERS.gap_column("A"), IMAGES.gap_column("A")) == ("gap/A", "gap/A_points")
    assert (with_unit("MAE", ""), with_unit("RMSE", "m")) == ("MAE", "RMSE, m")


def test_units_of_several_metrics():
    """The usual one and the exceptions, or each that has a word; which way is better is said of those where it is down."""
    assert IMAGES.value_units(IMAGES.names) == "percent (NLL: nats; kappa and MCC: as they are)"
    assert IMAGES.difference_units(IMAGES.names) == "points (NLL: nats; kappa and MCC: as they are)"
    assert IMAGES.value_units(["accuracy", "kappa"]) == "percent (kappa: as it is)"
    assert IMAGES.value_units(["accuracy", "recall/cat"]) == "percent"
    assert (OTHERS.value_units(["mae", "r2"]), OTHERS.value_units(["mae", "rmse"])) == ("", "RMSE in m")
    assert OTHERS.value_units(["mae", "recall/cat"]) == "percent (MAE: as it is)"
    assert IMAGES.lower_words(IMAGES.names) == "For NLL and ECE lower is better."
    assert IMAGES.lower_words(["accuracy"]) == ""


def test_a_metric_may_have_decimals_of_its_own():
    """Values, differences and intervals have them; a plan holds them only of metrics that do."""
    loss, iou = Metric("test/loss", "loss", "lower", "", decimals=5), Metric("test/iou", "iou", decimals=1)
    rows = metric_rows([loss, Metric("test/mae", "mae", "lower", "")])
    assert [row.get("decimals") for row in rows] == [5, None]
    assert "decimals" not in rows[1]
    table = metrics_of({"metrics": metric_rows([loss, iou])})
    assert table.value("loss", 0.001234, 0.00004) == "0.00123 ± 0.00004"
    assert table.difference("loss", -0.0002) == "-0.00020"
    assert table.value("iou", 0.52367) == "52.4"
