"""The LaTeX document has the frames' numbers, a command for each of them, and compiles whatever the names."""

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest

from ablation import report
from ablation.report.documents import latex, latex_text
from ablation.report.documents.writing import gather
from ablation.report.frames.references import References
from ablation.report.sections import Shown
from tests.report.studies import LADDER, arm, study

NASTY = (
    r"a & b % c $ d # e _ f { g } h ~ i ^ j \ k",
    r"[optional]",
    "*",
    r'"quoted" <i>`it`</i> |',
    r"\input{/etc/passwd} \end{longtable} }}} \fi",
    "two\nlines -- and\ta tab\x07",
    "%",
)
WAYS = (
    *LADDER[:3],
    arm("baseline/with-mixup", "baseline", "add_one", factors={"with": "mixup"}),
    arm("mixup/without-cb", "mixup", "drop_one", factors={"without": "cb"}),
)
needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def hostile():
    """A study in which every text is meant to break LaTeX."""
    name, first, second, third, fourth, last, label = NASTY
    arms = [
        arm(name, None, label=label, note=fourth, labels={"bundle": first, "lag": second}, published={first: 12.3}),
        arm(first, name, label=third, baseline=name, labels={second: fourth}),
        arm(second, name, "variant", baseline=name, note=last, same_as=first),
        arm(last, second, "sweep", baseline=name, label=first),
        arm("%/x", None, "condition", "%/x", condition="%"),
    ]
    recorded = study(arms, broken={(first, 1)}, chosen={(last, 0): fourth})
    recorded.study = recorded.plan["study"] = r"st_udy & \co %"
    return recorded


def commands(text):
    """Command -> what it stands for, of all that hold numbers."""
    definitions = re.findall(r"^\\newcommand\{\\Ablate([A-Za-z]+)\}\{(.+)\}$", text, re.MULTILINE)
    assert len(dict(definitions)) == len(definitions), "a command is defined twice"
    return dict(definitions)


def printed(number):
    """A number as a reader sees it."""
    return re.sub(r"\\ensuremath\{(.)\}", r"\1", number)


def table(text, name):
    """The cells of each row of a table, by the arm's name, and the ids of its runs."""
    body = text.split(f"\\newcommand{{\\AblateTable{name}}}{{%")[1].partition("\\end{longtable}")[0]
    rows = re.findall(r"^(.*) \\\\ % (.*)\n% runs: (.*)$", body, re.MULTILINE)
    return {arm_name: (cells.split(" & "), ids.split()) for cells, arm_name, ids in rows}


def numbers(cell):
    """The numbers in a cell, with their signs."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell.replace("$", ""))]


def compiled(folder, text, source=None):
    """The log of pdflatex's last run on a document that has the report's text beside it, and the number of pages."""
    (folder / "report.tex").write_text(text, encoding="utf-8")
    command_line = re.search(r"^% compile with \(twice\): pdflatex -jobname=tables '(.*)'$", text, re.MULTILINE)[1]
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "-jobname=tables", source or command_line]
    for _ in range(3):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-2000:]
    pages = re.search(r"Output written on tables\.pdf \((\d+) page", done.stdout)
    return (folder / "tables.log").read_text(errors="replace"), int(pages[1]) if pages else 0


def assert_clean(log):
    """Nothing is too wide, undefined or defined twice."""
    wrong = [line for line in log.splitlines() if re.match(r"Overfull|LaTeX Warning|Missing character|!", line)]
    assert not wrong


def test_the_tables_have_the_frames_numbers():
    """Means and sds in percent, differences with their interval, the verdict, and the full ids of the runs beside each row."""
    recorded = study()
    text = report.write(recorded, "latex")
    frames = report.tidy_frames(recorded)
    values, differences = table(text, "Comparison"), table(text, "Differences")
    assert list(values) == list(differences) == ["baseline", "cb", "mixup", "cutmix", "reweight"]
    for row in frames.arms[frames.arms["condition"] == ""].to_dict("records"):
        cells, ids = values[row["arm"]]
        names = ["accuracy", "balanced_accuracy", "macro_f1", "many", "few"]
        expected = [100 * row[f"{name}_{part}"] for name in names for part in ("mean", "sd")]
        assert cells[1] == "3"
        assert [number for cell in cells[2:] for number in numbers(cell)] == pytest.approx(expected, abs=0.0051)
        assert ids == recorded.runs.loc[recorded.runs["arm"] == row["arm"], "run_id"].tolist()
        if row["parent"]:
            expected = [row[f"accuracy_vs_{role}{part}_points"] for role in ("parent", "baseline") for part in ("", "_low", "_high")]
            cells_of_arm = differences[row["arm"]][0]
            assert numbers(cells_of_arm[2]) + numbers(cells_of_arm[3]) == pytest.approx(expected, abs=0.0051)
            assert cells_of_arm[4] == row["verdict_vs_parent"]
    assert differences["baseline"][0][2:] == ["--", "--", ""]
    assert values["mixup"][0][0] == "MixUp"
    assert differences["cutmix"][0][1] == "cb"


def test_the_best_of_a_column_is_bold():
    """The largest mean of the arms that are complete, by column."""
    recorded = study(broken={("cb", 0)})
    arms = report.tidy_frames(recorded).arms
    arms = arms[(arms["condition"] == "") & (arms["n"] == 3)].set_index("arm")
    rows = table(report.write(recorded, "latex"), "Comparison")
    for column, name in enumerate(["accuracy", "balanced_accuracy", "macro_f1", "many", "few"], start=2):
        bold = {arm_name for arm_name, (cells, _) in rows.items() if "\\textbf" in cells[column]}
        means = (100 * arms[f"{name}_mean"]).round(2)
        assert bold == set(means.index[means == means.max()])


def test_families_have_a_heading_and_a_rule():
    """Between the ladder and the variants; under a condition that has the ladder alone, and in an order of one's own, there is none."""
    text = report.write(study(), "latex")
    body = text.split("\\AblateTableComparison}{")[1]
    ladder, variants = body.index(r"\textit{ladder}"), body.index(r"\textit{variants}")
    assert ladder < body.index("% cb\n") < body.index("\\midrule\n\\multicolumn") < variants < body.index("% cutmix\n")
    assert r"\textit{" not in body.split("\\AblateTableNoLagComparison}{")[1]
    assert r"\textit{" not in report.write(study(), "latex", sort="accuracy")


