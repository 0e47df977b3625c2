"""What a study leaves in the store. N images, C classes."""

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file
from scipy import stats
from sklearn import metrics as sk

from ablation import report
from ablation.commands import run as run_command
from ablation.commands.options import Options
from ablation.running.recorder import contents, recorder, summaries, writer
from ablation.study.resolving import load_study
from ablation.study.task import load_task
from ablation.tracking.store import Store
from tests.tiny import BASE, InlineExecutor, write

SEEDS = [0, 1]
LAYERS = {
    "seeds": SEEDS,
    "ladder": {"baseline": {"label": "the first", "note": "as it is", "published": {"A": 84.22}}, "cb": {"sampler": "class_balanced"}},
    "variants": {
        "reweight": {"sampler": "class_balanced"},
        "head": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head"}]},
        "best": {"select": "best_on_test"},
    },
}
ARMS = ["baseline", "cb", "reweight", "head", "best"]


def run_study(file, **options):
    """`ablate run` within this process: the exit status and the executors that it made."""
    executors = []

    class Kept(InlineExecutor):
        def __init__(self, *args):
            super().__init__(*args)
            executors.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablation.running.executors.local.LocalExecutor", Kept)
        status = run_command.run(Options(file, device="cpu", jobs=1, **options))
    return status, sum(one.trained for one in executors)


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """A study that was run: its store, and its runs by (kind, arm, seed)."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "mlruns").mkdir()
    shutil.copyfile(empty_database, folder / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        data = {**BASE["data"], "validation": 0.1}
        status, _ = run_study(write(folder, base={"data": data}, **LAYERS))
        assert status == 0
        yield Store.open()


def by_name(store):
    runs_by_name = {}
    for run in store.runs_of("tiny"):
        runs_by_name.setdefault(
            (run["tags"]["ablation.kind"], run["tags"].get("ablation.arm"), run["tags"].get("ablation.seed")), []
        ).append(run)
    return runs_by_name


@pytest.fixture(scope="module")
def runs(study):
    runs_by_name = by_name(study)
    assert all(len(same) == 1 for same in runs_by_name.values()), "a run is there twice"
    return {name: same[0] for name, same in runs_by_name.items()}


def test_every_arm_and_seed_is_one_finished_run(runs):
    """One run per arm and seed, one summary per arm, one plan; all finished, arms that resolve alike included."""
    expected = (
        {("run", arm, str(seed)) for arm in ARMS for seed in SEEDS} | {("summary", arm, None) for arm in ARMS} | {("plan", None, None)}
    )
    assert runs.keys() == expected
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    assert runs["run", "cb", "0"]["tags"]["ablation.key"] == runs["run", "reweight", "0"]["tags"]["ablation.key"]


def test_runs_nest_one_level_under_their_arm(runs):
    """A run's parent is its arm's summary, which has none."""
    for (kind, arm, _), run in runs.items():
        parent = run["tags"].get("mlflow.parentRunId")
        assert parent == (runs["summary", arm, None]["run_id"] if kind == "run" else None)


def test_the_ladder_reads_from_the_top(study):
    """Summaries are created last arm first, since MLflow lists the newest first."""
    summaries = [run for run in study.runs_of("tiny") if run["tags"]["ablation.kind"] == "summary"]
    assert [run["tags"]["ablation.arm"] for run in sorted(summaries, key=lambda run: -run["start"])] == ARMS


def test_tags_say_what_a_run_is(runs):
    """Study, arm, seed, key, parent and change, with commit, versions, hardware, device and command."""
    tags = runs["run", "cb", "1"]["tags"]
    assert (tags["ablation.study"], tags["ablation.arm"], tags["ablation.seed"], tags["ablation.parent_arm"]) == (
        "tiny",
        "cb",
        "1",
        "baseline",
    )
    assert json.loads(tags["ablation.change"])["sampler.name"] == ["shuffle", "class_balanced"]
    assert {"ablation.key", "ablation.command", "ablation.version.torch", "ablation.version.timm", "ablation.hardware"} <= tags.keys()
    assert tags["ablation.device"].startswith("cpu")
    assert (tags["ablation.precision"], tags["ablation.step"], tags["ablation.statistical"]) == ("fp32", "plain", "no")
    assert tags["mlflow.runName"] == "cb seed 1"
    assert "the first" in runs["run", "baseline", "0"]["tags"]["mlflow.note.content"]


def test_params_are_the_settings_as_the_file_has_them(study, runs):
    """Dotted names down to each field, defaults included, so that MLflow can group by any of them; stages by their number."""
    client = study.client
    params = client.get_run(runs["run", "head", "1"]["run_id"]).data.params
    expected = {
        "arm": "head",
        "seed": "1",
        "optimizer.name": "adamw",
        "optimizer.lr": "0.003",
        "model.image_size": "16",
        "loss.name": "cross_entropy",
    }
    expected |= {"data.longtail.largest": "30", "augment.0.name": "affine", "stages.1.train": "head", "stages.1.epochs": "1"}
    assert expected.items() <= params.items()
    assert float(params["augment.0.degrees"]) == 10
    assert "stages.1.train" not in client.get_run(runs["run", "cb", "0"]["run_id"]).data.params
    assert "seed" not in client.get_run(runs["summary", "cb", None]["run_id"]).data.params


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_are_sklearns_on_the_predictions(study, runs, arm, seed):
    """What the store says of a run is what scikit-learn says of its predictions, as fractions, written once."""
    run = runs["run", arm, str(seed)]
    table = pd.read_parquet(study.artifact(run["run_id"], "predictions.parquet"))
    labels_N, predicted_N = table["label"], table["predicted"]
    every = {"labels": range(10), "zero_division": 0}
    runs_by_name = run["metrics"]
    assert runs_by_name["test/accuracy"] == pytest.approx(sk.accuracy_score(labels_N, predicted_N))
    assert runs_by_name["test/balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert runs_by_name["test/macro_f1"] == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro", **every))
    recall_C = sk.recall_score(labels_N, predicted_N, average=None, **every)
    assert [runs_by_name[f"test/recall/{c}"] for c in range(10)] == pytest.approx(recall_C.tolist())
    thirds = {"many": recall_C[:3], "medium": recall_C[3:7], "few": recall_C[7:]}  # the long tail falls with the class's number
    assert {name: runs_by_name[f"test/{name}"] for name in thirds} == pytest.approx(
        {name: values.mean() for name, values in thirds.items()}
    )
    np.testing.assert_array_equal(table.filter(like="logit/").to_numpy().argmax(1), predicted_N)
    assert len(study.client.get_metric_history(run["run_id"], "test/accuracy")) == 1


def test_curves_have_one_point_an_epoch(study, runs):
    """train/ and val/ have a point for each epoch of the whole chain, the shared stage included."""
    for arm in ARMS:
        points = study.curves(runs["run", arm, "0"]["run_id"])
        for name in ("train/loss", "train/lr", "val/accuracy", "val/balanced_accuracy", "val/loss"):
            assert [point.step for point in points if point.name == name] == [0, 1], (arm, name)
    rates = [point.value for point in study.curves(runs["run", "baseline", "0"]["run_id"]) if point.name == "train/lr"]
    assert rates == pytest.approx([3e-3, 1.5e-3])


def test_time_is_on_one_account(study, runs):
    """Epochs that arms share are the first arm's own, and shared for the others; all runs' own epochs are what was trained."""
    own, shared = ({arm: runs["run", arm, "0"]["metrics"][f"epochs/{whose}"] for arm in ARMS} for whose in ("own", "shared"))
    assert {arm: own[arm] for arm in ("baseline", "cb", "reweight", "best")} == {"baseline": 2, "cb": 2, "reweight": 0, "best": 0}
    trained = {path.parent.name for path in study.root.glob("stages/*/final.safetensors")}
    plan = json.loads(study.artifact(runs["plan", None, None]["run_id"], "plan.json").read_text())
    assert sum(own.values()) == sum(stage["epochs"] for stage in plan["stages"] if stage["seed"] == 0)
    assert {stage["key"] for stage in plan["stages"]} == trained
    assert {arm: own[arm] + shared[arm] for arm in ARMS} == dict.fromkeys(ARMS, 2)
    assert runs["run", "baseline", "0"]["metrics"]["time/own"] > 0 == runs["run", "baseline", "0"]["metrics"]["time/shared"]
    assert runs["run", "best", "0"]["metrics"]["time/own"] == 0 < runs["run", "best", "0"]["metrics"]["time/shared"]


def test_artifacts_are_those_of_the_contract(study, runs):
    """Each run has its settings, predictions, report, confusion matrix, class distribution and weights, and no pickle."""
    names = {file.path for file in study.client.list_artifacts(runs["run", "head", "1"]["run_id"])}
    assert names == {
        "config.yaml", "predictions.parquet", "classification_report.txt", "confusion_matrix.csv", "confusion_matrix.png",
        "class_distribution.csv", "class_distribution.png", "model.safetensors",
    }  # fmt: skip
    for arm in ARMS:
        config = yaml.safe_load(study.artifact(runs["run", arm, "1"]["run_id"], "config.yaml").read_text())
        assert (config["arm"], config["seed"]) == (arm, 1)
        assert config["settings"]["optimizer"]["lr"] == 3e-3
    assert [
        stage["train"] for stage in yaml.safe_load(study.artifact(runs["run", "head", "0"]["run_id"], "config.yaml").read_text())["stages"]
    ] == ["all", "head"]


def test_the_tables_say_what_the_predictions_say(study, runs):
    """The confusion matrix counts the predictions, and the class distribution the images of training and test."""
    run_id = runs["run", "cb", "0"]["run_id"]
    table = pd.read_parquet(study.artifact(run_id, "predictions.parquet"))
    matrix = pd.read_csv(study.artifact(run_id, "confusion_matrix.csv"), index_col=0)
    np.testing.assert_array_equal(matrix.to_numpy(), sk.confusion_matrix(table["label"], table["predicted"], labels=range(10)))
    counts = pd.read_csv(study.artifact(run_id, "class_distribution.csv"))
    np.testing.assert_array_equal(counts["test"], np.bincount(table["label"], minlength=10))
    assert counts["train"].iloc[0] == 27  # 30 less a tenth for the validation
    assert counts["train"].is_monotonic_decreasing


def test_weights_are_those_that_were_tested(study, runs):
    """An arm's weights are its own average's; arms that were tested with the same weights have one file under two names."""
    files = {arm: study.artifact(runs["run", arm, "0"]["run_id"], "model.safetensors") for arm in ARMS}
    assert files["cb"].stat().st_ino == files["reweight"].stat().st_ino
    assert load_file(files["baseline"]).keys() == load_file(files["head"]).keys()
    assert not np.array_equal(load_file(files["baseline"])["classifier.weight"], load_file(files["head"])["classifier.weight"])


def test_the_data_set_is_named_with_its_digest(study, runs):
    """MLflow's data set carries our digest, the same for all arms of a seed and another for another seed."""

    def digest(arm, seed):
        (one,) = study.client.get_run(runs["run", arm, str(seed)]["run_id"]).inputs.dataset_inputs
        return one.dataset.name, one.dataset.digest

    assert digest("baseline", 0) == digest("cb", 0)
    assert digest("baseline", 0)[0] == "digits"
    assert digest("baseline", 0)[1] != digest("baseline", 1)[1]


