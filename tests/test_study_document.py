"""The numbers in docs/study.md are those of the packed study beside it, computed anew."""

import itertools
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
    "EMA, decay 0.9999": "",
    "with the lag": "",
    "weights as trained": "no-lag/",
    "without": "no-lag/",
    "EMA with warm-up": "warm/",
    "EMA, decay 0.999": "shorter/",
}
OF_SEED_ZERO = {  # the heading of a column in a table of seed 0 -> the condition and the metric
    "accuracy": ("no-lag/", "accuracy"),
    "frequent": ("no-lag/", "many"),
    "medium": ("no-lag/", "medium"),
    "rare": ("no-lag/", "few"),
    "calibration error": ("no-lag/", "ece"),
    "accuracy with the lag": ("", "accuracy"),
}
GROUPS = ("few", "medium", "many")
RUNGS = ("baseline", "cb", "mixup", "ls", "tta")
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
    ("decoupled/modified", "decoupled/balanced-softmax"),
    *((f"{condition}cb", f"{condition}baseline") for condition in ("", "no-lag/")),
    *((f"{condition}mixup", f"{condition}cb") for condition in ("", "no-lag/")),
    *((f"{condition}ls", f"{condition}mixup") for condition in ("", "no-lag/", "shorter/")),
    *((f"{condition}tta", f"{condition}ls") for condition in ("", "no-lag/", "warm/")),
    *((f"{condition}decoupling", f"{condition}tta") for condition in ("", "no-lag/")),
    *((f"{condition}decoupling", f"{condition}without-tta") for condition in ("", "no-lag/")),
]


@pytest.fixture(scope="module")
def runs():
    """The finished runs, a row each."""
    table = packed.read(DOCS / "study" / "reports-32.zip").runs
    return table[table["status"] == "FINISHED"]


@pytest.fixture(scope="module")
def accuracies(runs):
    """arm -> seed -> test accuracy in percent."""
    return {arm: dict(zip(rows["seed"], 100 * rows["test/accuracy"], strict=True)) for arm, rows in runs.groupby("arm")}


@pytest.fixture(scope="module")
def of_seed_zero(runs):
    """A metric on the test images of an arm with seed 0, in percent."""
    table = runs[runs["seed"] == 0].set_index("arm")
    return lambda arm, metric: 100 * table.loc[arm, f"test/{metric}"]


def paired(accuracies, arm, partner):
    """The differences in points, by seed."""
    seeds = sorted(accuracies[arm].keys() & accuracies[partner].keys())
    return np.array([accuracies[arm][seed] - accuracies[partner][seed] for seed in seeds])


def gain(accuracies, arm, partner):
    """The mean difference without its sign, to one digit."""
    return one_digit(paired(accuracies, arm, partner).mean())[1:]


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


def assert_in_text(*phrases):
    """Each of these stands in the text, however its lines are broken."""
    assert [words for words in phrases if words not in PROSE] == []


# --- tables ---------------------------------------------------------------------------------------------------------------------


def test_the_tables_have_the_means_of_the_study(accuracies):
    """Every cell with an accuracy is mean and standard deviation over the seeds of that arm in that condition."""
    checked = 0
    for arm, cells in [row for row in rows("arm") if "against" not in row[1]]:
        for heading in cells.keys() & CONDITIONS.keys():
            values = list(accuracies[f"{CONDITIONS[heading]}{arm}"].values())
            assert cells[heading] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}", (arm, heading)
            checked += 1
    assert checked >= 40


def test_the_tables_of_seed_zero_have_its_numbers(of_seed_zero):
    """Every cell is that metric of that arm's run with seed 0."""
    checked = 0
    for arm, cells in [row for row in rows("arm") if "calibration error" in row[1]]:
        for heading, (condition, metric) in OF_SEED_ZERO.items():
            assert cells[heading] == one_digit(of_seed_zero(f"{condition}{arm}", metric))[1:], (arm, heading)
            checked += 1
    assert checked >= 180