def test_every_number_has_a_command():
    """Of every metric the mean, the sd and the number of runs; of the chosen one the differences with interval and p."""
    recorded = study()
    numbers_by_command = commands(report.write(recorded, "latex"))
    frames = report.tidy_frames(recorded)
    arm_row = frames.arms.set_index("arm").loc["cb"]
    pair = frames.differences.query("arm == 'cb' and role == 'baseline' and metric == 'accuracy'").iloc[0]
    expected = {
        "CbAccuracy": f"{100 * arm_row['accuracy_mean']:.2f}",
        "CbAccuracySd": f"{100 * arm_row['accuracy_sd']:.2f}",
        "CbAccuracyN": "3",
        "CbMacroFOne": f"{100 * arm_row['macro_f1_mean']:.2f}",
        "CbNll": f"{arm_row['nll_mean']:.3f}",
        "CbAccuracyVsBaseline": f"{pair['mean']:+.2f}",
        "CbAccuracyVsBaselineLow": f"{pair['low']:+.2f}",
        "CbAccuracyVsBaselineHigh": f"{pair['high']:+.2f}",
        "CbAccuracyVsBaselineP": f"{pair['p_t']:.3f}",
        "CbAccuracyVsBaselinePHolm": f"{pair['p_t_holm']:.3f}",
        "BaselinePublishedA": "84.22",
        "BaselineGapA": f"{100 * frames.arms['accuracy_mean'][0] - 84.22:+.2f}",
    }
    assert {name: printed(numbers_by_command[name]) for name in expected} == expected
    assert "NoLagCbAccuracy" in numbers_by_command
    assert not [name for name in numbers_by_command if re.search("Medium|BaselineAccuracyVsParent|CbNllVs|CbPublished", name)]


def test_the_metric_asked_for_has_its_column_and_its_differences():
    """In its own unit."""
    text = report.write(study(), "latex", metric="nll")
    numbers_by_command = commands(text)
    assert re.fullmatch(r"\\ensuremath\{[+-]\}\d\.\d{3}", numbers_by_command["CbNllVsBaseline"])
    assert "CbAccuracyVsBaseline" not in numbers_by_command
    assert "& NLL \\\\" in text
    assert "Nats of NLL, paired by seed" in text
    assert "below zero is a gain" in text


@pytest.mark.parametrize(
    ("text", "name"),
    [("cb", "Cb"), ("class_balanced-focal", "ClassBalancedFocal"), ("no-lag/epsilon/0.05", "NoLagEpsilonZeroPointZeroFive"),
     ("macro_f1", "MacroFOne"), ("LDAM-DRW", "LDAMDRW"), ("größe", "Groe"), ("1e-3", "OneEThree"), ("%", ""), ("層", "")],
)  # fmt: skip
def test_names_are_of_letters_alone(text, name):
    """Digits are spelt, and a point between digits is too, so that 0.5 and 05 differ."""
    assert latex_text.camel(text) == name


