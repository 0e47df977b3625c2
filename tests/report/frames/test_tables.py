"""The frames hold what the store holds, once each and in the plan's order."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support

from ablation import report
from ablation.errors import StoreError
from ablation.report.frames import tables
from tests.report.studies import CLASSES, LADDER, arm, study


def test_frames_follow_the_plan():
    """Every planned arm and seed has its row, in the plan's order, whatever became of it."""
    frames = report.tidy_frames(study(broken={("cb", 1)}, absent={("mixup", 2)}))
    assert list(frames.arms["arm"]) == [planned["name"] for planned in LADDER]
    assert list(zip(frames.runs["arm"], frames.runs["seed"], strict=True)) == [
        (planned["name"], seed) for planned in LADDER for seed in (0, 1, 2)
    ]
    states = frames.runs.set_index(["arm", "seed"])["state"]
    assert (states["cb", 1], states["mixup", 2], states["cb", 0]) == ("failed", "missing", "done")
    assert frames.arms.set_index("arm").loc["cb", ["n", "planned"]].tolist() == [2, 3]


def test_per_class_is_the_mean_of_sklearn_over_seeds():
    """Each figure is the mean over seeds of sklearn's, and its deviation the sample's."""
    recorded = study()
    frames = report.tidy_frames(recorded)
    ids = frames.runs[frames.runs["arm"] == "cb"]["run_id"]
    expected = np.array([precision_recall_fscore_support(recorded.tables[i]["label"], recorded.tables[i]["predicted"]) for i in ids])
    rows = frames.per_class[frames.per_class["arm"] == "cb"]
    assert list(rows["class"]) == list(CLASSES)
    for number, figure in enumerate(("precision", "recall", "f1")):
        assert rows[figure].to_numpy() == pytest.approx(expected[:, number].mean(axis=0))
        assert rows[f"{figure}_sd"].to_numpy() == pytest.approx(expected[:, number].std(axis=0, ddof=1))
    assert rows["support"].tolist() == expected[0, 3].tolist()


def test_confusion_is_summed_over_the_seeds_that_are_done():
    """Three seeds of 160 images make 480, and a failed one is not in them."""
    frames = report.tidy_frames(study(broken={("cb", 1)}))
    assert frames.confusion["baseline"].sum() == 480
    assert frames.confusion["cb"].sum() == 320


def test_an_arm_without_runs_of_its_own_shows_those_of_its_twin():
    """Arms that resolve alike are one training, so both names have its numbers."""
    frames = report.tidy_frames(study(absent={("reweight", seed) for seed in (0, 1, 2)}))
    arms = frames.arms.set_index("arm")
    assert arms.loc["reweight", "accuracy_mean"] == arms.loc["cb", "accuracy_mean"]
    assert arms.loc["reweight", "n"] == 3


def test_an_arm_with_some_runs_shows_those_of_its_twin_for_other_seeds():
    """Whichever of both names has them."""
    frames = report.tidy_frames(study(absent={("reweight", 0), ("cb", 2)}))
    runs = frames.runs[frames.runs["state"] == "done"].set_index(["arm", "seed"])["run_id"]
    assert runs["reweight", 0] == runs["cb", 0]
    assert runs["cb", 2] == runs["reweight", 2]
    assert runs["cb", 1] != runs["reweight", 1]


def test_an_empty_group_is_nan_and_published_figures_have_gaps():
    """No class is medium; the gap is ours minus theirs in points."""
    arms = report.tidy_frames(study()).arms.set_index("arm")
    assert arms["medium_mean"].isna().all()
    assert arms.loc["baseline", "published/A"] == pytest.approx(0.8422)
    assert arms.loc["baseline", "gap/A_points"] == pytest.approx(100 * arms.loc["baseline", "accuracy_mean"] - 84.22)
    assert math.isnan(arms.loc["cb", "published/A"])


def test_nothing_done_yet_gives_empty_frames():
    """A study whose runs are all missing has its arms, and no numbers."""
    recorded = study([arm("baseline", None)], absent={("baseline", seed) for seed in (0, 1, 2)})
    assert recorded.runs.empty
    frames = report.tidy_frames(recorded)
    assert frames.arms.loc[0, "n"] == 0
    assert frames.arms["accuracy_mean"].isna().all()
    assert frames.per_class.empty
    assert frames.curves.empty
    assert not frames.confusion