def test_summaries_are_bars_in_percent_and_points(study, runs):
    """An arm's summary holds n, mean, sd and differences with intervals in percent and points, at step 0, and the report's verdict."""
    verdicts = report.tidy_frames(study.recorded("tiny")).arms.set_index("arm")["verdict_vs_parent"]
    accuracy = {(arm, seed): 100 * runs["run", arm, str(seed)]["metrics"]["test/accuracy"] for arm in ARMS for seed in SEEDS}
    parents = {"cb": "baseline", "reweight": "baseline", "head": "baseline", "best": "baseline"}
    for arm in ARMS:
        run = runs["summary", arm, None]
        values = [accuracy[arm, seed] for seed in SEEDS]
        assert run["metrics"]["summary/n"] == 2
        assert run["metrics"]["summary/accuracy_pct"] == pytest.approx(np.mean(values))
        assert run["metrics"]["summary/accuracy_sd_points"] == pytest.approx(np.std(values, ddof=1))
        if arm in parents:
            expected = np.mean([accuracy[arm, seed] - accuracy[parents[arm], seed] for seed in SEEDS])
            assert run["metrics"]["delta/parent_accuracy_points"] == pytest.approx(expected)
            assert run["metrics"]["delta/baseline_accuracy_points"] == pytest.approx(expected)
            pairs = ([accuracy[arm, seed] for seed in SEEDS], [accuracy[parents[arm], seed] for seed in SEEDS])
            interval = stats.ttest_rel(*pairs).confidence_interval(0.95) if np.ptp(np.subtract(*pairs)) > 1e-9 else (np.nan, np.nan)
            for role, (end, value) in product(("parent", "baseline"), zip(("low", "high"), interval, strict=True)):
                assert run["metrics"][f"uncertainty/{role}_accuracy_{end}_points"] == pytest.approx(value, nan_ok=True)
            assert run["metrics"]["uncertainty/parent_accuracy_pairs"] == 2
            assert run["tags"]["ablation.verdict"] == verdicts[arm]
        else:
            assert run["tags"]["ablation.verdict"] == ""
            assert all(np.isnan(value) for name, value in run["metrics"].items() if name.startswith(("delta/", "uncertainty/")))
        for name in run["metrics"]:
            assert {point.step for point in study.client.get_metric_history(run["run_id"], name)} == {0}


