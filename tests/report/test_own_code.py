"""A study of one's own training code: its report says what was checked, has no word of classification, and needs none of the code."""

import builtins
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablation import report
from ablation.report.documents import check, comparing
from ablation.report.documents.csv import csv_files
from ablation.report.frames import own, packed
from ablation.report.sections import Shown
from tests.report.own_study import ARMS, GAIN, MAE, own_study
from tests.report.studies import cells
from tests.report.test_without_classes import Words

FORBIDDEN = re.compile(r"\b(class|classes|accuracy|points|image|images|percent|validation|epochs?|stages?)\b", re.IGNORECASE)
KIND = "Own training code: function diabetes:fit, 7 arms x 5 seeds."


def visible(text, form):
    """What a reader of a document sees; LaTeX's own commands are no words."""
    if form == "html":
        return " ".join(" ".join(Words(text).words).split())
    return text.replace("\\documentclass", "").replace("code point", "")


def first_screen(recorded, form="markdown"):
    """All that stands before the first table."""
    text = visible(report.write(recorded, form), form)
    return " ".join(text.partition("## Comparison" if form == "markdown" else "Ladder")[0].split())


# --- no word of classification, and none of the code ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", report.FORMATS)
def test_no_form_speaks_of_classification(form, monkeypatch):
    """Each form has the kind of study, every arm and every metric, none of the words, and imports no module of the user's."""
    imported = builtins.__import__

    def guarded(name, *args, **kwargs):
        assert name.partition(".")[0] != "diabetes"
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    text = visible(report.write(own_study(), form), form)
    assert FORBIDDEN.findall(text) == []
    assert KIND in " ".join(text.split())
    assert all(name in text for name in ("mae", *(["val/gain"] if form != "text" else [])))
    assert all(arm["name"] in text.replace("\\allowbreak{}", "") for arm in ARMS if form != "text" or arm["kind"] != "sweep")


def test_the_files_in_the_folder_have_none_of_the_words(tmp_path):
    """The figures' texts included; the item differences have a file, and classes, counts and epochs have none."""
    report.write(own_study(), output=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.md", "report.csv", "runs.csv", "differences.csv", "item_differences.csv", "attribution.csv", "effects.csv",
        "conditions.csv", "figures",
    }  # fmt: skip
    drawn = [path.read_text(encoding="utf-8") for path in (*tmp_path.glob("*.csv"), *tmp_path.glob("*.md"))]
    drawn += [" ".join(re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))) for path in (tmp_path / "figures").glob("*.svg")]
    assert len(drawn) > 10
    assert [FORBIDDEN.findall(text) for text in drawn] == [[]] * len(drawn)


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize(("form", "name"), [("markdown", "report.md"), ("latex", "report.tex"), ("latex", "numbers.tex")])
def test_documents_are_checked_against_the_store(form, name, tmp_path):
    """A document matches the store that it was made from, and none with another number or another split."""
    recorded, path = own_study(), tmp_path / name
    report.write(recorded, form, tmp_path)
    document = check.read(path, None, Shown())
    assert check.check(recorded, path, document) == (0, "")
    recorded.runs.loc[0, MAE.name] += 1
    assert check.check(recorded, path, document)[0] > 0
    if name != "numbers.tex":
        assert check.check(own_study(same=lambda arm, seed: {"split": arm}), path, document)[0] > 0


# --- what was checked, and what was not ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "html", "text"])
def test_the_first_lines_say_what_was_checked(form):
    """And that undeclared data and repetition are not watched."""
    text = first_screen(own_study(), form)
    assert text.index("Own training code") < text.lower().index("arms 7" if form != "markdown" else "**arms** 7")
    assert "Same across arms, checked: test items, split; not checked: initial weights, order." in text
    assert "Independent runs leave the tests valid, with wider intervals." in text
    assert "Data: not declared, so a change of them is not seen." in text
    assert "Whether a run repeats was not checked; ablate check-task " in text
    assert "ote:" not in text


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "html", "text", "latex", "csv", "json"])
def test_a_split_that_differs_is_said_on_the_first_screen(form):
    """With the arms and the seeds; it is no longer called the same."""
    recorded = own_study(same=lambda arm, seed: {"test items": "1", "split": f"{arm}{seed}" if (arm, seed) == ("deep", 3) else f"{seed}"})
    text = first_screen(recorded, form) if form in ("markdown", "html", "text") else report.write(recorded, form)
    assert "not the same across arms: split (deep unlike base, seed 3)" in text
    assert "Same across arms, checked: test items; differing: split; not checked: initial weights, order." in text
    assert "leave the tests valid" not in text
    assert "differences are not comparable" not in text


