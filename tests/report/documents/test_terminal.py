"""The table that a run ends with."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablation import report
from tests.report.studies import LADDER, arm, cells, study

ARMS = [rung["name"] for rung in LADDER]


def rows(recorded, arms=ARMS):
    """The table's rows by arm."""
    return {row["arm"]: row for row in cells("table\n" + report.brief(recorded, arms), "table")}


def test_rows_hold_the_difference_with_its_interval_and_the_verdict():
    """The mean difference to the parent in points, its 95 % t interval over seeds, and what may be said of it."""
    recorded = study(seeds=range(5))
    values = 100 * recorded.runs.pivot(index="seed", columns="arm", values="test/accuracy")
    table = rows(recorded)
    verdicts = report.tidy_frames(recorded).arms.set_index("arm")["verdict_vs_parent"]
    for name, parent in (("cb", "baseline"), ("mixup", "cb"), ("no-lag/cb", "no-lag/baseline")):
        gains = values[name] - values[parent]
        low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
        assert table[name]["vs parent [95 %]"] == f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        assert table[name]["verdict"] == verdicts[name] != ""
        assert table[name]["accuracy"] == f"{values[name].mean():.2f} ± {values[name].std():.2f}"
    assert (table["baseline"]["vs parent [95 %]"], table["baseline"]["verdict"]) == ("", "")
    assert table["reweight"]["labels"] == "= cb"


def test_missing_runs_are_counted():
    """An arm with fewer runs than planned says so, and one without any has no numbers."""
    table = rows(study(broken={("cb", 1)}, absent={("mixup", seed) for seed in (0, 1, 2)}))
    assert (table["cb"]["n"], table["baseline"]["n"], table["mixup"]["n"]) == ("2/3", "3", "0/3")
    assert table["mixup"]["accuracy"] == table["mixup"]["vs parent [95 %]"] == table["mixup"]["verdict"] == ""


def test_only_the_asked_arms_corrected_for_all():
    """The other arms are not shown; they still count in the correction."""
    recorded = study(seeds=range(4))
    assert list(rows(recorded, ["mixup"])) == ["mixup"]
    assert rows(recorded, ["mixup"])["mixup"]["verdict"] == rows(recorded)["mixup"]["verdict"]


def test_empty_columns_are_left_out():
    """Without parents and labels there is no column for them, and predictions are never read."""
    recorded = study([arm("baseline", None), arm("other", None)])
    recorded.tables.clear()
    (row, _) = rows(recorded, ["baseline", "other"]).values()
    assert list(row) == ["arm", "n", "accuracy", "balanced", "macro-F1", "few"]
    nothing = study([arm("baseline", None)], absent={("baseline", seed) for seed in (0, 1, 2)})
    assert rows(nothing, ["baseline"]) == {"baseline": {"arm": "baseline", "n": "0/3"}}


@pytest.mark.parametrize(("seeds", "words"), [(1, "one shows no spread"), (2, "2 reach p = 0.5 at best"), (5, "5 reach p = 0.062 at best")])
def test_too_few_seeds_are_said(seeds, words):
    """One line below the table says why nothing can be claimed, and how many seeds it takes, corrected too."""
    text = report.brief(study(seeds=range(seeds)), ARMS)
    last = text.splitlines()[-1]
    assert last.startswith("Too few seeds")
    assert words in last
    assert last.endswith("a sign-flip test needs 6 seeds, after Holm's correction of 2 comparisons 7.")


def test_enough_seeds_need_no_words():
    """Where one comparison could be claimed, or there is none, nothing is said."""
    assert "Too few" not in report.brief(study(seeds=range(6)), ARMS)
    assert "Too few" not in report.brief(study([arm("baseline", None)]), ["baseline"])
    alone = [arm("baseline", None), arm("cb", "baseline")]
    assert "Too few" not in report.brief(study(alone, seeds=range(6)), ["cb"])
    assert "after Holm" not in report.brief(study(alone, seeds=range(3)), ["cb"])


def test_comparisons_of_one_training_are_no_tests():
    """An arm that is its parent under another name does not hide that the seeds are too few for the others."""
    arms = [arm("baseline", None), arm("cb", "baseline"), arm("again", "baseline", same_as="baseline")]
    assert report.brief(study(arms, seeds=range(3)), ["cb", "again"]).splitlines()[-1].startswith("Too few seeds")
    assert "Too few" not in report.brief(study(arms, seeds=range(3)), ["again"])


def test_a_sure_gain_is_called_one():
    """Ten points more in each of eight seeds, with a little spread, are better without reserve."""
    recorded = study([arm("baseline", None), arm("cb", "baseline")], seeds=range(8))
    spread = pd.Series(np.linspace(0.1, 0.11, 8))
    base = recorded.runs.loc[recorded.runs["arm"] == "baseline", "test/accuracy"].to_numpy()
    recorded.runs.loc[recorded.runs["arm"] == "cb", "test/accuracy"] = base + spread.to_numpy()
    assert rows(recorded, ["cb"])["cb"]["verdict"] == "better"
