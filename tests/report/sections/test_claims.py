"""What can be claimed and what cannot, in plain words."""

import math
import re

import pytest

from ablation import report
from ablation.report.sections.claims import claim
from tests.report.own_study import GAIN, MAE, own_study
from tests.report.studies import LADDER, arm, cells, part, shifted, study


@pytest.mark.parametrize(
    ("pairs", "tests", "words"),
    [(1, 1, "One seed gives no interval: no difference can be told from chance. 6 seeds can."),
     (2, 1, "2 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.5); 6 can."),
     (3, 5, "3 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.25); 6 can (8 after Holm over 5 comparisons"),
     (5, 1, "0.062); 6 can"), (6, 1, "p = 0.031 at best, which withstands Holm over up to 1 comparison."),
     (8, 5, "withstands Holm over up to 6 comparisons."),
     (8, 28, "withstands Holm over up to 6 comparisons; the largest family has 28, for which 11 seeds are needed.")],
)  # fmt: skip
def test_what_few_seeds_cannot_claim_is_said(pairs, tests, words):
    """In plain words, by the number of pairs and the size of the largest family."""
    assert words in claim(pairs, tests)


def test_claims_name_the_arms_with_their_intervals():
    """Better, worse, no difference beyond the margin, as the verdicts of the frame are; the largest difference first."""
    recorded = shifted({"up": 0.05, "more": 0.09, "down": -0.04, "same": 0.0})
    text = part(report.write(recorded), "What can be claimed")
    rows = report.tidy_frames(recorded).differences
    of_baseline = rows[(rows["metric"] == "accuracy") & (rows["role"] == "baseline")].set_index("arm")
    assert of_baseline["verdict"].tolist() == ["better", "better", "worse", "no difference beyond 0.5"]
    words = [
        f"{name} {of_baseline.loc[name, 'mean']:+.2f} [{of_baseline.loc[name, 'low']:+.2f}, {of_baseline.loc[name, 'high']:+.2f}]"
        for name in of_baseline.index
    ]
    assert f"- **Better than its baseline** (2): {words[1]} and {words[0]}.\n" in text
    assert f"- **Worse than its parent** (1): {words[2]}.\n" in text
    assert "- **No difference beyond 0.5 points from its baseline** (1): same " in text
    assert "Inconclusive" not in text
    assert "withstands Holm over up to 6 comparisons." in text


def test_claims_by_the_t_test_only_are_told_apart():
    """With three seeds the sign-flip test cannot confirm, and the report says so beside the arm and among what cannot be claimed."""
    text = report.write(shifted({"up": 0.05}, seeds=range(3)))
    assert "**Better than its baseline by the t test only** (the sign-flip test does not confirm it) (1): up +" in text
    assert "3 seeds cannot reach 0.05 by a sign-flip test (the smallest p is 0.25); 6 can." in text
    assert cells(text, "## Comparison")[1]["verdict"] == "better (t only)"


def test_the_seeds_needed_are_told():
    """As the frame of differences has them."""
    recorded = shifted({"up": 0.001})
    needed = report.tidy_frames(recorded).differences.query("metric == 'accuracy'")["seeds_needed"].iloc[0]
    how = "paired t test, 80 % power, at the first step of Holm's correction"
    text = report.write(recorded)
    assert f"To resolve 0.5 points about {needed:.0f} seeds are needed ({how}); the study has 8." in text
    assert "with 80 % power, at the first step of Holm's correction, by the family's pooled deviation." in text


def test_more_seeds_than_anyone_has_are_told_as_such():
    """Where a family, or every one, takes over a thousand seeds, the claim and the table say so."""
    arms = [arm("baseline", None), arm("up", "baseline"), arm("wild", "baseline", "variant")]
    recorded = study(arms, seeds=range(8))
    for seed in range(8):
        for name, noise in (("baseline", 0.0), ("up", 0.002), ("wild", 0.3)):
            where = (recorded.runs["arm"] == name) & (recorded.runs["seed"] == seed)
            recorded.runs.loc[where, "test/accuracy"] = 0.5 + noise * math.sin(seed)
    text = report.write(recorded)
    rows = {row["family"]: row for row in cells(text, "## Differences")}
    few = int(rows["ladder"]["seeds needed"])
    assert rows["variants"]["seeds needed"] == "more than 1,000"
    assert f"To resolve 0.5 points {few} to more than 1,000 seeds, depending on the family, are needed (" in text
    recorded.plan["margin"] = 0.001
    assert "To resolve 0.001 points more than 1,000 seeds are needed (" in report.write(recorded)