def test_arms_with_other_test_items_are_not_compared():
    """Nothing is claimed of a difference to them; neither they nor an arm below one of them can be the best, as in a study of images."""
    recorded = own_study(same=lambda arm, seed: {"test items": "2" if arm == "robust" else "1"})
    text = report.write(recorded)
    rows = {row["arm"].split()[0]: row for row in cells(text, "## Comparison")}
    assert [rows[name]["verdict"] for name in ("deep", "robust")] == ["better (t only)", "not comparable (other test items)"]
    assert "(I)" in rows["robust"]["arm"]
    assert "(I)" in next(line for line in text.splitlines() if line.startswith("| deep-less"))
    assert "**deep** has the lowest mean mae" in text
    found = report.tidy_frames(recorded).differences.set_index(["arm", "role", "metric"])["verdict"]
    assert found["deep-less", "parent", "mae"] == "not comparable (other test items)"
    text = report.write(recorded, "text")
    assert "deep has the lowest mean mae" in text
    assert "not comparable (other test items)" in text


@pytest.mark.parametrize(
    ("same", "verdict"),
    [
        (lambda arm, seed: {"test items": f"{arm == 'robust'}{seed}"}, "not comparable (other test items)"),
        (lambda arm, seed: {"test items": f"{seed}"}, "better (t only)"),
        (lambda arm, seed: {"test items": "x" if (arm, seed) == ("robust", 3) else "1"}, "not comparable (other test items)"),
    ],
    ids=["folds of its own", "the same folds", "other items under one seed"],
)
def test_test_items_are_compared_seed_by_seed(same, verdict):
    """They may depend on the seed, as folds do; arms differ if they do under a seed that both have."""
    found = report.tidy_frames(own_study(same=same)).differences.set_index(["arm", "role", "metric"])["verdict"]
    assert found["robust", "baseline", "mae"] == verdict


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "html", "text", "latex", "csv", "json"])
def test_other_test_items_are_a_bias(form):
    """Of the arms that were tested on them, whatever the intervals are."""
    recorded = own_study(same=lambda arm, seed: {"test items": "2" if arm == "deep" else "1"})
    text = first_screen(recorded, form) if form in ("markdown", "html", "text") else report.write(recorded, form)
    assert "not the same across arms: test items (deep unlike base, seeds 0-4); these arms were tested on other items than the rest" in text
    assert "leave the tests valid" not in text


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "html", "text", "latex", "csv", "json"])
def test_a_seed_without_effect_is_said_on_the_first_screen(form):
    """The arm with its seeds, and its label stands beside its name and below the table."""
    recorded = own_study()
    recorded.runs.loc[recorded.runs["arm"] == "deep", [MAE.name, GAIN.name]] = [8.5, 17.0]
    text = first_screen(recorded, form) if form in ("markdown", "html", "text") else report.write(recorded, form)
    assert "seed without effect: deep (equal numbers under seeds 0-4); such runs are no repetitions" in text
    whole = report.write(recorded, form)
    if form == "markdown":
        assert cells(whole, "## Comparison")[1]["arm"] == "deep (S)"
        assert "**S** *seed without effect*, different seeds gave equal numbers" in whole
    if form == "text":
        assert re.search(r"seed without effect +deep\n", whole)
    if form == "latex":
        assert "deep\\textsuperscript{S}" in whole


