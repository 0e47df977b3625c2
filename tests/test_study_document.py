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
GROUPS = ("many", "medium", "few")
VIEWS = ("tta", "views/vflip", "views/flips", "views/rotate", "views/scale")
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


@pytest.fixture(scope="module")
def of_seed_zero():
    """A metric of an arm with seed 0, in percent."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    table = runs[runs["seed"] == 0].set_index("arm")
    return lambda arm, metric: 100 * table.loc[arm, metric]


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


def test_the_text_has_what_cutmix_costs(accuracies):
    """By the weights as trained, with the sampling and without, beside MixUp in the same seeds."""
    everywhere, shuffled = "no-lag/cutmix/cb/all/drawn", "no-lag/cutmix/shuffled/all/drawn"
    of_mixup = np.mean([accuracies["no-lag/mixup"][seed] - accuracies["no-lag/cb"][seed] for seed in accuracies[everywhere]])
    of_seed = {arm: by_seed[0] for arm, by_seed in accuracies.items() if 0 in by_seed}
    strong, weak = "no-lag/alpha/1.0", "no-lag/mixup"
    fixed = of_seed["no-lag/cutmix/cb/all/fixed"] - of_seed["no-lag/lambda/0.4"]
    for words in (
        f"it has {in_words(paired(accuracies, everywhere, 'no-lag/cb'))}, MixUp in the same seeds {one_digit(of_mixup)}.",
        f"{one_digit(of_seed[weak] - of_seed[strong])[1:]} of the {one_digit(of_seed[weak] - of_seed[everywhere])[1:]} between them",
        f"There the two differ by {one_digit(of_seed[strong] - of_seed[everywhere])[1:]}:",
        f"CutMix with a lambda of 0.5 is {one_digit(fixed)[1:]} above MixUp with 0.4.",
        f"Without the sampling CutMix alone has {in_words(paired(accuracies, shuffled, 'no-lag/baseline'))},",
    ):
        assert words in PROSE, words


def test_the_text_has_what_cutmix_on_rare_pairs_does_to_groups(accuracies):
    """The mean over three seeds of the rare and the frequent classes: on rare pairs, everywhere, and without CutMix."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    arms = ("no-lag/cutmix/cb/tail/drawn", "no-lag/cutmix/cb/all/drawn", "no-lag/cb")
    few, many = ([100 * runs[runs["arm"] == arm][f"test/{name}"].mean() for arm in arms] for name in ("few", "many"))
    assert [len(accuracies[arm]) for arm in arms] == [3, 3, 3]
    costs = [-paired(accuracies, arm, arms[2]).mean() for arm in arms[:2]]
    for words in (
        f"they have {few[0]:.1f} % so, {few[1]:.1f} with CutMix everywhere and {few[2]:.1f} without it;",
        f"the frequent ones {many[0]:.1f}, {many[1]:.1f} and {many[2]:.1f}.",
        f"the two forms cost {costs[0]:.1f} and {costs[1]:.1f}.",
    ):
        assert words in PROSE, words
    assert few == sorted(few)


def test_the_text_has_what_cutmix_and_mixup_do_to_groups(of_seed_zero):
    """Of seed 0, with an alpha of 1.0 each: MixUp is better on the frequent and the rare classes, CutMix on the medium ones."""
    (mixup, cutmix), names = ("no-lag/alpha/1.0", "no-lag/cutmix/cb/all/drawn"), ("many", "few", "medium")
    better = {name: (mixup, cutmix) if name != "medium" else (cutmix, mixup) for name in names}
    numbers = [tuple(of_seed_zero(arm, f"test/{name}") for arm in better[name]) for name in names]
    assert all(first > second for first, second in numbers)
    many, few, medium = ([f"{number:.1f}" for number in pair] for pair in numbers)
    assert f"({many[0]} against {many[1]}) and on the rare ones ({few[0]} against {few[1]}), CutMix on the medium ones" in PROSE
    assert f"CutMix on the medium ones ({medium[0]} against {medium[1]})" in PROSE


