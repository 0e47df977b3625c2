"""The second table: for classifiers, the worst class and the calibration of the scores; and folded, ranking and agreement."""

import pandas as pd

from ablation.formatting import escaped, listed, table
from ablation.report.frames.facts import CLASSIFIED
from ablation.report.frames.posthoc import OF_PROBABILITIES, distance_arms
from ablation.report.metrics import QUALITY, RANKING
from ablation.report.sections.common import bullets, count, lines_for, mean_and_sd, named, paragraphs, pictures
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section

READING = (
    (
        "*Worst class* is the lowest recall of all classes; *G-mean* is the geometric mean of the recalls, 0 as soon as one of them is.",
        CLASSIFIED,
    ),
    (
        "*NLL* is the mean of -ln p of the true class. *ECE* is the mean distance between the top probability and the accuracy, "
        "over 15 bins of the top probability. p is the softmax of the final scores, which post-hoc techniques and TTA change.",
        CLASSIFIED,
    ),
)

RANKS = (
    (
        "*AUROC* and *AP* (average precision) are the means over classes, each against the rest, of how well its probability ranks the "
        "images. *kappa* (Cohen) and *MCC* (Matthews) run from -1 to 1, and are 0 for what is right by chance.",
        CLASSIFIED,
    ),
)


def quality(content: Content) -> list[Section]:
    """The table of all arms, those of conditions folded; nothing if no metric has a column in it."""
    arms, names = content.frames.arms, content.metrics.columns(QUALITY)
    if not names:
        return []
    title = "Worst class and calibration" if content.facts >= CLASSIFIED else "Further metrics"
    distances = [arm for arm in distance_arms(content.plan) if arm in content.shown]
    units = f"{mean_and_sd(content.metrics.value_units(names))}. {escaped(content.metrics.lower_words(names))}".rstrip()
    lines = [units, *lines_for(content, READING)]
    if distances:
        marked = listed([named(content, arm) for arm in distances])
        lines.append(f"† The scores of {marked} are distances, not probabilities: NLL and ECE say little.")
    plain = arms[arms["condition"] == ""]
    shown = plain if len(plain) else arms
    rest = arms.drop(shown.index)
    conditions = (Section(f"{title} under the conditions", _table(content, rest, names, distances)),) if len(rest) else ()
    drawn = pictures(content, "reliability")
    return [Section(title, paragraphs(_table(content, shown, names, distances), bullets(lines), drawn), (*conditions, *_ranking(content)))]


def _ranking(content: Content) -> list[Section]:
    """The metrics of ranking and of agreement beyond chance, if any run has one: those of older records have none."""
    names, arms = content.metrics.columns(RANKING), content.frames.arms
    if not names or not arms[[f"{name}_mean" for name in names]].notna().any(axis=None):
        return []
    units = f"{mean_and_sd(content.metrics.value_units(names))}. {escaped(content.metrics.lower_words(names))}".rstrip()
    lines = [units, *lines_for(content, RANKS)]
    title = "Ranking and agreement" if content.facts >= CLASSIFIED else "More metrics"
    return [Section(title, paragraphs(_table(content, arms, names, []), bullets(lines)))]


def _table(content: Content, arms: pd.DataFrame, names: list[str], distances: list[str]) -> str:
    rows = []
    for row in arms.to_dict("records"):
        marks = {name: " †" if name in OF_PROBABILITIES and row["arm"] in distances else "" for name in names}
        values = [content.metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) + marks[name] if row["n"] else "" for name in names]
        rows.append([named(content, row["arm"]), count(row), *values])
    return table(["arm", "n", *(escaped(content.metrics.title(name)) for name in names)], rows)
