"""What the store has of runs of one's own training code."""

import json
import os
from pathlib import Path

import pytest

from ablation.running.recorder import contents, provenance
from ablation.system import made
from ablation.tasks.own import scratch
from ablation.tracking.store import Store

CODE = """
import os, time

def fit(run, *, depth: int = 1, mode: str = "good"):
    for step in (0, 5):
        run.log(step, {"loss": 1 / (step + depth), "test/mae": 9})
    run.items(["a", "c" if mode == "other" else "b"], {"mae": [depth, depth + 1]})
    run.same("split", ["a", "b"])
    (run.out / "sub").mkdir()
    (run.out / "sub" / "model.txt").write_text("weights")
    print("printed", mode)
    if mode == "killed" and not os.path.exists(f"killed-{run.seed}"):
        open(f"killed-{run.seed}", "w").close()
        os.kill(os.getpid(), 9)
    if mode == "slow":
        time.sleep(60)
    return {} if mode == "none" else {"mae": float("nan") if mode == "nan" else depth + 0.5, "more": 1}
"""
STUDY = """
study: own
task: MODULE:fit
metrics: {mae: {better: lower, unit: m, margin: 1}}
seeds: [0, 1]
variants: {deep: {depth: 3}}
"""
LOGGED = {
    "points": [["loss", 0.5, 1000, 1], ["fold/f1", float("nan"), 2000, 0]],
    "params": {"lr": "0.1"},
    "tags": {"team": "us"},
    "runs": [],
}


@pytest.fixture
def study(folder):
    """A study of a function in a new module."""
    module = f"recorded_{os.getpid()}_{folder.name.rpartition('-')[2]}".replace(".", "_")
    (folder / f"{module}.py").write_text(CODE)

    def write(more=""):
        (folder / "study.yaml").write_text(STUDY.replace("MODULE", module) + more)
        return "study.yaml"

    return write


