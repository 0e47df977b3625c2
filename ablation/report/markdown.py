"""The report as one Markdown document, section by section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report import metrics, statistics
from ablation.report.metrics import HEADLINE, RELIABILITY, short_name, title
from ablation.report.references import References
from ablation.report.tables import Frames, class_groups, train_counts
from ablation.report.words import DASH, change_words, duration, escaped, listed, percent, points, setting, table

# label -> its mark in the table, and what it means whatever the arm
LABELS = {
    "bundle": ("B", "the change spans several families, so a difference belongs to all of them together"),
    "budget": ("U", "more updates, images or trainable parameters than its parent"),
    "double correction": ("D", "a balancing sampler on top of class weights or of the training prior"),
    "chosen": ("C", "each seed's run is another arm's, picked on the validation images"),
    "selected on test": ("T", "chosen by looking at the test images, so too good by an unknown amount"),
    "lag": ("L", "the averaged weights still hold much of the initial ones"),
}
MOST_CHANGES_IN_A_CELL = 3
MOST_CLASSES_IN_A_MATRIX = 20
MOST_CONFUSIONS = 10


@dataclass(frozen=True)
class Content:
    """All that a document is made of; `figures` has the paths of the pages drawn, by what they show."""

    study: str
    plan: Mapping[str, Any]
    superseded: Sequence[str]
    frames: Frames
    metric: str
    references: References
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)


def document(content: Content) -> str:
    """The whole document."""
    sections = [
        opening(content),
        *comparisons(content),
        reliability(content.frames.arms),
        gaps(content.frames.runs),
        unmatched(content.references),
        changes(content),
        per_class(content),
        distribution(content),
        confusion(content),
        curves(content),
        spending(content.frames),
        run_list(content),
        superseded(content.superseded),
        reading(content),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def opening(content: Content) -> str:
    """The title, what is in the report, and what the plan has to say."""
    plan, runs = content.plan, content.frames.runs
    states = {state: int((runs["state"] == state).sum()) for state in dict.fromkeys(["done", "failed", "missing", *runs["state"]])}
    counts = train_counts(plan)
    facts = [
        "Runs: " + ", ".join(f"{number} {escaped(state)}" for state, number in states.items()),
        "seeds " + ", ".join(str(seed) for seed in plan["seeds"]),
        escaped(plan["created"]),
        f"{len(plan['classes'])} classes, {sum(counts)} training images (seed {plan['seeds'][0]}), {sum(plan['test_counts'])} test images",
    ]
    source = f"Planned by `{_code(plan['command'])}` from `{_code(plan['file'])}`."
    notes = "\n".join(f"- {escaped(note)}" for note in plan["notes"])
    return "\n\n".join(filter(None, [f"# {escaped(content.study)}", " · ".join(facts), source, notes]))


def comparisons(content: Content) -> list[str]:
    """The main table and one for every condition, each with its legend."""
    arms = content.frames.arms
    sections = []
    for condition in dict.fromkeys(arms["condition"]):
        own = arms[arms["condition"] == condition]
        heading = f"## Comparison under {escaped(condition)}" if condition else "## Comparison"
        parts = [heading, _comparison(content, own), "\n".join(_caption(content, own)), _legend(content.plan, own)]
        sections.append("\n\n".join(filter(None, parts)))
    return sections


def _comparison(content: Content, arms: pd.DataFrame) -> str:
    names = list(dict.fromkeys(short_name(metric) for metric in (*HEADLINE, content.metric)))
    reports = _reports(arms)
    header = ["arm", "what changed", "labels", "parent", "n", *(escaped(title(name)) for name in names)]
    header += ["vs parent", "vs baseline", *(escaped(name) for report in reports for name in (report, f"{report} gap"))]
    rows = [_comparison_row(content, row, names, reports) for row in arms.to_dict("records")]
    return table(header, rows, left=4)


def _reports(arms: pd.DataFrame) -> list[str]:
    """The reports with a published figure for any of these arms."""
    columns = [str(column) for column in arms.columns[arms.notna().any()] if str(column).startswith("published/")]
    return [column.removeprefix("published/") for column in columns]


def _comparison_row(content: Content, row: Mapping[Any, Any], names: Sequence[str], reports: Sequence[str]) -> list[str]:
    label = f" ({escaped(row['label'])})" if row["label"] not in ("", row["arm"]) else ""
    marks = ", ".join(_mark(mark) for mark in filter(None, row["labels"].split(", ")))
    differences = [_difference(row, short_name(content.metric), role) if row["n"] else "" for role in ("parent", "baseline")]
    published = [cell for report in reports for cell in (percent(row[f"published/{report}"]), points(row[f"gap/{report}_points"]))]
    return [
        escaped(row["arm"]) + label,
        _what_changed(content.plan, row),
        marks,
        escaped(row["parent"]),
        _count(row),
        *_values(row, names),
        *differences,
        *published,
    ]


def _count(row: Mapping[Any, Any]) -> str:
    return str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"


def _values(row: Mapping[Any, Any], names: Sequence[str]) -> list[str]:
    """Each metric's mean and sd; blank where no run is done."""
    return [metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else "" for name in names]


