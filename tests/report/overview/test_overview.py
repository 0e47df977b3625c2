"""The first screen as data: the strip, the best arm, what can be claimed and what would claim more."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from ablation import report
from ablation.cli import cli
from ablation.report.frames.references import References
from ablation.report.frames.tables import arm_rows, run_rows
from ablation.report.metrics import metrics_of
from ablation.report.overview import MARKDOWN, overview, sentences
from ablation.report.overview.seeds import KEPT, OTHERS, kept_options, run_command, with_more
from ablation.report.statistics import best
from ablation.report.statistics.differences import differences, pooled_sd
from ablation.report.statistics.inference import seeds_needed
from tests.report.studies import CONDITIONED, arm, cells, restricted, shifted, study


def overview_of(recorded, metric="accuracy", notes=()):
    """The overview of a whole study, as the terminal makes it: without predictions."""
    recorded.tables.clear()
    plan, runs = recorded.plan, run_rows(recorded)
    full = [f"test/{metric}"]
    return overview(plan, runs, arm_rows(plan, runs, full, References()), differences(plan, runs, full), metric, notes)


def words_of(recorded, metric="accuracy", **marks):
    return sentences(overview_of(recorded, metric), metrics_of(recorded.plan), **marks)


def test_the_strip_tells_what_was_run():
    """Arms, seeds, runs, images per split, the metric and why, and the groups of images, in few words."""
    recorded = study(broken={("cb", 1)}, absent={("mixup", 2)})
    recorded.plan |= {"metric_reason": "all 4 classes have 40 test images", "validation_counts": [5, 5, 5, 5]}
    recorded.plan["clusters"] = {"name": "patient", "train": 210, "validation": 31, "test": 60, "shared": 0}
    found = {fact.name: fact.words for fact in overview_of(recorded).facts}
    assert found == {
        "Arms": "7",
        "Seeds": "0-2",
        "Runs": "19 done, 1 failed, 1 missing",
        "Images": "394 training, 20 validation, 160 test in 4 classes",
        "Metric": "accuracy: all 4 classes have 40 test images",
        "Groups of images": "301 patients, none in two splits",
    }


def test_a_lower_metric_that_was_asked_for_says_both():
    """Its direction, and that the study goes by another."""
    assert {fact.name: fact.words for fact in overview_of(study(), "nll").facts}["Metric"] == "NLL: lower is better; asked for"


def test_arms_stand_in_their_families():
    """The ladder first, conditions last; a sweep has its axes and its parent, with the parent's own value."""
    points = [
        arm(f"alpha/{value}", "mixup", "sweep", change={"mix.alpha": [0.4, value]}, factors={"mix.alpha": str(value)})
        for value in (0.2, 1.0)
    ]
    found = overview_of(study([*CONDITIONED, *points])).families
    assert [(family.name, [row.arm for row in family.rows]) for family in found] == [
        ("ladder", ["baseline", "cb", "mixup"]),
        ("variants", ["cutmix", "reweight"]),
        ("sweep alpha", ["alpha/0.2", "alpha/1.0"]),
        ("condition no-lag", ["no-lag/baseline", "no-lag/cb"]),
    ]
    sweep = found[2]
    assert (sweep.reference.arm, dict(sweep.axes), dict(sweep.own)) == ("mixup", {"mix.alpha": ["0.2", "1.0"]}, {"mix.alpha": "0.4"})
    assert [row.arm for row in sweep.all_rows] == ["mixup", "alpha/0.2", "alpha/1.0"]
    assert len(sweep.best) == 1


def test_a_swept_name_is_no_setting_of_the_parent():
    """An axis that the file calls `epochs` may set a stage's: the arm's own epochs, which also change, are no point of it."""
    points = [
        arm(
            f"stage/{value}",
            "mixup",
            "sweep",
            change={"stages.0.epochs": [20, value], "epochs": [30, value + 10]},
            factors={"epochs": str(value)},
        )
        for value in (15, 25)
    ]
    sweep = overview_of(study([*CONDITIONED, *points])).families[2]
    assert (sweep.reference.arm, dict(sweep.own)) == ("mixup", {})


def test_arms_with_a_better_mean_that_are_not_ranked_are_named():
    """Those under conditions, and those with runs missing, each with its mean; not those that were chosen on the test items."""
    arms = [
        arm("baseline", None),
        arm("up", "baseline"),
        arm("short", "baseline"),
        arm("peeking", "baseline", labels={"selected on test": ""}),
        arm("warm/baseline", "baseline", "condition"),
        arm("warm/up", "warm/baseline", "condition", baseline="warm/baseline"),
    ]
    recorded = study(arms, absent={("short", 0)})
    means = {"baseline": 0.5, "up": 0.6, "peeking": 0.9, "short": 0.7, "warm/baseline": 0.65, "warm/up": 0.95}
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map(means)
    best = overview_of(recorded).best
    assert [row.arm for row in best.ahead] == ["warm/up", "short", "warm/baseline"]
    first = words_of(recorded)[0]
    assert first.startswith("up has the highest mean accuracy of the 2 arms that can be ranked, 60.00")
    assert first.endswith(
        f"Higher, but not ranked with them: warm/up, 95.00 ± 0.00, and 1 more (under a condition); "
        f"short, 70.00 ± 0.00 on {len(recorded.plan['seeds']) - 1} of {len(recorded.plan['seeds'])} seeds (with runs missing)."
    )


