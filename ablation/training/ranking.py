"""How well scores rank the images of each class above the others, as scikit-learn defines it, fast for many classes.

N images, P images of one class, C classes.
"""

import numpy as np

CHUNK_SIZE = 2**22  # scores exponentiated at once
DECIMALS = 9  # of log-odds: what differs by less differs by rounding, and is a tie


def auroc_and_average_precision(labels_N: np.ndarray, scores_NC: np.ndarray) -> tuple[float, float]:
    """The means over classes with images of the area under the ROC curve and of the average precision, one class against the rest.

    Images are ranked by the class's log-odds; of two classes, both have the binary area. Images with the same log-odds count half in
    the area, and are one threshold in the precision. There must be images of two classes at least.
    """
    figures = []
    about_N = _about_all_images(scores_NC)
    for c in np.unique(labels_N):
        odds_N = _log_odds(scores_NC[:, c].astype(np.float64), *about_N)
        figures.append(_of_class(np.sort(odds_N), np.sort(odds_N[labels_N == c])))
    area, precision = np.mean(figures, axis=0)
    return float(area), float(precision)


def log_odds(scores_NC: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)) in float64 of every image and class, by which images are ranked; p is the softmax of the scores.

    They rank as p does, but p ends at 1 where a score is more than about 36 above all others: what float64 then calls a tie is none here.
    Raises ValueError if a score is not finite.
    """
    about_N = _about_all_images(scores_NC)
    return np.stack([_log_odds(scores_N.astype(np.float64), *about_N) for scores_N in scores_NC.T], axis=1)


def _of_class(odds_N: np.ndarray, own_P: np.ndarray) -> tuple[float, float]:
    """The area and the average precision, from the sorted log-odds of all images and of those of the class."""
    below_P, not_above_P = (np.searchsorted(odds_N, own_P, side) for side in ("left", "right"))
    num_own, num_others = len(own_P), len(odds_N) - len(own_P)
    num_won = (below_P + not_above_P + 1).sum() / 2 - num_own * (num_own + 1) / 2  # the Mann-Whitney U: pairs in the right order
    own_not_below_P = num_own - np.searchsorted(own_P, own_P, "left")
    return num_won / (num_own * num_others), (own_not_below_P / (len(odds_N) - below_P)).mean()


def _about_all_images(scores_NC: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same as `_about_images`, a chunk of images at a time."""
    if not np.isfinite(scores_NC).all():
        raise ValueError("found scores that are not finite, which rank nothing")
    parts = [_about_images(part_NC) for part_NC in np.array_split(scores_NC, 1 + scores_NC.size // CHUNK_SIZE)]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _about_images(scores_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each image its highest score, the logarithm of the sum of exp(score) over all but that, and the sum of exp(score - highest)."""
    scores_NC = scores_NC.astype(np.float64)
    rows_N, top_N = np.arange(len(scores_NC)), scores_NC.argmax(1)
    highest_N = scores_NC[rows_N, top_N]
    scores_NC[rows_N, top_N] = -np.inf
    second_N = scores_NC.max(1)
    others_N = second_N + np.log(np.exp(scores_NC - second_N[:, None]).sum(1))
    return highest_N, others_N, 1 + np.exp(others_N - highest_N)


def _log_odds(scores_N: np.ndarray, highest_N: np.ndarray, others_N: np.ndarray, total_N: np.ndarray) -> np.ndarray:
    """Those of one class; the other arguments are what `_about_images` returns."""
    distance_N = scores_N - highest_N
    # Of the highest score, 1 - p would cancel; of any other, total - exp(distance) is at least 1.
    rest_N = np.where(distance_N == 0, 1.0, total_N - np.exp(distance_N))
    odds_N = np.where(distance_N == 0, scores_N - others_N, distance_N - np.log(rest_N))
    return np.asarray(np.round(odds_N, DECIMALS))
