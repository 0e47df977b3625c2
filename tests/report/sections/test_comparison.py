"""The main table has the frames' numbers, with the marks and notes that belong to them."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from ablation import report
from ablation.report.sections.changed import changed_settings
from tests.report.studies import arm, cells, numbers, part, restricted, shifted, study, unlinked


def test_the_ladder_has_the_frames_numbers():
    """Percent and points to two decimals, differences with their interval and verdict, for every arm of the ladder in its order."""
    recorded = study()
    text = report.write(recorded)
    rows = cells(text, "## Comparison")
    arms = report.tidy_frames(recorded).arms.set_index("arm")
    assert [list(row) for row in rows] == [["arm", "change", "accuracy", "vs parent", "vs baseline", "verdict"]] * 3
    assert [row["arm"] for row in rows] == ["baseline (L)", "cb (L)", "mixup (MixUp)"]
    variants = cells(text, "## Variants")
    assert [row["arm"] for row in variants] == ["cutmix (B)", "reweight"]
    for row in [*rows, *variants]:
        arm_row = arms.loc[row["arm"].split()[0]]
        assert numbers(row["accuracy"]) == pytest.approx([100 * arm_row["accuracy_mean"], 100 * arm_row["accuracy_sd"]], abs=0.0051)
        if arm_row["parent"]:
            expected = [arm_row[f"accuracy_vs_parent{part}_points"] for part in ("", "_low", "_high")]
            assert numbers(row["vs parent"]) == pytest.approx(expected, abs=0.0051)
            assert row["verdict"] == arm_row["verdict_vs_parent"]
    assert rows[0]["vs parent"] == "–"
    assert rows[1]["change"] == "sampler class_balanced"
    assert variants[1]["change"] == "sampler class_balanced; same training as cb"


def test_every_metric_has_its_column():
    """For all plain arms, a dash where there is no number, and published figures beside ours in a table of their own."""
    recorded = study()
    text = report.write(recorded)
    arms = report.tidy_frames(recorded).arms.set_index("arm")
    rows = cells(text, "### All metrics")
    assert [row["arm"] for row in rows] == ["baseline", "cb", "mixup", "cutmix", "reweight"]
    assert [row["medium"] for row in rows] == ["–"] * 5
    assert numbers(rows[1]["few"])[0] == pytest.approx(100 * arms.loc["cb", "few_mean"], abs=0.0051)
    ours = 100 * arms.loc["baseline", "accuracy_mean"]
    (row,) = cells(text, "### Published figures")
    assert (row["arm"], row["A"], row["A gap"]) == ("baseline", "84.22", f"{ours - 84.22:+.2f}")


def test_conditions_are_compared_within_themselves():
    """A condition has its own table, and its baseline is its own."""
    text = report.write(study())
    rows = cells(text, "## Comparison under no-lag")
    assert [row["arm"] for row in rows] == ["no-lag/baseline", "no-lag/cb"]
    assert "The other arms under no-lag" not in text


def test_an_arm_without_a_run_is_a_blank_row():
    """Its numbers are blank, not zero and not a dash, and the arm is still there."""
    rows = cells(report.write(study(broken={("cb", seed) for seed in (0, 1, 2)})), "## Comparison")
    row = next(row for row in rows if row["arm"].startswith("cb"))
    assert (row["arm"], row["accuracy"], row["vs parent"], row["vs baseline"]) == ("cb (L, n 0/3)", "", "", "")


def test_one_seed_has_no_interval():
    """No ± anywhere in the comparison."""
    text = report.write(study(seeds=[3]))
    assert "One seed gives no interval" in text
    assert all("±" not in cell for row in cells(text, "## Comparison") for cell in row.values())


def test_labels_are_marked_and_explained():
    """A short mark at the arm's name; what it means below the first table; every arm's own words under Labels."""
    text = report.write(study())
    assert [row["arm"] for row in cells(text, "## Comparison")] == ["baseline (L)", "cb (L)", "mixup (MixUp)"]
    assert re.search(r"\*\*L\*\* \*lag\*, the averaged weights [^;]*; \*\*B\*\* \*bundle\*, ", text.split("## Variants")[0])
    lag = ("lag", "52.6 % are still initial")
    reasons = {row["arm"]: (row["label"], row["reason"]) for row in cells(text, "### Labels")}
    assert reasons == {"baseline": lag, "cb": lag, "cutmix": ("bundle", "mix and loss")}


def test_the_metric_decides_the_differences():
    """Another metric, with or without its prefix, and a column of its own where it has none."""
    recorded = study()
    for name in ("recall/plane", "test/recall/plane"):
        row = cells(report.write(recorded, metric=name), "## Comparison")[1]
        values = recorded.runs.pivot(index="seed", columns="arm", values="test/recall/plane")
        assert numbers(row["recall/plane"])[0] == pytest.approx(100 * values["cb"].mean(), abs=0.0051)
        assert numbers(row["vs parent"])[0] == pytest.approx(100 * (values["cb"] - values["baseline"]).mean(), abs=0.0051)


@pytest.mark.parametrize(
    ("name", "scale", "decimals", "words"),
    [
        ("nll", 1, 3, ["Percent (NLL: nats), mean", "Differences are nats of NLL", "Lower is better"]),
        ("test/nll", 1, 3, ["Differences are nats of NLL", "Lower is better"]),
        ("ece", 100, 2, ["- Percent, mean", "Differences are points of ECE", "Lower is better"]),
        ("g_mean", 100, 2, ["Differences are points of G-mean"]),
        ("test/worst", 100, 2, ["Differences are points of the recall of the worst class"]),
    ],
)
def test_a_metric_is_told_in_its_own_unit(name, scale, decimals, words):
    """Nats as they are and fractions in percent, in the table, in its differences, in the caption and in the list of runs."""
    recorded = study()
    text = report.write(recorded, metric=name)
    comparison = text.split("## Variants")[0] + part(text, "All metrics")
    assert all(word in comparison for word in words)
    assert ("Lower is better" in comparison) == ("Lower is better" in words)
    title = {"nll": "NLL", "ece": "ECE", "g_mean": "G-mean", "worst": "worst class"}[name.removeprefix("test/")]
    values = recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name.removeprefix('test/')}")
    row = cells(text, "## Comparison")[1]
    assert unlinked(row[title]) == f"{scale * values['cb'].mean():.{decimals}f} ± {scale * values['cb'].std():.{decimals}f}"
    gains = scale * (values["cb"] - values["baseline"])
    bounds = stats.t.interval(0.95, 2, gains.mean(), gains.std() / math.sqrt(3))
    assert row["vs parent"] == f"{gains.mean():+.{decimals}f} [{bounds[0]:+.{decimals}f}, {bounds[1]:+.{decimals}f}]"
    assert cells(text, "### Runs")[3][title] == f"{scale * values['cb'][0]:.{decimals}f}"


def test_a_choice_is_told_under_its_table():
    """Which arm each seed chose, with its mark explained; it trains nothing, so it is in no count of what sharing saved."""
    change = {"posthoc.tau": [None, "the best of 0.5, 1.0 by val/nll"]}
    arms = [
        arm("baseline", None),
        arm("tau/0.5", "baseline"),
        arm("tau/1.0", "baseline"),
        arm("tau/best", "baseline", "sweep", change=change, labels={"chosen": "the best of 2 arms"}),
    ]
    text = report.write(study(arms, seeds=[0, 1], chosen={("tau/best", 0): "tau/0.5", ("tau/best", 1): "tau/1.0"}))
    comparison = text.split("## Details")[0]
    assert "tau/best: seed 0 tau/0.5, seed 1 tau/1.0\n" in comparison
    assert "**C** *chosen*, each seed's run is another arm's" in comparison
    row = cells(text, "## Sweep tau")[1]
    assert (row["arm"], row["change"]) == ("tau/best (C)", "posthoc.tau: the best of 0.5, 1.0 by val/nll")
    assert [row["arm"] for row in cells(text, "### Time and epochs")] == ["baseline", "tau/0.5", "tau/1.0", "all arms"]
    assert "Sharing saved 3 min 00 s" in text


def test_published_figures_from_a_file(tmp_path):
    """A column per report with its gap; rows that fit no arm are listed."""
    (tmp_path / "published.csv").write_text("report,arm,accuracy\nB,cb+mixup,0.9\nB,unheard|of,0.5\n")
    recorded = study()
    text = report.write(recorded, references=tmp_path / "published.csv")
    row = next(row for row in cells(text, "### Published figures") if row["arm"].startswith("mixup"))
    ours = report.tidy_frames(recorded).arms.set_index("arm").loc["mixup", "accuracy_mean"]
    assert row["B"] == "90.00"
    assert numbers(row["B gap"]) == pytest.approx([100 * ours - 90], abs=0.0051)
    assert "- B: unheard\\|of (50.00)" in text


def test_a_change_is_whole_in_the_table_and_told_from_what_to_what_below():
    """Every setting in words, and in the list of changes with the parent's value."""
    change = {f"loss.field{number}": [number, number + 1] for number in range(5)}
    text = report.write(study([arm("baseline", None), arm("many", "baseline", change=change)], seeds=[0]))
    assert cells(text, "## Comparison")[1]["change"] == "; ".join(f"loss.field{number} {number + 1}" for number in range(5))
    rows = cells(text, "### Changes")
    assert [(row["setting"], row["from → to"]) for row in rows] == [(f"loss.field{n}", f"{n} → {n + 1}") for n in range(5)]


