"""The second table: for classifiers, the worst class and the calibration of the scores; and folded, ranking and agreement."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.formatting import escaped, listed
from ablation.report.frames.facts import CLASSIFIED
from ablation.report.frames.posthoc import OF_PROBABILITIES, distance_arms, sigmoid_arms
from ablation.report.metrics import QUALITY, RANKING
from ablation.report.sections.common import bullets, chunked, count, few, lines_for, mean_and_sd, named, of_columns, paragraphs, pictures
from ablation.report.sections.content import Content
from ablation.report.sections.families import MOST_IN_MARKDOWN, elsewhere
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
        "{items}. *kappa* (Cohen) and *MCC* (Matthews) run from -1 to 1, and are 0 for what is right by chance.",
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
    units = f"{mean_and_sd(content, names)}. {escaped(content.metrics.lower_words(names))}".rstrip()
    lines = [units, *lines_for(content, READING)]
    if distances:
        marked = listed([named(content, arm) for arm in distances])
        lines.append(f"† The scores of {marked} are distances, not probabilities: NLL and ECE say little.")
    sigmoids = [arm for arm in sigmoid_arms(content.plan) if arm in content.shown and arm not in distances]
    if sigmoids:
        named_sigmoids = listed([named(content, arm) for arm in sigmoids])
        lines.append(f"† {named_sigmoids} learnt a sigmoid for each class, and p is a softmax here too: NLL and ECE say little.")
    marks = [*distances, *sigmoids]
    plain = arms[arms["condition"] == ""]
    shown = plain if len(plain) else arms
    rest = arms.drop(shown.index)
    minor = len(rest) > MOST_IN_MARKDOWN
    details = (Section(f"{title} under the conditions", _table(content, rest, names, marks), is_minor=minor),) if len(rest) else ()
    drawn = pictures(content, "reliability", "roc", "precision-recall")
    where = elsewhere("The arms under conditions", "report.csv")
    body = paragraphs(_table(content, shown, names, marks), bullets(lines), drawn)
    return [Section(title, body, (*details, *_ranking(content)), elsewhere=where)]


def _ranking(content: Content) -> list[Section]:
    """The metrics of ranking and of agreement beyond chance, if any run has one: those of older records have none."""
    names, arms = content.metrics.columns(RANKING), content.frames.arms
    if not names or not arms[[f"{name}_mean" for name in names]].notna().any(axis=None):
        return []
    units = f"{mean_and_sd(content, names)}. {escaped(content.metrics.lower_words(names))}".rstrip()
    lines = [units, *(line.format(items=content.items) for line in lines_for(content, RANKS))]
    title = "Ranking and agreement" if content.facts >= CLASSIFIED else "More metrics"
    return [Section(title, paragraphs(_table(content, arms, names, []), bullets(lines)))]


def _table(content: Content, arms: pd.DataFrame, names: list[str], marks: list[str]) -> str:
    """The arms' metrics, in as many tables as fit on a page each."""
    records = arms.to_dict("records")
    fixed = [["arm", *(named(content, row["arm"]) for row in records)], ["n", *(count(row) for row in records)]]
    columns = [[escaped(content.metrics.title(name)), *(_value(content, row, name, marks) for row in records)] for name in names]
    parts = chunked(columns, fixed)
    return paragraphs(*(of_columns([*fixed, *(columns[place] for place in places)]) for places in parts))


def _value(content: Content, row: Mapping[Any, Any], name: str, marks: list[str]) -> str:
    """Mean and sd, with a mark where scores are no probabilities; blank where no run is done."""
    if not row["n"]:
        return ""
    marked = " †" if name in OF_PROBABILITIES and row["arm"] in marks else ""
    return content.metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) + few(content, row, name) + marked