def test_the_questions_have_the_differences_of_the_study(accuracies):
    """Each row has the arm against its partner, with the lag and without."""
    checked = 0
    for partner, cells in rows("against"):
        arm = re.search(r"`([\w./-]+)`", cells["arm"])[1]
        for heading in ("with the lag", "without"):
            condition = CONDITIONS[heading]
            assert cells[heading] == in_words(paired(accuracies, f"{condition}{arm}", f"{condition}{partner}")), (arm, heading)
            checked += 1
    assert checked >= 40


@pytest.mark.parametrize(("arm", "partner"), INTERVALS)
def test_the_text_has_the_intervals_of_the_study(accuracies, arm, partner):
    """The mean difference with its 95 % t interval over seeds stands in the text."""
    assert_in_text(in_words(paired(accuracies, arm, partner)))


def test_the_table_of_mixup_is_in_the_order_of_what_is_mixed_in(accuracies, of_seed_zero):
    """The mean weight of the image with the smaller one; accuracy and calibration only get worse with it."""
    table = {arm: cells for arm, cells in rows("arm") if "mixed in" in cells}
    weights = {"cb": 0.0, "lambda/0.2": 0.2, "lambda/0.4": 0.4}
    weights |= {arm: mean_smaller_weight(alpha) for arm, alpha in (("alpha/0.2", 0.2), ("mixup", 0.4), ("alpha/1.0", 1.0))}
    assert list(table) == sorted(weights, key=weights.get)
    assert list(table) == sorted(weights, key=lambda arm: -accuracies[f"no-lag/{arm}"][0])
    assert list(table) == sorted(weights, key=lambda arm: of_seed_zero(f"no-lag/{arm}", "ece"))
    assert {arm: cells["mixed in"] for arm, cells in table.items()} == {
        arm: f"{weight:.2f}" if weight else "0" for arm, weight in weights.items()
    }
    lost = {name: of_seed_zero("no-lag/cb", name) - of_seed_zero("no-lag/lambda/0.4", name) for name in ("many", "medium", "few")}
    assert max(lost, key=lost.get) == "medium"


def mean_smaller_weight(alpha):
    """The mean of the lesser of lambda and 1 - lambda, where lambda is drawn from Beta(alpha, alpha)."""
    return stats.beta(alpha, alpha).expect(lambda share: np.minimum(share, 1 - share))


# --- what the text says -----------------------------------------------------------------------------------------------------------


def test_the_text_has_what_the_lag_costs(accuracies, of_seed_zero, runs):
    """On each rung, by the other averages, and in groups of classes."""
    costs = [paired(accuracies, f"no-lag/{arm}", arm).mean() for arm in RUNGS]
    (cb, mixup, ls, tta), (plain_cb, plain_mixup, plain_ls, plain_tta) = (
        [gain(accuracies, f"{condition}{arm}", f"{condition}{below}") for below, arm in itertools.pairwise(RUNGS)]
        for condition in ("", "no-lag/")
    )
    off = {
        condition: max(abs(paired(accuracies, f"{condition}{arm}", f"no-lag/{arm}").mean()) for arm in arms)
        for condition, arms in (("warm/", (*RUNGS, "decoupling")), ("shorter/", RUNGS))
    }
    changed = [
        in_words(paired(accuracies, arm, below) - paired(accuracies, f"no-lag/{arm}", f"no-lag/{below}"))
        for below, arm in itertools.pairwise(RUNGS)
    ]
    restarted = ("decoupled/modified", "decoupled/balanced-softmax", "average-restarted", "decoupling")
    below = [one_digit(paired(accuracies, f"no-lag/{arm}", arm).mean())[1:] for arm in restarted]
    assert_in_text(
        f"The lag costs {min(costs):.1f} to {max(costs):.1f} points on every rung",
        f"Class-balanced sampling gains {cb} instead of {plain_cb}, a difference of {changed[0]}, and MixUp loses {mixup} instead of "
        f"{plain_mixup}, {changed[1]}. Label smoothing loses {ls} instead of {plain_ls}, {changed[2]}.",
        f"TTA gains {tta} instead of {plain_tta}, which is open: {changed[3]}.",
        f"Three of them are {min(below)} to {max(below[:3])} points below",
        f"that of `decoupling` {below[3]}.",
        f"within {off['warm/']:.2f} points of those of the weights as trained",
        f"A decay of 0.999 is within {off['shorter/']:.2f} points",
    )


