"""The job of a stage: it trains what is missing, writes complete results, and names its failures."""

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
from ablation.tasks.images.schema import MEMORY_ADVICE
from ablation.training import checkpoints
from tests.tiny import CPU, Planned, run_job, write


def kinds_of_events(job):
    """Run the job and return the kinds of its events."""
    events = []
    run_job(job, CPU, events.append, lambda: False)
    return [event["kind"] for event in events]


def test_a_job_trains_and_tests(tmp_path):
    """There is an event for each epoch and each result; the same job again only reports the result."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()
    assert kinds_of_events(job) == ["epoch", "epoch", "result"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mlruns").rglob("*.*") if path.is_file()}
    assert kinds_of_events(job) == ["result"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


class ObservedJob:
    """A job that is stopped after a number of epochs, with the epoch of its checkpoint at each event."""

    def __init__(self, job, stop_after=0):
        self.path, self.stop_after, self.epochs, self.saved = job.work.stages / job.key / checkpoints.CHECKPOINT, stop_after, 0, []
        self.job = job

    def emit(self, event):
        self.epochs += event["kind"] == "epoch"
        record = checkpoints.read_record(self.path)
        self.saved.append(record["epoch"] if record else 0)

    def run(self):
        run_job(self.job, CPU, self.emit, lambda: self.epochs == self.stop_after)


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
    """A checkpoint is written at its interval, and always after a stop; the continued training has the bits of an uninterrupted one."""
    planned, uninterrupted = (Planned(write(tmp_path, base={"epochs": 5}), tmp_path / name) for name in ("stopped", "whole"))
    (job,) = planned.jobs()
    job = replace(job, checkpoint_interval=interval)
    stopped = ObservedJob(job, stop_after=4)
    with pytest.raises(Interrupted):
        stopped.run()
    assert stopped.saved == saved
    assert checkpoints.read_record(stopped.path)["epoch"] == 4
    continued = ObservedJob(job)
    continued.run()
    assert continued.epochs == 1
    assert uninterrupted.carry_out() == 5
    first, second = (checkpoints.read(each.last_stage("baseline") / checkpoints.FINAL).tensors for each in (planned, uninterrupted))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_result_is_complete_or_missing(tmp_path, monkeypatch):
    """If writing a result fails there is no folder of its name, and the same job then makes it without training."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()

    def fail(*_args, **_kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", fail)
        assert kinds_of_events(job)[-1] == "untested"
    assert not planned.result("baseline").exists()
    assert kinds_of_events(job) == ["result"]
    assert {path.name for path in planned.result("baseline").iterdir()} == {
        "result.json", "predictions.parquet", "classification_report.txt", "confusion_matrix.csv", "model.safetensors",
    }  # fmt: skip


def test_a_result_describes_itself(tmp_path):
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
    """With `keep: none` a result has predictions and metrics, but no weights."""
    planned = Planned(write(tmp_path, keep="none"), tmp_path / "mlruns")
    planned.carry_out()
    assert not (planned.result("baseline") / "model.safetensors").exists()
    assert (planned.result("baseline") / "predictions.parquet").exists()


def test_a_job_waits_for_another_with_the_same_stage(tmp_path):
    """While another process has the lock of the stage, a job waits; then the work is done."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    (job,) = planned.jobs()
    kinds_of_events(job)
    lock = FileLock(job.work.stages / job.key / "lock", thread_local=False)
    lock.acquire()
    finished = []
    waiting = threading.Thread(target=lambda: finished.append(kinds_of_events(job)))
    waiting.start()
    time.sleep(0.3)
    assert not finished
    lock.release()
    waiting.join(30)
    assert finished == [["result"]]


def test_a_missing_parent_is_an_error(tmp_path):
    """If the state of a stage's parent was deleted, a TrainingError says what to do."""
    stages = [{"epochs": 1}, {"epochs": 1, "train": "head"}]
    planned = Planned(write(tmp_path, ladder={"baseline": {"stages": stages}}), tmp_path / "mlruns")
    with pytest.raises(TrainingError, match=r"starts from is gone; run again"):
        kinds_of_events(planned.jobs()[1])


def test_deterministic_is_set_in_torch(tmp_path):
    """`deterministic: true` holds while its job runs, and not in the next job without it."""
    is_deterministic = []
    for value in (True, False):
        planned = Planned(write(tmp_path, base={"deterministic": value, "epochs": 1}), tmp_path / f"{value}")
        run_job(planned.jobs()[0], CPU, lambda _: is_deterministic.append(torch.are_deterministic_algorithms_enabled()), lambda: False)
    assert is_deterministic == [True, True, False, False]


def caused_by(error, cause):
    """The error as `raise error from cause` makes it."""
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
    """Every exception has one word for the record and one sentence for the user."""
    event = failure(error, MEMORY_ADVICE)
    message = event["message"]
    assert event["failure"] == kind
    assert words in message
    assert "\n" not in message


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    """If no link can be made, the file is copied."""
    (tmp_path / "a").write_text("weights")

    def fail(*_args):
        raise OSError("no links here")

    link(tmp_path / "a", tmp_path / "linked")
    monkeypatch.setattr("os.link", fail)
    link(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "linked").read_text() == (tmp_path / "copied").read_text() == "weights"
    assert (tmp_path / "linked").stat().st_ino == (tmp_path / "a").stat().st_ino != (tmp_path / "copied").stat().st_ino
