"""Who gained and who paid, and what each rung is worth."""

import re

import pandas as pd
import pytest

from ablation import report
from ablation.report import figures
from ablation.report.frames.classes import on_common_seeds
from tests.report.studies import LADDER, arm, cells, numbers, study


def test_who_gained_and_who_paid():
    """Each class's mean difference of recall, a star where it withstands the correction, and the largest loss by name."""
    recorded = study(seeds=range(8))
    for seed in range(8):
        base, other = (
            recorded.tables[recorded.runs.query(f"arm == '{name}' and seed == {seed}")["run_id"].iloc[0]] for name in ("baseline", "cb")
        )
        other["predicted"] = base["predicted"].where(base["label"] != 0, 3)
        other.loc[other.index[40 + seed], "predicted"] = 0
    text = report.write(recorded)
    expected = report.tidy_frames(recorded).class_differences.query("arm == 'cb' and role == 'baseline'").set_index("class")
    row = next(row for row in cells(text, "### Recall of every class against the baseline") if row["arm"] == "cb")
    assert row["plane"] == f"{expected.loc['plane', 'mean']:+.2f}" + "\\*"
    assert numbers(row["two lines"]) == pytest.approx([expected.loc["two\nlines", "mean"]], abs=0.0051)
    assert re.search(r"The largest losses of a class: plane under cb -[^]]*\]; [^\n]* \(Holm over the arm's classes only\)\.", text)
    assert "after Holm's correction within the arm's family of comparisons" in text
    assert "No group's difference withstands the correction: " in text


def test_losses_by_the_t_test_only_say_so():
    """With three seeds no sign-flip test confirms a class's loss."""
    recorded = study(LADDER[:2])
    for seed in range(3):
        runs = recorded.runs[recorded.runs["seed"] == seed].set_index("arm")["run_id"]
        base, other = (recorded.tables[runs[name]] for name in ("baseline", "cb"))
        other["predicted"] = base["predicted"].where(base["label"] != 0, 3)
        other.loc[other.index[seed], "predicted"] = 0
    part = report.write(recorded).split("# Who gained, who paid\n")[1]
    assert re.match(r"\s*The largest losses of a class: plane under cb -[^\n]*\] \(t only\) \(Holm over", part)


def test_recalls_are_compared_on_common_seeds():
    """The table, the class with the lowest recall and the figure take the seeds that the arms share, and say which."""
    recorded = study(LADDER[:2], seeds=range(4), absent={("baseline", 2), ("cb", 0)})
    frames = report.tidy_frames(recorded)
    common = {arm: 100 * frame.loc[[1, 3]].mean() for arm, frame in frames.recalls.items()}
    text = report.write(recorded)
    section = text.split("\n## Classes\n")[1].split("\n## ")[0]
    assert "Recall in percent; of seeds 1, 3, which all of these arms have." in section
    for row, name in zip(cells(text, "## Classes"), common["cb"].index, strict=True):
        assert [numbers(row[arm])[0] for arm in ("baseline", "cb")] == pytest.approx(
            [common[arm][name] for arm in ("baseline", "cb")], abs=0.0051
        )
    (page,) = (page for page in figures.pages(frames, recorded.plan, "accuracy") if page.what == "recall")
    assert page.title == "Recall by class: cb against baseline, seeds 1, 3"
    drawn = {round(float(x), 6) for line in page.draw().axes[0].lines for x in line.get_xdata()}
    assert {round(value, 6) for arm in common for value in common[arm]} <= drawn
    assert "which all of these arms have" not in report.write(study(LADDER[:2]))


def test_the_lowest_recall_is_that_of_common_seeds():
    """Under the best arm, beside the baseline's recall on the same seeds; alone where they share none."""
    recorded = study(LADDER[:2], seeds=range(4))
    is_extra = (recorded.runs["arm"] == "baseline") & (recorded.runs["seed"] == 3)
    recorded.plan["runs"] = [run for run in recorded.plan["runs"] if (run["arm"], run["seed"]) != ("cb", 3)]
    recorded.runs = recorded.runs[is_extra | (recorded.runs["seed"] < 3)]
    recorded.runs["test/accuracy"] = (recorded.runs["arm"] == "cb") + 0.1 * recorded.runs["seed"]
    recalls = {arm: 100 * frame.loc[[0, 1, 2]].mean() for arm, frame in report.tidy_frames(recorded).recalls.items()}
    worst = recalls["cb"].idxmin()
    line = next(line for line in report.write(recorded).splitlines() if "lowest recall under cb is that of" in line)
    assert numbers(line)[0] == pytest.approx(recalls["cb"][worst], abs=0.0051)
    assert numbers(line)[2] == pytest.approx(recalls["baseline"][worst], abs=0.0051)
    assert f"is that of class **{worst}**: " in line
    assert "under baseline), seeds 0-2; " in line
    losses = recalls["baseline"] - recalls["cb"]
    lost = losses.idxmax()
    assert f"; the largest loss is that of class **{lost}**: {recalls['baseline'][lost]:.2f} to {recalls['cb'][lost]:.2f}; see" in line
    apart = {"a": pd.DataFrame({"x": [0.1]}, index=[0]), "b": pd.DataFrame({"x": [0.2]}, index=[1])}
    assert list(on_common_seeds(apart, ["a", "b", "c"])) == ["a"]


def test_without_groups_nothing_is_said_of_them():
    """No line that lists them, no column, and nothing about which of them moved."""
    text = report.write(study(LADDER[:2], groups={"many": [], "medium": [], "few": []}))
    assert "Groups of classes" not in text
    assert "No group" not in text
    assert "Groups: " not in text
    assert set(cells(text, "### Who gained, who paid: every arm")[0]) == {"arm", "gained most", "lost most"}


