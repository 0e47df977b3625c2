"""From scores to metrics, as scikit-learn computes them where it has them. N images, C classes."""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, precision_recall_fscore_support

from ablation.study.groups import Groups

LIST_COLUMN_ABOVE = 100  # classes; then the logits share one column
LONGEST_SLUG = 100  # MLflow takes 250 characters, of which the metric's own name needs some
NUM_BINS = 15  # of confidence, as in the paper on calibration
CHUNK = 2**22  # scores exponentiated at once, since those of a thousand classes and 50,000 images take 400 MB in float64


def slugs(classes: Sequence[str]) -> list[str]:
    """The class names as MLflow lets them stand in a metric's name, each one different."""
    found: dict[str, None] = {}
    for number, name in enumerate(classes):
        plain = re.sub(r"[^\w\-. ]", "_", name)[:LONGEST_SLUG].strip(". ") or f"class_{number}"
        numbered = (f"{plain}_{other}" for other in itertools.count(number))
        found[next(slug for slug in itertools.chain([plain], numbered) if slug not in found)] = None
    return list(found)


def predictions(index_N: np.ndarray, labels_N: np.ndarray, logits_NC: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The table of predictions: index, label, predicted, and a logit column per class (one list column above 100 classes)."""
    table = {"index": index_N, "label": labels_N, "predicted": logits_NC.argmax(1).astype(np.int64)}
    if len(classes) > LIST_COLUMN_ABOVE:
        return pd.DataFrame({**table, "logits": list(logits_NC)})
    return pd.DataFrame({**table, **{f"logit/{slug}": logits_NC[:, c] for c, slug in enumerate(slugs(classes))}})


def metrics(labels_N: np.ndarray, scores_NC: np.ndarray, classes: Sequence[str], groups: Groups, prefix: str = "test") -> dict[str, float]:
    """Every final metric by its name in the store, `prefix` before it; all are fractions but `nll`, which is in nats.

    A group's metric is the mean recall of its classes; an empty group has none. Classes that the split lacks count in no mean of
    recalls; a class that is never predicted has precision 0.
    """
    predicted_N = scores_NC.argmax(1)
    present = np.bincount(labels_N, minlength=len(classes)) > 0
    precision_C, recall_C, f1_C, _ = precision_recall_fscore_support(labels_N, predicted_N, labels=range(len(classes)), zero_division=0)
    nll_N, confidence_N = certainty(labels_N, scores_NC)
    found = {
        "accuracy": accuracy_score(labels_N, predicted_N),
        "balanced_accuracy": recall_C[present].mean(),
        "macro_f1": f1_C.mean(),
        "g_mean": geometric_mean(recall_C[present]),
        "worst": recall_C[present].min(),
        "nll": nll_N.mean(),
        "ece": calibration_error(confidence_N, predicted_N == labels_N),
    }
    for name, members in groups.items():
        inside = [c for c in members if present[c]]
        if inside:
            found[name] = recall_C[inside].mean()
    for name, values in (("recall", recall_C), ("precision", precision_C), ("f1", f1_C)):
        found |= {f"{name}/{slug}": values[c] for c, slug in enumerate(slugs(classes))}
    return {f"{prefix}/{name}": float(value) for name, value in found.items()}


def certainty(labels_N: np.ndarray, scores_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's -ln p of its label, and its largest p, both in float64; p = softmax(scores)."""
    # The cost is the sum of two terms that are never negative, so that at scores of +-1e4 nothing overflows or cancels.
    highest_N = scores_NC.max(1).astype(np.float64)
    behind_N = highest_N - np.take_along_axis(scores_NC, labels_N[:, None], axis=1)[:, 0]
    total_N = np.concatenate([_exponentials(part_NC) for part_NC in np.array_split(scores_NC, 1 + scores_NC.size // CHUNK)])
    return behind_N + np.log(total_N), 1 / total_N


def _exponentials(scores_NC: np.ndarray) -> np.ndarray:
    """The sum of exp(score - highest score) of each image."""
    scores_NC = scores_NC.astype(np.float64)
    return np.asarray(np.exp(scores_NC - scores_NC.max(1, keepdims=True)).sum(1))


def calibration_error(confidence_N: np.ndarray, is_right_N: np.ndarray) -> float:
    """The expected calibration error: sum over bins of n_bin / N * |accuracy of the bin - mean confidence of the bin|.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: the confidence is the predicted class's probability, and the
    bins are 15 of equal width, each open below and closed above. It depends on that number of bins, and a bin of few images is noisy.
    """
    # Divided, not multiplied by 1/15, so that a confidence of 1/3 or 0.2 lies on its edge and not a rounding beside it.
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    bin_N = np.searchsorted(edges, confidence_N, side="left") - 1
    excess = np.bincount(bin_N, weights=is_right_N - confidence_N, minlength=NUM_BINS)
    return float(np.abs(excess).sum() / len(confidence_N))


def geometric_mean(recalls: np.ndarray) -> float:
    """The geometric mean, by logarithms, since the product of a thousand recalls underflows; 0 where one of them is 0."""
    return math.exp(np.log(recalls).mean()) if recalls.all() else 0.0


def report_text(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> str:
    """scikit-learn's classification report."""
    text = classification_report(labels_N, predicted_N, labels=range(len(classes)), target_names=list(classes), digits=4, zero_division=0)
    return str(text)


def confusion(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The confusion matrix in counts: rows are true classes, columns predicted ones."""
    counts_CC = confusion_matrix(labels_N, predicted_N, labels=range(len(classes)))
    return pd.DataFrame(counts_CC, index=pd.Index(classes, name="true"), columns=list(classes))