def test_every_final_metric_is_compared():
    """Each has its mean over seeds and its difference to the parent, without naming them."""
    recorded = study()
    arms = report.tidy_frames(recorded).arms.set_index("arm")
    by_seed = {name: recorded.runs.pivot(index="seed", columns="arm", values=f"test/{name}") for name in ("worst", "g_mean", "nll", "ece")}
    for name, values in by_seed.items():
        assert arms.loc["cb", f"{name}_mean"] == pytest.approx(values["cb"].mean())
        scale, suffix = (1, "") if name == "nll" else (100, "_points")
        expected = scale * (values["cb"] - values["baseline"]).mean()
        assert arms.loc["cb", f"{name}_vs_parent{suffix}"] == pytest.approx(expected)


def test_a_choice_names_whose_runs_it_has():
    """Each run has the arm that it is of, and the arm all of them by seed; others have nothing there."""
    arms = [arm("baseline", None), arm("tau/1", "baseline"), arm("tau/best", "baseline")]
    chosen = {("tau/best", 0): "tau/1", ("tau/best", 2): "baseline"}
    frames = report.tidy_frames(study(arms, broken={("tau/best", 1)}, chosen=chosen))
    assert frames.arms["chosen"].tolist() == ["", "", "seed 0 tau/1, seed 2 baseline"]
    assert frames.runs.set_index(["arm", "seed"])["chosen"]["tau/best"].tolist() == ["tau/1", "", "baseline"]


def test_curves_are_told_by_arm_and_seed():
    """Every point of every done run's training and validation curves, and no other metric's."""
    recorded = study(steps=4)
    extra = pd.DataFrame([(recorded.points["run_id"][0], "test/accuracy", 0, 0.5)], columns=recorded.points.columns)
    recorded.points = pd.concat([recorded.points, extra])
    curves = report.tidy_frames(recorded).curves
    assert len(curves) == len(LADDER) * 3 * 2 * 4
    assert set(curves["metric"]) == {"train/loss", "val/accuracy"}


def test_intervals_and_verdicts_of_the_chosen_metric_stand_beside_the_arms():
    """The chosen metric's 95 % intervals and verdicts are those of the differences; no other metric's are there."""
    recorded = study(seeds=range(6), broken={("cb", 1)})
    frames = tables.tidy_frames(recorded, metric="test/macro_f1")
    arms = frames.arms.set_index("arm")
    values = frames.runs.pivot(index="seed", columns="arm", values="test/macro_f1")
    for name, role in (("cb", "parent"), ("mixup", "parent"), ("mixup", "baseline")):
        gains = 100 * (values[name] - values[arms.loc[name, role]]).dropna()
        interval = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
        assert tuple(arms.loc[name, [f"macro_f1_vs_{role}_low_points", f"macro_f1_vs_{role}_high_points"]]) == pytest.approx(
            tuple(interval)
        )
    rows = frames.differences[(frames.differences["metric"] == "macro_f1") & (frames.differences["role"] == "parent")].set_index("arm")
    assert arms.loc[rows.index, "verdict_vs_parent"].tolist() == rows["verdict"].tolist()
    assert arms.loc["baseline", "verdict_vs_parent"] == arms.loc["baseline", "verdict_vs_baseline"] == ""
    assert not [column for column in arms if "_low" in column and not column.startswith("macro_f1")]


def test_nll_has_no_points():
    """The ends of an interval of the NLL are nats, and their columns do not say points."""
    arms = tables.tidy_frames(study(), metric="test/nll").arms.set_index("arm")
    assert arms.loc["cb", "nll_vs_parent_low"] < arms.loc["cb", "nll_vs_parent"] < arms.loc["cb", "nll_vs_parent_high"]
    assert not [column for column in arms if column.startswith("nll") and column.endswith("points")]


