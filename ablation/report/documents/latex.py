r"""The report for a paper: LaTeX tables, and a command for every number, in one file to \input."""

import html
import math
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from ablation.formatting import DASH, p_value
from ablation.report.documents.latex_tables import OVER, PREFIX, tables
from ablation.report.documents.latex_text import camel, comment, signed, unique
from ablation.report.documents.markdown import as_html
from ablation.report.metrics import MetricTable, with_unit
from ablation.report.sections.common import ROLES
from ablation.report.sections.comparison import published, reports_of
from ablation.report.sections.content import Content
from ablation.report.sections.details import provenance

PACKAGES = "array,booktabs,longtable"
USE = rf"\documentclass{{article}}\usepackage{{{PACKAGES}}}\begin{{document}}\input{{report.tex}}\end{{document}}"


def document(content: Content) -> str:
    """The whole file: its needs, the provenance of its numbers, a command per number, and one per table."""
    all_tables = list(tables(content))
    names = unique(f"{PREFIX}Table{camel(' '.join(table.about))}" for table in all_tables)
    labels = unique(re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([content.study, *table.about])) for table in all_tables)
    parts = [_header(content), "\n\n".join(_numbers(content)), OVER]
    parts += [
        f"\\newcommand{{\\{name}}}{{%\n{table.typeset(label)}}}" for name, label, table in zip(names, labels, all_tables, strict=True)
    ]
    parts.append("\n".join([f"\\newcommand{{\\{PREFIX}Tables}}{{%", *(f"\\{name}" for name in names), "}"]))
    parts.append(f"\\expandafter\\ifx\\csname @nodocument\\endcsname\\relax\\{PREFIX}Tables\\fi % in the preamble it prints nothing")
    return "\n\n".join(parts) + "\n"


def _header(content: Content) -> str:
    metrics, name = content.metrics, content.name
    unit = with_unit("", comment(metrics.unit(name).differences), "{} ({})")
    lines = [
        *(f"note: {comment(note)}" for note in content.options.notes),
        f"needs \\usepackage{{{PACKAGES}}}; letters that pdflatex lacks need lualatex or xelatex",
        f"compile with (twice): pdflatex -jobname=tables '{USE}'",
        f"In the body, \\input prints all tables; in the preamble it prints none: \\{PREFIX}Tables, or one of \\{PREFIX}Table..., does.",
        "longtable needs one column: in a text of two, \\onecolumn before the tables and \\twocolumn after them.",
        f"Numbers: \\{PREFIX} ARM METRIC, followed by nothing ({_mean_words(metrics)}), Sd or N (runs);",
        f"of {comment(metrics.title(name))} also VsParent and VsBaseline{unit}, followed by nothing, Low, High",
        "(95 % t interval), P (paired t test) or PHolm (after Holm's correction). A number that does not exist has no command.",
    ]
    source = [line.removeprefix("- ") for section in provenance(content) for line in section.body.splitlines() if line]
    remarks = [f"provenance: {comment(html.unescape(as_html(line)))}" for line in source]
    return "\n".join(f"% {line}" for line in [*lines, *remarks])


def _mean_words(metrics: MetricTable) -> str:
    """`mean in percent, NLL in nats`."""
    words = {metrics.title(name): metrics.unit(name).values for name in metrics.names}
    usual = next(iter(words.values()))
    others = [f"{title} in {word}" for title, word in words.items() if word != usual and word]
    return comment(", ".join([f"mean in {usual}" if usual else "mean", *others]))


def _numbers(content: Content) -> Iterator[str]:
    """Per arm, the definitions of its numbers. Names do not depend on which arms are shown."""
    arms = [arm["name"] for arm in content.plan["arms"]]
    prefixes = dict(zip(arms, unique(camel(arm) or "Arm" for arm in arms), strict=True))
    rows = content.frames.arms.to_dict("records")
    numbers = [(row["arm"], prefixes[row["arm"]] + end, number) for row in rows for end, number in _numbers_of(content, row)]
    names = unique(f"{PREFIX}{name}" for _, name, _ in numbers)
    lines = [(arm, f"\\newcommand{{\\{name}}}{{{signed(number)}}}") for name, (arm, _, number) in zip(names, numbers, strict=True)]
    for arm, of_arm in groupby(lines, key=lambda line: line[0]):
        yield "\n".join([f"% {comment(arm)}", *(line for _, line in of_arm)])


def _numbers_of(content: Content, row: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """The end of each command's name and the printed number, for all numbers that exist."""
    metrics = content.metrics
    for name in dict.fromkeys([*metrics.names, content.name]):
        parts = {"": row[f"{name}_mean"], "Sd": row[f"{name}_sd"]}
        printed = {end: metrics.value(name, number) for end, number in parts.items() if math.isfinite(number)}
        yield from ((camel(name) + end, number) for end, number in printed.items())
        if printed:
            yield f"{camel(name)}N", str(row["n"])
    for role in ROLES:
        pair = content.pairs.get((row["arm"], role), {"pairs": 0})
        yield from ((f"{camel(content.name)}Vs{role.title()}{end}", number) for end, number in _differing(content, pair))
    for report in reports_of(content.frames.arms):
        printed = dict(zip(("Published", "Gap"), published(metrics, row, report), strict=True))
        yield from ((f"{what}{camel(report)}", number) for what, number in printed.items() if number != DASH)


def _differing(content: Content, pair: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    if pair["pairs"]:
        ends = {"": pair["mean"], "Low": pair["low"], "High": pair["high"]}
        printed = {end: content.metrics.difference(content.name, number) for end, number in ends.items()}
        printed |= {"P": p_value(pair["p_t"]), "PHolm": p_value(pair["p_t_holm"])}
        yield from ((end, number) for end, number in printed.items() if number != DASH)
