"""Whole commands on the stand-in for CUDA, workers included: which process uses the devices, and what becomes of devices that fail."""

import json
import os

import pytest

from ablation.tracking.store import Store
from tests.tiny import write

RUN = ("-m", "ablation", "run", "tiny.yaml", "--device")
OF_ALL = pytest.mark.skipif(os.environ.get("ABLATE_FAKE_CUDA") != "all", reason="takes long; ABLATE_FAKE_CUDA=all runs it")
EPOCHS = {"epochs": 3, "batch_size": 8, "average": "none"}  # enough steps for a capture


@pytest.fixture
def study(folder, tmp_path):
    """A file with a study of two seeds, in the test's folder with an empty store."""
    assert folder == tmp_path
    return write(folder, base=EPOCHS, seeds=[0, 1])


def results(folder):
    """What the results say of how they were computed."""
    return [json.loads(path.read_text())["tags"] for path in sorted(folder.glob("mlruns/results/*/result.json"))]


def assert_no_traceback(done):
    assert "Traceback" not in done.err + done.out, done.err


def test_a_study_is_done_by_its_workers(study, python, tmp_path):
    """Two at once on a device: all is recorded and captured; the command's own process makes nothing on the device."""
    done = python(*RUN, "cuda", "--jobs", "2")
    assert done.status == 0, done.err
    assert_no_traceback(done)
    assert [(tags["device"], tags["precision"], tags["step"]) for tags in results(tmp_path)] == [("cuda Fake H100", "bf16", "captured")] * 2
    assert {tags["build"].rpartition(", ")[2] for tags in results(tmp_path)} == {"TF32 off in fp32"}
    runs = [run for run in Store.open(tmp_path / "mlruns").runs_of("tiny") if run["tags"]["ablation.kind"] == "run"]
    assert len(runs) == 2
    assert all(run["tags"]["ablation.build"].startswith("CUDA 13.") for run in runs)
    assert done.pid not in {process for process, _ in done.contexts}
    assert len(done.contexts) == 3  # the probe, and two workers


@OF_ALL
def test_a_full_device_leaves_the_work_to_the_others(study, python, tmp_path):
    """Of three devices one is full: all is done on the others, by a worker each; the plan of what is left makes no context."""
    done = python(*RUN, "cuda", "--jobs", "1", devices=3, full="0")
    assert done.status == 0, done.err
    assert_no_traceback(done)
    assert len(results(tmp_path)) == 2
    assert "cuda:0: its memory is full before a job begins, so nothing runs there from now on" in done.err
    processes = [process for process, _ in done.contexts]
    assert len(processes) == len(set(processes))
    assert {device for _, device in done.contexts} == {1, 2}
    assert done.pid not in processes
    again = python("-m", "ablation", "plan", "tiny.yaml", "--device", "cuda", devices=3)
    assert (again.status, again.contexts) == (0, set())


@OF_ALL
def test_a_device_that_is_too_small_is_a_lack_of_memory(study, python):
    """The run fails in one sentence, and the command says what may help."""
    done = python(*RUN, "cuda", "--jobs", "1", "--seed", "0", bytes=6 * 2**20)
    assert done.status == 1
    assert_no_traceback(done)
    assert "out of memory even with no other job beside it; a smaller" in done.err


@OF_ALL
def test_a_full_device_is_said_to_be_full(study, python):
    """With no room for a process, the time is unknown and the run fails for lack of memory; there is no traceback."""
    done = python(*RUN, "cuda", "--seed", "0", full="0")
    assert done.status == 1
    assert_no_traceback(done)
    assert done.err.count("the speed of 1 of its kinds of training is unknown, as measuring it failed: ") == 1
    assert "for an unknown time with 1 at once" in done.err
    assert "no process can begin on cuda:0, since its memory is full: other programs may hold it" in done.err


@OF_ALL
def test_a_broken_device_fails_one_run(study, python, tmp_path):
    """An illegal address fails the run that met it as a bug; the next has another process, and is done."""
    (tmp_path / "break").touch()
    done = python(*RUN, "cuda", "--jobs", "1", **{"break": tmp_path / "break", "break_at": 5000})
    assert done.status == 1
    assert not (tmp_path / "break").exists()
    assert "illegal memory access" in done.err
    assert len(results(tmp_path)) == 1
