"""The second table: the worst class, and how far the scores can be taken as probabilities."""

import pandas as pd

from ablation.report.metrics import RELIABILITY, short_name, title, value
from ablation.report.posthoc import distance_arms
from ablation.report.section import Section
from ablation.report.sections.common import bullets, count, images, named, paragraphs
from ablation.report.sections.content import Content
from ablation.report.words import listed, table


def quality(content: Content) -> Section:
    """The table of all arms, those of conditions folded away."""
    arms = content.frames.arms
    distances = [arm for arm in distance_arms(content.plan) if arm in content.shown]
    plain = arms[arms["condition"] == ""]
    lines = [
        "Percent (NLL: nats), mean ± standard deviation over n seeds. For NLL and ECE lower is better.",
        "*Worst class* is the lowest recall of all classes; *G-mean* is the geometric mean of the recalls, 0 as soon as one of them is.",
        "*NLL* is the mean of -ln p of the true class. *ECE* is the mean distance between the top probability and the accuracy, "
        "over 15 bins of the top probability. p is the softmax of the final scores, which post-hoc techniques and TTA change.",
    ]
    if distances:
        told = listed([named(content, arm) for arm in distances])
        lines.append(f"† The scores of {told} are distances, not probabilities: NLL and ECE say little.")
    shown = plain if len(plain) else arms
    rest = arms.drop(shown.index)
    details = (Section("Worst class and calibration under the conditions", _table(content, rest, distances)),) if len(rest) else ()
    pictures = images(content, "reliability")
    return Section("Worst class and calibration", paragraphs(_table(content, shown, distances), bullets(lines), pictures), details)


def _table(content: Content, arms: pd.DataFrame, distances: list[str]) -> str:
    names = [short_name(metric) for metric in RELIABILITY]
    rows = []
    for row in arms.to_dict("records"):
        marks = {name: " †" if name in ("nll", "ece") and row["arm"] in distances else "" for name in names}
        values = [value(name, row[f"{name}_mean"], row[f"{name}_sd"]) + marks[name] if row["n"] else "" for name in names]
        rows.append([named(content, row["arm"]), count(row), *values])
    return table(["arm", "n", *(title(name) for name in names)], rows)