def _difference(row: Mapping[Any, Any], name: str, role: str) -> str:
    pairs = row[f"{name}_vs_{role}_pairs"]
    mean, sd = metrics.difference_columns(name, role)
    return f"{metrics.difference(name, row[mean], row[sd])} ({pairs})" if pairs else DASH


def _what_changed(plan: Mapping[str, Any], row: Mapping[Any, Any]) -> str:
    change = next(arm["change"] for arm in plan["arms"] if arm["name"] == row["arm"])
    words = change_words(change)
    more = [f"and {len(words) - MOST_CHANGES_IN_A_CELL} more"] if len(words) > MOST_CHANGES_IN_A_CELL else []
    same = [f"same training as {row['same_as']}"] if row["same_as"] else []
    return escaped("; ".join([*words[:MOST_CHANGES_IN_A_CELL], *more, *same]))


def _mark(label: str) -> str:
    return LABELS[label][0] if label in LABELS else escaped(label)


def _caption(content: Content, arms: pd.DataFrame) -> list[str]:
    """What the table's numbers are and what they cannot claim."""
    name = short_name(content.metric)
    unit, shown = metrics.unit(name), escaped(title(name))
    values = "Percent" if unit is metrics.FRACTION else f"Percent ({shown}: {unit.values})"
    gain = " Lower is better: a difference below zero is a gain." if metrics.is_lower_better(name) else ""
    pairs = int(arms[f"{name}_vs_baseline_pairs"].max())
    notes = [f"- {escaped(row['arm'])}: {escaped(row['note'])}" for row in arms.to_dict("records") if row["note"]]
    chosen = [f"- Chosen for {escaped(row['arm'])}: {escaped(row['chosen'])}" for row in arms.to_dict("records") if row["chosen"]]
    gap = ["- Published: the reports' accuracy; gap: ours minus theirs, in points."] if _reports(arms) else []
    return [
        f"- {values}, mean ± standard deviation over n seeds.",
        f"- Differences are {unit.differences} of {shown}, paired by seed: mean ± standard deviation (pairs).{gain}",
        f"- {claim(pairs)}",
        *gap,
        *notes,
        *chosen,
    ]


def claim(pairs: int) -> str:
    """What that many paired seeds can and cannot show."""
    needed = statistics.seeds_needed()
    if pairs == 0:
        return "No arm has a seed in common with its baseline, so no difference is claimed."
    if pairs == 1:
        return f"One seed gives no interval: no difference can be told from chance. {needed} seeds can."
    best = f"{statistics.smallest_p(pairs):.2g}"
    if pairs < needed:
        return f"{pairs} seeds cannot reach 0.05 by a sign-flip test (the smallest p is {best}); {needed} can."
    return f"With {pairs} seeds a sign-flip test can reach p = {best} at best, before any correction for the number of arms."


def _legend(plan: Mapping[str, Any], arms: pd.DataFrame) -> str:
    """Each label in the table: its mark, its meaning, and every arm's own numbers."""
    labels = {arm["name"]: arm["labels"] for arm in plan["arms"] if arm["name"] in set(arms["arm"])}
    used = dict.fromkeys(label for by_label in labels.values() for label in by_label)
    lines = []
    for label in used:
        own: dict[str, list[str]] = {}
        for arm, by_label in labels.items():
            if label in by_label:
                own.setdefault(str(by_label[label]), []).append(arm)
        told = "; ".join(f"{_arms(names, len(labels))}: {escaped(words)}" for words, names in own.items())
        mark, meaning = LABELS.get(label, (label, "")) if label in LABELS else (escaped(label), "")
        lines.append(f"- **{mark}** {f'*{label}*, {meaning}. ' if meaning else ''}{told}")
    return "\n".join(lines)


def _arms(names: Sequence[str], of: int) -> str:
    return "every arm" if len(names) == of > 1 else listed([escaped(name) for name in names])


