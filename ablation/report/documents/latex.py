r"""The report for a paper: LaTeX tables, and a command for every number, in a file or two to \input."""

import html
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from typing import Any

from ablation.formatting import DASH, p_value
from ablation.report.documents.latex_layout import OVER, floats
from ablation.report.documents.latex_matrix import YES
from ablation.report.documents.latex_tables import tables
from ablation.report.documents.latex_text import LETTER, PREFIX, camel, comment, signed, unique
from ablation.report.documents.markdown import as_html
from ablation.report.metrics import MetricTable, with_unit
from ablation.report.sections.common import ROLES
from ablation.report.sections.comparison import published, reports_of
from ablation.report.sections.content import Content
from ablation.report.sections.details import provenance

PACKAGES = "array,booktabs,graphicx"
USE = rf"\documentclass{{article}}\usepackage{{{PACKAGES}}}\begin{{document}}\input{{%s}}\end{{document}}"
TABLES, NUMBERS = "tables", "numbers"
FILES = {"report.tex": TABLES, "numbers.tex": NUMBERS}  # what each file has, where they are written into a folder
MOST_FLOATS = 10  # that wait for a page; LaTeX gives up at a few dozen


def document(content: Content) -> str:
    """The text: the tables, a command for each number, or both, as the content's options say; with provenance and how to use it."""
    part = content.options.part
    heads, bodies = [], []
    if part != NUMBERS:
        heads.append(_about_tables(part))
        bodies += [LETTER, YES, OVER, *_tables(content)]
    if part != TABLES:
        heads.append(_about_numbers(content, part))
        bodies.append("\n\n".join(_numbers(content)))
    own = [comment(content.own.text)] if content.own else []
    notes = [*own, *(f"note: {comment(note)}" for note in content.notes)]
    return "\n\n".join(["\n".join(f"% {line}" for line in [*notes, *chain(*heads), *_provenance(content)]), *bodies]) + "\n"


def _tables(content: Content) -> Iterator[str]:
    """A command per float, one for all of them, and their use in the body of a paper."""
    parts = [part for table in tables(content) for part in floats(table)]
    names = unique(f"{PREFIX}Table{camel(' '.join(part.table.about))}" for part in parts)
    labels = unique(re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([content.study, *part.table.about])) for part in parts)
    for name, label, part in zip(names, labels, parts, strict=True):
        yield f"\\newcommand{{\\{name}}}{{%\n{part.typeset(label)}\n}}"
    groups = [names[start : start + MOST_FLOATS] for start in range(0, len(names), MOST_FLOATS)]
    lines = ["".join(f"\\{name}" for name in group) + ("\\clearpage" if group is not groups[-1] else "") for group in groups]
    yield "\n".join([f"\\newcommand{{\\{PREFIX}Tables}}{{%", *(f"{line}%" for line in lines), "}"])
    yield f"\\expandafter\\ifx\\csname @nodocument\\endcsname\\relax\\{PREFIX}Tables\\fi % in the preamble it prints nothing"


def _about_tables(part: str) -> list[str]:
    """What the tables need, and how to place them."""
    return [
        f"needs \\usepackage{{{PACKAGES}}}; with amssymb, marks are its check marks",
        f"compile with (twice): pdflatex -jobname=tables '{USE % 'report.tex'}'",
        f"In the body, \\input prints all tables; in the preamble it prints none: \\{PREFIX}Tables, or one of \\{PREFIX}Table..., does.",
        "They fit an article of one column and of two. A letter that this LaTeX cannot print is printed as its code point (U+5C64).",
        *(["The numbers are in numbers.tex."] if part else []),
    ]


def _about_numbers(content: Content, part: str) -> list[str]:
    """How the commands of numbers are called."""
    metrics, name = content.metrics, content.name
    unit = with_unit("", comment(metrics.unit(name).differences), "{} ({})")
    return [
        *([f"A command for each number: \\input{{numbers}} in the preamble, then \\{PREFIX}... in the text."] if part else []),
        f"Numbers: \\{PREFIX} ARM METRIC, followed by nothing ({_mean_words(metrics)}), Sd or N (runs);",
        f"of {comment(metrics.words(name))} also VsParent and VsBaseline{unit}, followed by nothing, Low, High",
        "(95 % t interval), P (paired t test) or PHolm (after Holm's correction). A number that does not exist has no command.",
    ]


def _provenance(content: Content) -> list[str]:
    source = [line.removeprefix("- ") for section in provenance(content) for line in section.body.splitlines() if line]
    return [f"provenance: {comment(html.unescape(as_html(line)))}" for line in source]


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
            yield f"{camel(name)}N", str(len(content.values(name)[row["arm"]]))
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
