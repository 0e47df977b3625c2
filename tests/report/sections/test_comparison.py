"""The main table has the frames' numbers, with the marks and notes that belong to them."""

import math
import re

import pytest
from scipy import stats

from ablation import report
from tests.report.studies import arm, cells, numbers, shifted, study


def test_the_comparison_table_has_the_frames_numbers():
    """Percent and points to two decimals, differences with their interval and verdict, for every arm of the ladder in its order."""
    recorded = study()
    rows = cells(report.write(recorded), "## Comparison")
    arms = report.tidy_frames(recorded).arms.set_index("arm")
    assert [row["arm"] for row in rows] == ["baseline", "cb", "mixup (MixUp)", "cutmix", "reweight"]
    for row in rows:
        arm_row = arms.loc[row["arm"].split()[0]]
        assert numbers(row["accuracy"]) == pytest.approx([100 * arm_row["accuracy_mean"], 100 * arm_row["accuracy_sd"]], abs=0.0051)
        assert row["medium"] == "–"
        if arm_row["parent"]:
            expected = [arm_row[f"accuracy_vs_parent{part}_points"] for part in ("", "_low", "_high")]
            assert numbers(row["vs parent"]) == pytest.approx(expected, abs=0.0051)
            assert row["verdict"] == arm_row["verdict_vs_parent"]
    assert (rows[0]["A"], rows[1]["A"], rows[0]["vs parent"]) == ("84.22", "–", "–")
    assert rows[1]["what changed"] == "sampler class_balanced"
    assert rows[4]["what changed"] == "sampler class_balanced; same training as cb"


def test_conditions_are_compared_within_themselves():
    """A condition has its own table, and its baseline is its own."""
    text = report.write(study())
    rows = cells(text, "## Comparison under no-lag")
    assert [row["arm"] for row in rows] == ["no-lag/baseline", "no-lag/cb"]
    assert "A" not in rows[0]


def test_an_arm_without_a_run_is_a_blank_row():
    """Its numbers are blank, not zero and not a dash, and the arm is still there."""
    rows = {row["arm"]: row for row in cells(report.write(study(broken={("cb", seed) for seed in (0, 1, 2)})), "## Comparison")}
    assert (rows["cb"]["n"], rows["cb"]["accuracy"], rows["cb"]["vs baseline"]) == ("[0/3](#runs)", "", "")


def test_one_seed_has_no_interval():
    """No ± anywhere in the comparison."""
    text = report.write(study(seeds=[3]))
    assert "One seed gives no interval" in text
    assert all("±" not in cell for row in cells(text, "## Comparison") for cell in row.values())


def test_labels_are_marked_and_explained_with_the_arms_numbers():
    """A short mark in the table; below it the meaning and every arm's own words."""
    text = report.write(study())
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert (rows["baseline"]["labels"], rows["cutmix"]["labels"], rows["reweight"]["labels"]) == ("L", "B", "")
    assert re.search(r"\*\*L\*\* \*lag\*, .*baseline and cb: 52\.6 % are still initial", text)
    assert re.search(r"\*\*B\*\* \*bundle\*, .*cutmix: mix and loss", text)


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
        ("test/worst", 100, 2, ["Differences are points of worst class"]),
    ],
)
def test_a_metric_is_told_in_its_own_unit(name, scale, decimals, words):
    """Nats as they are and fractions in percent, in the table, in its differences, in the caption and in the list of runs."""
    recorded = study()
    text = report.write(recorded, metric=name)
    comparison = text.split("## Comparison under")[0]
    assert all(word in comparison for word in words)
    assert ("Lower is better" in comparison) == ("Lower is better" in words)
    title = {"nll": "NLL", "ece": "ECE", "g_mean": "G-mean", "worst": "worst class"}[name.removeprefix("test/")]
    values = recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name.removeprefix('test/')}")
    row = cells(text, "## Comparison")[1]
    assert row[title].strip("*") == f"{scale * values['cb'].mean():.{decimals}f} ± {scale * values['cb'].std():.{decimals}f}"
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
    comparison = text.split("## Worst class")[0]
    assert "tau/best: seed 0 tau/0.5, seed 1 tau/1.0\n" in comparison
    assert "**C** *chosen*, each seed's run is another arm's" in comparison
    row = cells(text, "## Comparison")[3]
    assert (row["labels"], row["what changed"]) == ("C", "posthoc.tau: the best of 0.5, 1.0 by val/nll")
    assert [row["arm"] for row in cells(text, "### Time and epochs")] == ["baseline", "tau/0.5", "tau/1.0", "all arms"]
    assert "Sharing saved 3 min 00 s" in text


