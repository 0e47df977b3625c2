"""The folded details: changes, classes, confusions, curves, time, runs, provenance, and how to read the report."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablation.formatting import DASH, duration, escaped, listed, percent, setting, shortened
from ablation.report.frames.facts import CLASSIFIED, NOTHING, Needs, absent_facts, class_groups, classes_of, train_counts
from ablation.report.sections.claims import claims
from ablation.report.sections.common import (
    bullets,
    chunked,
    counted_once,
    in_code,
    lines_for,
    named,
    of_columns,
    paragraphs,
    pictures,
    table,
)
from ablation.report.sections.comparison import all_metrics
from ablation.report.sections.content import RECORDED, Content
from ablation.report.sections.data import data, groups
from ablation.report.sections.differences import conditions, differences
from ablation.report.sections.families import MOST_IN_MARKDOWN, elsewhere
from ablation.report.sections.gains import attribution, gains
from ablation.report.sections.opening import unmatched
from ablation.report.sections.own import depends_on, looks, times
from ablation.report.sections.quality import quality
from ablation.report.sections.section import Section, SectionSpec, sections_of
from ablation.report.statistics import descriptive
from ablation.report.statistics.descriptive import Records, records_by
from ablation.report.statistics.differences import NO_EFFECT

MOST_CLASSES_IN_A_MATRIX = 12
MOST_CONFUSIONS = 10
PROVENANCE = "Provenance"
COUNTED: Needs = frozenset({"classes", "counts"})


def details(content: Content) -> list[Section]:
    """All details, folded."""
    specs = (
        SectionSpec(claims),
        SectionSpec(all_metrics),
        SectionSpec(differences),
        SectionSpec(gains, needs=CLASSIFIED),
        SectionSpec(attribution),
        SectionSpec(conditions),
        SectionSpec(quality),
        SectionSpec(unmatched),
        SectionSpec(data),
        SectionSpec(groups),
        SectionSpec(changes),
        SectionSpec(labels),
        SectionSpec(per_class, needs=CLASSIFIED),
        SectionSpec(confusions, needs=CLASSIFIED),
        SectionSpec(distribution, needs=COUNTED),
        SectionSpec(curves, needs=frozenset({"curves"})),
        SectionSpec(spending),
        SectionSpec(runs),
        SectionSpec(provenance),
        SectionSpec(reading),
    )
    return [Section("Details", "", tuple(sections_of(specs, content)))]


def changes(content: Content) -> list[Section]:
    """Every setting that an arm changes, with the parent's and the arm's value; the arms under conditions apart."""
    plain, under = (_changes(content, is_under) for is_under in (False, True))
    details = (Section("Changes under the conditions", under, is_minor=len(content.shown) > MOST_IN_MARKDOWN),) if plain and under else ()
    where = elsewhere("The changes of the arms under conditions", "report.csv")
    return [Section("Changes", plain or under, details, elsewhere=where)] if plain or under else []


def _changes(content: Content, is_under: bool) -> str:
    rows = [
        [named(content, name), named(content, arm["parent"] or ""), escaped(path), f"{escaped(setting(old))} → {escaped(setting(new))}"]
        for name, arm in content.planned.items()
        if (arm["kind"] == "condition") == is_under
        for path, (old, new) in arm["change"].items()
    ]
    return table(["arm", "parent", "setting", "from → to"], rows, left=4) if rows else ""


def labels(content: Content) -> list[Section]:
    """Every label of every arm, with its reason."""
    rows = [
        [named(content, name), escaped(label), escaped(why)]
        for name, arm in content.planned.items()
        for label, why in arm["labels"].items()
    ]
    return [Section("Labels", table(["arm", "label", "reason"], rows, left=3))] if rows else []


# --- classes -------------------------------------------------------------------------------------------------------------------


def per_class(content: Content) -> list[Section]:
    """One table per arm with precision, recall, F1 and support of every class, and the averages."""
    frames = content.frames
    averages = records_by(frames.averages, "arm")
    minor = minor_arms(content)
    tables = [
        Section(
            f"{named(content, arm)} (n = {rows[0]['n']})",
            _class_table(rows, averages[arm], content.references.per_class.get(arm, {})),
            is_minor=arm in minor,
        )
        for arm, rows in records_by(frames.per_class, "arm").items()
    ]
    if not tables:
        return []
    words = "Percent, mean ± standard deviation over n seeds. The recall is the sensitivity."
    where = elsewhere("The other arms", "per_class.csv")
    return [Section("Per class", paragraphs(words, _recalls(content)), tuple(tables), elsewhere=where)]


def _recalls(content: Content) -> str:
    """The recall of every class by arm, if the classes' columns fit on a page; arms under conditions are left out."""
    frame = content.frames.per_class
    plain = [arm for arm in dict.fromkeys(frame["arm"]) if content.planned[arm]["kind"] != "condition"]
    recalls = {(row["arm"], row["class"]): percent(row["recall"]) for row in frame[["arm", "class", "recall"]].to_dict("records")}
    arms = ["arm", *(named(content, arm) for arm in plain)]
    columns = [[escaped(name), *(recalls[arm, name] for arm in plain)] for name in classes_of(content.plan)]
    if len(plain) < 2 or len(chunked(columns, [arms])) > 1:
        return ""
    return paragraphs("Recall of every class by arm:", of_columns([arms, *columns]))