def test_a_summary_has_a_note_and_a_picture(study, runs):
    """The note tells the one change, the seeds and the verdict; the picture, shown in MLflow's grid, is there once, of the right matrix."""
    for arm in ARMS:
        run = runs["summary", arm, None]
        note, verdict = run["tags"]["mlflow.note.content"], run["tags"]["ablation.verdict"]
        assert "Seeds: 2" in note
        assert verdict == "" or f"Seeds: 2; balanced accuracy against baseline: **{verdict}**" in note
        pictures = {file.path for file in study.client.list_artifacts(run["run_id"], "images")}
        assert sorted(name.rpartition(".")[2] for name in pictures) == ["png", "webp"]
        assert run["tags"]["mlflow.loggedImages"] == "True"
    assert "Change (against baseline): sampler class_balanced" in runs["summary", "cb", None]["tags"]["mlflow.note.content"]
    assert "selected on test" in runs["summary", "best", None]["tags"]["mlflow.note.content"]
    same, other = (runs["summary", arm, None]["tags"]["ablation.pictured"] for arm in ("reweight", "head"))
    assert runs["summary", "cb", None]["tags"]["ablation.pictured"] == same != other


def test_the_duration_of_a_summary_is_what_was_trained_for_it(runs):
    """A summary ends as many seconds after its start as its arm's runs trained on their own account."""
    for arm in ARMS:
        own = sum(runs["run", arm, str(seed)]["metrics"]["time/own"] for seed in SEEDS)
        assert runs["summary", arm, None]["end"] - runs["summary", arm, None]["start"] == pytest.approx(1000 * own, abs=1)


