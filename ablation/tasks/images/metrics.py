"""The metrics by which image classifiers are compared."""

from collections.abc import Mapping, Sequence

from ablation.errors import ConfigError, unknown_name
from ablation.study.config import AUTO
from ablation.study.task import Curve, Metric

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
# What `metric` may name of a class, and the store's name for it: the sensitivity is the recall, recorded once.
CLASS_METRICS = {name: name for name in ("recall", "specificity", "precision", "f1")} | {"sensitivity": "recall"}
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


def metric_of(written: str, classes: Sequence[str], test_counts: Sequence[int], groups: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    """The full name of the metric that a study's file means by `written`, and the reason, in a clause.

    Raises ConfigError if no run will have it: for an unknown class, or for one or a group of them without test images.
    """
    name = written.removeprefix("test/")
    if name == AUTO:
        return _fitting(test_counts)
    kind, _, of_class = name.partition("/")
    if kind in CLASS_METRICS:
        name = f"{CLASS_METRICS[kind]}/{_class_called(of_class, classes, test_counts)}"
    elif name in groups and not any(test_counts[c] for c in groups[name]):
        raise ConfigError("metric", f"found {written!r}, but no class with test images is in that group; expected another metric")
    return f"test/{name}", "set in the file"


def _fitting(test_counts: Sequence[int]) -> tuple[str, str]:
    """Accuracy where all classes have equally many test images, since it is the balanced accuracy there; else the latter."""
    least, most = min(test_counts), max(test_counts)
    if least == most:
        return "test/accuracy", f"all {len(test_counts)} classes have {most:,} test images"
    return "test/balanced_accuracy", f"the classes have {least:,} to {most:,} test images"


def _class_called(name: str, classes: Sequence[str], test_counts: Sequence[int]) -> str:
    """The class as metrics name it; raises ConfigError if there is no such class, or if it has no test images."""
    from ablation.training.evaluation import slugs  # only here, since it imports scikit-learn

    names = slugs(classes)
    if name not in classes and name not in names:
        raise unknown_name("metric", "class", name, classes)
    place = list(classes).index(name) if name in classes else names.index(name)
    if not test_counts[place]:
        raise ConfigError("metric", f"found the class {name!r}, which has no test images; expected one that has")
    return names[place]
