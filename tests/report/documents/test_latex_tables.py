"""The LaTeX tables: a matrix of rungs and a table for each family, with the frames' numbers, captions and remarks."""

import dataclasses
import re

import numpy as np
import pytest

from ablation import report
from ablation.report.documents import latex
from ablation.report.documents.writing import gather
from ablation.report.frames.references import References
from ablation.report.sections import Shown
from tests.report.documents.papers import WAYS, body, header, numbers, table
from tests.report.studies import LADDER, arm, restricted, shifted, study


def test_the_tables_have_the_frames_numbers():
    """Mean and sd in percent, differences with their interval, the verdict, and the full ids of the runs beside each row."""
    recorded = study()
    text = report.write(recorded, "latex")
    frames = report.tidy_frames(recorded)
    rows = table(text, "Ladder") | table(text, "Variants")
    assert list(rows) == ["baseline", "cb", "mixup", "cutmix", "reweight"]
    for row in frames.arms[frames.arms["condition"] == ""].to_dict("records"):
        cells, ids = rows[row["arm"]]
        expected = [100 * row["accuracy_mean"], 100 * row["accuracy_sd"]]
        if row["parent"]:
            expected += [row[f"accuracy_vs_{role}{part}_points"] for role in ("parent", "baseline") for part in ("", "_low", "_high")]
        assert [number for cell in cells[1:4] for number in numbers(cell)] == pytest.approx(expected, abs=0.0051)
        assert cells[4] == row["verdict_vs_parent"]
        assert ids == recorded.runs.loc[recorded.runs["arm"] == row["arm"], "run_id"].tolist()
    assert rows["baseline"][0][2:] == ["--", "--", ""]
    assert rows["mixup"][0][0] == "MixUp"


def test_columns_are_those_asked_for():
    """In their order, each once, after the arm; a metric without any number has none."""
    names = ["n", "test/macro_f1", "few", "medium", "n", "change", "published", "verdict"]
    recorded = study()
    text = report.write(recorded, "latex", columns=names)
    assert header(text, "Ladder") == ["arm", "$n$", "macro-F1", "few", "change", "A", "gap", "verdict"]
    cells = table(text, "Ladder")["cb"][0]
    frame = report.tidy_frames(recorded).arms.set_index("arm").loc["cb"]
    expected = [100 * frame[f"{name}_{part}"] for name in ("macro_f1", "few") for part in ("mean", "sd")]
    assert cells[1] == "3"
    assert [number for cell in cells[2:4] for number in numbers(cell)] == pytest.approx(expected, abs=0.0051)
    assert cells[4:7] == [r"sampler class\_\allowbreak{}balanced", "--", "--"]
    assert "AblateTablePublished" not in text
    matrix = [*header(text, "Ablation"), *header(text, "AblationSecond")[1:]]
    assert matrix == ["arm", "cb", "mixup", "$n$", "macro-F1", "few", "change", "A", "gap", "verdict"]


def test_many_columns_are_spread_over_tables():
    """Each with the arm, so that none is wider than the text; no column is lost."""
    names = ["accuracy", "balanced_accuracy", "macro_f1", "many", "few", "worst", "g_mean", "nll", "ece", "change", "parent", "verdict"]
    text = report.write(study(), "latex", columns=names)
    first, second = header(text, "Ladder"), header(text, "LadderSecond")
    assert first[0] == second[0] == "arm"
    whole = [
        "accuracy",
        "balanced acc.",
        "macro-F1",
        "many",
        "few",
        "worst class",
        "G-mean",
        "NLL",
        "ECE",
        "change",
        "vs parent",
        "verdict",
    ]
    assert [*first[1:], *second[1:]] == whole


def test_the_matrix_marks_the_rungs():
    """Of each arm of the ladder and of those that add or drop rungs; the first rung is in all and has no column."""
    text = report.write(study(WAYS), "latex")
    assert header(text, "Ablation") == ["arm", "cb", "mixup", "accuracy", "vs parent", "vs baseline"]
    rows = {name: [bool(cell.strip()) for cell in cells[1:3]] for name, (cells, _) in table(text, "Ablation").items()}
    assert rows == {
        "baseline": [False, False], "cb": [True, False], "mixup": [True, True],
        "baseline/with-mixup": [False, True], "mixup/without-cb": [False, True],
    }  # fmt: skip
    assert r"\label{tab:demo-ablation}" in text
    assert "mixup: MixUp." in body(text, "Ablation")
    assert len(re.findall(r"\\midrule", body(text, "Ablation"))) == 3  # the header's, and one before each family


