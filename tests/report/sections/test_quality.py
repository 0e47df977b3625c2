"""The second table: the worst class and the calibration."""

import json

import pytest

from ablation import report
from ablation.training.evaluation import NUM_BINS
from tests.report.studies import LADDER, arm, cells, numbers, study


def test_the_second_table_has_the_worst_class_and_the_calibration():
    """Mean and deviation of every arm, those under a condition too, with how to read them; the bins are those of the evaluation."""
    recorded = study(broken={("cb", 1), *(("mixup", seed) for seed in (0, 1, 2))})
    text = report.write(recorded)
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert list(rows) == [planned["name"] for planned in LADDER if planned["kind"] != "condition"]
    folded = cells(text, "### Worst class and calibration under the conditions")
    assert [row["arm"] for row in folded] == ["no-lag/baseline", "no-lag/cb"]
    for title, name, scale in (("worst class", "worst", 100), ("G-mean", "g_mean", 100), ("NLL", "nll", 1), ("ECE", "ece", 100)):
        values = scale * recorded.runs[recorded.runs["arm"] == "cb"][f"test/{name}"]
        assert numbers(rows["cb"][title]) == pytest.approx([values.mean(), values.std()], abs=0.0051)
    assert (rows["cb"]["n"], rows["mixup"]["n"], rows["mixup"]["NLL"]) == ("[2/3](#runs)", "[0/3](#runs)", "")
    assert f"over {NUM_BINS} bins" in text
    assert "For NLL and ECE lower is better." in text


def test_a_store_without_these_metrics_has_dashes():
    """Runs that were recorded without them have no number, and nothing is made up."""
    recorded = study()
    recorded.runs = recorded.runs.drop(columns=["test/nll", "test/ece", "test/g_mean"])
    row = cells(report.write(recorded, metric="nll"), "## Worst class and calibration")[0]
    assert (row["n"], row["G-mean"], row["NLL"], row["ECE"]) == ("[3](#runs)", "–", "–", "–")
    assert json.loads(report.write(recorded, "json"))["arms"][0]["nll_mean"] is None


def test_a_run_without_the_metric_is_counted():
    """The mean over fewer runs than are done says so, and so does the difference of that metric."""
    recorded = study()
    recorded.runs.loc[(recorded.runs["arm"] == "cb") & (recorded.runs["seed"] == 1), "test/nll"] = float("nan")
    text = report.write(recorded)
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert (rows["cb"]["n"], rows["cb"]["NLL"].endswith(" (2 of 3)"), "of" in rows["cb"]["ECE"]) == ("[3](#runs)", True, False)
    differences = text.split("# Differences of the other metrics\n", 1)[1].split("</details>")[0]
    row = next(line for line in differences.splitlines() if line.startswith("| cb ") and "(2 of 3)" in line)
    assert [cell.strip().endswith("] (2 of 3)") for cell in row.split("|")[2:4]] == [True, False]  # of NLL and ECE


def test_scores_that_are_distances_are_marked():
    """The nearest class mean scores by distances, in the arm that sets it and in those above which nothing changes it again."""
    arms = [
        arm("baseline", None),
        arm("ncm", "baseline", change={"posthoc.name": ["none", "ncm"]}),
        arm("more", "ncm", change={"tta.name": ["none", "hflip"]}),
        arm("off", "ncm", change={"posthoc.name": ["ncm", "none"]}),
    ]
    text = report.write(study(arms, seeds=[0]))
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert [name for name, row in rows.items() if row["NLL"].endswith("†")] == ["ncm", "more"]
    assert [name for name, row in rows.items() if row["ECE"].endswith("†")] == ["ncm", "more"]
    assert "† The scores of ncm and more are distances, not probabilities" in text
    assert "sigmoid" not in text


def test_scores_of_sigmoids_are_marked():
    """Their softmax is not what they were trained for."""
    arms = [arm("baseline", None), arm("focal", "baseline") | {"is_sigmoid": True}]
    text = report.write(study(arms, seeds=[0]))
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert [name for name, row in rows.items() if row["NLL"].endswith("†")] == ["focal"]
    assert "† focal learnt a sigmoid for each class, and p is a softmax here too: NLL and ECE say little." in text