def minor_arms(content: Content) -> set[str]:
    """The arms whose long tables a Markdown document leaves out: neither on the ladder nor the best, where there are many."""
    best = content.overview.best
    kept = {arm for arm, planned in content.planned.items() if planned["kind"] == "ladder"} | ({best.row.arm} if best else set())
    return {*content.shown} - kept if len(content.shown) > MOST_IN_MARKDOWN else set()


def _class_table(classes: Records, averages: Records, published: Mapping[str, Mapping[str, float]]) -> str:
    figures, shown = ("precision", "recall", "f1"), ("precision", "recall", "f1", "specificity")
    stated = [f"published {name}" for name in ("precision", "recall", "F1") if published]
    rows = []
    for row in [*classes, *({**row, "class": row["average"], "group": ""} for row in averages)]:
        # an undefined average is blank; a class without test images has a dash
        values = [
            percent(row[name], row[f"{name}_sd"]) if "average" not in row or np.isfinite(row.get(name, np.nan)) else "" for name in shown
        ]
        cells = [percent(published.get(row["class"], {}).get(figure, np.nan)) for figure in figures if published]
        rows.append([escaped(row["class"]), escaped(row["group"]), *values, f"{row['support']:.10g}", *cells])
    return table(["class", "group", "precision", "recall", "F1", "specificity", "support", *stated], rows, left=2)


def distribution(content: Content) -> list[Section]:
    """The images per class."""
    plan = content.plan
    groups = class_groups(plan)
    rows = [
        [escaped(name), escaped(groups.get(name, "")), str(train), str(test)]
        for name, train, test in zip(classes_of(plan), train_counts(plan), plan["test_counts"], strict=True)
    ]
    body = table(["class", "group", f"train (seed {plan['seeds'][0]})", "test"], rows, left=2)
    return [Section("Class distribution", paragraphs(pictures(content, "classes"), body))]


def confusions(content: Content) -> list[Section]:
    """The figures, if they were drawn, and a table per arm: the matrix, or the largest confusions if there are many classes."""
    classes = classes_of(content.plan)
    names = ["true / predicted", *map(escaped, classes)]
    fits = len(classes) <= MOST_CLASSES_IN_A_MATRIX and len(chunked([[name, "100.0"] for name in names[1:]], [names])) == 1
    if fits:
        legend, as_table = "Percent of each true class (row), all seeds together.", _matrix
    else:
        as_table = _largest_confusions
        legend = f"The largest confusions, at most {MOST_CONFUSIONS}, in percent of the true class, all seeds together."
    minor = minor_arms(content)
    tables = [
        Section(f"{named(content, arm)}: confusions", as_table(counts_CC, classes), is_minor=arm in minor)
        for arm, counts_CC in content.frames.confusion.items()
    ]
    drawn, others = pictures(content, "confusion"), elsewhere("The other arms", "confusion.csv")
    return [Section("Confusion matrices", paragraphs(drawn, legend), tuple(tables), elsewhere=others)] if tables else []


