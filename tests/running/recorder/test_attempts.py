"""A run of one's own training code that was tried before: its record holds the attempt that counts, and nothing of those before it."""

import shutil
from pathlib import Path

import pytest

from ablation.tasks.own import scratch
from ablation.tracking.recorded import Point
from ablation.tracking.store import Store
from tests.running.recorder.test_own import LOGGED, recorded

CODE = """
from pathlib import Path

def fit(run, *, depth: int = 1):
    is_first = not Path("tried").exists()
    for step in range(6 if is_first else 3):
        run.log(step, {"loss": 9.0 if is_first else 1.0})
    if is_first:
        Path("tried").touch()
        raise ValueError("no luck")
    return {"mae": depth + 0.5}
"""


@pytest.fixture
def study(folder):
    """The file of a study with one run, whose first attempt fails."""
    module = f"tried_{folder.name.rpartition('-')[2]}"
    (folder / f"{module}.py").write_text(CODE)
    (folder / "study.yaml").write_text(f"study: own\ntask: {module}:fit\nmetrics: {{mae: {{better: lower}}}}\nseeds: [0]\n")
    return "study.yaml"


def curve(store, run):
    return [(step, value) for name, value, _, step in store.tables.history(run["run_id"], (), ("",)) if name == "loss"]


def shown_live(run, store, points):
    """What of a run's curve is there as the run goes on is shown; here, as if it had been."""
    store.client.update_run(run["run_id"], status="RUNNING")
    store.write(run["run_id"], points)


def test_what_a_failed_attempt_logged_is_gone(own, study):
    """Its curve, which went on for longer, and its traceback; the run is there once."""
    assert own("run", study, "--allow-code").status == 1
    store, runs = recorded()
    store.write(runs["baseline", 0]["run_id"], [Point("loss", 9.0, 1000 + step, step) for step in range(6)])
    assert store.artifact(runs["baseline", 0]["run_id"], "error.txt").exists()
    assert own("run", study, "--allow-code", "--rerun", "retry").status == 0
    store, runs = recorded()
    run = runs["baseline", 0]
    assert (run["status"], curve(store, run)) == ("FINISHED", [(0, 1.0), (1, 1.0), (2, 1.0)])
    assert "error.txt" not in store.files(run["run_id"])
    assert len(store.runs_of("own")) == 3


@pytest.mark.parametrize(
    ("points", "is_kept"),
    [
        ([], True),
        ([Point("loss", 1.0, 2**42, 1)], True),  # the same step again, as code may log it
        ([Point("loss", 9.0, 2**42, 7)], False),
        ([Point("loss", 9.0, 1000, 1)], False),  # by an attempt before
    ],
)
def test_a_record_goes_on_as_long_as_it_is_of_one_attempt(own, study, points, is_kept):
    """What was shown while a run went on is no reason to begin another record of it."""
    Path("tried").touch()
    assert own("run", study, "--allow-code").status == 0
    store, runs = recorded()
    before = runs["baseline", 0]
    shown_live(before, store, points)
    assert own("run", study, "--allow-code").status == 0
    store, runs = recorded()
    after = runs["baseline", 0]
    assert (after["run_id"] == before["run_id"], after["status"]) == (is_kept, "FINISHED")
    assert {step for step, _ in curve(store, after)} == {0, 1, 2}


def test_what_the_code_logs_itself_may_be_another_each_time(own, study, monkeypatch):
    """MLflow lets no param be changed: a run that was killed as it was recorded, and is computed again, is recorded anew."""
    Path("tried").touch()
    for began in ("1", "2"):
        monkeypatch.setattr(scratch, "collect", lambda *_, began=began: scratch.Logged(LOGGED | {"params": {"began": began}}, {}))
        assert own("run", study, "--allow-code").status == 0
        store, runs = recorded()
        assert runs["baseline", 0]["params"]["own/began"] == began
        store.client.update_run(runs["baseline", 0]["run_id"], status="RUNNING")
        shutil.rmtree("mlruns/results")


@pytest.fixture
def shared(own, study, monkeypatch, empty_database):
    """The store of several machines in which the study is recorded, and its first run."""
    Path("tried").touch()
    shutil.copyfile(empty_database, "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///shared.db")
    assert own("run", study, "--allow-code").status == 0
    store, runs = recorded()
    return store, runs


def test_a_run_that_another_machine_is_at_is_left_alone(own, study, shared):
    """In a store of several machines: its record is its own."""
    store, runs = shared
    run_id = runs["baseline", 0]["run_id"]
    shown_live(runs["baseline", 0], store, [Point("loss", 9.0, 1000, 7)])
    store.write(run_id, tags={"ablation.place": "another"})
    assert own("run", study, "--allow-code").status == 0
    assert recorded()[1]["baseline", 0]["run_id"] == run_id


def test_a_run_whose_files_are_gone_is_recorded_again(own, study, monkeypatch, shared):
    """In a database that is named, too: in the record that it has."""
    from ablation.commands.session import Session

    store, runs = shared
    run_id = runs["baseline", 0]["run_id"]
    shutil.rmtree(store.artifact(run_id, "config.yaml").parent)
    known = [{**run, "status": "LOST"} if run["run_id"] == run_id else run for run in store.runs_of("own")]
    with monkeypatch.context() as patched:
        patched.setattr(Session, "known_runs", lambda *_: (known, []))
        assert own("run", study, "--allow-code").status == 0
    assert Store.open().artifact(run_id, "config.yaml").exists()
    assert recorded()[1]["baseline", 0]["run_id"] == run_id
