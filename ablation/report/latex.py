r"""The report for a paper: LaTeX tables, and a command for every number, in one file to \input."""

import html
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pandas as pd

from ablation.report import attribution, metrics
from ablation.report.markdown import as_html
from ablation.report.metrics import HEADLINE, short_name, title
from ablation.report.sections.claims import near_chance
from ablation.report.sections.common import ROLES, of_metric
from ablation.report.sections.comparison import LABELS, best_arms, reports_of
from ablation.report.sections.content import Content
from ablation.report.sections.details import provenance
from ablation.report.tables import METRICS
from ablation.report.words import DASH, change, interval, listed, p_value, percent

PACKAGES = "array,booktabs,longtable"
USE = rf"\documentclass{{article}}\usepackage{{{PACKAGES}}}\begin{{document}}\input{{report.tex}}\end{{document}}"
PREFIX = "Ablate"
Parts = tuple[str, str]  # a number, and its sd or interval, which may be nothing
OVER = rf"\newcommand{{\{PREFIX}Over}}[2]{{\begin{{tabular}}[t]{{@{{}}r@{{}}}}#1\\{{\scriptsize$#2$}}\end{{tabular}}}}"
# a number and what belongs to it: lowered, smaller, or below
LOWERED, SMALLER, BELOW = "%s$_{%s}$", r"%s\,{\scriptsize$%s$}", rf"\{PREFIX}Over{{%s}}{{%s}}"
# letters of numbers in a row for which the narrowest usual page, an article's, has room
MOST_OF_VALUES, MOST_OF_DIFFERENCES = 54, 44
# `[` and `*` would be arguments of the `\\` before them; `"` is a command where babel says so
SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#{}"},
    "_": r"\_\allowbreak{}",
    "/": r"/\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\symbol{34}",
    **{letter: f"{{{letter}}}" for letter in "[]*"},
}
SIGNS = {"+": "$+$", "-": "$-$", DASH: "--"}
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
ORDINALS = ("", "", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")
WORDS = ">{\\raggedright\\arraybackslash}p{%s\\linewidth}"  # a column of words that break into lines


@dataclass(frozen=True)
class Table:
    """A table that may run over pages; all of it is LaTeX but `about`, the plain words of which its names are made."""

    about: Sequence[str]
    title: str
    caption: str
    columns: str
    header: Sequence[str]
    rows: Sequence[str]
    notes: Sequence[str] = field(default=())


def document(content: Content) -> str:
    """The whole file: what it needs, where its numbers come from, a command for every number, and one for every table."""
    tables = list(_tables(content))
    names = unique(f"{PREFIX}Table{camel(' '.join(table.about))}" for table in tables)
    parts = [_header(content), "\n\n".join(_numbers(content)), OVER]
    labels = unique(re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([content.study, *table.about])) for table in tables)
    parts += [f"\\newcommand{{\\{name}}}{{%\n{_typeset(table, label)}}}" for name, label, table in zip(names, labels, tables, strict=True)]
    parts.append("\n".join([f"\\newcommand{{\\{PREFIX}Tables}}{{%", *(f"\\{name}" for name in names), "}"]))
    parts.append(f"\\expandafter\\ifx\\csname @nodocument\\endcsname\\relax\\{PREFIX}Tables\\fi % in the preamble it prints nothing")
    return "\n\n".join(parts) + "\n"


def _header(content: Content) -> str:
    unit = metrics.unit(content.name)
    lines = [
        f"needs \\usepackage{{{PACKAGES}}}; letters that pdflatex lacks need lualatex or xelatex",
        f"compile with (twice): pdflatex -jobname=tables '{USE}'",
        f"In the body, \\input prints all tables; in the preamble it prints none: \\{PREFIX}Tables, or one of \\{PREFIX}Table..., does.",
        "longtable needs one column: in a text of two, \\onecolumn before the tables and \\twocolumn after them.",
        f"Numbers: \\{PREFIX} ARM METRIC, followed by nothing (mean in percent, NLL in nats), Sd or N (runs);",
        f"of {comment(title(content.name))} also VsParent and VsBaseline ({unit.differences}), followed by nothing, Low, High",
        "(95 % t interval), P (paired t test) or PHolm (after Holm's correction). A number that does not exist has no command.",
    ]
    source = [line.removeprefix("- ") for line in provenance(content).body.splitlines() if line]
    told = [f"provenance: {comment(html.unescape(as_html(line)))}" for line in source]
    return "\n".join(f"% {line}" for line in [*lines, *told])