def test_published_figures_from_a_file(tmp_path):
    """A column per report with its gap; rows that fit no arm are listed."""
    (tmp_path / "published.csv").write_text("report,arm,accuracy\nB,cb+mixup,0.9\nB,unheard|of,0.5\n")
    recorded = study()
    text = report.write(recorded, references=tmp_path / "published.csv")
    row = next(row for row in cells(text, "## Comparison") if row["arm"].startswith("mixup"))
    ours = report.tidy_frames(recorded).arms.set_index("arm").loc["mixup", "accuracy_mean"]
    assert row["B"] == "90.00"
    assert numbers(row["B gap"]) == pytest.approx([100 * ours - 90], abs=0.0051)
    assert "- B: unheard\\|of (50.00)" in text


def test_a_long_change_is_cut_in_the_table_and_whole_below():
    """Three settings in the cell; every one in the list of changes, from what to what."""
    change = {f"loss.field{number}": [number, number + 1] for number in range(5)}
    text = report.write(study([arm("baseline", None), arm("many", "baseline", change=change)], seeds=[0]))
    assert cells(text, "## Comparison")[1]["what changed"].endswith("; and 2 more")
    rows = cells(text, "### Changes")
    assert [(row["setting"], row["from"], row["to"]) for row in rows] == [(f"loss.field{n}", str(n), str(n + 1)) for n in range(5)]


def test_the_best_of_each_column_is_bold():
    """By the metric's direction, ties too; an arm with fewer runs than planned is never the best."""
    recorded = shifted({"up": 0.05, "down": -0.05})
    text = report.write(recorded, metric="nll")
    rows = {row["arm"]: row for row in cells(text, "## Comparison")}
    assert [name for name, row in rows.items() if row["accuracy"].startswith("**")] == ["up"]
    nll = recorded.runs.groupby("arm")["test/nll"].mean()
    assert [name for name, row in rows.items() if row["NLL"].startswith("**")] == [nll.idxmin()]
    assert all(row["medium"] == "–" for row in rows.values())
    recorded.runs = recorded.runs[(recorded.runs["arm"] != "up") | (recorded.runs["seed"] > 0)]
    rows = {row["arm"]: row for row in cells(report.write(recorded), "## Comparison")}
    assert [name for name, row in rows.items() if row["accuracy"].startswith("**")] == ["baseline"]


def test_only_changed_gives_each_setting_a_column():
    """Every setting that differs between the arms shown, with each arm's value: its own, or that of the arm above it."""
    text = report.write(study(), only_changed=True)
    rows = {row["arm"].split()[0]: row for row in cells(text, "## Comparison")}
    assert "what changed" not in rows["cb"]
    assert [rows[name]["sampler.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["shuffle", *["class_balanced"] * 3]
    assert [rows[name]["mix.name"] for name in ("baseline", "cb", "mixup", "cutmix")] == ["none", "none", "mixup", "cutmix"]
    assert [rows[name]["mix.alpha"] for name in ("cb", "mixup")] == ["–", "0.4"]
    assert "average.name" not in rows["cb"]
    rows = cells(report.write(study(), only_changed=True, arms=["baseline", "mixup"]), "## Comparison")
    assert {"sampler.name", "mix.name", "mix.alpha"} < set(rows[0])
    rows = cells(report.write(study(), only_changed=True, arms=["cb", "reweight"]), "## Comparison")
    assert not {"sampler.name", "mix.name"} & set(rows[0])


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