def _matrix(counts_CC: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    shares_CC = descriptive.normalised(counts_CC)
    names = [escaped(name) for name in classes]
    rows = [
        [name, *(f"{100 * share:.1f}" if np.isfinite(share) else DASH for share in row)] for name, row in zip(names, shares_CC, strict=True)
    ]
    return table(["true / predicted", *names], rows)


def _largest_confusions(counts_CC: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    shares_CC = np.nan_to_num(descriptive.normalised(counts_CC))
    np.fill_diagonal(shares_CC, 0)
    order = np.argsort(-shares_CC, axis=None, kind="stable")[:MOST_CONFUSIONS]
    cells = [divmod(int(cell), len(classes)) for cell in order if shares_CC.flat[cell] > 0]
    rows = [[escaped(classes[true]), escaped(classes[called]), f"{100 * shares_CC[true, called]:.1f}"] for true, called in cells]
    return table(["true", "predicted", "share"], rows, left=2) if rows else "None."


# --- training ------------------------------------------------------------------------------------------------------------------


def curves(content: Content) -> list[Section]:
    """The figures with the training curves."""
    pages = pictures(content, "curves")
    return [Section("Training curves", paragraphs("Mean over seeds, and a band from the lowest to the highest.", pages))] if pages else []


def spending(content: Content) -> list[Section]:
    """Each arm's own and shared time and epochs, summed over its seeds; chosen arms train nothing."""
    columns = ["time/own", "time/shared", "epochs/own", "epochs/shared"]
    rows, once = (_trained(frame) for frame in (content.frames.runs, counted_once(content)))
    if rows.empty:
        return []
    if content.own:
        return [times(content, rows, once)]
    sums, total = rows.groupby("arm", sort=False)[columns].sum(), once[columns].sum()
    cells = [[named(content, str(arm)), *_spent(sums.loc[arm])] for arm in sums.index] + [["all arms", *_spent(total)]]
    saved = duration(float(total["time/shared"]))
    words = f"Sharing saved {saved} of training. Shared time was spent once, by another run, for the same stage."
    if len(once) < len(rows):
        words += " Runs that several arms have in common count once among all arms."
    body = table(["arm", "time", "shared time", "epochs", "shared epochs"], cells)
    return [Section("Time and epochs", paragraphs(pictures(content, "cost"), body, words))]


def _trained(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[(runs["state"] == "done") & (runs["chosen"] == "")]


def _spent(sums: pd.Series) -> list[str]:
    return [duration(sums["time/own"]), duration(sums["time/shared"]), f"{sums['epochs/own']:.10g}", f"{sums['epochs/shared']:.10g}"]


def runs(content: Content) -> list[Section]:
    """Every planned run with the id of its MLflow run; the states only where not all are done."""
    name, frame = content.name, content.frames.runs
    has_states = bool((frame["state"] != "done").any())
    rows = [
        [
            named(content, row["arm"]),
            str(row["seed"]),
            *([escaped(row["state"])] if has_states else []),
            f"`{row['run_id']}`" if row["run_id"] else "",
            content.metrics.value(name, row[content.metric]),
            duration(row["time/own"]),
        ]
        for row in frame.to_dict("records")
    ]
    title = escaped(content.metrics.title(name))
    header = ["arm", "seed", *(["state"] if has_states else []), "run", title, "time"]
    return [Section("Runs", table(header, rows, left=len(header) - 2))]


# --- provenance ----------------------------------------------------------------------------------------------------------------


def provenance(content: Content) -> list[Section]:
    """The provenance of the numbers, per group of runs that share it, and the runs that are not in the newest plan."""
    plan = content.plan
    head = f"Planned {escaped(plan['created'])} by {in_code(plan['command'])} from {in_code(plan['file'])}."
    done = content.frames.runs[content.frames.runs["state"] == "done"]
    about = (
        done[["arm", "seed", "run_id", "start"]]
        .astype({"run_id": str})
        .merge(content.recorded.drop_duplicates("run_id"), on="run_id", how="left")
    )
    about[list(RECORDED)] = about[list(RECORDED)].fillna("").astype(str)
    more = content.overview.more
    command = f"To claim more: {in_code(more.command)}" if more and more.has_long_command else ""
    head = paragraphs(head, command, bullets(depends_on(plan)) if content.own else "")
    groups = [
        _provenance_of(rows, done["run_id"].nunique(), is_own=content.own is not None)
        for _, rows in about.groupby([name for name in RECORDED if name != "digest"], sort=False)
    ]
    superseded = [escaped(name) for name in content.superseded]
    left = paragraphs("Recorded, but not in the newest plan, and not counted above:", bullets(superseded)) if superseded else ""
    return [Section(PROVENANCE, paragraphs(head, *groups, left))]


def _provenance_of(rows: pd.DataFrame, total: int, *, is_own: bool) -> str:
    first = {column: str(rows[column].iloc[0]) for column in RECORDED}
    dirty = ", with uncommitted changes" if first["dirty"].lower() == "true" else ""
    arms, count = list(dict.fromkeys(rows["arm"])), rows["run_id"].nunique()
    digests = sorted(set(zip(rows["seed"], rows["digest"], strict=True)))
    days = sorted({day(start) for start in rows["start"]})
    facts = {
        "runs": f"{count} of {total} ({'every arm' if count == total else shortened([escaped(arm) for arm in arms])})",
        "dates": " to ".join(dict.fromkeys([days[0], days[-1]])),
        "commit": f"{in_code(first['commit'])}{dirty}" if first["commit"] else "no repository",
        "command": in_code(first["command"]),
        "versions where ablate runs" if is_own else "versions": escaped(
            ", ".join(f"{name} {version}" for name, version in versions(first["versions"]).items())
        ),
        "hardware": escaped(first["hardware"]),
        "device": escaped(
            f"{first['device']}{f', {precision}' if (precision := first['precision']) else ''}"
            + (", statistical" if first["statistical"].lower() in ("yes", "true") else "")
        ),
        "data digest": ", ".join(f"seed {seed} {in_code(digest)}" for seed, digest in digests if digest or not is_own),
    }
    return bullets([f"{name}: {value}" for name, value in facts.items() if value or not is_own])


def versions(text: str) -> Mapping[str, Any]:
    """The versions as recorded, or none."""
    return dict(json.loads(text)) if text else {}


def day(start: object) -> str:
    """The day on which a run began, given in milliseconds or as an ISO date."""
    if isinstance(start, int | float):
        return datetime.datetime.fromtimestamp(start / 1000, tz=datetime.UTC).date().isoformat()
    return str(start)[:10]


# --- how to read it ------------------------------------------------------------------------------------------------------------


CHOSEN = "A chosen arm trains nothing and has no time."
OF_TECHNIQUES: tuple[tuple[str, Needs], ...] = (
    (CHOSEN, NOTHING),
    ("The column *change* leaves out the fields that a newly named technique has by default; *Changes* has all of them.", NOTHING),
)


def reading(content: Content) -> list[Section]:
    """How the numbers were made, and what is left out."""
    sure = "*better*, *worse* (the t test and the sign-flip test, both adjusted, below 0.05); *(t only)*: the t test alone"
    margin = content.metrics.margin(content.name)
    ends = "two one-sided tests, so by a 90 % interval: the 95 % one beside it may reach a little further"
    equal = f"; *no difference beyond {margin:g}* ({ends})" if margin is not None else ""
    is_void = bool((content.frames.differences["verdict"] == NO_EFFECT).any())
    void = f"; *{NO_EFFECT}* (of the arm or of what it is compared with, so that nothing is claimed)" if is_void else ""
    has_chosen = bool((content.frames.arms["chosen"] != "").any())
    without_classes = "a group without classes, " if content.facts >= CLASSIFIED else ""
    lines: list[tuple[str, Needs]] = [
        (looks(content), NOTHING),
        (
            "*Balanced* is the mean of the classes' recalls; *many*, *medium* and *few* are that mean within a group of classes.",
            CLASSIFIED | {"groups"},
        ),
        (
            f"A dash is a number that does not exist ({without_classes}a difference without a pair); a blank is a run that is not done.",
            NOTHING,
        ),
        ("Parent: the arm that the change is made to. Baseline: the first rung, or the condition's own.", NOTHING),
        ("Seeds that only one of two arms finished make no pair. The standard deviation divides by n - 1, and one seed has none.", NOTHING),
        ("Per class, a class that is never predicted has precision 0, and *macro avg* is the plain mean over classes.", CLASSIFIED),
        (
            f"*Recall* is the sensitivity of a class; *specificity* is the share of the other classes' {content.items} not taken for it.",
            CLASSIFIED,
        ),
        (f"Confusion matrices are divided by the row's sum; a class without test {content.items} is an empty row.", CLASSIFIED),
        *(OF_TECHNIQUES if not content.own else [(CHOSEN, NOTHING)] if has_chosen else []),
        (
            f"Verdicts: {sure}{equal}; *inconclusive*, *(no spread)* where every seed shows the same difference, which leaves nothing to "
            f"test; *same training* (both names are one training); *not comparable* (tested on other {content.items}){void}.",
            NOTHING,
        ),
        (
            "*Near chance*: the mean accuracy is hardly above what guessing, or always naming the largest class, would have, and the "
            "balanced accuracy hardly above 1/C; where the report goes by AUROC or average precision, that is low, too.",
            COUNTED,
        ),
    ]
    absent = absent_facts(content.plan, content.facts)
    missing = [f"Left out, since the study does not record it: what is made of {listed(absent)}."] if absent else []
    return [Section("How to read this", bullets([*lines_for(content, lines), *missing]))]