def test_arms_without_a_test_are_not_said_to_be_alike():
    """With one seed there is no t test at all, and with one shared seed none of that pair."""
    assert "told apart" not in words_of(shifted({"up": 0.05, "down": -0.02}, seeds=[0]))[0]
    recorded = restricted(shifted({"up": 0.051, "same": 0.05, "once": 0.01}, seeds=range(4)), {"once": [3]})
    best = overview_of(recorded).best
    assert ({best.row.arm, *best.alike}, best.untested) == ({"up", "same"}, ["once"])
    assert "1 of the 3 other arms cannot be told apart from it" in words_of(recorded)[0]
    assert "Holm's correction over these 3; 1 could not be tested." in words_of(recorded)[0]


def test_the_best_arm_is_named_with_what_is_shown():
    """A sure gain is called better; the rest is said to be alike, worse or open."""
    first, claims = words_of(shifted({"up": 0.05, "more": 0.09, "down": -0.04}), marks=MARKDOWN)
    assert first.startswith("**more** has the highest mean accuracy, 69.0")
    assert "points against baseline, shown to be better." in first
    assert "cannot be told apart" not in first
    assert claims == "Claimed against the baseline: **better**: more and up; **worse**: down."


def test_a_metric_where_lower_is_better_has_the_lowest_arm():
    """And its gain is below zero."""
    recorded = shifted({"up": 0.4, "down": -0.3}, metric="test/nll")
    assert words_of(recorded, "nll")[0].startswith("down has the lowest mean NLL, 0.3")


def test_without_a_difference_nothing_is_won():
    """Arms of random predictions: the highest mean is no winner, and luck is taken out of its lead by leaving seeds out."""
    recorded = study(seeds=range(3))
    best = overview_of(recorded).best
    values = recorded.runs.pivot(index="seed", columns="arm", values="test/accuracy")[["baseline", "cb", "mixup", "cutmix"]]
    gains = [values.loc[seed, values.drop(seed).mean().round(9).idxmax()] - values.loc[seed, "baseline"] for seed in range(3)]
    assert best.row.arm == values.mean().idxmax()
    assert best.others == 3
    assert best.repeated == pytest.approx(100 * sum(gains) / 3)
    first = words_of(recorded)[0]
    assert "The 3 other arms cannot be told apart from it by paired t tests with Holm's correction over these 3." in first
    assert "it is the baseline, and no arm has a better mean." in first
    assert "luck" not in first  # the baseline is not compared with itself


def test_the_best_of_noise_is_too_good_and_its_repetition_is_not():
    """Over many studies of arms without any difference: the best one's lead is far above zero, that of the repetition near it."""
    leads, repeated = [], []
    recorded = shifted({f"a{i}": 0.0 for i in range(8)}, seeds=range(4))
    rows = np.arange(len(recorded.runs))
    for start in range(60):
        recorded.runs["test/accuracy"] = 0.5 + 0.01 * np.sin(1000 * np.sin(12.9898 * (rows + 1) + 78.233 * start))
        best = overview_of(recorded).best
        leads.append(best.row.vs_baseline.get("mean", 0.0))
        repeated.append(best.repeated)
    assert sum(leads) / 60 > 0.4
    assert abs(sum(repeated) / 60) < 0.2


def test_arms_chosen_on_the_test_images_never_win():
    """Nor do those that are not complete, or that stand under a condition."""
    arms = [
        arm("baseline", None),
        arm("up", "baseline"),
        arm("peeking", "baseline", labels={"selected on test": "its epoch"}),
        arm("short", "baseline"),
        arm("warm/up", "baseline", "condition"),
    ]
    recorded = study(arms, absent={("short", 0)})
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map({"baseline": 0.5, "up": 0.6, "peeking": 0.9, "short": 0.9, "warm/up": 0.95})
    assert overview_of(recorded).best.row.arm == "up"