def test_no_verdict_is_claimed_where_seeds_have_no_effect():
    """Neither of the best arm nor among the claims; the arms whose seeds have one keep theirs."""
    recorded = own_study()
    assert "**better (by the t test only)**: robust" in first_screen(recorded)
    recorded.runs.loc[recorded.runs["arm"] == "robust", [MAE.name, GAIN.name]] = [7.0, 14.0]
    text = first_screen(recorded)
    assert "**robust** has the lowest mean mae" in text
    assert "of which nothing is claimed (seed without effect)" in text
    assert "**better (by the t test only)**: deep" in text
    assert "Nothing is claimed of 1 other arm: seed without effect." in text
    assert "To claim more" not in text


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "text", "latex", "csv"])
def test_no_verdict_is_printed_where_seeds_have_no_effect(form):
    """Neither beside such an arm nor beside one whose parent it is, in no table; also where the parent is not shown."""
    recorded = own_study()
    recorded.runs.loc[recorded.runs["arm"] == "robust", [MAE.name, GAIN.name]] = [7.0, 14.0]
    for arms, names in (((), ["robust", "deep-less"]), (("deep-less",), ["deep-less"])):
        text = report.write(recorded, form, arms=arms).replace("\\allowbreak{}", "")
        rows = {name: [line for line in text.splitlines() if re.match(rf"[|\s]*{name}\b.*\d", line)] for name in names}
        assert all(any("seed without effect" in line for line in of_arm) for of_arm in rows.values())
        assert not [line for line in rows.get("robust", []) if re.search("better|worse|inconclusive|no difference", line)]
    found = report.tidy_frames(recorded).differences.set_index(["arm", "role", "metric"])["verdict"]
    for arm, role in (("robust", "parent"), ("robust", "baseline"), ("deep-less", "parent")):
        assert found[arm, role, "mae"] == "seed without effect"
    assert found["deep-less", "baseline", "mae"] == "better (t only)"


def test_an_arm_of_chosen_runs_without_effect_of_the_seed_has_none_either():
    """Nor has another name of such a training."""
    recorded = own_study()
    recorded.plan["arms"] = [{**arm, "same_as": "robust" if arm["name"] == "wide" else None} for arm in recorded.plan["arms"]]
    recorded.runs = recorded.runs[recorded.runs["arm"] != "wide"].reset_index(drop=True)
    of = recorded.runs["arm"].isin(["robust", "deep"])
    recorded.runs.loc[of, [MAE.name, GAIN.name]] = [7.0, 14.0]
    recorded.runs.loc[recorded.runs["arm"] == "deep", "chosen"] = "robust"
    found = report.tidy_frames(recorded).differences.query("metric == 'mae' and role == 'baseline'").set_index("arm")["verdict"]
    assert set(found[["robust", "deep", "wide"]]) == {"seed without effect"}


def test_seeds_of_which_some_tie_are_a_note():
    """Rounded numbers tie now and then, which makes no interval worthless."""
    recorded = own_study()
    recorded.runs.loc[(recorded.runs["arm"] == "deep") & recorded.runs["seed"].isin([1, 3]), [MAE.name, GAIN.name]] = [8.5, 17.0]
    text = report.write(recorded)
    assert "equal to the printed digits, as rounded numbers may be: deep under 2 of 5 seeds." in text
    assert "without effect" not in text
    assert "mean nothing" not in text


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("form", ["markdown", "html", "text", "latex", "csv", "json"])
def test_a_change_without_effect_is_said_on_the_first_screen(form):
    """Where an arm equals its parent under all seeds in all metrics; not where one seed or one metric differs."""
    recorded = own_study()
    of_arm = {name: recorded.runs["arm"] == name for name in ("base", "wide", "rate/low", "rate/high")}
    for name in ("wide", "rate/low"):
        recorded.runs.loc[of_arm[name], [MAE.name, GAIN.name]] = recorded.runs.loc[of_arm["base"], [MAE.name, GAIN.name]].to_numpy()
    recorded.runs.loc[of_arm["rate/low"] & (recorded.runs["seed"] == 2), GAIN.name] += 1
    recorded.runs.loc[of_arm["rate/high"], MAE.name] = recorded.runs.loc[of_arm["base"], MAE.name].to_numpy()
    text = first_screen(recorded, form) if form in ("markdown", "html", "text") else report.write(recorded, form)
    assert "change without effect: wide (equal to base to the last digit under all seeds: does the code read" in text
    assert "does the code read rate" not in text
    if form == "markdown":
        whole = report.write(recorded)
        assert re.search(r"\bwide \([A-Z, ]*E\)", whole)
        assert "**E** *change without effect*, equal to its parent" in whole


