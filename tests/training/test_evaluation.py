"""Metrics, the table of predictions, and names that MLflow takes. N images, C classes."""

import math
import re
import time

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name
from scipy.stats import gmean
from sklearn import metrics as sk

from ablation.training import evaluation

CLASSES = ("a", "b", "c", "d", "e")
GROUPS = {"many": (0, 1), "medium": (2,), "few": (3, 4)}


def scored(predicted_N, num_classes=5):
    """Scores of which the predicted class has the highest."""
    return np.eye(num_classes)[predicted_N].astype(np.float32)


def drawn(seed, absent=(), never=()):
    """Labels and predictions of 200 images, without images of `absent` classes and without predictions of `never`."""
    generator = np.random.default_rng(seed)
    labels_N = generator.choice([c for c in range(5) if c not in absent], 200)
    predicted_N = np.where(generator.random(200) < 0.5, labels_N, generator.integers(0, 5, 200))
    return labels_N, np.where(np.isin(predicted_N, never), (max(never, default=0) + 1) % 5, predicted_N)


@pytest.mark.parametrize(("seed", "absent", "never"), [(0, (), ()), (1, (2,), ()), (2, (), (1,)), (3, (3, 4), (3,)), (4, (0, 1, 2, 3), ())])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # scikit-learn warns of what is tested here
def test_metrics_are_those_of_sklearn(seed, absent, never):
    """Accuracy, balanced accuracy, macro-F1 and the metrics of each class equal scikit-learn's, also with absent classes."""
    labels_N, predicted_N = drawn(seed, absent, never)
    metrics = evaluation.metrics(labels_N, scored(predicted_N), CLASSES, GROUPS)
    present = np.unique(labels_N).tolist()
    options = {"labels": present, "zero_division": 0}
    assert metrics["test/accuracy"] == pytest.approx(sk.accuracy_score(labels_N, predicted_N))
    assert metrics["test/balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, predicted_N))
    assert metrics["test/macro_f1"] == pytest.approx(sk.f1_score(labels_N, predicted_N, average="macro", **options))
    for name, score in (("recall", sk.recall_score), ("precision", sk.precision_score), ("f1", sk.f1_score)):
        values_C = score(labels_N, predicted_N, average=None, **options)
        np.testing.assert_allclose([metrics[f"test/{name}/{CLASSES[c]}"] for c in present], values_C)


@pytest.mark.parametrize("prefix", ["test", "validation"])
@pytest.mark.parametrize("absent", [(0,), (2,), (1, 4), (0, 1, 2)])
def test_a_class_without_images_has_no_value_and_is_in_no_mean(absent, prefix):
    """Predicted all right, every mean is 1, whichever classes have no images; none of these has a value of its own."""
    labels_N = np.array([c for c in range(5) if c not in absent for _ in range(3)])
    metrics = evaluation.metrics(labels_N, scored(labels_N) * 10, CLASSES, GROUPS, prefix)
    assert {metrics[f"{prefix}/{name}"] for name in ("accuracy", "balanced_accuracy", "macro_f1", "g_mean", "worst")} == {1.0}
    named = {name.split("/")[2] for name in metrics if name.count("/") == 2}
    assert named == {name for c, name in enumerate(CLASSES) if c not in absent}
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(("predicted", "macro_f1"), [([0, 0, 1, 1], 1.0), ([0, 2, 1, 1], (2 / 3 + 1) / 2), ([2, 2, 1, 1], 0.5)])
def test_the_standard_report_has_the_same_convention(predicted, macro_f1):
    """Its macro average is the macro-F1, its accuracy the accuracy, and a class without images has dashes."""
    labels_N, predicted_N = np.array([0, 0, 1, 1]), np.array(predicted)
    metrics = evaluation.metrics(labels_N, scored(predicted_N, 3), CLASSES[:3], {})
    text = evaluation.report_text(labels_N, predicted_N, ["cat", "dog", "lynx"])
    rows = {line.strip().partition("  ")[0]: line.split() for line in text.splitlines() if line.strip()}
    assert metrics["test/macro_f1"] == pytest.approx(macro_f1)
    assert float(rows["macro avg"][-2]) == pytest.approx(macro_f1, abs=1e-4)
    assert [float(number) for number in rows["accuracy"][1:]] == [pytest.approx(metrics["test/accuracy"], abs=1e-4), 4]
    assert rows["lynx"] == ["lynx", "–", "–", "–", "0"]
    assert len({len(line) for line in text.splitlines()[2:5]}) == 1


@pytest.mark.parametrize("absent", [(), (4,), (2,)])
def test_groups_are_mean_recalls_of_the_present_classes(absent):
    """A group's metric is the plain mean of its classes' recalls; a group without images has none."""
    labels_N, predicted_N = drawn(5, absent)
    metrics = evaluation.metrics(labels_N, scored(predicted_N), CLASSES, GROUPS | {"empty": ()})
    recalls = {c: (predicted_N[labels_N == c] == c).mean() for c in range(5) if c not in absent}
    for name, members in GROUPS.items():
        recalls_of_group = [recalls[c] for c in members if c in recalls]
        assert (f"test/{name}" in metrics) == bool(recalls_of_group)
        assert not recalls_of_group or metrics[f"test/{name}"] == pytest.approx(np.mean(recalls_of_group))
    assert "test/empty" not in metrics
    assert metrics["test/worst"] == pytest.approx(min(recalls.values()))
    assert metrics["test/g_mean"] == pytest.approx(gmean(list(recalls.values())))


def test_g_mean_is_zero_if_one_recall_is_zero():
    """One recall of 0 makes the geometric mean 0, without a warning, and a class without images does not."""
    labels_N = np.array([0, 0, 1, 1])
    assert evaluation.metrics(labels_N, scored(np.array([0, 0, 0, 0])), CLASSES, {})["test/g_mean"] == 0
    assert evaluation.metrics(labels_N, scored(np.array([0, 2, 1, 1])), CLASSES, {})["test/g_mean"] == pytest.approx(math.sqrt(0.5))


def test_g_mean_of_many_small_recalls_does_not_underflow():
    """The product of 1,000 recalls of 0.05 is below the smallest float; their geometric mean is 0.05."""
    assert evaluation.geometric_mean(np.full(1000, 0.05)) == pytest.approx(0.05)


def plain_nll(labels, scores):
    """The mean of ln(sum of exp) - score of the label, by the exact sums of math.fsum."""
    costs = []
    for label, row in zip(labels, scores, strict=True):
        top = max(row)
        costs.append(math.log(math.fsum(math.exp(score - top) for score in row)) + (top - row[label]))
    return math.fsum(costs) / len(costs)


def plain_ece(labels, scores, bins=15):
    """The expected calibration error, bin by bin and image by image as in the paper."""
    members = [[] for _ in range(bins)]
    for label, row in zip(labels, scores, strict=True):
        exponentials = [math.exp(score - max(row)) for score in row]
        confidence, predicted = 1 / math.fsum(exponentials), row.index(max(row))
        bin_number = next(m for m in range(bins) if m / bins < confidence <= (m + 1) / bins)
        members[bin_number].append((confidence, label == predicted))
    total = 0.0
    for images in filter(None, members):
        confidence, accuracy = (math.fsum(values) / len(images) for values in zip(*images, strict=True))
        total += len(images) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nll_is_sklearns_log_loss(scale, dtype):
    """The negative log-likelihood is scikit-learn's log loss of the softmax, in nats."""
    generator = np.random.default_rng(7)
    labels_N, scores_NC = generator.integers(0, 5, 300), (scale * generator.normal(size=(300, 5))).astype(dtype)
    exponentials_NC = np.exp(scores_NC.astype(float))
    expected = sk.log_loss(labels_N, exponentials_NC / exponentials_NC.sum(1, keepdims=True), labels=range(5))
    assert evaluation.metrics(labels_N, scores_NC, CLASSES, {})["test/nll"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 3.0, 80.0, 1e4])