def test_mlflow_opens_with_the_right_columns(study):
    """The prepared view shows the arms only, by metrics that they have; the study opens among the trainings."""
    tags = study.client.get_experiment_by_name("tiny").tags
    view = json.loads(tags[f"mlflow.sharedViewState.{recorder.VIEW}"])
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    runs_by_name = study.client.search_runs([study.experiment("tiny")], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert [run.info.run_name for run in runs_by_name] == ARMS
    metrics = [name.split("`")[1] for name in view["selectedColumns"] if name.startswith("metrics.")]
    assert set(metrics) <= runs_by_name[0].data.metrics.keys()
    assert "tags.`ablation.verdict`" in view["selectedColumns"]
    assert "ablation.verdict" in runs_by_name[0].data.tags


def test_the_plan_is_recorded_with_its_file(study, runs):
    """The study's own run holds the plan as data and the file as it was."""
    plan = json.loads(study.artifact(runs["plan", None, None]["run_id"], "plan.json").read_text())
    assert [arm["name"] for arm in plan["arms"]] == ARMS
    assert plan["arms"][0]["published"] == {"A": 84.22}
    assert {run["key"] for run in plan["runs"]} == {run["tags"]["ablation.key"] for (kind, *_), run in runs.items() if kind == "run"}
    assert {"command", "created", "provenance", "file"} <= plan.keys()
    written = study.artifact(runs["plan", None, None]["run_id"], "experiments.yaml")
    assert yaml.safe_load(written.read_text())["ladder"].keys() == LAYERS["ladder"].keys()


# --- again, and again after failures -------------------------------------------------------------------------------------------


def one_arm(folder, **more):
    return write(folder, variants={"cb": {"sampler": "class_balanced"}}, **more)


def test_what_is_recorded_is_not_recorded_again(folder):
    """A second run trains nothing, makes no run, and leaves points, times and states as they are."""
    file = one_arm(folder)
    assert run_study(file) == (0, 4)
    before = repr(by_name(Store.open()))  # in which a metric that is no number equals itself
    assert run_study(file) == (0, 0)
    assert repr(by_name(Store.open())) == before


def test_what_verdicts_depend_on_is_told_without_training(folder):
    """Another margin changes a verdict, and an arm's note its text: with nothing to train, the summaries follow."""
    variants = {"cb": {"sampler": "class_balanced"}}
    told = []
    for margin, note in ((100, "as it was"), (1, "as it was"), (1, "reworded")):
        file = write(folder, seeds=[0, 1, 2], margin=margin, ladder={"baseline": {"note": note}}, variants=variants)
        _, trained = run_study(file)
        runs_by_name = by_name(Store.open())
        verdict = report.tidy_frames(Store.open().recorded("tiny")).arms.set_index("arm").loc["cb", "verdict_vs_parent"]
        assert runs_by_name["summary", "cb", None][0]["tags"]["ablation.verdict"] == verdict
        assert f"\n\n{note}\n\n" in runs_by_name["summary", "baseline", None][0]["tags"]["mlflow.note.content"]
        told.append((trained, verdict))
    assert [trained for trained, _ in told] == [12, 0, 0]
    assert told[0][1] != told[1][1]


def test_summaries_are_the_newest_though_a_clock_was_ahead(folder, monkeypatch):
    """MLflow shows the number with the latest time, and the host that recorded before may have been ahead."""
    with monkeypatch.context() as patch:
        clock = summaries.now
        patch.setattr(summaries, "now", lambda: clock() + 600_000)
        assert run_study(one_arm(folder, seeds=[0]))[0] == 0
    assert run_study(one_arm(folder, seeds=[0, 1]))[0] == 0
    runs_by_name = by_name(Store.open())
    assert [runs_by_name["summary", arm, None][0]["metrics"]["summary/n"] for arm in ("baseline", "cb")] == [2, 2]


def test_arms_with_other_test_images_are_not_judged(folder):
    """The summary says what the report says."""
    variants = {"other": {"data.test": 0.3}, "cb": {"sampler": "class_balanced"}}
    assert run_study(write(folder, seeds=SEEDS, variants=variants, base={"epochs": 1}))[0] == 0
    runs_by_name = by_name(Store.open())
    verdicts = {arm: runs_by_name["summary", arm, None][0]["tags"]["ablation.verdict"] for arm in variants}
    arms = report.tidy_frames(Store.open().recorded("tiny")).arms.set_index("arm")
    assert verdicts == {arm: arms.loc[arm, "verdict_vs_parent"] for arm in variants}
    assert verdicts["other"] == "not comparable (other test items)"


def test_another_metric_trains_nothing_and_leads_from_then_on(folder):
    """Columns, differences, verdicts and notes of the arms go by it, and the plan says which it is and why."""
    assert run_study(one_arm(folder, seeds=SEEDS))[0] == 0
    _, trained = run_study(one_arm(folder, seeds=SEEDS, metric="kappa"))
    store = Store.open()
    runs_by_name = by_name(store)
    (summary,) = runs_by_name["summary", "cb", None]
    kappa = {arm: [runs_by_name["run", arm, str(seed)][0]["metrics"]["test/kappa"] for seed in SEEDS] for arm in ("baseline", "cb")}
    view = json.loads(store.client.get_experiment_by_name("tiny").tags[f"mlflow.sharedViewState.{recorder.VIEW}"])
    columns = [name.split("`")[1] for name in view["selectedColumns"] if name.startswith("metrics.")]
    plan = store.recorded("tiny").plan
    verdict = report.tidy_frames(store.recorded("tiny")).arms.set_index("arm").loc["cb", "verdict_vs_parent"]
    assert trained == 0
    assert (plan["metric"], plan["metric_reason"]) == ("test/kappa", "set in the file")
    assert columns[:3] == ["summary/kappa", "delta/parent_kappa", "delta/baseline_kappa"]
    assert set(columns) <= summary["metrics"].keys()
    assert summary["metrics"]["summary/kappa"] == pytest.approx(np.mean(kappa["cb"]))
    assert summary["metrics"]["delta/parent_kappa"] == pytest.approx(np.mean(np.subtract(kappa["cb"], kappa["baseline"])))
    assert summary["tags"]["ablation.verdict"] == verdict
    assert "Cohen's kappa against baseline: **" in summary["tags"]["mlflow.note.content"]
    assert "Verdicts go by Cohen's kappa (set in the file)." in store.client.get_experiment_by_name("tiny").tags["mlflow.note.content"]


def test_a_metric_that_no_run_has_leaves_arms_unjudged(folder, capsys):
    """The command says so, and so does each summary where its verdict was."""
    file = one_arm(folder, seeds=SEEDS)
    assert run_study(file)[0] == 0
    with contextlib.closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"delete from {table} where key = 'test/kappa'")
    Store.open().touch(Store.open().experiment("tiny"))
    capsys.readouterr()
    assert run_study(one_arm(folder, seeds=SEEDS, metric="kappa")) == (0, 0)
    assert "note: 4 of 4 recorded runs have no Cohen's kappa; --rerun cached tests them again" in capsys.readouterr().err
    runs_by_name = by_name(Store.open())
    verdicts = {arm: runs_by_name["summary", arm, None][0]["tags"]["ablation.verdict"] for arm in ("baseline", "cb")}
    assert verdicts == {"baseline": "", "cb": "not judged: no run of cb has Cohen's kappa"}