def test_equal_numbers_of_one_metric_are_no_seed_without_effect():
    """All metrics of two seeds must be equal, and runs without a number say nothing."""
    recorded = own_study()
    recorded.runs.loc[recorded.runs["arm"] == "deep", MAE.name] = 8.5
    recorded.runs.loc[recorded.runs["arm"] == "wide", [MAE.name, GAIN.name]] = np.nan
    assert "without effect" not in report.write(recorded)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"checked": {"repeatable": True, "resumes": None, "when": "2026-11-29", "arm": "deep", "seed": 3}},
         "The run of deep with seed 3 gave the same numbers twice (checked 2026-11-29); other arms were not tried."),
        ({"checked": {"repeatable": True, "resumes": None, "when": "2026-11-29", "arm": "deep", "seed": 3, "key": "of other settings"}},
         "A run of deep with seed 3 and other settings gave the same numbers twice (checked 2026-11-29); other arms were not tried."),
        ({"checked": {"repeatable": False, "resumes": None, "when": "2026-11-29", "arm": "deep", "seed": 3}},
         "**Note:** a run does not repeat (deep seed 3): the same seed gave other numbers"),
        ({"checked": {"repeatable": False, "resumes": None, "when": "2026-11-29"}},
         "**Note:** a run does not repeat: the same seed gave other numbers the second time"),
        ({"resumes": True}, "That a stopped run resumes with the same result is the author's word."),
        ({"resumes": True, "checked": {"repeatable": True, "resumes": True, "when": "2026-11-29"}},
         "Stopped and resumed, it gave them again (checked 2026-11-29)."),
        ({"resumes": True, "checked": {"repeatable": True, "resumes": False, "when": "2026-11-29"}},
         "**Note:** a stopped run does not resume with the same result"),
        ({"is_function": False, "what": "python train.py '{args}'"}, "**Own training code: command python train.py {args}, 7 arms"),
    ],
)  # fmt: skip
def test_what_check_task_found_out(told, words):
    """Is a sentence of the first lines, or a warning."""
    assert words in first_screen(own_study(own=told))


def test_declared_data_and_notes_of_runs():
    """Declared data are in the provenance and no warning; notes of runs are told once, with their runs."""
    recorded = own_study(own={"data": [{"path": "data/wiki", "by": "listing"}], "env": {"MODE": "fast"}})
    recorded.runs["notes"] = [json.dumps(["the last curve is incomplete"] if seed == 0 else []) for seed in recorded.runs["seed"]]
    text = report.write(recorded)
    assert "not declared" not in text
    assert "- data that count: `data/wiki` by listing\n- environment: `MODE=fast`\n" in text
    assert "- **Note:** the last curve is incomplete (base seed 0, deep seed 0, robust seed 0, wide seed 0 and 3 more)." in text


def test_what_only_some_runs_told_is_not_checked():
    """Neither called the same nor different; one arm alone has nothing to be the same as."""
    text = first_screen(own_study(same=lambda arm, seed: {"split": "1"} if arm != "wide" else {}))
    assert "Same across arms, checked: nothing; checked of some runs only: split; not checked: test items, initial weights, order." in text
    assert "Same across arms" not in report.write(own_study(), arms=["base"])


# --- metrics, curves and what is left out ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_figures")
def test_a_metric_without_a_margin_claims_no_equivalence():
    """Not in any form; one with a margin says it in its own unit."""
    recorded = own_study()
    for form in ("markdown", "html", "latex", "text"):
        text = report.write(recorded, form)
        assert "no difference beyond" not in text
        assert "eeds needed" not in text
    text = report.write(recorded, metric="val/gain")
    assert "of 0.5 dB with 80 % power" in " ".join(text.split())
    assert "Differences are dB of val/gain, paired by seed" in text
    assert cells(text, "## Comparison")[1]["vs parent"].startswith("-7.8")


def test_curves_have_the_user_s_names():
    """Any name that is no declared metric, and nothing that the code logged by itself; their first step is the code's own."""
    recorded = own_study(curves=("loss", "val/loss", "own/lr", "val/gain", "choice/equal"))
    curves = report.tidy_frames(recorded).curves
    assert set(curves["metric"]) == {"loss", "val/loss"}
    assert "training curves" not in report.write(recorded)
    text = report.write(own_study(curves=()))
    assert text.splitlines().count(
        "- Left out, since the study does not record it: what is made of categories, predictions of single items and training curves."
    ) == 1  # fmt: skip


