"""Published figures find the arm that they speak of, and say so where they do not."""

from pathlib import Path

import pytest

from ablation.errors import ConfigError
from ablation.report.frames.references import chain_names, find_arm, read
from tests.report.studies import arm, study

ARMS = [
    arm("baseline", None),
    arm("cb", "baseline"),
    arm("mixup", "cb"),
    arm("ls", "mixup", label="Label smoothing"),
    arm("cutmix", "cb", "variant"),
    arm("reweight", "baseline", "variant", label="re-weighting"),
    arm("decoupled/modified", "baseline", "sweep", label="decoupled modified cross-entropy"),
    arm("no-lag/baseline", None, "condition", "no-lag/baseline"),
    arm("no-lag/ls", "no-lag/baseline", "condition", "no-lag/baseline", label="Label smoothing"),
    arm("twin-a", "baseline", "variant", label="twin"),
    arm("twin-b", "baseline", "variant", label="twin"),
]
SHARED = Path(__file__).parents[4] / "shared/reference"


def plan():
    """A plan with those arms."""
    return study(ARMS, seeds=[0], classes=["cat", "big dog"]).plan


def test_chain_names_leave_out_the_first_rung():
    """The rungs on the way to an arm, and none for the arms of a condition."""
    chains = chain_names(ARMS)
    assert (chains["baseline"], chains["cb"], chains["ls"], chains["cutmix"]) == ("baseline", "cb", "cb+mixup+ls", "cb+cutmix")
    assert "no-lag/ls" not in chains


@pytest.mark.parametrize(
    ("text", "expected"),
    [("baseline", "baseline"), ("cb+mixup+ls", "ls"), ("CB + MixUp", "mixup"), ("cb+cutmix", "cutmix"), ("label smoothing", "ls"),
     ("decoupled modified cross-entropy", "decoupled/modified"), ("no-lag/ls", "no-lag/ls"), ("mixup", "mixup"),
     ("twin", None), ("baseline (text)", None), ("", None)],
)  # fmt: skip
def test_a_row_finds_its_arm(text, expected):
    """By name, by label or by chain; spaces and case do not count, and two candidates are none."""
    assert find_arm(text, ARMS) == expected


def test_accuracies_by_report(tmp_path):
    """Each row goes to its arm and report, and what fits no arm is listed."""
    path = tmp_path / "a.csv"
    path.write_text("report,arm,accuracy\nA,cb,0.5\nB,cb,0.6\nB,other,0.7\n")
    references = read(path, plan())
    assert references.headlines == {"cb": {"A": 0.5, "B": 0.6}}
    assert list(references.unmatched) == ["B: other (70.00)"]


def test_figures_per_class(tmp_path):
    """Each row goes to its arm and class; an unknown arm is listed once, an unknown class by name."""
    path = tmp_path / "c.csv"
    rows = ["cb,Big Dog,0.1,0.2,0.3,9", "cb,cow,0,0,0,9", "other,cat,0,0,0,9", "other,cow,0,0,0,9"]
    path.write_text("\n".join(["arm,class,precision,recall,f1,support", *rows]))
    references = read(path, plan())
    assert references.per_class == {"cb": {"big dog": {"precision": 0.1, "recall": 0.2, "f1": 0.3}}}
    assert list(references.unmatched) == ["cb, class cow", "other"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("report,arm\nA,cb\n", "expected report, arm, accuracy"),
        ("report,arm,accuracy\nA,cb,84.97\n", "found accuracy '84.97'; expected a fraction"),
        ("report,arm,accuracy\nA,cb,\n", "found accuracy ''; expected a fraction"),
        ("report,arm,accuracy\nA,cb,0.5\nA,CB,0.6\n", "a second row of report A for the arm cb"),
        ("arm,class,precision,recall,f1,support\ncb,cat,1,1,1,1\ncb,cat,1,1,1,1\n", "a second row of class cat"),
        ("", "found the columns"),
    ],
)
def test_a_broken_file_is_told_in_one_sentence(tmp_path, text, words):
    """The place, what was found and what was expected."""
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.csv") as caught:
        read(path, plan())
    assert words in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    """No traceback for a wrong path."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.csv", plan())


@pytest.mark.skipif(not (SHARED / "accuracy.csv").exists(), reason="the published figures lie outside the repository")
def test_the_course_reports_match_the_ladder():
    """All of report A's rows find an arm of the ladder; the baseline that report B states twice is left to the reader."""
    rungs = ["baseline", "cb", "mixup", "ls", "tta", "decoupling"]
    ladder = [arm(name, rungs[place - 1] if place else None) for place, name in enumerate(rungs)]
    arms = [*ladder, arm("cutmix", "cb", "variant"), arm("reweight", "baseline", "variant")]
    references = read(SHARED / "accuracy.csv", study(arms, seeds=[0]).plan)
    assert {name for name, reports in references.headlines.items() if "A" in reports} == {*rungs, "cutmix"}
    assert references.headlines["decoupling"]["A"] == 0.8501
    assert len(references.unmatched) == 3