def test_an_arm_names_its_runs():
    """The ids of the runs that its numbers come from, joined with spaces; failed ones are not among them."""
    frames = report.tidy_frames(study(broken={("cb", 1)}))
    ids = frames.runs[(frames.runs["arm"] == "cb") & (frames.runs["state"] == "done")]["run_id"]
    assert frames.arms.set_index("arm").loc["cb", "runs"].split(" ") == ids.tolist()
    assert len(ids) == 2


def test_arms_that_are_not_shown_still_count():
    """With some arms shown, their differences, corrections and test images' intervals are those of the whole study's report."""
    recorded = study(seeds=range(4))
    whole, part = tables.tidy_frames(recorded), tables.tidy_frames(recorded, ["mixup", "no-lag/cb"])
    assert (whole.differences["tests"] > 1).any()
    for name in ("arms", "differences", "class_differences", "image_differences", "mcnemar", "calibration"):
        expected, shown = getattr(whole, name), getattr(part, name)
        expected = expected[expected["arm"].isin(shown["arm"])].reset_index(drop=True)
        assert not shown.empty
        pd.testing.assert_frame_equal(shown, expected, check_dtype=False)
    assert set(part.differences["against"]) == {"cb", "baseline", "no-lag/baseline"}
    pd.testing.assert_frame_equal(part.attribution, whole.attribution)
    assert list(part.confusion) == ["mixup", "no-lag/cb"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(None, ["baseline", "cb"]), (["no-lag/baseline", "no-lag/cb"], ["baseline", "cb"]), (["no-lag/cb"], ["cb"]), (["cb"], [])],
)
def test_conditions_are_shown_by_their_own_arms(shown, expected):
    """The side-by-side rows are those of the condition's arms that are shown, whether the plain ones are or not."""
    arms = [{**planned, "condition": "no-lag" if planned["kind"] == "condition" else ""} for planned in LADDER]
    whole, part = (tables.tidy_frames(study(arms, seeds=range(4)), names).conditions for names in (None, shown))
    rows = part[part["metric"] == "accuracy"]
    assert rows["arm"].tolist() == expected
    same = whole[whole["arm"].isin(expected)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, same, check_dtype=False)


def without_predictions(recorded, *broken):
    """The study whose runs of these arms and seeds have lost their predictions."""
    ids = recorded.runs.set_index(["arm", "seed"])["run_id"]
    lost, predictions = {ids[place] for place in broken}, recorded.predictions

    def read(run_id):
        if run_id in lost:
            raise StoreError(f"the run {run_id[:8]} has no artifact predictions.parquet")
        return predictions(run_id)

    recorded.predictions = read
    return recorded, ids


def test_a_run_whose_predictions_are_lost_is_left_out_where_they_are_needed():
    """Its metrics still count; tables of classes and images are of the other runs, and the frames tell which could not be read."""
    recorded, ids = without_predictions(study(absent={("reweight", s) for s in (0, 1, 2)}), ("cb", 1), *(("mixup", s) for s in (0, 1, 2)))
    part, whole = tables.tidy_frames(recorded), tables.tidy_frames(study(absent={("reweight", s) for s in (0, 1, 2)}))
    why = f"the run {ids['cb', 1][:8]} has no artifact predictions.parquet"
    assert [run for run in part.unreadable if not run.startswith("mixup")] == [f"cb seed 1: {why}", f"reweight seed 1: {why}"]
    assert len(part.unreadable) == 5
    pd.testing.assert_frame_equal(part.differences, whole.differences)
    pd.testing.assert_frame_equal(part.arms, whole.arms)
    assert part.per_class.groupby("arm", sort=False)["n"].first().to_dict() == {
        "baseline": 3, "cb": 2, "cutmix": 3, "reweight": 2, "no-lag/baseline": 3, "no-lag/cb": 3,
    }  # fmt: skip
    assert "mixup" not in part.confusion
    assert set(part.mcnemar.query("arm == 'cb'")["seed"]) == {0, 2}
    assert set(part.class_differences.query("arm == 'cb'")["pairs"]) == {2}
    assert whole.unreadable == []


