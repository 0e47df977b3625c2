"""From scores to metrics, those of scikit-learn wherever it has them. N images, C classes."""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablation.formatting import DASH
from ablation.study.groups import Groups
from ablation.training.ranking import auroc_and_average_precision

MAX_LOGIT_COLUMNS = 100  # with more classes than that, all logits are in one column of lists
MAX_SLUG_LENGTH = 100  # MLflow allows 250 characters, and the slug is only a part of a metric's name
NUM_BINS = 15  # of the confidence, as in the paper on calibration
CELL = 10  # characters of a number in scikit-learn's report, the blank before it included
CHUNK_SIZE = 2**22  # scores exponentiated at once; all scores of 1,000 classes and 50,000 images would take 400 MB in float64


def slugs(classes: Sequence[str]) -> list[str]:
    """The class names in a form that MLflow allows in a metric's name, each one different."""
    unique: dict[str, None] = {}
    for number, name in enumerate(classes):
        base = re.sub(r"[^\w\-. ]", "_", name)[:MAX_SLUG_LENGTH].strip(". ") or f"class_{number}"
        numbered = (f"{base}_{suffix}" for suffix in itertools.count(number))
        unique[next(slug for slug in itertools.chain([base], numbered) if slug not in unique)] = None
    return list(unique)


