"""Means, standard deviations and paired differences over seeds, and the per-class figures of a confusion matrix.

Shapes: R runs of one arm, C true classes, C predicted classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report.metrics import MetricTable, short_name

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Records = Sequence[Mapping[Any, Any]]  # the rows of a frame


def by_seed(runs: pd.DataFrame, arms: Sequence[str], metric: str) -> pd.DataFrame:
    """One row per seed and one column per arm: the metric of finished runs, otherwise NaN."""
    is_done_R = (runs["state"] == "done").to_numpy(dtype=bool)
    if metric not in runs or not is_done_R.any():
        return pd.DataFrame(index=pd.Index([], name="seed"), columns=list(arms), dtype=float)
    names_R = runs["arm"].to_numpy()[is_done_R]  # not a part of the frame, which has dozens of columns
    seeds, row_R = np.unique(runs["seed"].to_numpy()[is_done_R], return_inverse=True)
    place = {arm: column for column, arm in enumerate(dict.fromkeys(names_R))}
    values_SA = np.full((len(seeds), len(place) + 1), np.nan)  # the last column is that of arms without runs
    values_SA[row_R, [place[arm] for arm in names_R]] = runs[metric].to_numpy(dtype=float)[is_done_R]
    columns = [place.get(arm, -1) for arm in arms]
    return pd.DataFrame(values_SA[:, columns], index=pd.Index(seeds, name="seed"), columns=list(arms))


def records_by(frame: pd.DataFrame, *columns: str) -> dict[Any, Records]:
    """The rows as mappings by the value of a column, or by the values of several, in the order of their first rows.

    pandas takes as long for the records of one row as for those of hundreds, so they are made once.
    """
    rows: dict[Any, list[Mapping[Any, Any]]] = {}
    for row in frame.to_dict("records"):
        key = row[columns[0]] if len(columns) == 1 else tuple(row[column] for column in columns)
        rows.setdefault(key, []).append(row)
    return dict(rows)


def finite(values: pd.DataFrame) -> pd.DataFrame:
    """The values with NaN for infinities, which have no differences."""
    known = values.to_numpy(dtype=float)
    return pd.DataFrame(np.where(np.isfinite(known), known, np.nan), index=values.index, columns=values.columns)


def mean_and_sd(values: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Each column's mean and sample standard deviation; infinite and NaN if it has an infinite value."""
    with np.errstate(invalid="ignore"):
        return values.mean(), values.std()


def compare(runs: pd.DataFrame, arms: pd.DataFrame, metric: str, metrics: MetricTable) -> pd.DataFrame:
    """For each row of `arms`: the metric's mean and sd, and its differences to parent and baseline, paired by seed.

    Differences of fractions are in points, as the names of their columns say; others are in the metric's unit. The sd divides by n - 1
    and is NaN for a single seed. Only seeds with a finite value in both arms make a pair.
    """
    name, scale = short_name(metric), metrics.unit(metric).scale
    values = by_seed(runs, list(arms["arm"]), metric)
    columns: dict[str, pd.Series] = dict(zip((f"{name}_mean", f"{name}_sd"), mean_and_sd(values), strict=True))
    values = finite(values)
    for role in ("parent", "baseline"):
        partners = values.reindex(columns=list(arms[role]))
        differences = pd.DataFrame(scale * (values.to_numpy() - partners.to_numpy()))
        mean, sd = metrics.difference_columns(name, role)
        columns[mean], columns[sd] = differences.mean(), differences.std()
        columns[f"{name}_vs_{role}_pairs"] = differences.count()
    return pd.DataFrame({column: series.to_numpy() for column, series in columns.items()}, index=arms.index)


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int) -> Counts:
    """counts_CC: how often each true class (row) was predicted as each class (column)."""
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def normalised(counts_CC: npt.ArrayLike) -> Floats:
    """shares_CC: each row divided by its sum; a class without images is a row of NaN."""
    counts = np.asarray(counts_CC, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return shares


def class_figures(counts_RCC: npt.ArrayLike) -> dict[str, Floats]:
    """precision, recall, f1, specificity and support of every run and class, each of shape RC.

    A class that has images and is never predicted has precision 0. All four are NaN for a class without images, and the specificity
    for a class without images of others.
    """
    counts = np.asarray(counts_RCC, dtype=np.float64)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    predicted, support = counts.sum(axis=1), counts.sum(axis=2)
    others = support.sum(axis=1, keepdims=True) - support
    return {
        "precision": np.where(support > 0, _ratio(hits, predicted), np.nan),
        "recall": np.where(support > 0, _ratio(hits, support), np.nan),
        "f1": np.where(support > 0, _ratio(2 * hits, predicted + support), np.nan),
        "specificity": np.where((support > 0) & (others > 0), 1 - _ratio(predicted - hits, others), np.nan),
        "support": support,
    }


def average_figures(figures: dict[str, Floats]) -> dict[str, dict[str, Floats]]:
    """The macro and the support-weighted average of precision, recall and f1, and the accuracy, each of shape R.

    The macro average is over the classes with images, as for the balanced accuracy.
    """
    support = figures["support"]
    is_there = support > 0
    known = {name: np.where(is_there, figures[name], 0.0) for name in ("precision", "recall", "f1")}
    macro = {name: _ratio(values.sum(axis=1), is_there.sum(axis=1).astype(np.float64)) for name, values in known.items()}
    weighted = {name: _ratio((values * support).sum(axis=1), support.sum(axis=1)) for name, values in known.items()}
    return {
        "accuracy": {"f1": weighted["recall"]},
        "macro avg": macro,
        "weighted avg": weighted,
    }


def spread(values_R: Floats) -> tuple[float, float]:
    """The mean and the sample's standard deviation of the values that exist; NaN for the mean of none, and for the deviation of one."""
    known = values_R[~np.isnan(values_R)]
    return float(known.mean()) if len(known) else float("nan"), float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
