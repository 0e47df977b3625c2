"""What is kept of the runs' predictions, and the uncertainty from the test images.

Shapes: N test images, C true and C predicted classes, B bins of confidence, R resamples.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ablation.report.statistics.descriptive import Counts, confusion_matrix
from ablation.report.statistics.inference import LEVEL, Floats
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
    their confidences, and the number that were right.
    """

    test_set: str
    labels_N: npt.NDArray[np.int32]
    is_right_N: npt.NDArray[np.bool_]
    counts_CC: Counts
    bins_3B: Floats


Results = Mapping[str, Mapping[int, Predictions]]  # arm -> seed -> predictions
Both = tuple[Predictions, Predictions]  # an arm's and its partner's predictions for one seed


def read(table: pd.DataFrame, num_classes: int) -> Predictions:
    """What is kept of a run's table of predictions."""
    table = table.sort_values("index")
    labels, predicted = (table[name].to_numpy(dtype=np.int64) for name in ("label", "predicted"))
    known = hashlib.sha256(table["index"].to_numpy(dtype=np.int64).tobytes() + labels.tobytes())
    counts_CC, is_right = confusion_matrix(labels, predicted, num_classes), labels == predicted
    return Predictions(known.hexdigest(), labels.astype(np.int32), is_right, counts_CC, bins(scores(table), labels, is_right))


def scores(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """scores_NC, from one column per class or one column of lists."""
    if "logits" in table:
        return np.stack(table["logits"].to_list()).astype(np.float32)
    return table[[name for name in table.columns if name.startswith("logit/")]].to_numpy(dtype=np.float32)


def bins(scores_NC: npt.NDArray[np.float32], labels_N: Ints, is_right_N: npt.NDArray[np.bool_]) -> Floats:
    """bins_3B: images, summed confidences and right images in the ECE's 15 bins of equal width, open below and closed above."""
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
    image is the mean over seeds. Images are resampled 2,000 times (balanced accuracy: within each class), and the interval has the
    middle 95 % of the means. If the seeds were not all tested on the same images, mean and interval are NaN, and the counts are of the
    seeds in which both arms had the same images. Without such a seed there is no row.
    """
    rows = []
    for comparison, by_seed in _both_done(pairs, results):
        changes = [_changes(*both) for both in by_seed.values() if _is_alike(*both)]
        if changes:
            counts = {
                "images": round(np.mean([len(changes_N) for changes_N in changes])),
                "gained": np.mean([(changes_N > 0).sum() for changes_N in changes]),
                "lost": np.mean([(changes_N < 0).sum() for changes_N in changes]),
            }
            for metric, numbers in _intervals(changes, by_seed).items():
                rows.append({**comparison, "metric": metric, **dict(zip(("mean", "low", "high"), numbers, strict=True)), **counts})
    return pd.DataFrame(rows, columns=IMAGE_COLUMNS)


def _intervals(changes: Sequence[Ints], by_seed: Mapping[int, Both]) -> dict[str, tuple[float, float, float]]:
    """Each metric's mean difference in points and its interval over test images; NaN unless all runs had the same test images."""
    labels_N = next(iter(by_seed.values()))[0].labels_N
    strata = {"accuracy": np.zeros_like(labels_N), "balanced_accuracy": labels_N}
    if len({predictions.test_set for both in by_seed.values() for predictions in both}) > 1:
        return dict.fromkeys(strata, (np.nan, np.nan, np.nan))
    total_N = np.sum(changes, axis=0)
    return {metric: bootstrap(total_N, strata_N, 100 / len(by_seed)) for metric, strata_N in strata.items()}


def _changes(ours: Predictions, theirs: Predictions) -> Ints:
    """Per image: 1 if it was gained, -1 if it was lost, otherwise 0."""
    return ours.is_right_N.astype(np.int64) - theirs.is_right_N


def _is_alike(ours: Predictions, theirs: Predictions) -> bool:
    return ours.test_set == theirs.test_set


def mcnemar_rows(pairs: pd.DataFrame, results: Results) -> pd.DataFrame:
    """Per comparison and seed the images that only one of the arms got right, and McNemar's exact p (a sign test on them).

    It compares two trained models, not two settings: another seed of the same arm may differ as significantly.
    """
    rows = []
    for comparison, by_seed in _both_done(pairs, results):
        for seed, (ours, theirs) in by_seed.items():
            if _is_alike(ours, theirs):
                changes_N = _changes(ours, theirs)
                gained, lost = int((changes_N > 0).sum()), int((changes_N < 0).sum())
                rows.append({**comparison, "seed": seed, "gained": gained, "lost": lost})
    counts = pd.DataFrame(rows, columns=MCNEMAR_COLUMNS)
    return counts.assign(p=mcnemar_p(counts["gained"].to_numpy(dtype=np.int64), counts["lost"].to_numpy(dtype=np.int64)))


def mcnemar_p(gained: Ints, lost: Ints) -> Floats:
    """The two-sided p of a binomial test with equal chances; 1 if nothing was gained or lost.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947; here exact.
    """
    p: Floats = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    return p


def bootstrap(values_N: Ints, strata_N: npt.NDArray[np.int32], scale: float) -> tuple[float, float, float]:
    """The mean over strata of their mean values, and its 95 % percentile interval when each stratum's images are resampled.

    There are only a few different values, so the number of images with each value is resampled: that is the same distribution, without
    drawing single images. All results are multiplied by `scale`.
    """
    generator = np.random.default_rng(0)
    strata, place_N = np.unique(strata_N, return_inverse=True)
    levels, level_N = np.unique(values_N, return_inverse=True)
    counts_TL = np.bincount(place_N * len(levels) + level_N, minlength=len(strata) * len(levels)).reshape(len(strata), len(levels))
    means_R = np.zeros(RESAMPLES)
    for counts_L in counts_TL:
        num_images = counts_L.sum()
        means_R += generator.multinomial(num_images, counts_L / num_images, RESAMPLES) @ levels / num_images
    low, high = np.quantile(means_R / len(strata), [LEVEL / 2, 1 - LEVEL / 2])
    mean = (counts_TL @ levels / counts_TL.sum(axis=1)).mean()
    return scale * float(mean), scale * float(low), scale * float(high)


def _both_done(pairs: pd.DataFrame, results: Results) -> Iterator[tuple[dict[str, str], dict[int, Both]]]:
    """The comparisons of different trainings with the seeds that both arms finished."""
    for pair in pairs[~pairs["is_same"]].to_dict("records"):
        ours, theirs = results.get(pair["arm"], {}), results.get(pair["against"], {})
        by_seed = {seed: (ours[seed], theirs[seed]) for seed in ours if seed in theirs}
        if by_seed:
            yield {name: pair[name] for name in ("arm", "role", "against")}, by_seed
