"""The documents say what the frames say, name every gap and survive any name."""

import io
import json
import math
import re

import pandas as pd
import pytest
from scipy import stats

from ablation import report
from ablation.errors import ConfigError, DataError
from ablation.training.evaluation import NUM_BINS
from ablation.report.documents import writing as documents
from ablation.report.sections.claims import claim
from tests.report.studies import CLASSES, LADDER, arm, cells, study

FRAMES = ("differences", "class_differences", "image_differences", "mcnemar", "calibration", "attribution", "effects", "conditions")
CONDITIONED = [{**one, "condition": "no-lag" if one["kind"] == "condition" else None} for one in LADDER]
ESCAPED = ["plane", "a|b", "&lt;i&gt;cat&lt;/i&gt;", "two lines"]


def numbers(cell):
    """The numbers in a cell."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell)]


def test_the_comparison_table_has_the_frames_numbers():
    """Percent and points to two decimals, differences with their interval and verdict, for every arm of the ladder in its order."""
    recorded = study()
    rows = cells(report.write(recorded), "## Comparison")
    arms = report.frames(recorded).arms.set_index("arm")
    assert [row["arm"] for row in rows] == ["baseline", "cb", "mixup (MixUp)", "cutmix", "reweight"]
    for row in rows:
        own = arms.loc[row["arm"].split()[0]]
        assert numbers(row["accuracy"]) == pytest.approx([100 * own["accuracy_mean"], 100 * own["accuracy_sd"]], abs=0.0051)
        assert row["medium"] == "–"
        if own["parent"]:
            expected = [own[f"accuracy_vs_parent{part}_points"] for part in ("", "_low", "_high")]
            assert numbers(row["vs parent"]) == pytest.approx(expected, abs=0.0051)
            assert row["verdict"] == own["verdict_vs_parent"]
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
    assert rows["cb"]["n"] == "[2/3](#runs)"
    assert rows["mixup (MixUp)"]["vs parent"].endswith("(1 of 3)")
    assert "[" not in rows["mixup (MixUp)"]["vs parent"]
    assert text.index("## Not done") < text.index("## What can be claimed") < text.index("## Comparison")
    assert "**Fewer runs than planned**: cb and mixup" in text


def test_an_arm_without_a_run_is_a_blank_row():
    """Its numbers are blank, not zero and not a dash, and the arm is still there."""
    rows = {row["arm"]: row for row in cells(report.write(study(broken={("cb", seed) for seed in (0, 1, 2)})), "## Comparison")}
    assert (rows["cb"]["n"], rows["cb"]["accuracy"], rows["cb"]["vs baseline"]) == ("[0/3](#runs)", "", "")


@pytest.mark.parametrize(
    ("pairs", "tests", "words"),
    [(1, 1, "One seed gives no interval: no difference can be told from chance. 6 seeds can."),
     (2, 1, "2 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.5); 6 can."),
     (3, 5, "3 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.25); 6 can (8 after Holm over 5 comparisons"),
     (5, 1, "0.062); 6 can"), (6, 1, "p = 0.031 at best, which withstands Holm over up to 1 comparison."),
     (8, 5, "withstands Holm over up to 6 comparisons."),
     (8, 28, "withstands Holm over up to 6 comparisons; the largest family has 28, for which 11 seeds are needed.")],
)  # fmt: skip
def test_what_few_seeds_cannot_claim_is_said(pairs, tests, words):
    """In plain words, by the number of pairs and the size of the largest family."""
    assert words in claim(pairs, tests)


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
    assert len(cells(text, "### Runs")) == 21
    assert "- old 0" in text
    assert "- statistical on CUDA" in text
    assert "*many*: 2 classes (plane and a\\|b); *medium*: no class; *few*: 2 classes" in text.split("## ")[0]
    assert "](figures/" not in text
    runs = cells(text, "### Runs")
    assert {row["run"].strip("`") for row in runs} == set(study().runs["run_id"])


@pytest.mark.parametrize("format_name", report.FORMATS)
def test_the_same_store_gives_the_same_document(format_name):
    """Nothing but the store is in it: no clock, no path, no chance."""
    assert report.write(study(), format_name) == report.write(study(), format_name)


@pytest.mark.parametrize("format_name", report.FORMATS)
def test_with_output_the_folder_holds_the_document_its_figures_and_the_csv_files(tmp_path, format_name):
    """The text that is returned is the file's, and every figure that it links to is there."""
    text = report.write(study(), format_name, tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    name = f"report.{documents.SUFFIXES[format_name]}"
    assert (folder / name).read_text() == text
    files = {"report.csv", "runs.csv", "per_class.csv", "confusion.csv", "figures", *(f"{name}.csv" for name in FRAMES)}
    assert files | {name} == {path.name for path in folder.iterdir()}
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert len(links) == len(set(links))
    assert bool(links) == (format_name == "markdown")
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
    assert row[title].strip("*") == f"{scale * values['cb'].mean():.{decimals}f} ± {scale * values['cb'].std():.{decimals}f}"
    gains = scale * (values["cb"] - values["baseline"])
    bounds = stats.t.interval(0.95, 2, gains.mean(), gains.std() / math.sqrt(3))
    assert row["vs parent"] == f"{gains.mean():+.{decimals}f} [{bounds[0]:+.{decimals}f}, {bounds[1]:+.{decimals}f}]"
    assert cells(text, "### Runs")[3][title] == f"{scale * values['cb'][0]:.{decimals}f}"


def test_the_second_table_has_the_worst_class_and_the_calibration():
    """Mean and deviation of every arm, those under a condition too, with how to read them; the bins are those of the evaluation."""
    recorded = study(broken={("cb", 1), *(("mixup", seed) for seed in (0, 1, 2))})
    text = report.write(recorded)
    rows = {row["arm"]: row for row in cells(text, "## Worst class and calibration")}
    assert list(rows) == [one["name"] for one in LADDER if one["kind"] != "condition"]
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
    assert [row["arm"] for row in cells(text, "### Time and epochs")] == ["baseline", "tau/0.5", "tau/1.0", "all arms"]
    assert "Sharing saved 3 min 00 s" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"format": "htm"}, "--format: unknown format 'htm'"), ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
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
    assert max(map(len, text.split("### How to read this")[0].splitlines())) < 450


