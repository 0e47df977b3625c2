"""One stage's job: training where it lacks, results that appear whole, and what a failure is called."""

import json
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from filelock import FileLock

from ablation.errors import ConfigError, DataError, TrainingError
from ablation.study.task import EVERY_EPOCH, CheckpointInterval, Interrupted
from ablation.system.failures import failure
from ablation.system.sealed import link
from ablation.training import checkpoints
from tests.tiny import CPU, Planned, run_job, write


def carried_out(job):
    events = []
    run_job(job, CPU, events.append, lambda: False)
    return [event["kind"] for event in events]


def test_a_job_trains_tests_and_says_so(tmp_path):
    """An event for each epoch and each result; the same job again only says that its result is there."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()
    assert carried_out(job) == ["epoch", "epoch", "result"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mlruns").rglob("*.*") if path.is_file()}
    assert carried_out(job) == ["result"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


class At:
    """A job that is asked to stop after so many epochs, and which checkpoints it had by then."""

    def __init__(self, job, after=0):
        self.path, self.after, self.epochs, self.saved = job.work.stages / job.key / checkpoints.CHECKPOINT, after, 0, []
        self.job = job

    def emit(self, event):
        self.epochs += event["kind"] == "epoch"
        found = checkpoints.record(self.path)
        self.saved.append(found["epoch"] if found else 0)

    def run(self):
        run_job(self.job, CPU, self.emit, lambda: self.epochs == self.after)


@pytest.mark.parametrize(
    ("interval", "saved"),
    [
        (EVERY_EPOCH, [1, 2, 3, 4]),
        (CheckpointInterval(epochs=2), [0, 2, 2, 4]),
        (CheckpointInterval(epochs=9), [0] * 4),
        (CheckpointInterval(seconds=1e-9), [1, 2, 3, 4]),
        (CheckpointInterval(seconds=3600), [0] * 4),
    ],
)
def test_checkpoints_keep_their_interval_and_change_no_bits(tmp_path, interval, saved):
    """A checkpoint is written as often as asked, and when stopped in any case; what goes on ends with the bits of the undisturbed."""
    planned, whole = (Planned(write(tmp_path, base={"epochs": 5}), tmp_path / name) for name in ("stopped", "whole"))
    (job,) = planned.jobs()
    job = replace(job, checkpoint_interval=interval)
    stopped = At(job, after=4)
    with pytest.raises(Interrupted):
        stopped.run()
    assert stopped.saved == saved
    assert checkpoints.record(stopped.path)["epoch"] == 4
    again = At(job)
    again.run()
    assert again.epochs == 1
    assert whole.carry_out() == 5
    mine, other = (checkpoints.read(one.last_stage("baseline") / checkpoints.FINAL).tensors for one in (planned, whole))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_result_is_whole_or_not_there(tmp_path, monkeypatch):
    """Where writing a result fails there is no folder of its name, and the same job then makes it without training."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()

    def full(*_args, **_kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        assert carried_out(job)[-1] == "untested"
    assert not planned.result("baseline").exists()
    assert carried_out(job) == ["result"]
    assert {path.name for path in planned.result("baseline").iterdir()} == {
        "result.json", "predictions.parquet", "classification_report.txt", "confusion_matrix.csv", "model.safetensors",
    }  # fmt: skip


def test_a_result_says_what_it_is_of(tmp_path):
    """Key, metrics, history, classes, counts, digest, precision and device are in one file of plain data."""
    planned = Planned(write(tmp_path, base={"select": "best_on_test"}), tmp_path / "mlruns")
    planned.carry_out()
    result = json.loads((planned.result("baseline") / "result.json").read_text())
    source = planned.preparation.source(planned.study.arms[0], 0)
    assert result["key"] == planned.run_of("baseline").key
    assert result["counts"]["train"] == list(source.counts)
    assert sum(result["counts"]["train"]) == 200
    assert result["counts"]["test"] == list(source.test_counts)
    assert result["digest"] == source.digest
    assert len(result["history"]) == 2
    assert result["best"][1] in (0, 1)
    assert (result["tags"]["precision"], result["tags"]["device"]) == ("fp32", planned.preparation.device_class)


def test_weights_are_kept_as_the_file_says(tmp_path):
    """`keep: none` leaves predictions and metrics without weights."""
    planned = Planned(write(tmp_path, keep="none"), tmp_path / "mlruns")
    planned.carry_out()
    assert not (planned.result("baseline") / "model.safetensors").exists()
    assert (planned.result("baseline") / "predictions.parquet").exists()


def test_a_job_waits_for_the_one_that_is_at_it(tmp_path):
    """While another process holds the stage, a job waits; it then finds the work done."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()
    carried_out(job)
    lock = FileLock(job.work.stages / job.key / "lock", thread_local=False)
    lock.acquire()
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(carried_out(job)))
    waiting.start()
    time.sleep(0.3)
    assert not ended
    lock.release()
    waiting.join(30)
    assert ended == [["result"]]


def test_a_parent_that_is_gone_is_told(tmp_path):
    """A stage whose parent's state was deleted meanwhile is a TrainingError that says what to do."""
    stages = [{"epochs": 1}, {"epochs": 1, "train": "head"}]
    planned = Planned(write(tmp_path, ladder={"baseline": {"stages": stages}}), tmp_path / "mlruns")
    with pytest.raises(TrainingError, match=r"starts from is gone; run again"):
        carried_out(planned.jobs()[1])


def test_deterministic_is_asked_of_torch(tmp_path):
    """`deterministic: true` holds while its job runs, and the next job without it is free again."""
    seen = []
    for value in (True, False):
        planned = Planned(write(tmp_path, base={"deterministic": value, "epochs": 1}), tmp_path / f"{value}")
        run_job(planned.jobs()[0], CPU, lambda _: seen.append(torch.are_deterministic_algorithms_enabled()), lambda: False)
    assert seen == [True, True, False, False]


def caused_by(error, cause):
    """As `raise error from cause` leaves it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TrainingError("nan", "the training loss became nan"), "nan", "the training loss became nan"),
        (DataError("no images"), "data", "no images"),
        (ConfigError("precision", "found fp16"), "data", "precision: found fp16"),
        (MemoryError(), "memory", "out of memory; fewer --jobs"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory", "out of memory; fewer --jobs"),
        (OSError(28, "No space left on device"), "store", "No space left on device"),
        (KeyError("x"), "bug", "KeyError: 'x'"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory",
            "out of memory",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory", "out of memory"),
        (OSError(12, "Cannot allocate memory"), "memory", "out of memory"),
        (caused_by(DataError("the model could not be made"), MemoryError()), "memory", "out of memory"),
        (RuntimeError("shapes do not fit"), "bug", "RuntimeError"),
    ],
)
def test_failures_have_a_kind_and_words(error, kind, words):
    """Every exception becomes one word for the record and one sentence for the user."""
    told = failure(error)
    found, message = told["failure"], told["message"]
    assert found == kind
    assert words in message
    assert "\n" not in message


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    """Where no link can be made the file is copied."""
    (tmp_path / "a").write_text("weights")

    def refused(*_args):
        raise OSError("no links here")

    link(tmp_path / "a", tmp_path / "linked")
    monkeypatch.setattr("os.link", refused)
    link(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "linked").read_text() == (tmp_path / "copied").read_text() == "weights"
    assert (tmp_path / "linked").stat().st_ino == (tmp_path / "a").stat().st_ino != (tmp_path / "copied").stat().st_ino