def test_times_are_told_where_nobody_counts_epochs():
    """The mean and the sum of an arm's runs."""
    rows = {row["arm"]: row for row in cells(report.write(own_study()), "### Time")}
    assert (rows["base"]["a run"], rows["base"]["all runs"], rows["all arms"]["all runs"]) == ("6.0 s", "30.0 s", "3 min 30 s")


def test_two_arms_beside_one_another(tmp_path):
    """Settings, numbers and runs, in the study's words."""

    class Written:
        def __getattr__(self, name):
            return getattr(recorded, name)

        def artifact(self, run_id, name):
            path = tmp_path / name
            path.write_text("settings: {max_depth: 6}\nstages: [{epochs: 1, max_depth: 6}]\n")
            return path

    recorded = own_study()
    recorded.runs.loc[recorded.runs["arm"] == "deep", "same"] = '{"test items": "12"}'
    parts = comparing.compare(Written(), "base", "deep")
    assert any("tested on other items than the rest" in note for note in parts[0].notes)
    notes = parts[1].notes
    assert [(cells[3], cells[4]) for cells in parts[1].rows] == [("–", "–")] * 2
    assert notes[1:] == ("Verdict on mae: not comparable (other test items).",)
    assert not any("tested on other" in note for note in comparing.compare(Written(), "base", "wide")[0].notes)
    parts = comparing.compare(Written(), "deep", "base")
    text = json.dumps([[part.title, part.columns, part.rows, part.notes] for part in parts])
    assert [part.title for part in parts] == [
        "Settings that differ",
        "Results, paired by seed",
        "Test items: the other source of doubt",
        "Runs",
    ]
    row = report.tidy_frames(recorded).item_differences.set_index(["arm", "role"]).loc[("deep", "parent")]
    backwards = f"{-row['mean']:+.3f} [{-row['high']:+.3f}, {-row['low']:+.3f}]"
    assert parts[2].rows == (("mae", backwards, "60", "20", "5"),)
    recorded.scores = {run_id: table.drop(columns="cluster") for run_id, table in recorded.scores.items()}
    assert comparing.compare(Written(), "deep", "base")[2].rows[0][3] == "–"
    recorded.scores = {}
    assert len(comparing.compare(Written(), "deep", "base")) == 3
    recorded.runs.loc[recorded.runs["arm"] == "wide", [MAE.name, GAIN.name]] = [7.0, 14.0]
    for pair in (("wide", "base"), ("robust", "wide")):
        notes = comparing.compare(Written(), *pair)[1].notes
        assert notes[1:] == ("Verdict on mae: seed without effect (wide: equal numbers under seeds 0-4).",)
    assert FORBIDDEN.findall(text) == []


# --- items --------------------------------------------------------------------------------------------------------------------------


def test_the_doubt_from_items_is_told_with_its_clusters():
    """A row for each pair of arms, once, and the same in the file."""
    recorded = own_study()
    text = report.write(recorded)
    rows = {(row["arm"], row["against"]): row["mae"] for row in cells(text, "#### Doubt from the test items")}
    assert len(rows) == 8
    assert "from 2,000 bootstrap resamples (percentiles, widened as few clusters need it)" in text
    assert "The mean is over all pairs of an item and a seed" in text
    assert "[Doubt from the test items](#doubt-from-the-test-items)" in first_screen(recorded)
    assert "over the 60 test items; not adjusted" in text
    assert "Whole clusters are drawn, since the items of one are alike (20 clusters)." in text
    frame = report.tidy_frames(recorded).item_differences
    row = frame.set_index(["arm", "role"]).loc[("deep", "parent")]
    assert rows["deep", "base"] == f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    assert "item_differences.csv" in csv_files(report.tidy_frames(recorded), recorded.plan)
    assert len(json.loads(report.write(recorded, "json"))["item_differences"]) == len(frame)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda table: table.assign(**{"test/mae": table["test/mae"] + 1}), "the mean of its items is not the metric"),
        (lambda table: table.assign(item=table["item"] + 1), "the two arms were not tested on the same items"),
        (lambda table: table.assign(cluster=0), "the items are of other clusters in one arm than in the other"),
        (lambda table: table.drop(columns="cluster"), "one of both arms handed back no clusters"),
        (lambda table: None, "they share no seed with scores of items"),
    ],
)
def test_why_items_have_no_interval(change, why):
    """Said for the comparisons that an arm spoils; the others have theirs."""
    recorded = own_study()
    runs = recorded.runs[recorded.runs["arm"] == "wide"]["run_id"]
    recorded.scores |= {run_id: change(recorded.scores[run_id]) for run_id in runs}
    text = report.write(recorded)
    assert f"- mae: no interval for wide against base, since {why}." in text
    assert len(cells(text, "#### Doubt from the test items")) == 7


