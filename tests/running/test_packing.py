"""How many jobs share a GPU, on a simulated one."""

import os
from pathlib import Path

import pytest
import torch

from ablation.commands import run as run_command
from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.running.packing import CONTEXT, SPARE, Packing, has_mps
from ablation.running.scheduler import execute
from ablation.study.task import load_task
from ablation.tasks.images import run as image_run
from ablation.training.device_option import num_cores
from tests.running.test_scheduler import Record, node, plan, run
from tests.tiny import write

GB = 10**9


class SimulatedGpus:
    """Devices on which a job trains `epochs` epochs of 100 images, at `rate(n)` images per second where n run side by side.

    A new job starts for `start` seconds. Each takes `needs` of `room` bytes.
    """

    def __init__(self, rate, devices=("cuda:0",), epochs=6, needs=5 * GB, room=80 * GB, start=3.0):
        self.rate, self.epochs, self.needs, self.room, self.start = rate, epochs, needs, room, start
        self.slots, self.now = dict.fromkeys(devices, 1), 0.0
        self.jobs, self.told, self.most = {}, [], 0

    @property
    def num_slots(self):
        return sum(self.slots.values())

    @property
    def num_free(self):
        return max(0, self.num_slots - len(self.jobs))

    @property
    def num_idle(self):
        return len(set(self.slots) - {job["device"] for job in self.jobs.values()})

    def on(self, device):
        return [key for key, job in self.jobs.items() if job["device"] == device]

    def submit(self, job, *, alone=False):
        device = next(name for name in self.slots if len(self.on(name)) < self.slots[name])
        self.jobs[job.key] = {"device": device, "epoch": 0, "images": 100.0, "start": self.start, "since": self.now}
        self.told.append({"kind": "started", "stage": job.key, "device": device})
        self.most = max(self.most, len(self.on(device)))

    def resize(self, device, num_jobs):
        self.slots[device] = max(num_jobs, len(self.on(device)))
        return self.slots[device]

    def shrink(self, device):
        self.slots[device] -= 1
        return self.slots[device]

    def events(self, _timeout):
        """The next thing that happens."""
        while not self.told:
            self._pass()
        messages, self.told = self.told, []
        return messages

    def _pass(self):
        speeds = {}
        for device in self.slots:
            busy = [key for key in self.on(device) if not self.jobs[key]["start"]]
            speeds |= {key: self.rate(len(busy)) for key in busy}
        times = [(job["start"] or job["images"] / speeds[key], key) for key, job in self.jobs.items()]
        seconds, first = min(times)
        self.now += seconds
        for key, job in self.jobs.items():
            if job["start"]:
                job["start"] -= seconds
            else:
                job["images"] -= seconds * speeds[key]
        job = self.jobs[first]
        if job["start"] or job["images"] > 1e-9:
            job["start"] = 0.0 if job["start"] < 1e-9 else job["start"]
            return
        device, took = job["device"], self.now - job["since"]
        job |= {"epoch": job["epoch"] + 1, "images": 100.0, "since": self.now}
        memory = {"taken": self.needs, "free": self.room - len(self.on(device)) * (self.needs + CONTEXT)}
        row = {"seconds": took, "rate": 100 / took, "values": {"train/loss": 1.0}}
        self.told.append({"kind": "epoch", "stage": first, "device": device, "epoch": job["epoch"], "row": row, "memory": memory})
        if job["epoch"] == self.epochs:
            del self.jobs[first]
            self.told += [{"kind": "result", "stage": first, "device": device, "run": f"run-{first}"}]
            self.told += [{"kind": "done", "stage": first, "device": device}]

    def ask_to_stop(self):
        pass

    def close(self):
        pass


def carried_out(gpus, most=16, num_stages=30):
    """What the view was told of packing in a study of that many equal stages, each of which is trained once."""
    names, messages = [f"s{i:02}" for i in range(num_stages)], []
    nodes = [node(name) for name in names]
    for one in nodes:
        one.remaining_epochs = gpus.epochs
    runs = [run(f"arm-{name}", f"run-{name}", name) for name in names]
    outcome = execute(plan(nodes, runs), gpus, Record(), messages.append, should_stop=lambda: False, packing=Packing(most))
    assert (len(outcome.finished), outcome.failed, outcome.left) == (num_stages, [], [])
    return [event for event in messages if event["kind"] == "packing"]


def fills_at(num_jobs):
    """A device that so many jobs fill: fewer do not slow each other."""
    return lambda n: 50 * min(1, num_jobs / n)


@pytest.mark.parametrize("epochs", [3, 6, 30])
def test_jobs_are_added_until_one_more_does_not_pay(epochs):
    """A device that four jobs fill gets them and one more, by which that is found out; all are done in a third of the time."""
    gpus = SimulatedGpus(fills_at(4), epochs=epochs)
    messages = carried_out(gpus)
    assert [event["jobs"] for event in messages] == [2, 3, 4, 5]
    assert [event["slots"] for event in messages] == [2, 3, 4, 5]
    assert messages[0]["reason"] == "one took 5.0 GB, and 73.9 GB are free"
    assert gpus.now < 30 * (3 + 2 * epochs) / 2


def test_a_full_device_keeps_what_does_not_slow_it_and_gives_up_what_does():
    """The second job stays where both together are as fast as one, and goes where they are slower."""
    assert [event["jobs"] for event in carried_out(SimulatedGpus(fills_at(1)))] == [2]
    messages = carried_out(SimulatedGpus(lambda n: 50 / n * 0.9 ** (n - 1)))
    assert [event["jobs"] for event in messages] == [2, 1]
    assert messages[1]["reason"] == "together 2 were only 0.90 times as fast"