def recorded(name="own"):
    store = Store.open(Path("mlruns"))
    runs = [run for run in store.runs_of(name) if run["tags"]["ablation.kind"] == "run"]
    return store, {(run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"])): run for run in runs}


def test_a_run_is_recorded_whole(ablate, study, monkeypatch):
    """Metrics, curves, seconds, tags, what the code logged itself, and all files below their folders; no data that nobody declared."""
    file = Path("logged.txt").absolute()
    file.write_text("theirs")
    monkeypatch.setattr(scratch, "collect", lambda *folders: scratch.Logged(LOGGED, {"artifacts/plots/a.txt": file}))
    assert ablate("run", study(), "--allow-code").status == 0
    store, runs = recorded()
    assert set(runs) == {(arm, seed) for arm in ("baseline", "deep") for seed in (0, 1)}
    run = runs["deep", 1]
    result = json.loads((Path("mlruns/results") / run["tags"]["ablation.key"] / "result.json").read_text())
    metrics = run["metrics"]
    assert (run["status"], run["start"], run["end"], run["digest"]) == ("FINISHED", result["started"], result["finished"], "")
    assert metrics["test/mae"] == 3.5
    assert metrics["time/own"] == result["seconds"]
    assert metrics["own/loss"] == 0.5
    assert metrics["own/fold/f1"] != metrics["own/fold/f1"]
    assert not {name for name in metrics if name.startswith(("epochs/", "time/shared"))}
    points = {(name, step): value for name, value, _, step in store.tables.history(run["run_id"], (), ("",))}
    assert {key: value for key, value in points.items() if key[0] in ("loss", "curves/test/mae")} == {
        ("loss", 0): pytest.approx(1 / 3),
        ("loss", 5): pytest.approx(1 / 8),
        ("curves/test/mae", 0): 9,
        ("curves/test/mae", 5): 9,
    }
    assert json.loads(run["tags"]["ablation.same"]) == result["same"]
    assert set(result["same"]) == {"split", "test items"}
    assert json.loads(run["tags"]["ablation.notes"]) == ["also handed back, and not declared: more"]
    assert run["tags"]["ablation.device"] == "cpu"
    assert (run["params"]["own/lr"], run["params"]["depth"]) == ("0.1", "3")
    for name, text in (("own/artifacts/plots/a.txt", "theirs"), ("files/sub/model.txt", "weights"), ("log.txt", "printed good\n")):
        assert store.artifact(run["run_id"], name).read_text() == text
    assert {"config.yaml", "items.parquet"} <= {path.name for path in store.artifact(run["run_id"], "log.txt").parent.iterdir()}
    assert ablate("run", "study.yaml", "--allow-code").epochs == 0


def test_summaries_do_not_judge_arms_with_other_test_items_or_seeds_without_effect(ablate, study):
    """As in the report; also where a later command trains nothing and tells of the runs that are recorded."""
    for margin in (1, 2):
        file = Path(study())
        arms = "{deep: {depth: 3}, other: {mode: other, depth: 5}}"
        file.write_text(file.read_text().replace("margin: 1", f"margin: {margin}").replace("{deep: {depth: 3}}", arms))
        done = ablate("run", file, "--allow-code")
        assert done.status == 0, done.err
        summaries = [run for run in Store.open(Path("mlruns")).runs_of("own") if run["tags"]["ablation.kind"] == "summary"]
        verdicts = {run["tags"]["ablation.arm"]: run["tags"]["ablation.verdict"] for run in summaries}
        assert verdicts == {"baseline": "", "deep": "seed without effect", "other": "not comparable (other test items)"}


def test_the_machine_is_the_one_that_computed(ablate, study, monkeypatch):
    """Whoever records what parts have computed elsewhere, and whenever."""
    with monkeypatch.context() as patch:
        patch.setattr("ablation.tasks.own.run.hardware", lambda: "a node")
        assert ablate("run", study(), "--part", "1/1", "--allow-code").status == 0
    assert ablate("run", "study.yaml", "--allow-code").status == 0
    assert {run["tags"]["ablation.hardware"] for run in recorded()[1].values()} == {"a node"}


def test_versions_and_commit_are_those_of_who_computed(ablate, study, monkeypatch):
    """Whoever records them, with whatever is installed there; an arm that chooses a run has what that has."""
    choosing = "sweeps: {depths: {over: {depth: [5, 7]}, choose: val/mae}}\n"
    file = Path(study(choosing))
    file.write_text(file.read_text().replace("metrics: {", "metrics: {val/mae: {better: lower}, "))
    code = next(Path().glob("recorded_*.py"))
    code.write_text(code.read_text().replace('"more": 1', '"val/mae": depth'))
    with monkeypatch.context() as patch:
        patch.setattr(made, "versions", lambda: {"python": "3.0", "numpy": "1.0"})
        there = {"commit": "0123abc", "dirty": True, "versions": made.versions(), "hardware": "", "user": ""}
        patch.setattr(provenance, "provenance", lambda folder: there)
        assert ablate("run", file, "--part", "1/1", "--allow-code").status == 0
    assert ablate("run", file, "--allow-code").status == 0
    runs = recorded()[1]
    assert len(runs) == 10
    names = ("ablation.version.python", "ablation.version.numpy", "mlflow.source.git.commit", "ablation.git.dirty")
    assert {tuple(run["tags"][name] for name in names) for run in runs.values()} == {("3.0", "1.0", "0123abc", "true")}
    assert {run["tags"]["ablation.version.mlflow"] for run in runs.values()} == {made.versions()["mlflow"]}


def test_what_workers_are_told_of_the_commit(monkeypatch, tmp_path):
    """A study that is in no repository has none, whatever was told of another one."""
    monkeypatch.setenv("ABLATE_COMMIT", "of another")
    provenance.tell_workers(tmp_path)
    assert made.made() == {"versions": made.versions()}
    about = provenance.provenance(tmp_path) | {"commit": "0123abc"}
    for is_dirty in (True, False):
        monkeypatch.setattr(provenance, "provenance", lambda _, is_dirty=is_dirty: about | {"dirty": is_dirty})
        provenance.tell_workers(tmp_path)
        assert made.made() == {"versions": made.versions(), "commit": "0123abc", "dirty": is_dirty}
        tags = provenance.made_tags(made.made())
        assert (tags["mlflow.source.git.commit"], tags["ablation.git.dirty"]) == ("0123abc", str(is_dirty).lower())


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ("mode: nan", "nan", "mae is nan; expected a finite number"),
        ("mode: none", "data", "did not return mae; found nothing"),
    ],
)
def test_a_failure_is_recorded_with_what_was_printed(ablate, study, settings, kind, reason):
    done = ablate("run", study(), "--allow-code", "--set", settings.replace(": ", "="))
    assert done.status == 1
    store, runs = recorded()
    run = runs["baseline", 0]
    assert (run["status"], run["tags"]["ablation.failure"]) == ("FAILED", kind)
    assert reason in run["tags"]["ablation.reason"]
    where, printed = store.artifact(run["run_id"], "error.txt").read_text().split("\n", 1)
    assert where.startswith("What it handed back is in /")
    assert printed.startswith("printed n")


def test_a_run_that_takes_too_long_is_recorded_as_that(ablate, study):
    file = study()
    Path(file).write_text(
        Path(file).read_text().replace("task: ", 'task: {function: "').replace(":fit\n", ':fit", timeout: 0.5s, grace: 0.1s}\n')
    )
    assert ablate("run", file, "--allow-code", "--set", "mode=slow", "--arm", "baseline", "--seed", "0").status == 1
    assert recorded()[1]["baseline", 0]["tags"]["ablation.failure"] == "timeout"


def test_a_run_that_was_killed_is_tried_again(ablate, study):
    """As one whose worker was killed; it is recorded once, as finished."""
    assert ablate("run", study(), "--allow-code", "--set", "mode=killed", "--arm", "baseline").status == 0
    _, runs = recorded()
    assert {key: run["status"] for key, run in runs.items()} == {("baseline", 0): "FINISHED", ("baseline", 1): "FINISHED"}
    assert Path("killed-1").exists()


def test_spending_of_a_run_that_stands_for_another():
    """All is shared: the seconds, and the epochs where there are any."""
    assert contents.spent_by_others({"time/own": 2.0, "test/mae": 1.0}) == {"time/own": 0.0, "time/shared": 2.0}
    both = {"time/own": 2.0, "time/shared": 1.0, "epochs/own": 3, "epochs/shared": 4}
    assert contents.spent_by_others(both) == {"time/own": 0.0, "time/shared": 3.0, "epochs/own": 0.0, "epochs/shared": 7.0}
