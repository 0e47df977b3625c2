"""What was deleted, renamed or restored in MLflow or by hand: each arm and seed stays recorded once, and the next run mends the rest."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ablation.tracking.database import is_deleted
from ablation.tracking.store import Store
from tests.recorded import copied, record
from tests.tiny import write

ARMS = {"baseline": {}, "cb": {"sampler": "class_balanced"}}
ONCE = Counter([("plan", None, None), *((kind, arm, seed) for arm in ARMS for kind, seed in (("summary", None), ("run", "0")))])


@pytest.fixture(scope="module")
def run_once(tmp_path_factory, empty_database):
    """A folder in which the study is recorded."""
    folder = tmp_path_factory.mktemp("recorded")
    record(folder, empty_database, ladder=ARMS, base={"epochs": 1})
    return folder


@pytest.fixture
def file(ablate, run_once):
    """The study's file in a copy of that folder, where the test is."""
    copied(run_once, ablate.folder)
    return ablate.folder / "tiny.yaml"


def runs(kind="", arm=""):
    known = Store.open(make=False).runs_of("tiny")
    return [run for run in known if kind in ("", run["tags"]["ablation.kind"]) and arm in ("", run["tags"].get("ablation.arm"))]


def recorded():
    """How often each plan, arm and run is recorded."""
    return Counter(tuple(run["tags"].get(f"ablation.{name}") for name in ("kind", "arm", "seed")) for run in runs())


def numbers(ablate):
    """The report as a table, without the ids of runs."""
    return re.sub("[0-9a-f]{32}", "ID", ablate("report", "tiny.yaml", "--format", "csv").out)


def client_and_experiment():
    client = Store.open().client
    return client, client.get_experiment_by_name("tiny").experiment_id


def deleted(ablate):
    client, experiment = client_and_experiment()
    client.delete_experiment(experiment)
    assert is_deleted(Path("mlruns"), "tiny")
    for words in (["report"], ["report", "tiny.yaml"], ["pack", "x.zip"], ["log", "cb", 0], ["compare", "cb", "baseline"]):
        done = ablate(*words)
        assert done.status == 2
        assert "deleted in MLflow" in done.err
        assert len(done.err.splitlines()) == 1
    assert "deleted in MLflow" in ablate("status").out


def deleted_and_restored(ablate):
    client, experiment = client_and_experiment()
    client.delete_run(runs("run", "cb")[0]["run_id"])
    client.delete_experiment(experiment)
    client.restore_experiment(experiment)


def run_deleted(_):
    Store.open().delete(runs("run", "cb")[0]["run_id"])


def summary_deleted(_):
    Store.open().delete(runs("summary", "cb")[0]["run_id"])


def plan_deleted(_):
    Store.open().delete(runs("plan")[0]["run_id"])


def everything_deleted_one_by_one(_):
    for run in runs():
        Store.open().delete(run["run_id"])


def renamed(_):
    client, experiment = client_and_experiment()
    client.rename_experiment(experiment, "a better name")


def renamed_before_studies_had_a_tag(_):
    client, experiment = client_and_experiment()
    client.delete_experiment_tag(experiment, "ablation.study")
    client.rename_experiment(experiment, "a better name")


def artifacts_removed(_):
    shutil.rmtree("mlruns/artifacts")


def files_of_one_run_removed(_):
    folder = Store.open().artifact(runs("run", "cb")[0]["run_id"], "config.yaml").parent
    shutil.rmtree(folder)


def database_removed(_):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    Path("mlruns/mlflow.db").unlink()
    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()  # as another process finds it


def run_restored_after_it_was_done_again(ablate):
    client, _ = client_and_experiment()
    old = [run["run_id"] for kind in ("run", "summary") for run in runs(kind, "cb")] + [runs("plan")[0]["run_id"]]
    for run_id in old:
        client.delete_run(run_id)
    assert ablate("run", "tiny.yaml").status == 0
    for run_id in old:
        client.restore_run(run_id)