def test_without_scores_there_is_no_word_of_them():
    """But that they are missing."""
    recorded = own_study()
    recorded.scores.clear()
    text = report.write(recorded)
    assert "Doubt from" not in text
    assert "what is made of categories, predictions of single items and scores of single items." in text


# --- predictions --------------------------------------------------------------------------------------------------------------------


def test_declared_classes_have_their_sections():
    """Recalls, confusions and calibration from the predictions; what needs counts or groups is left out."""
    recorded = own_study(classes=("benign", "malign"))
    text = report.write(recorded)
    for heading in ("## Classes", "### Per class", "### Confusion matrices"):
        assert f"\n{heading}\n" in text
    for missing in ("Class distribution", "Groups of classes", "many", "training images", "Near chance"):
        assert missing not in text
    frames = report.tidy_frames(recorded)
    assert set(frames.per_class["class"]) == {"benign", "malign"}
    assert not frames.calibration.empty
    for form in sorted({*report.FORMATS} - {"json"}):  # whose keys are those of every study
        assert re.search(r"\bimages?\b", visible(report.write(recorded, form), form), re.IGNORECASE) is None


def test_predictions_without_scores_have_no_calibration():
    """Labels and predicted classes are enough for the rest."""
    recorded = own_study(classes=("benign", "malign"))
    recorded.tables = {run_id: table[["index", "label", "predicted"]] for run_id, table in recorded.tables.items()}
    frames = report.tidy_frames(recorded)
    assert frames.calibration.empty
    assert not frames.per_class.empty
    assert "\n### Confusion matrices\n" in report.write(recorded)


def test_classes_without_predictions():
    """Are said to be missing; no run is called unreadable."""
    recorded = own_study(classes=("benign", "malign"))

    def none_there(run_id):
        return recorded.artifact(run_id, "predictions.parquet")

    recorded.predictions = none_there
    text = report.write(recorded)
    assert "## Not done" not in text
    assert "what is made of predictions of single items." in text


# --- packed ---------------------------------------------------------------------------------------------------------------------------


def test_a_packed_study_gives_the_same_report(tmp_path):
    """With its items, its curves of any name and what its runs told."""

    class Point:
        def __init__(self, name, step, value):
            self.name, self.step, self.value, self.time = name, step, value, 0

    recorded = own_study()
    (tmp_path / "written.yaml").write_text("study: diabetes\n")
    (tmp_path / "config.yaml").write_text("settings: {}\nstages: []\n")
    points = {key: [Point(*row) for row in rows[["metric", "step", "value"]].to_numpy()] for key, rows in recorded.points.groupby("run_id")}
    stored = replace(recorded)
    stored.points = lambda run_id: points[run_id]

    def artifact(run_id, name):
        folder = tmp_path / run_id
        folder.mkdir(exist_ok=True)
        if name == "config.yaml":
            return tmp_path / name
        if name != "items.parquet":
            return recorded.artifact(run_id, name)
        recorded.scores[run_id].to_parquet(folder / name)
        return folder / name

    stored.artifact = artifact
    packed.write(stored, packed.stored_points(stored), b"study: errors\n", tmp_path / "study.zip")
    assert report.write(packed.read(tmp_path / "study.zip")) == report.write(recorded)
    packed.write(stored, packed.stored_points(stored), b"study: errors\n", tmp_path / "small.zip", predictions=False)
    small = packed.read(tmp_path / "small.zip")
    assert [small.items(run_id) for run_id in small.runs["run_id"]] == [None] * len(small.runs)
    pd.testing.assert_frame_equal(report.tidy_frames(small).differences, report.tidy_frames(recorded).differences)
    assert "Doubt from the test items" in report.write(recorded)
    assert "Doubt from the test items" not in report.write(small)


def test_other_kinds_of_studies_have_no_such_lines():
    """A plan without own code has nothing of it."""
    recorded = own_study()
    del recorded.plan["own"]
    assert own.own_code(recorded.plan, recorded.runs, recorded.runs, ["base"]) is None