def test_the_text_has_what_the_lag_costs_rare_classes(runs):
    """How much of the accuracy of the weights as trained their average keeps, in groups and for the rare classes."""
    means = runs.groupby("arm")[[name for name in runs if name.startswith(("test/recall/", "test/few", "test/medium", "test/many"))]].mean()
    averaged, trained = (100 * means.loc[arm] for arm in ("baseline", "no-lag/baseline"))
    kept = {name.rpartition("/")[2]: f"{100 * share:.0f} %" for name, share in (averaged / trained).items()}
    lost = trained - averaged
    seed_one = runs[runs["seed"] == 1].set_index("arm")
    of_seed_one = {name: (seed_one.loc["baseline", f"test/{name}"], seed_one.loc["no-lag/baseline", f"test/{name}"]) for name in GROUPS}
    assert max(GROUPS, key=lambda name: of_seed_one[name][1] - of_seed_one[name][0]) == "medium"
    assert min(GROUPS, key=lambda name: of_seed_one[name][0] / of_seed_one[name][1]) == "medium"
    trucks = runs.pivot(index="seed", columns="arm", values="test/recall/truck")
    shares = 100 * trucks["baseline"] / trucks["no-lag/baseline"]
    assert_in_text(
        f"EMA keeps {kept['few']} of the accuracy on the rare classes ({averaged['test/few']:.2f} of {trained['test/few']:.2f} %), "
        f"{kept['medium']} on the medium and {kept['many']} on the frequent ones.",
        f"the rare ones lose {lost['test/few']:.1f}, the frequent ones {lost['test/many']:.1f}.",
        f"truck keeps {shares.min():.0f} to {shares.max():.0f} %.",
    )


def test_every_decoupled_loss_is_below_the_restart(accuracies):
    """With the lag each of the six has less than the restart alone, in an interval without zero."""
    losses = [paired(accuracies, f"decoupled/{name}", "average-restarted") for name in SECOND_STAGES]
    assert all(stats.ttest_1samp(differences, 0).confidence_interval().high < 0 for differences in losses)
    smallest, largest = min(-one.mean() for one in losses), max(-one.mean() for one in losses)
    gains, shorter = (
        [paired(accuracies, f"{condition}decoupled/{name}", f"{condition}baseline").mean() for name in SECOND_STAGES]
        for condition in ("", "shorter/")
    )
    corrected = [
        gain(accuracies, f"no-lag/decoupled/{name}", "no-lag/baseline") for name in SECOND_STAGES if name not in ("plain", "focal")
    ]
    assert_in_text(
        f"by {smallest:.1f} to {largest:.1f}",
        f"the six losses gain {min(gains):.1f} to {max(gains):.1f} points",
        f"they lose {min(corrected)} to {max(corrected)}.",
        f"all six lie {one_digit(min(shorter))} to {one_digit(max(shorter))} from the baseline",
    )


def test_the_text_has_what_the_best_epoch_is_worth(accuracies):
    """On the rungs, in the mean of three seeds; with the lag it is the last epoch."""
    rungs = (*RUNGS, "decoupling")
    worth = [paired(accuracies, f"best-no-lag/{arm}", f"no-lag/{arm}") for arm in rungs]
    assert {len(differences) for differences in worth} == {3}
    means = [differences.mean() for differences in worth]
    assert_in_text(f"it is worth {one_digit(min(means))} to {one_digit(max(means))} points on the rungs")
    assert all((paired(accuracies, f"as-published/{arm}", arm) == 0).all() for arm in rungs)


