"""The uncertainty from the test items: paired differences of their scores, with a bootstrap over items or clusters of them.

Shapes: N items of one run, P pairs of an item and a seed, G clusters (or items), K comparisons, R resamples.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from ablation.report.metrics import MetricTable, short_name
from ablation.report.statistics.inference import LEVEL, Floats, rounding_errors

Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
MOST_AT_ONCE = 10_000_000  # numbers drawn in one piece
CLOSE = 1e-5  # of a metric, by which the mean of its items may differ: sums in single precision do
ITEM, CLUSTER = "item", "cluster"
ITEM_COLUMNS = ["arm", "role", "against", "metric", "items", "clusters", "seeds", "mean", "low", "high", "why_not"]
RUN_COLUMNS = ["arm", "seed", "items", "clusters"]
NOT_THE_MEAN = "the mean of its items is not the metric"
NOT_THE_SAME = "the two arms were not tested on the same items"
ONE_WITHOUT_CLUSTERS = "one of both arms handed back no clusters"
SOME_WITHOUT_CLUSTERS = "some seeds handed back no clusters"
OTHER_CLUSTERS = "the items are of other clusters in one arm than in the other"
CHANGING_CLUSTERS = "an item is of one cluster in one seed and of another in the next"
NO_ITEMS = "they share no seed with scores of items"
ONE_CLUSTER = "all items are of one cluster"


@dataclass(frozen=True)
class Items:
    """One run's scores by metric, in the order of the items' names; `test_set` is equal for runs with the same items and clusters."""

    test_set: str
    names_N: npt.NDArray[np.str_]
    scores: Mapping[str, Floats]
    cluster_N: npt.NDArray[np.str_] | None = None


Results = Mapping[str, Mapping[int, Items]]  # arm -> seed -> items
Values = Mapping[tuple[str, int, str], float]  # (arm, seed, full name of a metric) -> the metric that the run handed back


def read(table: pd.DataFrame) -> Items:
    """What is kept of a run's table of scores."""
    names = table[ITEM].astype(str).to_numpy(dtype=np.str_)
    order = np.argsort(names, kind="stable")
    names_N = names[order]
    cluster_N = table[CLUSTER].astype(str).to_numpy(dtype=np.str_)[order] if CLUSTER in table else None
    known = hashlib.sha256("\0".join([*names_N, "", *([] if cluster_N is None else cluster_N)]).encode())
    scores = {str(name): table[name].to_numpy(dtype=float)[order] for name in table.columns if name not in (ITEM, CLUSTER)}
    return Items(known.hexdigest(), names_N, scores, cluster_N)


def item_rows(pairs: pd.DataFrame, results: Results, values: Values, metrics: MetricTable) -> pd.DataFrame:
    """Per comparison and metric with scores, the mean paired difference in the metric's unit, with its interval over test items.

    It answers another question than the seeds: would these trained models differ on other items of the same kind? The differences of an
    item are those of all seeds that have it and that both arms finished. Items are resampled 2,000 times, whole clusters of them where
    there are any, and the same ones for all comparisons. Where that would say nothing, there is a reason in place of an interval;
    where all of them differ by as much, the interval is NaN, since it would take the missing spread of these items for the true one.
    """
    rows = list(_compared(pairs, results, values, metrics))
    by_draw: dict[tuple[str, ...], list[int]] = {}
    for place, (row, both) in enumerate(rows):
        if not row["why_not"]:
            by_draw.setdefault(tuple(ours.test_set for ours, _ in both), []).append(place)
    for places in by_draw.values():
        _fill([rows[place] for place in places], metrics)
    return pd.DataFrame([row for row, _ in rows], columns=ITEM_COLUMNS)


def run_rows(results: Results) -> pd.DataFrame:
    """The runs with scores of items: how many items, and how many clusters of them (0: none)."""
    rows = [
        (arm, seed, len(items.names_N), 0 if items.cluster_N is None else len(np.unique(items.cluster_N)))
        for arm, by_seed in results.items()
        for seed, items in by_seed.items()
    ]
    return pd.DataFrame(rows, columns=RUN_COLUMNS)


Both = Sequence[tuple[Items, Items]]  # an arm's items and its partner's, for each seed that both have
Row = dict[str, Any]


def _compared(pairs: pd.DataFrame, results: Results, values: Values, metrics: MetricTable) -> Iterator[tuple[Row, Both]]:
    """A row for each comparison and metric, without its numbers, and the items that they are made of."""
    scored = {name for by_seed in results.values() for items in by_seed.values() for name in items.scores}
    is_mean = {
        (arm, seed, name): _is_mean(items.scores[name], values.get((arm, seed, name), np.nan))
        for arm, by_seed in results.items()
        for seed, items in by_seed.items()
        for name in items.scores
    }
    for pair in pairs[~pairs["is_same"]].to_dict("records"):
        arms = pair["arm"], pair["against"]
        ours, theirs = (results.get(arm, {}) for arm in arms)
        for name in (name for name in metrics.full_names if name in scored):
            seeds = [seed for seed in ours if seed in theirs and name in ours[seed].scores and name in theirs[seed].scores]
            both = [(ours[seed], theirs[seed]) for seed in seeds]
            are_means = all(is_mean[arm, seed, name] for arm in arms for seed in seeds)
            about = {"arm": pair["arm"], "role": pair["role"], "against": pair["against"], "metric": short_name(name)}
            numbers = {"items": 0, "clusters": 0, "seeds": len(seeds), **dict.fromkeys(("mean", "low", "high"), np.nan)}
            yield {**about, **numbers, "why_not": _why_not(both) if are_means else NOT_THE_MEAN}, both


