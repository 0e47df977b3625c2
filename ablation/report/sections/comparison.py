"""The tables of all arms: the one that was asked for by an order or by settings, and that of every metric."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import DASH, escaped, setting
from ablation.report.metrics import COMPARISON, MetricTable, with_unit
from ablation.report.overview import Row
from ablation.report.overview.families import best_of
from ablation.report.sections.common import bullets, chunked, count, mean_and_sd, named, of_columns, paragraphs, table
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
from ablation.study.written import STAGE

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
    changed = changed_settings(content, [row.arm for row in rows])
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
    n = len(content.values(name)[row["arm"]])
    return f"**{value}**" if is_best else value + (f" ({n} of {row['planned']})" if 0 < n < row["n"] else "")


# --- what changed ---------------------------------------------------------------------------------------------------------------

UNKNOWN = object()  # what the plan's changes do not tell
OPTIONS = ("epochs", "train", "head", "backbone", "start", "restart")  # of a stage, in the order of the record of the file


def changed_settings(content: Content, arms: Sequence[str]) -> dict[str, dict[str, str]]:
    """setting -> arm -> its value, for the settings in which these arms differ; several values if the stages differ.

    Where an arm above is not in the plan, the record of the file has the values; a dash is one that nothing tells.
    """
    plan, planned = content.plan, {arm["name"]: arm for arm in content.plan["arms"]}
    first: dict[str, Any] = {}  # the first arm's value: the old value of the first change of a setting
    for arm in planned.values():
        for path, (old, _) in arm["change"].items():
            first.setdefault(_without_stage(path), old)
    for name in arms:
        settings = _recorded(plan, name) if _setting_of(planned, name, [], None) is UNKNOWN else {}
        unlike = [path for path, value in settings.items() if value != _recorded(plan, "").get(path) and not path.endswith(STAGE)]
        first |= {_without_stage(path): _recorded(plan, "").get(_without_stage(path)) for path in unlike}
    stages = {arm: _num_stages(plan, planned, arm) for arm in arms}
    by_setting = {path: {arm: _setting_words(plan, planned, arm, path, old, stages[arm]) for arm in arms} for path, old in first.items()}
    return {path: by_arm for path, by_arm in by_setting.items() if len(set(by_arm.values())) > 1}


def _without_stage(path: str) -> str:
    return path.split(".", 2)[2] if path.startswith("stages.") else path


def _setting_words(
    plan: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]], arm: str, path: str, first: Any, num_stages: int
) -> str:
    """`shuffle`, or `shuffle → class_balanced` if the arm's stages differ."""
    values = [_setting_of_stage(plan, planned, arm, path, first, (i, num_stages)) for i in range(num_stages)]
    words = [DASH if value is None else setting(value) for value in values]
    return words[0] if len(set(words)) == 1 else " → ".join(words)


def _setting_of_stage(
    plan: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]], arm: str, path: str, first: Any, stage: tuple[int, int]
) -> Any:
    """The value in one stage of so many, by the changes of the plan or by the record of the file; None if it has none."""
    place, number = stage
    is_length = path == "epochs" and number > 1  # the arm's own epochs are those of all its stages
    value = _setting_of(planned, arm, [f"stages.{place}.{path}", *([] if is_length else [path])], UNKNOWN if is_length else first)
    return _recorded_value(plan, arm, path, stage) if value is UNKNOWN else value


def _recorded(plan: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """setting -> value of the arm, or of the first one, by what is recorded of the file; without what `--set` changed."""
    written = plan.get("written", {})
    settings = {**written.get("first", {}), **written.get("arms", {}).get(arm, {}).get("settings", {})}
    return {path: value for path, value in settings.items() if value is not None and not _is_set(plan, path)}


def _is_set(plan: Mapping[str, Any], path: str) -> bool:
    """Whether `--set` changed the setting, a field of it, or the technique that it is a field of."""
    places = [_without_stage(place) for place, _ in plan.get("written", {}).get("sets", ())]
    return any(f"{_without_stage(path)}.".startswith(f"{place}.") for place in places)


def _recorded_value(plan: Mapping[str, Any], arm: str, path: str, stage: tuple[int, int]) -> Any:
    """The value in one stage of so many by the record of the file; None if that does not tell it."""
    place, number = stage
    settings = _recorded(plan, arm) if arm in plan.get("written", {}).get("arms", {}) else {}
    own = f"stages.{place}." if place < number - 1 else ""
    if path in OPTIONS:
        options = dict(zip(OPTIONS, (settings.get(f"{own}{STAGE}") or [])[1:], strict=False))
        return None if _is_set(plan, path) else options.get(path)
    techniques = [path[: dot.start()] for dot in re.finditer(r"\.", path)]
    is_other = any(f"{own}{name}.name" in settings for name in techniques if own and path != f"{name}.name")  # than in the last stage
    return settings.get(f"{own}{path}", None if is_other else settings.get(path))


def _num_stages(plan: Mapping[str, Any], planned: Mapping[str, Mapping[str, Any]], arm: str) -> int:
    """The arm's stages by what is recorded of the file, which may have them in its base; in older plans by the changes alone."""
    if arm in plan.get("written", {}).get("arms", {}):
        settings = _recorded(plan, arm)
        earlier = [name for name, value in settings.items() if re.fullmatch(rf"stages\.\d+\.{STAGE}", name) and value is not None]
        return 1 + len(earlier)
    number = 1
    while _setting_of(planned, arm, [f"stages.{number}.epochs"], None) not in (None, UNKNOWN):
        number += 1
    return number


def _setting_of(planned: Mapping[str, Mapping[str, Any]], arm: str, paths: Sequence[str], first: Any) -> Any:
    """The value that the arm, or the nearest one above it, sets under one of these paths; otherwise `first`, or UNKNOWN if one above it is
    not in the plan.
    """
    place: str | None = arm
    while place is not None and place in planned:
        change = planned[place]["change"]
        values = [change[path][1] for path in paths if path in change]
        if values:
            return values[0]
        place = planned[place]["parent"]
    return first if place is None else UNKNOWN