def test_a_long_change_is_cut_in_the_table_and_whole_below():
    """Three settings in the cell; every one in the list of changes, from what to what."""
    change = {f"loss.field{number}": [number, number + 1] for number in range(5)}
    text = report.write(study([arm("baseline", None), arm("many", "baseline", change=change)], seeds=[0]))
    assert cells(text, "## Comparison")[1]["what changed"].endswith("; and 2 more")
    rows = cells(text, "### Changes")
    assert [(row["setting"], row["from"], row["to"]) for row in rows] == [(f"loss.field{n}", str(n), str(n + 1)) for n in range(5)]


def test_nothing_done_yet_is_a_report_too(tmp_path):
    """Every run is listed as missing, and there are no tables of numbers that do not exist."""
    arms = [arm("baseline", None), arm("cb", "baseline")]
    text = report.write(study(arms, seeds=[0], absent={("baseline", 0), ("cb", 0)}), output=tmp_path)
    assert "Runs: 0 done, 0 failed, 2 missing" in text
    assert text.count("No arm has a seed in common with its baseline") == text.count("no difference is claimed") == 1
    assert "### Per class" not in text


def test_seventy_arms_stay_readable(tmp_path):
    """One row each, and figures by the page."""
    arms = [arm("baseline", None), *(arm(f"a{number}", "baseline", "sweep") for number in range(70))]
    text = report.write(study(arms, seeds=[0], images=5, steps=2), arms=["baseline", "a1*"], output=tmp_path)
    assert len(cells(text, "## Comparison")) == 12
    assert text.count("(figures/confusion-") > 0


def folded(text):
    """The lines that lie within details."""
    depth, inside = 0, []
    for line in text.splitlines():
        depth += line.startswith("<details>") - line.startswith("</details>")
        inside += [line] if depth else []
    assert depth == 0
    return inside


def test_what_is_short_comes_first_and_details_are_folded():
    """Claims, comparison, differences, trades; per-class tables, runs and provenance open on a click, under headings of their own."""
    text = report.write(study(CONDITIONED))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## What can be claimed", "## Comparison", "## Comparison under no-lag", "## Differences", "## Who gained, who paid",
        "## Conditions side by side", "## Worst class and calibration", "## Details",
    ]  # fmt: skip
    for heading in (
        "### Every test",
        "### Doubt from the test images",
        "### Changes",
        "#### cb (n = 3)",
        "#### cb: confusions",
        "### Runs",
        "### Provenance",
    ):
        assert heading in folded(text)
    assert "<summary>cb (n = 3)</summary>" in text
    assert len(text.splitlines()) - len(folded(text)) < 130


