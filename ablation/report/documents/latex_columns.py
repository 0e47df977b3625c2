"""The columns of the LaTeX tables, as `--columns` names them: what each shows of an arm."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.errors import unknown_name
from ablation.formatting import DASH
from ablation.report.documents.latex_layout import Column, Parts
from ablation.report.documents.latex_text import escaped, number
from ablation.report.metrics import short_name
from ablation.report.sections.comparison import published, reports_of
from ablation.report.sections.content import Content

Records = Sequence[Mapping[Any, Any]]
OF_ARMS = ("arm", "change", "n", "parent", "baseline", "verdict", "published")  # the columns that are no metrics


def chosen(content: Content) -> list[str]:
    """The columns that `--columns` names, or those of a usual table; the arm is always first. Raises ConfigError for an unknown one."""
    known = list(dict.fromkeys([*OF_ARMS, *content.metrics.names, content.name]))
    names = [short_name(name.strip()) for name in content.options.columns or ("arm", content.name, "parent", "baseline", "verdict")]
    for name in names:
        if name not in known:
            raise unknown_name("--columns", "column", name, known)
    return list(dict.fromkeys(["arm", *names]))


def columns(content: Content, arms: pd.DataFrame, names: Mapping[str, str], shown: Sequence[str]) -> list[Column]:
    """The columns with a cell for each of these arms; `names` has the arms' names in LaTeX. A metric without any number has none."""
    records = arms.to_dict("records")
    makers: dict[str, Callable[[], list[Column]]] = {
        "arm": lambda: [Column("arm", [(names[row["arm"]], "") for row in records], is_words=True)],
        "change": lambda: [Column("change", [(escaped(row["change"]), "") for row in records], is_words=True)],
        "n": lambda: [Column("$n$", [(_count(row), "") for row in records])],
        "parent": lambda: [Column("vs parent", [_difference(content, row, "parent") for row in records])],
        "baseline": lambda: [Column("vs baseline", [_difference(content, row, "baseline") for row in records])],
        "verdict": lambda: [Column("verdict", [(escaped(row["verdict_vs_parent"]), "") for row in records], is_words=True)],
        "published": lambda: _published(content, arms, records),
    }
    return [column for name in shown for column in (makers[name]() if name in makers else _metric(content, arms, name, shown))]


def parts(content: Content, pair: Mapping[Any, Any]) -> Parts:
    """A difference and its interval; a dash if there is no pair."""
    if not pair:
        return "--", ""
    mean, _, bounds = content.difference(pair).partition(" ")
    return number(mean), bounds


def _metric(content: Content, arms: pd.DataFrame, name: str, shown: Sequence[str]) -> list[Column]:
    if not arms[f"{name}_mean"].notna().any() and name != content.name:
        return []
    best, values = content.best_arms(arms["arm"], name), content.values(name)
    counts = [min(int(row["n"]), len(values[row["arm"]])) for row in arms.to_dict("records")]
    cells = [
        _value(content, row, name, n, is_best=row["arm"] in best, is_counted="n" in shown and n == row["n"])
        for row, n in zip(arms.to_dict("records"), counts, strict=True)
    ]
    return [Column(escaped(content.metrics.title(name)), cells)]


def _value(content: Content, row: Mapping[Any, Any], name: str, n: int, *, is_best: bool, is_counted: bool) -> Parts:
    """The mean over n runs, bold if it is the best, and the sd; with the number of runs if others have more and no column says so."""
    few = "" if is_counted or n == content.most_planned else _raised(f"{n}/{content.most_planned}")
    if not row["n"]:
        return few, ""
    mean, _, sd = content.metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]).partition(" ± ")
    return (f"\\textbf{{{mean}}}" if is_best else number(mean)) + few, f"\\pm{sd}" if sd else ""


def _difference(content: Content, row: Mapping[Any, Any], role: str) -> Parts:
    """The difference, with the number of pairs if others have more, and its interval; blank if no run is done."""
    pair = content.pairs.get((row["arm"], role), {}) if row[role] else {}
    if not row["n"]:
        return "", ""
    mean, bounds = parts(content, pair)
    few = _raised(f"{pair['pairs']}/{content.most_planned}") if pair and 0 < pair["pairs"] < content.most_planned else ""
    return mean + few, bounds


def _published(content: Content, arms: pd.DataFrame, records: Records) -> list[Column]:
    """The figures of each report, and the gaps."""
    pairs = [(report, [published(content.metrics, row, report) for row in records]) for report in reports_of(arms)]
    return [
        Column(head, [("--" if pair[place] == DASH else number(pair[place]), "") for pair in of_arms])
        for report, of_arms in pairs
        for place, head in enumerate((escaped(report), "gap"))
    ]


def _count(row: Mapping[Any, Any]) -> str:
    return str(row["n"]) if row["n"] == row["planned"] else f"{row['n']}/{row['planned']}"


def _raised(text: str) -> str:
    return f"\\textsuperscript{{{text}}}"
