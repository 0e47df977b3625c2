"""The documents say what the frames say, name every gap and survive any name."""

import io
import json
import re

import pandas as pd
import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.evaluation import NUM_BINS
from ablation.report.markdown import claim
from tests.report.studies import CLASSES, LADDER, arm, cells, study

ESCAPED = ["plane", "a|b", "&lt;i&gt;cat&lt;/i&gt;", "two lines"]


def numbers(cell):
    """The numbers in a cell."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell)]


def test_the_comparison_table_has_the_frames_numbers():
    """Percent and points to two decimals, for every arm of the ladder in its order."""
    recorded = study()
    rows = cells(report.write(recorded), "## Comparison")
    arms = report.frames(recorded).arms.set_index("arm")
    assert [row["arm"] for row in rows] == ["baseline", "cb", "mixup (MixUp)", "cutmix", "reweight"]
    for row in rows:
        own = arms.loc[row["arm"].split()[0]]
        assert numbers(row["accuracy"]) == pytest.approx([100 * own["accuracy_mean"], 100 * own["accuracy_sd"]], abs=0.0051)
        assert row["medium"] == "–"
        if own["parent"]:
            expected = [own["accuracy_vs_parent_points"], own["accuracy_vs_parent_sd_points"]]
            assert numbers(row["vs parent"]) == pytest.approx(expected, abs=0.0051)
            assert row["vs parent"].endswith("(3)")
    assert (rows[0]["A"], rows[1]["A"], rows[0]["vs parent"]) == ("84.22", "–", "–")
    assert rows[1]["what changed"] == "sampler class_balanced"
    assert rows[4]["what changed"] == "sampler class_balanced; same training as cb"


def test_conditions_are_compared_within_themselves():
    """A condition has its own table, and its baseline is its own."""
    text = report.write(study())
    rows = cells(text, "## Comparison under no-lag")
    assert [row["arm"] for row in rows] == ["no-lag/baseline", "no-lag/cb"]
    assert "A" not in rows[0]


def test_gaps_are_named():
    """A failed or missing run lowers n, shortens the pairs and is listed with its reason."""
    text = report.write(study(broken={("cb", 1)}, absent={("mixup", 2)}))
    assert "Runs: 19 done, 1 failed, 1 missing" in text
    assert "- cb, seed 1: failed (nan: the loss is NaN)" in text
    assert "- mixup, seed 2: missing" in text
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert rows["cb"]["n"] == "2/3"
    assert rows["mixup (MixUp)"]["vs parent"].endswith("(1)")


def test_an_arm_without_a_run_is_a_blank_row():
    """Its numbers are blank, not zero and not a dash, and the arm is still there."""
    rows = {row["arm"]: row for row in cells(report.write(study(broken={("cb", seed) for seed in (0, 1, 2)})), "## Comparison")}
    assert (rows["cb"]["n"], rows["cb"]["accuracy"], rows["cb"]["vs baseline"]) == ("0/3", "", "")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [(0, "no difference is claimed"), (1, "One seed gives no interval"),
     (2, "2 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.5); 6 can"),
     (5, "0.062); 6 can"), (6, "p = 0.031 at best")],
)  # fmt: skip
def test_what_few_seeds_cannot_claim_is_said(pairs, words):
    """In plain words, by the number of pairs."""
    assert words in claim(pairs)


def test_one_seed_has_no_interval():
    """No ± anywhere in the comparison."""
    text = report.write(study(seeds=[3]))
    assert "One seed gives no interval" in text
    assert all("±" not in cell for row in cells(text, "## Comparison") for cell in row.values())


def test_labels_are_marked_and_explained_with_the_arms_numbers():
    """A short mark in the table; below it the meaning and every arm's own words."""
    text = report.write(study())
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert (rows["baseline"]["labels"], rows["cutmix"]["labels"], rows["reweight"]["labels"]) == ("L", "B", "")
    assert re.search(r"\*\*L\*\* \*lag\*, .*baseline and cb: 52\.6 % are still initial", text)
    assert re.search(r"\*\*B\*\* \*bundle\*, .*cutmix: mix and loss", text)