def test_names_are_themselves_within_a_summary():
    """There Markdown's backslashes would show, and HTML is still no markup."""
    text = report.write(study([arm("baseline", None), arm("a|b<i>", "baseline")], seeds=[0]))
    assert "<summary>a|b&lt;i&gt; (n = 1)</summary>" in text
    assert "#### a\\|b&lt;i&gt; (n = 1)" in text


def shifted(shifts, seeds=range(8), metric="test/accuracy", **more):
    """A study whose arms have the baseline's accuracy plus a shift, and a little noise of their own."""
    arms = [arm("baseline", None), *(arm(name, "baseline", **more) for name in shifts)]
    recorded = study(arms, seeds=list(seeds))
    for place, name in enumerate(["baseline", *shifts]):
        for seed in seeds:
            noise = 0.001 * math.sin(7 * seed + 3 * place)
            where = (recorded.runs["arm"] == name) & (recorded.runs["seed"] == seed)
            recorded.runs.loc[where, metric] = 0.6 + {"baseline": 0.0, **shifts}[name] + noise
    return recorded


def test_claims_name_the_arms_with_their_intervals():
    """Better, worse, no difference beyond the margin, as the verdicts of the frame are; the largest difference first."""
    recorded = shifted({"up": 0.05, "more": 0.09, "down": -0.04, "same": 0.0})
    text = report.write(recorded).split("## Comparison")[0]
    rows = report.frames(recorded).differences
    own = rows[(rows["metric"] == "accuracy") & (rows["role"] == "baseline")].set_index("arm")
    assert own["verdict"].tolist() == ["better", "better", "worse", "no difference beyond 0.5"]
    told = [f"{name} {own.loc[name, 'mean']:+.2f} [{own.loc[name, 'low']:+.2f}, {own.loc[name, 'high']:+.2f}]" for name in own.index]
    assert f"- **Better than its baseline** (2): {told[1]} and {told[0]}.\n" in text
    assert f"- **Worse than its parent** (1): {told[2]}.\n" in text
    assert "- **No difference beyond 0.5 points from its baseline** (1): same " in text
    assert "Inconclusive" not in text
    assert "withstands Holm over up to 6 comparisons." in text


def test_claims_by_the_t_test_only_are_told_apart():
    """With three seeds the sign-flip test cannot confirm, and the report says so beside the arm and among what cannot be claimed."""
    text = report.write(shifted({"up": 0.05}, seeds=range(3)))
    assert "**Better than its baseline by the t test only** (the sign-flip test does not confirm it) (1): up +" in text
    assert "3 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.25); 6 can." in text
    assert cells(text, "## Comparison")[1]["verdict"] == "better (t only)"


def test_the_seeds_needed_are_told():
    """As the frame of differences has them."""
    recorded = shifted({"up": 0.001})
    needed = report.frames(recorded).differences.query("metric == 'accuracy'")["seeds_needed"].iloc[0]
    how = "paired t test, 80 % power, at the first step of Holm's correction"
    text = report.write(recorded)
    assert f"To resolve 0.5 points about {needed:.0f} seeds are needed ({how}); the study has 8." in text
    assert "with 80 % power, at the first step of Holm's correction, by the family's pooled deviation." in text


def test_more_seeds_than_anyone_has_are_told_as_such():
    """Where a family, or every one, takes over a thousand seeds, the claim and the table say so."""
    arms = [arm("baseline", None), arm("up", "baseline"), arm("wild", "baseline", "variant")]
    recorded = study(arms, seeds=range(8))
    for seed in range(8):
        for name, noise in (("baseline", 0.0), ("up", 0.002), ("wild", 0.3)):
            where = (recorded.runs["arm"] == name) & (recorded.runs["seed"] == seed)
            recorded.runs.loc[where, "test/accuracy"] = 0.5 + noise * math.sin(seed)
    text = report.write(recorded)
    rows = {row["family"]: row for row in cells(text, "## Differences")}
    few = int(rows["ladder"]["seeds needed"])
    assert rows["variants"]["seeds needed"] == "more than 1,000"
    assert f"To resolve 0.5 points {few} to more than 1,000 seeds, depending on the family, are needed (" in text
    recorded.plan["margin"] = 0.001
    assert "To resolve 0.001 points more than 1,000 seeds are needed (" in report.write(recorded)


