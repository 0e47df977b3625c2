"""Frames for a study with classes: precision, recall, F1 and specificity, their averages, and recalls by seed.

Shapes: R runs of one arm, C true classes, C predicted classes.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.errors import StoreError
from ablation.formatting import ranges
from ablation.report.frames.facts import class_groups, classes_of
from ablation.report.statistics import descriptive
from ablation.report.statistics.images import Results

FIGURES = ("precision", "recall", "f1")
OF_CLASS = (*FIGURES, "specificity")  # which has no average
COLUMNS, CLASS_COLUMNS = ([f"{figure}{part}" for figure in figures for part in ("", "_sd")] for figures in (FIGURES, OF_CLASS))
Counts = Mapping[str, npt.NDArray[np.int64]]  # arm -> counts_RCC
CountsBySeed = Mapping[str, Mapping[int, npt.NDArray[np.int64]]]  # arm -> seed -> counts_CC
CONFUSION = "confusion_matrix.csv"  # the file of a run


def counts_by_seed(results: Results) -> CountsBySeed:
    """The confusion matrices of these predictions."""
    return {arm: {seed: predictions.counts_CC for seed, predictions in by_seed.items()} for arm, by_seed in results.items()}


def read_confusion(path: Path, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """counts_CC, from a run's file; raises StoreError if the file holds no such matrix of these classes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            (_, *predicted), *rows = csv.reader(file)
        counts_CC = np.array([row[1:] for row in rows], dtype=np.int64)
        is_whole = (
            predicted == [row[0] for row in rows] == list(classes) and counts_CC.shape == (len(rows), len(rows)) and counts_CC.min() >= 0
        )
    except (OSError, ValueError, IndexError, csv.Error):
        is_whole = False
    if not is_whole:
        raise StoreError(f"{path.name} is damaged; expected the counts of {len(classes)} true and {len(classes)} predicted classes")
    return counts_CC


def class_rows(counts: Counts, plan: Mapping[str, Any]) -> pd.DataFrame:
    """arm, class, group, then mean and sd over seeds of precision, recall, f1 and specificity, and the support."""
    groups = class_groups(plan)
    rows = []
    for arm, counts_RCC in counts.items():
        figures = descriptive.class_figures(counts_RCC)
        for index, name in enumerate(classes_of(plan)):
            values = {figure: figures[figure][:, index] for figure in OF_CLASS}
            support = float(figures["support"][:, index].mean())
            rows.append(
                {"arm": arm, "class": name, "group": groups.get(name, ""), **_spreads(values), "support": support, "n": len(counts_RCC)}
            )
    return pd.DataFrame(rows, columns=["arm", "class", "group", *CLASS_COLUMNS, "support", "n"])


def average_rows(counts: Counts) -> pd.DataFrame:
    """arm, average (accuracy, macro avg, weighted avg), then mean and sd over seeds of precision, recall and f1."""
    rows = []
    for arm, counts_RCC in counts.items():
        figures = descriptive.class_figures(counts_RCC)
        support = float(figures["support"].sum(axis=1).mean())
        for average, values in descriptive.average_figures(figures).items():
            rows.append({"arm": arm, "average": average, **_spreads(values), "support": support, "n": len(counts_RCC)})
    return pd.DataFrame(rows, columns=["arm", "average", *COLUMNS, "support", "n"])


def recalls(counts: CountsBySeed, classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """arm -> recalls by seed and class; NaN for a class without test items."""
    by_arm = {}
    for arm, by_seed in counts.items():
        figures = descriptive.class_figures(np.stack(list(by_seed.values())))
        by_arm[arm] = pd.DataFrame(figures["recall"], index=pd.Index(list(by_seed)), columns=list(classes))
    return by_arm


def on_common_seeds(by_arm: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> dict[str, pd.DataFrame]:
    """arm -> its recalls on the seeds that all of these arms have, in their order.

    Arms without recalls, and those that share no seed with the arms before them, are left out.
    """
    kept, seeds = list[str](), pd.Index([])
    for arm in arms:
        shared = by_arm[arm].index.intersection(seeds) if kept and arm in by_arm else by_arm[arm].index if arm in by_arm else pd.Index([])
        if len(shared):
            kept, seeds = [*kept, arm], shared
    return {arm: by_arm[arm].loc[seeds.sort_values()] for arm in kept}


def recall_spreads(recalls_SC: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """class -> mean and sd over seeds of its recall."""
    return {str(name): descriptive.spread(recalls_SC[name].to_numpy(dtype=float)) for name in recalls_SC.columns}


def seeds_words(by_arm: Mapping[str, pd.DataFrame], common: Mapping[str, pd.DataFrame]) -> str:
    """`seeds 0-2`, if any of the arms in `common` has other seeds besides; else empty."""
    seeds = list(next(iter(common.values())).index) if common else []
    if all(len(by_arm[arm]) == len(seeds) for arm in common):
        return ""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {ranges([int(seed) for seed in seeds])}"


def _spreads(values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    spreads = {figure: descriptive.spread(numbers) for figure, numbers in values.items()}
    return {column: number for figure, (mean, sd) in spreads.items() for column, number in ((figure, mean), (f"{figure}_sd", sd))}
