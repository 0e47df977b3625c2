"""The arms that have learnt little: those whose accuracy is hardly above what it takes no image to reach."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.report.frames.facts import Needs, planned_facts
from ablation.report.metrics import MetricTable
from ablation.report.statistics import best

CHANCE: Needs = frozenset({"classes", "counts"})  # needed to know how often guessing is right


def near_chance(plan: Mapping[str, Any], runs: pd.DataFrame, arms: Sequence[str], metrics: MetricTable) -> list[str]:
    """The arms whose accuracy is hardly better than guessing, or than always naming the largest test class."""
    if not planned_facts(plan) >= CHANCE:
        return []
    share = chance(plan)
    bound = share + min(share / 2, (1 - share) / 10)
    values = best.values_of(runs, arms, metrics.full_name(metrics.published))
    return [arm for arm, by_seed in values.items() if by_seed and best.mean_over(by_seed, by_seed) <= bound]


def chance(plan: Mapping[str, Any]) -> float:
    """The accuracy without looking at an image: 1/C, or the share of the largest test class if that is larger."""
    counts: Sequence[int] = plan["test_counts"]
    return max(1 / len(counts), max(counts) / max(1, sum(counts)))