def test_the_command_that_claims_more_is_whole():
    """The recorded file and profile with the seeds that the sign-flip test needs for the best arm's family, those of the study first."""
    recorded = shifted({"up": 0.05, "down": -0.02}, seeds=range(3))
    recorded.plan |= {"file": "my study.yaml", "command": "ablate run 'my study.yaml' --jobs 2 --profile quick --arm up --set a=1"}
    found = overview_of(recorded).more
    assert (found.present, found.tests, found.floor, found.seeds) == (3, 2, 7, [0, 1, 2, 3, 4, 5, 6])
    seeds = " ".join(f"--seed {seed}" for seed in range(7))
    assert found.command == f"ablate run 'my study.yaml' --profile quick --set a=1 --arm baseline --arm up --arm down {seeds}"
    last = words_of(recorded, marks=MARKDOWN)[-1]
    assert last.startswith(
        "**3 seeds cannot confirm a difference, 7 can** (sign-flip test, Holm over the ladder's 2 comparisons). To find a difference like"
    )
    assert last.endswith(f"To claim more: `{found.command}`")


def test_a_long_command_is_in_its_place():
    """In Markdown the sentence leads to it, under Provenance; in a terminal it is there, to be copied."""
    recorded = shifted({"up": 0.05, "down": -0.02}, seeds=range(3))
    sets = " ".join(f"--set a{i}=1" for i in range(30))
    for arms in ("", " --arm up --arm down"):
        recorded.plan |= {"file": "a.yaml", "command": f"ablate run a.yaml {sets}{arms}"}
        assert words_of(recorded, marks=MARKDOWN)[-1].endswith("To claim more: see [Provenance](#provenance).")
        assert words_of(recorded)[-1].endswith(f"To claim more: {overview_of(recorded).more.command}")


def test_where_all_is_decided_no_more_is_asked():
    """Eight seeds and clear differences leave nothing open."""
    assert overview_of(shifted({"up": 0.05, "down": -0.04})).more is None


def test_seeds_and_options():
    """Seeds of one's own stay; an unreadable command is no failure."""
    assert with_more([7, 1], 4) == [7, 1, 0, 2]
    assert kept_options("ablate run x --profile=p --allow-code") == ["--profile", "p", "--allow-code"]
    assert kept_options("ablate run 'x --profile p --seed 1") == ["--profile", "p"]
    assert run_command({}, [0]) == "ablate run FILE --seed 0"


@pytest.mark.parametrize(
    ("recorded", "kept"),
    [
        ("ablate run studies/a.yaml", "studies/a.yaml"),
        ("uv run python -m ablation run --jobs 2 --arm 'eps/*' 'my studies/a.yaml' --seed 1", "'my studies/a.yaml'"),
        ("uv run ablate run --rerun keep ../a.yaml --executor local", "../a.yaml --rerun keep --executor local"),
        ("ablate run --yes --rerun=force --save-every=10m sub/a.yaml --budget 2h", "sub/a.yaml"),
        ("python script.py run other.yaml", "a.yaml"),
    ],
)
def test_the_command_has_the_file_as_it_was_given(recorded, kept):
    """With its folder; what was trained and that old results are used is kept, how long and how many at once is not."""
    assert run_command({"file": "a.yaml", "command": recorded}, [0, 1]) == f"ablate run {kept} --seed 0 --seed 1"


def test_the_command_has_the_arms_that_lack_seeds():
    """Not those of the last command, which may have trained others: where it named some, these are named; else all are run."""
    plan = {"file": "a.yaml", "arms": [{"name": name} for name in ("baseline", "cb", "ls")]}
    some = plan | {"command": "ablate run a.yaml --arm ls --seed 3"}
    assert run_command(some, [0], ["cb", "baseline"]) == "ablate run a.yaml --arm baseline --arm cb --seed 0"
    assert run_command(plan | {"command": "ablate run a.yaml"}, [0], ["cb", "baseline"]) == "ablate run a.yaml --seed 0"


def test_every_option_with_a_value_is_known():
    """Else its value would be taken for the file."""
    options = [option for option in cli.commands["run"].params if option.param_type_name == "option" and not option.is_flag]
    assert {name for option in options for name in option.opts} == {*KEPT, *OTHERS}


def test_arms_that_were_all_chosen_on_the_test_images_have_no_best():
    """None of them is called the only one to compare."""
    arms = [arm(name, parent, labels={"selected on test": "its epoch"}) for name, parent in (("baseline", None), ("cb", "baseline"))]
    assert words_of(study(arms))[0] == "No best arm: all were chosen on the test items, so none can be ranked."


def test_one_arm_and_no_run_have_a_first_screen_too():
    """There is no best arm, and why is said."""
    alone = study([arm("baseline", None)], seeds=[0])
    assert words_of(alone) == [f"baseline is the only arm: mean accuracy {100 * alone.runs['test/accuracy'][0]:.2f}."]
    arms = [arm("baseline", None), arm("cb", "baseline")]
    assert words_of(study(arms, seeds=[0], absent={("baseline", 0), ("cb", 0)})) == ["No best arm yet: 0 of 2 runs are done."]
    more = words_of(study(arms, seeds=[0]))[-1]
    assert more.startswith("1 seed cannot confirm a difference, 6 can (sign-flip test).")


# --- arms with different seeds -------------------------------------------------------------------------------------------------------