def test_nll_and_ece_are_those_of_the_plain_formulas(scale):
    """Both equal a plain implementation, also at scores of +-80 and +-1e4, where a naive softmax overflows."""
    generator = np.random.default_rng(11)
    labels_N, scores_NC = generator.integers(0, 5, 400), scale * generator.uniform(-1, 1, size=(400, 5))
    metrics = evaluation.metrics(labels_N, scores_NC, CLASSES, {})
    assert metrics["test/nll"] == pytest.approx(plain_nll(labels_N.tolist(), scores_NC.tolist()), rel=1e-12)
    assert metrics["test/ece"] == pytest.approx(plain_ece(labels_N.tolist(), scores_NC.tolist()), rel=1e-9)


@pytest.mark.parametrize(("size", "nll", "ece"), [(80.0, 40.0, 0.5), (1e4, 5000.0, 0.5), (-80.0, 40.0, 0.5)])
def test_nll_of_certain_scores_is_their_distance_if_they_are_wrong(size, nll, ece):
    """Half of the images certain and right, half certain and wrong: the mean NLL is half of the distance, and the error is 0.5."""
    scores_NC = np.array([[size, 0.0], [size, 0.0]], dtype=np.float32)
    metrics = evaluation.metrics(np.array([0, 1]), scores_NC, ("a", "b"), {})
    assert metrics["test/nll"] == pytest.approx(nll)
    assert metrics["test/ece"] == pytest.approx(ece)


@pytest.mark.parametrize(("num_classes", "num_right", "num_wrong"), [(3, 1, 0), (5, 2, 6), (15, 1, 14), (2, 1, 1)])
def test_ties_and_edges_of_bins(num_classes, num_right, num_wrong):
    """Tied scores give the first class a confidence of 1/C, which for 3, 5 and 15 classes is on an edge and counts to the bin below."""
    classes = [str(c) for c in range(num_classes)]
    labels_N = np.array([0] * num_right + [1] * num_wrong)
    metrics = evaluation.metrics(labels_N, np.zeros((len(labels_N), num_classes)), classes, {})
    assert metrics["test/accuracy"] == num_right / len(labels_N)
    assert metrics["test/nll"] == pytest.approx(math.log(num_classes))
    assert metrics["test/ece"] == pytest.approx(abs(num_right / len(labels_N) - 1 / num_classes), abs=1e-15)


