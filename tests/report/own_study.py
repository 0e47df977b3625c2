"""A recorded study of one's own training code, made by hand: a regression with a ladder, variants, a sweep and drop-one arms."""

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ablation.errors import StoreError
from ablation.study.metrics import Metric, metric_rows
from tests.report.studies import PROVENANCE, Study, arm

SEEDS = (0, 1, 2, 3, 4)
MAE = Metric("test/mae", "mae", "lower", "", None, is_headline=True)
GAIN = Metric("val/gain", "val/gain", "higher", "dB", 0.5)
SHIFTS = {"base": 0.0, "deep": -4.0, "robust": -5.0, "wide": 0.3, "rate/low": 0.5, "rate/high": -0.5, "deep-less": -1.0}
ARMS = (
    arm("base", None, baseline="base"),
    arm("deep", "base", baseline="base", change={"max_depth": [6, 12]}),
    arm("robust", "deep", baseline="base", change={"loss": ["squared_error", "absolute_error"]}),
    arm("wide", "base", "variant", baseline="base", change={"max_depth": [6, 8], "bins": [64, 255]}, labels={"bundle": "two settings"}),
    *(
        arm(f"rate/{level}", "base", "sweep", baseline="base", change={"rate": [0.1, value]}, factors={"rate": str(value)})
        for level, value in (("low", 0.01), ("high", 1.0))
    ),
    arm("deep-less", "robust", "drop_one", baseline="base", change={"max_depth": [12, 6]}, factors={"without": "deep"}),
)
OWN = {
    "what": "diabetes:fit", "is_function": True, "code": ["diabetes.py"], "data": [], "env": {}, "threads": 1, "gpus": 1,
    "resumes": False, "timeout": 0, "has_items": None, "checked": None,
}  # fmt: skip


@dataclass
class OwnStudy(Study):
    """A store's answers, with scores of items and files of runs."""

    scores: dict = field(default_factory=dict)

    def items(self, run_id):
        return self.scores.get(run_id)

    def artifact(self, run_id, name):
        raise StoreError(f"the run {run_id} has no artifact {name}")


def own_study(metrics=(MAE, GAIN), seeds=SEEDS, items=60, clusters=20, curves=("loss", "val/loss"), own=(), classes=(), same=None):
    """The study. Each run's error is the mean of its items' scores, which clusters share in part; every arm has the same items.

    `same` makes what a run says of itself, from the arm and the seed.
    """
    generator = np.random.default_rng(0)
    rows, scores, points, tables = [], {}, [], {}
    hardness = 12 + generator.normal(size=items) + np.repeat(generator.normal(size=clusters), items // clusters)
    for planned in ARMS:
        for seed in seeds:
            run_id = f"{len(rows):032x}"
            errors = hardness + SHIFTS[planned["name"]] + 0.3 * generator.normal(size=items) + 0.05 * generator.normal()
            scores[run_id] = pd.DataFrame(
                {"item": np.arange(items), "test/mae": errors, "cluster": np.repeat(np.arange(clusters), items // clusters)}
            )
            values = {metric.name: errors.mean() * (1 + place) for place, metric in enumerate(metrics)}
            told = same(planned["name"], seed) if same else {"test items": "11", "split": f"a{seed}"}
            rows.append({"arm": planned["name"], "seed": seed, "status": "FINISHED", "key": run_id, "run_id": run_id, "reason": None})
            rows[-1] |= {"start": 0, "end": 60_000, "chosen": "", **PROVENANCE, **values, "time/own": 4.0 + seed, "same": json.dumps(told)}
            points += [(run_id, name, step, errors.mean() / (step + 1)) for name in curves for step in (1, 2, 3)]
            if classes:
                tables[run_id] = predicted(generator, len(classes), items)
    plan = {
        "study": "diabetes", "task": "own", "metrics": metric_rows(metrics), "metric": metrics[0].name, "metric_reason": "",
        "classes": list(classes), "arms": list(ARMS), "own": OWN | dict(own), "seeds": list(seeds), "data": [],
        "runs": [{"arm": row["arm"], "seed": row["seed"], "key": row["key"], "state": "done", "reason": ""} for row in rows],
        "created": "2026-01-02T03:04:05", "command": "ablate run diabetes.yaml --allow-code", "file": "diabetes.yaml", "notes": [],
        "margin": 0.5,
    }  # fmt: skip
    curve_points = pd.DataFrame(points, columns=["run_id", "metric", "step", "value"])
    return OwnStudy("diabetes", plan, pd.DataFrame(rows), [], tables, curve_points, scores)


def predicted(generator, num_classes, items):
    """Predictions as one's own code hands them back: with scores of each class, and without groups."""
    labels = np.arange(items) % num_classes
    logits = generator.normal(size=(items, num_classes)) + 2 * np.eye(num_classes)[labels]
    table = pd.DataFrame({"index": np.arange(items), "label": labels, "predicted": logits.argmax(axis=1)})
    return table.assign(**{f"logit{place}": logits[:, place] for place in range(num_classes)})