def test_names_that_collide_are_counted():
    """Second, Third, and beyond the words in digits."""
    assert latex_text.unique(["A", "B", "A", "A", "ASecond", "ASecond"]) == ["A", "B", "ASecond", "AThird", "ASecondSecond", "ASecondThird"]
    assert latex_text.unique(["A"] * 11)[-2:] == ["ATenth", "ANumberOneOne"]


def test_an_arm_keeps_its_name_whatever_is_shown():
    """Where another arm of the plan has the same, shown or not."""
    recorded = study([arm("baseline", None), arm("a-b", "baseline"), arm("a_b", "baseline"), arm("!", "baseline"), arm("?", "baseline")])
    whole, part = commands(report.write(recorded, "latex")), commands(report.write(recorded, "latex", arms=["a_b", "[?]"]))
    assert {"ABAccuracy", "ABSecondAccuracy", "ArmAccuracy", "ArmSecondAccuracy"} <= set(whole)
    assert part["ABSecondAccuracy"] == whole["ABSecondAccuracy"] != whole["ABAccuracy"]
    assert part["ArmSecondAccuracy"] == whole["ArmSecondAccuracy"]
    assert "ABAccuracy" not in part


def test_gaps_are_told():
    """n, the pairs that there are, a blank row and no command for what does not exist."""
    recorded = study(broken={("cb", 1), ("cutmix", 0), ("cutmix", 1), ("cutmix", 2)})
    text = report.write(recorded, "latex")
    values, differences = table(text, "Comparison"), table(text, "Differences")
    assert values["cb"][0][1] == "2/3"
    assert r"\textsuperscript{2/3}" in differences["cb"][0][2]
    assert values["cutmix"][0][1:] == ["0/3", "", "", "", "", ""]
    assert differences["cutmix"][0][2:4] == ["", ""]
    assert values["cutmix"][1] == ["none"]
    assert "not every planned run is done" in text
    assert "the pairs of seeds, where some are missing" in text
    assert not [name for name in commands(text) if name.startswith("Cutmix")]


def test_labels_are_marked_and_explained():
    """In both tables, so that neither is printed without them."""
    text = report.write(study(), "latex")
    for name in ("Comparison", "Differences"):
        assert table(text, name)["cutmix"][0][0] == r"cutmix\textsuperscript{B}"
        notes = text.split(f"\\AblateTable{name}}}{{%")[1].split("\\endgroup")[0].split("\\end{longtable}")[1]
        assert r"\textsuperscript{B}\,bundle: the change spans several families" in notes
    assert "reweight: the same training as cb." in text


def test_two_arms_of_one_label_are_told_apart():
    """By their names."""
    recorded = study([arm("baseline", None), arm("one", "baseline", label="same"), arm("two", "baseline", label="same"),
                      arm("three", "baseline", label="one"), arm("four", "baseline", label="alone")])  # fmt: skip
    rows = table(report.write(recorded, "latex"), "Comparison")
    assert [cells[0] for cells, _ in rows.values()] == ["baseline", "one", "two", "three", "alone"]


def test_attribution_has_a_column_per_way():
    """Differences with their intervals below; there is no such table where only the ladder was run."""
    recorded = study(WAYS)
    text = report.write(recorded, "latex")
    body = text.split("\\AblateTableAttribution}{%")[1].partition("\\end{longtable}")[0]
    assert "rung & ladder & first in & last out \\\\" in body
    frame = report.tidy_frames(recorded).attribution.query("metric == 'accuracy' and rung == 'mixup'").set_index("way")
    cells = next(line for line in body.splitlines() if line.startswith("mixup & ")).split(" & ")[1:]
    ways = ["ladder", "first in", "last out"]
    expected = [frame[part][way] for way in ways for part in ("mean", "low", "high")]
    assert [number for cell in cells for number in numbers(cell)] == pytest.approx(expected, abs=0.0051)
    assert "Attribution" not in report.write(study(LADDER[:3]), "latex")


def test_published_figures_stand_beside_ours():
    """With the gap, for the arms that have any."""
    recorded = study()
    body = report.write(recorded, "latex").split("\\AblateTablePublished}{%")[1].partition("\\end{longtable}")[0]
    ours = 100 * report.tidy_frames(recorded).arms["accuracy_mean"][0]
    rows = [line for line in body.splitlines() if line.startswith(("baseline &", "cb &"))]
    assert [numbers(row) for row in rows] == [pytest.approx([ours, 84.22, ours - 84.22], abs=0.0051)]