CHANGES = [
    deleted, deleted_and_restored, run_deleted, summary_deleted, plan_deleted, everything_deleted_one_by_one, renamed,
    renamed_before_studies_had_a_tag, artifacts_removed, files_of_one_run_removed, database_removed, run_restored_after_it_was_done_again,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_next_run_records_each_once(ablate, file, change):
    """Nothing is trained again whose results are there, nothing is recorded twice, and the one after it has nothing to do."""
    before = numbers(ablate)
    change(ablate)
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 0), again.err
    assert recorded() == ONCE
    assert {run["status"] for run in runs()} == {"FINISHED"}
    first = sorted(run["run_id"] for run in runs())
    idle = ablate("run", file)
    assert (idle.status, idle.epochs) == (0, 0)
    assert sorted(run["run_id"] for run in runs()) == first
    assert "restored" not in idle.err
    assert numbers(ablate) == before
    assert ablate("report").status == 0
    children = {run["tags"]["mlflow.parentRunId"] for run in runs("run")}
    assert children == {run["run_id"] for run in runs("summary")}


def test_a_database_from_an_older_copy_goes_on(ablate):
    """What the copy lacks is recorded from the results that lie in the folder."""
    file = write(ablate.folder, ladder=ARMS, base={"epochs": 1})
    assert ablate("run", file, "--arm", "baseline").status == 0
    shutil.copyfile("mlruns/mlflow.db", "older.db")
    assert ablate("run", file).status == 0
    shutil.copyfile("older.db", "mlruns/mlflow.db")
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 0)
    assert recorded() == ONCE


@pytest.mark.usefixtures("file")
def test_a_name_that_a_renamed_study_took_is_told(ablate):
    """Two studies never share an experiment."""
    client, experiment = client_and_experiment()
    client.rename_experiment(experiment, "other")
    done = ablate("run", write(ablate.folder, "other", ladder=ARMS, base={"epochs": 1}))
    assert done.status == 2
    assert "taken in MLflow by the study 'tiny'" in done.err


def test_forced_runs_keep_their_earlier_records(ablate):
    """What --rerun force did again on purpose is no double."""
    file = write(ablate.folder, ladder={"baseline": {}}, base={"epochs": 1})
    assert ablate("run", file).status == 0
    assert ablate("run", file, "--rerun", "force").status == 0
    assert ablate("run", file).status == 0
    assert len(runs("run")) == 2


def test_files_on_another_machine_are_not_gone(ablate, empty_database, monkeypatch):
    """In a shared store a run whose artifacts lie elsewhere is recorded, and nothing is trained again."""
    shutil.copyfile(empty_database, "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{ablate.folder}/shared.db")
    file = write(ablate.folder, ladder=ARMS, base={"epochs": 1})
    assert ablate("run", file).status == 0
    Path("mlruns").rename("of another machine")
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 0), again.err
    assert "are gone" not in again.err
    assert recorded() == ONCE


def test_runs_that_are_lost_altogether_are_trained_again(ablate, file):
    """Where the results are gone too, `plan` says the same as `run`, and why."""
    for folder in ("artifacts", "results", "stages"):
        shutil.rmtree(f"mlruns/{folder}")
    why = "2 runs  was recorded, and its files are gone"
    assert why in ablate("plan", file).out
    again = ablate("run", file)
    assert (again.status, again.epochs) == (0, 2)
    assert why in again.err
    assert "the files of 2 recorded runs are gone" in again.err
    assert recorded() == ONCE


def test_a_run_that_refuses_changes_nothing_in_the_store(ablate, file, monkeypatch):
    """A study that was deleted stays so, and a run that is recorded twice too, until something is started."""
    run_restored_after_it_was_done_again(ablate)
    client, experiment = client_and_experiment()
    client.delete_experiment(experiment)
    before = recorded()
    with monkeypatch.context() as patched:
        patched.setattr("ablation.commands.run.wall_seconds", lambda *_: 1e9)
        assert ablate("run", file, "--device", "cpu").status == 2
    assert (recorded(), is_deleted(Path("mlruns"), "tiny")) == (before, True)
    assert ablate("run", file, "--yes").status == 0
    assert recorded() == ONCE
