"""What is folded away: classes, confusions, time, runs and provenance."""

import pytest

from ablation import report
from tests.report.studies import ESCAPED, LADDER, cells, numbers, part, study


def test_per_class_tables_have_sklearns_rows():
    """Every class by its own name, then accuracy, macro and weighted average."""
    recorded = study()
    rows = cells(report.write(recorded), "### cb (n = 3)")
    assert [row["class"] for row in rows] == [*ESCAPED, "accuracy", "macro avg", "weighted avg"]
    frames = report.tidy_frames(recorded)
    expected = frames.per_class[frames.per_class["arm"] == "cb"]["f1"]
    assert [numbers(row["F1"])[0] for row in rows[:4]] == pytest.approx((100 * expected).tolist(), abs=0.0051)
    assert [row["support"] for row in rows] == ["40"] * 4 + ["160"] * 3
    assert rows[4]["precision"] == ""


def test_published_figures_per_class(tmp_path):
    """Beside ours in the arm's own table, a dash where the class has none."""
    (tmp_path / "published.csv").write_text("arm,class,precision,recall,f1,support\ncb,plane,0.1,0.2,0.3,9\n")
    text = report.write(study(), references=tmp_path / "published.csv")
    rows = cells(text, "### cb (n = 3)")
    assert [rows[0][f"published {name}"] for name in ("precision", "recall", "F1")] == ["10.00", "20.00", "30.00"]
    assert rows[1]["published recall"] == "–"
    assert "published recall" not in cells(text, "### baseline (n = 3)")[0]


def test_a_class_without_test_images_has_dashes():
    """Its recall and F1 do not exist; the accuracy's row, which has only one number, keeps its blanks."""
    recorded = study(LADDER[:1], seeds=[0])
    recorded.tables = {run_id: table[table["label"] != 1] for run_id, table in recorded.tables.items()}
    rows = {row["class"]: row for row in cells(report.write(recorded), "### baseline (n = 1)")}
    assert (rows["a|b"]["recall"], rows["a|b"]["F1"], rows["a|b"]["support"]) == ("–", "–", "0")
    assert (rows["accuracy"]["precision"], rows["accuracy"]["recall"]) == ("", "")


def test_confusion_tables_are_row_percents():
    """Each row of the matrix adds up to a hundred."""
    rows = cells(report.write(study()), "### cb: confusions")
    assert [row["true / predicted"] for row in rows] == ESCAPED
    assert all(sum(float(row[name]) for name in ESCAPED) == pytest.approx(100, abs=0.25) for row in rows)


def test_a_hundred_classes_do_not_explode():
    """No hundred columns: the largest confusions instead of the matrix."""
    classes = [f"class {number}" for number in range(100)]
    text = report.write(study(LADDER[:2], seeds=[0], classes=classes, images=10))
    assert len(cells(text, "### cb: confusions")) == 10
    shares = [float(row["share"]) for row in cells(text, "### cb: confusions")]
    assert shares == sorted(shares, reverse=True)
    assert max(map(len, text.split("### How to read this")[0].splitlines())) < 450


def test_what_is_never_confused_is_no_confusion():
    """With two classes whose names are too long for a matrix the list has the two confusions, and not the classes themselves."""
    classes = ["squamous_cell_carcinoma_" * 4, "seborrheic_keratosis_benign_" * 4]
    recorded = study(LADDER[:2], seeds=[0], classes=classes)
    rows = cells(report.write(recorded), "### cb: confusions")
    assert sorted((row["true"] == row["predicted"], row["share"] == "0.0") for row in rows) == [(False, False)] * 2
    for table in recorded.tables.values():
        table["predicted"] = table["label"]
    assert "### cb: confusions\n\nNone.\n" in report.write(recorded).replace("</summary>", "")


def test_the_rest_of_the_document():
    """Distribution, time, runs, superseded runs, notes and how to read it."""
    text = report.write(study())
    assert [row["train (seed 0)"] for row in cells(text, "## Class distribution")] == ["100", "99", "98", "97"]
    assert cells(text, "## Time and epochs")[-1] == {
        "arm": "all arms", "time": "21 min 00 s", "shared time": "10 min 30 s", "epochs": "42", "shared epochs": "21",
    }  # fmt: skip
    assert len(cells(text, "### Runs")) == 21
    assert "- old 0" in text
    assert "- statistical on CUDA" in text
    members = "- *many*: 2 classes (plane and a\\|b)\n- *medium*: no class\n- *few*: 2 classes"
    assert members in part(text, "Groups of classes")
    assert "](figures/" not in text
    runs = cells(text, "### Runs")
    assert {row["run"].strip("`") for row in runs} == set(study().runs["run_id"])


def test_a_run_of_two_arms_counts_once():
    """In the number of runs, in the sums of time and in the provenance; each arm still has its row."""
    text = report.write(study(absent={("reweight", seed) for seed in range(3)}))
    assert "**Runs** 18 done · " in text
    rows = {row["arm"]: row for row in cells(text, "### Time and epochs")}
    assert rows["reweight"] == {**rows["cb"], "arm": "reweight"}
    assert (rows["all arms"]["time"], rows["all arms"]["epochs"]) == ("18 min 00 s", "36")
    assert "Sharing saved 9 min 00 s" in text
    assert "- runs: 18 of 18 (every arm)" in text


def test_provenance_is_told_per_group_of_runs_that_share_it():
    """One group where all is alike; another commit makes two, each with its own."""
    text = report.write(study())
    section = text.split("### Provenance")[1].split("</details>")[0]
    assert section.count("- commit: ") == 1
    assert "- runs: 21 of 21 (every arm)" in section
    assert "- commit: `c0ffee" in section
    assert "- versions: torch 2.11.0" in section
    recorded = study()
    recorded.runs.loc[recorded.runs["arm"] == "cb", ["commit", "dirty"]] = ["beef", "true"]
    section = report.write(recorded).split("### Provenance")[1].split("</details>")[0]
    assert section.count("- commit: ") == 2
    assert "- runs: 3 of 21 (cb)" in section
    assert "- commit: `beef`, with uncommitted changes" in section
