"""The metrics by which image classifiers are compared."""

from ablation.study.task import Curve, Metric

# name, title, which way is better, unit
COMPARED = (
    ("accuracy", "accuracy", "higher", "percent"),
    ("balanced_accuracy", "balanced", "higher", "percent"),
    ("macro_f1", "macro-F1", "higher", "percent"),
    ("many", "many", "higher", "percent"),
    ("medium", "medium", "higher", "percent"),
    ("few", "few", "higher", "percent"),
)
QUALITY = (
    ("worst", "worst class", "higher", "percent"),
    ("g_mean", "G-mean", "higher", "percent"),
    ("nll", "NLL", "lower", "nats"),
    ("ece", "ECE", "lower", "percent"),
)
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1")  # of each arm's summary
CURVES = (Curve("train/loss", "loss", 3), Curve("time/images_per_second", "images/s", 0))  # shown during training
# The metrics that `choose` may use: those of the validation images.
CHOICES = tuple(
    f"val/{name}" for name in ("balanced_accuracy", "accuracy", "macro_f1", "g_mean", "worst", "many", "medium", "few", "nll", "ece")
)


def metrics(margin: float) -> tuple[Metric, ...]:
    """Every metric with the study's margin, in points; the negative log-likelihood has none, since it is in nats."""
    return tuple(
        Metric(f"test/{name}", title, better, unit, margin if unit == "percent" else None, table, name in HEADLINES)  # type: ignore[arg-type]
        for table, rows in (("comparison", COMPARED), ("quality", QUALITY))
        for name, title, better, unit in rows
    )
