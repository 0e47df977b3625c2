"""What a reader opens if need be: changes, classes, confusions, curves, time, runs, provenance, and how to read it all."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.report import metrics, statistics
from ablation.report.metrics import title
from ablation.report.references import References
from ablation.report.section import Section
from ablation.report.sections.common import bullets, counted_once, images, named, paragraphs
from ablation.report.sections.content import RECORDED, Content
from ablation.report.tables import class_groups, train_counts
from ablation.report.words import duration, escaped, percent, setting, shortened, table

MOST_CLASSES_IN_A_MATRIX = 20
MOST_CONFUSIONS = 10
PROVENANCE = "Provenance"


def details(content: Content) -> Section:
    """All of it, folded away."""
    parts = [
        changes(content),
        labels(content),
        per_class(content),
        confusions(content),
        distribution(content),
        curves(content),
        spending(content),
        runs(content),
        provenance(content),
        reading(content),
    ]
    return Section("Details", "", tuple(part for part in parts if part.body or part.details))


def changes(content: Content) -> Section:
    """Every setting that an arm changes from its parent, from what to what."""
    rows = [
        [named(content, name), named(content, arm["parent"] or ""), escaped(path), escaped(setting(old)), escaped(setting(new))]
        for name, arm in content.planned.items()
        for path, (old, new) in arm["change"].items()
    ]
    return Section("Changes", table(["arm", "parent", "setting", "from", "to"], rows, left=5) if rows else "")


def labels(content: Content) -> Section:
    """Every label of every arm, with its reason."""
    rows = [
        [named(content, name), escaped(label), escaped(why)]
        for name, arm in content.planned.items()
        for label, why in arm["labels"].items()
    ]
    return Section("Labels", table(["arm", "label", "reason"], rows, left=3) if rows else "")


def per_class(content: Content) -> Section:
    """One table per arm: precision, recall, F1 and support of every class, and their averages."""
    frames = content.frames
    averages = {str(arm): rows for arm, rows in frames.averages.groupby("arm", sort=False)}
    tables = [
        Section(
            f"{named(content, str(arm))} (n = {rows['n'].iloc[0]})", _class_table(str(arm), rows, averages[str(arm)], content.references)
        )
        for arm, rows in frames.per_class.groupby("arm", sort=False)
    ]
    return Section("Per class", "Percent, mean ± standard deviation over n seeds." if tables else "", tuple(tables))


def _class_table(arm: str, classes: pd.DataFrame, averages: pd.DataFrame, references: References) -> str:
    figures = ("precision", "recall", "f1")
    published = references.per_class.get(arm, {})
    theirs = [f"published {name}" for name in ("precision", "recall", "F1") if published]
    rows = []
    for row in [*classes.to_dict("records"), *({**row, "class": row["average"], "group": ""} for row in averages.to_dict("records"))]:
        # an average that is not defined is blank, a class without test images has a dash
        values = [percent(row[name], row[f"{name}_sd"]) if np.isfinite(row[name]) or "average" not in row else "" for name in figures]
        stated = [percent(published.get(row["class"], {}).get(figure, np.nan)) for figure in figures if published]
        rows.append([escaped(row["class"]), escaped(row["group"]), *values, f"{row['support']:.10g}", *stated])
    return table(["class", "group", "precision", "recall", "F1", "support", *theirs], rows, left=2)


def distribution(content: Content) -> Section:
    """The images per class."""
    plan = content.plan
    groups = class_groups(plan)
    rows = [
        [escaped(name), escaped(groups.get(name, "")), str(train), str(test)]
        for name, train, test in zip(plan["classes"], train_counts(plan), plan["test_counts"], strict=True)
    ]
    body = table(["class", "group", f"train (seed {plan['seeds'][0]})", "test"], rows, left=2)
    return Section("Class distribution", paragraphs(images(content, "classes"), body))


def confusions(content: Content) -> Section:
    """The figures with the matrices where there are figures, and tables: the matrix, or the largest confusions of many classes."""
    classes = list(content.plan["classes"])
    if len(classes) <= MOST_CLASSES_IN_A_MATRIX:
        told, one = "Percent of each true class (row), all seeds together.", _matrix
    else:
        told, one = f"The {MOST_CONFUSIONS} largest confusions, in percent of the true class, all seeds together.", _largest_confusions
    tables = [Section(f"{named(content, arm)}: confusions", one(counts_CC, classes)) for arm, counts_CC in content.frames.confusion.items()]
    return Section("Confusion matrices", paragraphs(images(content, "confusion"), told) if tables else "", tuple(tables))


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


def curves(content: Content) -> Section:
    """The figures with the training curves."""
    pages = images(content, "curves")
    return Section("Training curves", paragraphs("Mean over seeds, and a band from the lowest to the highest.", pages) if pages else "")


def spending(content: Content) -> Section:
    """What each arm took by itself and what it had from other runs, summed over its seeds; chosen arms train nothing."""
    columns = ["time/own", "time/shared", "epochs/own", "epochs/shared"]
    rows, once = (_trained(frame) for frame in (content.frames.runs, counted_once(content)))
    if rows.empty:
        return Section("Time and epochs")
    sums, total = rows.groupby("arm", sort=False)[columns].sum(), once[columns].sum()
    cells = [[named(content, str(arm)), *_spent(sums.loc[arm])] for arm in sums.index] + [["all arms", *_spent(total)]]
    saved = duration(float(total["time/shared"]))
    told = f"Sharing saved {saved} of training. Shared time was spent once, by another run, for the same stage."
    if len(once) < len(rows):
        told += " Runs that several arms have in common count once among all arms."
    body = table(["arm", "time", "shared time", "epochs", "shared epochs"], cells)
    return Section("Time and epochs", paragraphs(images(content, "cost"), body, told))


def _trained(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[(runs["state"] == "done") & (runs["chosen"] == "")]


def _spent(sums: pd.Series) -> list[str]:
    return [duration(sums["time/own"]), duration(sums["time/shared"]), f"{sums['epochs/own']:.10g}", f"{sums['epochs/shared']:.10g}"]


def runs(content: Content) -> Section:
    """Every planned run with its MLflow run's id."""
    name = content.name
    rows = [
        [
            named(content, row["arm"]),
            str(row["seed"]),
            escaped(row["state"]),
            f"`{row['run_id']}`" if row["run_id"] else "",
            metrics.value(name, row[content.metric]),
            duration(row["time/own"]),
        ]
        for row in content.frames.runs.to_dict("records")
    ]
    return Section("Runs", table(["arm", "seed", "state", "run", escaped(title(name)), "time"], rows, left=4))


