"""A study of seconds on a few of scikit-learn's digits, and ways to carry it out within the test's own process."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

from ablation.planning.plan import make_plan
from ablation.planning.workspace import Workspace
from ablation.running.worker import carry_out
from ablation.study.resolving import load_study
from ablation.study.task import load_task
from ablation.tasks.images.preparation import ImagePreparation

CPU = torch.device("cpu")
BASE = {
    "data": {"name": "digits", "longtail": {"name": "linear", "largest": 30, "smallest": 10}},
    "model": {"name": "test_efficientnet", "image_size": 16, "drop_path": 0.1},
    "augment": [{"name": "affine", "degrees": 10}],
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "schedule": "cosine",
    "average": {"name": "ema", "decay": 0.9},
    "epochs": 2,
    "batch_size": 32,
}


def write(folder, name="tiny", base=(), **layers):
    """A study's file in that folder; `base` is laid over BASE."""
    file = Path(folder) / f"{name}.yaml"
    text = yaml.safe_dump({"study": name, "seeds": [0], "base": {**BASE, **dict(base)}, **layers}, sort_keys=False)
    file.write_text(text, encoding="utf-8")
    return file


def run_job(job, device, emit, should_stop):
    """Do a job in this process."""
    load_task(job.task).run(job.work, str(device), emit, should_stop, job.checkpoint_interval)


class Planned:
    """A study's plan under a folder, with what it was made of."""

    def __init__(self, file, root, seeds=None, arms=None, rerun="", recorded=()):
        self.study = load_study(file)
        self.workspace = Workspace(Path(root))
        self.preparation = ImagePreparation(self.study, self.workspace, CPU, lambda *_: None)
        self.planner = self.preparation.planner
        names = arms or [arm.name for arm in self.study.arms]
        state = self.workspace.recorded_state(recorded, load_task())
        self.plan = make_plan(
            self.study, seeds or self.study.seeds, names, self.planner, state, rerun=rerun, seconds_per_item=lambda _: 1e-3
        )

    def jobs(self):
        """What has to be trained or tested, parents first."""
        return [node.job for node in self.plan.nodes.values() if node.state != "done" or node.job.requests]

    def carry_out(self):
        """Do it all; the number of epochs that were trained."""
        events = []
        for job in self.jobs():
            run_job(job, CPU, events.append, lambda: False)
        assert not [event for event in events if event["kind"] == "untested"], events[-1]
        return sum(event["kind"] == "epoch" for event in events)

    def run_of(self, arm, seed=0):
        """The planned run of an arm and seed."""
        return next(run for run in self.plan.runs if (run.arm, run.seed) == (arm, seed))

    def result(self, arm, seed=0):
        """The folder of a run's result."""
        return self.workspace.results / self.run_of(arm, seed).key

    def last_stage(self, arm, seed=0):
        """The folder of a run's last stage."""
        return self.workspace.stages / self.run_of(arm, seed).chain[-1]


class InlineExecutor:
    """Carries jobs out in this process, one after another, within `events`; a signal comes after `stop_after` epochs, once or twice."""

    num_slots = 1
    stop_after, signals, number = 0, 1, signal.SIGINT

    def __init__(self, devices=("cpu",), num_jobs=1, task="images"):
        self.waiting, self.trained, self.stop = [], 0, SimpleNamespace(value=0)

    @property
    def num_free(self):
        return 1 - len(self.waiting)

    def submit(self, job):
        self.waiting.append(job)

    def events(self, timeout):
        events = []
        while self.waiting:
            job = self.waiting.pop()
            events.append({"kind": "started", "stage": job.key})

            def send(event, key=job.key):
                events.append(event | {"stage": key})
                self.trained += event["kind"] == "epoch"
                if event["kind"] == "epoch" and self.trained == self.stop_after:
                    self.stop.value = 1
                    os.kill(os.getpid(), self.number)

            pipe = type("Pipe", (), {"send": staticmethod(send)})
            events.append(carry_out(job, "cpu", pipe, self.stop) | {"stage": job.key})
            if self.stop.value and self.signals == 2:
                os.kill(os.getpid(), self.number)
        return events

    def ask_to_stop(self):
        self.stop.value = 1

    def close(self):
        pass