def test_arms_with_different_seeds_are_ranked_over_those_that_all_have():
    """The mean over one easy seed is no lead, and the sentence says which seeds arms are ranked by."""
    recorded = restricted(shifted({"up": 0.05, "once": 0.02}, seeds=range(4)), {"once": [3]})
    recorded.runs.loc[recorded.runs["seed"] == 3, "test/accuracy"] += 0.1
    best = overview_of(recorded).best
    assert (best.row.arm, list(best.seeds), best.is_partial, best.others) == ("up", [3], True, 2)
    first = words_of(recorded)[0]
    assert first.startswith(
        "up has the highest mean accuracy, 74.91 on seed 3, which all 3 arms have (67.44 ± 4.98 over its own 4): +4.88 ["
    )
    assert "points against baseline over 4 shared seeds, shown to be better by the t test only." in first
    assert next(iter(overview_of(recorded).families)).best == ["up"]


def test_another_name_with_fewer_seeds_is_no_rival():
    """One training is ranked once, by the name with the most seeds; its other name with as many is the best, too."""
    recorded = restricted(shifted({"up": 0.05, "twin": 0.05, "third": 0.05}, seeds=range(4)), {"twin": [3]})
    recorded.runs.loc[recorded.runs["arm"] == "third", "test/accuracy"] = recorded.runs.loc[
        recorded.runs["arm"] == "up", "test/accuracy"
    ].to_numpy()
    for one in recorded.plan["arms"]:
        one["same_as"] = "up" if one["name"] in ("twin", "third") else None
    found = overview_of(recorded)
    assert next(iter(found.families)).best == ["up", "third"]
    assert (found.best.row.arm, found.best.is_partial, found.best.others) == ("up", False, 1)


def test_arms_that_share_no_seed_have_no_best():
    """Their means say little, and no pair means nothing to say about seeds."""
    recorded = restricted(shifted({"up": 0.05}, seeds=range(4)), {"baseline": [0, 1], "up": [2, 3]})
    assert words_of(recorded) == [
        "No best arm: no seed is shared by all 2 arms that are complete, and means over different seeds say little."
    ]


def test_arms_without_the_metric_in_every_run_are_not_complete():
    """A run that is done is none of the metric's if it has no finite value of it."""
    recorded = shifted({"up": 0.05, "down": -0.02}, seeds=range(3))
    recorded.runs["test/auroc"] = recorded.runs["test/accuracy"]
    where = (recorded.runs["arm"] == "up") & (recorded.runs["seed"] > 0)
    recorded.runs.loc[where, "test/auroc"] = [math.nan, math.inf]
    rows = {row.arm: row for family in overview_of(recorded, "auroc").families for row in family.rows}
    assert [(row.n, row.planned, row.is_complete) for row in rows.values()] == [(3, 3, True), (1, 3, False), (3, 3, True)]
    assert overview_of(recorded, "auroc").best.row.arm == "baseline"


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([], "No best arm: no run has a number for AUROC."),
        ([0], "No best arm: no arm has a number for AUROC of all its runs."),
    ],
)
def test_a_metric_that_runs_lack_is_said_to_be_missing(kept, words):
    """Nothing is ranked, and no seeds are asked for a metric of which there is no pair."""
    recorded = shifted({"up": 0.05}, seeds=range(3))
    recorded.runs["test/auroc"] = recorded.runs["test/accuracy"].where(recorded.runs.index.isin(kept))
    assert words_of(recorded, "auroc") == [words]


def test_seeds_are_those_of_pairs_not_those_of_the_plan():
    """Seeds that one arm alone has confirm nothing: the comparison with the fewest pairs counts."""
    recorded = restricted(shifted({"up": 0.05, "down": -0.02}, seeds=range(8)), {"up": [0, 1, 2], "down": [0, 1, 2, 3]})
    more = overview_of(recorded).more
    assert (more.present, more.floor, more.is_even) == (3, 7, False)
    assert words_of(recorded)[-1].startswith("3 shared seeds of up cannot confirm a difference, 7 can (sign-flip test")
    assert more.seeds == list(range(8))


def test_fewer_seeds_confirm_what_is_left_once_others_are_confirmed():
    """Holm's correction steps down: of two comparisons the second needs six seeds, where both tests confirm the first by its eight."""
    recorded = restricted(shifted({"up": 0.05, "down": -0.02}, seeds=range(8)), {"down": [0, 1, 2, 3, 4]})
    assert words_of(recorded)[-1].startswith("5 shared seeds of down cannot confirm a difference, 6 can (sign-flip test")
    recorded = restricted(shifted({"up": 0.05, "down": -0.02}, seeds=range(8)), {"down": [0, 1, 2, 3, 4, 5]})
    assert "worse: down" in words_of(recorded)[1]


