"""From predictions to metrics, as scikit-learn computes them. N images, C classes."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, precision_recall_fscore_support

from ablation.groups import Groups

LIST_COLUMN_ABOVE = 100  # classes; then the logits share one column
LONGEST_SLUG = 100  # MLflow takes 250 characters, of which the metric's own name needs some


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


def metrics(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str], groups: Groups) -> dict[str, float]:
    """Every final metric as a fraction, by its name in the store.

    A group's metric is the mean recall of its classes; an empty group has none. Classes that the split lacks count in no mean of
    recalls; a class that is never predicted has precision 0.
    """
    present = np.bincount(labels_N, minlength=len(classes)) > 0
    precision_C, recall_C, f1_C, _ = precision_recall_fscore_support(labels_N, predicted_N, labels=range(len(classes)), zero_division=0)
    found = {
        "test/accuracy": accuracy_score(labels_N, predicted_N),
        "test/balanced_accuracy": recall_C[present].mean(),
        "test/macro_f1": f1_C.mean(),
        "test/worst": recall_C[present].min(),
    }
    for name, members in groups.items():
        inside = [c for c in members if present[c]]
        if inside:
            found[f"test/{name}"] = recall_C[inside].mean()
    for name, values in (("recall", recall_C), ("precision", precision_C), ("f1", f1_C)):
        found |= {f"test/{name}/{slug}": values[c] for c, slug in enumerate(slugs(classes))}
    return {name: float(value) for name, value in found.items()}


def report_text(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> str:
    """scikit-learn's classification report."""
    text = classification_report(labels_N, predicted_N, labels=range(len(classes)), target_names=list(classes), digits=4, zero_division=0)
    return str(text)


def confusion(labels_N: np.ndarray, predicted_N: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The confusion matrix in counts: rows are true classes, columns predicted ones."""
    counts_CC = confusion_matrix(labels_N, predicted_N, labels=range(len(classes)))
    return pd.DataFrame(counts_CC, index=pd.Index(classes, name="true"), columns=list(classes))
