"""Ranking and agreement against scikit-learn and against counting pairs. N images, C classes."""

import time
from functools import partial

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from ablation.training import evaluation
from ablation.training.ranking import auroc_and_average_precision, log_odds

CLASSES = tuple("abcdef")


def drawn(seed, num_images=200, num_classes=5, absent=(), decimals=6):
    """Labels, and scores of which the label's tends to be high; with few decimals many are equal."""
    generator = np.random.default_rng(seed)
    labels_N = generator.choice([c for c in range(num_classes) if c not in absent], num_images)
    scores_NC = generator.normal(size=(num_images, num_classes))
    scores_NC[np.arange(num_images), labels_N] += 1
    return labels_N, np.round(scores_NC, decimals).astype(np.float32)


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("absent", [(), (2,), (0, 4)])
def test_ranking_is_that_of_sklearn(absent, decimals):
    """Macro AUROC, one against the rest, and macro average precision of the softmax; classes without images are in no mean."""
    labels_N, scores_NC = drawn(1, absent=absent, decimals=decimals)
    probabilities_NC = np.round(softmax(scores_NC.astype(np.float64), axis=1), 12)  # equal ones are equal in spite of rounding
    one_hot_NC, present = np.eye(5)[labels_N], np.unique(labels_N)
    area = np.mean([sk.roc_auc_score(one_hot_NC[:, c], probabilities_NC[:, c]) for c in present])
    precision = np.mean([sk.average_precision_score(one_hot_NC[:, c], probabilities_NC[:, c]) for c in present])
    assert auroc_and_average_precision(labels_N, scores_NC) == pytest.approx((area, precision), abs=1e-12)
    if not absent:
        assert area == pytest.approx(sk.roc_auc_score(labels_N, softmax(scores_NC.astype(np.float64), axis=1), multi_class="ovr"), abs=1e-3)


def test_the_area_is_the_share_of_pairs_in_order():
    """By definition: of all pairs of an image of the class and another one, those where the first is more probable; ties are halves."""
    labels_N, scores_NC = drawn(2, num_images=60, num_classes=3, decimals=0)
    probabilities_NC = np.round(softmax(scores_NC.astype(np.float64), axis=1), 12)
    shares = []
    for c in range(3):
        pairs = probabilities_NC[labels_N == c, c][:, None] - probabilities_NC[labels_N != c, c]
        shares.append(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc_and_average_precision(labels_N, scores_NC)[0] == pytest.approx(np.mean(shares))


def test_of_two_classes_it_is_the_binary_area():
    """Both classes have the same area, which is the binary one."""
    labels_N, scores_NC = drawn(3, num_classes=2)
    area, _ = auroc_and_average_precision(labels_N, scores_NC)
    assert area == pytest.approx(sk.roc_auc_score(labels_N, scores_NC[:, 1].astype(float) - scores_NC[:, 0]), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_scores_that_are_far_apart_are_still_ranked(scale):
    """Where every probability would be 0 or 1 in floating point, the order is still that of the odds, and nothing is NaN."""
    labels_N, scores_NC = drawn(4, num_classes=2)
    area, precision = auroc_and_average_precision(labels_N, scores_NC * np.float32(scale))
    margin_N = (scores_NC * np.float32(scale)).astype(float) @ [-1, 1]
    assert area == pytest.approx(sk.roc_auc_score(labels_N, margin_N), abs=1e-6)
    assert np.isfinite(precision)


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(score):
    """No wrong number comes of them."""
    scores_NC = np.array([[0, 1, 2], [score, 0, 1], [3, 0, 1]], np.float32)
    for rank in (log_odds, partial(auroc_and_average_precision, np.array([2, 0, 0]))):
        with pytest.raises(ValueError, match="not finite"):
            rank(scores_NC)


def test_log_odds_are_those_of_the_softmax():
    """Where the softmax is far from 0 and 1."""
    _, scores_NC = drawn(7)
    shares_NC = softmax(scores_NC.astype(np.float64), axis=1)
    assert log_odds(scores_NC) == pytest.approx(np.log(shares_NC / (1 - shares_NC)), abs=1e-8)


def test_scores_that_are_all_equal_rank_nothing():
    """The area of guessing is 1/2, and the precision of every class its share."""
    labels_N = np.array([0, 0, 0, 1, 2])
    assert auroc_and_average_precision(labels_N, np.zeros((5, 3), np.float32)) == pytest.approx((0.5, (0.6 + 0.2 + 0.2) / 3))


@pytest.mark.parametrize(("seed", "absent"), [(0, ()), (1, (2,)), (2, (0, 1, 2))])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_agreement_is_that_of_sklearn(seed, absent):
    """Kappa and Matthews' coefficient equal scikit-learn's, also where classes have no images or are predicted all the same."""
    labels_N, scores_NC = drawn(seed, absent=absent)
    predicted_N = scores_NC.argmax(1)
    assert evaluation.agreement(labels_N, predicted_N, 5) == pytest.approx(
        (sk.cohen_kappa_score(labels_N, predicted_N), sk.matthews_corrcoef(labels_N, predicted_N)), abs=1e-12
    )


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [([0, 0, 1, 1], (1.0, 1.0)), ([1, 1, 0, 0], (-1.0, -1.0)), ([0, 1, 0, 1], (0.0, 0.0)), ([0, 0, 0, 0], (0.0, 0.0))],
)
def test_agreement_runs_from_minus_one_to_one(predicted, expected):
    """All right is 1, all wrong -1, chance 0, and one class for all images 0."""
    assert evaluation.agreement(np.array([0, 0, 1, 1]), np.array(predicted), 3) == pytest.approx(expected)


def test_specificity_is_the_recall_of_the_other_images():
    """By its definition and by scikit-learn's confusion matrix of each class."""
    labels_N, scores_NC = drawn(5, absent=(3,))
    predicted_N = scores_NC.argmax(1)
    metrics = evaluation.metrics(labels_N, scores_NC, CLASSES[:5], {})
    for c in (0, 1, 2, 4):
        (true_negatives, false_positives), _ = sk.multilabel_confusion_matrix(labels_N, predicted_N, labels=range(5))[c]
        assert metrics[f"test/specificity/{CLASSES[c]}"] == pytest.approx(true_negatives / (true_negatives + false_positives))
        assert metrics[f"test/specificity/{CLASSES[c]}"] == pytest.approx((predicted_N[labels_N != c] != c).mean())
    assert "test/specificity/d" not in metrics


def test_with_images_of_one_class_there_is_nothing_to_rank():
    """Neither ranking, agreement nor specificity has a value there, and nothing is NaN."""
    metrics = evaluation.metrics(np.array([1, 1, 1]), np.eye(3, dtype=np.float32), CLASSES[:3], {})
    assert not {"test/auroc", "test/average_precision", "test/kappa", "test/mcc", "test/specificity/b"} & set(metrics)
    assert np.isfinite(list(metrics.values())).all()


def test_a_thousand_classes_take_seconds():
    """10,000 images of 1,000 classes are ranked within three seconds of this process's time."""
    labels_N, scores_NC = drawn(6, num_images=10_000, num_classes=1000)
    began = time.process_time()
    area, precision = auroc_and_average_precision(labels_N, scores_NC)
    assert time.process_time() - began < 3
    assert 0.5 < area < 1
    assert 0 < precision < 1
