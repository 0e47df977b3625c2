"""What is said at the beginning: every gap by name."""

import re

from ablation import report
from ablation.errors import DataError
from tests.report.studies import LADDER, arm, cells, study


def test_gaps_are_named():
    """A failed or missing run lowers n, shortens the pairs and is listed with its reason."""
    text = report.write(study(broken={("cb", 1)}, absent={("mixup", 2)}))
    assert "**Runs** 19 done, 1 failed, 1 missing" in text
    assert "- cb, seed 1: failed (nan: the loss is NaN)" in text
    assert "- mixup, seed 2: missing" in text
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert {row["arm"]: row["n"] for row in cells(text, "### All metrics")}["cb"] == "[2/3](#runs)"
    assert rows["mixup (MixUp; n 2/3)"]["vs parent"].endswith("(1 of 3)")
    assert "[" not in rows["mixup (MixUp; n 2/3)"]["vs parent"]
    assert text.index("## Not done") < text.index("## Comparison") < text.index("### What can be claimed")
    assert "**Fewer runs than planned**: cb and mixup" in text


def test_predictions_that_cannot_be_read_are_told():
    """Under what is not done, with the reason; the run's metrics count all the same."""
    recorded = study(LADDER[:2])
    lost = recorded.runs.query("arm == 'cb' and seed == 1")["run_id"].iloc[0]

    def predictions(run_id):
        if run_id == lost:
            raise DataError("predictions.csv of cb is <gone>")
        return recorded.tables[run_id]

    recorded.predictions = predictions
    text = report.write(recorded)
    part = text.split("## Not done")[1].split("\n## ")[0]
    assert "their predictions cannot be read" in part
    assert "- cb seed 1: predictions.csv of cb is &lt;gone&gt;" in part
    assert "fewer runs than planned" not in part
    assert cells(text, "### All metrics")[1]["n"] == "[3](#runs)"
    assert "#### cb (n = 2)" in text


def test_a_class_that_gained_is_not_said_to_suffer():
    """Where no class lost anything, there is no largest loss."""
    recorded = study(LADDER[:2])
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map({"baseline": 0.5, "cb": 0.6})
    for run in recorded.runs[recorded.runs["arm"] == "cb"]["run_id"]:
        table = recorded.tables[run]
        table["predicted"] = table["label"].where(table.index % 10 > 0, (table["label"] + 1) % 4)
    line = next(line for line in report.write(recorded).splitlines() if "lowest recall" in line)
    start = r"- The lowest recall under cb is that of class \*\*plane\*\* and 3 others: 90\.00 ± 0\.00 "
    assert re.fullmatch(start + r"\(\d\d\.\d\d under baseline\); see \[Classes\]\(#classes\)\.", line)


def test_nothing_done_yet_is_a_report_too(tmp_path):
    """Every run is listed as missing, and there are no tables of numbers that do not exist."""
    arms = [arm("baseline", None), arm("cb", "baseline")]
    text = report.write(study(arms, seeds=[0], absent={("baseline", 0), ("cb", 0)}), output=tmp_path)
    assert "**Runs** 2 missing" in text
    assert text.count("No arm has a seed in common with its baseline") == text.count("no difference is claimed") == 1
    assert "### Per class" not in text