def reliability(arms: pd.DataFrame) -> str:
    """The second table, of all conditions: the worst class, and how far the scores can be taken as probabilities."""
    names = [short_name(metric) for metric in RELIABILITY]
    rows = [[escaped(row["arm"]), _count(row), *_values(row, names)] for row in arms.to_dict("records")]
    lines = [
        "Percent (NLL: nats), mean ± standard deviation over n seeds. For NLL and ECE lower is better.",
        "*Worst class* is the lowest recall of all classes; *G-mean* is the geometric mean of the recalls, 0 as soon as one of them is.",
        "*NLL* is the mean of -ln p of the true class. *ECE* is the mean distance between the top probability and the accuracy, "
        "over 15 bins of the top probability. p is the softmax of the final scores, which post-hoc techniques and TTA change.",
    ]
    body = table(["arm", "n", *(title(name) for name in names)], rows)
    return "\n\n".join(["## Worst class and calibration", body, "\n".join(f"- {line}" for line in lines)])


def gaps(runs: pd.DataFrame) -> str:
    """The runs that are not done, each named with its reason."""
    lines = [
        f"- {escaped(row['arm'])}, seed {row['seed']}: {escaped(row['state'])}" + (f" ({escaped(row['reason'])})" if row["reason"] else "")
        for row in runs.to_dict("records")
        if row["state"] != "done"
    ]
    return "\n".join(["## Not done", "", *lines]) if lines else ""


def unmatched(references: References) -> str:
    """The published figures that belong to no arm here."""
    if not references.unmatched:
        return ""
    lines = [f"- {escaped(row)}" for row in references.unmatched]
    return "\n".join(
        ["## Published figures not matched", "", "No arm has this name, label or chain of rungs (or more than one has):", "", *lines]
    )


def changes(content: Content) -> str:
    """Every setting that an arm changes from its parent, from what to what."""
    shown = set(content.frames.arms["arm"])
    rows = [
        [escaped(arm["name"]), escaped(arm["parent"] or ""), escaped(path), escaped(setting(old)), escaped(setting(new))]
        for arm in content.plan["arms"]
        if arm["name"] in shown
        for path, (old, new) in arm["change"].items()
    ]
    return f"## Changes\n\n{table(['arm', 'parent', 'setting', 'from', 'to'], rows, left=5)}" if rows else ""


def per_class(content: Content) -> str:
    """One table per arm: precision, recall, F1 and support of every class, and their averages."""
    frames = content.frames
    by_arm = dict(list(frames.per_class.groupby("arm", sort=False)))
    averages = dict(list(frames.averages.groupby("arm", sort=False)))
    if not by_arm:
        return ""
    tables = [_per_class_table(str(arm), rows, averages[arm], content.references) for arm, rows in by_arm.items()]
    return "\n\n".join(["## Per class", *tables])


def _per_class_table(arm: str, classes: pd.DataFrame, averages: pd.DataFrame, references: References) -> str:
    figures = ("precision", "recall", "f1")
    published = references.per_class.get(arm, {})
    header = [
        "class",
        "group",
        "precision",
        "recall",
        "F1",
        "support",
        *(f"published {name}" for name in ("precision", "recall", "F1") if published),
    ]
    rows = []
    for row in [*classes.to_dict("records"), *({**row, "class": row["average"], "group": ""} for row in averages.to_dict("records"))]:
        values = [_percent_or_blank(row[figure], row[f"{figure}_sd"]) for figure in figures]
        theirs = [percent(published.get(row["class"], {}).get(figure, np.nan)) for figure in figures if published]
        rows.append([escaped(row["class"]), escaped(row["group"]), *values, f"{row['support']:.10g}", *theirs])
    return f"### {escaped(arm)} (n = {classes['n'].iloc[0]})\n\n{table(header, rows, left=2)}"


def _percent_or_blank(mean: float, sd: float) -> str:
    return percent(mean, sd) if np.isfinite(mean) else ""


def distribution(content: Content) -> str:
    """The images per class."""
    plan = content.plan
    groups = class_groups(plan)
    rows = [
        [escaped(name), escaped(groups.get(name, "")), str(train), str(test)]
        for name, train, test in zip(plan["classes"], train_counts(plan), plan["test_counts"], strict=True)
    ]
    body = table(["class", "group", f"train (seed {plan['seeds'][0]})", "test"], rows, left=2)
    return "\n\n".join(["## Class distribution", *_images(content, "classes", "Images per class"), body])


def confusion(content: Content) -> str:
    """The figures with the matrices where there are figures, else tables: the matrix, or the largest confusions of many classes."""
    frames, classes = content.frames, list(content.plan["classes"])
    if not frames.confusion:
        return ""
    pages = _images(content, "confusion", "Confusion matrices")
    if len(classes) <= MOST_CLASSES_IN_A_MATRIX:
        told, one = "Percent of each true class (row), all seeds together.", _matrix
    else:
        told, one = f"The {MOST_CONFUSIONS} largest confusions, in percent of the true class, all seeds together.", _largest_confusions
    tables = [f"### {escaped(arm)}: confusions\n\n{one(counts_CC, classes)}" for arm, counts_CC in frames.confusion.items()]
    return "\n\n".join(["## Confusion matrices", *pages, told, *tables])


