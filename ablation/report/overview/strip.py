"""The strip at the top of a report: arms, seeds, images per split, the metric and why, the groups of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablation.formatting import cluster_words, counted, ranges
from ablation.report.metrics import MetricTable

STATES = ("done", "failed", "missing")


@dataclass(frozen=True)
class Fact:
    """One fact of the strip: `Seeds`, `0, 1`. Both are plain text."""

    name: str
    words: str


def facts(plan: Mapping[str, Any], runs: pd.DataFrame, num_arms: int, metric: str, metrics: MetricTable) -> tuple[Fact, ...]:
    """What was run, in a few words each; facts that the plan does not have are left out."""
    found = {
        "Arms": str(num_arms),
        "Seeds": ranges([int(seed) for seed in plan["seeds"]]),
        "Runs": run_words(counted_once(plan, runs)),
        "Images": image_words(plan),
        "Metric": metric_words(plan, metric, metrics),
        "Groups of images": cluster_words(plan.get("clusters") or {}),
    }
    return tuple(Fact(name, words) for name, words in found.items() if words)


def counted_once(plan: Mapping[str, Any], runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, each once, even if several arms share it; `run` is the id, or the key of one that is not recorded."""
    keys = {(run["arm"], int(run["seed"])): run["key"] for run in plan["runs"]}
    planned = [keys[arm, seed] for arm, seed in zip(runs["arm"], runs["seed"], strict=True)]
    return runs.assign(run=runs["run_id"].where(runs["run_id"] != "", pd.Series(planned, index=runs.index))).drop_duplicates("run")


def run_words(runs: pd.DataFrame) -> str:
    """`140 done`, or `19 done, 1 failed, 1 missing`."""
    counts = runs["state"].value_counts()
    kept = [state for state in dict.fromkeys([*STATES, *map(str, counts.index)]) if counts.get(state, 0)]
    return ", ".join(f"{counts[state]} {state}" for state in kept) or "none"


def image_words(plan: Mapping[str, Any]) -> str:
    """`770 training, 359 test, in 10 classes`; empty where the plan counts none."""
    per_split = split_counts(plan)
    classes = f" in {counted(len(plan['classes']), 'class', 'classes')}" if plan.get("classes") else ""
    return ", ".join(f"{number:,} {split}" for split, number in per_split.items()) + classes if per_split else ""


def split_counts(plan: Mapping[str, Any]) -> dict[str, int]:
    """split -> its images, of the plan's first seed and its first data set."""
    training: Sequence[int] = next(iter((plan.get("counts") or {}).values()), [])
    counts: dict[str, Sequence[int]] = {
        "training": training,
        "validation": plan.get("validation_counts") or [],
        "test": plan.get("test_counts") or [],
    }
    accounts = plan.get("data") or ()
    counts |= accounts[0].get("counts") or {} if accounts else {}
    return {split: sum(per_class) for split, per_class in counts.items() if len(per_class)}


def metric_words(plan: Mapping[str, Any], metric: str, metrics: MetricTable) -> str:
    """`balanced accuracy: the classes have 35 to 37 test images`; the reason only of the study's own metric."""
    reason = str(plan.get("metric_reason") or "") if metric == metrics.default else "asked for"
    direction = "lower is better" if metrics.is_lower_better(metric) else ""
    return ": ".join(filter(None, [metrics.words(metric), "; ".join(filter(None, [direction, reason]))]))