def test_the_best_of_each_column_is_bold():
    """By the metric's direction, ties too; an arm with fewer runs than planned is never the best."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    text = report.write(recorded, metric="nll")
    rows = {row["arm"]: row for row in cells(text, "### All metrics")}
    assert [name for name, row in rows.items() if row["accuracy"].startswith("**")] == ["up"]
    nll = recorded.runs.groupby("arm")["test/nll"].mean()
    assert [name for name, row in rows.items() if row["NLL"].startswith("**")] == [nll.idxmin()]
    assert [row["arm"] for row in cells(text, "## Comparison") if row["NLL"].startswith("**")] == [nll.idxmin()]
    assert all(row["medium"] == "–" for row in rows.values())
    recorded.runs = recorded.runs[(recorded.runs["arm"] != "up") | (recorded.runs["seed"] > 0)]
    text = report.write(recorded)
    for heading in ("## Comparison", "### All metrics"):
        assert [row["arm"] for row in cells(text, heading) if row["accuracy"].startswith("**")] == ["baseline"]


def test_arms_with_different_seeds_are_marked_over_those_that_all_have():
    """A mean over one easy seed is no best, in either table; both say which seeds arms are ranked by, where these differ."""
    shifts = shifted({"up": 0.05, "once": 0.02}, seeds=range(4))
    words = "the best is bold (over the seeds that all complete arms of its table share)"
    assert "the best is bold, and a number" in report.write(shifts)
    recorded = restricted(shifts, {"once": [3]})
    recorded.runs.loc[recorded.runs["seed"] == 3, "test/accuracy"] += 0.1
    text = report.write(recorded)
    for heading in ("## Comparison", "### All metrics"):
        assert [row["arm"] for row in cells(text, heading) if row["accuracy"].startswith("**")] == ["up"]
    assert words in text
    assert "Highest mean: **up**, 74.91 on seed 3, which the complete arms share." in text


def test_runs_without_a_number_of_the_metric_are_counted():
    """The mean of one value of three says so, and is never the best; runs that are done but lack the metric have none."""
    recorded = shifted({"up": 0.05}, seeds=range(3))
    where = (recorded.runs["arm"] == "up") & (recorded.runs["seed"] > 0)
    recorded.runs.loc[where, "test/accuracy"] = np.nan
    text = report.write(recorded)
    assert [row["arm"] for row in cells(text, "## Comparison")] == ["baseline", "up (n 1/3)"]
    assert "n 1/2: numbers of fewer seeds than other arms have" in text
    assert "An arm of which a planned run has no number is never the best." in text
    assert cells(text, "### All metrics")[1]["accuracy"].endswith(" (1 of 3)")


def test_arms_chosen_on_the_test_images_are_never_bold():
    """Their numbers are too good, in the table of all metrics as in the others."""
    arms = [arm("baseline", None), arm("up", "baseline"), arm("peeking", "baseline", labels={"selected on test": "its epoch"})]
    recorded = study(arms)
    recorded.runs["test/accuracy"] = recorded.runs["arm"].map({"baseline": 0.5, "up": 0.6, "peeking": 0.9})
    rows = cells(report.write(recorded), "### All metrics")
    assert [row["arm"] for row in rows if row["accuracy"].startswith("**")] == ["up"]


def test_only_changed_gives_each_setting_a_column():
    """Every setting that differs between the arms shown, with each arm's value: its own, or that of the arm above it."""
    text = report.write(study(), only_changed=True)
    rows = {row["arm"].split()[0]: row for row in cells(text, "## Comparison")}
    assert "change" not in rows["cb"]
    assert [rows[name]["sampler.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["shuffle", *["class_balanced"] * 3]
    assert [rows[name]["mix.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["none", "none", "mixup", "cutmix"]
    assert [rows[name]["mix.alpha"] for name in ("cb", "mixup")] == ["–", "0.4"]
    assert "average.name" not in rows["cb"]
    rows = cells(report.write(study(), only_changed=True, arms=["baseline", "mixup"]), "## Comparison")
    assert {"sampler.name", "mix.name", "mix.alpha"} < set(rows[0])
    rows = cells(report.write(study(), only_changed=True, arms=["cb", "reweight"]), "## Comparison")
    assert not {"sampler.name", "mix.name"} & set(rows[0])


def test_stages_of_the_base_are_told_too():
    """No arm adds them, but the record of the file has them; and a parent that the plan lacks is no error."""
    written = {"first": {"stage": [1, 1], "sampler.name": "shuffle", "stages.0.stage": [0, 1]}, "arms": {}}
    arms = [arm("baseline", None), arm("cb", "baseline", change={"stages.1.sampler.name": ["shuffle", "class_balanced"]})]
    written["arms"] = {
        "baseline": {"settings": {}},
        "cb": {"settings": {"sampler.name": "class_balanced", "stages.0.sampler.name": "shuffle"}},
    }
    recorded = study([*arms, arm("lone", "elsewhere", change={"loss.name": ["cross_entropy", "focal"]})], seeds=[0])
    recorded.plan["written"] = {**written, "seeds": [0]}
    for form in ("latex", "markdown"):
        report.write(recorded, form, only_changed=form == "markdown")
    rows = {row["arm"]: row for row in cells(report.write(recorded, only_changed=True), "## Comparison")}
    assert [rows[name]["sampler.name"] for name in ("baseline", "cb")] == ["shuffle", "shuffle → class_balanced"]
    assert rows["lone"]["loss.name"] == "focal"


def test_settings_that_an_arm_which_was_not_run_sets_are_told_too():
    """The record of the file has them, and the length of a first stage that no change names; what `--set` changed is a dash."""
    arms = [
        arm("ce", None),
        arm("ldam-drw", "ldam", "variant", change={"stages.1.loss.weights.name": ["none", "effective_number"]}),
        arm("crt", "ce", "variant", change={"epochs": [60, 69], "stages.1.epochs": [None, 9], "stages.1.train": ["all", "head"]}),
    ]
    first = {"stage": [0, 60, "all"], "loss.name": "cross_entropy", "loss.weights.name": "none", "batch_size": 128}
    ldam = {"loss.name": "ldam", "loss.weights.name": "effective_number", "stage": [48, 12, "all"], "stages.0.stage": [0, 48, "all"]}
    settings = {
        "ce": {},
        "ldam-drw": {**ldam, "stages.0.loss.weights.name": "none", "batch_size": 64},
        "crt": {"stage": [60, 9, "head"], "stages.0.stage": [0, 60, "all"]},
    }
    recorded = study(arms, seeds=[0])
    recorded.plan["written"] = {"first": first, "arms": {name: {"settings": own} for name, own in settings.items()}, "sets": []}
    found = changed_settings(recorded.plan, list(settings))
    assert {name: list(by_arm.values()) for name, by_arm in found.items()} == {
        "loss.name": ["cross_entropy", "ldam", "cross_entropy"],
        "loss.weights.name": ["none", "none → effective_number", "none"],
        "batch_size": ["128", "64", "128"],
        "epochs": ["60", "48 → 12", "60 → 9"],
        "train": ["all", "all", "all → head"],
    }
    for path in ("loss.name", "loss", "stages.0.loss"):
        recorded.plan["written"]["sets"] = [[path, "focal"]]
        assert "loss.name" not in changed_settings(recorded.plan, list(settings)), path
    assert "48 → 12" in report.write(recorded, only_changed=True)
    text = report.write(recorded)
    assert "of ldam (not run): " in next(line for line in text.splitlines() if line.startswith("| ldam-drw"))
    for form in ("latex", "csv"):
        report.write(recorded, form)


def test_the_first_arm_has_its_own_value_and_not_that_of_an_arm_which_was_not_run():
    """The change of an arm begins at its parent's value; a stage's technique does not have the fields of the next one's."""
    arms = [
        arm("baseline", None),
        arm("lower", "low", change={"optimizer.lr": [0.01, 0.001]}),
        arm("mixed", "low", "variant", change={"stages.1.mix.alpha": [0.2, 0.4]}),
    ]
    first = {"stage": [0, 60, "all"], "optimizer.lr": 0.1, "mix.name": "none", "loss.name": "cross_entropy"}
    mixed = {"stage": [48, 12, "all"], "stages.0.stage": [0, 48, "all"], "mix.name": "mixup", "mix.alpha": 0.4, "stages.0.mix.name": "none"}
    settings = {"baseline": {}, "lower": {"optimizer.lr": 0.001}, "mixed": {**mixed, "optimizer.lr": 0.01, "stages.0.loss.name": None}}
    written = {"first": first, "arms": {name: {"settings": own} for name, own in settings.items()}, "sets": []}
    found = changed_settings({"arms": arms, "written": written}, list(settings))
    assert list(found["optimizer.lr"].values()) == ["0.1", "0.001", "0.01"]
    assert list(found["mix.name"].values()) == ["none", "none", "none → mixup"]
    assert list(found["mix.alpha"].values()) == ["–", "–", "– → 0.4"]
    assert "loss.name" not in found


def test_settings_of_stages_are_told_one_after_another():
    """An arm without stages has one value; a stage has what the arm sets for all of them where it sets nothing itself."""
    arms = [
        arm("baseline", None),
        arm("cb", "baseline", change={"sampler.name": ["shuffle", "class_balanced"]}),
        arm(
            "two",
            "cb",
            change={
                "stages.0.epochs": [6, 4],
                "stages.1.epochs": [None, 2],
                "stages.0.sampler.name": ["class_balanced", "shuffle"],
                "stages.1.train": ["all", "head"],
            },
        ),
        arm("next", "two", change={"stages.1.sampler.name": ["class_balanced", "square_root"], "loss.name": ["cross_entropy", "focal"]}),
    ]
    rows = cells(report.write(study(arms, seeds=[0]), only_changed=True), "## Comparison")
    assert [row["epochs"] for row in rows] == ["6", "6", "4 → 2", "4 → 2"]
    samplers = ["shuffle", "class_balanced", "shuffle → class_balanced", "shuffle → square_root"]
    assert [row["sampler.name"] for row in rows] == samplers
    assert [row["train"] for row in rows] == ["all", "all", "all → head", "all → head"]
    assert [row["loss.name"] for row in rows] == ["cross_entropy"] * 3 + ["focal"]


def test_an_order_puts_one_table_first():
    """All plain arms by that metric, then the ladder and the families in their own order; each condition's arms folded."""
    recorded = shifted({"down": -0.05, "up": 0.05})
    text = report.write(recorded, sort="accuracy")
    assert [row["arm"] for row in cells(text, "## Comparison")] == ["up", "baseline", "down"]
    assert [row["arm"] for row in cells(text, "## Ladder")] == ["baseline", "down", "up"]
    by_nll = report.write(recorded, sort="nll")
    assert list(cells(by_nll, "## Comparison")[0])[2:4] == ["accuracy", "NLL"]


def test_a_long_command_stands_under_provenance():
    """The first screen leads to it."""
    recorded = shifted({"up": 0.05, "down": -0.02}, seeds=range(3))
    recorded.plan |= {"file": "a.yaml", "command": f"ablate run a.yaml {' '.join(f'--set a{i}=1' for i in range(30))}"}
    opening, provenance = report.write(recorded).split("### Provenance")
    assert "To claim more: see [Provenance](#provenance)." in opening
    assert "To claim more: `ablate run a.yaml --set a0=1 " in provenance


def test_a_rung_alone_stands_above_arms_whose_parents_differ():
    """Where `run --arm` left a parent out, the variants have no parent in common: the baseline heads their table all the same."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    for one, parent in zip(recorded.plan["arms"][1:], ("baseline", "gone"), strict=True):
        one |= {"kind": "variant", "parent": parent}
    text = report.write(recorded)
    rows = cells(text, "## Variants")
    assert [(row["arm"], row["verdict"]) for row in rows][::2] == [("baseline", ""), ("down", "parent not run")]
    assert "## Comparison" not in text
    assert "1 whose partner was not run" in text


def test_a_study_of_one_rung_and_a_sweep_opens_with_the_sweep():
    """Its parent heads its table, so that the ladder has none of its own; the legend stands below it."""
    change = {"mix.alpha": [0.4, 1.0]}
    text = report.write(study([arm("baseline", None), arm("alpha/1.0", "baseline", "sweep", change=change, factors={"mix.alpha": "1.0"})]))
    rows = cells(text, "## Sweep alpha")
    assert [(row["arm"], row["change"]) for row in rows] == [
        ("baseline", "mix.alpha 0.4: *the parent of the others*"),
        ("alpha/1.0", "mix.alpha 1"),
    ]
    assert (rows[0]["vs parent"], rows[0]["verdict"]) == ("–", "")
    assert "## Comparison" not in text
    assert "the best is bold" in text.split("## Classes")[0]