def test_the_matrix_has_a_circle_for_a_replaced_rung():
    """And its caption says so; without one it does not."""
    arms = [*LADDER[:3], arm("root", "mixup", change={"sampler.name": ["class_balanced", "square_root"]})]
    text = report.write(study(arms, seeds=[0]), "latex")
    rows = {name: cells[1:4] for name, (cells, _) in table(text, "Ablation").items()}
    yes = r"\AblateYes{}"
    assert rows == {"baseline": ["", "", ""], "cb": [yes, "", ""], "mixup": [yes, yes, ""], "root": [r"$\circ$", yes, yes]}
    assert "A check mark: what that rung set holds in the arm; a circle: a later rung replaces it" in body(text, "Ablation")
    assert "circ" not in body(report.write(study(LADDER[:3], seeds=[0]), "latex"), "Ablation")


def test_the_parent_of_all_others_is_their_first_row():
    """It may be the best, has no parent there, and a rule below it; with what it has of the swept setting."""
    points = [arm(f"rate/{rate}", "cb", "sweep", factors={"lr": str(rate)}, change={"lr": [0.2, rate]}) for rate in (0.1, 0.4)]
    recorded = study([*LADDER[:2], *points])
    recorded.runs["test/accuracy"] += 0.3 * (recorded.runs["arm"] == "cb")
    text = report.write(recorded, "latex", columns=["change", "accuracy", "parent", "baseline", "verdict"])
    rows = {name: cells for name, (cells, _) in table(text, "SweepRate").items()}
    assert list(rows) == ["cb", "rate/0.1", "rate/0.4"]
    assert rows["cb"][1] == "the parent of the others"
    assert [name for name, cells in rows.items() if "\\textbf" in cells[2]] == ["cb"]
    assert (rows["cb"][3], rows["cb"][5]) == ("--", "")
    assert rows["cb"][4] == table(text, "Ladder")["cb"][0][4]
    assert body(text, "SweepRate").count("\\midrule") == 2
    assert r"Parent: cb\textsuperscript{L}. cb\textsuperscript{L}: lr 0.2." in body(text, "SweepRate")


def test_a_grid_is_in_the_matrix():
    """By the rungs that each of its arms has, over those of its parent."""
    factors = [{"mixup": first, "ls": second} for first in ("with", "without") for second in ("with", "without")][:3]
    names = ["grid/" + "+".join(rung for rung, level in of_arm.items() if level == "with") for of_arm in factors]
    arms = [*LADDER[:3], arm("ls", "mixup"), *(arm(name, "cb", "grid", factors=f) for name, f in zip(names, factors, strict=True))]
    rows = table(report.write(study(arms), "latex"), "Ablation")
    marks = {name: [bool(cell.strip()) for cell in rows[name][0][1:4]] for name in names}
    assert marks == {"grid/mixup+ls": [True, True, True], "grid/mixup": [True, True, False], "grid/ls": [True, False, True]}


def test_without_a_ladder_there_is_no_matrix():
    """Nothing would be marked."""
    text = report.write(study([arm("baseline", None), arm("other", "baseline", "variant")]), "latex")
    assert "AblateTableAblation" not in text
    assert list(table(text, "Variants")) == ["baseline", "other"]


def test_the_best_of_a_column_is_bold():
    """The largest mean of the arms of a table that are complete, by column."""
    recorded = study(broken={("cb", 0)})
    names = ["accuracy", "balanced_accuracy", "macro_f1", "many", "few"]
    arms = report.tidy_frames(recorded).arms.set_index("arm").loc[["baseline", "mixup"]]
    rows = table(report.write(recorded, "latex", columns=names), "Ladder")
    for column, name in enumerate(names, start=1):
        bold = {arm_name for arm_name, (cells, _) in rows.items() if "\\textbf" in cells[column]}
        means = (100 * arms[f"{name}_mean"]).round(2)
        assert bold == set(means.index[means == means.max()])


def test_arms_with_different_seeds_are_bold_over_those_that_all_have():
    """The caption says so, and a metric that some runs lack has its number of runs."""
    recorded = restricted(shifted({"up": 0.05, "once": 0.02}, seeds=range(4)), {"once": [3]})
    recorded.runs.loc[recorded.runs["seed"] == 3, "test/accuracy"] += 0.1
    recorded.runs.loc[(recorded.runs["arm"] == "up") & (recorded.runs["seed"] == 0), "test/nll"] = np.nan
    text = report.write(recorded, "latex", columns=["accuracy", "nll"])
    rows = table(text, "Ladder")
    assert [name for name, (row, _) in rows.items() if "\\textbf" in row[1]] == ["up"]
    assert "the best is bold (over the seeds that all complete arms of its table share)" in text
    assert "\\textsuperscript{3/4}" in rows["up"][0][2]
    assert "$1/2$: numbers or pairs of fewer seeds than other arms have. An arm of which a planned run has no number" in text
    assert "\\newcommand{\\AblateUpNllN}{3}" in text


