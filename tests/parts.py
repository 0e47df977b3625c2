"""A plan of a few stages and an engine that starts nothing: what parts do is written into their logs by the test."""

import os
import stat
from types import SimpleNamespace

from ablation.errors import AblateError
from ablation.planning.plan import Plan
from ablation.running.parts.engine import JobState, State
from ablation.running.parts.split import Split
from ablation.study.task import load_task
from ablation.system import sealed
from ablation.system.digests import sealed as sealed_text

WAITING, RUNNING, GONE = JobState(State.WAITING, "Resources"), JobState(State.RUNNING), None


def node(key, parent="", seconds=1.0, epochs=1, items=10, state="missing", requests=()):
    """A stage of a plan, as far as parts look at it."""
    job = SimpleNamespace(key=key, parent=parent, requests=tuple(requests), kind="kind", task="images")
    return SimpleNamespace(job=job, seconds=seconds, remaining_epochs=epochs, items=items, state=state, owner=key, arms=(key,), seed=0)


def run(arm, key, stage, seed=0, state="missing", choice=None):
    """A run whose last stage is this one."""
    return SimpleNamespace(arm=arm, seed=seed, key=key, chain=(stage,), state=state, needed=state == "missing", choice=choice)


def plan(nodes, runs, name="tiny"):
    """A plan of these stages, parents first, and runs."""
    task = load_task()
    made = SimpleNamespace(nodes={one.job.key: one for one in nodes}, runs=list(runs), study=SimpleNamespace(name=name, task=task))
    made.waiting = [one for one in runs if one.needed]
    made.lineage = lambda one: Plan.lineage(made, one)
    return made


def three_runs():
    """Two runs of one tree and one of another."""
    nodes = [node("s1"), node("h1", "s1"), node("s2")]
    return plan(nodes, [run("base", "r1", "s1"), run("head", "r2", "h1"), run("other", "r3", "s2")])


def split_of(folder, shares, name="tiny"):
    """The split of a study with these shares, in its folder."""
    made = Split(folder / "mlruns" / "parts" / name / "abc-2", name, "cpu", tuple(map(tuple, shares)), 0.0)
    made.folder.mkdir(parents=True, exist_ok=True)
    return made


def result(folder, key):
    """Have the results of a run be there."""
    path = folder / "mlruns" / "results" / key
    path.mkdir(parents=True, exist_ok=True)
    (path / sealed.RESULT).write_text(sealed_text({"files": {}}), encoding="utf-8")


class Engine:
    """Submits by name alone; each question has its answer, which may be a callable that does something first; the last one lasts."""

    def __init__(self, *answers):
        self.about = {"kind": "fake"}
        self.answers, self.submitted, self.stopped, self.cancelled, self.alone = list(answers), [], [], [], []
        self.refusals = []

    def submit(self, parts, *, alone=False):
        if self.refusals:
            raise AblateError(self.refusals.pop(0))
        self.submitted.append(list(parts))
        self.alone.append(alone)
        return f"j{len(self.submitted)}"

    def states(self, jobs):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer() if callable(answer) else answer

    def stop(self, jobs):
        self.stopped.append(sorted(jobs))

    def cancel(self, jobs):
        self.cancelled.append(sorted(jobs))


class Record:
    """Keeps what it is told."""

    def __init__(self):
        self.ends, self.rows = [], []

    def live(self, node, history):
        self.rows.append((node.job.key, len(history)))

    def finished(self, run):
        self.ends.append((run.arm, "finished"))

    def failed(self, run, kind, reason, log):
        self.ends.append((run.arm, f"{kind}: {reason}"))


def command(folder, name, text):
    """A command of that name, first on PATH, that is this shell script; it notes its words in `NAME.words`."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> {folder}/{name}.words\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{path.parent}{os.pathsep}{os.environ['PATH']}"


def words(folder, name):
    """The words of each call of such a command."""
    path = folder / f"{name}.words"
    return path.read_text().splitlines() if path.exists() else []
