"""The numbers in docs/long-tail.md are those of the packed study beside it, computed anew."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ablation.report.frames import packed

DOCS = Path(__file__).parent.parent / "docs"
PROSE = " ".join((DOCS / "long-tail.md").read_text(encoding="utf-8").split())
COLUMNS = {  # the heading of a column -> what stands before the arm's name, and the metric
    "best epoch": ("best-epoch/", "test/accuracy"),
    "last epoch": ("", "test/accuracy"),
    "many": ("", "test/many"),
    "medium": ("", "test/medium"),
    "few": ("", "test/few"),
}


@pytest.fixture(scope="module")
def values():
    """(arm, metric) -> seed -> percent, of the runs that are finished."""
    runs = packed.read(DOCS / "long-tail" / "cifar10-lt-night.zip").runs
    done = runs[runs["status"] == "FINISHED"]
    metrics = {metric for _, metric in COLUMNS.values()}
    return {
        (arm, metric): dict(zip(rows["seed"], 100 * rows[metric], strict=True)) for arm, rows in done.groupby("arm") for metric in metrics
    }


def rows():
    """Of each row of the table: the arm, and the cells by their column's heading."""
    lines = [line for line in (DOCS / "long-tail.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row in cells:
        yield re.search(r"`([\w-]+)`", row[0])[1], dict(zip(header, row, strict=True))


def in_words(numbers, sign=""):
    """The mean, with the standard deviation where there are several."""
    spread = f" ± {np.std(numbers, ddof=1):.2f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):{sign}.2f}{spread}" if numbers else ""


def test_the_table_has_the_numbers_of_the_study(values):
    """Mean and deviation over the seeds that are named; differences to cross-entropy are paired by seed."""
    ce, checked = values["ce", "test/accuracy"], 0
    for arm, cells in rows():
        last = values[arm, "test/accuracy"]
        assert cells["seeds"] == ", ".join(map(str, sorted(last)))
        for heading, (before, metric) in COLUMNS.items():
            assert cells[heading] == in_words(list(values.get((f"{before}{arm}", metric), {}).values())), (arm, heading)
            checked += 1
        paired = [last[seed] - ce[seed] for seed in last.keys() & ce.keys()] if arm != "ce" else []
        assert cells["vs ce"] == in_words(paired, sign="+"), arm
    assert checked == 25


def test_the_order_is_the_published_one_with_each_seed(values):
    """Cross-entropy, cRT, balanced softmax, LDAM-DRW, by the best epoch and by the last."""
    for before in ("", "best-epoch/"):
        arms = [values[f"{before}{arm}", "test/accuracy"] for arm in ("ce", "crt", "balanced-softmax", "ldam-drw")]
        for seed in arms[0]:
            assert sorted(arms, key=lambda arm: arm[seed]) == arms, (before, seed)


def test_the_text_has_the_differences_of_the_study(values):
    """How far the best epochs are from the published ones, what is gained in the tail and lost at the head, and the open difference."""

    def mean(arm, metric="test/accuracy"):
        return np.mean(list(values[arm, metric].values()))

    ce, crt, softmax, ldam = (mean(f"best-epoch/{arm}") for arm in ("ce", "crt", "balanced-softmax", "ldam-drw"))
    far = f"cross-entropy {70.36 - ce:.1f} below, cRT {crt - 74.99:.1f} above, balanced softmax {77.54 - softmax:.1f} and LDAM-DRW"
    balanced = ("crt", "balanced-softmax", "ldam-drw", "logit-adjustment")
    few, many = ([abs(mean(arm, metric) - mean("ce", metric)) for arm in balanced] for metric in ("test/few", "test/many"))
    ours, theirs = (values[arm, "test/accuracy"] for arm in ("ldam-drw", "balanced-softmax"))
    difference = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    low, high = difference.confidence_interval()
    for words in (
        f"{far} {77.73 - ldam:.1f} below",
        f"gains {mean('logit-adjustment') - mean('ce'):.1f} points on cross-entropy",
        f"the rare classes gain {min(few):.0f} to {max(few):.0f} points, the frequent ones lose {min(many):.0f} to {max(many):.0f}",
        f"{mean('ldam-drw') - mean('balanced-softmax'):+.1f} ({low:+.1f} to {high:+.1f}) on balanced softmax",
    ):
        assert words in PROSE, words
