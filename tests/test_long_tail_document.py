"""The numbers in docs/long-tail.md are those of the packed study beside it, computed anew."""

import math
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
def recorded():
    return packed.read(DOCS / "long-tail" / "cifar10-lt-night.zip")


@pytest.fixture(scope="module")
def values(recorded):
    """(arm, metric) -> seed -> percent, of the runs that are finished."""
    runs = recorded.runs
    done = runs[runs["status"] == "FINISHED"]
    metrics = {"test/ece", "test/worst", *(metric for _, metric in COLUMNS.values())}
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
    """The mean, with the standard deviation where there are several; exact halves are rounded up, as in the report."""
    numbers = np.asarray(numbers) + 1e-9
    spread = f" ± {np.std(numbers, ddof=1):.2f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):{sign}.2f}{spread}" if len(numbers) else ""


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
    """What is gained and lost, how far it is from what is published, and what is open."""

    def mean(arm, metric="test/accuracy"):
        return np.mean(list(values[arm, metric].values()))

    def gap(arm, other):
        theirs = values[other, "test/accuracy"]
        differences = [value - theirs[seed] for seed, value in values[arm, "test/accuracy"].items()]
        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
        return f"{np.mean(differences):+.2f} ({low:+.2f} to {high:+.2f})"

    trained, balanced = ("crt", "balanced-softmax", "ldam-drw"), ("crt", "balanced-softmax", "ldam-drw", "logit-adjustment")
    ce, crt, softmax, ldam = (mean(f"best-epoch/{arm}") for arm in ("ce", *trained))
    few, many = ([abs(mean(arm, metric) - mean("ce", metric)) for arm in balanced] for metric in ("test/few", "test/many"))
    apart = {
        before: max(np.ptp(list(by_seed.values())) for (arm, metric), by_seed in values.items() if metric == "test/accuracy" and is_of(arm))
        for before, is_of in (("", lambda arm: "/" not in arm), ("best", lambda arm: "/" in arm))
    }
    spans = [many - values["ldam-drw", "test/few"][seed] for seed, many in values["ldam-drw", "test/many"].items()]
    worth = [mean(f"best-epoch/{arm}") - mean(arm) for arm in ("ce", *trained)]
    wrong = sorted(mean(arm, "test/ece") for arm in balanced)
    for words in (
        f"the rare classes gain {min(few):.0f} to {max(few):.0f} points on average",
        f"and the frequent ones lose {min(many):.0f} to {max(many):.0f}",
        f"the others lie within {math.ceil(10 * (ldam - crt)) / 10:.1f} points by their best epochs",
        f"cross-entropy is {70.36 - ce:.1f} below its published figure on average, cRT {crt - 74.99:.1f} above",
        f"balanced softmax {77.54 - softmax:.1f} and LDAM-DRW {77.73 - ldam:.1f} below",
        f"{crt - ce:.1f} for cRT (4.6), {softmax - ce:.1f} for balanced softmax (7.2) and {ldam - ce:.1f} for LDAM-DRW (7.4)",
        f"trains nothing, gains {mean('logit-adjustment') - mean('ce'):.1f}",
        f"worth {worth[1]:.1f} points to cRT, whose head trains nine epochs more, and {min(worth):.1f} to {sorted(worth)[-2]:.1f} to the",
        f"LDAM-DRW has {gap('ldam-drw', 'balanced-softmax')} on balanced softmax, post-hoc adjustment "
        f"{gap('logit-adjustment', 'balanced-softmax')}",
        f"({min(spans):.1f} to {max(spans):.1f} points by the seed)",
        f"({mean('ldam-drw', 'test/worst'):.1f} %; balanced softmax {mean('balanced-softmax', 'test/worst'):.1f}, "
        f"post-hoc adjustment {mean('logit-adjustment', 'test/worst'):.1f})",
        f"(ECE {wrong[-1]:.1f} and {mean('ce', 'test/ece'):.1f} %; the others {wrong[0]:.1f} to {wrong[-2]:.1f})",
        f"lie up to {apart['']:.1f} points apart within an arm by the last epoch, and up to {apart['best']:.1f} by the best",
        f"({gap('crt', 'logit-adjustment').replace(' (', ', ').removesuffix(')')}, against post-hoc adjustment)",
    ):
        assert words in PROSE, words


def test_late_in_its_first_stage_ldam_is_behind_cross_entropy(recorded):
    """The means of epochs 41 to 48 on the test images, seed by seed."""
    late, epochs = {}, {}
    for run in recorded.runs.itertuples():
        points = recorded.curves([run.run_id])
        watched = points[points["metric"] == "watched/test/accuracy"].sort_values("step")["value"]
        epochs[run.arm, run.seed] = 100 * watched.to_numpy()[40:48]
        late[run.arm, run.seed] = epochs[run.arm, run.seed].mean() if len(watched) else None
    ahead = sum(int((epochs["best-epoch/ldam-drw", seed] > epochs["best-epoch/ce", seed]).sum()) for seed in (0, 1, 2))
    told = [f"{late['best-epoch/ldam-drw', seed]:.1f} against {late['best-epoch/ce', seed]:.1f} %" for seed in (0, 1, 2)]
    assert f"({', '.join(told[:2])} and {told[2]}; in single epochs it is in {ahead} of these 24)" in PROSE
    assert all(late["best-epoch/ldam-drw", seed] < late["best-epoch/ce", seed] for seed in (0, 1, 2))


def test_what_holds_with_each_seed(values):
    """Of the gains by the best epoch those of cRT alone are above the published ones; cRT is the lowest of the four by the last epoch."""
    best = {arm: values[f"best-epoch/{arm}", "test/accuracy"] for arm in ("ce", "crt", "balanced-softmax", "ldam-drw")}
    published = {"crt": 74.99 - 70.36, "balanced-softmax": 77.54 - 70.36, "ldam-drw": 77.73 - 70.36}
    above = {arm: [seed for seed in (0, 1, 2) if best[arm][seed] - best["ce"][seed] > gain] for arm, gain in published.items()}
    assert above == {"crt": [0, 1, 2], "balanced-softmax": [0, 1], "ldam-drw": [0, 1]}
    gains = {arm: best[arm][2] - best["ce"][2] for arm in published}
    words = f"those of balanced softmax ({gains['balanced-softmax']:.1f}) and LDAM-DRW ({gains['ldam-drw']:.1f}) are not"
    assert f"where cross-entropy is {70.36 - best['ce'][2]:.1f} below its figure, {words}" in PROSE
    last = [values[arm, "test/accuracy"] for arm in ("crt", "balanced-softmax", "ldam-drw", "logit-adjustment")]
    assert all(min(last, key=lambda arm: arm[seed]) is last[0] for seed in (0, 1, 2))
    differences = [last[2][seed] - last[1][seed] for seed in (0, 1, 2)]
    assert f"with each seed, by {min(differences):.1f} to {max(differences):.1f} points, which three seeds do not confirm" in PROSE
