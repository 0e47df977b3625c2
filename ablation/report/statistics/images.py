"""What is kept of the runs' predictions, and the uncertainty from the test images.

Shapes: N test images, G groups of them (patients, or the images themselves), C true and C predicted classes, B bins of confidence,
R resamples.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from ablation.report.statistics.descriptive import Counts, confusion_matrix
from ablation.report.statistics.inference import LEVEL, ROUNDING, Floats
from ablation.training.evaluation import NUM_BINS, certainty  # as in the recorded calibration error

Ints = npt.NDArray[np.int64]

RESAMPLES = 2000
IMAGE_COLUMNS = ["arm", "role", "against", "metric", "images", "mean", "low", "high", "gained", "lost"]
MCNEMAR_COLUMNS = ["arm", "role", "against", "seed", "gained", "lost", "p"]
CALIBRATION_COLUMNS = ["arm", "bin", "confidence", "accuracy", "share"]


@dataclass(frozen=True)
class Predictions:
    """One run's predictions without their scores; images are in the order of their index.

    `test_set` is equal for runs with the same images and labels. `bins_3B` has, per bin of confidence, the number of images, the sum of
    their confidences, and the number that were right. `group_N` numbers the groups (patients) that the images are of, if there are any.
    """

    test_set: str
    labels_N: npt.NDArray[np.int32]
    is_right_N: npt.NDArray[np.bool_]
    counts_CC: Counts
    bins_3B: Floats
    group_N: npt.NDArray[np.int32] | None = None


Results = Mapping[str, Mapping[int, Predictions]]  # arm -> seed -> predictions
Both = tuple[Predictions, Predictions]  # an arm's and its partner's predictions for one seed


def read(table: pd.DataFrame, num_classes: int) -> Predictions:
    """What is kept of a run's table of predictions."""
    table = table.sort_values("index")
    labels, predicted = (table[name].to_numpy(dtype=np.int64) for name in ("label", "predicted"))
    known = hashlib.sha256(table["index"].to_numpy(dtype=np.int64).tobytes() + labels.tobytes())
    if "item" in table:  # which one's own training code names
        known.update("\0".join(map(str, table["item"])).encode())
    counts_CC, is_right = confusion_matrix(labels, predicted, num_classes), labels == predicted
    group_N = np.unique(table["group"], return_inverse=True)[1].astype(np.int32) if "group" in table else None
    return Predictions(known.hexdigest(), labels.astype(np.int32), is_right, counts_CC, bins(scores(table), labels, is_right), group_N)