def test_no_more_than_fit_or_are_allowed():
    """Another job needs a quarter more than the largest took, and a context; the cores set an end too, and what waits."""
    gpus = SimulatedGpus(fills_at(99), needs=10 * GB, room=40 * GB)
    carried_out(gpus)
    fitting = next(n for n in range(9) if 40 * GB - n * (10 * GB + CONTEXT) < SPARE * 10 * GB + CONTEXT)
    assert gpus.most == fitting == 3
    gpus = SimulatedGpus(fills_at(99))
    carried_out(gpus, most=2)
    assert gpus.most == 2
    gpus = SimulatedGpus(fills_at(99), epochs=30)
    assert not carried_out(gpus, num_stages=1)


def test_every_device_gets_as_many():
    """What is found out on two devices holds for both."""
    gpus = SimulatedGpus(fills_at(99), devices=("cuda:0", "cuda:1"), room=30 * GB)
    messages = carried_out(gpus)
    assert {event["device"]: event["jobs"] for event in messages} == {"cuda:0": 4, "cuda:1": 4}
    assert messages[-1]["slots"] == 8


def test_lack_of_memory_ends_the_search():
    """After a job that did not fit there are no more than are left, whatever is free."""
    packing = Packing(16)
    packing.jobs = 3
    packing.fewer(2)
    memory = {"taken": GB, "free": 70 * GB}
    packing.see({"kind": "started", "stage": "a", "device": "cuda:0"}, "kind")
    for _ in range(9):
        row = {"rate": 100.0}
        packing.see({"kind": "epoch", "stage": "a", "device": "cuda:0", "row": row, "memory": memory}, "kind")
    assert packing.jobs == 2


def test_a_second_job_is_for_what_could_begin():
    """Where all that waits has to wait for what runs, one job is enough."""
    gpus = SimulatedGpus(fills_at(99), epochs=30)
    first, second = node("first"), node("second", "first")
    for one in (first, second):
        one.remaining_epochs = 30
    runs, messages = [run("arm", "run-second", "second")], []
    execute(plan([first, second], runs), gpus, Record(), messages.append, should_stop=lambda: False, packing=Packing(16))
    assert not [event for event in messages if event["kind"] == "packing"]


def test_a_worker_on_cuda_tells_of_its_memory(monkeypatch):
    """The most that it has taken, and what is free on the device; on a CPU nothing."""
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert image_run._memory(torch.device("cuda", 0)) == {"memory": {"taken": 5, "free": 7}}
    assert image_run._memory(torch.device("cpu")) == {}


@pytest.mark.parametrize(("kind", "jobs", "expected"), [("cuda", 0, True), ("cuda", 2, False), ("cpu", 0, False)])
def test_when_jobs_are_packed(kind, jobs, expected):
    """On CUDA where the user did not say how many; it begins with one."""
    session = object.__new__(Session)
    session.site = session.cluster = None
    session.options, session.devices, session.task = Options(Path("x.yaml"), jobs=jobs), [torch.device(kind, 0)], load_task()
    assert (session.packing is not None) == expected
    assert session.packing is session.packing  # the same for all who ask
    assert session.jobs_per_device == (jobs or (1 if kind == "cuda" else num_cores()))


def test_a_command_packs_and_tells(ablate, monkeypatch):
    """`run` hands the packing to the scheduler, and prints what it decided, with a word on MPS where several share a device."""
    packing, given = Packing(4), []
    monkeypatch.setattr(Session, "packing", packing)
    monkeypatch.setattr("ablation.running.messages.has_mps", lambda: False)
    execute = run_command.execute

    def executed(made, executor, record, view, **named):
        given.append(named.pop("packing"))
        for jobs in (2, 1):
            view({"kind": "packing", "device": "cuda:0", "jobs": jobs, "slots": jobs, "reason": "because"})
        return execute(made, executor, record, view, **named)

    monkeypatch.setattr(run_command, "execute", executed)
    result = ablate("run", write(ablate.folder))
    assert (result.status, given) == (0, [packing])
    assert "2 at once on cuda:0 from now on: because; they take turns, but would run truly at once with NVIDIA's MPS" in result.err
    assert "1 at once on cuda:0 from now on: because\n" in result.err


def test_epochs_beside_a_job_that_starts_are_not_counted():
    """A job beside one that is still starting is as fast as alone: no sample of two."""
    packing = Packing(16)
    for stage in "ab":
        packing.see({"kind": "started", "stage": stage, "device": "cuda:0"}, "kind")
    for stage in "aaaababa":
        row, memory = {"rate": 100.0}, {"taken": GB, "free": GB}
        packing.see({"kind": "epoch", "stage": stage, "device": "cuda:0", "row": row, "memory": memory}, "kind")
    assert packing._rates == {("kind", 2): [100.0, 100.0]}  # the last two


def test_whether_mps_runs(tmp_path, monkeypatch):
    """Its daemon leaves its number in its folder; one that is gone does not count."""
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not has_mps()
    noted = tmp_path / "nvidia-cuda-mps-control.pid"
    noted.write_text(f"{os.getpid()}\n")
    assert has_mps()
    noted.write_text("999999999\n")
    assert not has_mps()
