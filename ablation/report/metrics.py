"""The final metrics as documents tell them: which there are, in which unit, and which way is better."""

import math
from dataclasses import dataclass

from ablation.config import LOWER_IS_BETTER
from ablation.report.words import change, number

HEADLINE = ("test/accuracy", "test/balanced_accuracy", "test/macro_f1", "test/many", "test/medium", "test/few")
RELIABILITY = ("test/worst", "test/g_mean", "test/nll", "test/ece")
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro-F1",
    "many": "many",
    "medium": "medium",
    "few": "few",
    "worst": "worst class",
    "g_mean": "G-mean",
    "nll": "NLL",
    "ece": "ECE",
}


@dataclass(frozen=True)
class Unit:
    """How a metric's numbers are told: the words for them and for their differences, and the factor from the store's numbers."""

    values: str
    differences: str
    scale: int
    decimals: int
    suffix: str  # of the columns with differences, where these are not in the store's unit


FRACTION = Unit("percent", "points", 100, 2, "_points")
NATS = Unit("nats", "nats", 1, 3, "")


def short_name(metric: str) -> str:
    """The metric's name without what says that it is one of the test images."""
    return metric.removeprefix("test/")


def title(name: str) -> str:
    """What the metric is called at the head of a column."""
    return TITLES.get(name, name)


def unit(name: str) -> Unit:
    """The unit in which the metric is told: all are fractions but the negative log-likelihood."""
    return NATS if name == "nll" else FRACTION


def is_lower_better(name: str) -> bool:
    """Whether a smaller number is a gain."""
    return name in LOWER_IS_BETTER


def value(name: str, mean: float, sd: float = math.nan) -> str:
    """The store's number as documents have it: `84.22 ± 0.31` in percent, `0.512 ± 0.004` in nats."""
    told = unit(name)
    return number(told.scale * mean, told.scale * sd, told.decimals)


def difference(name: str, mean: float, sd: float = math.nan) -> str:
    """A difference, in the unit of the columns that hold it: `+0.75 ± 0.10`."""
    return change(mean, sd, unit(name).decimals)


def difference_columns(name: str, role: str) -> tuple[str, str]:
    """The columns with the mean and the sd of the differences to the parent or to the baseline."""
    start, suffix = f"{name}_vs_{role}", unit(name).suffix
    return f"{start}{suffix}", f"{start}_sd{suffix}"


def interval_columns(name: str, role: str) -> tuple[str, str]:
    """The columns with the ends of the 95 % interval of the mean difference."""
    start, suffix = f"{name}_vs_{role}", unit(name).suffix
    return f"{start}_low{suffix}", f"{start}_high{suffix}"