def predictions(index_N: np.ndarray, labels_N: np.ndarray, logits_NC: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The table of predictions: index, label, predicted, and one column of logits for each class (above 100 classes one of lists)."""
    table = {"index": index_N, "label": labels_N, "predicted": logits_NC.argmax(1).astype(np.int64)}
    if len(classes) > MAX_LOGIT_COLUMNS:
        return pd.DataFrame({**table, "logits": list(logits_NC)})
    return pd.DataFrame({**table, **{f"logit/{slug}": logits_NC[:, c] for c, slug in enumerate(slugs(classes))}})


def metrics(labels_N: np.ndarray, scores_NC: np.ndarray, classes: Sequence[str], groups: Groups, prefix: str = "test") -> dict[str, float]:
    """All final metrics by their names in the store, which begin with `prefix`; all are fractions but `nll`, which is in nats.

    A class without images in the split has no recall, precision, F1 and specificity, and is left out of every mean; a class that has
    images and is never predicted has precision 0. A group's metric is the mean recall of its classes; a group without images has none.
    Where all images are of one class, there is no specificity, and nothing to rank or to agree on by chance.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support  # late: the report imports this file, and needs none

    predicted_N = scores_NC.argmax(1)
    is_present = np.bincount(labels_N, minlength=len(classes)) > 0
    precision_C, recall_C, f1_C, _ = precision_recall_fscore_support(labels_N, predicted_N, labels=range(len(classes)), zero_division=0)
    nll_N, confidence_N = certainty(labels_N, scores_NC)
    values = {
        "accuracy": accuracy_score(labels_N, predicted_N),
        "balanced_accuracy": recall_C[is_present].mean(),
        "macro_f1": f1_C[is_present].mean(),
        "g_mean": geometric_mean(recall_C[is_present]),
        "worst": recall_C[is_present].min(),
        "nll": nll_N.mean(),
        "ece": calibration_error(confidence_N, predicted_N == labels_N),
    }
    has_others = is_present.sum() > 1
    if has_others:
        values["auroc"], values["average_precision"] = auroc_and_average_precision(labels_N, scores_NC)
        values["kappa"], values["mcc"] = agreement(labels_N, predicted_N, len(classes))
    for name, members in groups.items():
        present_members = [c for c in members if is_present[c]]
        if present_members:
            values[name] = recall_C[present_members].mean()
    of_classes = {"recall": recall_C, "precision": precision_C, "f1": f1_C}
    of_classes |= {"specificity": specificity(labels_N, predicted_N, len(classes))} if has_others else {}
    for name, values_C in of_classes.items():
        values |= {f"{name}/{slug}": values_C[c] for c, slug in enumerate(slugs(classes)) if is_present[c]}
    return {f"{prefix}/{name}": float(value) for name, value in values.items()}


def certainty(labels_N: np.ndarray, scores_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image -ln p of its label, and its largest p, both in float64; p = softmax(scores)."""
    # -ln p is a sum of two terms that are never negative, so that nothing overflows or cancels at scores of +-1e4.
    highest_N = scores_NC.max(1).astype(np.float64)
    distance_N = highest_N - np.take_along_axis(scores_NC, labels_N[:, None], axis=1)[:, 0]
    total_N = np.concatenate([_sum_of_exponentials(part_NC) for part_NC in np.array_split(scores_NC, 1 + scores_NC.size // CHUNK_SIZE)])
    return distance_N + np.log(total_N), 1 / total_N


def _sum_of_exponentials(scores_NC: np.ndarray) -> np.ndarray:
    """For each image the sum of exp(score - highest score)."""
    scores_NC = scores_NC.astype(np.float64)
    return np.asarray(np.exp(scores_NC - scores_NC.max(1, keepdims=True)).sum(1))


def calibration_error(confidence_N: np.ndarray, is_correct_N: np.ndarray) -> float:
    """The expected calibration error: sum over bins of n_bin / N * |accuracy of the bin - mean confidence of the bin|.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: the confidence is the probability of the predicted class, and
    there are 15 bins of equal width, each open below and closed above. The error depends on the number of bins, and bins with few
    images make it noisy.
    """
    # Divided by 15 and not multiplied by 1/15, so that a confidence of 1/3 or 0.2 lies exactly on its edge.
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    bin_N = np.searchsorted(edges, confidence_N, side="left") - 1
    excess = np.bincount(bin_N, weights=is_correct_N - confidence_N, minlength=NUM_BINS)
    return float(np.abs(excess).sum() / len(confidence_N))


def agreement(labels_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Cohen's kappa and Matthews' correlation coefficient, both 0 for what is right by chance; for labels of two classes at least.

    Cohen 1960, A coefficient of agreement for nominal scales; Gorodkin 2004, Comparing two K-category assignments by a K-category
    correlation coefficient. Where one class alone is predicted, the latter has no value, and is 0 as in scikit-learn.
    """
    true_C, called_C = (np.bincount(values_N, minlength=num_classes) / len(labels_N) for values_N in (labels_N, predicted_N))
    by_chance = float(true_C @ called_C)
    excess = float((labels_N == predicted_N).mean()) - by_chance
    spread = math.sqrt(max(0.0, (1 - float(true_C @ true_C)) * (1 - float(called_C @ called_C))))
    return excess / (1 - by_chance), excess / spread if called_C.max() < 1 else 0.0


def specificity(labels_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> np.ndarray:
    """For each class the share of the other classes' images that are not taken for it; for images of two classes at least."""
    true_C, called_C, right_C = (
        np.bincount(values_N, minlength=num_classes) for values_N in (labels_N, predicted_N, labels_N[labels_N == predicted_N])
    )
    return np.asarray(1 - (called_C - right_C) / (len(labels_N) - true_C))


def geometric_mean(recalls: np.ndarray) -> float:
    """The geometric mean, computed by logarithms, since the product of 1,000 recalls underflows; 0 if one of them is 0."""
    return math.exp(np.log(recalls).mean()) if recalls.all() else 0.0


def report_text(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> str:
    """scikit-learn's classification report; a class without images has dashes, and is not in the macro average."""
    from sklearn.metrics import classification_report, precision_recall_fscore_support

    every = range(len(classes))
    text = str(classification_report(labels_N, predicted_N, labels=every, target_names=list(classes), digits=4, zero_division=0))
    is_present = np.bincount(labels_N, minlength=len(classes)) > 0
    if is_present.all():
        return text
    figures_3C = precision_recall_fscore_support(labels_N, predicted_N, labels=every, zero_division=0)[:3]
    rows = text.splitlines()  # a header, an empty line, the classes, an empty line, accuracy, macro and weighted average
    for c in np.flatnonzero(~is_present):
        rows[2 + c] = _with_cells(rows[2 + c], [DASH] * 3)
    rows[-2] = _with_cells(rows[-2], [f"{values_C[is_present].mean():.4f}" for values_C in figures_3C])
    return "\n".join([*rows, ""])


def _with_cells(row: str, cells: Sequence[str]) -> str:
    """A row of the report with these cells before its support."""
    return row[: -4 * CELL] + "".join(f"{cell:>{CELL}}" for cell in cells) + row[-CELL:]


def confusion(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The confusion matrix in counts: the rows are the true classes, the columns the predicted ones."""
    from sklearn.metrics import confusion_matrix

    counts_CC = confusion_matrix(labels_N, predicted_N, labels=range(len(classes)))
    return pd.DataFrame(counts_CC, index=pd.Index(classes, name="true"), columns=list(classes))