def provenance(content: Content) -> Section:
    """Where the numbers come from, per group of runs that share it; and the runs that the newest plan no longer has."""
    plan = content.plan
    head = f"Planned {escaped(plan['created'])} by {_code(plan['command'])} from {_code(plan['file'])}."
    done = content.frames.runs[content.frames.runs["state"] == "done"]
    about = (
        done[["arm", "seed", "run_id", "start"]]
        .astype({"run_id": str})
        .merge(content.recorded.drop_duplicates("run_id"), on="run_id", how="left")
    )
    about[list(RECORDED)] = about[list(RECORDED)].fillna("").astype(str)
    groups = [
        _provenance_of(own, done["run_id"].nunique())
        for _, own in about.groupby([name for name in RECORDED if name != "digest"], sort=False)
    ]
    superseded = [escaped(name) for name in content.superseded]
    told = paragraphs("In the store, but not in the newest plan, and not counted above:", bullets(superseded)) if superseded else ""
    return Section(PROVENANCE, paragraphs(head, *groups, told))


def _provenance_of(rows: pd.DataFrame, total: int) -> str:
    first = {column: str(rows[column].iloc[0]) for column in RECORDED}
    dirty = ", with uncommitted changes" if first["dirty"].lower() == "true" else ""
    arms, count = list(dict.fromkeys(rows["arm"])), rows["run_id"].nunique()
    digests = sorted(set(zip(rows["seed"], rows["digest"], strict=True)))
    days = sorted({day(start) for start in rows["start"]})
    facts = {
        "runs": f"{count} of {total} ({'every arm' if count == total else shortened([escaped(arm) for arm in arms])})",
        "dates": " to ".join(dict.fromkeys([days[0], days[-1]])),
        "commit": f"{_code(first['commit'])}{dirty}" if first["commit"] else "no repository",
        "command": _code(first["command"]),
        "versions": escaped(", ".join(f"{name} {version}" for name, version in versions(first["versions"]).items())),
        "hardware": escaped(first["hardware"]),
        "device": escaped(
            f"{first['device']}, {first['precision']}" + (", statistical" if first["statistical"].lower() in ("yes", "true") else "")
        ),
        "data digest": ", ".join(f"seed {seed} {_code(digest)}" for seed, digest in digests),
    }
    return bullets([f"{name}: {value}" for name, value in facts.items()])


def versions(text: str) -> Mapping[str, Any]:
    """The versions as recorded, or none."""
    return dict(json.loads(text)) if text else {}


def day(start: object) -> str:
    """The day on which a run began, from milliseconds or from an ISO date."""
    if isinstance(start, int | float):
        return datetime.datetime.fromtimestamp(start / 1000, tz=datetime.UTC).date().isoformat()
    return str(start)[:10]


def reading(content: Content) -> Section:
    """How every number here was made."""
    sure = "*better*, *worse* (the t test and the sign-flip test, both adjusted, below 0.05); *(t only)*: the t test alone"
    equal = f"; *no difference beyond {content.margin:g}* (two one-sided tests)" if metrics.unit(content.name) is metrics.FRACTION else ""
    lines = [
        "The test images were looked at once, after training, unless a label says otherwise.",
        "*Balanced* is the mean of the classes' recalls; *many*, *medium* and *few* are that mean within a group of classes.",
        "A dash is a number that does not exist (a group without classes, a difference without a pair); a blank is a run that is not done.",
        "Parent: the arm that the change is made to. Baseline: the first rung, or the condition's own.",
        "Seeds that only one of two arms finished make no pair. The standard deviation divides by n - 1, and one seed has none.",
        "Per class, a class that is never predicted has precision 0, and *macro avg* is the plain mean over classes.",
        "Confusion matrices are divided by the row's sum; a class without test images is an empty row.",
        "A chosen arm trains nothing and has no time.",
        "*What changed* leaves out the fields that a newly named technique has by default; *Changes* has all of them.",
        f"Verdicts: {sure}{equal}; *inconclusive*, *(no spread)* where every seed shows the same difference, which leaves nothing to test; "
        "*same training* (both names are one training).",
        "*Near chance*: the mean accuracy is hardly above what guessing, or always naming the largest class, would have.",
    ]
    return Section("How to read this", bullets(lines))


def _code(text: object) -> str:
    """The text within backquotes, on one line."""
    told = " ".join(str(text).replace("`", "'").split())
    return f"`{told}`" if told else "not recorded"