def scores(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """scores_NC, from one column per class or one column of lists; C is 0 if there are none."""
    if "logits" in table:
        return np.stack(table["logits"].to_list()).astype(np.float32)
    return table[[name for name in table.columns if name.startswith("logit")]].to_numpy(dtype=np.float32)


def bins(scores_NC: npt.NDArray[np.float32], labels_N: Ints, is_right_N: npt.NDArray[np.bool_]) -> Floats:
    """bins_3B: images, summed confidences and right images in the ECE's 15 bins of equal width, open below and closed above."""
    if not scores_NC.size:  # one's own training code may hand back no scores
        return np.zeros((3, NUM_BINS))
    _, confidence_N = certainty(labels_N, scores_NC)
    bin_N = np.searchsorted(np.arange(NUM_BINS + 1) / NUM_BINS, confidence_N, side="left") - 1
    weights = (np.ones_like(confidence_N), confidence_N, is_right_N)
    return np.stack([np.bincount(bin_N, weights=weight_N, minlength=NUM_BINS) for weight_N in weights])


def calibration_rows(results: Results) -> pd.DataFrame:
    """Per arm and non-empty bin of confidence, over all seeds: mean confidence, accuracy, and share of the images.

    Bin 0 is the lowest. The sum over bins of share * |accuracy - confidence| is the ECE of the pooled images.
    """
    rows = []
    for arm, by_seed in results.items():
        images_B, sure_B, right_B = np.sum([predictions.bins_3B for predictions in by_seed.values()], axis=0)
        for place in np.flatnonzero(images_B):
            share = images_B[place] / images_B.sum()
            rows.append((arm, int(place), sure_B[place] / images_B[place], right_B[place] / images_B[place], share))
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def image_rows(pairs: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Per comparison the difference in points with an interval over test images, and the images gained and lost per seed.

    It answers another question than the seeds: would these trained models differ on other images of the same kind? The difference of an
    image is the mean over seeds. Images are resampled 2,000 times (balanced accuracy: within each class), whole groups of them where the
    data have any, such as patients; and the interval has the middle 95 % of the means. If the seeds were not all tested on the same
    images, mean and interval are NaN, and the counts are of the seeds in which both arms had the same images. Without such a seed there
    is no row.
    """
    rows, measured = [], dict[tuple[str, str], list[dict[str, Any]]]()  # a parent that is the baseline is looked at once
    for comparison, by_seed in _both_done(pairs, results):
        arms = comparison["arm"], comparison["against"]
        if arms not in measured:
            measured[arms] = _measured(by_seed)
        rows += [{**comparison, **numbers} for numbers in measured[arms]]
    return pd.DataFrame(rows, columns=IMAGE_COLUMNS)


def _measured(by_seed: Mapping[int, Both]) -> list[dict[str, Any]]:
    """A row for each metric of one comparison; none without a seed in which both arms had the same images."""
    changes = [_changes(*both) for both in by_seed.values() if _is_alike(*both)]
    if not changes:
        return []
    counts = {
        "images": round(np.mean([len(changes_N) for changes_N in changes])),
        "gained": np.mean([(changes_N > 0).sum() for changes_N in changes]),
        "lost": np.mean([(changes_N < 0).sum() for changes_N in changes]),
    }
    intervals = _intervals(changes, by_seed).items()
    return [{"metric": metric, **dict(zip(("mean", "low", "high"), numbers, strict=True)), **counts} for metric, numbers in intervals]


def _intervals(changes: Sequence[Ints], by_seed: Mapping[int, Both]) -> dict[str, tuple[float, float, float]]:
    """Each metric's mean difference in points and its interval over test images; NaN unless all runs had the same test images."""
    first = next(iter(by_seed.values()))[0]
    strata = {"accuracy": np.zeros_like(first.labels_N), "balanced_accuracy": first.labels_N}
    if len({predictions.test_set for both in by_seed.values() for predictions in both}) > 1:
        return dict.fromkeys(strata, (np.nan, np.nan, np.nan))
    total_N = np.sum(changes, axis=0)
    return {metric: bootstrap(total_N, strata_N, 100 / len(by_seed), first.group_N) for metric, strata_N in strata.items()}


def _changes(ours: Predictions, theirs: Predictions) -> Ints:
    """Per image: 1 if it was gained, -1 if it was lost, otherwise 0."""
    return ours.is_right_N.astype(np.int64) - theirs.is_right_N


def _is_alike(ours: Predictions, theirs: Predictions) -> bool:
    return ours.test_set == theirs.test_set


def mcnemar_rows(pairs: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Per comparison and seed the images that only one of the arms got right, and McNemar's exact p (a sign test on them).

    It compares two trained models, not two settings: another seed of the same arm may differ as significantly. Where images are of
    groups, the signs of whole groups are flipped.
    """
    rows = []
    for comparison, by_seed in _both_done(pairs, results):
        for seed, (ours, theirs) in by_seed.items():
            if _is_alike(ours, theirs):
                changes_N = _changes(ours, theirs)
                gained, lost = int((changes_N > 0).sum()), int((changes_N < 0).sum())
                p = np.nan if ours.group_N is None else group_flip_p(changes_N, ours.group_N)
                rows.append({**comparison, "seed": seed, "gained": gained, "lost": lost, "p": p})
    counts = pd.DataFrame(rows, columns=MCNEMAR_COLUMNS).astype({"p": float})
    exact = mcnemar_p(counts["gained"].to_numpy(dtype=np.int64), counts["lost"].to_numpy(dtype=np.int64))
    return counts.assign(p=counts["p"].where(counts["p"].notna(), exact))


def mcnemar_p(gained: Ints, lost: Ints) -> Floats:
    """The two-sided p of a binomial test with equal chances; 1 if nothing was gained or lost.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947; here exact.
    """
    fewer, more = np.minimum(gained, lost), np.maximum(gained, lost)
    p: Floats = np.where(more - fewer <= 1, 1.0, 2 * special.betainc(np.maximum(more, 1), fewer + 1, 0.5))
    return p


def group_flip_p(changes_N: Ints, group_N: npt.NDArray[np.int32]) -> float:
    """The two-sided p of the sum of changes when the sign of each group's sum is flipped at random; exact.

    It asks only that a group's images might as well have spoken for the other arm, whatever they share. With one image in each group it
    is McNemar's exact p. Winkler et al., "Multi-level block permutation", NeuroImage 2015: signs are flipped by whole blocks.
    """
    from scipy import stats  # which takes long to import, and most data have no groups

    sums_G = np.bincount(group_N, weights=changes_N).astype(np.int64)
    chances = np.ones(1)  # of the sums from -(len - 1) / 2 to (len - 1) / 2
    for size, count in zip(*np.unique(np.abs(sums_G[sums_G != 0]), return_counts=True), strict=True):
        flips = np.zeros(2 * size * count + 1)
        flips[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, flips)
    distance = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[distance >= abs(sums_G.sum())].sum()))


def bootstrap(
    values_N: Ints, strata_N: npt.NDArray[np.int32], scale: float, group_N: npt.NDArray[np.int32] | None = None
) -> tuple[float, float, float]:
    """The mean over strata of their mean values, and its 95 % percentile interval when each stratum's images are resampled.

    With `group_N`, whole groups of images are resampled, which keeps what the images of a group share: those of each stratum, or, if a
    group has images of several strata, all together. A group of one image is an image. All results are multiplied by `scale`. Field and
    Welsh, "Bootstrapping clustered data", JRSS B 2007.

    Resampling n groups shows (n - 1) / n of the variance, so each stratum's deviations are widened by the root of n / (n - 1): Rao and Wu,
    "Resampling inference with complex survey data", JASA 1988. A stratum of one group shows nothing of how others would differ,
    nor do groups that all differ by as much: the interval is NaN.
    """
    strata, place_N = np.unique(strata_N, return_inverse=True)
    sums_G, sizes_G, place_G = values_N, np.ones_like(values_N), place_N
    if group_N is not None:
        first_G = np.unique(group_N, return_index=True)[1]
        sums_G, sizes_G, place_G = np.bincount(group_N, weights=values_N).astype(np.int64), np.bincount(group_N), place_N[first_G]
    if group_N is None or (place_N == place_G[group_N]).all():
        sums_RT, sizes_RT = _drawn_within(sums_G, sizes_G, place_G, len(strata))
        drawn_T = groups_T = np.bincount(place_G)
    else:
        shape = len(strata), len(sizes_G)
        sums_RT, sizes_RT = (_drawn_together(values, place_N, group_N, shape) for values in (values_N, np.ones_like(values_N)))
        drawn_T = np.full(len(strata), len(sizes_G))
        groups_T = np.bincount(np.unique(place_N * len(sizes_G) + group_N) // len(sizes_G))
    mean_T = np.bincount(place_N, weights=values_N) / np.bincount(place_N)
    if groups_T.min() < 2:
        return scale * float(mean_T.mean()), np.nan, np.nan
    means_R = _mean_of_strata(sums_RT, sizes_RT, mean_T, np.sqrt(drawn_T / (drawn_T - 1)))
    if np.ptp(means_R) <= ROUNDING * np.abs(values_N).max():
        return scale * float(mean_T.mean()), np.nan, np.nan
    low, high = np.quantile(means_R, [LEVEL / 2, 1 - LEVEL / 2])
    return scale * float(mean_T.mean()), scale * float(low), scale * float(high)


def _mean_of_strata(sums_RT: Floats, sizes_RT: Floats, mean_T: Floats, wider_T: Floats) -> Floats:
    """The mean of the strata's means, each with its deviation widened; a stratum that no image was drawn of is left out."""
    is_there_RT = sizes_RT > 0
    deviations_RT = np.divide(sums_RT, sizes_RT, out=np.broadcast_to(mean_T, sums_RT.shape).copy(), where=is_there_RT) - mean_T
    means_RT = np.where(is_there_RT, mean_T + wider_T * deviations_RT, 0.0)
    return np.asarray(means_RT.sum(axis=1) / is_there_RT.sum(axis=1))


def _drawn_within(sums_G: Ints, sizes_G: Ints, place_G: Ints, num_strata: int) -> tuple[Floats, Floats]:
    """The sums and sizes of each stratum, its groups resampled.

    Only a few sums and sizes are different, so the number of groups with each is drawn: that is the same distribution, without drawing
    single groups.
    """
    generator, drawn_2RT, base = np.random.default_rng(0), np.zeros((2, RESAMPLES, num_strata)), int(sizes_G.max()) + 1
    levels, level_G = np.unique(sums_G * base + sizes_G, return_inverse=True)
    counts_TL = np.bincount(place_G * len(levels) + level_G, minlength=num_strata * len(levels)).reshape(num_strata, len(levels))
    for stratum, counts_L in enumerate(counts_TL):
        draws_RL = generator.multinomial(counts_L.sum(), counts_L / counts_L.sum(), RESAMPLES)
        drawn_2RT[:, :, stratum] = draws_RL @ (levels // base), draws_RL @ (levels % base)
    return drawn_2RT[0], drawn_2RT[1]


def _drawn_together(values_N: Ints, place_N: Ints, group_N: npt.NDArray[np.int32], shape: tuple[int, int]) -> Floats:
    """The sum of the values in each stratum when all groups are resampled; the same groups for any values."""
    from scipy import sparse

    sums_TG = sparse.csr_array((values_N.astype(float), (place_N, group_N)), shape=shape)
    blocks = np.array_split(_draws(shape[1]), RESAMPLES // 100)
    return np.concatenate([(sums_TG @ draws_RG.T.astype(float)).T for draws_RG in blocks])


@lru_cache(maxsize=1)
def _draws(num_groups: int) -> npt.NDArray[np.uint8]:
    """How often each group is in each resample."""
    generator = np.random.default_rng(0)
    draws = (np.bincount(generator.integers(0, num_groups, num_groups), minlength=num_groups) for _ in range(RESAMPLES))
    return np.stack([counts_G.astype(np.uint8) for counts_G in draws])


def _both_done(pairs: pd.DataFrame, results: Results) -> Iterator[tuple[dict[str, str], dict[int, Both]]]:
    """The comparisons of different trainings, tested on the same images, with the seeds that both arms finished."""
    for pair in pairs[pairs["is_tested"]].to_dict("records"):
        ours, theirs = results.get(pair["arm"], {}), results.get(pair["against"], {})
        by_seed = {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}
        if by_seed:
            yield {name: pair[name] for name in ("arm", "role", "against")}, by_seed