def test_what_is_surely_small_leaves_holms_correction_as_it_is():
    """The sign-flip test does not reject what is shown to be no difference, so that the others need as many seeds as before."""
    recorded = shifted({"same": 0.0, "open": 0.01}, seeds=range(6))
    noise = {"same": [1e-4, -1e-4, 2e-4, -2e-4, 1e-4, -1e-4], "open": [0.02, -0.02, 0.03, -0.01, 0.01, 0.0]}
    for arm_name, values in noise.items():
        recorded.runs.loc[recorded.runs["arm"] == arm_name, "test/accuracy"] += values
    verdicts = {row.arm: row.vs_baseline.get("verdict") for family in overview_of(recorded).families for row in family.rows}
    assert (verdicts["same"], verdicts["open"]) == ("no difference beyond 0.5", "inconclusive")
    assert overview_of(recorded).more.floor == 7


def test_an_arm_without_a_pair_says_so():
    """`run --arm` may leave the baseline out."""
    recorded = shifted({"up": 0.05, "down": -0.02}, seeds=range(3))
    recorded.plan["runs"] = [run for run in recorded.plan["runs"] if run["arm"] != "baseline"]
    recorded.plan["arms"] = [one for one in recorded.plan["arms"] if one["name"] != "baseline"]
    recorded.runs = recorded.runs[recorded.runs["arm"] != "baseline"]
    assert words_of(recorded)[0].startswith("up has the highest mean accuracy, ")
    assert "; baseline, to which it would be compared, was not run." in words_of(recorded)[0]


def test_a_difference_of_fewer_seeds_than_the_mean_says_so():
    """The baseline lacks two runs: the mean is of four seeds, the difference of two."""
    recorded = shifted({"up": 0.05}, seeds=range(4))
    is_lost = (recorded.runs["arm"] == "baseline") & (recorded.runs["seed"] > 1)
    recorded.runs.loc[is_lost, "status"] = "FAILED"
    recorded.plan["arms"].append(arm("down", "baseline"))
    recorded.plan["runs"] += [{**run, "arm": "down"} for run in recorded.plan["runs"] if run["arm"] == "up"]
    down = recorded.runs[recorded.runs["arm"] == "up"].assign(arm="down")
    recorded.runs = pd.concat([recorded.runs, down.assign(**{"test/accuracy": down["test/accuracy"] - 0.1})], ignore_index=True)
    assert "points against baseline over 2 shared seeds, " in words_of(recorded)[0]


# --- other test items ----------------------------------------------------------------------------------------------------------------


def of_other_items(recorded, *names):
    """The study with these arms tested on other images than the rest."""
    for one in recorded.plan["arms"]:
        is_other = one["name"] in names
        one |= {"test_set": "B" if is_other else "A", "labels": {best.OTHER_TEST: "other"} if is_other else {}}
    return recorded


def test_nothing_is_claimed_of_arms_with_other_test_items():
    """They are neither better nor worse, count for no correction, and are no reason to say that runs lack numbers."""
    recorded = of_other_items(shifted({"other": 0.05, "up": 0.01}, seeds=range(8)), "other")
    rows = differences(recorded.plan, run_rows(recorded), ["test/accuracy"]).set_index(["arm", "role"])
    assert set(rows.loc["other", "verdict"]) == {"not comparable (other test items)"}
    assert rows.loc["other", ["p_t", "p_flip", "p_t_holm", "p_equal_holm"]].isna().all(axis=None)
    assert rows.loc[("up", "baseline"), "tests"] == 1
    assert words_of(recorded)[1] == "Claimed against the baseline: better: up."
    recorded = of_other_items(shifted({"other": 0.05, "up": 0.01}, seeds=range(8)), "other")
    text = report.write(recorded)
    assert "Better than its baseline** (1): up" in text
    assert "not comparable (other test items)" in text
    text = report.write(recorded, arms=["other"])
    assert "No best arm: all were chosen on the test items or tested on other ones, so none can be ranked." in text
    assert "No arm can be compared with its baseline." in text


# --- words ---------------------------------------------------------------------------------------------------------------------------


def test_one_training_is_claimed_once():
    """Under its own name; an arm with the same settings adds no claim and no comparison."""
    recorded = shifted({"up": 0.05, "dup": 0.05, "open": 0.0}, seeds=range(8))
    next(arm for arm in recorded.plan["arms"] if arm["name"] == "dup")["same_as"] = "up"
    noise = [0.04, -0.03, 0.05, -0.06, 0.02, -0.01, 0.03, -0.04]
    recorded.runs.loc[recorded.runs["arm"] == "open", "test/accuracy"] += noise
    assert words_of(recorded)[1] == "Claimed against the baseline: better: up; 1 of 2 comparisons inconclusive."
    recorded.plan["arms"] = [arm for arm in recorded.plan["arms"] if arm["name"] != "up"]
    recorded.plan["runs"] = [run for run in recorded.plan["runs"] if run["arm"] != "up"]
    assert words_of(recorded)[1] == "Claimed against the baseline: better: dup; 1 of 2 comparisons inconclusive."