def test_the_text_has_why_decoupling_loses(accuracies):
    """What each part of the step to decoupling is worth."""
    rates = [paired(accuracies, f"no-lag/stage-two-lr/{rate}", "no-lag/decoupling") for rate in ("1e-05", "0.001", "0.01")]
    assert [len(one) for one in rates] == [3, 3, 3]
    whole, plain = (
        [one_digit(paired(accuracies, f"{condition}{arm}", f"{condition}baseline").mean()) for condition in ("", "no-lag/")]
        for arm in ("all-restarted", "decoupled/plain")
    )
    assert_in_text(
        f"decoupling gains {gain(accuracies, 'no-lag/stage-one-balanced', 'no-lag/decoupling')}, and has",
        f"decoupling has {gain(accuracies, 'no-lag/stage-one-without-mixup', 'no-lag/decoupling')} more (two seeds)",
        f"(`cb` against `mixup`: +{gain(accuracies, 'no-lag/cb', 'no-lag/mixup')})",
        f"With five epochs less decoupling loses {gain(accuracies, 'no-lag/stage-one/15', 'no-lag/decoupling')}.",
        f"it is still {gain(accuracies, 'no-lag/stage-one/25', 'no-lag/tta')} below `tta`, which trained 30 (two seeds)",
        f"No rate gains more than {one_digit(max(one.mean() for one in rates))[1:]} points",
        f"A backbone in evaluation mode costs {gain(accuracies, 'no-lag/backbone-trains', 'no-lag/decoupling')}.",
        f"({whole[0]}; `decoupled/plain` {plain[0]}), and little without ({whole[1]}; {plain[1]}).",
    )


def test_the_text_has_what_cutmix_costs(accuracies, runs):
    """Beside MixUp, in groups of classes over three seeds, and by the forms of seed 0."""
    forms = ("all/drawn", "all/fixed", "tail/drawn", "tail/fixed")
    of = {arm.removeprefix("no-lag/"): by_seed[0] for arm, by_seed in accuracies.items() if arm.startswith("no-lag/") and 0 in by_seed}
    sampled = [of[f"cutmix/cb/{form}"] - of[f"cutmix/shuffled/{form}"] for form in forms]
    fixed = [of[f"cutmix/{form}/drawn"] - of[f"cutmix/{form}/fixed"] for form in ("cb/all", "cb/tail", "shuffled/all", "shuffled/tail")]
    arms = ("no-lag/cutmix/cb/tail/drawn", "no-lag/cutmix/cb/all/drawn", "no-lag/cb")
    few, many = ([100 * runs[runs["arm"] == arm][f"test/{name}"].mean() for arm in arms] for name in ("few", "many"))
    assert [len(accuracies[arm]) for arm in arms] == [3, 3, 3]
    assert few == sorted(few)
    rare = {arm: dict(zip(rows["seed"], 100 * rows["test/few"], strict=True)) for arm, rows in runs.groupby("arm")}
    on_rare = [
        in_words(paired(rare, f"{condition}cutmix/cb/tail/drawn", f"{condition}cutmix/cb/all/drawn")) for condition in ("no-lag/", "")
    ]
    for condition in ("", "no-lag/"):  # which of the two is better is open
        differences = paired(accuracies, f"{condition}cutmix/cb/tail/drawn", f"{condition}cutmix/cb/all/drawn")
        assert stats.ttest_1samp(differences, 0).pvalue > 0.05
    for form in ("drawn", "fixed"):  # shuffled, with seed 0, the two are closer
        assert abs(rare[f"no-lag/cutmix/shuffled/tail/{form}"][0] - rare[f"no-lag/cutmix/shuffled/all/{form}"][0]) < 3.5
    assert_in_text(
        f"{gain(accuracies, arms[1], arms[2])} against {gain(accuracies, 'no-lag/mixup', arms[2])} points on top of",
        f"with seed 0 the two differ by {one_digit(of['mixup'] - of['cutmix/cb/all/drawn'])[1:]} points, and by "
        f"{one_digit(of['alpha/1.0'] - of['cutmix/cb/all/drawn'])[1:]} where",
        f"takes more from the rare classes than everywhere**, {on_rare[0]}.",
        f"they have {few[2]:.1f} % without CutMix, {few[1]:.1f} with CutMix everywhere and {few[0]:.1f} with it on rare pairs;",
        f"the frequent ones {many[2]:.1f}, {many[1]:.1f} and {many[0]:.1f}.",
        f"With the lag it is the reverse: {on_rare[1]}.",
        f"gains {one_digit(min(sampled))[1:]} to {one_digit(max(sampled))[1:]} points with each form of CutMix, and "
        f"{one_digit(of['cb'] - of['baseline'])[1:]} without.",
        f"A fixed lambda costs {one_digit(min(fixed))[1:]} to {one_digit(max(fixed))[1:]}.",
    )


