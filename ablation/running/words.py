"""How far a stage is, in words, for whoever shows it."""

from collections.abc import Mapping
from typing import Any


def epoch_words(row: Mapping[str, Any]) -> str:
    """How far a stage is."""
    if not row["epoch"]:
        return "starting"
    return "testing" if row["epoch"] >= row["epochs"] else f"{row['epoch']}/{row['epochs']}"


def curve_words(shown: Mapping[str, str]) -> str:
    """`, loss 0.512, 431 images/s`: a number per second stands before its unit, any other behind its title."""
    return "".join(f", {value} {title}" if title.endswith("/s") else f", {title} {value}" for title, value in shown.items())
