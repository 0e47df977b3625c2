"""The tables of all arms: the one that was asked for by an order or by settings, and that of every metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import escaped
from ablation.report.metrics import COMPARISON, MetricTable, with_unit
from ablation.report.overview import Row
from ablation.report.overview.families import best_of
from ablation.report.sections.changed import changed_settings
from ablation.report.sections.common import bullets, chunked, count, few, mean_and_sd, named, of_columns, paragraphs, table
from ablation.report.sections.content import Content
from ablation.report.sections.families import (
    MOST_IN_MARKDOWN,
    against_cell,
    arm_cell,
    elsewhere,
    family_table,
    legend_lines,
    over_shared,
    value_cell,
)
from ablation.report.sections.section import Section

TITLE = "Comparison"


# --- the table that was asked for ------------------------------------------------------------------------------------------------


def requested(content: Content) -> list[Section]:
    """With an order or `only_changed`, the reader asks for one table of all arms: it comes first; nothing otherwise."""
    options = content.options
    if not options.sort and not options.only_changed:
        return []
    by_arm = {row.arm: row for family in content.overview.families for row in family.rows}
    arms = content.frames.arms
    conditions = list(dict.fromkeys(arms["condition"]))
    parts = []
    for condition in conditions:
        rows = [by_arm[arm] for arm in arms["arm"][arms["condition"] == condition]]
        body = _with_settings(content, rows) if options.only_changed else family_table(content, rows, columns=_sorted_by(content, rows))
        parts.append(Section(f"{TITLE} under {escaped(condition)}" if condition else TITLE, body))
    first, *rest = parts
    return [Section(TITLE, paragraphs(first.body, bullets(legend_lines(content))), tuple(rest))]


def _sorted_by(content: Content, rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """The column of the metric by which the arms are ordered, if it is another one than the report's."""
    name = content.options.sort.removeprefix("test/")
    if name in ("", "arm", content.name):
        return {}
    records = {row["arm"]: row for row in content.frames.arms.to_dict("records")}
    values = {row.arm: _value(content, records[row.arm], name) for row in rows}
    return {escaped(content.metrics.title(name)): values}


def _with_settings(content: Content, rows: Sequence[Row]) -> str:
    """A column for each setting in which these arms differ, in as many tables as fit on a page."""
    changed = changed_settings(content.plan, [row.arm for row in rows])
    columns = [[escaped(path), *(escaped(by_arm[row.arm]) for row in rows)] for path, by_arm in changed.items()]
    title = escaped(content.metrics.title(content.name))
    best = best_of(rows, is_lower_better=content.metrics.is_lower_better(content.name))
    values = [value_cell(content, row, is_best=row.arm in best) for row in rows]
    fixed = [["arm", *(arm_cell(content, row) for row in rows)], [title, *values]]
    against = ["vs baseline", *(against_cell(content, row, "baseline") for row in rows)]
    parts = []
    for places in chunked(columns, [*fixed, against]):
        shown = [fixed[0], *(columns[place] for place in places), fixed[1], against]
        parts.append(of_columns(shown, left=1 + len(places)))
    return paragraphs(*parts)


# --- every metric ----------------------------------------------------------------------------------------------------------------


def all_metrics(content: Content) -> list[Section]:
    """A column per metric for the plain arms; those under conditions and the published figures folded."""
    arms = content.frames.arms
    plain = arms[arms["condition"] == ""]
    shown = plain if len(plain) else arms
    rest = arms.drop(shown.index)
    units = f"{mean_and_sd(content, columns(content))}; the best of a column is bold{over_shared(content, content.shown)}."
    details = [*published_section(content)]
    if len(rest):
        details.append(Section("All metrics under the conditions", _metrics_table(content, rest), is_minor=len(rest) > MOST_IN_MARKDOWN))
    body = paragraphs(bullets([units]), _metrics_table(content, shown))
    return [Section("All metrics", body, tuple(details), elsewhere=elsewhere("All metrics of the arms under conditions", "report.csv"))]


def _metrics_table(content: Content, arms: pd.DataFrame) -> str:
    """The arms' metrics, in as many tables as fit on a page each."""
    names = columns(content)
    records = arms.to_dict("records")
    best = {name: content.best_arms(arms["arm"], name) for name in names}
    fixed = [["arm", *(named(content, row["arm"]) for row in records)], ["n", *(count(row) for row in records)]]
    values = [
        [escaped(content.metrics.title(name)), *(_value(content, row, name, is_best=row["arm"] in best[name]) for row in records)]
        for name in names
    ]
    parts = []
    for places in chunked(values, fixed):
        shown = [*fixed, *(values[place] for place in places)]
        parts.append(of_columns(shown))
    return paragraphs(*parts)


def published_section(content: Content) -> list[Section]:
    """The published figures beside ours, if there are any."""
    arms, metrics = content.frames.arms, content.metrics
    reports, name = reports_of(arms), content.metrics.published
    if not reports:
        return []
    with_figures = arms[arms[[f"published/{report}" for report in reports]].notna().any(axis=1)]
    title, gap = escaped(metrics.words(name)), with_unit("ours minus theirs", metrics.unit(name).differences, "{}, in {}")
    header = ["arm", f"our {title}", *(escaped(column) for report in reports for column in (report, f"{report} gap"))]
    rows = []
    for row in with_figures.to_dict("records"):
        theirs = (cell for report in reports for cell in published(metrics, row, report))
        rows.append([named(content, row["arm"]), _value(content, row, name), *theirs])
    return [Section("Published figures", paragraphs(f"Published: the reports' {title}; gap: {gap}.", table(header, rows)))]


def columns(content: Content) -> list[str]:
    """The short names of the metrics with a column: the table's, and the one that was asked for."""
    return list(dict.fromkeys([*content.metrics.columns(COMPARISON), content.name]))


def reports_of(arms: pd.DataFrame) -> list[str]:
    """The reports with a published figure for any of these arms."""
    with_numbers = [str(column) for column in arms.columns[arms.notna().any()] if str(column).startswith("published/")]
    return [column.removeprefix("published/") for column in with_numbers]


def published(metrics: MetricTable, row: Mapping[Any, Any], report: str) -> tuple[str, str]:
    """A report's published figure of an arm, and the gap (measured minus published)."""
    name = metrics.published
    return metrics.value(name, row[f"published/{report}"]), metrics.difference(name, row[metrics.gap_column(report)])


def _value(content: Content, row: Mapping[Any, Any], name: str, *, is_best: bool = False) -> str:
    """The metric's mean and sd, and of how many of the runs that are done, if not of all; blank where no run is done."""
    value = content.metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else ""
    return f"**{value}**" if is_best else value + few(content, row, name)
