"""The report's tables in LaTeX: their content and their typesetting."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pandas as pd

from ablation.formatting import DASH, capitalised, listed
from ablation.report.documents.latex_text import comment, escaped, number
from ablation.report.metrics import COMPARISON, MetricTable, with_unit
from ablation.report.sections.claims import near_chance
from ablation.report.sections.common import LABELS, ROLES, label_meaning, of_metric
from ablation.report.sections.comparison import best_arms, columns, published, reports_of
from ablation.report.sections.content import Content
from ablation.report.statistics.attribution import WAYS

PREFIX = "Ablate"  # of all commands
OVER = rf"\newcommand{{\{PREFIX}Over}}[2]{{\begin{{tabular}}[t]{{@{{}}r@{{}}}}#1\\{{\scriptsize$#2$}}\end{{tabular}}}}"
# a number and what belongs to it: lowered, smaller, or below
LOWERED, SMALLER, BELOW = "%s$_{%s}$", r"%s\,{\scriptsize$%s$}", rf"\{PREFIX}Over{{%s}}{{%s}}"
# letters of numbers that fit in a row of the narrowest usual page, an article's
MOST_OF_VALUES, MOST_OF_DIFFERENCES = 54, 44
WORDS = ">{\\raggedright\\arraybackslash}p{%s\\linewidth}"  # a column of words that break into lines

Parts = tuple[str, str]  # a number, and its sd or interval, which may be nothing


@dataclass(frozen=True)
class Table:
    """A table that may run over pages. All fields are LaTeX except `about`, the plain words for its command and label."""

    about: Sequence[str]
    title: str
    caption: str
    columns: str
    header: Sequence[str]
    rows: Sequence[str]
    notes: Sequence[str] = field(default=())

    def typeset(self, label: str) -> str:
        """The table as a longtable, with its header on every page and its notes below."""
        head = f"\\toprule\n{_row(self.header)}\n\\midrule"
        notes = [f"\\noindent{{\\scriptsize\\raggedright {' '.join(self.notes)}\\par}}"] if self.notes else []
        return "\n".join(
            [
                "\\begingroup\\footnotesize\\setlength{\\tabcolsep}{2pt}\\setlength{\\LTcapwidth}{\\linewidth}",
                f"\\begin{{longtable}}{{{self.columns}}}",
                f"\\caption[{{{self.title}}}]{{{self.title} {self.caption}}}\\label{{tab:{label}}}\\\\",
                f"{head}\n\\endfirsthead\n{head}\n\\endhead\n\\bottomrule\n\\endfoot",
                *self.rows,
                "\\end{longtable}",
                *notes,
                "\\endgroup",
            ]
        )


def tables(content: Content) -> Iterator[Table]:
    """Two tables for the plain arms and for each condition, the published figures, and the effect of each rung."""
    arms, marks = content.frames.arms, _marks(content)
    for condition in dict.fromkeys(arms["condition"]):
        of_condition = arms[arms["condition"] == condition]
        names = _names(of_condition, condition)
        marked = {arm: name + _superscript(marks[arm]) for arm, name in names.items()}
        legend = _legend(content, [marks[arm] for arm in names])
        yield _comparison(content, of_condition, condition, marked, [*legend, *_notes(of_condition, names)])
        yield _differences(content, of_condition, condition, marked, [*legend, *_short_of_pairs(of_condition)])
    yield from _published(content)
    yield from _attribution(content)


# --- names and marks -----------------------------------------------------------------------------------------------------------


def _names(arms: pd.DataFrame, condition: str) -> dict[str, str]:
    """arm -> its name in a condition's tables: its label if that is unique."""
    plain = {arm: _without(condition, arm) for arm in arms["arm"]}
    words = {arm: label or plain[arm] for arm, label in zip(arms["arm"], arms["label"], strict=True)}
    counts = Counter([*words.values(), *(name for arm, name in plain.items() if words[arm] != name)])
    return {arm: escaped(word if counts[word] == 1 else plain[arm]) for arm, word in words.items()}


def _without(condition: str, arm: str) -> str:
    return arm.removeprefix(f"{condition}/") if condition else arm


def _marks(content: Content) -> dict[str, list[str]]:
    """arm -> its labels, and whether it is near chance."""
    near = near_chance(content)
    return {name: [*arm["labels"], *(["near chance"] if name in near else [])] for name, arm in content.planned.items()}


def _superscript(labels: Sequence[str]) -> str:
    """The labels' marks, raised."""
    marks = ",".join(LABELS[label][0] if label in LABELS else escaped(label) for label in labels)
    return f"\\textsuperscript{{{marks}}}" if marks else ""


def _legend(content: Content, labels: Iterable[Sequence[str]]) -> list[str]:
    """What each mark means."""
    used = dict.fromkeys(label for of_arm in labels for label in of_arm if label in LABELS)
    return [f"{_superscript([label])}\\,{escaped(label)}: {label_meaning(content, label)}." for label in used]


