"""Which metric a study goes by: the one that fits the data, or the one in the file."""

import pytest

from ablation.errors import ConfigError
from ablation.tasks.images.metrics import metric_of, metrics

CLASSES = ("cat", "a|b", "gnu")
GROUPS = {"many": (0,), "medium": (), "few": (1, 2)}


@pytest.mark.parametrize(
    ("written", "counts", "expected"),
    [
        ("auto", (1000, 1000, 1000), ("test/accuracy", "all 3 classes have 1,000 test images")),
        ("auto", (1, 1, 1), ("test/accuracy", "all 3 classes have 1 test image")),
        ("auto", (0, 1, 1), ("test/balanced_accuracy", "the classes have 0 to 1 test image")),
        ("auto", (36, 35, 37), ("test/balanced_accuracy", "the classes have 35 to 37 test images")),
        ("auto", (0, 37, 37), ("test/balanced_accuracy", "the classes have 0 to 37 test images")),
        ("accuracy", (36, 35, 37), ("test/accuracy", "set in the file")),
        ("test/macro_f1", (5, 5, 5), ("test/macro_f1", "set in the file")),
        ("few", (5, 0, 5), ("test/few", "set in the file")),
        ("recall/cat", (5, 5, 5), ("test/recall/cat", "set in the file")),
        ("test/specificity/a|b", (5, 5, 5), ("test/specificity/a_b", "set in the file")),
        ("f1/a_b", (5, 5, 5), ("test/f1/a_b", "set in the file")),
        ("sensitivity/cat", (5, 5, 5), ("test/recall/cat", "set in the file")),
    ],
)
def test_the_metric_and_why(written, counts, expected):
    """Auto is accuracy only where all classes weigh alike; a class's metric has the name that the store gives the class."""
    assert metric_of(written, CLASSES, counts, GROUPS) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("recall/cart", "metric: unknown class 'cart'; expected one of a|b, cat, gnu. Did you mean 'cat'?"),
        ("recall/gnu", "metric: found the class 'gnu', which has no test images; expected one that has"),
        ("medium", "metric: found 'medium', but no class with test images is in that group; expected another metric"),
    ],
)
def test_what_no_run_will_have(written, message):
    """One sentence, before training."""
    with pytest.raises(ConfigError) as error:
        metric_of(written, CLASSES, (5, 5, 0), GROUPS)
    assert str(error.value) == message


def test_margins_are_points_and_hundredths():
    """Half a point of a metric in percent is 0.005 of kappa and MCC; the negative log-likelihood has no margin."""
    margins = {metric.name: metric.margin for metric in metrics(0.5)}
    assert {margins[f"test/{name}"] for name in ("accuracy", "auroc", "average_precision", "ece")} == {0.5}
    assert (margins["test/kappa"], margins["test/mcc"], margins["test/nll"]) == (0.005, 0.005, None)