def test_what_the_text_says_of_smoothing_and_views_holds(accuracies, of_seed_zero):
    """With seed 0 no epsilon gains, and each costs calibration; flips gain, rotation loses; with the lag all views gain."""
    epsilons = ("mixup", "epsilon/0.05", "epsilon/0.1", "ls", "epsilon/0.3")
    apart = [max(values) - min(values) for values in (accuracies["no-lag/mixup"].values(), accuracies["no-lag/ls"].values())]
    of_epsilons = [accuracies[f"no-lag/{arm}"][0] for arm in epsilons]
    assert_in_text(
        f"The differences, {max(of_epsilons) - min(of_epsilons):.1f} points at most, are as small as those between seeds "
        f"({apart[0]:.1f} for `mixup`, {apart[1]:.1f} for `ls`)."
    )
    assert max(epsilons, key=lambda arm: accuracies[f"no-lag/{arm}"][0]) == max(epsilons, key=lambda arm: accuracies[arm][0]) == "mixup"
    assert list(epsilons) == sorted(epsilons, key=lambda arm: of_seed_zero(f"no-lag/{arm}", "ece"))
    views = ("tta", "views/vflip", "views/flips", "views/rotate", "views/scale")
    trained, lagged = ({arm: accuracies[f"{of}{arm}"][0] - accuracies[f"{of}ls"][0] for arm in views} for of in ("no-lag/", ""))
    assert min(trained[arm] for arm in views[:3]) > 0.8
    assert trained["views/rotate"] < -2
    assert abs(trained["views/scale"]) < 0.3
    assert max(lagged, key=lagged.get) == "views/rotate"
    assert min(lagged.values()) > 1
    rotated = [of_seed_zero("views/rotate", name) - of_seed_zero("ls", name) for name in ("many", "medium", "few")]
    assert rotated[0] > 10
    assert max(rotated[1:]) < 0.1


def test_the_text_says_that_reweighting_by_a_sampler_is_sampling(accuracies):
    """Trained by itself it has the same accuracies."""
    for condition in ("", "no-lag/"):
        assert accuracies[f"{condition}reweight"] == {0: accuracies[f"{condition}cb"][0]}
    assert_in_text(f"it has the same {accuracies['reweight'][0]:.2f} and {accuracies['no-lag/reweight'][0]:.2f} %")


def test_the_text_has_what_each_rung_is_worth(accuracies):
    """Left out of `tta` beside what it adds in the ladder; without MixUp it has the most of all arms."""
    without = {rung: f"no-lag/tta/without-{rung}" for rung in ("cb", "mixup", "ls")}
    means = {arm: np.mean(list(by_seed.values())) for arm, by_seed in accuracies.items()}
    here = [gain(accuracies, arm, "no-lag/tta") for arm in without.values()]
    cb, mixup = (gain(accuracies, f"no-lag/{arm}", f"no-lag/{below}") for below, arm in itertools.pairwise(RUNGS[:3]))
    assert_in_text(
        f"gains {here[0]} points on top of MixUp, smoothing and TTA, and {cb} on the baseline.",
        f"MixUp costs {here[1]} without the lag, and {mixup} in the ladder.",
        f"though in the ladder it costs {gain(accuracies, 'mixup', 'cb')}.",
        f"without it have {means[without['mixup']]:.1f} %, the most of all arms; `cb` has {means['no-lag/cb']:.1f} without TTA",
        f"With the lag it costs {gain(accuracies, 'ls', 'mixup')} in both.",
    )
    assert gain(accuracies, "ls", "mixup") == gain(accuracies, "tta/without-ls", "tta")
    assert np.abs(paired(accuracies, "tta/without-mixup", "tta")).max() < 0.5
    for arm, partner in ((without["ls"], "no-lag/tta"), ("no-lag/ls", "no-lag/mixup")):
        assert stats.ttest_1samp(paired(accuracies, arm, partner), 0).pvalue > 0.05
    assert max(means, key=means.get) == without["mixup"]