def comment(text: object) -> str:
    """The text on one line, for a comment."""
    return " ".join(_printable(str(text)).split())


def escaped(text: object) -> str:
    """The text on one line, with nothing in it that LaTeX would take for its own; long names may break after `/` and `_`."""
    line = "".join(SPECIAL.get(letter, letter) for letter in comment(text))
    return re.sub(r"-(?=-)", "-{}", line)  # no dash out of two hyphens


def _printable(text: str) -> str:
    """The text without control characters, which TeX refuses; those that are white space stay."""
    return "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter) != "Cc")


def camel(text: str) -> str:
    """The text as part of a command's name, of ASCII letters only: `epsilon/0.05` is EpsilonZeroPointZeroFive."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    spelt = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", re.sub(r"(?<=\d)\.(?=\d)", " Point ", plain))
    return "".join(word[0].upper() + word[1:] for word in re.findall("[A-Za-z]+", spelt))


def unique(names: Iterable[str]) -> list[str]:
    """The names, those that came before followed by Second, Third and so on."""
    found: dict[str, None] = {}
    for name in names:
        tried, count = name, 1
        while tried in found:
            count += 1
            tried = name + (ORDINALS[count] if count < len(ORDINALS) else f"Number{camel(str(count))}")
        found[tried] = None
    return list(found)


def _numbers(content: Content) -> Iterator[str]:
    """Per arm, the definitions of its numbers; arms that are not shown keep their names to themselves."""
    arms = [arm["name"] for arm in content.plan["arms"]]
    prefixes = dict(zip(arms, unique(camel(arm) or "Arm" for arm in arms), strict=True))
    rows = content.frames.arms.to_dict("records")
    numbers = [(row["arm"], prefixes[row["arm"]] + end, told) for row in rows for end, told in _numbers_of(content, row)]
    names = unique(f"{PREFIX}{name}" for _, name, _ in numbers)
    lines = [(arm, f"\\newcommand{{\\{name}}}{{{_signed(told)}}}") for name, (arm, _, told) in zip(names, numbers, strict=True)]
    for arm, own in groupby(lines, key=lambda line: line[0]):
        yield "\n".join([f"% {comment(arm)}", *(line for _, line in own)])


def _numbers_of(content: Content, row: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """The end of each command's name, and the number as it is printed, of those that exist."""
    for name in dict.fromkeys([*map(short_name, METRICS), content.name]):
        parts = {"": row[f"{name}_mean"], "Sd": row[f"{name}_sd"]}
        told = {end: metrics.value(name, number) for end, number in parts.items() if math.isfinite(number)}
        yield from ((camel(name) + end, number) for end, number in told.items())
        if told:
            yield f"{camel(name)}N", str(row["n"])
    for role in ROLES:
        pair = content.pairs.get((row["arm"], role), {"pairs": 0})
        yield from ((f"{camel(content.name)}Vs{role.title()}{end}", told) for end, told in _differing(content.name, pair))
    for report in reports_of(content.frames.arms):
        told = {"Published": percent(row[f"published/{report}"]), "Gap": change(row[f"gap/{report}_points"])}
        yield from ((f"{what}{camel(report)}", number) for what, number in told.items() if number != DASH)