def test_attribution_stands_side_by_side():
    """A column per way that the study has, one row per rung."""
    arms = [
        arm("baseline", None),
        arm("cb", "baseline"),
        arm("mixup", "cb"),
        arm("mixup/without-cb", "mixup", "drop_one", factors={"without": "cb"}),
        arm("mixup/without-mixup", "mixup", "drop_one", factors={"without": "mixup"}, same_as="cb"),
    ]
    recorded = study(arms)
    rows = cells(report.write(recorded), "## Attribution")
    frame = report.tidy_frames(recorded).attribution.query("metric == 'accuracy'")
    assert [row["rung"] for row in rows] == ["cb", "mixup"]
    last = frame[frame["way"] == "last out"].set_index("rung")["mean"]
    assert [numbers(row["last out"])[0] for row in rows] == pytest.approx([last["cb"], last["mixup"]], abs=0.0051)
    assert "## Attribution" not in report.write(study(arms[:3]))


def test_a_grid_has_shapley_values():
    """Beside the other ways, from the frame."""
    levels = {"cb": ("with", "without"), "mixup": ("without", "with"), "cb+mixup": ("with", "with")}
    grid = [
        arm(f"grid/{name}", "baseline", "grid", factors=dict(zip(("cb", "mixup"), values, strict=True))) for name, values in levels.items()
    ]
    recorded = study([arm("baseline", None), arm("cb", "baseline"), arm("mixup", "cb"), *grid])
    frame = report.tidy_frames(recorded).attribution.query("metric == 'accuracy' and way == 'shapley'").set_index("rung")
    rows = {row["rung"]: row for row in cells(report.write(recorded), "## Attribution")}
    for rung in ("cb", "mixup"):
        assert numbers(rows[rung]["shapley"])[0] == pytest.approx(frame.loc[rung, "mean"], abs=0.0051)


def test_rungs_of_other_test_images_have_two_values_and_no_difference():
    """Where other orders are told, too; the effects of a sweep have dashes."""
    points = [arm(f"rate/{rate}", "baseline", "sweep", factors={"rate": rate}, test_set=rate) for rate in ("low", "high")]
    ladder = [arm("baseline", None, test_set="x"), arm("cb", "baseline", test_set="y"), arm("mixup", "cb", test_set="y")]
    dropped = arm("mixup/without-cb", "mixup", "drop_one", factors={"without": "cb"}, test_set="y")
    recorded = study([*ladder, dropped, *points])
    text = report.write(recorded)
    row = cells(text, "## Attribution")[0]
    before, after = (100 * recorded.runs[recorded.runs["arm"] == name]["test/accuracy"].mean() for name in ("baseline", "cb"))
    assert (row["rung"], row["ladder"]) == ("cb", f"{before:.2f} → {after:.2f} (I)")
    assert len(numbers(row["last out"])) == 3
    assert "(I): the two arms were tested on other images: their means, and no difference." in text
    effect = cells(text, "### Effects of swept and crossed settings")[0]
    assert [effect[name] for name in ("difference", "pairs", "p t", "p Holm (t)")] == ["–", "0", "–", "–"]


def test_effects_of_a_sweep_are_told_where_its_arms_are_shown():
    """Each level against the first; not where only other arms are shown."""
    points = [arm(f"rate/{rate}", "baseline", "sweep", factors={"rate": rate}) for rate in ("low", "high")]
    recorded = study([arm("baseline", None), arm("cb", "baseline"), *points])
    row = cells(report.write(recorded), "### Effects of swept and crossed settings")[0]
    expected = report.tidy_frames(recorded).effects.query("metric == 'accuracy'").iloc[0]
    assert (row["sweep"], row["effect"]) == ("rate", "rate: high against low")
    assert numbers(row["difference"]) == pytest.approx([expected["mean"], expected["low"], expected["high"]], abs=0.0051)
    assert "Effects of swept" in report.write(recorded, arms=["rate/low"])
    assert "Effects of swept" not in report.write(recorded, arms=["cb"])


@pytest.mark.parametrize(
    ("more", "is_told"),
    [([arm("cb", "baseline")], True), ([], False), ([arm("cb", "baseline", "variant")], False),
     ([arm("cb", "baseline"), arm("cb/with-x", "baseline", "add_one")], False),
     ([arm("cb", "baseline"), arm("grid/x", "baseline", "grid")], False)],
)  # fmt: skip
def test_other_orders_are_offered_where_there_is_a_ladder_without_them(more, is_told):
    """Not where the ladder has no step, and not where the study asks for other orders already."""
    points = [arm(f"rate/{rate}", "baseline", "sweep", factors={"rate": rate}) for rate in ("low", "high")]
    text = report.write(study([arm("baseline", None), *more, *points], seeds=[0, 1]))
    assert "### Effects of swept" in text
    assert ("Only the ladder's own order was run" in text) == is_told


def test_losses_under_conditions_alone_are_told():
    """Where no plain arm is shown, those of conditions are looked at; else it says that they are not."""
    lost = "No class of any arm"
    arms = [
        *LADDER[:2],
        arm("no-lag/baseline", None, "condition", "no-lag/baseline"),
        arm("no-lag/cb", "no-lag/baseline", "condition", "no-lag/baseline"),
    ]
    recorded = study(arms, seeds=range(8))
    for run_id in recorded.runs.loc[recorded.runs["arm"] == "no-lag/cb", "run_id"]:
        table = recorded.tables[run_id]
        table.loc[table["label"] == 0, "predicted"] = 1
    text = report.write(recorded, arms=["no-lag/*"])
    assert lost not in text
    assert "The largest losses of a class: plane under no-lag/cb" in text
    assert f"{lost} outside conditions lost" in report.write(recorded)