def test_claims_keep_the_bound_of_their_verdicts():
    """A gain that is shown to be smaller than the margin is not told as a gain without bounds."""
    recorded = shifted({"up": 0.003, "more": 0.05, "down": -0.003}, seeds=range(8))
    recorded.runs["test/accuracy"] += recorded.runs["seed"] / 100
    assert words_of(recorded)[1] == (
        "Claimed against the baseline: better: more; better, by less than 0.5: up; worse, by less than 0.5: down."
    )
    assert "points against baseline, shown to be better, by less than 0.5." in words_of(shifted({"up": 0.003}))[0]


def test_a_baseline_that_was_chosen_on_the_test_images_carries_its_mark():
    """Wherever something is claimed against it, shown or not, in Markdown and in a terminal."""
    recorded = shifted({"up": 0.05, "down": -0.02})
    recorded.plan["arms"][0]["labels"] = {"selected on test": "its epoch"}
    for form, arms in (("markdown", ()), ("text", ()), ("text", ["up", "down"])):
        text = " ".join(report.write(recorded, form, arms=arms).split())
        assert "points against baseline (T), shown" in text
        assert "Claimed against the baseline (T): " in text
    assert words_of(recorded)[1] == "Claimed against the baseline (T): better: up; worse: down."
    recorded = shifted({"up": 0.004}, seeds=range(2))
    recorded.plan["arms"][0]["labels"] = {"selected on test": "its epoch"}
    assert words_of(recorded)[1] == "Claimed: nothing. The comparison against the baseline (T) is inconclusive."


@pytest.mark.parametrize(
    ("metric", "words"), [("many", "mean recall of the classes many"), ("worst", "recall of the worst class"), ("accuracy", "")]
)
def test_a_metric_that_is_a_phrase_stands_in_a_sentence(metric, words):
    """`the highest recall of ...`, and not `the highest mean the recall of ...`; of an only arm, too."""
    recorded = shifted({"up": 0.05, "down": -0.02}, metric=f"test/{metric}")
    start = f"up has on average the highest {words}, 64.99" if words else "up has the highest mean accuracy, 64.99"
    assert words_of(recorded, metric)[0].startswith(start)
    assert start in " ".join(report.brief(recorded, metric=metric).split())
    alone = study([arm("baseline", None)], seeds=[0])
    value = f"{100 * alone.runs[f'test/{metric}'][0]:.2f}"
    only = f"the {words} is {value} on average" if words else f"mean accuracy {value}"
    assert words_of(alone, metric)[0] == f"baseline is the only arm: {only}."


def test_arms_that_tie_by_a_phrase_are_counted():
    """With commas around the count."""
    recorded = shifted({"up": 0.0, "down": 0.0}, metric="test/worst")
    recorded.runs["test/worst"] = recorded.runs["arm"].map({"baseline": 0.5, "up": 0.5, "down": 0.4})
    assert words_of(recorded, "worst")[0].startswith(
        "baseline has on average, with 1 other arm, the highest recall of the worst class, 50."
    )


def test_a_difference_is_no_gain_where_lower_is_better():
    """Below zero it is an improvement, so it is not called a gain of less than nothing."""
    recorded = shifted({"a": -0.3, "b": -0.31, "c": 0.2}, metric="test/nll")
    recorded.runs.loc[(recorded.runs["arm"] == "a") & (recorded.runs["seed"] == 0), "test/nll"] -= 0.3
    first = words_of(recorded, "nll")[0]
    assert first.startswith("a has the lowest mean NLL")
    assert "measured on the one left out, the difference is -0." in first


def test_where_leaving_seeds_out_says_nothing_of_luck_the_number_is_not_told_twice():
    """The arm that is the best on all other seeds, whichever is left out: its plain difference is not called free of luck."""
    recorded = shifted({"a": -0.3, "b": -0.1, "c": 0.2}, seeds=range(3), metric="test/nll")
    first, *_, last = words_of(recorded, "nll")
    assert first.endswith("It is the best of 4 whichever seed is left out, which says nothing of how much of its lead is luck.")
    assert "without the luck" not in last


def test_arms_that_tie_are_not_ranked_by_luck():
    """All alike: that is said instead. Where some tie, the others are counted."""
    recorded = shifted({"up": 0.0, "down": 0.0})
    recorded.runs["test/accuracy"] = 0.5
    assert words_of(recorded)[0].endswith("no arm has a better mean. All arms have the same mean.")
    recorded.runs.loc[recorded.runs["arm"] == "down", "test/accuracy"] = 0.4
    assert words_of(recorded)[0].startswith("baseline has, with 1 other arm, the highest mean accuracy, 50.00 ± 0.00")
    recorded.runs.loc[recorded.runs["arm"] == "down", "test/accuracy"] = 0.5
    recorded.runs.loc[(recorded.runs["arm"] == "up") & (recorded.runs["seed"] == 0), "status"] = "FAILED"
    assert words_of(recorded)[0].endswith("The 2 arms that can be ranked have the same mean.")


