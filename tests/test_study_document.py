"""The numbers in docs/study.md are those of the packed study beside it, computed anew."""

import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablation.report.frames import packed

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "study.md").read_text(encoding="utf-8")
PROSE = " ".join(TEXT.split())
CONDITIONS = {  # the heading of a column -> the condition whose numbers stand in it
    "average, decay 0.9999": "",
    "with the lag": "",
    "weights as trained": "no-lag/",
    "without": "no-lag/",
    "average with warm-up": "warm/",
    "average, decay 0.999": "shorter/",
}
SECOND_STAGES = ("plain", "modified", "balanced-softmax", "focal", "class-balanced", "class-balanced-focal")
# Differences, and their intervals, that the text must state: arm, partner
INTERVALS = [
    ("average-restarted", "baseline"),
    ("decoupled/modified", "average-restarted"),
    ("decoupled/modified", "decoupled/plain"),
    ("no-lag/decoupled/modified", "no-lag/decoupled/plain"),
    ("no-lag/decoupled/plain", "no-lag/baseline"),
    ("no-lag/decoupled/focal", "no-lag/baseline"),
    ("no-lag/decoupled/modified", "no-lag/baseline"),
    ("shorter/decoupled/modified", "shorter/baseline"),
    ("decoupled/modified", "baseline"),
    ("shorter/decoupling", "no-lag/decoupling"),
    ("no-lag/decoupled/plain", "no-lag/cb"),
    ("no-lag/stage-one-balanced", "no-lag/tta"),
    *((f"{condition}cb", f"{condition}baseline") for condition in ("", "no-lag/")),
    *((f"{condition}mixup", f"{condition}cb") for condition in ("", "no-lag/")),
    *((f"{condition}ls", f"{condition}mixup") for condition in ("", "no-lag/", "shorter/")),
    *((f"{condition}tta", f"{condition}ls") for condition in ("", "no-lag/", "warm/")),
    *((f"{condition}decoupling", f"{condition}tta") for condition in ("", "no-lag/")),
    *((f"{condition}decoupling", f"{condition}without-tta") for condition in ("", "no-lag/")),
]


@pytest.fixture(scope="module")
def accuracies():
    """arm -> seed -> test accuracy in percent."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    done = runs[runs["status"] == "FINISHED"]
    return {arm: dict(zip(rows["seed"], 100 * rows["test/accuracy"], strict=True)) for arm, rows in done.groupby("arm")}


def paired(accuracies, arm, partner):
    """The differences in points, by seed."""
    seeds = sorted(accuracies[arm].keys() & accuracies[partner].keys())
    return np.array([accuracies[arm][seed] - accuracies[partner][seed] for seed in seeds])


def one_digit(points):
    """With its sign, halves away from zero: accuracies of 10,000 images are exact to two digits."""
    return f"{Decimal(f'{points:.6f}').quantize(Decimal('0.1'), ROUND_HALF_UP):+}"


def in_words(differences):
    """The mean difference with its 95 % t interval over seeds, as the text has it."""
    if len(differences) == 1:
        return f"{one_digit(differences[0])} (one seed)"
    low, high = stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))
    seeds = ", two seeds" if len(differences) == 2 else ""
    return f"{one_digit(differences.mean())} ({one_digit(low)} to {one_digit(high)}{seeds})"


def rows(column):
    """The arm that the cell in that column names, and the cells by their column's heading, of each row of a table with such a column."""
    header = []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        header = (header or cells) if cells else []
        named = re.search(r"`([\w./-]+)`", cells[header.index(column)]) if column in header else None
        if named:
            yield named[1], dict(zip(header, cells, strict=True))


def test_the_tables_have_the_means_of_the_study(accuracies):
    """Every cell with an accuracy is mean and standard deviation over the seeds of that arm in that condition."""
    checked = 0
    for arm, cells in [row for row in rows("arm") if "against" not in row[1]]:
        for heading in cells.keys() & CONDITIONS.keys():
            values = list(accuracies[f"{CONDITIONS[heading]}{arm}"].values())
            assert cells[heading] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}", (arm, heading)
            checked += 1
    assert checked >= 40