def test_the_file_as_it_was_stays(folder):
    """Editing the study's file in place does not change the copy that was recorded."""
    file = one_arm(folder)
    run_study(file, arms=("baseline",))
    (recorded,) = (folder / "mlruns" / "artifacts").rglob("experiments.yaml")
    with file.open("a") as more:
        more.write("\n# edited\n")
    assert "edited" not in recorded.read_text()


def failing(monkeypatch, times):
    """The store's writing fails so many times; how often it was asked."""
    asked, real = [], Store.write

    def write_or_fail(store, *args, **kwargs):
        asked.append(1)
        if len(asked) <= times:
            raise MlflowException("database is locked\nby somebody")
        return real(store, *args, **kwargs)

    monkeypatch.setattr(Store, "write", write_or_fail)
    return asked


def test_a_store_that_fails_for_a_moment_loses_nothing(folder, monkeypatch, capfd):
    """Writing is tried again, and everything is recorded once."""
    monkeypatch.setattr(writer, "WAITS", (0.0, 0.0, 0.0))
    failing(monkeypatch, 3)
    assert run_study(one_arm(folder)) == (0, 4)
    assert "not recorded" not in capfd.readouterr().err
    assert all(len(same) == 1 and same[0]["status"] == "FINISHED" for same in by_name(Store.open()).values())