@pytest.mark.parametrize(("accuracy", "is_near"), [(0.25, True), (0.32, True), (0.33, False), (0.1, True), (0.6, False)])
def test_arms_near_chance_are_marked(accuracy, is_near):
    """Four equal classes: up to a tenth of the way from guessing to perfection."""
    text = report.write(shifted({"bad": accuracy - 0.6}))
    row = cells(text, "## Comparison")[1]
    assert row["arm"] == ("bad (N)" if is_near else "bad")
    assert ("**Near chance**, so little was learnt: bad." in text) == is_near


def test_one_arm_is_a_report_too(tmp_path):
    """Nothing to compare, which is said once, and no table of differences."""
    text = report.write(study([arm("baseline", None)], seeds=[0]), output=tmp_path)
    assert text.count("Only one arm: nothing to compare.") == 1
    assert "No arm has a seed in common" not in text
    assert "no difference is claimed" not in text
    assert "Verdicts are of" not in text
    assert "## Differences" not in text
    assert "## Who gained" not in text


def test_arms_chosen_on_the_test_images_carry_their_mark_everywhere():
    """Beside the name in every table with arms and in the claims, and explained where it occurs first."""
    best = arm("best", "baseline", labels={"selected on test": "its epoch"}, change={"average.name": ["none", "best"]})
    recorded = study([arm("baseline", None), best, arm("after", "best")])
    values = recorded.runs["arm"].map({"baseline": 0.5, "best": 0.9, "after": 0.5}) + 0.001 * recorded.runs["seed"] ** 2
    recorded.runs["test/accuracy"] = values + 0.002 * recorded.runs["seed"] * (recorded.runs["arm"] == "best")
    text = report.write(recorded)
    assert (
        "**T** *selected on test*, chosen by looking at the test images, so too good by an unknown amount." in text.split("## Details")[0]
    )
    assert "(1): best (T) +" in text
    assert "**Chosen on the test set**: best (T)." in text
    for heading, column in (
        ("## Comparison", "arm"), ("#### ladder, against the parent", "arm"), ("#### Against the parent", "arm"),
        ("### Doubt from the test images", "arm"), ("### Recall of every class against the baseline", "arm"),
        ("## Worst class and calibration", "arm"), ("### Changes", "arm"), ("### Labels", "arm"), ("### Time and epochs", "arm"),
        ("### Runs", "arm"), ("### All metrics", "arm"), ("#### ladder, against the parent", "against"),
    ):  # fmt: skip
        named = {row[column] for row in cells(text, heading)}
        assert "best (T)" in named, heading
        assert not {"best", "baseline (T)", "after (T)"} & named, heading
    assert "#### best (T) (n = 3)" in text
    assert "(T)" not in report.write(study())


def test_conditions_are_told_against_parents_and_baseline_and_by_their_own_effect():
    """A tally per role that has rows; the comparison with the plain arm is the condition's effect and stands in no tally."""
    arms = [*LADDER[:3], *(arm(f"no-lag/{name}", parent, "condition", "no-lag/baseline") for name, parent in (
        ("baseline", "baseline"), ("cb", "no-lag/baseline"), ("mixup", "no-lag/cb")))]  # fmt: skip
    recorded = study(arms)
    effect = report.tidy_frames(recorded).differences.query("metric == 'accuracy' and arm == 'no-lag/baseline'").iloc[0]
    text = part(report.write(recorded), "What can be claimed")
    words = f"{effect['mean']:+.2f} [{effect['low']:+.2f}, {effect['high']:+.2f}] ({effect['verdict']})"
    assert f"- Condition no-lag changes baseline by {words}.\n" in text
    lines = {line.split(":")[0]: line for line in text.splitlines() if line.startswith("- Under no-lag")}
    assert list(lines) == ["- Under no-lag, against its own parents", "- Under no-lag, against its own baseline"]
    assert all(sum(map(int, re.findall(r"\b(\d+) (?:better|worse|inconclusive|without)", line))) == 2 for line in lines.values())
    alone = part(report.write(study([*LADDER[:2], arm("no-lag/cb", "cb", "condition", "no-lag/cb")])), "What can be claimed")
    assert "Condition no-lag changes cb by " in alone
    assert "Under no-lag" not in alone


def test_what_is_the_same_training_is_no_comparison():
    """Neither among those counted beside the inconclusive ones, nor where seeds are too few."""
    arms = [arm("baseline", None), arm("cb", "baseline"), arm("copy", "baseline", "variant", same_as="baseline")]
    recorded = study(arms, absent={("copy", seed) for seed in range(3)})
    text = report.write(recorded)
    assert "**Inconclusive against its baseline**: 1 of 1 comparison." in text
    alone = report.write(study([arms[0], arms[2]], absent={("copy", seed) for seed in range(3)}))
    assert "No arm is another training than its baseline." in alone
    assert "sign-flip test (the smallest" not in alone


