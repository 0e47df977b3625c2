"""Runs of one's own training code for tests: their work, and what became of it."""

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd

from ablation.errors import TrainingError
from ablation.study.metrics import Metric
from ablation.study.task import EVERY_EPOCH
from ablation.system import sealed
from ablation.tasks.own import keys, run
from ablation.tasks.own.definition import Definition
from ablation.tasks.own.work import OwnRequest, OwnWork
from ablation.techniques.technique import allow_code

MAE = Metric("test/mae", "mae", "lower", "", None, "comparison", is_headline=True)
KEY = "key"
names = iter(range(10_000))  # of modules, which a process imports once


def function(folder, text, name="fit"):
    """The reference of a function in a new module of a folder."""
    module = f"module_{os.getpid()}_{next(names)}"
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return f"{module}:{name}"


def work(folder, *, settings=None, seed=0, empty_store=None, **definition):
    """A run whose stages and results lie in a folder, in which its code is too."""
    defined = Definition(**{"folder": folder, "metrics": (MAE,), "grace": 5.0, **definition})
    allow_code(folder)
    return OwnWork(
        key=KEY,
        request=OwnRequest(KEY, "content"),
        seed=seed,
        settings=settings or {},
        definition=defined,
        stages=folder / "stages",
        results=folder / "results",
        code=keys.code_of(defined),
        packages=keys.packages(defined),
        data="data",
        empty_store=empty_store,
    )


def script(folder, text, *words, **definition):
    """The work of a Python script with these words."""
    (folder / "train.py").write_text(text, encoding="utf-8")
    return work(folder, command=(sys.executable, "train.py", "{seed}", *words), code=("train.py",), **definition)


def carry_out(a_run, *, device="cpu", should_stop=lambda: False):
    """The events of a run."""
    events = []
    run.run(a_run, device, events.append, should_stop, EVERY_EPOCH)
    return events


def result(a_run):
    """The result of a run, whose folder is whole."""
    folder = a_run.results / a_run.request.key
    assert sealed.is_whole(folder)
    return json.loads((folder / sealed.RESULT).read_text(encoding="utf-8"))


def done(a_run, **options):
    """The result of a run that is carried out now."""
    carry_out(a_run, **options)
    return result(a_run)


def table(a_run, name):
    """A table of a run's result."""
    return pd.read_parquet(a_run.results / a_run.request.key / f"{name}.parquet")


def failure(a_run, **options):
    """The error of a run that fails, and leaves no result."""
    try:
        carry_out(a_run, **options)
    except TrainingError as error:
        assert not (a_run.results / a_run.request.key).exists()
        return error
    raise AssertionError("it did not fail")


def after(seconds):
    """A function that is true from so many seconds on, counted from its first call."""
    began = []

    def is_late():
        began.append(time.monotonic())
        return began[-1] - began[0] >= seconds

    return is_late


def until(is_true, seconds=30):
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(mark):
    """The processes whose command line has a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "cmdline").read_bytes() and b") Z " not in (path / "stat").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found
