"""The report's tables in LaTeX: the matrix of rungs, a table for each family and condition, published figures, and attribution."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import capitalised, listed
from ablation.report.documents.latex_columns import chosen, columns, parts
from ablation.report.documents.latex_layout import Column, Parts, Row, Table
from ablation.report.documents.latex_matrix import MATRIX_KINDS, marks_of, replaced_in, rungs_in
from ablation.report.documents.latex_text import escaped
from ablation.report.metrics import with_unit
from ablation.report.sections.common import LABELS, condition_of, label_meaning, of_metric
from ablation.report.sections.comparison import reports_of
from ablation.report.sections.content import Content
from ablation.report.sections.families import over_shared
from ablation.report.statistics.attribution import WAYS
from ablation.report.statistics.best import ON_TEST

FAMILIES = {"variant": "variants", "drop_one": "drop one", "add_one": "add one"}


def tables(content: Content) -> Iterator[Table]:
    """The matrix, a table for each family and for each condition, the published figures, and the effect of each rung."""
    arms = content.frames.arms
    yield from _matrix(content)
    families = pd.Series([_family(row) for row in arms.to_dict("records")], index=arms.index, dtype=object)
    for family in dict.fromkeys(families):
        yield _of_family(content, arms[families == family], family)
    yield from _published(content)
    yield from _attribution(content)


def _of_family(content: Content, of_family: pd.DataFrame, family: str) -> Table:
    shown, arms = chosen(content), _with_parent(content, of_family)
    names = _marked(content, _names(arms, family.removeprefix("sweep ")))
    return Table(
        family.split(" "),
        f"{capitalised(escaped(family))} ({escaped(content.study)}).",
        _caption(content, arms, shown),
        columns(content, arms, names, shown),
        _rows(content, arms, names),
        _notes(content, arms, names, shown),
    )


def _with_parent(content: Content, arms: pd.DataFrame) -> pd.DataFrame:
    """The arms, after the one that all are compared with, if it is one of another family; it has no parent here, as in other documents."""
    family = next(family for family in content.overview.families if any(row.arm == arms["arm"].iloc[0] for row in family.rows))
    if family.reference is None or family.kind == "condition":
        return arms
    parent = content.frames.arms[content.frames.arms["arm"] == family.reference.arm]
    own = [f"{axis} {value}" for axis, value in family.own.items()]
    note = ", ".join([*own, *parent["note"][parent["note"] != ""]])
    return pd.concat([parent.assign(parent="", verdict_vs_parent="", change="the parent of the others", note=note), arms])


def _family(row: Mapping[Any, Any]) -> str:
    """The family of the arm: `ladder`, `sweep epsilon`, or `condition no-lag`."""
    if row["condition"]:
        return f"condition {row['condition']}"
    return f"sweep {row['arm'].partition('/')[0]}" if row["kind"] == "sweep" else FAMILIES.get(row["kind"], row["kind"])


# --- the matrix ------------------------------------------------------------------------------------------------------------------


def _matrix(content: Content) -> Iterator[Table]:
    """What reviewers call an ablation table: the arms of the ladder and those that add or drop rungs, with a mark for each rung in them."""
    arms = content.frames.arms
    arms = arms[arms["kind"].isin(MATRIX_KINDS)]
    members = rungs_in(content.plan, list(arms["arm"]))
    arms = arms[arms["arm"].isin(members)]
    replaced = replaced_in(content.plan, members)
    rungs = list(dict.fromkeys(rung for of_arm in members.values() for rung in of_arm))
    if not rungs:
        return
    shown = chosen(content) if content.options.columns else ["arm", content.name, "parent", "baseline"]
    names = _marked(content, {arm: escaped(arm) for arm in arms["arm"]})
    first, *others = columns(content, arms, names, shown)
    labels = {arm["name"]: arm["label"] for arm in content.plan["arms"]}
    explained = [f"{escaped(rung)}: {escaped(labels[rung])}" for rung in rungs if labels.get(rung) not in (None, "", rung)]
    yield Table(
        ["ablation"],
        f"Ablation ({escaped(content.study)}).",
        f"{_marks_words(replaced)} {_caption(content, arms, shown)}",
        [first, *marks_of(members, rungs, replaced), *others],
        _rows(content, arms, names),
        [*([f"{'; '.join(explained)}."] if explained else []), *_notes(content, arms, names, shown)],
    )


def _marks_words(replaced: Mapping[str, Sequence[str]]) -> str:
    circle = "; a circle: a later rung replaces it, or a part of it" if any(replaced.values()) else ""
    return f"A check mark: what that rung set holds in the arm{circle}."


# --- names, marks and remarks ----------------------------------------------------------------------------------------------------


def _names(arms: pd.DataFrame, family: str) -> dict[str, str]:
    """arm -> its name in a table: its label if that is unique; without the name of the condition or sweep that the table is of."""
    plain = {arm: arm.removeprefix(f"{condition or family}/") for arm, condition in zip(arms["arm"], arms["condition"], strict=True)}
    words = {arm: label or plain[arm] for arm, label in zip(arms["arm"], arms["label"], strict=True)}
    counts = Counter([*words.values(), *(name for arm, name in plain.items() if words[arm] != name)])
    return {arm: escaped(word if counts[word] == 1 else plain[arm]) for arm, word in words.items()}


def _labels(content: Content, arms: Iterable[str]) -> dict[str, list[str]]:
    """arm -> its labels, those that only numbers tell among them."""
    return {arm: [*content.planned[arm]["labels"], *content.overview.found_labels(arm)] for arm in arms}


def _marked(content: Content, names: Mapping[str, str]) -> dict[str, str]:
    return {arm: names[arm] + _superscript(labels) for arm, labels in _labels(content, names).items()}


def _superscript(labels: Sequence[str]) -> str:
    """The labels' marks, raised."""
    marks = ",".join(LABELS[label][0] if label in LABELS else escaped(label) for label in labels)
    return f"\\textsuperscript{{{marks}}}" if marks else ""


