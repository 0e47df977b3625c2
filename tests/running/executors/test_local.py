"""Worker processes: what they send, how they end, and what they do not hear."""

import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ablation.running import worker
from ablation.running.executors import local
from ablation.running.executors.local import LocalExecutor
from ablation.system import oom_kills
from ablation.techniques import technique
from tests.tiny import Planned, write

LONG = {"epochs": 500}


@pytest.fixture(scope="module")
def executor():
    pool = LocalExecutor(["cpu"], 1)
    yield pool
    pool.close()
    assert not pool._slots[0].process.is_alive()


def events_until(executor, kinds, seconds=90):
    """Events up to the first of one of these kinds."""
    events, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for event in executor.events(0.2):
            events.append(event)
            if event["kind"] in kinds:
                return events
    raise AssertionError(events)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals a process blocks")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_block_what_stops_from_the_start(executor, number):
    """What asks the command to stop is blocked in a worker before its first line of Python, and not in this process."""
    pid = executor._slots[0].process.pid
    masks = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert int(masks["SigBlk"], 16) & (1 << (number - 1))
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_worker_gives_the_bits_of_this_process(executor, tmp_path):
    """Started, epochs, result and done come in this order, and the predictions equal those of the same job done here."""
    file = write(tmp_path)
    there, here = Planned(file, tmp_path / "there"), Planned(file, tmp_path / "here")
    assert (executor.num_slots, executor.num_free) == (1, 1)
    executor.submit(there.jobs()[0])
    assert executor.num_free == 0
    assert [event["kind"] for event in events_until(executor, ("done", "failed"))] == ["started", "epoch", "epoch", "result", "done"]
    assert executor.num_free == 1
    here.carry_out()
    tables = [pd.read_parquet(one.result("baseline") / "predictions.parquet") for one in (there, here)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_failure_is_an_event(executor, tmp_path):
    """A job that cannot be done fails with its kind and words, a bug with its traceback too, and the worker goes on."""
    (job,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    executor.submit(replace(job, key="k", work=replace(job.work, key="k", dataset=tmp_path / "nowhere")))
    event = events_until(executor, ("done", "failed"))[-1]
    assert (event["failure"], event["stage"], event["log"]) == ("data", "k", "")
    executor.submit(replace(job, key="b", work=replace(job.work, key="b", requests=(None,))))
    event = events_until(executor, ("done", "failed"))[-1]
    assert event["failure"] == "bug"
    assert "AttributeError" in event["log"]
    assert executor._slots[0].process.is_alive()


OWN = """
from typing import Literal

from ablation.techniques.losses import CrossEntropy


class {name}(CrossEntropy):
    name: Literal["{name}"] = "{name}"
    scale: float = {scale}
"""


def test_a_worker_that_finds_other_code_trains_nothing(tmp_path, monkeypatch):
    """A file that was edited, or has lost a class, since the study was planned stops its job, and why; the worker goes on."""
    monkeypatch.setattr(technique._PERMISSION, "is_given", True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    jobs = {}
    for name in ("Edited", "Lost"):
        module = f"own_{name.lower()}"
        (tmp_path / f"{module}.py").write_text(OWN.format(name=name, scale=1.0))
        file = write(tmp_path, name, base={"loss": f"{module}:{name}"})
        (jobs[name],) = Planned(file, tmp_path / "mlruns").jobs()
    (tmp_path / "own_edited.py").write_text(OWN.format(name="Edited", scale=2.0))
    (tmp_path / "own_lost.py").write_text(OWN.format(name="Found", scale=1.0))
    (job,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    executor = LocalExecutor(["cpu"], 1)
    with contextlib.closing(executor):
        process = executor._slots[0].process
        for name in ("Lost", "Edited"):
            executor.submit(jobs[name])
            event = events_until(executor, ("done", "failed", "stopped"))[-1]
            assert (event["kind"], event["stage"], event["why"]) == ("stopped", jobs[name].key, "the code was changed while the study ran")
            assert not list((tmp_path / "mlruns" / "stages" / jobs[name].key).glob("*.safetensors"))
        executor.submit(job)
        assert events_until(executor, ("done", "failed"))[-1]["kind"] == "done"
        assert process.is_alive()


def test_a_killed_worker_is_told_and_replaced(executor, tmp_path):
    """SIGKILL in the middle of a training is a failure of the kind killed; the next job has a new process, and stops when asked to."""
    (job,) = Planned(write(tmp_path, base=LONG), tmp_path / "mlruns").jobs()
    executor.submit(job)
    events_until(executor, ("epoch",))
    killed = executor._slots[0].process.pid
    os.kill(killed, signal.SIGKILL)
    event = events_until(executor, ("done", "failed"))[-1]
    assert (event["kind"], event["failure"], event["exit"], event["is_fresh"]) == ("failed", "killed", -9, False)
    assert event["message"].startswith("its process was killed")
    executor.submit(job)
    assert executor._slots[0].process.pid != killed
    first = events_until(executor, ("epoch",))[-1]
    assert first["epoch"] > 1  # it goes on from the last checkpoint
    executor.ask_to_stop()
    assert events_until(executor, ("done", "failed", "stopped"))[-1]["kind"] == "stopped"


class NoProcess:
    """A worker's process that does nothing, and the pipe to it."""

    pid = None

    def __init__(self):
        self.alive, self.sent = True, []

    def close(self):
        self.alive = False  # it ends when its pipe is closed

    def is_alive(self):
        return self.alive

    def kill(self):
        self.alive = False

    def join(self, _seconds):
        assert not self.alive

    def send(self, message):
        self.sent.append((message[0].key, message[1]))


def idle_executor(monkeypatch, devices, num_jobs):
    """An executor whose workers do nothing."""

    def start(_self, device):
        process = NoProcess()
        return local._Slot(process, process, device)

    monkeypatch.setattr(LocalExecutor, "_start", start)
    return LocalExecutor(devices, num_jobs)


def test_alone_means_nothing_else_on_the_device(monkeypatch):
    """A job that goes alone takes an idle device, ends the idle processes there, and keeps the others off until it ends."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 2)
    first, before = pool._slots[0], list(pool._slots)
    pool.submit(SimpleNamespace(key="a"))
    assert (first.busy, pool.num_idle, pool.num_free) == ("a", 1, 3)
    pool.submit(SimpleNamespace(key="big"), alone=True)
    assert [slot.process.alive for slot in before] == [True, True, False, False]
    assert (pool.num_idle, pool.num_free) == (0, 1)
    assert [slot.busy for slot in pool._slots if slot.device == "cuda:1"] == ["big", ""]
    pool.submit(SimpleNamespace(key="b"))
    assert [slot.busy for slot in pool._slots if slot.device == "cuda:0"] == ["a", "b"]
    pool.close()


def test_jobs_are_spread_over_the_devices(monkeypatch):
    """Each goes to the device with the fewest, though the slots of one stand together."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 2)
    for key in "abcd":
        pool.submit(SimpleNamespace(key=key))
    assert [(slot.device, slot.busy) for slot in pool._slots] == [("cuda:0", "a"), ("cuda:0", "c"), ("cuda:1", "b"), ("cuda:1", "d")]
    pool.close()


def test_a_device_takes_one_job_fewer_but_at_least_one(monkeypatch):
    """Shrinking ends a process that is free, on that device alone, and leaves one slot."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 2)
    pool.submit(SimpleNamespace(key="a"))
    assert pool.shrink("cuda:0") == 1
    assert [(slot.device, slot.busy) for slot in pool._slots] == [("cuda:0", "a"), ("cuda:1", ""), ("cuda:1", "")]
    assert [pool.shrink("cuda:1"), pool.shrink("cuda:1")] == [1, 1]
    assert pool.num_slots == 2
    pool.close()


def test_a_device_takes_as_many_jobs_as_is_asked(monkeypatch):
    """More begin at once; fewer as soon as those that are too many are free, which ends their processes."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 1)
    assert [pool.resize("cuda:0", 3), pool.num_slots, pool.num_free] == [3, 4, 4]
    for key in "abcd":
        pool.submit(SimpleNamespace(key=key))
    assert pool.resize("cuda:0", 1) == 3
    ended = next(slot for slot in pool._slots if slot.device == "cuda:0")
    ended.busy = ""
    assert pool.resize("cuda:0", 1) == 2
    assert not ended.process.alive
    assert all(slot.busy for slot in pool._slots)
    assert pool.shrink("cuda:0") == 2  # what it would have taken is gone
    pool.close()


def test_what_ran_out_of_memory_lets_go_of_it(executor, tmp_path, monkeypatch):
    """The event says on which device and how many jobs that takes; the process that holds on to memory is gone afterwards."""
    slot = executor._slots[0]
    event = {"kind": "failed", "failure": "memory", "message": "", "log": ""}
    monkeypatch.setattr(slot, "pipe", SimpleNamespace(recv=lambda: event, close=lambda: None))
    found = executor._receive(slot)
    assert (found["device"], found["jobs"]) == ("cpu", 1)
    assert not slot.process.is_alive()


@pytest.mark.parametrize(("device", "is_alive"), [("cuda:0", False), ("cpu", True)])
def test_a_bug_on_a_gpu_ends_its_process(monkeypatch, device, is_alive):
    """An error of CUDA stays with the process that met it: what runs next gets another, once all of the job is told."""
    pool = idle_executor(monkeypatch, [device], 1)
    slot = pool._slots[0]
    slot.busy = "a"
    bug = {"failure": "bug", "message": "", "log": ""}
    for event, alive in (({"kind": "untested", "run": "b"} | bug, True), ({"kind": "done"}, is_alive)):
        slot.process.recv = lambda event=event: event
        pool._receive(slot)
        assert slot.process.alive == alive
    pool.submit(SimpleNamespace(key="c"))
    assert (pool._slots[0] is slot) == is_alive
    pool.close()


# --- how processes end -------------------------------------------------------------------------------------------------------


def test_a_process_ends_in_order_or_else_is_killed(tmp_path, monkeypatch):
    """A worker that is ended within a job leaves Python as any program does; one that hears nothing is killed."""
    jobs = [
        Planned(write(tmp_path, name, base=LONG | {"batch_size": size}), tmp_path / name).jobs()[0] for name, size in (("a", 32), ("b", 16))
    ]
    pool = LocalExecutor(["cpu"], 2)
    for job in jobs:
        pool.submit(job)
    begun = set()
    while len(begun) < 2:
        begun |= {event["stage"] for event in events_until(pool, ("epoch",))}
    ordered, deaf = pool._slots
    monkeypatch.setattr(local, "_grace", lambda _device: 60.0)
    ordered.end()
    assert ordered.process.exitcode == 1
    os.kill(deaf.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(local, "_grace", lambda _device: 0.1)
    pool.close()
    assert deaf.process.exitcode == -signal.SIGKILL


def test_only_a_device_needs_order():
    """Where nothing is to be let go of, processes end at once."""
    assert local._grace("cpu") == 0
    assert local._grace("cuda:1") == local._grace("mps") > 1


class Cramped:
    """A kind of work that cannot begin on its device, or runs out of memory in its job."""

    memory_advice = "less"

    def __init__(self, begins):
        self.begins, self.asked = begins, []

    def start(self, device, num_jobs=1):
        self.asked.append((device, num_jobs))
        if not self.begins:
            raise RuntimeError("CUDA error: out of memory")

    def run(self, *_):
        raise MemoryError


@pytest.mark.parametrize("begins", [True, False])
def test_a_device_that_is_full_is_a_lack_of_memory(monkeypatch, begins):
    """The worker tells of it with its first job, and whether it had begun; it knows how many share its device."""
    cramped = Cramped(begins)
    monkeypatch.setattr(worker, "load_task", lambda _name: cramped)
    job = SimpleNamespace(task="cramped", work=None, checkpoint_interval=None)
    event = worker.carry_out(job, "cuda:1", None, SimpleNamespace(value=0), 3)
    assert (event["kind"], event["failure"], event["has_begun"]) == ("failed", "memory", begins)
    assert cramped.asked == [("cuda:1", 3)]


def test_a_full_device_is_given_up_where_there_are_others(monkeypatch):
    """None is left there; the last device of all keeps one."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 1)
    assert pool.shrink("cuda:0", is_full=True) == 0
    assert [slot.device for slot in pool._slots] == ["cuda:1"]
    assert pool.shrink("cuda:1", is_full=True) == 1
    pool.close()


def test_what_did_not_fit_prefers_another_device(monkeypatch):
    """Alone, it goes where memory was lacking least often, as another program may fill the first device."""
    pool = idle_executor(monkeypatch, ["cuda:0", "cuda:1"], 1)
    pool.submit(SimpleNamespace(key="a"))
    pool._slots[0].process.recv = lambda: {"kind": "failed", "failure": "memory", "message": "", "log": ""}
    event = pool._receive(pool._slots[0])
    assert (event["jobs"], event["is_fresh"]) == (1, True)
    pool.submit(SimpleNamespace(key="a"), alone=True)
    assert [slot.device for slot in pool._slots if slot.busy] == ["cuda:1"]
    pool.close()


@pytest.mark.parametrize(
    ("code", "kills", "failure", "may_lack", "words"),
    [
        (-9, (0, 1), "memory", False, "killed by the system for lack of memory"),
        (-9, (3, 3), "killed", False, "killed from outside (SIGKILL); the kernel's counter says it was not for lack of memory"),
        (-9, (None, None), "killed", True, "for lack of memory or from outside, which this system does not tell"),
        (-9, (2, None), "killed", True, "for lack of memory or from outside, which this system does not tell"),
        (-11, (0, 1), "killed", False, "its process ended with -11"),
        (1, (0, 0), "killed", False, "its process ended with 1"),
        (-15, (None, None), "killed", False, "its process ended with -15"),
    ],
)
def test_a_kill_is_told_by_what_is_known_of_it(monkeypatch, code, kills, failure, may_lack, words):
    """SIGKILL is lack of memory where the system counts such an end since the job began, and else a kill from outside."""
    counted = iter(kills)
    for module in (local, oom_kills):
        monkeypatch.setattr(module, "num_oom_kills", lambda: next(counted))
    pool = idle_executor(monkeypatch, ["cpu"], 1)
    pool.submit(SimpleNamespace(key="a"))
    slot = pool._slots[0]
    slot.process.alive, slot.process.exitcode = False, code
    slot.process.recv = lambda: (_ for _ in ()).throw(EOFError())
    event = pool._receive(slot)
    assert (event["failure"], event.get("may_lack_memory", False), event["exit"]) == (failure, may_lack, code)
    assert words in event["message"]
    pool.close()


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(), OSError("got end of file during message")])
def test_a_worker_that_ends_within_a_message_is_told(monkeypatch, error):
    """Whatever the pipe says of it, it is one failure of the kind killed."""
    pool = idle_executor(monkeypatch, ["cpu"], 1)
    slot = pool._slots[0]
    slot.busy, slot.process.alive, slot.process.exitcode = "a", False, -9

    def recv():
        raise error

    slot.process.recv = recv
    event = pool._receive(slot)
    assert (event["kind"], event["failure"], slot.busy) == ("failed", "killed", "")
    pool.close()


def test_a_worker_that_ends_before_it_is_sent_a_job_is_replaced(monkeypatch):
    """It looked alive, and its pipe is broken: the job goes to another process."""
    pool = idle_executor(monkeypatch, ["cpu"], 1)
    first = pool._slots[0].process

    def broken(_job):
        raise BrokenPipeError

    first.send = broken
    pool.submit(SimpleNamespace(key="c"))
    assert pool._slots[0].process is not first
    assert pool._slots[0].process.sent == [("c", 1)]
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the closed pipe ends a worker, at its next epoch")
def test_a_worker_dies_with_its_parent(tmp_path):
    """When the coordinator is killed its workers are gone at once."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        pool = LocalExecutor(["cpu"], 1)
        os.write(writer, str(pool._slots[0].process.pid).encode())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(reader, 20))
    time.sleep(1.0)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    end = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end and "Z (zombie)" not in Path(f"/proc/{worker}/status").read_text():
            os.kill(worker, 0)
            time.sleep(0.1)
        assert time.monotonic() < end