# --- whether anything was learnt -----------------------------------------------------------------------------------------------------


def test_where_nothing_was_learnt_that_comes_first():
    """By the accuracy of the runs, whatever the metric is; of four equal classes, up to 32.5 %."""
    recorded = shifted({"up": -0.32, "down": -0.4})
    recorded.runs["test/accuracy"] -= 0.35 * (recorded.runs["arm"] == "baseline")
    recorded.runs["test/balanced_accuracy"] = recorded.runs["test/accuracy"]
    for metric in ("accuracy", "nll"):
        assert overview_of(recorded, metric).near_chance == ["baseline", "up", "down"]
        assert words_of(recorded, metric)[0] == "All arms are near chance: little was learnt, so ranks mean nothing."
    assert words_of(recorded, marks=MARKDOWN)[0].startswith("**All arms are near chance**: ")
    assert words_of(recorded)[1].startswith("up has the highest mean accuracy, 27.99 ")
    del recorded.plan["counts"]
    assert words_of(recorded)[0].startswith("up has")


def test_single_arms_near_chance_are_named_after_the_claims():
    """The others are worth ranking; unless the best one is among those, since it was not chosen on the test items."""
    recorded = shifted({"bad": -0.4, "worse": -0.5})
    assert words_of(recorded)[2] == "2 of 3 arms are near chance, so little was learnt there: bad and worse."
    assert words_of(shifted({"bad": -0.4, "up": 0.1}))[2] == "1 of 3 arms is near chance, so little was learnt there: bad."
    recorded.plan["arms"][0]["labels"] = {"selected on test": "its epoch"}
    assert words_of(recorded)[0] == ("2 of 3 arms are near chance, the best one among them: little was learnt, so ranks mean nothing.")


def test_scores_that_rank_the_images_have_learnt_something():
    """By AUROC, a model may be good that always names the largest class."""
    recorded = shifted({"up": 0.02}, metric="test/auroc")
    recorded.runs["test/accuracy"] = recorded.runs["test/balanced_accuracy"] = 0.25
    recorded.runs["test/auroc"] = 0.9 + recorded.runs["seed"] / 100
    assert overview_of(recorded, "auroc").near_chance == []
    recorded.runs["test/auroc"] = 0.52
    assert overview_of(recorded, "auroc").near_chance == ["baseline", "up"]


def test_runs_that_are_not_done_are_not_near_chance():
    """Only the arms with runs are counted, and one alone has no rank."""
    recorded = study([arm("baseline", None), arm("cb", "baseline"), arm("up", "baseline")], absent={("up", seed) for seed in range(3)})
    recorded.runs[["test/accuracy", "test/balanced_accuracy"]] = 0.25
    assert words_of(recorded)[0] == "All 2 arms with finished runs are near chance: little was learnt, so ranks mean nothing."
    alone = study([arm("baseline", None)])
    alone.runs[["test/accuracy", "test/balanced_accuracy"]] = 0.25
    assert words_of(alone)[0] == "baseline is near chance: little was learnt."


def test_an_arm_that_gives_up_the_largest_class_has_learnt():
    """Its accuracy is below the share of that class, its balanced accuracy far above 1/C."""
    recorded = study([arm("baseline", None), arm("cb", "baseline")])
    recorded.plan["test_counts"] = [370, 10, 10, 10]
    recorded.runs["test/accuracy"], recorded.runs["test/balanced_accuracy"] = 0.9, 0.7
    assert overview_of(recorded).near_chance == []
    recorded.runs["test/balanced_accuracy"] = 0.25
    assert overview_of(recorded).near_chance == ["baseline", "cb"]


def test_classes_without_test_images_are_no_guess():
    """The balanced accuracy and the average precision are means over the classes with test images: of two, a guess has a half."""
    recorded = study([arm("baseline", None), arm("cb", "baseline")])
    recorded.plan["test_counts"] = [30, 0, 10, 0]
    recorded.runs["test/accuracy"], recorded.runs["test/balanced_accuracy"] = 0.76, 0.52
    recorded.runs["test/average_precision"] = 0.54
    for metric in ("accuracy", "average_precision"):
        assert overview_of(recorded, metric).near_chance == ["baseline", "cb"]
    recorded.runs["test/balanced_accuracy"] = 0.56
    assert overview_of(recorded).near_chance == []


# --- what more seeds would show --------------------------------------------------------------------------------------------------------


def noisy(shifts, spread, **more):
    """A study in which the seeds of each arm scatter by so much."""
    recorded = shifted(shifts, **more)
    places = {name: place for place, name in enumerate(["baseline", *shifts])}
    angles = 5 * recorded.runs["seed"] + 3 * recorded.runs["arm"].map(places) ** 2
    recorded.runs["test/accuracy"] += [spread * math.sin(angle) for angle in angles]
    return recorded