@pytest.mark.parametrize(("accuracy", "is_near"), [(0.25, True), (0.32, True), (0.33, False), (0.1, True), (0.6, False)])
def test_arms_near_chance_are_marked(accuracy, is_near):
    """Four equal classes: up to a tenth of the way from guessing to perfection."""
    text = report.write(shifted({"bad": accuracy - 0.6}))
    row = cells(text, "## Comparison")[1]
    assert (row["labels"] == "N") == is_near
    assert ("**Near chance**, so little was learnt: bad." in text) == is_near


def test_the_best_of_each_column_is_bold():
    """By the metric's direction, ties too; an arm with fewer runs than planned is never the best."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    text = report.write(recorded, metric="nll")
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert [name for name, row in rows.items() if row["accuracy"].startswith("**")] == ["up"]
    nll = recorded.runs.groupby("arm")["test/nll"].mean()
    assert [name for name, row in rows.items() if row["NLL"].startswith("**")] == [nll.idxmin()]
    assert all(row["medium"] == "–" for row in rows.values())
    recorded.runs = recorded.runs[(recorded.runs["arm"] != "up") | (recorded.runs["seed"] > 0)]
    rows = {row["arm"]: row for row in cells(report.write(recorded), "## Comparison")}
    assert [name for name, row in rows.items() if row["accuracy"].startswith("**")] == ["baseline"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("", ["baseline", "up", "down"]), ("arm", ["baseline", "down", "up"]), ("accuracy", ["up", "baseline", "down"]),
     ("test/nll", None)],
)  # fmt: skip
def test_arms_are_sorted(sort, expected):
    """As the file has them, by name, or the best first, which is the lowest of the NLL."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    expected = expected or recorded.runs.groupby("arm")["test/nll"].mean().sort_values().index.tolist()
    assert [row["arm"] for row in cells(report.write(recorded, sort=sort), "## Comparison")] == expected
    assert pd.read_csv(io.StringIO(report.write(recorded, "csv", sort=sort)))["arm"].tolist() == expected


def test_an_unknown_column_to_sort_by_is_an_error():
    """With those that there are."""
    with pytest.raises(ConfigError, match=r"--sort: unknown metric 'acc'; expected one of accuracy, .*arm"):
        report.write(study(), sort="acc")