def _rows(content: Content, arms: pd.DataFrame, names: Mapping[str, str]) -> list[Row]:
    """The arms with their runs, families and remarks; there are no families in an order of one's own."""
    families = {} if content.options.sort else _plain_families(content)
    rows = []
    for row in arms.to_dict("records"):
        same = f"the same training as {names.get(row['same_as'], escaped(row['same_as']))}" if row["same_as"] else ""
        chosen_as = f"chosen: {escaped(row['chosen'])}" if row["chosen"] else ""
        remarks = [words.rstrip(".") for words in (escaped(row["note"]), same, chosen_as) if words]
        rows.append(Row(row["arm"], row["runs"], families.get(row["arm"], ""), [f"{names[row['arm']]}: {words}." for words in remarks]))
    return rows


def _plain_families(content: Content) -> dict[str, str]:
    """arm -> its family, or that of the plain arm if it is a condition's."""
    plain = {arm["name"]: _family({"condition": "", "arm": arm["name"], "kind": arm["kind"]}) for arm in content.plan["arms"]}
    conditions = condition_of(content)
    return {
        arm: plain.get(arm.removeprefix(f"{condition}/"), family)
        for (arm, family), condition in zip(plain.items(), conditions.values(), strict=True)
    }


def _notes(content: Content, arms: pd.DataFrame, names: Mapping[str, str], shown: Sequence[str]) -> list[str]:
    """What the marks mean, which runs are missing, and the parents."""
    used = dict.fromkeys(label for labels in _labels(content, names).values() for label in labels if label in LABELS)
    legend = [f"{_superscript([label])}\\,{escaped(label)}: {label_meaning(content, label)}." for label in used]
    counts = [arms["n"], *(arms["arm"].map(content.values(name)).map(len) for name in shown if f"{name}_mean" in arms)]
    pairs = [content.pairs[arm, role]["pairs"] for arm in arms["arm"] for role in ("parent", "baseline") if (arm, role) in content.pairs]
    is_short = any(bool((count < content.most_planned).any()) for count in counts) or any(0 < n < content.most_planned for n in pairs)
    is_missing = any(bool((count < arms["planned"]).any()) for count in counts)
    never = " An arm of which a planned run has no number is never the best." if is_missing else ""
    short = [f"$1/2$: numbers or pairs of fewer seeds than other arms have.{never}"] if is_short else []
    return [*legend, *short, *(_parents(content, arms, names) if "parent" in shown or "verdict" in shown else [])]


