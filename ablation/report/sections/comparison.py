"""The main table: one row per arm, for the plain arms and for every condition."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ablation.formatting import DASH, escaped, setting, shortened, table
from ablation.report.frames.facts import settings_schema
from ablation.report.metrics import COMPARISON, MetricTable, with_unit
from ablation.report.sections.claims import near_chance, tally
from ablation.report.sections.common import (
    LABELS,
    ROLES,
    bullets,
    count,
    label_meaning,
    mean_and_sd,
    named,
    of_metric,
    paragraphs,
    pictures,
)
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section
from ablation.study.wording import change_words

MOST_CHANGES_IN_A_CELL = 3
MOST_REASONS = 2


def comparisons(content: Content) -> list[Section]:
    """The main table, and one per condition, folded unless it is the only table."""
    arms = content.frames.arms
    conditions = list(dict.fromkeys(arms["condition"]))
    return [_section(content, arms[arms["condition"] == condition], condition, folded=len(conditions) > 1) for condition in conditions]


def _section(content: Content, arms: pd.DataFrame, condition: str, *, folded: bool) -> Section:
    body = paragraphs(_comparison(content, arms), bullets(_caption(content, arms)), _legend(content, arms))
    if not condition:
        drawn = pictures(content, "waterfall", "differences")
        return Section("Comparison", paragraphs(body, drawn))
    heading = f"Comparison under {escaped(condition)}"
    if not folded:
        return Section(heading, body)
    rows = of_metric(content.frames.differences, content.name)
    of_baseline = rows[rows["arm"].isin(arms["arm"]) & (rows["role"] == "baseline")]
    return Section(heading, f"Against its own baseline: {tally(of_baseline)}.", (Section(f"The arms under {escaped(condition)}", body),))


# --- the table -----------------------------------------------------------------------------------------------------------------


def columns(content: Content) -> list[str]:
    """The short names of the metrics with a column: the table's, and the one that was asked for."""
    return list(dict.fromkeys([*content.metrics.columns(COMPARISON), content.name]))


def _comparison(content: Content, arms: pd.DataFrame) -> str:
    names = columns(content)
    reports = reports_of(arms)
    changed = changed_settings(content, arms) if content.options.only_changed else {}
    settings = [escaped(path) for path in changed] if content.options.only_changed else ["what changed"]
    header = ["arm", *settings, "labels", "parent", "n", *(escaped(content.metrics.title(name)) for name in names)]
    header += ["vs parent", "vs baseline", *(escaped(name) for report in reports for name in (report, f"{report} gap")), "verdict"]
    best, near = {name: best_arms(arms, name, content.metrics) for name in names}, near_chance(content)
    rows = [_row(content, row, changed, best, near, reports) for row in arms.to_dict("records")]
    return table(header, rows, left=3 + len(settings))


def _row(
    content: Content,
    row: Mapping[Any, Any],
    changed: Mapping[str, Mapping[str, str]],
    best: Mapping[str, Sequence[str]],
    near: Sequence[str],
    reports: Sequence[str],
) -> list[str]:
    label = f" ({escaped(row['label'])})" if row["label"] not in ("", row["arm"]) else ""
    settings = (
        [escaped(values[row["arm"]]) for values in changed.values()] if content.options.only_changed else [_what_changed(content, row)]
    )
    values = [_value(content.metrics, row, name, is_best=row["arm"] in arms) for name, arms in best.items()]
    return [
        named(content, row["arm"]) + label,
        *settings,
        ", ".join(_mark(mark) for mark in [*content.planned[row["arm"]]["labels"], *(["near chance"] if row["arm"] in near else [])]),
        named(content, row["parent"]),
        count(row),
        *values,
        *(_against(content, row, role) for role in ROLES),
        *(cell for report in reports for cell in published(content.metrics, row, report)),
        _verdict(content, row["arm"]),
    ]


def reports_of(arms: pd.DataFrame) -> list[str]:
    """The reports with a published figure for any of these arms."""
    with_numbers = [str(column) for column in arms.columns[arms.notna().any()] if str(column).startswith("published/")]
    return [column.removeprefix("published/") for column in with_numbers]


def published(metrics: MetricTable, row: Mapping[Any, Any], report: str) -> tuple[str, str]:
    """A report's published figure of an arm, and the gap (measured minus published)."""
    name = metrics.published
    return metrics.value(name, row[f"published/{report}"]), metrics.difference(name, row[metrics.gap_column(report)])


def best_arms(arms: pd.DataFrame, name: str, metrics: MetricTable) -> list[str]:
    """The arms with the best printed mean among those with all runs done; none if only one arm has a number."""
    complete = arms[(arms["n"] == arms["planned"]) & arms[f"{name}_mean"].notna()]
    if len(complete) < 2:
        return []
    unit = metrics.unit(name)
    printed = (unit.scale * complete[f"{name}_mean"]).round(unit.decimals)
    best = printed.min() if metrics.is_lower_better(name) else printed.max()
    return [str(arm) for arm in complete["arm"][printed == best]]


def _value(metrics: MetricTable, row: Mapping[Any, Any], name: str, *, is_best: bool) -> str:
    """The metric's mean and sd; blank where no run is done."""
    value = metrics.value(name, row[f"{name}_mean"], row[f"{name}_sd"]) if row["n"] else ""
    return f"**{value}**" if is_best else value


def _against(content: Content, row: Mapping[Any, Any], role: str) -> str:
    pair = content.pairs.get((row["arm"], role), {})
    if not row["n"]:
        return ""
    few = f" ({pair['pairs']} of {row['planned']})" if pair and 0 < pair["pairs"] < row["planned"] else ""
    return content.difference(pair) + few if pair else DASH