def test_numbers_of_fewer_seeds_than_others_are_marked_and_explained():
    """Where arms were planned with fewer seeds, too; nothing is marked where all have as many."""
    planned = restricted(shifted({"up": 0.05, "once": 0.02}, seeds=range(4)), {"once": [2, 3]})
    text = report.write(planned, "latex")
    assert "\\textsuperscript{2/4}" in text
    assert "$1/2$: numbers or pairs of fewer seeds than other arms have." in text
    assert "never the best" not in text
    assert "$1/2$" not in report.write(shifted({"up": 0.05}, seeds=range(4)), "latex")


def test_each_family_has_its_table():
    """The ladder, the variants, each sweep and each condition, whose names lack the family's; with a rule between families within one."""
    arms = [
        *LADDER[:5],
        arm("rate/0.1", "cb", "sweep", factors={"lr": "0.1"}),
        *LADDER[5:],
        arm("no-lag/rate/0.1", "no-lag/cb", "condition", "no-lag/baseline"),
    ]
    arms = [{**one, "condition": "no-lag" if one["kind"] == "condition" else None} for one in arms]
    text = report.write(study(arms), "latex")
    tables = re.findall(r"\\newcommand\{\\AblateTable([A-Z]\w*)\}", text)
    assert tables == ["Ablation", "Ladder", "Variants", "SweepRate", "ConditionNoLag", "Published"]
    assert table(text, "SweepRate")["rate/0.1"][0][0] == "0.1"
    assert [cells[0] for cells, _ in table(text, "ConditionNoLag").values()] == ["baseline", "cb", "rate/\\allowbreak{}0.1"]
    assert body(text, "ConditionNoLag").count("\\midrule") == 2
    assert body(report.write(study(arms), "latex", sort="accuracy"), "ConditionNoLag").count("\\midrule") == 1


def test_captions_say_what_the_numbers_are():
    """The metric with its unit, the seeds, the interval and the correction; the words of verdicts only where they are there."""
    text = report.write(study(), "latex")
    caption = body(text, "Ladder").split("\\caption[")[1].partition("\\label")[0]
    assert "Accuracy in percent, mean $\\pm$ standard deviation over 3 seeds" in caption
    assert "Points of accuracy, paired by seed, with 95\\,\\% $t$ intervals, not adjusted" in caption
    assert "Holm's correction within the family" in caption
    assert ("no difference beyond" in caption) == ("no difference beyond" in body(text, "Ladder").split("\\toprule")[1])
    assert "An arm's parent is the row above it." in body(text, "Ladder")
    assert "Parents: cb of cutmix" in body(text, "Variants")
    assert "one seed" in body(report.write(study(seeds=[0]), "latex"), "Ladder")


def test_gaps_are_told():
    """The runs and pairs that there are, a blank row and no command for what does not exist."""
    recorded = study(broken={("cb", 1), ("cutmix", 0), ("cutmix", 1), ("cutmix", 2)})
    text = report.write(recorded, "latex")
    ladder, variants = table(text, "Ladder"), table(text, "Variants")
    assert r"\textsuperscript{2/3}" in ladder["cb"][0][1]
    assert r"\textsuperscript{2/3}" in ladder["cb"][0][2]
    assert variants["cutmix"][0][1:4] == [r"\textsuperscript{0/3}", "", ""]
    assert variants["cutmix"][1] == ["none"]
    assert "numbers or pairs of fewer seeds than other arms have. An arm of which a planned run has no number is never the best" in body(
        text, "Ladder"
    )
    counted = table(report.write(recorded, "latex", columns=["n", "accuracy"]), "Ladder")["cb"][0]
    assert counted[1] == "2/3"
    assert "superscript" not in counted[2]
    assert r"\AblateCutmix" not in text


def test_labels_are_marked_and_explained():
    """In each table that has them, so that none is printed without."""
    text = report.write(study(), "latex")
    assert table(text, "Variants")["cutmix"][0][0] == r"cutmix\textsuperscript{B}"
    notes = body(text, "Variants").split("\\end{tabular}")[-1]
    assert r"\textsuperscript{B}\,bundle: the change spans several families" in notes
    assert "reweight: the same training as cb." in notes
    assert "bundle" not in body(text, "Ladder")