def test_per_class_tables_have_sklearns_rows():
    """Every class by its own name, then accuracy, macro and weighted average."""
    recorded = study()
    rows = cells(report.write(recorded), "### cb (n = 3)")
    assert [row["class"] for row in rows] == [*ESCAPED, "accuracy", "macro avg", "weighted avg"]
    own = report.frames(recorded)
    expected = own.per_class[own.per_class["arm"] == "cb"]["f1"]
    assert [numbers(row["F1"])[0] for row in rows[:4]] == pytest.approx((100 * expected).tolist(), abs=0.0051)
    assert [row["support"] for row in rows] == ["40"] * 4 + ["160"] * 3
    assert rows[4]["precision"] == ""


def test_confusion_tables_are_row_percents():
    """Each row of the matrix adds up to a hundred."""
    rows = cells(report.write(study()), "### cb: confusions")
    assert [row["true / predicted"] for row in rows] == ESCAPED
    assert all(sum(float(row[name]) for name in ESCAPED) == pytest.approx(100, abs=0.25) for row in rows)


def test_the_rest_of_the_document():
    """Distribution, time, runs, superseded runs, notes and how to read it."""
    text = report.write(study())
    assert [row["train (seed 0)"] for row in cells(text, "## Class distribution")] == ["100", "99", "98", "97"]
    assert cells(text, "## Time and epochs")[-1] == {
        "arm": "all arms", "time": "21 min 00 s", "shared time": "10 min 30 s", "epochs": "42", "shared epochs": "21",
    }  # fmt: skip
    assert len(cells(text, "## Runs")) == 21
    assert "- old 0" in text
    assert "- statistical on CUDA" in text
    assert "*medium*: no class." in text
    assert "](figures/" not in text


@pytest.mark.parametrize("format_name", report.FORMATS)
def test_the_same_store_gives_the_same_document(format_name):
    """Nothing but the store is in it: no clock, no path, no chance."""
    assert report.write(study(), format_name) == report.write(study(), format_name)


