"""Paired differences with their tests, by family, and the second source of uncertainty: the test images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablation.formatting import DASH, capitalised, change, counted_groups, escaped, interval, number, p_value, table
from ablation.report.metrics import with_unit
from ablation.report.sections.claims import tally
from ablation.report.sections.common import ROLES, bullets, mark, named, of_metric, paragraphs, seeds_needed
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section, SectionSpec, sections_of

EQUAL = "p equal (Holm)"
# title -> column of the frame
TESTS = {"p t": "p_t", "p sign-flip": "p_flip", "p Holm (t)": "p_t_holm", "p Holm (flip)": "p_flip_holm", EQUAL: "p_equal_holm"}


def differences(content: Content) -> list[Section]:
    """One row per family of tests; folded: every test, the other metrics, and the uncertainty from the test images."""
    frame = content.frames.differences
    if frame.empty:
        return []
    rows = of_metric(frame, content.name)
    needed = (
        f"*Seeds needed*: to find a true difference of {content.margin} with 80 % power, at the first step of Holm's correction, "
        "by the family's pooled deviation."
    )
    legend = [
        f"Of {escaped(content.metrics.title(content.name))}, paired by seed. A family is what is read together, and Holm's correction is "
        "over all of its comparisons that are planned, shown here or not.",
        *([needed] if content.has_margin else []),
    ]
    details = sections_of(
        (SectionSpec(every_test), SectionSpec(other_metrics), SectionSpec(image_doubt, needs=frozenset({"predictions"}))), content
    )
    return [Section("Differences", paragraphs(_overview(content, rows), bullets(legend)), tuple(details))]


def _families(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [((str(key[0]), str(key[1])), part) for key, part in rows.groupby(["family", "role"], sort=False)]


def _overview(content: Content, rows: pd.DataFrame) -> str:
    cells = []
    for (family, role), part in _families(rows):
        needed = [seeds_needed(part["seeds_needed"].max())] if content.has_margin else []
        cells.append([escaped(family), role, tally(part), str(int(part["tests"].max())), *needed])
    header = ["family", "against", "verdicts", "tests", *(["seeds needed"] if content.has_margin else [])]
    return table(header, cells, left=3)


# --- every test ----------------------------------------------------------------------------------------------------------------


def every_test(content: Content) -> list[Section]:
    """One table per family and role with every test of the metric."""
    rows = of_metric(content.frames.differences, content.name)
    return [Section("Every test", paragraphs(_notes(content), *(_family(content, part, *key) for key, part in _families(rows))))]


def _notes(content: Content) -> str:
    unit = content.metrics.unit(content.name).differences
    equal = f"*p equal*: two one-sided t tests against {content.margin}, adjusted; small where the difference is surely smaller."
    return bullets(
        [
            f"Differences and intervals in {unit}; intervals are not adjusted." if unit else "Intervals are not adjusted.",
            "*p t*: paired t test, which takes the differences to be normal. *p sign-flip*: exact, and assumes only that a difference "
            "might as well have had the other sign. *p Holm*: the same after Holm's correction.",
            *([equal] if content.has_margin else []),
        ]
    )


def _family(content: Content, rows: pd.DataFrame, family: str, role: str) -> str:
    shown = [column for column in TESTS if content.has_margin or column != EQUAL]
    cells = [
        [*(named(content, row[end]) for end in ("arm", "against")), *_test_cells(content, row, shown)] for row in rows.to_dict("records")
    ]
    header = ["arm", "against", "difference", "95 % interval", "pairs", *shown, "verdict"]
    return f"#### {escaped(family)}, against the {role}\n\n{table(header, cells, left=2)}"


def _test_cells(content: Content, row: Mapping[Any, Any], shown: Sequence[str]) -> list[str]:
    decimals = content.metrics.unit(content.name).decimals
    if not row["pairs"]:
        return [DASH, DASH, "0", *[DASH] * len(shown), row["verdict"]]
    bounds = f"[{change(row['low'], decimals=decimals)}, {change(row['high'], decimals=decimals)}]" if np.isfinite(row["low"]) else DASH
    tests = [p_value(row[TESTS[column]]) for column in shown]
    return [content.metrics.difference(content.name, row["mean"], row["sd"]), bounds, str(row["pairs"]), *tests, row["verdict"]]


# --- the other metrics -----------------------------------------------------------------------------------------------------------


def other_metrics(content: Content) -> list[Section]:
    """One table per role with the differences of the other metrics, in their units."""
    frame, metrics = content.frames.differences, content.metrics
    names = [name for name in dict.fromkeys(frame["metric"]) if name != content.name]
    if not names:
        return []
    parts = []
    for role in ROLES:
        of_role = frame[frame["role"] == role]
        by_arm = {arm: {row["metric"]: row for row in rows.to_dict("records")} for arm, rows in of_role.groupby("arm", sort=False)}
        cells = [[named(content, str(arm)), *(metrics.interval(name, rows[name]) for name in names)] for arm, rows in by_arm.items()]
        if cells:
            parts.append(f"#### Against the {role}\n\n{table(['arm', *(escaped(metrics.title(name)) for name in names)], cells)}")
    units = capitalised(metrics.difference_units(metrics.names)) or "Differences"
    legend = escaped(f"{units} with 95 % t intervals, not adjusted. {metrics.lower_words(metrics.names)}")
    return [Section("Differences of the other metrics", paragraphs(legend, *parts))]


# --- the test images -------------------------------------------------------------------------------------------------------------


def image_doubt(content: Content) -> list[Section]:
    """The paired bootstrap over test images and McNemar's test, which only hold for these trained models."""
    frame = content.frames.image_differences
    if frame.empty:
        return []
    clusters = content.plan.get("clusters")
    whole = (
        f" The {escaped(counted_groups(clusters['test'], clusters['name']))} of the test images are drawn whole, since the images of one "
        "are alike; p: the signs of whole ones are flipped, which is McNemar's test where each has one image."
        if clusters
        else ""
    )
    legend = (
        "Another question than the one above: would these very models differ on other test images? It says nothing about training again, "
        "and must not be added to the doubt from seeds. Interval: paired bootstrap over test images, 95 %. "
        "Gained and lost: images right in the arm only, and in the other only, per seed. "
        "Intervals and p values are not adjusted for the number of comparisons." + whole
    )
    mcnemar = content.frames.mcnemar
    by_pair = dict(list(mcnemar.groupby(["arm", "role"], sort=False)))
    rows = []
    for key, part in frame.groupby(["arm", "role"], sort=False):
        by_metric = {row["metric"]: row for row in part.to_dict("records")}
        row = next(iter(by_metric.values()))
        tests = by_pair.get(key)
        p_values = ", ".join(p_value(p) for p in tests["p"]) if tests is not None else DASH
        cells = [_bootstrap(by_metric.get(name)) for name in ("accuracy", "balanced_accuracy")]
        moved = [number(row[column], decimals=1) for column in ("gained", "lost")]
        rows.append([named(content, row["arm"]), named(content, row["against"]), *cells, *moved, p_values])
    header = ["arm", "against", "accuracy", "balanced", "gained", "lost", "p, seed by seed" if clusters else "McNemar's p, seed by seed"]
    return [Section("Doubt from the test images", paragraphs(legend, table(header, rows, left=2)))]


