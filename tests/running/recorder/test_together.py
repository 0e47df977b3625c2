"""How many statements and commits finished runs take that wait for their record, and what is there if one cannot be read."""

import contextlib
import json
import math
import shutil
import sqlite3
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ablation.planning.workspace import Workspace
from ablation.running.recorder import writer
from ablation.running.recorder.recorder import Recorder
from ablation.running.recorder.summaries import Summaries
from ablation.tracking.store import Store
from tests.tiny import Planned, write

SEEDS = list(range(5))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which five runs are trained, and nothing is recorded."""
    folder = tmp_path_factory.mktemp("trained")
    Planned(write(folder, seeds=SEEDS, base={"epochs": 1}), folder / "mlruns").carry_out()
    return folder


@pytest.fixture
def copy(trained, tmp_path, empty_database, monkeypatch):
    """A copy of it with an empty store."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    shutil.copyfile(empty_database, folder / "mlruns" / "mlflow.db")
    monkeypatch.setattr(writer, "WAITS", (0.0,))
    return folder


def record(folder, number, before=lambda: None):
    """Record so many of the runs at once; `before` is called when the recorder has begun."""
    store, planned = Store.open(folder / "mlruns"), Planned(folder / "tiny.yaml", folder / "mlruns")
    recorder = Recorder(store, planned.plan, planned.planner, Workspace(folder / "mlruns"), "ablate run")
    begun, gate = threading.Event(), threading.Event()
    recorder.begin([])
    recorder._writer.put(lambda: (begun.set(), gate.wait(60)))
    assert begun.wait(60)
    for run in planned.plan.runs[:number]:
        recorder.finished(run)
    before()
    gate.set()
    recorder.close()
    return store, recorder


@pytest.mark.parametrize("number", [1, 5])
def test_runs_take_as_few_statements_as_one(copy, monkeypatch, number):
    """Two commits and some twenty statements, however many runs there are."""
    statements, commits, counting = [], [], []
    monkeypatch.setattr(Summaries, "catch_up", lambda *_: None)
    monkeypatch.setattr(Summaries, "end", lambda _: counting.clear())

    def note(*args):
        statements.extend(args[2:3] if counting else [])

    def note_commit(_):
        commits.extend(counting)

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", note_commit)
    try:
        store, recorder = record(copy, number, lambda: counting.append(1))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        event.remove(Engine, "commit", note_commit)
    assert recorder.problems == []
    assert [run["status"] for run in store.runs_of("tiny") if run["tags"]["ablation.kind"] == "run"] == ["FINISHED"] * number
    assert len(commits) == 2
    assert 10 < len(statements) <= 30


def test_a_run_that_was_shown_while_it_trained_is_completed(copy):
    """The points of its curve that are there already undo nothing, and each is there once."""
    planned = Planned(copy / "tiny.yaml", copy / "mlruns")
    run = planned.plan.runs[0]
    result = json.loads((copy / "mlruns" / "results" / run.key / "result.json").read_text())
    store = Store.open(copy / "mlruns")
    recorder = Recorder(store, planned.plan, planned.planner, Workspace(copy / "mlruns"), "ablate run")
    recorder._waiting = {"its training": [run]}
    recorder.begin([])
    node = SimpleNamespace(job=SimpleNamespace(key="its training"))
    for _ in range(2):
        recorder._shown["its training"] = -math.inf
        recorder.live(node, result["history"])
    recorder.finished(run)
    recorder.close()
    assert recorder.problems == []
    (recorded,) = (one for one in store.runs_of("tiny") if one["tags"]["ablation.kind"] == "run")
    assert recorded["status"] == "FINISHED"
    assert recorded["metrics"].items() >= result["metrics"].items()
    with contextlib.closing(sqlite3.connect(copy / "mlruns" / "mlflow.db")) as connection:
        losses = connection.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'").fetchone()
    assert losses == (len(result["history"]),)


def test_one_result_that_cannot_be_read_keeps_no_other(copy):
    """The others are recorded, and the problem is told."""
    planned = Planned(copy / "tiny.yaml", copy / "mlruns")
    (planned.result("baseline", 3) / "own").mkdir()
    (planned.result("baseline", 3) / "own" / "own.json").write_text("no json")
    store, recorder = record(copy, 5)
    recorded = {
        run["tags"]["ablation.seed"] for run in store.runs_of("tiny") if run["status"] == "FINISHED" and "ablation.seed" in run["tags"]
    }
    assert recorded == {"0", "1", "2", "4"}
    assert len(recorder.problems) == 1