@pytest.mark.parametrize("format_name", report.FORMATS)
def test_with_output_the_folder_holds_the_document_its_figures_and_the_csv_files(tmp_path, format_name):
    """The text that is returned is the file's, and every figure that it links to is there."""
    text = report.write(study(), format_name, tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    name = {"markdown": "report.md", "csv": "report.csv", "json": "report.json"}[format_name]
    assert (folder / name).read_text() == text
    assert {"report.csv", "runs.csv", "per_class.csv", "confusion.csv", "figures"} <= {path.name for path in folder.iterdir()}
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert len(links) == (3 if format_name == "markdown" else 0)
    assert all((folder / link).stat().st_size > 1000 for link in links)
    confusion = pd.read_csv(folder / "confusion.csv")
    assert len(confusion) == len(LADDER) * len(CLASSES) ** 2
    assert set(confusion["true"]) == set(CLASSES)


def test_csv_is_the_arms_frame():
    """What is read back equals the frame."""
    recorded = study()
    back = pd.read_csv(io.StringIO(report.write(recorded, "csv")), keep_default_na=True)
    assert back["accuracy_mean"].tolist() == report.frames(recorded).arms["accuracy_mean"].tolist()
    assert back["accuracy_vs_parent_pairs"].tolist() == [0, 3, 3, 3, 3, 0, 3]


def test_json_has_fractions_and_no_nan():
    """Full digits, differences as fractions too, null where there is no number."""
    recorded = study(broken={("cb", 1)})
    whole = json.loads(report.write(recorded, "json"), parse_constant=pytest.fail)
    arms = report.frames(recorded).arms
    assert [one["accuracy_mean"] for one in whole["arms"]] == arms["accuracy_mean"].tolist()
    assert whole["arms"][1]["accuracy_vs_parent"] == pytest.approx(arms["accuracy_vs_parent_points"][1] / 100)
    assert whole["arms"][0]["medium_mean"] is None
    assert whole["confusion"]["cb"] == report.frames(recorded).confusion["cb"].tolist()
    assert next(run for run in whole["runs"] if run["state"] == "failed")["test/accuracy"] is None
    assert set(whole) >= {"study", "plan", "per_class", "averages", "curves", "superseded"}


def test_globs_choose_what_is_shown_and_not_what_is_compared():
    """The chosen arms alone, with their differences to a baseline that is not shown."""
    text = report.write(study(), arms=["cut*", "no-lag/*"])
    rows = cells(text, "## Comparison")
    assert [row["arm"] for row in rows] == ["cutmix"]
    assert numbers(rows[0]["vs baseline"])
    assert "### baseline" not in text
    assert "### no-lag/cb (n = 3)" in text


def test_the_metric_decides_the_differences():
    """Another metric, with or without its prefix, and a column of its own where it has none."""
    recorded = study()
    for name in ("recall/plane", "test/recall/plane"):
        row = cells(report.write(recorded, metric=name), "## Comparison")[1]
        values = recorded.runs.pivot(index="seed", columns="arm", values="test/recall/plane")
        assert numbers(row["recall/plane"])[0] == pytest.approx(100 * values["cb"].mean(), abs=0.0051)
        assert numbers(row["vs parent"])[0] == pytest.approx(100 * (values["cb"] - values["baseline"]).mean(), abs=0.0051)


@pytest.mark.parametrize(
    ("name", "scale", "decimals", "words"),
    [
        ("nll", 1, 3, ["Percent (NLL: nats), mean", "Differences are nats of NLL", "Lower is better"]),
        ("test/nll", 1, 3, ["Differences are nats of NLL", "Lower is better"]),
        ("ece", 100, 2, ["- Percent, mean", "Differences are points of ECE", "Lower is better"]),
        ("g_mean", 100, 2, ["Differences are points of G-mean"]),
        ("test/worst", 100, 2, ["Differences are points of worst class"]),
    ],
)
def test_a_metric_is_told_in_its_own_unit(name, scale, decimals, words):
    """Nats as they are and fractions in percent, in the table, in its differences, in the caption and in the list of runs."""
    recorded = study()
    text = report.write(recorded, metric=name)
    comparison = text.split("## Comparison under")[0]
    assert all(word in comparison for word in words)
    assert ("Lower is better" in comparison) == ("Lower is better" in words)
    title = {"nll": "NLL", "ece": "ECE", "g_mean": "G-mean", "worst": "worst class"}[name.removeprefix("test/")]
    values = recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name.removeprefix('test/')}")
    row = cells(text, "## Comparison")[1]
    assert row[title] == f"{scale * values['cb'].mean():.{decimals}f} ± {scale * values['cb'].std():.{decimals}f}"
    gains = scale * (values["cb"] - values["baseline"])
    assert row["vs parent"] == f"{gains.mean():+.{decimals}f} ± {gains.std():.{decimals}f} (3)"
    assert cells(text, "## Runs")[3][title] == f"{scale * values['cb'][0]:.{decimals}f}"


def test_the_second_table_has_the_worst_class_and_the_calibration():
    """Mean and deviation of every arm, those under a condition too, with how to read them; the bins are those of the evaluation."""
    recorded = study(broken={("cb", 1), *(("mixup", seed) for seed in (0, 1, 2))})
    text = report.write(recorded)
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert list(rows) == [one["name"] for one in LADDER]
    for title, name, scale in (("worst class", "worst", 100), ("G-mean", "g_mean", 100), ("NLL", "nll", 1), ("ECE", "ece", 100)):
        values = scale * recorded.runs[recorded.runs["arm"] == "cb"][f"test/{name}"]
        assert numbers(rows["cb"][title]) == pytest.approx([values.mean(), values.std()], abs=0.0051)
    assert (rows["cb"]["n"], rows["mixup"]["n"], rows["mixup"]["NLL"]) == ("2/3", "0/3", "")
    assert f"over {NUM_BINS} bins" in text
    assert "For NLL and ECE lower is better." in text