def test_unreadable_predictions_of_a_partner_that_is_not_shown_are_told():
    """They are missing in what is shown."""
    recorded, _ = without_predictions(study(), ("baseline", 0), ("no-lag/cb", 0))
    assert [run.partition(":")[0] for run in tables.tidy_frames(recorded, ["cb"]).unreadable] == ["baseline seed 0"]


def test_a_class_without_test_images_has_no_recall():
    """Its precision, recall, F1 and differences are NaN and its support 0; the macro average is over the others."""
    recorded = study()
    for run_id, table in recorded.tables.items():
        recorded.tables[run_id] = table[table["label"] != 3].reset_index(drop=True)
    frames = tables.tidy_frames(recorded)
    rows = frames.per_class[frames.per_class["arm"] == "cb"].set_index("class")
    last = rows.loc[CLASSES[3]]
    assert last[["precision", "precision_sd", "recall", "recall_sd", "f1", "f1_sd"]].isna().all()
    assert last["support"] == 0
    macro = frames.averages.query("arm == 'cb' and average == 'macro avg'").iloc[0]
    for figure in ("precision", "recall", "f1"):
        assert macro[figure] == pytest.approx(rows.loc[list(CLASSES[:3]), figure].mean())
    lost = frames.class_differences[frames.class_differences["class"] == CLASSES[3]]
    assert (lost["pairs"] == 0).all()


def test_every_table_is_there_for_every_study():
    """One seed, no common seeds, or nothing done: each frame has its columns and no more rows than there is to say."""
    names = [
        field.name
        for field in dataclasses.fields(tables.Frames)
        if field.name not in ("confusion", "recalls", "runs", "unreadable", "predictions")
    ]
    full = tables.tidy_frames(study())
    alone = [arm("baseline", None)]
    for recorded in (
        study(seeds=(3,)),
        study(absent={("baseline", 0), ("cb", 1), ("cb", 2)}),
        study(alone, absent={("baseline", s) for s in (0, 1, 2)}),
    ):
        frames = tables.tidy_frames(recorded)
        for name in names:
            columns = [column for column in getattr(full, name) if not column.startswith(("published/", "gap/"))]
            assert [column for column in getattr(frames, name) if not column.startswith(("published/", "gap/"))] == columns, name
    single = tables.tidy_frames(study(seeds=(3,)))
    assert set(single.differences[single.differences["metric"] == "accuracy"]["verdict"]) == {"inconclusive"}
    assert single.differences[["low", "high", "p_t", "p_flip", "seeds_needed"]].isna().all(axis=None)
    assert single.image_differences["low"].notna().all()  # the images' doubt needs no second seed


def test_predictions_are_read_once():
    """However many tables are made of a run, its predictions are read a single time, those of arms not shown only if they are partners."""
    recorded, read_runs = study(), []
    predictions = recorded.predictions
    recorded.predictions = lambda run_id: read_runs.append(run_id) or predictions(run_id)
    tables.tidy_frames(recorded)
    assert len(read_runs) == len(set(read_runs)) == len(LADDER) * 3
    read_runs.clear()
    tables.tidy_frames(recorded, ["mixup"])
    runs = recorded.runs.set_index("run_id")
    assert sorted(runs.loc[read_runs, "arm"].unique()) == ["baseline", "cb", "mixup"]


def test_processes_beside_this_one_find_the_same(monkeypatch):
    """Statistics of many runs are computed in several processes; every frame is equal, its types included."""
    recorded = study()
    here = report.tidy_frames(recorded)
    monkeypatch.setattr(tables, "MANY_RUNS", 0)
    monkeypatch.setattr("ablation.system.beside.free_cores", lambda: 2)
    monkeypatch.setattr("threading.active_count", lambda: 1)
    beside = report.tidy_frames(recorded)
    for name, frame in vars(here).items():
        if isinstance(frame, pd.DataFrame):
            pd.testing.assert_frame_equal(frame, getattr(beside, name), check_exact=True)


def test_importing_the_report_imports_no_heavy_library():
    """The command's help has the report's formats without pandas, seaborn or matplotlib."""
    code = "import sys, ablation.report; sys.exit(any(name in sys.modules for name in ('pandas', 'seaborn', 'matplotlib', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
