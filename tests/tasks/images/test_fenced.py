"""A stage whose process was given up and lives on: a later attempt goes on from its checkpoint, and the orphan changes nothing."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ablation.running.worker import TAKEN_OVER, carry_out
from ablation.study.task import load_task
from ablation.system import fencing
from ablation.training import checkpoints, testing
from tests.fenced import NoLock, Orphan, contents, freeze
from tests.tiny import CPU, Planned, run_job, write

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells that a process is frozen"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
EPOCHS = 2


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    load_task().start("cpu")  # what it imports, the orphan has then, too
    monkeypatch.setattr(fencing, "_identity", [])
    if request.param == "no locks":
        monkeypatch.setattr("filelock.FileLock", NoLock)
        monkeypatch.setattr("ablation.tasks.images.run.FileLock", NoLock)


def attempt(job, on_event=lambda event: None):
    """Do a job as a worker does; its events."""
    events = []

    def send(event):
        events.append(event)
        on_event(event)

    events.append(carry_out(job, "cpu", SimpleNamespace(send=send), SimpleNamespace(value=0)))
    return events


def kinds(events):
    return [(event["kind"], event.get("epoch")) for event in events]


def freeze_after(epoch):
    return lambda event: freeze() if event.get("epoch") == epoch else None


def test_an_orphan_in_the_middle_of_a_training(tmp_path, locks):
    """It is frozen after its first epoch; the next attempt trains the other, with the bits of a training that nothing disturbed."""
    planned, undisturbed = (Planned(write(tmp_path, base={"epochs": EPOCHS}), tmp_path / name) for name in ("disturbed", "whole"))
    (job,) = planned.jobs()
    with Orphan("owner", 1, lambda: attempt(job, freeze_after(1))) as orphan:
        fencing.become("owner", 2)
        assert kinds(attempt(job)) == [("epoch", 2), ("result", None), ("done", None)]
        before = contents(tmp_path / "disturbed")
        assert orphan.let_go()[1:] == [TAKEN_OVER]
        assert contents(tmp_path / "disturbed") == before
    undisturbed.carry_out()
    one, other = (each.result("baseline") / "predictions.parquet" for each in (planned, undisturbed))
    assert one.read_bytes() == other.read_bytes()
    one, other = (checkpoints.read(each.last_stage("baseline") / checkpoints.FINAL).tensors for each in (planned, undisturbed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_orphan_in_the_middle_of_a_result(tmp_path, monkeypatch, locks):
    """It is frozen before its result gets its name; what it does not find any more afterwards is no failure of the run."""
    planned = Planned(write(tmp_path, base={"epochs": 1}), tmp_path / "mlruns")
    (job,) = planned.jobs()

    def frozen():
        monkeypatch.setattr(testing, "_write_tables", lambda part, *_: (freeze(), (part / "late").write_text(""))[0])
        return attempt(job)

    with Orphan("owner", 1, frozen) as orphan:
        fencing.become("owner", 2)
        assert kinds(attempt(job)) == [("result", None), ("done", None)]
        before = contents(tmp_path / "mlruns")
        assert orphan.let_go()[1:] == [TAKEN_OVER]
        assert contents(tmp_path / "mlruns") == before
    assert [path.name for path in planned.workspace.results.iterdir()] == [planned.run_of("baseline").key]


def test_features_are_shared_by_one_attempt_on_one_host(tmp_path, monkeypatch):
    """Where an engine starts attempts: else a process that was given up could keep all others waiting for what it computes."""
    monkeypatch.setattr(fencing, "_identity", [])
    (job,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    shared, used = tmp_path / "features", []
    monkeypatch.setattr("ablation.tasks.images.run.run", lambda work, *_: used.append(work.features))
    for owner, attempt, place in (("", 0, "here"), ("a", 1, "here"), ("b", 1, "here"), ("a", 2, "here"), ("a", 2, "there")):
        monkeypatch.setattr("ablation.tasks.images.task.place", lambda place=place: place)
        if owner:
            fencing.become(owner, attempt)
        run_job(replace(job, work=replace(job.work, features=shared)), CPU, used.append, lambda: False)
    assert used[0] == shared
    assert used[1] == used[2]
    assert len({shared, *used}) == 4
    assert {path.parent for path in used[1:]} == {shared}