def test_a_store_without_these_metrics_has_dashes():
    """Runs that were recorded without them have no number, and nothing is made up."""
    recorded = study()
    recorded.runs = recorded.runs.drop(columns=["test/nll", "test/ece", "test/g_mean"])
    row = cells(report.write(recorded, metric="nll"), "## Worst class and calibration")[0]
    assert (row["n"], row["G-mean"], row["NLL"], row["ECE"]) == ("3", "–", "–", "–")
    assert json.loads(report.write(recorded, "json"))["arms"][0]["nll_mean"] is None


def test_csv_and_json_have_nats_as_they_are():
    """No column of the NLL speaks of points, and JSON has its difference undivided; that of the ECE is a fraction again."""
    recorded = study()
    table = pd.read_csv(io.StringIO(report.write(recorded, "csv", metric="nll")))
    whole = json.loads(report.write(recorded, "json", metric="nll"))["arms"][1]
    nll, ece = (recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name}") for name in ("nll", "ece"))
    assert not [column for column in table if column.startswith("nll") and "points" in column]
    gain = (nll["cb"] - nll["baseline"]).mean()
    assert table["nll_vs_parent"][1] == whole["nll_vs_parent"] == pytest.approx(gain)
    assert whole["ece_vs_parent"] == pytest.approx((ece["cb"] - ece["baseline"]).mean())
    assert table["ece_vs_parent_points"][1] == pytest.approx(100 * whole["ece_vs_parent"])


def test_metrics_of_the_validation_images_are_no_test_metrics():
    """A document is the same without them, and none can be asked for as a metric of the report."""
    recorded, without = study(), study()
    without.runs = without.runs.drop(columns=[column for column in without.runs if column.startswith("validation/")])
    assert len(without.runs.columns) < len(recorded.runs.columns)
    assert report.write(recorded) == report.write(without)
    assert report.write(recorded, "csv") == report.write(without, "csv")
    for name in ("validation/nll", "val/nll"):
        with pytest.raises(ConfigError, match="--metric: unknown metric"):
            report.write(recorded, metric=name)


def test_a_choice_is_told_under_its_table():
    """Which arm each seed chose, with its mark explained; it trains nothing, so it is in no count of what sharing saved."""
    change = {"posthoc.tau": [None, "the best of 0.5, 1.0 by val/nll"]}
    arms = [
        arm("baseline", None),
        arm("tau/0.5", "baseline"),
        arm("tau/1.0", "baseline"),
        arm("tau/best", "baseline", "sweep", change=change, labels={"chosen": "the best of 2 arms"}),
    ]
    text = report.write(study(arms, seeds=[0, 1], chosen={("tau/best", 0): "tau/0.5", ("tau/best", 1): "tau/1.0"}))
    comparison = text.split("## Worst class")[0]
    assert "tau/best: seed 0 tau/0.5, seed 1 tau/1.0\n" in comparison
    assert "**C** *chosen*, each seed's run is another arm's" in comparison
    row = cells(text, "## Comparison")[3]
    assert (row["labels"], row["what changed"]) == ("C", "posthoc.tau: the best of 0.5, 1.0 by val/nll")
    assert [row["arm"] for row in cells(text, "## Time and epochs")] == ["baseline", "tau/0.5", "tau/1.0", "all arms"]
    assert "Sharing saved 3 min 00 s" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"format": "html"}, "--format: unknown format 'html'"), ({"metric": "acuracy"}, "Did you mean 'test/accuracy'"),
     ({"arms": ["zz*"]}, "--arm: unknown arm")],
)  # fmt: skip
def test_unknown_words_are_errors(arguments, words):
    """A format, a metric or an arm that nobody knows stops the report."""
    with pytest.raises(ConfigError) as caught:
        report.write(study(), **arguments)
    assert words in str(caught.value)