def _bootstrap(row: Mapping[Any, Any] | None) -> str:
    return interval(row["mean"], row["low"], row["high"]) if row else DASH


# --- conditions ------------------------------------------------------------------------------------------------------------------


def conditions(content: Content) -> list[Section]:
    """Every arm under every condition, side by side."""
    rows = of_metric(content.frames.conditions, content.name)
    if rows.empty:
        return []
    kinds = {arm["name"]: arm["kind"] for arm in content.plan["arms"]}
    ladder = rows[[kinds.get(arm) == "ladder" for arm in rows["arm"]]]
    shown = ladder if len(ladder) else rows
    paired = with_unit("paired by seed", content.metrics.unit(content.name).differences, "{} ({})")
    legend = (
        f"Of {escaped(content.metrics.title(content.name))}: mean ± standard deviation; in brackets the condition minus plain, {paired}, "
        "with its 95 % t interval."
    )
    details = (Section("Every arm under every condition", _side_by_side(content, rows)),) if len(shown) < len(rows) else ()
    return [Section("Conditions side by side", paragraphs(_side_by_side(content, shown), legend), details)]


def _side_by_side(content: Content, rows: pd.DataFrame) -> str:
    arms, name = {row["arm"]: row for row in content.frames.arms.to_dict("records")}, content.name
    names = list(dict.fromkeys(rows["condition"]))
    plains = ["plain"] if rows["arm"].isin(content.shown).any() else []
    cells = []
    for arm, of_arm in rows.groupby("arm", sort=False):
        by_condition = {row["condition"]: row for row in of_arm.to_dict("records")}
        plain = arms.get(arm, {"n": 0})
        value = content.metrics.value(name, plain[f"{name}_mean"], plain[f"{name}_sd"]) if plain["n"] else ""
        under = [_condition_cell(content, by_condition.get(condition)) for condition in names]
        cells.append([named(content, str(arm)), *([value] if plains else []), *under])
    return table(["arm", *plains, *map(escaped, names)], cells)


def _condition_cell(content: Content, row: Mapping[Any, Any] | None) -> str:
    if row is None or not row["n"]:
        return ""
    marked = mark(content, f"{row['condition']}/{row['arm']}")
    pair = {"pairs": row["pairs"], "mean": row["difference"], "low": row["low"], "high": row["high"]}
    return f"{content.metrics.value(content.name, row['mean'], row['sd'])}{marked} ({content.difference(pair)})"