def _differing(name: str, pair: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    if pair["pairs"]:
        ends = {"": pair["mean"], "Low": pair["low"], "High": pair["high"]}
        told = {end: metrics.difference(name, number) for end, number in ends.items()}
        told |= {"P": p_value(pair["p_t"]), "PHolm": p_value(pair["p_t_holm"])}
        yield from ((end, number) for end, number in told.items() if number != DASH)


def _signed(number: str) -> str:
    """The number with a sign that is right both in a text and in a formula."""
    return re.sub("^[-+<]", lambda sign: f"\\ensuremath{{{sign[0]}}}", number)


def _tables(content: Content) -> Iterator[Table]:
    arms, marks = content.frames.arms, _marks(content)
    for condition in dict.fromkeys(arms["condition"]):
        own = arms[arms["condition"] == condition]
        names = _told(own, condition)
        told = {arm: name + _superscript(marks[arm]) for arm, name in names.items()}
        legend = _legend(marks[arm] for arm in told)
        yield _comparison(content, own, condition, told, [*legend, *_notes(own, names)])
        yield _differences(content, own, condition, told, [*legend, *_short_of_pairs(own)])
    yield from _published(content)
    yield from _attribution(content)


def _told(arms: pd.DataFrame, condition: str) -> dict[str, str]:
    """arm -> what it is called in a condition's tables: its label where it has one of its own."""
    plain = {arm: _without(condition, arm) for arm in arms["arm"]}
    words = {arm: label or plain[arm] for arm, label in zip(arms["arm"], arms["label"], strict=True)}
    counts = Counter([*words.values(), *(name for arm, name in plain.items() if words[arm] != name)])
    return {arm: escaped(word if counts[word] == 1 else plain[arm]) for arm, word in words.items()}


def _without(condition: str, arm: str) -> str:
    return arm.removeprefix(f"{condition}/") if condition else arm


def _comparison(content: Content, arms: pd.DataFrame, condition: str, told: Mapping[str, str], notes: Sequence[str]) -> Table:
    """Every metric that has a number, mean and sd."""
    names = [name for name in dict.fromkeys(map(short_name, (*HEADLINE, content.metric))) if arms[f"{name}_mean"].notna().any()]
    best = {name: best_arms(arms, name) for name in names}
    values = [[_value(row, name, is_best=row["arm"] in best[name]) for name in names] for row in arms.to_dict("records")]
    rows = {}
    for row, own in zip(arms.to_dict("records"), _fitted(values, MOST_OF_VALUES, LOWERED), strict=True):
        count = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"
        rows[row["arm"]] = [told[row["arm"]], count, *own]
    nats = f" ({title('nll')}: nats)" if "nll" in names else ""
    caption = f"Percent{nats}, mean $\\pm$ standard deviation over $n$ seeds; the best mean of a column is bold."
    return Table(
        _about(condition, "comparison"),
        _titled(content, "Comparison", condition),
        caption,
        f"@{{}}{WORDS % 0.165}r*{{{len(names)}}}{{r}}@{{}}",
        ["arm", "$n$", *(escaped(title(name)) for name in names)],
        list(_by_family(content, arms, rows)),
        notes,
    )


def _about(condition: str, what: str) -> list[str]:
    return [condition, what] if condition else [what]


def _titled(content: Content, what: str, condition: str) -> str:
    return f"{what} ({escaped(content.study)}{f', under {escaped(condition)}' if condition else ''})."


def _value(row: Mapping[Any, Any], name: str, *, is_best: bool) -> Parts:
    """The mean, bold where it is the best, and the sd; blank where no run is done."""
    if not row["n"]:
        return "", ""
    mean, _, sd = metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]).partition(" ± ")
    return f"\\textbf{{{mean}}}" if is_best else _number(mean), f"\\pm{sd}" if sd else ""


def _fitted(rows: Sequence[Sequence[Parts]], most: int, beside: str) -> list[list[str]]:
    """The cells, where a number has beside it what belongs to it, or below it if a line has no room for so many letters."""
    widths = [max(len(re.sub(r"\\[a-z]+|[{}$]", "", "".join(parts))) for parts in column) for column in zip(*rows, strict=True)]
    pattern = beside if sum(widths) <= most else BELOW
    return [[pattern % parts if parts[1] else parts[0] for parts in row] for row in rows]


def _number(text: str) -> str:
    return "".join(SIGNS.get(letter, letter) for letter in text)


def _marks(content: Content) -> dict[str, list[str]]:
    """arm -> its labels, and whether it is near chance."""
    near = near_chance(content)
    return {name: [*arm["labels"], *(["near chance"] if name in near else [])] for name, arm in content.planned.items()}


def _superscript(labels: Sequence[str]) -> str:
    """The labels' marks, raised."""
    marks = ",".join(LABELS[label][0] if label in LABELS else escaped(label) for label in labels)
    return f"\\textsuperscript{{{marks}}}" if marks else ""