def test_an_unknown_metric_is_told_without_a_thousand_names():
    """The main ones, and that every class has its own."""
    classes = [f"class {number}" for number in range(500)]
    recorded = study(LADDER[:1], seeds=[0], classes=classes, images=1)
    recalls = pd.DataFrame({f"test/recall/{name}": [0.5] for name in classes})
    recorded.runs = pd.concat([recorded.runs, recalls], axis=1)
    with pytest.raises(ConfigError) as caught:
        report.write(recorded, metric="recal/class 1")
    assert "or recall/CLASS" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_only_changed_gives_each_setting_a_column():
    """Every setting that differs between the arms shown, with each arm's value: its own, or that of the arm above it."""
    text = report.write(study(), only_changed=True)
    rows = {row["arm"].split()[0]: row for row in cells(text, "## Comparison")}
    assert "what changed" not in rows["cb"]
    assert [rows[name]["sampler.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["shuffle", *["class_balanced"] * 3]
    assert [rows[name]["mix.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["none", "none", "mixup", "cutmix"]
    assert [rows[name]["mix.alpha"] for name in ("cb", "mixup")] == ["–", "0.4"]
    assert "average.name" not in rows["cb"]
    rows = cells(report.write(study(), only_changed=True, arms=["baseline", "mixup"]), "## Comparison")
    assert {"sampler.name", "mix.name", "mix.alpha"} < set(rows[0])
    rows = cells(report.write(study(), only_changed=True, arms=["cb", "reweight"]), "## Comparison")
    assert not {"sampler.name", "mix.name"} & set(rows[0])


def test_settings_of_stages_are_told_one_after_another():
    """An arm without stages has one value; a stage has what the arm sets for all of them where it sets nothing itself."""
    arms = [
        arm("baseline", None),
        arm("cb", "baseline", change={"sampler.name": ["shuffle", "class_balanced"]}),
        arm(
            "two",
            "cb",
            change={
                "stages.0.epochs": [6, 4],
                "stages.1.epochs": [None, 2],
                "stages.0.sampler.name": ["class_balanced", "shuffle"],
                "stages.1.train": ["all", "head"],
            },
        ),
        arm("next", "two", change={"stages.1.sampler.name": ["class_balanced", "square_root"], "loss.name": ["cross_entropy", "focal"]}),
    ]
    rows = cells(report.write(study(arms, seeds=[0]), only_changed=True), "## Comparison")
    assert [row["epochs"] for row in rows] == ["6", "6", "4 → 2", "4 → 2"]
    samplers = ["shuffle", "class_balanced", "shuffle → class_balanced", "shuffle → square_root"]
    assert [row["sampler.name"] for row in rows] == samplers
    assert [row["train"] for row in rows] == ["all", "all", "all → head", "all → head"]
    assert [row["loss.name"] for row in rows] == ["cross_entropy"] * 3 + ["focal"]


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


def test_provenance_is_told_per_group_of_runs_that_share_it():
    """One group where all is alike; another commit makes two, each with its own."""
    text = report.write(study())
    own = text.split("### Provenance")[1].split("</details>")[0]
    assert own.count("- commit: ") == 1
    assert "- runs: 21 of 21 (every arm)" in own
    assert "- commit: `c0ffee" in own
    assert "- versions: torch 2.11.0" in own
    recorded = study()
    recorded.runs.loc[recorded.runs["arm"] == "cb", ["commit", "dirty"]] = ["beef", "true"]
    own = report.write(recorded).split("### Provenance")[1].split("</details>")[0]
    assert own.count("- commit: ") == 2
    assert "- runs: 3 of 21 (cb)" in own
    assert "- commit: `beef`, with uncommitted changes" in own


def test_every_test_is_there_by_family():
    """Each table has the frame's numbers, those of one pair a dash where there is no test."""
    recorded = study(broken={("cb", 1)})
    text = report.write(recorded)
    rows = report.frames(recorded).differences
    own = rows[(rows["metric"] == "accuracy") & (rows["family"] == "ladder") & (rows["role"] == "parent")]
    found = cells(text, "#### ladder, against the parent")
    assert [row["arm"] for row in found] == own["arm"].tolist()
    assert [float(row["p t"]) for row in found] == pytest.approx(own["p_t"].tolist(), abs=0.00051)
    assert [int(row["pairs"]) for row in found] == own["pairs"].tolist() == [2, 2]
    assert [row["verdict"] for row in found] == own["verdict"].tolist()


def test_doubt_from_the_test_images_is_kept_apart():
    """Its own table, with what it does not say; the frame's intervals, and a p per seed."""
    recorded = study()
    text = report.write(recorded)
    part = text.split("### Doubt from the test images")[1].split("</details>")[0]
    assert "says nothing about training again" in part
    row = cells(text, "### Doubt from the test images")[0]
    own = report.frames(recorded).image_differences.query("metric == 'accuracy'").iloc[0]
    assert numbers(row["accuracy"]) == pytest.approx([own["mean"], own["low"], own["high"]], abs=0.0051)
    assert len(row["McNemar's p, seed by seed"].split(", ")) == 3


def test_who_gained_and_who_paid():
    """Each class's mean difference of recall, a star where it withstands the correction, and the largest loss by name."""
    recorded = study(seeds=range(8))
    for seed in range(8):
        base, other = (
            recorded.tables[recorded.runs.query(f"arm == '{name}' and seed == {seed}")["run_id"].iloc[0]] for name in ("baseline", "cb")
        )
        other["predicted"] = base["predicted"].where(base["label"] != 0, 3)
        other.loc[other.index[40 + seed], "predicted"] = 0
    text = report.write(recorded)
    own = report.frames(recorded).class_differences.query("arm == 'cb' and role == 'baseline'").set_index("class")
    row = next(row for row in cells(text, "### Recall of every class against the baseline") if row["arm"] == "cb")
    assert row["plane"] == f"{own.loc['plane', 'mean']:+.2f}" + "\\*"
    assert numbers(row["two lines"]) == pytest.approx([own.loc["two\nlines", "mean"]], abs=0.0051)
    assert re.search(r"The largest losses of a class: plane under cb -[^]]*\]; [^\n]* \(Holm over the arm's classes only\)\.", text)
    assert "after Holm's correction within the arm's family of comparisons" in text
    assert "No group's difference withstands the correction: " in text


def test_losses_by_the_t_test_only_say_so():
    """With three seeds no sign-flip test confirms a class's loss."""
    recorded = study(LADDER[:2])
    for seed in range(3):
        runs = recorded.runs[recorded.runs["seed"] == seed].set_index("arm")["run_id"]
        base, other = (recorded.tables[runs[name]] for name in ("baseline", "cb"))
        other["predicted"] = base["predicted"].where(base["label"] != 0, 3)
        other.loc[other.index[seed], "predicted"] = 0
    part = report.write(recorded).split("## Who gained, who paid")[1]
    assert re.match(r"\s*The largest losses of a class: plane under cb -[^\n]*\] \(t only\) \(Holm over", part)


def test_without_groups_nothing_is_said_of_them():
    """No line that lists them, no column, and nothing about which of them moved."""
    text = report.write(study(LADDER[:2], groups={"many": [], "medium": [], "few": []}))
    assert "Groups of classes" not in text
    assert "No group" not in text
    assert "Groups: " not in text
    assert set(cells(text, "### Who gained, who paid: every arm")[0]) == {"arm", "gained most", "lost most"}


def test_conditions_stand_side_by_side():
    """The ladder's arms without and with it, and by how much each changed."""
    recorded = study(CONDITIONED)
    rows = cells(report.write(recorded), "## Conditions side by side")
    assert [row["arm"] for row in rows] == ["baseline", "cb"]
    values = recorded.runs.pivot(index="seed", columns="arm", values="test/accuracy")
    change = 100 * (values["no-lag/cb"] - values["cb"])
    assert numbers(rows[1]["plain"])[0] == pytest.approx(100 * values["cb"].mean(), abs=0.0051)
    assert numbers(rows[1]["no-lag"])[2] == pytest.approx(change.mean(), abs=0.0051)


def test_attribution_stands_side_by_side():
    """A column per way that the study has, one row per rung."""
    arms = [
        arm("baseline", None),
        arm("cb", "baseline"),
        arm("mixup", "cb"),
        arm("mixup/without-cb", "mixup", "drop_one", factors={"without": "cb"}),
        arm("mixup/without-mixup", "mixup", "drop_one", factors={"without": "mixup"}, same_as="cb"),
    ]
    recorded = study(arms)
    rows = cells(report.write(recorded), "## Attribution")
    frame = report.frames(recorded).attribution.query("metric == 'accuracy'")
    assert [row["rung"] for row in rows] == ["cb", "mixup"]
    last = frame[frame["way"] == "last out"].set_index("rung")["mean"]
    assert [numbers(row["last out"])[0] for row in rows] == pytest.approx([last["cb"], last["mixup"]], abs=0.0051)
    assert "## Attribution" not in report.write(study(arms[:3]))


def test_effects_of_a_sweep_are_told_where_its_arms_are_shown():
    """Each level against the first; not where only other arms are shown."""
    points = [arm(f"rate/{rate}", "baseline", "sweep", factors={"rate": rate}) for rate in ("low", "high")]
    recorded = study([arm("baseline", None), arm("cb", "baseline"), *points])
    row = cells(report.write(recorded), "### Effects of swept and crossed settings")[0]
    own = report.frames(recorded).effects.query("metric == 'accuracy'").iloc[0]
    assert (row["sweep"], row["effect"]) == ("rate", "rate: high against low")
    assert numbers(row["difference"]) == pytest.approx([own["mean"], own["low"], own["high"]], abs=0.0051)
    assert "Effects of swept" in report.write(recorded, arms=["rate/low"])
    assert "Effects of swept" not in report.write(recorded, arms=["cb"])


def test_one_arm_is_a_report_too(tmp_path):
    """Nothing to compare, which is said once, and no table of differences."""
    text = report.write(study([arm("baseline", None)], seeds=[0]), output=tmp_path)
    assert text.count("Only one arm: nothing to compare.") == 1
    assert "No arm has a seed in common" not in text
    assert "no difference is claimed" not in text
    assert "Verdicts are of" not in text
    assert "## Differences" not in text
    assert "## Who gained" not in text


def test_a_grid_has_shapley_values():
    """Beside the other ways, from the frame."""
    levels = {"cb": ("with", "without"), "mixup": ("without", "with"), "cb+mixup": ("with", "with")}
    grid = [
        arm(f"grid/{name}", "baseline", "grid", factors=dict(zip(("cb", "mixup"), values, strict=True))) for name, values in levels.items()
    ]
    recorded = study([arm("baseline", None), arm("cb", "baseline"), arm("mixup", "cb"), *grid])
    frame = report.frames(recorded).attribution.query("metric == 'accuracy' and way == 'shapley'").set_index("rung")
    rows = {row["rung"]: row for row in cells(report.write(recorded), "## Attribution")}
    for rung in ("cb", "mixup"):
        assert numbers(rows[rung]["shapley"])[0] == pytest.approx(frame.loc[rung, "mean"], abs=0.0051)


def test_arms_chosen_on_the_test_images_carry_their_mark_everywhere():
    """Beside the name in every table with arms and in the claims, and explained where it occurs first."""
    best = arm("best", "baseline", labels={"selected on test": "its epoch"}, change={"average.name": ["none", "best"]})
    recorded = study([arm("baseline", None), best, arm("after", "best")])
    values = recorded.runs["arm"].map({"baseline": 0.5, "best": 0.9, "after": 0.5}) + 0.001 * recorded.runs["seed"] ** 2
    recorded.runs["test/accuracy"] = values + 0.002 * recorded.runs["seed"] * (recorded.runs["arm"] == "best")
    text = report.write(recorded)
    first = text.index("(T)")
    assert text[first:].startswith("(T): chosen by looking at the test images, so too good by an unknown amount.")
    assert "(1): best (T) +" in text
    assert "**Chosen on the test set**: best (T)." in text
    for heading, column in (
        ("## Comparison", "arm"), ("#### ladder, against the parent", "arm"), ("#### Against the parent", "arm"),
        ("### Doubt from the test images", "arm"), ("### Recall of every class against the baseline", "arm"),
        ("## Worst class and calibration", "arm"), ("### Changes", "arm"), ("### Labels", "arm"), ("### Time and epochs", "arm"),
        ("### Runs", "arm"), ("## Comparison", "parent"), ("#### ladder, against the parent", "against"),
    ):  # fmt: skip
        named = {row[column] for row in cells(text, heading)}
        assert "best (T)" in named, heading
        assert not {"best", "baseline (T)", "after (T)"} & named, heading
    assert "#### best (T) (n = 3)" in text
    assert "(T)" not in report.write(study())


def test_conditions_are_told_against_parents_and_baseline_and_by_their_own_effect():
    """A tally per role that has rows; the comparison with the plain arm is the condition's effect and stands in no tally."""
    arms = [*LADDER[:3], *(arm(f"no-lag/{name}", parent, "condition", "no-lag/baseline") for name, parent in (
        ("baseline", "baseline"), ("cb", "no-lag/baseline"), ("mixup", "no-lag/cb")))]  # fmt: skip
    recorded = study(arms)
    own = report.frames(recorded).differences.query("metric == 'accuracy' and arm == 'no-lag/baseline'").iloc[0]
    text = report.write(recorded).split("## Comparison")[0]
    told = f"{own['mean']:+.2f} [{own['low']:+.2f}, {own['high']:+.2f}] ({own['verdict']})"
    assert f"- Condition no-lag changes baseline by {told}.\n" in text
    lines = {line.split(":")[0]: line for line in text.splitlines() if line.startswith("- Under no-lag")}
    assert list(lines) == ["- Under no-lag, against its own parents", "- Under no-lag, against its own baseline"]
    assert all(sum(map(int, re.findall(r"\b(\d+) (?:better|worse|inconclusive|without)", line))) == 2 for line in lines.values())
    alone = report.write(study([*LADDER[:2], arm("no-lag/cb", "cb", "condition", "no-lag/cb")])).split("## Comparison")[0]
    assert "Condition no-lag changes cb by " in alone
    assert "Under no-lag" not in alone


@pytest.mark.parametrize(
    ("more", "is_told"),
    [([arm("cb", "baseline")], True), ([], False), ([arm("cb", "baseline", "variant")], False),
     ([arm("cb", "baseline"), arm("cb/with-x", "baseline", "add_one")], False),
     ([arm("cb", "baseline"), arm("grid/x", "baseline", "grid")], False)],
)  # fmt: skip
def test_other_orders_are_offered_where_there_is_a_ladder_without_them(more, is_told):
    """Not where the ladder has no step, and not where the study asks for other orders already."""
    points = [arm(f"rate/{rate}", "baseline", "sweep", factors={"rate": rate}) for rate in ("low", "high")]
    text = report.write(study([arm("baseline", None), *more, *points], seeds=[0, 1]))
    assert "### Effects of swept" in text
    assert ("Only the ladder's own order was run" in text) == is_told


def test_nats_have_no_margin():
    """Of a metric in nats nothing is said of points, of the margin or of equivalence; of a fraction it is."""
    recorded = study()
    words = ("Seeds needed", "seeds needed", "p equal", "To resolve", "no difference beyond", "margin")
    nats, points = (report.write(recorded, metric=name) for name in ("nll", "accuracy"))
    assert not [word for word in words if word in nats]
    assert all(word in points for word in words[:-1])
    assert "p equal (Holm)" not in cells(nats, "#### ladder, against the parent")[0]


def test_what_is_the_same_training_is_no_comparison():
    """Neither among those counted beside the inconclusive ones, nor where seeds are too few."""
    arms = [arm("baseline", None), arm("cb", "baseline"), arm("copy", "baseline", "variant", same_as="baseline")]
    recorded = study(arms, absent={("copy", seed) for seed in range(3)})
    text = report.write(recorded)
    assert "**Inconclusive against its baseline**: 1 of 1 comparison." in text
    alone = report.write(study([arms[0], arms[2]], absent={("copy", seed) for seed in range(3)}))
    assert "No arm is another training than its baseline." in alone
    assert "sign-flip test (the smallest" not in alone


def test_equal_differences_are_counted_as_inconclusive():
    """Where all seeds show the same difference there is nothing to test by, and the tallies have it."""
    recorded = study(LADDER[:2])
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map({"baseline": 0.5, "cb": 0.6})
    text = report.write(recorded)
    assert cells(text, "## Comparison")[1]["verdict"] == "inconclusive (no spread)"
    assert "**Inconclusive against its baseline**: 1 of 1 comparison." in text
    assert cells(text, "## Differences")[0]["verdicts"] == "1 inconclusive"


def test_a_run_of_two_arms_counts_once():
    """In the number of runs, in the sums of time and in the provenance; each arm still has its row."""
    text = report.write(study(absent={("reweight", seed) for seed in range(3)}))
    assert "Runs: 18 done, 0 failed, 0 missing" in text
    rows = {row["arm"]: row for row in cells(text, "### Time and epochs")}
    assert rows["reweight"] == {**rows["cb"], "arm": "reweight"}
    assert (rows["all arms"]["time"], rows["all arms"]["epochs"]) == ("18 min 00 s", "36")
    assert "Sharing saved 9 min 00 s" in text
    assert "- runs: 18 of 18 (every arm)" in text


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
    assert cells(text, "## Comparison")[1]["n"] == "[3](#runs)"
    assert "#### cb (n = 2)" in text


def test_doubt_from_other_test_images_is_not_adjusted_and_may_have_no_interval():
    """It says so; where the seeds' test images differ there is a dash for the interval, and McNemar's tests stay."""
    recorded = study(LADDER[:2], seeds=[0, 1])
    for run_id in recorded.runs.query("seed == 1")["run_id"]:
        recorded.tables[run_id]["index"] += 1000
    text = report.write(recorded)
    assert "not adjusted for the number of comparisons" in text.split("### Doubt from the test images")[1].split("|")[0]
    row = cells(text, "### Doubt from the test images")[0]
    assert (row["accuracy"], row["balanced"]) == ("–", "–")
    assert len(numbers(row["McNemar's p, seed by seed"])) == 2


def test_a_class_without_test_images_has_dashes():
    """Its recall and F1 do not exist; the accuracy's row, which has only one number, keeps its blanks."""
    recorded = study(LADDER[:1], seeds=[0])
    recorded.tables = {run_id: table[table["label"] != 1] for run_id, table in recorded.tables.items()}
    rows = {row["class"]: row for row in cells(report.write(recorded), "### baseline (n = 1)")}
    assert (rows["a|b"]["recall"], rows["a|b"]["F1"], rows["a|b"]["support"]) == ("–", "–", "0")
    assert (rows["accuracy"]["precision"], rows["accuracy"]["recall"]) == ("", "")


def test_conditions_alone_stand_side_by_side_without_the_plain_arms():
    """Where only a condition's arms are shown, there is no column of blanks for the plain ones."""
    text = report.write(study(CONDITIONED), arms=["no-lag/*"])
    assert set(cells(text, "## Conditions side by side")[0]) == {"arm", "no-lag"}