def test_a_store_that_stays_away_loses_nothing(folder, monkeypatch, capfd):
    """Training goes on without the store; the status is 1, the message says where the results are, and the same command records them."""
    monkeypatch.setattr(writer, "WAITS", (0.0, 0.0, 0.0))
    with monkeypatch.context() as patch:
        failing(patch, 10_000)
        assert run_study(one_arm(folder)) == (1, 4)
        said = capfd.readouterr().err
        assert "not recorded yet: database is locked;" in said
        assert said.count("not recorded yet") == 1
    assert run_study(one_arm(folder)) == (0, 0)
    runs_by_name = by_name(Store.open())
    assert all(len(same) == 1 and same[0]["status"] == "FINISHED" for same in runs_by_name.values())
    assert runs_by_name["run", "cb", "0"][0]["metrics"]["test/accuracy"] > 0


def test_a_store_that_stays_away_is_not_waited_for_by_each_write(folder, monkeypatch):
    """Only the first write that fails is tried several times."""
    slept, sleep = [], time.sleep

    def noted(seconds):
        is_waiting = threading.current_thread().name == "recorder" and seconds >= min(writer.WAITS)  # git is waited for in small steps
        slept.append(seconds) if is_waiting else sleep(seconds)

    monkeypatch.setattr(writer.time, "sleep", noted)
    failing(monkeypatch, 10_000)
    run_study(one_arm(folder))
    assert slept == list(writer.WAITS)