def _verdict(content: Content, arm: str) -> str:
    return str(content.pairs.get((arm, "parent"), {"verdict": ""})["verdict"])


def _mark(label: str) -> str:
    return LABELS[label][0] if label in LABELS else escaped(label)


# --- what changed --------------------------------------------------------------------------------------------------------------


def _what_changed(content: Content, row: Mapping[Any, Any]) -> str:
    words = change_words(content.planned[row["arm"]]["change"], settings_schema(content.plan))
    more = [f"and {len(words) - MOST_CHANGES_IN_A_CELL} more"] if len(words) > MOST_CHANGES_IN_A_CELL else []
    same = [f"same training as {row['same_as']}"] if row["same_as"] else []
    return escaped("; ".join([*words[:MOST_CHANGES_IN_A_CELL], *more, *same]))


def changed_settings(content: Content, arms: pd.DataFrame) -> dict[str, dict[str, str]]:
    """setting -> arm -> its value, for the settings in which these arms differ; several values if the stages differ."""
    planned = {arm["name"]: arm for arm in content.plan["arms"]}
    first: dict[str, Any] = {}  # the first arm's value: the old value of the first change of a setting
    for arm in planned.values():
        for path, (old, _) in arm["change"].items():
            first.setdefault(_without_stage(path), old)
    by_setting = {path: {arm: _setting_words(planned, arm, path, old) for arm in arms["arm"]} for path, old in first.items()}
    return {path: by_arm for path, by_arm in by_setting.items() if len(set(by_arm.values())) > 1}


def _without_stage(path: str) -> str:
    return path.split(".", 2)[2] if path.startswith("stages.") else path


def _setting_words(planned: Mapping[str, Mapping[str, Any]], arm: str, path: str, first: Any) -> str:
    """`shuffle`, or `shuffle → class_balanced` if the arm's stages differ."""
    values = [_setting_of(planned, arm, [f"stages.{i}.{path}", path], first) for i in range(_num_stages(planned, arm))]
    words = [DASH if value is None else setting(value) for value in values]
    return words[0] if len(set(words)) == 1 else " → ".join(words)


def _num_stages(planned: Mapping[str, Mapping[str, Any]], arm: str) -> int:
    number = 1
    while _setting_of(planned, arm, [f"stages.{number}.epochs"], None) is not None:
        number += 1
    return number


def _setting_of(planned: Mapping[str, Mapping[str, Any]], arm: str, paths: Sequence[str], first: Any) -> Any:
    """The value that the arm, or the nearest one above it, sets under one of these paths; otherwise `first`."""
    place: str | None = arm
    while place is not None:
        change = planned[place]["change"]
        values = [change[path][1] for path in paths if path in change]
        if values:
            return values[0]
        place = planned[place]["parent"]
    return first


# --- what stands below it --------------------------------------------------------------------------------------------------------


def _caption(content: Content, arms: pd.DataFrame) -> list[str]:
    """What the table's numbers are."""
    metrics, name = content.metrics, content.name
    gain = " Lower is better: a difference below zero is a gain." if metrics.is_lower_better(name) else ""
    differences = with_unit(f"of {escaped(metrics.title(name))}", metrics.unit(name).differences, "{1} {0}")
    records = arms.to_dict("records")
    notes = [f"{named(content, row['arm'])}: {escaped(row['note'])}" for row in records if row["note"]]
    chosen = [f"Chosen for {named(content, row['arm'])}: {escaped(row['chosen'])}" for row in records if row["chosen"]]
    gap = with_unit("ours minus theirs", metrics.unit(metrics.published).differences, "{}, in {}")
    theirs = [f"Published: the reports' {escaped(metrics.title(metrics.published))}; gap: {gap}."] if reports_of(arms) else []
    short = ["n 1/2: not every planned run is done; such arms are never the best, and their pairs are counted in brackets."]
    return [
        f"{mean_and_sd(metrics.value_units(columns(content)))}; the best of a column is bold.",
        f"Differences are {differences}, paired by seed, with the 95 % t interval, which is not adjusted.{gain}",
        "Verdict: of the difference to the parent, by the paired t test and the sign-flip test, both after Holm's correction "
        "within the family (see Differences).",
        *(short if (arms["n"] < arms["planned"]).any() else []),
        *theirs,
        *notes,
        *chosen,
    ]


def _legend(content: Content, arms: pd.DataFrame) -> str:
    """Each label in the table: its mark, its meaning, and the reasons of the arms that have it."""
    near, name = near_chance(content), content.metrics.published
    means = dict(zip(arms["arm"], arms[f"{name}_mean"], strict=True))
    labels = {
        arm: {
            **content.planned[arm]["labels"],
            **({"near chance": f"{content.metrics.value(name, means[arm])} %"} if arm in near else {}),
        }
        for arm in arms["arm"]
    }
    lines = []
    for label in dict.fromkeys(label for by_label in labels.values() for label in by_label):
        by_reason: dict[str, list[str]] = {}
        for arm in [arm for arm, by_label in labels.items() if label in by_label]:
            by_reason.setdefault(str(labels[arm][label]), []).append(arm)
        reasons = [f"{_arms(content, names, len(labels))}: {escaped(reason)}" for reason, names in by_reason.items()]
        words = "; ".join(reasons[:MOST_REASONS])
        words += f"; and {len(by_reason) - MOST_REASONS} more, see Labels" if len(by_reason) > MOST_REASONS else ""
        meaning = label_meaning(content, label)
        lines.append(f"**{_mark(label)}** {f'*{label}*, {meaning}. ' if meaning else ''}{words}")
    return bullets(lines)


def _arms(content: Content, names: Sequence[str], of: int) -> str:
    return "every arm" if len(names) == of > 1 else shortened([named(content, name) for name in names])
