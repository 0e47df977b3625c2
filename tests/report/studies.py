"""Recorded studies made by hand, for the report to read."""

import math
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

CLASSES = ("plane", "a|b", "<i>cat</i>", "two\nlines")
ESCAPED = ["plane", "a|b", "&lt;i&gt;cat&lt;/i&gt;", "two lines"]  # the same as documents have them
PROVENANCE = {
    "commit": "c0ffee" * 6 + "c0ff", "dirty": "false", "versions": '{"torch": "2.11.0"}', "hardware": "x86_64 Thing, 2 cores",
    "device": "cpu AVX2", "precision": "fp32", "statistical": "no", "digest": "d1d2d3", "command": "ablate run demo.yaml",
}  # fmt: skip


@dataclass
class Study:
    """A store's answers, kept in memory."""

    study: str
    plan: dict[str, Any]
    runs: pd.DataFrame
    superseded: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    points: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["run_id", "metric", "step", "value"]))

    def predictions(self, run_id):
        return self.tables[run_id]

    def curves(self, run_ids):
        return self.points[self.points["run_id"].isin(run_ids)]


def arm(name, parent, kind="ladder", baseline="baseline", **more):
    """A planned arm with what every arm has."""
    defaults = {"change": {}, "labels": {}, "same_as": None, "label": "", "note": "", "published": {}, "factors": {}}
    return {"name": name, "parent": parent, "baseline": None if name == baseline else baseline, "kind": kind, **defaults, **more}


LADDER = (
    arm("baseline", None, published={"A": 84.22}, labels={"lag": "52.6 % are still initial"}),
    arm("cb", "baseline", change={"sampler.name": ["shuffle", "class_balanced"]}, labels={"lag": "52.6 % are still initial"}),
    arm("mixup", "cb", change={"mix.alpha": [None, 0.4], "mix.name": ["none", "mixup"]}, label="MixUp"),
    arm("cutmix", "cb", "variant", change={"mix.name": ["none", "cutmix"]}, labels={"bundle": "mix and loss"}),
    arm("reweight", "baseline", "variant", change={"sampler.name": ["shuffle", "class_balanced"]}, same_as="cb"),
    arm("no-lag/baseline", None, "condition", "no-lag/baseline", change={"average.name": ["ema", "none"]}),
    arm("no-lag/cb", "no-lag/baseline", "condition", "no-lag/baseline", change={"sampler.name": ["shuffle", "class_balanced"]}),
)
CONDITIONED = [{**rung, "condition": "no-lag" if rung["kind"] == "condition" else None} for rung in LADDER]


def study(arms=LADDER, seeds=(0, 1, 2), classes=CLASSES, images=40, broken=(), absent=(), groups=None, steps=5, chosen=()):
    """A study whose predictions are random and whose metrics are computed from them; `broken` runs failed and `absent` never ran.

    `chosen` maps (arm, seed) to the arm whose run it is.
    """
    planned, rows, tables, points = [], [], {}, []
    for name in (planned_arm["name"] for planned_arm in arms):
        for seed in seeds:
            run_id = f"{len(planned):08x}{'0' * 24}"
            planned.append({"arm": name, "seed": seed, "key": run_id, "state": "missing", "reason": "never run"})
            if (name, seed) in absent:
                continue
            failed = (name, seed) in broken
            rows.append({"arm": name, "seed": seed, "status": "FAILED" if failed else "FINISHED", "key": run_id, "run_id": run_id})
            rows[-1].update(
                {"start": "2026-01-02T00:00:00", "end": "2026-01-02T00:01:00", "reason": "nan: the loss is NaN" if failed else None}
            )
            rows[-1].update(PROVENANCE)
            rows[-1]["chosen"] = dict(chosen).get((name, seed), "")
            if not failed:
                tables[run_id] = predictions(len(planned), len(classes), images).copy()
                rows[-1].update(metrics(len(planned), len(classes), images))
                points += [
                    (run_id, curve, step, 1 / (step + seed + 1)) for curve in ("train/loss", "val/accuracy") for step in range(steps)
                ]
    half = len(classes) // 2
    plan = {
        "study": "demo", "arms": list(arms), "runs": planned, "seeds": list(seeds), "classes": list(classes),
        "groups": groups or {"many": list(classes[:half]), "medium": [], "few": list(classes[half:])},
        "counts": {str(seed): [100 - index for index in range(len(classes))] for seed in seeds}, "test_counts": [images] * len(classes),
        "created": "2026-01-02T03:04:05", "command": "ablate run demo.yaml", "file": "demo.yaml", "notes": ["statistical on CUDA"],
        "margin": 0.5,
        "provenance": {"commit": PROVENANCE["commit"], "dirty": False, "versions": {"torch": "2.11.0"}, "hardware": "Thing", "user": ""},
    }  # fmt: skip
    curves = pd.DataFrame(points, columns=["run_id", "metric", "step", "value"])
    return Study("demo", plan, pd.DataFrame(rows), ["old 0"], tables, curves)