def test_an_output_that_is_a_file_is_an_error(tmp_path):
    """One sentence, and the file is left alone."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="--output: cannot make the folder"):
        report.write(study(), output=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_published_figures_from_a_file(tmp_path):
    """A column per report with its gap; rows that fit no arm are listed."""
    (tmp_path / "published.csv").write_text("report,arm,accuracy\nB,cb+mixup,0.9\nB,unheard|of,0.5\n")
    recorded = study()
    text = report.write(recorded, references=tmp_path / "published.csv")
    row = next(row for row in cells(text, "## Comparison") if row["arm"].startswith("mixup"))
    ours = report.frames(recorded).arms.set_index("arm").loc["mixup", "accuracy_mean"]
    assert row["B"] == "90.00"
    assert numbers(row["B gap"]) == pytest.approx([100 * ours - 90], abs=0.0051)
    assert "- B: unheard\\|of (50.00)" in text


def test_published_figures_per_class(tmp_path):
    """Beside ours in the arm's own table, a dash where the class has none."""
    (tmp_path / "published.csv").write_text("arm,class,precision,recall,f1,support\ncb,plane,0.1,0.2,0.3,9\n")
    text = report.write(study(), references=tmp_path / "published.csv")
    rows = cells(text, "### cb (n = 3)")
    assert [rows[0][f"published {name}"] for name in ("precision", "recall", "F1")] == ["10.00", "20.00", "30.00"]
    assert rows[1]["published recall"] == "–"
    assert "published recall" not in cells(text, "### baseline (n = 3)")[0]


def test_a_hundred_classes_do_not_explode():
    """No hundred columns: the largest confusions instead of the matrix."""
    classes = [f"class {number}" for number in range(100)]
    text = report.write(study(LADDER[:2], seeds=[0], classes=classes, images=10))
    assert len(cells(text, "### cb: confusions")) == 10
    shares = [float(row["share"]) for row in cells(text, "### cb: confusions")]
    assert shares == sorted(shares, reverse=True)
    assert max(map(len, text.split("## How to read this")[0].splitlines())) < 400


def test_a_long_change_is_cut_in_the_table_and_whole_below():
    """Three settings in the cell; every one in the list of changes, from what to what."""
    change = {f"loss.field{number}": [number, number + 1] for number in range(5)}
    text = report.write(study([arm("baseline", None), arm("many", "baseline", change=change)], seeds=[0]))
    assert cells(text, "## Comparison")[1]["what changed"].endswith("; and 2 more")
    rows = cells(text, "## Changes")
    assert [(row["setting"], row["from"], row["to"]) for row in rows] == [(f"loss.field{n}", str(n), str(n + 1)) for n in range(5)]


def test_nothing_done_yet_is_a_report_too(tmp_path):
    """Every run is listed as missing, and there are no tables of numbers that do not exist."""
    arms = [arm("baseline", None), arm("cb", "baseline")]
    text = report.write(study(arms, seeds=[0], absent={("baseline", 0), ("cb", 0)}), output=tmp_path)
    assert "Runs: 0 done, 0 failed, 2 missing" in text
    assert "No arm has a seed in common with its baseline" in text
    assert "## Per class" not in text


def test_seventy_arms_stay_readable(tmp_path):
    """One row each, and figures by the page."""
    arms = [arm("baseline", None), *(arm(f"a{number}", "baseline", "sweep") for number in range(70))]
    text = report.write(study(arms, seeds=[0], images=5, steps=2), arms=["baseline", "a1*"], output=tmp_path)
    assert len(cells(text, "## Comparison")) == 12
    assert text.count("(figures/confusion-") == 1
    assert text.count("(figures/curves-") == 2
