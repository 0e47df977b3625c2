"""The arms that have learnt little: those whose accuracy is hardly above what it takes no image to reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report.frames.facts import Needs, planned_facts
from ablation.report.metrics import MetricTable
from ablation.report.statistics import best

BALANCED, AUROC, PRECISION = "balanced_accuracy", "auroc", "average_precision"
CHANCE: Needs = frozenset({"classes", "counts"})  # needed to know how often guessing is right


def near_chance(plan: Mapping[str, Any], runs: pd.DataFrame, arms: Sequence[str], metrics: MetricTable, metric: str) -> list[str]:
    """The arms whose accuracy is hardly better than guessing, or than always naming the largest test class.

    An arm that gives up the largest class for the others has learnt something: its balanced accuracy, where there is one, is above 1/C,
    of C classes with test images: it is the mean over these.
    Where the report goes by how scores rank the images, which may be right though one class is always named, that counts as well.
    """
    if not planned_facts(plan) >= CHANCE:
        return []
    share = 1 / max(1, sum(count > 0 for count in plan["test_counts"]))
    bounds = {metrics.published: _bound(chance(plan)), BALANCED: _bound(share)}
    bounds |= {name: _bound(guess) for name, guess in {AUROC: 0.5, PRECISION: share}.items() if name == metric}
    values = {name: best.values_of(runs, arms, metrics.full_name(name)) for name in bounds if name in metrics}
    return [arm for arm in arms if _is_low([by_arm[arm] for by_arm in values.values()], [bounds[name] for name in values])]


def _bound(share: float) -> float:
    """Up to where a share of right answers is no better than this one."""
    return share + min(share / 2, (1 - share) / 10)


def _is_low(values: Sequence[Mapping[int, float]], bounds: Sequence[float]) -> bool:
    """Whether there are values of the first metric, and the mean of every metric that has any is within its bound."""
    known = [(by_seed, bound) for by_seed, bound in zip(values, bounds, strict=True) if by_seed]
    return bool(values and values[0]) and all(best.mean_over(by_seed, by_seed) <= bound for by_seed, bound in known)


def chance(plan: Mapping[str, Any]) -> float:
    """The accuracy without looking at an image: the share of the largest test class, which is at least that of any guess."""
    counts: Sequence[int] = plan["test_counts"]
    return max(counts) / max(1, sum(counts))