@cache
def predictions(seed, num_classes, images):
    """Labels, and predictions that are right about two times out of three."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), images)
    guesses = generator.integers(0, num_classes, len(labels))
    predicted = np.where(generator.random(len(labels)) < 0.6, labels, guesses)
    logits = generator.normal(size=(len(labels), num_classes))
    logits[np.arange(len(labels)), predicted] = logits.max(axis=1) + 0.5
    table = pd.DataFrame({"index": np.arange(len(labels)), "label": labels, "predicted": predicted})
    return pd.concat([table, pd.DataFrame(logits, columns=[f"logit/{c}" for c in range(num_classes)])], axis=1)


@cache
def metrics(seed, num_classes, images):
    """The final metrics of that run; the medium group is empty, and those of the validation images are a tenth higher."""
    table = predictions(seed, num_classes, images)
    recalls = [float((table["predicted"][table["label"] == c] == c).mean()) for c in range(num_classes)]
    half = num_classes // 2
    mean = float(np.mean(recalls))
    values = {"accuracy": mean, "balanced_accuracy": mean, "macro_f1": mean / 2, "worst": min(recalls)}
    values |= {"g_mean": math.prod(recalls) ** (1 / num_classes), "nll": 2 - 1.5 * mean, "ece": (1 - mean) / 7}
    values |= {"many": float(np.mean(recalls[:half])), "few": float(np.mean(recalls[half:]))}
    recorded = {f"test/{name}": value for name, value in values.items()} | {"test/recall/plane": recalls[0]}
    recorded |= {f"validation/{name}": 1.1 * value for name, value in values.items()}
    return recorded | {"time/own": 60.0, "time/shared": 30.0, "epochs/own": 2.0, "epochs/shared": 1.0}


def cells(text, heading):
    """The rows of the first Markdown table under that heading, as dicts of text."""
    lines = text.split(f"{heading}\n", 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").strip("|").split("|")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def part(text, heading):
    """The text of the section under that heading, up to the end of what is folded with it."""
    return text.split(f"# {heading}\n", 1)[1].split("\n</details>", 1)[0]


def unlinked(cell):
    """The cell without marks of bold type, and without its link to the list of runs."""
    return re.sub(r"\[([^]]*)\]\(#runs\)", r"\1", cell.strip("*"))


def numbers(cell):
    """The numbers in a cell."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell)]


def shifted(shifts, seeds=range(8), metric="test/accuracy", **more):
    """A study whose arms have the baseline's accuracy plus a shift, and a little noise of their own."""
    arms = [arm("baseline", None), *(arm(name, "baseline", **more) for name in shifts)]
    recorded = study(arms, seeds=list(seeds))
    for place, name in enumerate(["baseline", *shifts]):
        for seed in seeds:
            noise = 0.001 * math.sin(7 * seed + 3 * place)
            where = (recorded.runs["arm"] == name) & (recorded.runs["seed"] == seed)
            recorded.runs.loc[where, metric] = 0.6 + {"baseline": 0.0, **shifts}[name] + noise
    if metric == "test/accuracy":  # the classes have equally many test images
        recorded.runs["test/balanced_accuracy"] = recorded.runs["test/accuracy"]
    return recorded


def restricted(recorded, seeds):
    """The study as if these arms had been planned and run with these of its seeds only."""

    def is_kept(arm, seed):
        return arm not in seeds or seed in seeds[arm]

    recorded.plan["runs"] = [run for run in recorded.plan["runs"] if is_kept(run["arm"], run["seed"])]
    kept = [is_kept(arm, seed) for arm, seed in recorded.runs[["arm", "seed"]].itertuples(index=False)]
    recorded.runs = recorded.runs[kept].reset_index(drop=True)
    return recorded