def test_runs_that_nobody_runs_are_closed(folder):
    """A run left RUNNING by a killed command is KILLED by the next one, which carries it on under the same id."""
    file = one_arm(folder)
    assert run_study(file)[0] == 0
    store = Store.open()
    (run,) = by_name(store)["run", "cb", "0"]
    shutil.rmtree(folder / "mlruns" / "results")
    store.finish(run["run_id"], "RUNNING", 0)
    orphan = store.create(
        store.experiment("tiny"), "gone", {"ablation.kind": "run", "ablation.arm": "gone", "ablation.seed": "0", "ablation.key": "x"}, 1
    )
    assert run_study(file) == (0, 0)
    runs_by_name = {one["run_id"]: one for one in store.runs_of("tiny")}
    assert runs_by_name[run["run_id"]]["status"] == "FINISHED"
    assert runs_by_name[run["run_id"]]["tags"]["ablation.failure"] == ""
    assert runs_by_name[orphan]["status"] == "KILLED"
    assert runs_by_name[orphan]["tags"]["ablation.reason"] == "its process was gone"
    assert len(by_name(store)["run", "cb", "0"]) == 1
    steps = [point.step for point in store.curves(run["run_id"]) if point.name == "train/loss"]
    assert steps == [0, 1]


def test_a_rung_in_between_keeps_the_order_and_its_children(folder):
    """A rung put into the ladder stands in its place in MLflow's list, and arms whose parent changed keep their runs under them."""
    rungs = {"baseline": {}, "cb": {"sampler": "class_balanced"}, "ls": {"smoothing": {"epsilon": 0.1}}}
    run_study(write(folder, ladder={name: rungs[name] for name in ("baseline", "cb")}))
    before = by_name(Store.open())
    run_study(
        write(folder, ladder={name: rungs[name] for name in ("baseline", "ls", "cb")}, variants={"plain": {"sampler": "class_balanced"}})
    )
    runs = Store.open().runs_of("tiny")
    summaries = {run["tags"]["ablation.arm"]: run for run in runs if run["tags"]["ablation.kind"] == "summary"}
    assert sorted(summaries, key=lambda arm: -summaries[arm]["start"]) == ["baseline", "ls", "cb", "plain"]
    assert summaries["baseline"]["run_id"] == before["summary", "baseline", None][0]["run_id"]
    finished = Store.open().recorded("tiny").runs
    assert sorted(finished["arm"]) == ["baseline", "cb", "ls", "plain"]
    nested = {run["run_id"]: run["tags"]["mlflow.parentRunId"] for run in runs if run["tags"]["ablation.kind"] == "run"}
    for row in finished.to_dict("records"):
        assert nested[row["run_id"]] == summaries[row["arm"]]["run_id"]


@pytest.mark.parametrize(
    ("arms", "known"),
    [
        ("abcd", {}),
        ("abcd", {"a": 5000, "b": 4000, "c": 3000, "d": 2000}),
        ("abxcyz", {"a": 5000, "b": 4000, "c": 3000}),
        ("xyabz", {"a": 5000, "b": 4000}),
        ("bxyzc", {"a": 5000, "b": 4000, "c": 3000}),
    ],
)
def test_starts_order_the_arms(arms, known):
    """Every arm starts after those below it, those that have a start keep it, and none is in the future."""
    runs_by_name = summaries.starts(list(arms), known, 9000)
    assert sorted(arms, key=lambda arm: -runs_by_name[arm]) == list(arms)
    assert len(set(runs_by_name.values())) == len(arms)
    assert {arm: runs_by_name[arm] for arm in arms if arm in known} == {arm: start for arm, start in known.items() if arm in arms}
    assert max(runs_by_name.values()) < 9000