def _legend(labels: Iterable[Sequence[str]]) -> list[str]:
    """What each mark means."""
    used = dict.fromkeys(label for own in labels for label in own if label in LABELS)
    return [f"{_superscript([label])}\\,{escaped(label)}: {LABELS[label][1]}." for label in used]


def _notes(arms: pd.DataFrame, told: Mapping[str, str]) -> Iterator[str]:
    """What else there is to say of single arms."""
    if (arms["n"] < arms["planned"]).any():
        yield "$n$ of $1/2$: not every planned run is done; such arms are never the best."
    for row in arms.to_dict("records"):
        same = f"the same training as {told.get(row['same_as'], escaped(row['same_as']))}" if row["same_as"] else ""
        chosen = f"chosen: {escaped(row['chosen'])}" if row["chosen"] else ""
        yield from (f"{told[row['arm']]}: {words.rstrip('.')}." for words in (escaped(row["note"]), same, chosen) if words)


def _short_of_pairs(arms: pd.DataFrame) -> list[str]:
    return ["Raised after a difference: the pairs of seeds, where some are missing."] if (arms["n"] < arms["planned"]).any() else []


def _by_family(content: Content, arms: pd.DataFrame, rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The rows with the ids of their runs, a rule and a heading between families; in an order of one's own there are none."""
    ids = dict(zip(arms["arm"], arms["runs"], strict=True))
    conditions = dict(zip(arms["arm"], arms["condition"], strict=True))
    families = {arm: "" if content.options.sort else _family(content, _without(conditions[arm], arm)) for arm in rows}
    are_several = len(set(families.values())) > 1
    width = len(next(iter(rows.values())))
    for place, (family, own) in enumerate(groupby(rows, key=families.__getitem__)):
        if are_several:
            yield ("\\midrule\n" if place else "") + f"\\multicolumn{{{width}}}{{@{{}}l@{{}}}}{{\\textit{{{escaped(family)}}}}} \\\\*"
        for arm in own:
            yield f"{_row(rows[arm])} % {comment(arm)}\n% runs: {comment(ids[arm]) or 'none'}"


def _family(content: Content, arm: str) -> str:
    """What the arm is read together with, be it under a condition or not."""
    kinds = {planned["name"]: planned["kind"] for planned in content.plan["arms"]}
    kind = kinds.get(arm, "condition")
    return f"sweep {arm.partition('/')[0]}" if kind == "sweep" else {"variant": "variants"}.get(kind, kind.replace("_", " "))


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _differences(content: Content, arms: pd.DataFrame, condition: str, told: Mapping[str, str], notes: Sequence[str]) -> Table:
    """What each arm gains over its parent and its baseline, and what may be said of it."""
    name, names = content.name, _told(arms, condition)
    records = arms.to_dict("records")
    pairs = [[_difference(name, row, content.pairs.get((row["arm"], role), {})) for role in ROLES] for row in records]
    rows = {}
    for row, cells in zip(records, _fitted(pairs, MOST_OF_DIFFERENCES, SMALLER), strict=True):
        parent = names.get(row["parent"], escaped(_without(condition, row["parent"])))
        rows[row["arm"]] = [told[row["arm"]], parent, *cells, escaped(row["verdict_vs_parent"])]
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
    name = content.name
    lower = " Lower is better: below zero is a gain." if metrics.is_lower_better(name) else ""
    margin = f"\\emph{{no difference beyond {content.margin:g}}}: two one-sided tests against that many points."
    equal = f"; {margin}" if metrics.unit(name) is metrics.FRACTION else "."
    return (
        f"{_paired(name)}, with 95\\,\\% $t$ intervals, not adjusted.{lower} "
        "Verdict: of the difference to the parent, by the paired $t$ test and the exact sign-flip test, both at 0.05 after Holm's "
        f"correction within the family of comparisons; \\emph{{t only}}: the sign-flip test does not confirm it{equal}"
    )


def _paired(name: str) -> str:
    unit = metrics.unit(name)
    return f"{unit.differences.capitalize()} of {escaped(title(name))}, paired by seed"


def _difference(name: str, row: Mapping[Any, Any], pair: Mapping[Any, Any]) -> Parts:
    """The difference, with the number of pairs where some are missing, and its interval; blank where no run is done."""
    if not row["n"]:
        return "", ""
    mean, bounds = _parts(name, pair)
    few = f"\\textsuperscript{{{pair['pairs']}/{row['planned']}}}" if pair and 0 < pair["pairs"] < row["planned"] else ""
    return mean + few, bounds


def _parts(name: str, pair: Mapping[Any, Any]) -> Parts:
    """A difference and its interval; a dash where there is no pair."""
    if not pair or not pair["pairs"]:
        return "--", ""
    told = interval(pair["mean"], pair["low"], pair["high"], metrics.unit(name).decimals)
    mean, _, bounds = told.partition(" ")
    return _number(mean), bounds


def _published(content: Content) -> Iterator[Table]:
    """The reports' figures beside ours, for the arms that have any."""
    arms, rows = content.frames.arms, []
    reports = reports_of(arms)
    for row in arms.to_dict("records"):
        cells = [cell for report in reports for cell in (percent(row[f"published/{report}"]), change(row[f"gap/{report}_points"]))]
        if any(cell != DASH for cell in cells):
            rows.append(_row([escaped(row["arm"]), *map(_number, [percent(row["accuracy_mean"]), *cells])]))
    if rows:
        header = ["arm", "ours", *(cell for report in reports for cell in (escaped(report), "gap"))]
        columns = f"@{{}}{WORDS % 0.25}*{{{len(header) - 1}}}{{r}}@{{}}"
        caption = (
            f"Accuracy in percent, ours and that of {listed([escaped(report) for report in reports])}; gap: ours minus theirs, in points."
        )
        yield Table(["published"], _titled(content, "Published figures", ""), caption, columns, header, rows)


def _attribution(content: Content) -> Iterator[Table]:
    """A table per condition: what each rung is worth in every way that was run, if more than the ladder's was."""
    rows = of_metric(content.frames.attribution, content.name)
    rows = rows[rows["arm"].isin(content.shown)]
    for condition in dict.fromkeys(rows[rows["way"] != "ladder"]["condition"]):
        own = rows[rows["condition"] == condition]
        ways = [way for way in attribution.WAYS if way in set(own["way"])]
        yield Table(
            _about(condition, "attribution"),
            _titled(content, "Attribution", condition),
            f"What each rung is worth. {_paired(content.name)}, with 95\\,\\% $t$ intervals. Ladder: over the rung above it; "
            "first in: alone over the first rung; last out: what is lost without it; Shapley: the mean over all orders.",
            f"@{{}}{WORDS % 0.2}*{{{len(ways)}}}{{r}}@{{}}",
            ["rung", *map(escaped, ways)],
            [_rung(content.name, str(rung), found, ways) for rung, found in own.groupby("rung", sort=False)],
        )


def _rung(name: str, rung: str, rows: pd.DataFrame, ways: Sequence[str]) -> str:
    """The differences with their intervals below, so that four ways fit beside each other."""
    by_way: dict[str, Mapping[Any, Any]] = {row["way"]: row for row in rows.to_dict("records")}
    parts = [_parts(name, by_way.get(way, {})) for way in ways]
    return _row([escaped(rung), *_fitted([parts], 0, BELOW)[0]])


def _typeset(table: Table, label: str) -> str:
    """The table as a longtable, its head on every page, and its notes below."""
    head = f"\\toprule\n{_row(table.header)}\n\\midrule"
    notes = [f"\\noindent{{\\scriptsize\\raggedright {' '.join(table.notes)}\\par}}"] if table.notes else []
    return "\n".join(
        [
            "\\begingroup\\footnotesize\\setlength{\\tabcolsep}{2pt}\\setlength{\\LTcapwidth}{\\linewidth}",
            f"\\begin{{longtable}}{{{table.columns}}}",
            f"\\caption[{{{table.title}}}]{{{table.title} {table.caption}}}\\label{{tab:{label}}}\\\\",
            f"{head}\n\\endfirsthead\n{head}\n\\endhead\n\\bottomrule\n\\endfoot",
            *table.rows,
            "\\end{longtable}",
            *notes,
            "\\endgroup",
        ]
    )
