"""The study's metric leads every document; what others published stays a figure of the accuracy."""

import json

import numpy as np
import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.report.documents.check import check
from ablation.report.documents.check import read as read_document
from ablation.report.frames.references import read
from ablation.report.frames.tables import tidy_frames
from ablation.report.sections import Shown
from tests.report.studies import cells, study

REASON = "the classes have 35 to 37 test images"


def by_metric(metric, reason=REASON, **more):
    """A study whose plan goes by that metric."""
    recorded = study(**more)
    recorded.plan |= {"metric": metric, "metric_reason": reason}
    return recorded


def with_values(recorded, metric, values):
    """The study with these values of another metric, one for each run."""
    recorded.runs[metric] = values
    return recorded


def test_it_is_the_metric_of_a_report_unless_another_is_asked_for():
    """Differences and verdicts are of it, the report says why, and with another metric there is no such reason."""
    recorded = by_metric("test/macro_f1")
    asked = json.loads(report.write(study(), "json", metric="macro_f1"))
    by_plan = json.loads(report.write(recorded, "json"))
    assert (by_plan["metric"], by_plan["arms"]) == ("test/macro_f1", asked["arms"])
    assert f"Verdicts are of macro-F1 ({REASON}), at 0.05" in report.write(recorded)
    assert "Verdicts are of accuracy, at 0.05" in report.write(recorded, metric="accuracy")


def test_published_figures_and_chance_are_of_the_accuracy(tmp_path):
    """Gaps, the reference file's column and near chance do not change with the metric."""
    path = tmp_path / "reference.csv"
    path.write_text("report,arm,accuracy\nB,cb,0.5\n")
    recorded, plain = by_metric("test/nll", "set in the file"), study()
    ours, theirs = (tidy_frames(part, references=read(path, part.plan)).arms for part in (recorded, plain))
    for column in ("published/A", "gap/A_points", "published/B", "gap/B_points"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    gaps = [cells(report.write(part, references=path), "#### Published figures")[1]["B gap"] for part in (recorded, plain)]
    assert gaps[0] == gaps[1] != "–"


def test_a_metric_where_less_is_better_leads_as_well():
    """In nats, with less as the gain, and without a margin."""
    text = report.write(by_metric("test/nll", "set in the file"))
    assert "Differences are nats of NLL" in text
    assert "Lower is better: a difference below zero is a gain." in text
    assert "seeds needed" not in text.partition("## Differences")[2].partition("##")[0]


def test_kappa_is_no_percent():
    """Its values and differences are as they are, and its margin a hundredth of the study's."""
    recorded = study()
    recorded = with_values(by_metric("test/kappa", "set in the file"), "test/kappa", recorded.runs["test/accuracy"] - 0.2)
    row = cells(report.write(recorded), "## Comparison")[1]
    values = recorded.runs[recorded.runs["arm"] == "cb"]["test/kappa"]
    assert row["kappa"] == f"[{values.mean():.3f} ± {values.std():.3f}](#runs)"
    frames = tidy_frames(recorded)
    base = recorded.runs[recorded.runs["arm"] == "baseline"]["test/kappa"].to_numpy()
    found = frames.differences.query("arm == 'cb' and role == 'parent' and metric == 'kappa'").iloc[0]
    assert found["mean"] == pytest.approx((values.to_numpy() - base).mean())
    assert {"kappa_vs_parent", "kappa_vs_parent_low", "kappa_vs_parent_high"} <= set(frames.arms.columns)


def test_the_recall_of_a_class_leads():
    """A metric that is in no table has a column, differences and verdicts like any other."""
    recorded = by_metric("test/recall/plane", "set in the file")
    row = cells(report.write(recorded), "## Comparison")[1]
    values = 100 * recorded.runs[recorded.runs["arm"] == "cb"]["test/recall/plane"]
    assert row["recall/plane"] == f"[{values.mean():.2f} ± {values.std():.2f}](#runs)"
    assert "Ladder  recall/plane  vs parent [95 %]" in report.brief(recorded, ["cb"])


def test_a_metric_that_older_runs_do_not_have_is_a_dash():
    """Nothing is computed of it, and nothing fails."""
    recorded = by_metric("test/auroc", "set in the file")
    row = cells(report.write(recorded), "## Comparison")[1]
    assert (row["AUROC"], row["vs parent"]) == ("–", "–")
    with pytest.raises(ConfigError, match=r"unknown metric 'aurok'; .*Did you mean 'auroc'"):
        report.write(recorded, metric="aurok")


NOTE = "AUROC; ablate run with --rerun cached tests what was recorded without it"


@pytest.mark.usefixtures("few_figures")
def test_every_document_says_that_the_metric_is_missing(tmp_path):
    """Of all runs or of some, and how they get it; the written report still agrees with the store, and a group without classes is none."""
    recorded = by_metric("test/auroc", "set in the file")
    for form in ("markdown", "html", "latex", "json", "csv", "text"):
        assert " ".join(report.write(recorded, form).split()).count(f"no finished run has {NOTE}") >= 1, form
    report.write(recorded, "html", output=tmp_path)
    assert check(recorded, tmp_path / "report.html", read_document(tmp_path / "report.html", None, Shown()))[0] == 0
    some = with_values(recorded, "test/auroc", [0.5, *[np.nan] * 20])
    assert f"note: 20 of 21 finished runs do not have {NOTE}" in " ".join(report.write(some, "text").split())
    assert "--rerun" not in report.write(with_values(recorded, "test/auroc", 0.5))
    assert "--rerun" not in report.write(study(), metric="medium")


def test_ranking_and_agreement_are_a_table_where_runs_have_them():
    """Percent for AUROC and average precision, and not for kappa and MCC; no table for runs without any."""
    recorded = study()
    for name, value in (("auroc", 0.9), ("average_precision", 0.8), ("kappa", 0.7), ("mcc", 0.6)):
        recorded = with_values(recorded, f"test/{name}", value)
    text = report.write(recorded)
    row = cells(text, "<summary>Ranking and agreement</summary>\n")[1]
    assert [row[name] for name in ("AUROC", "AP", "kappa", "MCC")] == ["90.00 ± 0.00", "80.00 ± 0.00", "0.700 ± 0.000", "0.600 ± 0.000"]
    assert "Ranking and agreement" not in report.write(study())