def test_each_result_is_told_to_who_watches(folder, monkeypatch):
    """The study's time of change moves with every run that is recorded, not only at the end."""
    changed, real = [], Store.touch

    def touch(store, experiment):
        changed.append(sum(run["status"] == "FINISHED" and run["tags"]["ablation.kind"] == "run" for run in store.runs(experiment)))
        real(store, experiment)

    monkeypatch.setattr(Store, "touch", touch)
    run_study(one_arm(folder))
    assert changed == [0, 1, 2, 2]


def test_summaries_follow_while_it_goes_on(folder, monkeypatch):
    """Now and then the arms that got a result are summarised before the end, those without any not; at the end all are."""
    monkeypatch.setattr(summaries, "SUMMARISE_EVERY", -1.0)
    note, real = [], summaries.Summaries.summarise

    def summarise(self, arms):
        note.append(list(arms))
        real(self, arms)

    monkeypatch.setattr(summaries.Summaries, "summarise", summarise)
    run_study(one_arm(folder))
    assert note == [["baseline"], ["cb"], ["baseline", "cb"]]


def test_a_picture_comes_when_all_seeds_are_there(folder):
    """An arm that lacks a seed has no picture; one that gets another seed has the new one only."""

    def pictures():
        runs_by_name = by_name(Store.open())["summary", "baseline", None][0]
        names = [file.path for file in Store.open().client.list_artifacts(runs_by_name["run_id"], "images")]
        return names, runs_by_name["tags"].get("ablation.pictured")

    run_study(one_arm(folder), arms=("baseline",))
    first, digest = pictures()
    assert len(first) == 2
    run_study(one_arm(folder, seeds=[0, 1]), arms=("baseline",))
    second, other = pictures()
    assert len(second) == 2
    assert not set(first) & set(second)
    assert digest != other


def test_summaries_hold_the_planned_runs_only(folder):
    """Results of earlier settings and of other seeds count in no mean and no difference."""
    assert run_study(one_arm(folder, base={"epochs": 1}, seeds=[0, 1]))[0] == 0
    assert run_study(one_arm(folder, base={"epochs": 2}))[0] == 0
    runs_by_name = by_name(Store.open())
    new = {run["run_id"]: run for arm in ("baseline", "cb") for run in runs_by_name["run", arm, "0"]}
    wanted = Store.open().recorded("tiny").runs.set_index("arm")["test/accuracy"]
    assert len(new) == 4
    (summary,) = runs_by_name["summary", "cb", None]
    assert summary["metrics"]["summary/n"] == 1
    assert summary["metrics"]["summary/accuracy_pct"] == pytest.approx(100 * wanted["cb"], abs=0.0051)
    assert summary["metrics"]["delta/parent_accuracy_points"] == pytest.approx(100 * (wanted["cb"] - wanted["baseline"]), abs=0.0051)


def test_a_failed_run_says_why(folder):
    """A run whose loss is no number is FAILED with kind and reason, and others are FINISHED."""
    file = write(folder, variants={"bad": {"optimizer": {"name": "sgd", "lr": 1e30}}, "good": {"sampler": "class_balanced"}})
    assert run_study(file)[0] == 1
    runs_by_name = by_name(Store.open())
    (bad,) = runs_by_name["run", "bad", "0"]
    assert (bad["status"], bad["tags"]["ablation.failure"]) == ("FAILED", "nan")
    assert "training loss became" in bad["tags"]["ablation.reason"]
    assert runs_by_name["run", "good", "0"][0]["status"] == runs_by_name["run", "baseline", "0"][0]["status"] == "FINISHED"
    assert "summary/n" not in runs_by_name["summary", "bad", None][0]["metrics"]


def test_words_of_the_user_are_no_markup_in_a_note(tmp_path):
    """Labels and notes come from a file that may be another's: MLflow's page shows them as written, and loads nothing."""
    arm = replace(load_study(write(tmp_path)).arms[0], label="![x](http://example.org)", note="<img src=http://example.org>")
    note = contents.arm_note(arm, {}, load_task())
    assert "\\[x\\]" in note
    assert "<img" not in note