def _parents(content: Content, arms: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """Which arm is the parent of which."""
    if condition := arms["condition"].iloc[0]:
        return [_parents_under(content, arms, names, condition)]
    is_star = len(arms) > 2 and set(arms["parent"].iloc[1:]) == {arms["arm"].iloc[0]}
    above = dict(zip(arms["arm"], ["", *arms["arm"]], strict=False)) if not content.options.sort and not is_star else {}
    children: dict[str, list[str]] = {}
    is_above = False
    for arm, parent in zip(arms["arm"], arms["parent"], strict=True):
        is_above |= bool(parent) and above.get(arm) == parent
        if parent and above.get(arm) != parent:
            children.setdefault(names.get(parent, escaped(parent)), []).append(names[arm])
    if is_above:
        others = "".join(f"; of {listed(of_parent)} it is {parent}" for parent, of_parent in children.items())
        return [f"An arm's parent is the row above it{others}."]
    if len(children) == 1:
        return [f"Parent: {next(iter(children))}."]
    return [f"Parents: {'; '.join(f'{parent} of {listed(of_parent)}' for parent, of_parent in children.items())}."] if children else []


def _parents_under(content: Content, arms: pd.DataFrame, names: Mapping[str, str], condition: str) -> str:
    """Under a condition parents are as among the plain arms, but for the first arm, and for those whose parent the condition lacks."""
    conditions, plain = condition_of(content), {arm["name"]: arm["parent"] for arm in content.plan["arms"]}
    first, others = list[str](), dict[str, list[str]]()
    for arm, parent in zip(arms["arm"], arms["parent"], strict=True):
        if parent and not conditions.get(parent, condition):
            first.append(names[arm])
        elif parent and parent != f"{condition}/{plain.get(arm.removeprefix(f'{condition}/'))}":
            others.setdefault(names.get(parent, escaped(parent)), []).append(names[arm])
    words = [f"of {listed(first)}, the plain arm"] if first else []
    words += [f"of {listed(of_parent)}, {parent}" for parent, of_parent in others.items()]
    return f"{'; '.join(['Parents are those of the plain arms', *words])}."


# --- captions --------------------------------------------------------------------------------------------------------------------


def _caption(content: Content, arms: pd.DataFrame, shown: Sequence[str]) -> str:
    """What the table's numbers are: the metrics with their seeds, the differences with their interval, and the correction of verdicts."""
    metrics = [name for name in shown if name in content.metrics or name == content.name]
    return " ".join(
        [
            *([_values_words(content, arms, metrics)] if metrics else []),
            *([_differences_words(content)] if {"parent", "baseline"} & {*shown} else []),
            *([_verdict_words(content, arms)] if "verdict" in shown else []),
            *([_published_words(content)] if "published" in shown and reports_of(arms) else []),
        ]
    )


def _values_words(content: Content, arms: pd.DataFrame, names: Sequence[str]) -> str:
    table, least, seeds = content.metrics, int(arms["planned"].min()), int(arms["planned"].max())
    of_one = with_unit(capitalised(escaped(table.title(names[0]))), escaped(table.unit(names[0]).values), "{} in {}")
    what = of_one if len(names) == 1 else capitalised(escaped(table.value_units(names))) or "Values"
    of_seeds = (
        f"mean $\\pm$ standard deviation over {seeds if least == seeds else f'{least} to {seeds}'} seeds" if seeds > 1 else "one seed"
    )
    best = f"; the best is bold{over_shared(content, list(arms['arm']))}" if len(arms) > 1 else ""
    return f"{what}, {of_seeds}{best}."


def _differences_words(content: Content) -> str:
    lower = " Lower is better: below zero is a gain." if content.metrics.is_lower_better(content.name) else ""
    return f"{_paired(content)}, with 95\\,\\% $t$ intervals, not adjusted.{lower}"


def _paired(content: Content) -> str:
    unit = capitalised(escaped(content.metrics.unit(content.name).differences))
    return f"{unit or 'Differences'} of {escaped(content.metrics.words(content.name))}, paired by seed"


def _verdict_words(content: Content, arms: pd.DataFrame) -> str:
    """By which tests, and what the words mean that are not plain."""
    verdicts = " ".join(arms["verdict_vs_parent"])
    margin, unit = content.metrics.margin(content.name), escaped(content.metrics.unit(content.name).differences)
    as_much = f"that many {unit}" if unit else "that much"
    explained = {
        "t only": "\\emph{t only}: the sign-flip test does not confirm it",
        "no difference beyond": f"\\emph{{no difference beyond {margin or 0:g}}}: two one-sided tests against {as_much}",
    }
    tests = "Verdict, on the difference to the parent: paired $t$ test and sign-flip test, both at 0.05 after Holm's correction"
    return "; ".join([f"{tests} within the family", *(words for start, words in explained.items() if start in verdicts)]) + "."


def _published_words(content: Content) -> str:
    name = content.metrics.published
    unit, reports = content.metrics.unit(name), [escaped(report) for report in reports_of(content.frames.arms)]
    of_reports = with_unit(f"the {escaped(content.metrics.words(name))} in {listed(reports)}", escaped(unit.values), "{} in {}")
    return f"Published: {of_reports}; gap: {with_unit('ours minus theirs', escaped(unit.differences), '{}, in {}')}."


# --- published figures, and what each rung is worth --------------------------------------------------------------------------------


def _published(content: Content) -> Iterator[Table]:
    """The reports' figures and ours, for the arms that have any, unless the tables have them already."""
    arms = content.frames.arms
    reports = reports_of(arms)
    if not reports or "published" in chosen(content):
        return
    arms = arms[arms[[f"published/{report}" for report in reports]].notna().any(axis=1)]
    ours = content.metrics.published
    names, shown = _marked(content, {arm: escaped(arm) for arm in arms["arm"]}), ["arm", ours, "published"]
    title = f"Published figures ({escaped(content.study)})."
    rows = [Row(arm, runs) for arm, runs in zip(arms["arm"], arms["runs"], strict=True)]
    yield Table(["published"], title, _caption(content, arms, shown), columns(content, arms, names, shown), rows)


def _attribution(content: Content) -> Iterator[Table]:
    """One table per condition with the effect of each rung in every way, if there are more than the ladder."""
    rows = of_metric(content.frames.attribution, content.name)
    rows = rows[rows["arm"].isin(content.shown)]
    for condition in dict.fromkeys(rows[rows["way"] != "ladder"]["condition"]):
        of_condition = rows[rows["condition"] == condition]
        ways = [way for way in WAYS if way in set(of_condition["way"])]
        rungs = list(dict.fromkeys(of_condition["rung"]))
        by_place = {(row["rung"], row["way"]): row for row in of_condition.to_dict("records")}
        cells: dict[str, list[Parts]] = {way: [parts(content, by_place.get((rung, way), {})) for rung in rungs] for way in ways}
        under = f", under {escaped(condition)}" if condition else ""
        yield Table(
            [condition, "attribution"] if condition else ["attribution"],
            f"Attribution ({escaped(content.study)}{under}).",
            f"What each rung is worth. {_paired(content)}, with 95\\,\\% $t$ intervals. Ladder: over the rung above it; "
            "first in: alone over the first rung; last out: what is lost without it; Shapley: the mean over all orders.",
            [
                Column("rung", [(_rung(content, of_condition, rung), "") for rung in rungs], is_words=True),
                *(Column(way, cells[way]) for way in ways),
            ],
            [Row("") for _ in rungs],
        )


def _rung(content: Content, rows: pd.DataFrame, rung: str) -> str:
    """The rung's name, with a mark if any of the arms that tell its worth was chosen on the test items."""
    of_rung = rows[rows["rung"] == rung]
    is_on_test = bool(content.on_test & {*of_rung["arm"], *of_rung["against"]})
    return escaped(rung) + (_superscript([ON_TEST]) if is_on_test else "")
