"""Every test by family, the doubt from the test images, and conditions side by side."""

import pytest

from ablation import report
from tests.report.studies import CONDITIONED, LADDER, cells, numbers, study


def test_every_test_is_there_by_family():
    """Each table has the frame's numbers, those of one pair a dash where there is no test."""
    recorded = study(broken={("cb", 1)})
    text = report.write(recorded)
    rows = report.tidy_frames(recorded).differences
    expected = rows[(rows["metric"] == "accuracy") & (rows["family"] == "ladder") & (rows["role"] == "parent")]
    cells_by_row = cells(text, "#### ladder, against the parent")
    assert [row["arm"] for row in cells_by_row] == expected["arm"].tolist()
    assert [numbers(row["p t (Holm)"]) for row in cells_by_row] == [
        pytest.approx([p, adjusted], abs=0.00051) for p, adjusted in zip(expected["p_t"], expected["p_t_holm"], strict=True)
    ]
    assert [int(row["pairs"]) for row in cells_by_row] == expected["pairs"].tolist() == [2, 2]
    assert [row["verdict"] for row in cells_by_row] == expected["verdict"].tolist()


def test_doubt_from_the_test_images_is_kept_apart():
    """Its own table, with what it does not say; the frame's intervals, and a p per seed."""
    recorded = study()
    text = report.write(recorded)
    part = text.split("### Doubt from the test images")[1].split("</details>")[0]
    assert "says nothing about training again" in part
    row = cells(text, "### Doubt from the test images")[0]
    expected = report.tidy_frames(recorded).image_differences.query("metric == 'accuracy'").iloc[0]
    assert numbers(row["accuracy"]) == pytest.approx([expected["mean"], expected["low"], expected["high"]], abs=0.0051)
    assert len(row["McNemar's p, seed by seed"].split(", ")) == 3


def test_doubt_from_other_test_images_is_not_adjusted_and_may_have_no_interval():
    """It says so; where the seeds' test images differ there is a dash for the interval, and McNemar's tests stay."""
    recorded = study(LADDER[:2], seeds=[0, 1])
    for run_id in recorded.runs.query("seed == 1")["run_id"]:
        recorded.tables[run_id]["index"] += 1000
    text = report.write(recorded)
    assert "not adjusted for the number of comparisons" in text.split("### Doubt from the test images")[1].split("|")[0]
    row = cells(text, "### Doubt from the test images")[0]
    assert (row["accuracy"], row["balanced acc."]) == ("–", "–")
    assert len(numbers(row["McNemar's p, seed by seed"])) == 2


def test_nats_have_no_margin():
    """Of a metric in nats nothing is said of points, of the margin or of equivalence; of a fraction it is."""
    recorded = study()
    words = ("Seeds needed", "seeds needed", "p equal", "To resolve", "no difference beyond", "margin")
    nats, points = (report.write(recorded, metric=name) for name in ("nll", "accuracy"))
    assert not [word for word in words if word in nats]
    assert all(word in points for word in words[:-1])
    assert "p equal (Holm)" not in cells(nats, "#### ladder, against the parent")[0]


def test_conditions_stand_side_by_side():
    """The ladder's arms without and with it, and by how much each changed."""
    recorded = study(CONDITIONED)
    rows = cells(report.write(recorded), "## Conditions side by side")
    assert [row["arm"] for row in rows] == ["baseline", "cb"]
    values = recorded.runs.pivot(index="seed", columns="arm", values="test/accuracy")
    change = 100 * (values["no-lag/cb"] - values["cb"])
    assert numbers(rows[1]["plain"])[0] == pytest.approx(100 * values["cb"].mean(), abs=0.0051)
    assert numbers(rows[1]["no-lag"])[2] == pytest.approx(change.mean(), abs=0.0051)


def test_conditions_on_other_test_images_have_two_values_and_no_difference():
    """They are marked, and the mark is explained; nothing fails where no seed makes a pair."""
    recorded = study(CONDITIONED)
    recorded.plan["arms"] = [{**one, "test_set": one.get("condition") or "plain"} for one in CONDITIONED]
    text = report.write(recorded)
    rows = cells(text, "## Conditions side by side")
    for row, name in zip(rows, ("baseline", "cb"), strict=True):
        values = 100 * recorded.runs[recorded.runs["arm"] == f"no-lag/{name}"]["test/accuracy"]
        assert row["no-lag"] == f"{values.mean():.2f} ± {values.std():.2f} (I)"
    assert "(I): tested on other images than plain, so that there is no difference." in text
    assert "(I)" not in report.write(study(CONDITIONED))


@pytest.mark.parametrize("form", report.FORMATS)
def test_a_study_of_which_no_two_arms_share_their_test_images_has_a_report(form):
    """In every form, with figures where it has any; no difference is told."""
    recorded = study(LADDER[:3])
    recorded.plan["arms"] = [{**one, "test_set": one["name"], "labels": {"other test images": "x"}} for one in LADDER[:3]]
    text = report.write(recorded, form)
    if form == "markdown":
        rows = cells(text, "## Comparison")
        assert [(row["vs parent"], row["vs baseline"]) for row in rows[1:]] == [("–", "–")] * 2
        assert {row["verdict"] for row in rows[1:]} == {"not comparable (other test items)"}
        assert cells(text, "#### ladder, against the parent")[0]["pairs"] == "0"
        assert "No arm can be compared with its baseline." in text
    if form == "csv":
        assert set(report.tidy_frames(recorded).arms["accuracy_vs_parent_pairs"]) == {0}


def test_images_of_which_none_moved_have_no_interval():
    """A mean alone, and the reason below."""
    recorded = study(LADDER[:2], seeds=[0, 1])
    of = recorded.runs.pivot(index="seed", columns="arm", values="run_id")
    for seed in (0, 1):
        recorded.tables[of["cb"][seed]] = recorded.tables[of["baseline"][seed]]
    text = report.write(recorded)
    row = cells(text, "### Doubt from the test images")[0]
    assert (row["accuracy"], row["balanced acc."]) == ("+0.00", "+0.00")
    assert "all images differ alike (no spread)" in text


def test_conditions_alone_stand_side_by_side_without_the_plain_arms():
    """Where only a condition's arms are shown, there is no column of blanks for the plain ones."""
    text = report.write(study(CONDITIONED), arms=["no-lag/*"])
    assert set(cells(text, "## Conditions side by side")[0]) == {"arm", "no-lag"}
