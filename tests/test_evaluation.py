"""Metrics, the table of predictions, and names that MLflow takes. N images, C classes."""

import re

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name
from sklearn import metrics as sk

from ablation import evaluation

CLASSES = ("a", "b", "c", "d", "e")
GROUPS = {"many": (0, 1), "medium": (2,), "few": (3, 4)}


def drawn(seed, absent=(), never=()):
    """Labels and predictions of 200 images, without images of `absent` classes and without predictions of `never`."""
    generator = np.random.default_rng(seed)
    labels_N = generator.choice([c for c in range(5) if c not in absent], 200)
    predicted_N = np.where(generator.random(200) < 0.5, labels_N, generator.integers(0, 5, 200))
    return labels_N, np.where(np.isin(predicted_N, never), (max(never, default=0) + 1) % 5, predicted_N)


@pytest.mark.parametrize(("seed", "absent", "never"), [(0, (), ()), (1, (2,), ()), (2, (), (1,)), (3, (3, 4), (3,)), (4, (0, 1, 2, 3), ())])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # sklearn's own word on what is tested here
def test_metrics_are_those_of_sklearn(seed, absent, never):
    """Accuracy, balanced accuracy, macro-F1 and the classes' figures equal scikit-learn's, absent classes included."""
    labels_N, predicted_N = drawn(seed, absent, never)
    found = evaluation.metrics(labels_N, predicted_N, CLASSES, GROUPS)
    every = {"labels": range(5), "zero_division": 0}
    assert found["test/accuracy"] == pytest.approx(sk.accuracy_score(labels_N, predicted_N))
    assert found["test/balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert found["test/macro_f1"] == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro", **every))
    for name, score in (("recall", sk.recall_score), ("precision", sk.precision_score), ("f1", sk.f1_score)):
        values_C = score(labels_N, predicted_N, average=None, **every)
        np.testing.assert_allclose([found[f"test/{name}/{c}"] for c in CLASSES], values_C)


@pytest.mark.parametrize("absent", [(), (4,), (2,)])
def test_groups_are_mean_recalls_of_the_classes_that_are_there(absent):
    """A group's metric is the plain mean of its classes' recalls; a group without images has none."""
    labels_N, predicted_N = drawn(5, absent)
    found = evaluation.metrics(labels_N, predicted_N, CLASSES, GROUPS | {"empty": ()})
    recalls = {c: (predicted_N[labels_N == c] == c).mean() for c in range(5) if c not in absent}
    for name, members in GROUPS.items():
        inside = [recalls[c] for c in members if c in recalls]
        assert (f"test/{name}" in found) == bool(inside)
        assert not inside or found[f"test/{name}"] == pytest.approx(np.mean(inside))
    assert "test/empty" not in found
    assert found["test/worst"] == pytest.approx(min(recalls.values()))


NAMES = [
    "plane",
    "a/b",
    "f1@5",
    "über",
    "猫",
    "x" * 300,
    "x" * 299 + "y",
    "..",
    "",
    "%",
    "x",
    "x",
    "x_11",
    "../a",
    "a b",
    "tab\there",
    "[0]",
    "(0)",
    ":",
    "x_2",
    "x",
]


def test_slugs_are_names_that_mlflow_takes():
    """Whatever classes are called, their slugs are accepted in a metric's name, and each is different."""
    found = evaluation.slugs(NAMES)
    assert len(set(found)) == len(NAMES)
    for slug in found:
        _validate_metric_name(f"test/precision/{slug}")
        assert len(f"test/precision/{slug}") <= 250
        assert "/" not in slug
    assert evaluation.slugs(["plane", "big cat", "t-shirt", "v1.0"]) == ["plane", "big cat", "t-shirt", "v1.0"]


@pytest.mark.parametrize("num_classes", [2, 100, 101])
def test_predictions_hold_every_logit(num_classes):
    """Index, label, predicted and a logit column per class; above 100 classes one list column."""
    logits_NC = np.random.default_rng(0).normal(size=(7, num_classes)).astype(np.float32)
    labels_N, classes = np.arange(7) % num_classes, tuple(f"class {c}" for c in range(num_classes))
    table = evaluation.predictions(np.arange(7) * 3, labels_N, logits_NC, classes)
    assert list(table.columns[:3]) == ["index", "label", "predicted"]
    assert (table["predicted"] == logits_NC.argmax(1)).all()
    if num_classes > 100:
        assert list(table.columns[3:]) == ["logits"]
        np.testing.assert_array_equal(np.stack(table["logits"]), logits_NC)
    else:
        assert list(table.columns[3:]) == [f"logit/class {c}" for c in range(num_classes)]
        np.testing.assert_array_equal(table.iloc[:, 3:].to_numpy(), logits_NC)


def test_predictions_survive_the_disk(tmp_path):
    """The table reads back as it was, list column included."""
    for num_classes in (3, 101):
        table = evaluation.predictions(
            np.arange(4), np.zeros(4, int), np.ones((4, num_classes), np.float32), [str(c) for c in range(num_classes)]
        )
        table.to_parquet(tmp_path / "predictions.parquet", index=False)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)


def test_report_and_matrix_name_every_class():
    """The classification report and the confusion matrix have a row for each class, absent ones too."""
    labels_N, predicted_N = drawn(1, absent=(2,))
    text = evaluation.report_text(labels_N, predicted_N, CLASSES)
    assert re.findall(r"^\s+([a-e])\s", text, re.MULTILINE) == list(CLASSES)
    matrix = evaluation.confusion(labels_N, predicted_N, CLASSES)
    assert list(matrix.index) == list(matrix.columns) == list(CLASSES)
    expected_CC = [[int(((labels_N == t) & (predicted_N == p)).sum()) for p in range(5)] for t in range(5)]
    assert matrix.to_numpy().tolist() == expected_CC