def test_the_text_has_what_mixup_costs_by_how_much_it_mixes(accuracies, of_seed_zero):
    """Of seed 0, by the mean share of the lesser image; by the weights as trained accuracy and calibration only get worse."""
    shares = {"cb": 0.0, **{arm: mean_share(alpha) for arm, alpha in (("alpha/0.2", 0.2), ("mixup", 0.4), ("alpha/1.0", 1.0))}}
    shares |= {"lambda/0.2": 0.2, "lambda/0.4": 0.4}
    trained = {arm: accuracies[f"no-lag/{arm}"][0] for arm in shares}
    errors = {arm: of_seed_zero(f"no-lag/{arm}", "test/ece") for arm in shares}
    by_share = sorted(shares, key=shares.get)
    assert by_share == sorted(trained, key=trained.get, reverse=True) == sorted(errors, key=errors.get)
    lagged = [one_digit(accuracies[arm][0])[1:] for arm in shares]
    many = [f"{of_seed_zero(f'no-lag/{arm}', 'test/many'):.1f}" for arm in ("cb", "alpha/0.2", "mixup")]
    medium, few = (of_seed_zero("no-lag/cb", name) - of_seed_zero("no-lag/mixup", name) for name in ("test/medium", "test/few"))
    numbers = {arm: one_digit(accuracy)[1:] for arm, accuracy in trained.items()}
    for words in (
        f"without it {numbers['cb']} %, with an alpha of 0.2, 0.4 and 1.0 {numbers['alpha/0.2']}, {numbers['mixup']} and",
        f"0.4 and 1.0 {numbers['alpha/0.2']}, {numbers['mixup']} and {numbers['alpha/1.0']}, with a lambda",
        f"with a lambda fixed at 0.2 and 0.4 {numbers['lambda/0.2']} and {numbers['lambda/0.4']}.",
        f"({shares['alpha/0.2']:.2f}, {shares['mixup']:.2f} and {shares['alpha/1.0']:.2f} for the alphas, 0.20 and 0.40 for the lambdas)",
        f"from {errors['cb']:.1f} to {errors['lambda/0.4']:.1f} %.",
        f"the frequent classes lose nothing ({', '.join(many)}), the medium ones {medium:.1f}, the rare ones {few:.1f}.",
        f"With the lag the six accuracies are {', '.join(lagged[:-1])} and {lagged[-1]}.",
    ):
        assert words in PROSE, words


def mean_share(alpha):
    """The mean of the lesser of lambda and 1 - lambda, where lambda is drawn from Beta(alpha, alpha)."""
    return stats.beta(alpha, alpha).expect(lambda share: np.minimum(share, 1 - share))


def test_the_text_has_the_eight_forms_of_cutmix(accuracies):
    """Of seed 0, by the weights as trained but for the last: what the sampling, the lambda and the pairs change."""
    of = {arm.removeprefix("no-lag/cutmix/"): by_seed[0] for arm, by_seed in accuracies.items() if "no-lag/cutmix/" in arm}
    lagged = {arm.removeprefix("cutmix/"): by_seed[0] for arm, by_seed in accuracies.items() if arm.startswith("cutmix/")}
    sampled = [of[f"cb/{form}"] - of[f"shuffled/{form}"] for form in ("all/drawn", "all/fixed", "tail/drawn", "tail/fixed")]
    fixed = [of[f"{form}/drawn"] - of[f"{form}/fixed"] for form in ("cb/all", "cb/tail", "shuffled/all", "shuffled/tail")]
    drawn_less, fixed_less = (of[f"cb/tail/{form}"] - of[f"cb/all/{form}"] for form in ("drawn", "fixed"))
    shuffled_less = [of[f"shuffled/tail/{form}"] - of[f"shuffled/all/{form}"] for form in ("drawn", "fixed")]
    turned = [one_digit(lagged[f"cb/tail/{form}"] - lagged[f"cb/all/{form}"]) for form in ("drawn", "fixed")]
    plain = accuracies["no-lag/cb"][0] - accuracies["no-lag/baseline"][0]
    for words in (
        f"the sampling gains {one_digit(min(sampled))[1:]} to {one_digit(max(sampled))[1:]} points in the four pairs",
        f"({one_digit(plain)[1:]} without CutMix)",
        f"a lambda fixed at 0.5 costs {one_digit(min(fixed))[1:]} to {one_digit(max(fixed))[1:]}",
        f"CutMix costs {' and '.join(one_digit(gap)[1:] for gap in shuffled_less)} less without the sampling",
        f"and with it {one_digit(drawn_less)[1:]} less where lambda is drawn and as much where it is fixed",
        f"With the lag the eight lie at {min(lagged.values()):.1f} to {max(lagged.values()):.1f} %",
        f"the rare pairs turn round: {' and '.join(turned)}",
    ):
        assert words in PROSE, words
    assert len(of) == len(lagged) == 8
    assert one_digit(fixed_less)[1:] == "0.0"