def test_two_arms_of_one_label_are_told_apart():
    """By their names."""
    recorded = study([arm("baseline", None), arm("one", "baseline", label="same"), arm("two", "baseline", label="same"),
                      arm("three", "baseline", label="one"), arm("four", "baseline", label="alone")])  # fmt: skip
    rows = table(report.write(recorded, "latex"), "Ladder")
    assert [cells[0] for cells, _ in rows.values()] == ["baseline", "one", "two", "three", "alone"]


def test_attribution_has_a_column_per_way():
    """Differences with their intervals; there is no such table where only the ladder was run."""
    recorded = study(WAYS)
    text = report.write(recorded, "latex")
    assert header(text, "Attribution") == ["rung", "ladder", "first in", "last out"]
    frame = report.tidy_frames(recorded).attribution.query("metric == 'accuracy' and rung == 'mixup'").set_index("way")
    cells = next(line for line in body(text, "Attribution").splitlines() if line.startswith("mixup & ")).split(" & ")[1:]
    expected = [frame[part][way] for way in ("ladder", "first in", "last out") for part in ("mean", "low", "high")]
    assert [number for cell in cells for number in numbers(cell)] == pytest.approx(expected, abs=0.0051)
    assert "Attribution" not in report.write(study(LADDER[:3]), "latex")


def test_published_figures_stand_beside_ours():
    """With the gap, for the arms that have any."""
    recorded = study()
    ours, sd = (100 * report.tidy_frames(recorded).arms[f"accuracy_{part}"][0] for part in ("mean", "sd"))
    rows = table(report.write(recorded, "latex"), "Published")
    assert list(rows) == ["baseline"]
    assert [number for cell in rows["baseline"][0] for number in numbers(cell)] == pytest.approx(
        [ours, sd, 84.22, ours - 84.22], abs=0.0051
    )


def test_several_reports_figures():
    """Each has its column and its gap; what a report does not state is a dash."""
    content = gather(study(), Shown())
    arms = content.frames.arms.assign(
        **{"published/B & C": [np.nan, 0.5, *[np.nan] * 5], "gap/B & C_points": [np.nan, -1.0, *[np.nan] * 5]}
    )
    content = dataclasses.replace(content, frames=dataclasses.replace(content.frames, arms=arms), references=References())
    text = latex.document(content)
    assert header(text, "Published") == ["arm", "accuracy", "A", "gap", "B \\& C", "gap"]
    assert table(text, "Published")["cb"][0][2:] == ["--", "--", "50.00", "$-$1.00"]


def test_a_table_is_as_wide_as_it_needs():
    """One that fits a column is a `table`, with intervals beside the numbers or below; any other is a `table*`."""
    arms = [arm("baseline", None), arm("one-of-a-long-name", "baseline")]
    narrow, wide = (
        report.write(study(arms), "latex", columns=names) for names in (["accuracy"], ["accuracy", "parent", "baseline", "nll"])
    )
    assert "\\begin{table}[" in body(narrow, "Ladder")
    assert "AblateOver{" not in body(narrow, "Ladder")
    assert "\\begin{table*}[" in body(wide, "Ladder")
    assert "\\begin{tabular}{@{}lrrrr@{}}" in body(wide, "Ladder")


def test_a_long_table_is_continued():
    """Each arm is in one float, in their order, and each float has its caption and its label."""
    names = [f"rate/{place}" for place in range(150)]
    arms = [arm("baseline", None), *(arm(name, "baseline", "sweep", factors={"lr": name}) for name in names)]
    text = report.write(study(arms, seeds=[0], images=5), "latex")
    floats = re.findall(r"\\newcommand\{\\AblateTable(SweepRate\w*)\}", text)
    assert floats[:2] == ["SweepRate", "SweepRateSecond"]
    assert [name for part in floats for name in table(text, part)] == ["baseline", *names]
    labels = [re.findall(r"\\label\{(.*?)\}", body(text, part)) for part in floats]
    assert labels[:2] == [["tab:demo-sweep-rate"], ["tab:demo-sweep-rateSecond"]]


def test_a_caption_names_the_seeds_that_arms_have():
    """Of as many, or from the fewest to the most."""
    assert "over 8 seeds" in report.write(shifted({"cb": 0.05}), "latex")
    assert "over 3 to 8 seeds" in report.write(restricted(shifted({"cb": 0.05, "mx": 0.01}), {"mx": [0, 1, 2]}), "latex")
