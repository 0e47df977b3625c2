"""How far a stage is, in words, for whoever shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.study.metrics import Curve

MOST_SHOWN = 3  # numbers of a row, where the kind of work does not say which are shown


def epoch_words(row: Mapping[str, Any]) -> str:
    """How far a stage is: `3/12`; without a known number of epochs the last step, `step 3`."""
    if not row["epochs"]:
        return f"{row.get('row', 'step')} {row['epoch']}" if row["epoch"] else "running"
    if not row["epoch"]:
        return "starting"
    return "testing" if row["epoch"] >= row["epochs"] else f"{row['epoch']}/{row['epochs']}"


def shown_values(values: Mapping[str, float], curves: Sequence[Curve]) -> dict[str, str]:
    """An epoch's numbers that are shown, by their titles: `loss 0.512`, `images/s 431`; the first few where no curve is known."""
    if not curves:
        return {name: f"{value:.4g}" for name, value in list(values.items())[:MOST_SHOWN]}
    return {curve.title: f"{values[curve.name]:.{curve.decimals}f}" for curve in curves if curve.name in values}


def curve_words(shown: Mapping[str, str]) -> str:
    """`, loss 0.512, 431 images/s`: a number per second stands before its unit, any other behind its title."""
    return "".join(f", {value} {title}" if title.endswith("/s") else f", {title} {value}" for title, value in shown.items())