def test_a_best_arm_that_is_shown_needs_no_seeds():
    """What is open is another comparison, and only its size counts; the family is named in words."""
    recorded = noisy({"up": 0.2, "open": 0.01}, 0.03, kind="drop_one")
    found = overview_of(recorded)
    assert found.best.row.vs_baseline["verdict"] == "better"
    assert math.isnan(found.more.for_best)
    last = words_of(recorded)[-1]
    assert last.startswith(
        "8 seeds can confirm a difference (sign-flip test, Holm over drop one's 2 comparisons). To find a difference of 0.5 points "
    )
    assert "best arm" not in last


def test_the_seeds_for_the_best_arm_are_for_what_is_left_without_luck():
    """The lead itself is too large, so that it takes more seeds than it would."""
    recorded = noisy({"a": 0.0, "b": 0.01, "c": 0.006}, 0.01, seeds=range(4))
    found = overview_of(recorded)
    lead, left = found.best.row.vs_baseline["mean"], found.best.repeated
    assert 0 < left < lead
    rows = differences(recorded.plan, run_rows(recorded), ["test/accuracy"])
    sd = pooled_sd(rows[rows["role"] == "baseline"])
    assert found.more.for_best == seeds_needed(sd, left, 3) > seeds_needed(sd, lead, 3)
    assert "a difference like the best arm's, without the luck of having been picked, takes about" in words_of(recorded)[-1]


@pytest.mark.parametrize("label", ["selected on test", "other test images"])
def test_a_number_that_cannot_be_ranked_is_never_the_best(label):
    """Neither one that is too good nor one of other images; in no table, order or figure."""
    recorded = shifted({"cb": 0.02, "odd": 0.2})
    next(one for one in recorded.plan["arms"] if one["name"] == "odd")["labels"] = {"budget": "more", label: "why"}
    assert best.rankable(report.tidy_frames(recorded).arms) == ["baseline", "cb"]
    rows = cells(report.write(recorded, sort="accuracy"), "## Comparison")
    assert [row["arm"].split()[0] for row in rows] == ["cb", "baseline", "odd"]
    assert [row["accuracy"].startswith("**") for row in rows] == [True, False, False]
    assert words_of(recorded)[0].startswith("cb has the highest mean")


def test_a_baseline_that_leads_only_those_that_can_be_ranked():
    """An arm that is not complete, or was chosen on the test images, may have a better mean, and so may one that is not shown."""
    recorded = shifted({"cb": -0.02, "swa": 0.05, "part": 0.06})
    next(one for one in recorded.plan["arms"] if one["name"] == "swa")["labels"] = {"selected on test": "its epoch"}
    recorded.runs = recorded.runs[~((recorded.runs["arm"] == "part") & (recorded.runs["seed"] == 1))]
    assert ": it is the baseline, and none that can be ranked has a better mean." in words_of(recorded)[0]
    assert ": it is the baseline, and no arm has a better mean." in words_of(shifted({"cb": -0.02, "down": -0.05}))[0]
    some = report.brief(shifted({"cb": -0.02, "down": -0.05, "up": 0.05}), ["baseline", "cb", "down"])
    assert "it is the baseline, and no arm shown has a better mean." in " ".join(some.split())


def test_luck_is_told_by_which_arm_is_best_and_not_by_equal_numbers():
    """An arm that is the best whichever seed is left out is no luck, over however many seeds; one that is picked once is."""
    recorded = restricted(shifted({"cb": 0.05, "mx": 0.01}), {"mx": [0, 1, 2, 3]})
    assert "It is the best of 3 whichever seed is left out" in words_of(recorded)[0]
    recorded = shifted({"cb": 0.05, "mx": 0.05})
    base = recorded.runs.loc[recorded.runs["arm"] == "cb", "test/accuracy"].to_numpy()
    recorded.runs.loc[recorded.runs["arm"] == "mx", "test/accuracy"] = base + 0.0001 * (recorded.runs["seed"].unique() == 1)
    recorded.runs.loc[recorded.runs["arm"] == "cb", "test/accuracy"] = base + 0.0002 * (recorded.runs["seed"].unique() == 0)
    assert "The best of 3 is partly luck" in words_of(recorded)[0]


def test_seeds_needed_keep_to_the_floor_and_name_the_arms_that_lack_them():
    """No margin takes fewer seeds than the sign-flip test, and an arm with all its seeds lacks none."""
    text = words_of(shifted({"cb": 0.002, "mx": 0.001, "ab": 0.0015}, seeds=range(3)))[-1]
    floor = int(re.search(r"a difference, (\d+) can", text)[1])
    assert all(int(number) >= floor for number in re.findall(r"takes about (\d+) seeds", text))
    assert words_of(restricted(shifted({"cb": 0.05, "mx": 0.01}), {"mx": [0, 1, 2, 3]}))[-1].startswith(
        "4 shared seeds of mx cannot confirm"
    )