@pytest.mark.parametrize("edge", range(1, 15))
def test_a_confidence_on_an_edge_is_in_the_bin_below(edge):
    """Right at m/15 and wrong just below it fall into one bin and partly cancel; right at m/15 and wrong just above do not."""
    at, near = edge / 15, 1e-9
    below = evaluation.calibration_error(np.array([at, at - near]), np.array([True, False]))
    above = evaluation.calibration_error(np.array([at, at + near]), np.array([True, False]))
    assert below == pytest.approx(abs(1 - 2 * at) / 2, abs=1e-8)
    assert above == pytest.approx(((1 - at) + at) / 2, abs=1e-8)


def test_ece_of_certain_and_right_predictions_is_zero():
    """A confidence of 1 is in the last bin."""
    assert evaluation.calibration_error(np.ones(3), np.ones(3, dtype=bool)) == 0


def test_one_image():
    """One image has every metric, its class being the only one with a recall."""
    metrics = evaluation.metrics(np.array([1]), np.array([[0.0, math.log(3)]]), ("a", "b"), {"many": (0,), "few": (1,)})
    expected = {
        "accuracy": 1,
        "balanced_accuracy": 1,
        "macro_f1": 1,
        "g_mean": 1,
        "worst": 1,
        "few": 1,
        "nll": math.log(4 / 3),
        "ece": 0.25,
    }
    assert {name: metrics[f"test/{name}"] for name in expected} == pytest.approx(expected)
    assert "test/many" not in metrics


def test_metrics_begin_with_their_prefix():
    """Another split's metrics begin with its name and are otherwise the same."""
    labels_N, predicted_N = drawn(6)
    test = evaluation.metrics(labels_N, scored(predicted_N), CLASSES, GROUPS)
    validation = evaluation.metrics(labels_N, scored(predicted_N), CLASSES, GROUPS, prefix="validation")
    assert validation == {name.replace("test/", "validation/", 1): value for name, value in test.items()}
    assert all(type(value) is float for value in test.values())


def test_chunks_change_no_metric(monkeypatch):
    """The scores are processed in chunks, whose number changes no metric."""
    generator = np.random.default_rng(3)
    labels_N, scores_NC = generator.integers(0, 5, 100), generator.normal(size=(100, 5))
    expected = evaluation.metrics(labels_N, scores_NC, CLASSES, GROUPS)
    monkeypatch.setattr(evaluation, "CHUNK_SIZE", 40)
    assert evaluation.metrics(labels_N, scores_NC, CLASSES, GROUPS) == expected


def test_a_thousand_classes_take_seconds():
    """1,000 classes and 50,000 images take seconds."""
    generator = np.random.default_rng(0)
    labels_N, scores_NC = generator.integers(0, 1000, 50_000), generator.random((50_000, 1000), dtype=np.float32)
    began = time.process_time()
    metrics = evaluation.metrics(labels_N, scores_NC, [str(c) for c in range(1000)], {})
    assert time.process_time() - began < 10
    assert metrics["test/nll"] == pytest.approx(math.log(1000) + math.log(math.e - 1) - 0.5, abs=0.01)


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


def test_slugs_are_names_that_mlflow_allows():
    """For any names of classes, MLflow allows their slugs in a metric's name, and each slug is different."""
    slugs = evaluation.slugs(NAMES)
    assert len(set(slugs)) == len(NAMES)
    for slug in slugs:
        _validate_metric_name(f"test/precision/{slug}")
        assert len(f"test/precision/{slug}") <= 250
        assert "/" not in slug
    assert evaluation.slugs(["plane", "big cat", "t-shirt", "v1.0"]) == ["plane", "big cat", "t-shirt", "v1.0"]


@pytest.mark.parametrize("num_classes", [2, 100, 101])
def test_predictions_hold_every_logit(num_classes):
    """Index, label, predicted and one column of logits per class; above 100 classes one column of lists."""
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
    """The table is read as it was written, also a column of lists."""
    for num_classes in (3, 101):
        table = evaluation.predictions(
            np.arange(4), np.zeros(4, int), np.ones((4, num_classes), np.float32), [str(c) for c in range(num_classes)]
        )
        table.to_parquet(tmp_path / "predictions.parquet", index=False)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)


def test_report_and_matrix_name_every_class():
    """The classification report and the confusion matrix have a row for each class, also for absent ones."""
    labels_N, predicted_N = drawn(1, absent=(2,))
    text = evaluation.report_text(labels_N, predicted_N, CLASSES)
    assert re.findall(r"^\s+([a-e])\s", text, re.MULTILINE) == list(CLASSES)
    matrix = evaluation.confusion(labels_N, predicted_N, CLASSES)
    assert list(matrix.index) == list(matrix.columns) == list(CLASSES)
    expected_CC = [[int(((labels_N == t) & (predicted_N == p)).sum()) for p in range(5)] for t in range(5)]
    assert matrix.to_numpy().tolist() == expected_CC