def test_equal_differences_are_counted_as_inconclusive():
    """Where all seeds show the same difference there is nothing to test by, and the tallies have it."""
    recorded = study(LADDER[:2])
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map({"baseline": 0.5, "cb": 0.6})
    text = report.write(recorded)
    assert cells(text, "## Comparison")[1]["verdict"] == "inconclusive (no spread)"
    assert "**Inconclusive against its baseline**: 1 of 1 comparison." in text
    assert cells(text, "## Differences")[0]["verdicts"] == "1 inconclusive"


def test_nothing_is_claimed_of_arms_whose_seeds_have_no_effect():
    """Neither of such an arm nor against it, in no list and no tally, which is said once; the others keep their claims."""
    recorded = own_study()
    recorded.runs.loc[recorded.runs["arm"] == "robust", [MAE.name, GAIN.name]] = [7.0, 14.0]
    whole = report.write(recorded)
    can = part(whole, "What can be claimed").split("What cannot:")[0]
    t_only = "by the t test only** (the sign-flip test does not confirm it)"
    assert f"- **Better than its baseline {t_only} (3): deep -3" in can
    assert f"- **Better than its parent {t_only} (2): deep -3" in can
    assert f"- **Worse than its parent {t_only} (2): rate/low +0" in can  # deep-less, whose parent is robust, is not among them
    assert "- **Nothing is claimed** of comparisons with robust: seed without effect.\n" in can
    assert can.count("robust") == 1
    assert cells(whole, "## Differences")[0]["verdicts"] == "1 better by the t test only and 1 whose seeds have no effect"
    recorded.runs.loc[recorded.runs["arm"] == "base", [MAE.name, GAIN.name]] = [12.0, 24.0]
    can = part(report.write(recorded), "What can be claimed").split("What cannot:")[0]
    assert "its baseline" not in can
    assert "- **Nothing is claimed** of comparisons with robust and base: seed without effect.\n" in can


def test_claims_keep_the_bound_of_their_verdicts():
    """A gain that is shown to be smaller than the margin is no plain gain, in the list and in the tally, by whichever test."""
    recorded = shifted({"up": 0.003, "more": 0.05, "down": -0.003})
    text = report.write(recorded)
    can = part(text, "What can be claimed")
    assert "- **Better than its baseline** (1): more +" in can
    assert "- **Better than its baseline, by less than 0.5 points** (1): up +" in can
    assert "- **Worse than its parent, by less than 0.5 points** (1): down -" in can
    words = "1 better, 1 better by less than the margin and 1 worse by less than the margin"
    assert cells(text, "## Differences")[0]["verdicts"] == words
    few = report.write(shifted({"up": 0.003}, seeds=range(5)))
    how = "by the t test only** (the sign-flip test does not confirm it)"
    assert f"- **Better than its baseline, by less than 0.5 points, {how} (1): up +" in few
    assert cells(few, "## Differences")[0]["verdicts"] == "1 better by less than the margin by the t test only"


def test_a_training_of_two_names_is_claimed_once():
    """Under its own name, as on the first screen, and counted once; against another partner it is another comparison."""
    recorded = shifted({"up": 0.05, "dup": 0.05, "open": 0.0, "low": -0.05})
    for one in recorded.plan["arms"]:
        one |= {"same_as": "up" if one["name"] == "dup" else None, "parent": "low" if one["name"] == "dup" else one["parent"]}
    is_of = {name: (recorded.runs["arm"] == name).to_numpy() for name in ("up", "dup", "open")}
    recorded.runs.loc[is_of["dup"], "test/accuracy"] = recorded.runs.loc[is_of["up"], "test/accuracy"].to_numpy()
    recorded.runs.loc[is_of["open"], "test/accuracy"] += [0.04, -0.03, 0.05, -0.06, 0.02, -0.01, 0.03, -0.04]
    text = report.write(recorded)
    can = part(text, "What can be claimed")
    assert re.search(r"\*\*Better than its baseline\*\* \(1\): up \S+ \[\S+ \S+\]\.\n", can)
    assert "- **Inconclusive against its baseline**: 1 of 3 comparisons.\n" in can
    assert "- **Better than its parent** (2): dup +" in can
    tallies = {row["against"]: row["verdicts"] for row in cells(text, "## Differences")}
    assert tallies == {"parent": "2 better, 1 worse and 1 inconclusive", "baseline": "1 better, 1 worse and 1 inconclusive"}