def _notes(arms: pd.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    """Remarks on single arms."""
    if (arms["n"] < arms["planned"]).any():
        yield "$n$ of $1/2$: not every planned run is done; such arms are never the best."
    for row in arms.to_dict("records"):
        same = f"the same training as {names.get(row['same_as'], escaped(row['same_as']))}" if row["same_as"] else ""
        chosen = f"chosen: {escaped(row['chosen'])}" if row["chosen"] else ""
        yield from (f"{names[row['arm']]}: {words.rstrip('.')}." for words in (escaped(row["note"]), same, chosen) if words)


def _short_of_pairs(arms: pd.DataFrame) -> list[str]:
    return ["Raised after a difference: the pairs of seeds, where some are missing."] if (arms["n"] < arms["planned"]).any() else []


def _about(condition: str, what: str) -> list[str]:
    return [condition, what] if condition else [what]


def _titled(content: Content, what: str, condition: str) -> str:
    return f"{what} ({escaped(content.study)}{f', under {escaped(condition)}' if condition else ''})."


# --- rows ----------------------------------------------------------------------------------------------------------------------


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _by_family(content: Content, arms: pd.DataFrame, rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The rows with the ids of their runs, with a rule and a heading between families unless the arms are sorted."""
    ids = dict(zip(arms["arm"], arms["runs"], strict=True))
    conditions = dict(zip(arms["arm"], arms["condition"], strict=True))
    families = {arm: "" if content.options.sort else _family(content, _without(conditions[arm], arm)) for arm in rows}
    are_several = len(set(families.values())) > 1
    width = len(next(iter(rows.values())))
    for place, (family, members) in enumerate(groupby(rows, key=families.__getitem__)):
        if are_several:
            yield ("\\midrule\n" if place else "") + f"\\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\\textit{{{escaped(family)}}}}} \\\\*"
        for arm in members:
            yield f"{_row(rows[arm])} % {comment(arm)}\n% runs: {comment(ids[arm]) or 'none'}"


def _family(content: Content, arm: str) -> str:
    """The family of the arm, under a condition or not."""
    kinds = {planned["name"]: planned["kind"] for planned in content.plan["arms"]}
    kind = kinds.get(arm, "condition")
    return f"sweep {arm.partition('/')[0]}" if kind == "sweep" else {"variant": "variants"}.get(kind, kind.replace("_", " "))


def _fitted(rows: Sequence[Sequence[Parts]], most: int, beside: str) -> list[list[str]]:
    """The cells. The second part of a number is beside it, or below it if the lines would be too long."""
    widths = [max(len(re.sub(r"\\[a-z]+|[{}$]", "", "".join(parts))) for parts in column) for column in zip(*rows, strict=True)]
    pattern = beside if sum(widths) <= most else BELOW
    return [[pattern % parts if parts[1] else parts[0] for parts in row] for row in rows]


# --- values --------------------------------------------------------------------------------------------------------------------


def _comparison(content: Content, arms: pd.DataFrame, condition: str, marked: Mapping[str, str], notes: Sequence[str]) -> Table:
    """Mean and sd of every metric of the main table that has a number."""
    names = [name for name in columns(content) if arms[f"{name}_mean"].notna().any()]
    best = {name: best_arms(arms, name, content.metrics) for name in names}
    records = arms.to_dict("records")
    values = [[_value(content.metrics, row, name, is_best=row["arm"] in best[name]) for name in names] for row in records]
    rows = {}
    for row, cells in zip(records, _fitted(values, MOST_OF_VALUES, LOWERED), strict=True):
        count = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
        rows[row["arm"]] = [marked[row["arm"]], count, *cells]
    units = escaped(content.metrics.value_units(names or content.metrics.columns(COMPARISON)))
    numbers = "mean $\\pm$ standard deviation over $n$ seeds; the best mean of a column is bold."
    return Table(
        _about(condition, "comparison"),
        _titled(content, "Comparison", condition),
        capitalised(f"{units}, {numbers}" if units else numbers),
        f"@{{}}{WORDS % 0.165}r*{{{len(names)}}}{{r}}@{{}}",
        ["arm", "$n$", *(escaped(content.metrics.title(name)) for name in names)],
        list(_by_family(content, arms, rows)),
        notes,
    )


def _value(metrics: MetricTable, row: Mapping[Any, Any], name: str, *, is_best: bool) -> Parts:
    """The mean, bold if it is the best, and the sd; blank if no run is done."""
    if not row["n"]:
        return "", ""
    mean, _, sd = metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]).partition(" ± ")
    return f"\\textbf{{{mean}}}" if is_best else number(mean), f"\\pm{sd}" if sd else ""


def _published(content: Content) -> Iterator[Table]:
    """The reports' figures and ours, for the arms that have any."""
    arms, metrics, rows = content.frames.arms, content.metrics, []
    reports, name = reports_of(arms), metrics.published
    for row in arms.to_dict("records"):
        cells = [cell for report in reports for cell in published(metrics, row, report)]
        if any(cell != DASH for cell in cells):
            rows.append(_row([escaped(row["arm"]), *map(number, [metrics.value(name, row[f"{name}_mean"]), *cells])]))
    if rows:
        header = ["arm", "ours", *(cell for report in reports for cell in (escaped(report), "gap"))]
        widths = f"@{{}}{WORDS % 0.25}*{{{len(header) - 1}}}{{r}}@{{}}"
        unit = metrics.unit(name)
        measured = with_unit(escaped(capitalised(metrics.title(name))), escaped(unit.values), "{} in {}")
        gap = with_unit("ours minus theirs", escaped(unit.differences), "{}, in {}")
        caption = f"{measured}, ours and that of {listed([escaped(report) for report in reports])}; gap: {gap}."
        yield Table(["published"], _titled(content, "Published figures", ""), caption, widths, header, rows)


# --- differences -----------------------------------------------------------------------------------------------------------------


def _differences(content: Content, arms: pd.DataFrame, condition: str, marked: Mapping[str, str], notes: Sequence[str]) -> Table:
    """Each arm's difference to its parent and its baseline, and the verdict."""
    names, records = _names(arms, condition), arms.to_dict("records")
    pairs = [[_difference(content, row, content.pairs.get((row["arm"], role), {})) for role in ROLES] for row in records]
    rows = {}
    for row, cells in zip(records, _fitted(pairs, MOST_OF_DIFFERENCES, SMALLER), strict=True):
        parent = names.get(row["parent"], escaped(_without(condition, row["parent"])))
        rows[row["arm"]] = [marked[row["arm"]], parent, *cells, escaped(row["verdict_vs_parent"])]
    return Table(
        _about(condition, "differences"),
        _titled(content, "Differences", condition),
        _differences_caption(content),
        f"@{{}}{WORDS % 0.175}{WORDS % 0.14}rr{WORDS % 0.145}@{{}}",
        ["arm", "parent", "vs parent", "vs baseline", "verdict"],
        list(_by_family(content, arms, rows)),
        notes,
    )


def _differences_caption(content: Content) -> str:
    metrics, name = content.metrics, content.name
    lower = " Lower is better: below zero is a gain." if metrics.is_lower_better(name) else ""
    margin, unit = metrics.margin(name), escaped(metrics.unit(name).differences)
    as_much = f"that many {unit}" if unit else "that much"
    equal = "." if margin is None else f"; \\emph{{no difference beyond {margin:g}}}: two one-sided tests against {as_much}."
    return (
        f"{_paired(content)}, with 95\\,\\% $t$ intervals, not adjusted.{lower} "
        "Verdict: of the difference to the parent, by the paired $t$ test and the exact sign-flip test, both at 0.05 after Holm's "
        f"correction within the family of comparisons; \\emph{{t only}}: the sign-flip test does not confirm it{equal}"
    )


def _paired(content: Content) -> str:
    unit = capitalised(escaped(content.metrics.unit(content.name).differences))
    return f"{unit or 'Differences'} of {escaped(content.metrics.title(content.name))}, paired by seed"


def _difference(content: Content, row: Mapping[Any, Any], pair: Mapping[Any, Any]) -> Parts:
    """The difference, with the number of pairs if some are missing, and its interval; blank if no run is done."""
    if not row["n"]:
        return "", ""
    mean, bounds = _parts(content, pair)
    few = f"\\textsuperscript{{{pair['pairs']}/{row['planned']}}}" if pair and 0 < pair["pairs"] < row["planned"] else ""
    return mean + few, bounds


def _parts(content: Content, pair: Mapping[Any, Any]) -> Parts:
    """A difference and its interval; a dash if there is no pair."""
    if not pair:
        return "--", ""
    mean, _, bounds = content.difference(pair).partition(" ")
    return number(mean), bounds


# --- what each rung is worth -----------------------------------------------------------------------------------------------------


def _attribution(content: Content) -> Iterator[Table]:
    """One table per condition with the effect of each rung in every way, if there are more than the ladder."""
    rows = of_metric(content.frames.attribution, content.name)
    rows = rows[rows["arm"].isin(content.shown)]
    for condition in dict.fromkeys(rows[rows["way"] != "ladder"]["condition"]):
        of_condition = rows[rows["condition"] == condition]
        ways = [way for way in WAYS if way in set(of_condition["way"])]
        yield Table(
            _about(condition, "attribution"),
            _titled(content, "Attribution", condition),
            f"What each rung is worth. {_paired(content)}, with 95\\,\\% $t$ intervals. Ladder: over the rung above it; "
            "first in: alone over the first rung; last out: what is lost without it; Shapley: the mean over all orders.",
            f"@{{}}{WORDS % 0.2}*{{{len(ways)}}}{{r}}@{{}}",
            ["rung", *map(escaped, ways)],
            [_rung(content, str(rung), of_rung, ways) for rung, of_rung in of_condition.groupby("rung", sort=False)],
        )


def _rung(content: Content, rung: str, rows: pd.DataFrame, ways: Sequence[str]) -> str:
    """The differences with their intervals below them, so that four ways fit in a row."""
    by_way: dict[str, Mapping[Any, Any]] = {row["way"]: row for row in rows.to_dict("records")}
    parts = [_parts(content, by_way.get(way, {})) for way in ways]
    return _row([escaped(rung), *_fitted([parts], 0, BELOW)[0]])