def _matrix(counts_CC: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    shares_CC = statistics.normalised(counts_CC)
    names = [escaped(name) for name in classes]
    rows = [
        [name, *(f"{100 * share:.1f}" if np.isfinite(share) else "" for share in row)] for name, row in zip(names, shares_CC, strict=True)
    ]
    return table(["true / predicted", *names], rows)


def _largest_confusions(counts_CC: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    shares_CC = np.nan_to_num(statistics.normalised(counts_CC))
    np.fill_diagonal(shares_CC, 0)
    order = np.argsort(-shares_CC, axis=None, kind="stable")[:MOST_CONFUSIONS]
    cells = [divmod(int(cell), len(classes)) for cell in order]
    rows = [[escaped(classes[true]), escaped(classes[called]), f"{100 * shares_CC[true, called]:.1f}"] for true, called in cells]
    return table(["true", "predicted", "share"], rows, left=2)


def curves(content: Content) -> str:
    """The figures with the training curves."""
    pages = _images(content, "curves", "Training curves")
    return "\n\n".join(["## Training curves", "Mean over seeds, and a band of one standard deviation.", *pages]) if pages else ""


def spending(frames: Frames) -> str:
    """What each arm took by itself and what it had from other runs, summed over its seeds; chosen arms train nothing."""
    columns = ["time/own", "time/shared", "epochs/own", "epochs/shared"]
    done = frames.runs[(frames.runs["state"] == "done") & (frames.runs["chosen"] == "")]
    if done.empty:
        return ""
    sums = done.groupby("arm", sort=False)[columns].sum()
    cells = [[escaped(arm), *_spent(sums.loc[arm])] for arm in sums.index] + [["all arms", *_spent(sums.sum())]]
    told = f"Sharing saved {duration(float(sums['time/shared'].sum()))} of training."
    return f"## Time and epochs\n\n{table(['arm', 'time', 'shared time', 'epochs', 'shared epochs'], cells)}\n\n{told}"


def _spent(sums: pd.Series) -> list[str]:
    return [duration(sums["time/own"]), duration(sums["time/shared"]), f"{sums['epochs/own']:.10g}", f"{sums['epochs/shared']:.10g}"]


def run_list(content: Content) -> str:
    """Every planned run with the start of its MLflow run's id."""
    name = short_name(content.metric)
    rows = [
        [
            escaped(row["arm"]),
            escaped(row["state"]),
            row["run_id"][:8],
            str(row["seed"]),
            metrics.value(name, row[content.metric]),
            duration(row["time/own"]),
        ]
        for row in content.frames.runs.to_dict("records")
    ]
    return f"## Runs\n\n{table(['arm', 'state', 'run', 'seed', escaped(title(name)), 'time'], rows, left=3)}"


def superseded(names: Sequence[str]) -> str:
    """The runs that the newest plan no longer has."""
    lines = [f"- {escaped(name)}" for name in names]
    return "\n".join(["## Superseded", "", "In the store, but not in the newest plan, and not counted above:", "", *lines]) if lines else ""


def reading(content: Content) -> str:
    """How every number here was made."""
    lines = [
        "The test images were looked at once, after training, unless a label says otherwise.",
        "*Balanced* is the mean of the classes' recalls; *many*, *medium* and *few* are that mean within a group of classes.",
        "A dash is a number that does not exist (a group without classes, a difference without a pair); a blank is a run that is not done.",
        "Parent: the arm that the change is made to. Baseline: the first rung, or the condition's own.",
        "Seeds that only one of two arms finished make no pair. The standard deviation divides by n - 1, and one seed has none.",
        "Per class, a class that is never predicted has precision 0, and *macro avg* is the plain mean over classes.",
        "Confusion matrices are divided by the row's sum; a class without test images is an empty row.",
        "Shared time was spent once, by another run, for the same stage. A chosen arm trains nothing and has no time.",
    ]
    groups = [
        f"*{escaped(group)}*: {escaped(', '.join(names)) if names else 'no class'}." for group, names in content.plan["groups"].items()
    ]
    return "\n".join(["## How to read this", "", *(f"- {line}" for line in [*lines, *groups])])


def _images(content: Content, what: str, title: str) -> list[str]:
    pages = content.figures.get(what, ())
    return [f"![{title}{f', page {number}' if len(pages) > 1 else ''}]({path})" for number, path in enumerate(pages, start=1)]


def _code(text: object) -> str:
    """The text within backquotes, on one line."""
    return " ".join(str(text).replace("`", "'").split())