@pytest.mark.parametrize(("arm", "partner"), INTERVALS)
def test_the_text_has_the_intervals_of_the_study(accuracies, arm, partner):
    """The mean difference with its 95 % t interval over seeds stands in the text."""
    assert in_words(paired(accuracies, arm, partner)) in PROSE


def test_the_questions_have_the_differences_of_the_study(accuracies):
    """Each row has the arm against its partner, with the lag and without."""
    checked = 0
    for partner, cells in rows("against"):
        arm = re.search(r"`([\w./-]+)`", cells["arm"])[1]
        for heading in ("with the lag", "without"):
            condition = CONDITIONS[heading]
            assert cells[heading] == in_words(paired(accuracies, f"{condition}{arm}", f"{condition}{partner}")), (arm, heading)
            checked += 1
    assert checked >= 20


def test_every_decoupled_loss_is_below_the_restart(accuracies):
    """With the lag each of the six has less than the restart alone, in an interval without zero."""
    losses = [paired(accuracies, f"decoupled/{name}", "average-restarted") for name in SECOND_STAGES]
    assert all(stats.ttest_1samp(differences, 0).confidence_interval().high < 0 for differences in losses)
    smallest, largest = min(-one.mean() for one in losses), max(-one.mean() for one in losses)
    assert f"by {smallest:.1f} to {largest:.1f}" in PROSE


def test_the_text_has_the_numbers_of_cutmix(accuracies):
    """Differences by the weights as trained, to what the eight forms of seed 0 come, and the recall of the rare classes."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    rare = {run.arm: f"{100 * run.few:.1f}" for run in runs[runs["seed"] == 0].rename(columns={"test/few": "few"}).itertuples()}
    everywhere, shuffled = "no-lag/cutmix/cb/all/drawn", "no-lag/cutmix/shuffled/all/drawn"
    forms = {  # what the lambda, the pairs and the sampling change, each in four forms
        "The sampling gains {} points in each": ("cutmix/cb/{}/{}", "cutmix/shuffled/{}/{}", ("all", "tail"), ("drawn", "fixed"), 1),
        "a lambda fixed at 0.5 costs {}": ("cutmix/{}/{}/fixed", "cutmix/{}/{}/drawn", ("cb", "shuffled"), ("all", "tail"), -1),
        "CutMix costs {} less": ("cutmix/{}/tail/{}", "cutmix/{}/all/{}", ("cb", "shuffled"), ("drawn", "fixed"), 1),
    }
    ranges = {}
    for words, (arm, partner, firsts, seconds, sign) in forms.items():
        names = [(arm.format(first, second), partner.format(first, second)) for first in firsts for second in seconds]
        gaps = sorted(sign * (accuracies[f"no-lag/{one}"][0] - accuracies[f"no-lag/{other}"][0]) for one, other in names)
        ranges[words] = " to ".join(one_digit(gap).lstrip("+") for gap in (gaps[0], gaps[-1]))
    lagged = sorted(by_seed[0] for arm, by_seed in accuracies.items() if arm.startswith("cutmix/"))
    of_mixup = np.mean([accuracies["no-lag/mixup"][seed] - accuracies["no-lag/cb"][seed] for seed in accuracies[everywhere]])
    assert len(lagged) == 8
    for words in (
        f"it has {in_words(paired(accuracies, everywhere, 'no-lag/cb'))}, MixUp with the same seeds {one_digit(of_mixup)}",
        f"it has {in_words(paired(accuracies, shuffled, 'no-lag/baseline'))}, and with seed 0",
        f"the rare classes fall from {rare['no-lag/baseline']} to {rare[shuffled]} %",
        *(words.format(span) for words, span in ranges.items()),
        f"{rare['no-lag/cutmix/cb/tail/drawn']} % against {rare[everywhere]} everywhere with a drawn lambda",
        f"{rare['no-lag/cutmix/cb/tail/fixed']} against {rare['no-lag/cutmix/cb/all/fixed']} with a fixed one",
        f"{rare['no-lag/cb']} without CutMix",
        f"With the lag the eight lie at {lagged[0]:.1f} to {lagged[-1]:.1f} %",
    ):
        assert words in PROSE, words