def test_what_users_named_is_no_command():
    """Every special character is escaped, and text stays on one line."""
    text = latex_text.escaped(" ".join(NASTY))
    assert "\n" not in text
    assert "\x07" not in text
    rest = text
    for escape in sorted(set(latex_text.SPECIAL.values()) | {"-{}-"}, key=len, reverse=True):
        rest = rest.replace(escape, "")
    assert not set(rest) & set('&%$#_{}~^\\[]*"<>|`\t')
    assert latex_text.escaped("größe 層") == "größe 層"


def test_provenance_is_in_comments():
    """So is what the file needs; everything that is not a comment is after them."""
    lines = report.write(study(), "latex").splitlines()
    head = lines[: lines.index("")]
    assert all(line.startswith("% ") for line in head)
    assert any(line.startswith("% provenance: ") and "c0ffee" in line for line in head)
    assert any("\\usepackage{array,booktabs,longtable}" in line for line in head)


@needs_pdflatex
@pytest.mark.parametrize("options", [{}, {"metric": "nll", "sort": "few"}, {"arms": ["no-lag/*"]}])
def test_it_compiles_by_the_command_that_it_names(tmp_path, options):
    """In a plain article, where nothing is too wide and no reference is open."""
    log, pages = compiled(tmp_path, report.write(study(), "latex", **options))
    assert_clean(log)
    assert pages


@needs_pdflatex
def test_it_compiles_whatever_the_names(tmp_path):
    """Nothing that users named is read as LaTeX; each table is there once."""
    text = report.write(hostile(), "latex")
    log, _ = compiled(tmp_path, text)
    assert not [line for line in log.splitlines() if re.match("LaTeX Warning|Missing character|!", line)]
    assert "passwd" not in re.sub(r"\s", "", "".join(re.findall(r"\([^()\s]+", log)))
    assert (tmp_path / "tables.lot").exists() is False
    labels = re.findall(r"newlabel\{(tab:[^}]*)\}", (tmp_path / "tables.aux").read_text())
    assert labels == [
        f"tab:st-udy-co-{name}" for name in ("comparison", "differences", "comparisonSecond", "differencesSecond", "published")
    ]


@needs_pdflatex
def test_many_long_arms_fit(tmp_path):
    """Over several pages, in three digits before the point, with four ways of attribution's width."""
    names = [f"sweep/of-a-rather-long-name_{number}" for number in range(60)]
    recorded = study([*WAYS, *(arm(name, "baseline", "sweep", labels={"bundle": "x", "lag": "y"}) for name in names)], seeds=(0, 1))
    recorded.runs["test/accuracy"] = np.linspace(0.01, 1, len(recorded.runs))
    log, pages = compiled(tmp_path, report.write(recorded, "latex"))
    assert_clean(log)
    assert pages > 2


@needs_pdflatex
def test_in_the_preamble_it_gives_numbers_alone(tmp_path):
    """Every table can be placed by its own command, also within a text of two columns, and every number used in text and formulas."""
    text = report.write(study(), "latex")
    uses = "".join(f"\\Ablate{name}, $\\Ablate{name}$; " for name in commands(text))
    packages = "\\usepackage{array,booktabs,longtable}"
    start = f"\\documentclass[twocolumn]{{article}}{packages}\\input{{report}}\\begin{{document}}\\sloppy "
    log, pages = compiled(
        tmp_path, text, f"{start}{uses}\\onecolumn\\AblateTableNoLagDifferences See~\\ref{{tab:demo-no-lag-differences}}.\\end{{document}}"
    )
    assert not [line for line in log.splitlines() if re.match("LaTeX Warning|!", line)]
    labels = re.findall(r"newlabel\{(tab:[^}]*)\}", (tmp_path / "tables.aux").read_text())
    assert (labels, pages > 1) == (["tab:demo-no-lag-differences"], True)


def test_several_reports_figures():
    """Each has its column and its gap; what a report does not state is a dash."""
    content = gather(study(), Shown())
    arms = content.frames.arms.assign(
        **{"published/B & C": [np.nan, 0.5, *[np.nan] * 5], "gap/B & C_points": [np.nan, -1.0, *[np.nan] * 5]}
    )
    content = dataclasses.replace(content, frames=dataclasses.replace(content.frames, arms=arms), references=References())
    body = latex.document(content).split("\\AblateTablePublished}{%")[1].partition("\\end{longtable}")[0]
    assert "arm & ours & A & gap & B \\& C & gap \\\\" in body
    assert re.search(r"^cb & \d+\.\d\d & -- & -- & 50\.00 & \$-\$1\.00 \\\\$", body, re.MULTILINE)
