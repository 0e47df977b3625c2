"""The metrics by which image classifiers are compared."""

from collections.abc import Mapping, Sequence

from ablation.errors import ConfigError, unknown_name
from ablation.study.config import AUTO
from ablation.study.metrics import Curve, Metric

# name, title, which way is better, unit, and the name in a sentence where the title is too short for one
COMPARED = (
    ("accuracy", "accuracy", "higher", "percent", ""),
    ("balanced_accuracy", "balanced acc.", "higher", "percent", "balanced accuracy"),
    ("macro_f1", "macro-F1", "higher", "percent", ""),
    ("many", "many", "higher", "percent", "the mean recall of the classes many"),
    ("medium", "medium", "higher", "percent", "the mean recall of the classes medium"),
    ("few", "few", "higher", "percent", "the mean recall of the classes few"),
)
QUALITY = (
    ("worst", "worst class", "higher", "percent", "the recall of the worst class"),
    ("g_mean", "G-mean", "higher", "percent", ""),
    ("nll", "NLL", "lower", "nats", ""),
    ("ece", "ECE", "lower", "percent", ""),
)
RANKING = (
    ("auroc", "AUROC", "higher", "percent", ""),
    ("average_precision", "AP", "higher", "percent", "average precision"),
    ("kappa", "kappa", "higher", "", "Cohen's kappa"),
    ("mcc", "MCC", "higher", "", "Matthews' correlation coefficient"),
)
TABLES = {"comparison": COMPARED, "quality": QUALITY, "ranking": RANKING}
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1")  # of each arm's summary; published figures are of the first
NAMES = tuple(name for rows in TABLES.values() for name, *_ in rows)
RECALLS = {"recall": "recall", "sensitivity": "recall"}  # one number, which the store has under one name
CLASS_METRICS = (*RECALLS, "specificity", "precision", "f1")  # what `metric` may name of a class
CURVES = (Curve("train/loss", "loss", 3), Curve("time/images_per_second", "images/s", 0))  # shown during training
# The metrics that `choose` may use: those of the validation images.
CHOICES = tuple(
    f"val/{name}" for name in ("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst", "many", "medium", "few", "nll", "ece")
)
MARGINS = {"percent": 1.0, "": 0.01}  # of a point, in the metric's unit; the negative log-likelihood has none, since it is in nats


def metrics(margin: float) -> tuple[Metric, ...]:
    """Every metric with the study's margin, which is in points: of kappa and MCC, which are fractions, half a point is 0.005."""
    return tuple(
        Metric(f"test/{name}", title, better, unit, MARGINS[unit] * margin if unit in MARGINS else None, table, name in HEADLINES, words)  # type: ignore[arg-type]
        for table, rows in TABLES.items()
        for name, title, better, unit, words in rows
    )


def words_of(name: str) -> str:
    """The metric's name in a sentence: `macro-F1` of `macro_f1`."""
    return next(words or title for rows in TABLES.values() for known, title, _, _, words in rows if known == name)


def metric_of(written: str, classes: Sequence[str], test_counts: Sequence[int], groups: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    """The full name of the metric that a study's file means by `written`, and the reason, in a clause.

    Raises ConfigError if no run will have it: for an unknown class, or for one or a group of them without test images.
    """
    name = written.removeprefix("test/")
    if name == AUTO:
        return _fitting(test_counts)
    kind, _, of_class = name.partition("/")
    if kind in CLASS_METRICS:
        _check_class(of_class, classes, test_counts)
    elif name in groups and not any(test_counts[c] for c in groups[name]):
        raise ConfigError("metric", f"found {written!r}, but no class with test images is in that group; expected another metric")
    return stored_metric(name, classes), "set in the file"


def stored_metric(written: str, classes: Sequence[str]) -> str:
    """The name in the store of the metric that a user means: `test/recall/cat` of `sensitivity/cat`; an unknown one as it is written."""
    name = written.removeprefix("test/")
    kind, _, of_class = name.partition("/")
    place = _place_of(of_class, classes) if kind in CLASS_METRICS else None
    return f"test/{name}" if place is None else f"test/{RECALLS.get(kind, kind)}/{_slugs(classes)[place]}"


def _fitting(test_counts: Sequence[int]) -> tuple[str, str]:
    """Accuracy where all classes have equally many test images, since it is the balanced accuracy there; else the latter."""
    least, most = min(test_counts), max(test_counts)
    if least == most:
        return "test/accuracy", f"all {len(test_counts)} classes have {_images(most)}"
    return "test/balanced_accuracy", f"the classes have {least:,} to {_images(most)}"


def _images(number: int) -> str:
    return f"{number:,} test {'image' if number == 1 else 'images'}"


def _check_class(name: str, classes: Sequence[str], test_counts: Sequence[int]) -> None:
    """Raise ConfigError if there is no such class, or if it has no test images."""
    place = _place_of(name, classes)
    if place is None:
        raise unknown_name("metric", "class", name, classes)
    if not test_counts[place]:
        raise ConfigError("metric", f"found the class {name!r}, which has no test images; expected one that has")


def _place_of(name: str, classes: Sequence[str]) -> int | None:
    """The place of the class of that name, or else of that name in metrics; None if there is none."""
    return next((list(names).index(name) for names in (classes, _slugs(classes)) if name in names), None)


def _slugs(classes: Sequence[str]) -> list[str]:
    """The classes as metrics name them."""
    from ablation.training.evaluation import slugs  # only here, since it imports scikit-learn

    return slugs(classes)