def test_the_text_has_what_each_rung_is_worth(accuracies):
    """Of seed 0: each rung left out of `tta` beside what it adds in the ladder."""
    trained = {arm.removeprefix("no-lag/"): of_seed[0] for arm, of_seed in accuracies.items() if arm.startswith("no-lag/") and 0 in of_seed}
    lagged = {arm: of_seed[0] for arm, of_seed in accuracies.items() if 0 in of_seed}

    def points(better, worse):
        return one_digit(trained[better] - trained[worse])[1:]

    changes = {rung: one_digit(lagged[f"tta/without-{rung}"] - lagged["tta"]) for rung in ("cb", "mixup", "ls")}
    for words in (
        f"gains {points('tta', 'tta/without-cb')} points on top of MixUp, smoothing and TTA,",
        f"and {points('cb', 'baseline')} on the baseline.",
        f"MixUp costs {points('tta/without-mixup', 'tta')}, in the ladder {points('cb', 'mixup')}.",
        f"Label smoothing costs {points('tta/without-ls', 'tta')} with TTA and {points('mixup', 'ls')} without,",
        f"with seed 1 it gains {accuracies['no-lag/ls'][1] - accuracies['no-lag/mixup'][1]:.2f}.",
        f"without the sampling have {trained['tta/without-cb']:.1f} %, {points('baseline', 'tta/without-cb')} below the baseline,",
        f"without MixUp have {trained['tta/without-mixup']:.1f} %, the most with that seed; `cb` has {trained['cb']:.1f} without TTA,",
        f"whose horizontal flip is worth {points('tta', 'ls')} to {points('tta/without-ls', 'mixup')} here",
        f"leaving out the sampling gives {changes['cb']}, MixUp {changes['mixup']}",
        f"(in the ladder it costs {one_digit(lagged['cb'] - lagged['mixup'])[1:]} with that seed), smoothing {changes['ls']}.",
    ):
        assert words in PROSE, words
    assert max(lagged.values()) == trained["tta/without-mixup"]


def test_the_text_has_what_smoothing_does_at_each_epsilon(accuracies):
    """Accuracies with seed 0 with and without the lag, and the calibration error of the weights as trained."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    error = 100 * runs[runs["seed"] == 0].set_index("arm")["test/ece"]
    names = ("epsilon/0.05", "epsilon/0.1", "ls", "epsilon/0.3", "mixup")
    for numbers, start in (
        ([accuracies[f"no-lag/{name}"][0] for name in names], "the weights as trained have"),
        ([accuracies[name][0] for name in names], "with the lag"),
        ([error[f"no-lag/{name}"] for name in names], "grows with it:"),
    ):
        *first, third, last, without = (f"{number:.1f}" for number in numbers)
        assert re.search(rf"{start} {', '.join([*first, third])} and {last}( %)?, without smoothing {without}", PROSE), start


def test_the_text_has_what_cutmix_does_to_the_rare_classes():
    """Their recall with seed 0, by the weights as trained."""
    runs = packed.read(DOCS / "study" / "reports-32.zip").runs
    of_seed = runs[runs["seed"] == 0].set_index("arm")["test/few"]
    rare = {arm.removeprefix("no-lag/"): f"{100 * share:.1f}" for arm, share in of_seed.items() if arm.startswith("no-lag/")}
    with_it, without = "cutmix/cb", "cutmix/shuffled"
    for words in (
        f"the rare classes fall from {rare['baseline']} to {rare[f'{without}/all/drawn']} %",
        f"{rare[f'{with_it}/tail/drawn']} % against {rare[f'{with_it}/all/drawn']} everywhere (drawn)",
        f"{rare[f'{with_it}/tail/fixed']} against {rare[f'{with_it}/all/fixed']} (fixed), {rare['cb']} without CutMix",
        f"({rare[f'{without}/tail/drawn']} against {rare[f'{without}/all/drawn']}, ",
        f"{rare[f'{without}/tail/fixed']} against {rare[f'{without}/all/fixed']})",
    ):
        assert words in PROSE, words


def test_the_text_has_what_views_do(accuracies, of_seed_zero):
    """Of seed 0, against the arm that is tested without views; with the lag all gain, turning and scaling most."""
    trained, lagged = (
        {arm: accuracies[f"{condition}{arm}"][0] - accuracies[f"{condition}ls"][0] for arm in VIEWS} for condition in ("no-lag/", "")
    )
    turned = [one_digit(of_seed_zero("views/rotate", f"test/{name}") - of_seed_zero("ls", f"test/{name}")) for name in GROUPS]
    flips = ("tta", "views/vflip", "views/flips")
    first, second, both = (one_digit(lagged[arm])[1:] for arm in flips)
    for words in (
        f"the horizontal flip gains {one_digit(trained['tta'])[1:]}, the vertical one {one_digit(trained['views/vflip'])[1:]},",
        f"all of these together {one_digit(trained['views/flips'])[1:]}.",
        f"Turning by 15 degrees has {one_digit(trained['views/rotate'])}, and scaling {one_digit(trained['views/scale'])}, which",
        f"{first}, {second} and {both} by the flips, {one_digit(lagged['views/rotate'])[1:]} and {one_digit(lagged['views/scale'])[1:]}.",
        f"({turned[0]}; medium {turned[1]}, rare {turned[2]})",
    ):
        assert words in PROSE, words
    assert min(lagged.values()) > 0
    assert min(lagged["views/rotate"], lagged["views/scale"]) > max(lagged[arm] for arm in flips)


def test_the_text_says_that_reweighting_by_a_sampler_is_sampling(accuracies):
    """Trained by itself it has the same accuracies."""
    for condition in ("", "no-lag/"):
        assert accuracies[f"{condition}reweight"] == {0: accuracies[f"{condition}cb"][0]}
    assert f"it has the same {accuracies['reweight'][0]:.2f} and {accuracies['no-lag/reweight'][0]:.2f} %" in PROSE
