"""A thousand classes cost little more to record and to report than ten."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ablation import report
from ablation.report.documents import writing as documents
from ablation.running.recorder import recorder, summaries
from ablation.tracking import rows
from ablation.tracking.api import METRICS_AT_ONCE
from ablation.tracking.store import Store
from tests.report.studies import study
from tests.tiny import write

METRICS_PER_CLASS = 3


def made_of(folder, num_classes, per_class=2):
    """A study of two arms on random images of so many classes."""
    generator = np.random.default_rng(0)
    labels_N = np.repeat(np.arange(num_classes), per_class)
    arrays = {f"{part}_images": generator.integers(0, 256, (len(labels_N), 8, 8, 3), dtype=np.uint8) for part in ("train", "test")}
    np.savez(folder / f"{num_classes}.npz", **arrays, train_labels=labels_N, test_labels=labels_N)
    base = {"data": {"name": "npz", "file": f"{num_classes}.npz"}, "model": {"name": "test_efficientnet", "image_size": 8}}
    base |= {"epochs": 1, "batch_size": 20, "augment": [], "average": "none"}
    return write(folder, f"of{num_classes}", base=base, ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}})


@pytest.fixture
def num_calls(monkeypatch):
    """How often MLflow's client was called, by method."""
    counts = {}

    def counted(name, method):
        def call(*arguments, **options):
            counts[name] = counts.get(name, 0) + 1
            return method(*arguments, **options)

        return call

    for name, method in list(vars(MlflowClient).items()):
        if callable(method) and not name.startswith("_"):
            monkeypatch.setattr(MlflowClient, name, counted(name, method))
    return counts


def test_a_thousand_classes_take_few_more_calls_of_the_store(folder, ablate, num_calls, monkeypatch):
    """A run's three metrics of each class are written in a few batches, and all else is asked and written as often as with ten classes.

    So it is where MLflow's client writes a run; where rows are written it is not called for one.
    """
    monkeypatch.setattr(rows, "SCHEMAS", frozenset())
    monkeypatch.setattr(summaries, "SUMMARISE_EVERY", math.inf)
    monkeypatch.setattr(recorder, "LIVE_EVERY", math.inf)
    calls = {}
    for num_classes in (10, 1000):
        num_calls.clear()
        file = made_of(folder, num_classes)
        assert ablate("run", file, "--yes").status == 0
        calls[num_classes] = dict(num_calls)
        num_calls.clear()
        report.write(Store.open().recorded(f"of{num_classes}"))
        calls[num_classes, "report"] = dict(num_calls)
    more = calls[1000].pop("log_batch") - calls[10].pop("log_batch")
    assert 0 < more <= 2 * math.ceil(1000 * METRICS_PER_CLASS / (METRICS_AT_ONCE / 2))
    assert calls[1000] == calls[10]
    assert calls[1000, "report"] == calls[10, "report"]


def test_runs_of_a_thousand_classes_are_no_thousand_columns_apart():
    """The frame of runs holds all metrics as one block, so that adding a column to it copies no column by itself."""
    recorded = study(seeds=(0,))
    recalls = pd.DataFrame(0.5, index=recorded.runs.index, columns=[f"test/recall/{number}" for number in range(1000)])
    runs = report.tidy_frames(replace(recorded, runs=pd.concat([recorded.runs, recalls], axis=1))).runs
    assert runs["test/recall/999"].dtype == "float64"
    runs.assign(another=1)  # pandas warns of more than a hundred blocks, and warnings are errors here


def test_every_confusion_of_every_arm_is_a_line():
    """The file of confusions has each arm's counts by true and predicted class, names with line ends among them."""
    recorded = study(seeds=(0, 1))
    frames = report.tidy_frames(recorded)
    lines = list(csv.DictReader(io.StringIO(documents.csv_files(frames, recorded.plan)["confusion.csv"], newline="")))
    classes = recorded.plan["classes"]
    expected = [
        {"arm": arm, "true": true, "predicted": predicted, "count": str(counts_CC[i, j])}
        for arm, counts_CC in frames.confusion.items()
        for i, true in enumerate(classes)
        for j, predicted in enumerate(classes)
    ]
    assert lines == expected