def _why_not(both: Both) -> str:
    """Why these items say nothing; empty if they do."""
    if not both:
        return NO_ITEMS
    if any(not np.array_equal(ours.names_N, theirs.names_N) for ours, theirs in both):
        return NOT_THE_SAME
    if any((ours.cluster_N is None) != (theirs.cluster_N is None) for ours, theirs in both):
        return ONE_WITHOUT_CLUSTERS
    if len({ours.cluster_N is None for ours, _ in both}) > 1:
        return SOME_WITHOUT_CLUSTERS
    if any(ours.test_set != theirs.test_set for ours, theirs in both):
        return OTHER_CLUSTERS
    if _is_in_two_clusters([ours for ours, _ in both]):
        return CHANGING_CLUSTERS
    return ONE_CLUSTER if all(len(np.unique(_clusters(ours))) == 1 for ours, _ in both) else ""


def _is_in_two_clusters(runs: Sequence[Items]) -> bool:
    """Whether an item is of one cluster in one run and of another in the next."""
    pairs = {pair for items in runs for pair in zip(items.names_N, _clusters(items), strict=True)}
    return len({name for name, _ in pairs}) < len(pairs)


def _clusters(items: Items) -> npt.NDArray[np.str_]:
    return items.names_N if items.cluster_N is None else items.cluster_N


def _is_mean(scores_N: Floats, value: float) -> bool:
    return math.isclose(scores_N.mean(), value, rel_tol=CLOSE, abs_tol=1e-12)


def _fill(rows: Sequence[tuple[Row, Both]], metrics: MetricTable) -> None:
    """Write the numbers of rows whose runs have the same items."""
    names_P = np.concatenate([ours.names_N for ours, _ in rows[0][1]])
    cluster_P = np.concatenate([_clusters(ours) for ours, _ in rows[0][1]])
    units, unit_P = np.unique(cluster_P, return_inverse=True)
    sizes_G = np.bincount(unit_P)
    sums_KG: Floats = np.stack([np.bincount(unit_P, weights=_changes(row, both, metrics)) for row, both in rows])
    low_K, high_K = bootstrap(sums_KG, sizes_G, [_largest(row, both, metrics) for row, both in rows])
    has_clusters = rows[0][1][0][0].cluster_N is not None
    for (row, _), sums_G, low, high in zip(rows, sums_KG, low_K, high_K, strict=True):
        row |= {"items": len(np.unique(names_P)), "clusters": len(units) if has_clusters else 0}
        row |= {"mean": sums_G.sum() / sizes_G.sum(), "low": low, "high": high}


def _changes(row: Row, both: Both, metrics: MetricTable) -> Floats:
    """The differences of all items and seeds, in the metric's unit."""
    name, scale = metrics.full_name(row["metric"]), metrics.unit(row["metric"]).scale
    changes: Floats = scale * np.concatenate([ours.scores[name] - theirs.scores[name] for ours, theirs in both])
    return changes


def _largest(row: Row, both: Both, metrics: MetricTable) -> float:
    """The largest absolute score of both arms, in the metric's unit: with it rounding errors grow."""
    name, scale = metrics.full_name(row["metric"]), metrics.unit(row["metric"]).scale
    return scale * max(float(np.abs(items.scores[name]).max()) for pair in both for items in pair)


def bootstrap(sums_KG: Floats, sizes_G: Ints, largest: npt.ArrayLike = 100.0) -> tuple[Floats, Floats]:
    """The ends of the 95 % percentile intervals of K means, when G clusters with these sums and sizes are resampled.

    A cluster of one item is an item. The levels are widened so that few clusters do not give too narrow an interval, as the t
    distribution is wider than the normal one. Field and Welsh, "Bootstrapping clustered data", JRSS B 2007; Hesterberg, "What teachers
    should know about the bootstrap", The American Statistician 2015 (expanded percentile interval). NaN where all clusters have the same
    mean; `largest` is as in `inference.summary`.
    """
    number = len(sizes_G)
    if number < 2:
        nothing = np.full(len(sums_KG), np.nan)
        return nothing, nothing
    generator, block = np.random.default_rng(0), max(1, min(RESAMPLES, MOST_AT_ONCE // number))
    parts = [_resampled(generator, sums_KG, sizes_G, min(block, RESAMPLES - begin)) for begin in range(0, RESAMPLES, block)]
    tail = special.ndtr(np.sqrt(number / (number - 1)) * special.stdtrit(number - 1, LEVEL / 2))
    varies_K = np.ptp(sums_KG / sizes_G, axis=1) > rounding_errors(largest, len(sums_KG))
    low_K, high_K = np.where(varies_K, np.quantile(np.concatenate(parts), [tail, 1 - tail], axis=0), np.nan)
    return low_K, high_K


def _resampled(generator: np.random.Generator, sums_KG: Floats, sizes_G: Ints, number: int) -> Floats:
    """means_RK: the means of so many resamples."""
    num_clusters = len(sizes_G)
    drawn = generator.integers(0, num_clusters, (number, num_clusters)) + num_clusters * np.arange(number)[:, None]
    counts_RG = np.bincount(drawn.ravel(), minlength=number * num_clusters).reshape(number, num_clusters).astype(float)
    means_RK: Floats = (counts_RG @ sums_KG.T) / (counts_RG @ sizes_G)[:, None]
    return means_RK
