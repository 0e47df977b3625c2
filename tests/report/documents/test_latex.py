"""The LaTeX document has a command for each number, in one file or in two, and says how to use it."""

import re

import pytest

from ablation import report
from ablation.errors import ConfigError
from ablation.report.documents.check import check, read
from ablation.report.sections import Shown
from tests.report.documents.papers import compiled, needs_pdflatex
from tests.report.studies import arm, study


def commands(text):
    """Command -> what it stands for, of all that hold numbers."""
    definitions = re.findall(r"^\\newcommand\{\\Ablate([A-Za-z]+)\}\{(.+)\}$", text, re.MULTILINE)
    assert len(dict(definitions)) == len(definitions), "a command is defined twice"
    return dict(definitions)


def printed(number):
    """A number as a reader sees it."""
    return re.sub(r"\\ensuremath\{(.)\}", r"\1", number)


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
    assert "arm & NLL & vs parent & vs baseline & verdict \\\\" in text
    assert "NLL in nats, mean" in text
    assert "Nats of NLL, paired by seed" in text
    assert "below zero is a gain" in text


def test_an_arm_keeps_its_name_whatever_is_shown():
    """Where another arm of the plan has the same, shown or not."""
    recorded = study([arm("baseline", None), arm("a-b", "baseline"), arm("a_b", "baseline"), arm("!", "baseline"), arm("?", "baseline")])
    whole, part = commands(report.write(recorded, "latex")), commands(report.write(recorded, "latex", arms=["a_b", "[?]"]))
    assert {"ABAccuracy", "ABSecondAccuracy", "ArmAccuracy", "ArmSecondAccuracy"} <= set(whole)
    assert part["ABSecondAccuracy"] == whole["ABSecondAccuracy"] != whole["ABAccuracy"]
    assert part["ArmSecondAccuracy"] == whole["ArmSecondAccuracy"]
    assert "ABAccuracy" not in part


def test_provenance_is_in_comments():
    """So is what the file needs; everything that is not a comment is after them."""
    lines = report.write(study(), "latex").splitlines()
    head = lines[: lines.index("")]
    assert all(line.startswith("% ") for line in head)
    assert any(line.startswith("% provenance: ") and "c0ffee" in line for line in head)
    assert any("\\usepackage{array,booktabs,graphicx}" in line for line in head)


@pytest.mark.usefixtures("few_figures")
def test_a_folder_has_the_numbers_in_a_file_of_their_own(tmp_path):
    """The tables and the numbers are those of the printed text, and each file says what it is and agrees with the store."""
    whole = report.write(study(), "latex")
    text = report.write(study(), "latex", tmp_path)
    tables, numbers = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.tex", "numbers.tex"))
    assert text == tables
    assert commands(tables) == {}
    assert commands(numbers) == commands(whole)
    definition = re.compile(r"^\\newcommand\{\\AblateTable.*?^\}$", re.DOTALL | re.MULTILINE)
    assert definition.findall(tables) == definition.findall(whole) != []
    assert "% The numbers are in numbers.tex." in tables
    assert "\\input{numbers} in the preamble" in numbers
    assert "numbers.tex" not in whole
    for name in ("report.tex", "numbers.tex"):
        path = tmp_path / name
        assert check(study(), path, read(path, None, Shown()))[0] == 0
        path.write_text(path.read_text(encoding="utf-8").replace("newcommand", "renewcommand", 1), encoding="utf-8")
        assert check(study(), path, read(path, None, Shown()))[0] == 1


def test_an_unknown_column_is_named():
    """With the nearest that there is, before anything is written."""
    with pytest.raises(ConfigError, match=r"--columns: unknown column 'acuracy'; .*Did you mean 'accuracy'") as error:
        report.write(study(), "latex", columns=["arm", "acuracy"])
    assert "verdict" in str(error.value)


@needs_pdflatex
def test_in_the_preamble_it_gives_numbers_alone(tmp_path):
    """Every table can be placed by its own command, also within a text of two columns, and every number used in text and formulas."""
    text = report.write(study(), "latex")
    uses = "".join(f"\\Ablate{name}, $\\Ablate{name}$; " for name in commands(text))
    packages = "\\usepackage{array,booktabs,graphicx}"
    start = f"\\documentclass[twocolumn]{{article}}{packages}\\input{{report}}\\begin{{document}}\\sloppy "
    log, pages = compiled(
        tmp_path, text, f"{start}{uses}\\AblateTableConditionNoLag See~\\ref{{tab:demo-condition-no-lag}}.\\end{{document}}", runs=2
    )
    assert not [line for line in log.splitlines() if re.match("LaTeX Warning|!", line)]
    labels = re.findall(r"newlabel\{(tab:[^}]*)\}", (tmp_path / "tables.aux").read_text())
    assert (labels, pages > 1) == (["tab:demo-condition-no-lag"], True)
