"""Every paired difference with its tests, family by family, and the second source of doubt: the test images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablation.report import metrics
from ablation.report.metrics import title
from ablation.report.section import Section
from ablation.report.sections.claims import tally
from ablation.report.sections.common import ROLES, bullets, difference, mark, named, of_metric, paragraphs, seeds_needed
from ablation.report.sections.content import Content
from ablation.report.words import DASH, change, escaped, interval, number, p_value, table

EQUAL = "p equal (Holm)"
# title -> column of the frame
TESTS = {"p t": "p_t", "p sign-flip": "p_flip", "p Holm (t)": "p_t_holm", "p Holm (flip)": "p_flip_holm", EQUAL: "p_equal_holm"}


def differences(content: Content) -> list[Section]:
    """A row per family of tests; folded away: every test, the other metrics, and the doubt from the test images."""
    frame = content.frames.differences
    if frame.empty:
        return []
    rows = of_metric(frame, content.name)
    needed = (
        f"*Seeds needed*: to find a true difference of {content.margin:g} points with 80 % power, at the first step of Holm's correction, "
        "by the family's pooled deviation."
    )
    told = [
        f"Of {escaped(title(content.name))}, paired by seed. A family is what is read together, and Holm's correction is over all of its "
        "comparisons that are planned, shown here or not.",
        *([needed] if _has_margin(content) else []),
    ]
    details = [
        Section("Every test", paragraphs(_notes(content), *(_family(content, own, *key) for key, own in _families(rows)))),
        Section("Differences of the other metrics", _other_metrics(content)),
        *_image_doubt(content),
    ]
    return [Section("Differences", paragraphs(_overview(content, rows), bullets(told)), tuple(details))]


def _families(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [((str(key[0]), str(key[1])), own) for key, own in rows.groupby(["family", "role"], sort=False)]


def _has_margin(content: Content) -> bool:
    """Whether the metric is told in points, as the margin is."""
    return metrics.unit(content.name) is metrics.FRACTION


def _overview(content: Content, rows: pd.DataFrame) -> str:
    cells = []
    for (family, role), own in _families(rows):
        needed = [seeds_needed(own["seeds_needed"].max())] if _has_margin(content) else []
        cells.append([escaped(family), role, tally(own), str(int(own["tests"].max())), *needed])
    header = ["family", "against", "verdicts", "tests", *(["seeds needed"] if _has_margin(content) else [])]
    return table(header, cells, left=3)


def _notes(content: Content) -> str:
    unit = metrics.unit(content.name)
    equal = f"*p equal*: two one-sided t tests against {content.margin:g} points, adjusted; small where the difference is surely smaller."
    return bullets(
        [
            f"Differences and intervals in {unit.differences}; intervals are not adjusted.",
            "*p t*: paired t test, which takes the differences to be normal. *p sign-flip*: exact, and assumes only that a difference "
            "might as well have had the other sign. *p Holm*: the same after Holm's correction.",
            *([equal] if _has_margin(content) else []),
        ]
    )


def _family(content: Content, rows: pd.DataFrame, family: str, role: str) -> str:
    shown = [column for column in TESTS if _has_margin(content) or column != EQUAL]
    cells = [
        [*(named(content, row[end]) for end in ("arm", "against")), *_test_cells(content.name, row, shown)]
        for row in rows.to_dict("records")
    ]
    header = ["arm", "against", "difference", "95 % interval", "pairs", *shown, "verdict"]
    return f"#### {escaped(family)}, against the {role}\n\n{table(header, cells, left=2)}"


def _test_cells(name: str, row: Mapping[Any, Any], shown: Sequence[str]) -> list[str]:
    decimals = metrics.unit(name).decimals
    if not row["pairs"]:
        return [DASH, DASH, "0", *[DASH] * len(shown), row["verdict"]]
    bounds = f"[{change(row['low'], decimals=decimals)}, {change(row['high'], decimals=decimals)}]" if np.isfinite(row["low"]) else DASH
    tests = [p_value(row[TESTS[column]]) for column in shown]
    return [metrics.difference(name, row["mean"], row["sd"]), bounds, str(row["pairs"]), *tests, row["verdict"]]


def _other_metrics(content: Content) -> str:
    """A table per role: the differences of every other metric, in their own units."""
    frame = content.frames.differences
    names = [name for name in dict.fromkeys(frame["metric"]) if name != content.name]
    parts = []
    for role in ROLES:
        own = frame[frame["role"] == role]
        by_arm = {arm: {row["metric"]: row for row in rows.to_dict("records")} for arm, rows in own.groupby("arm", sort=False)}
        cells = [[named(content, str(arm)), *(difference(name, rows[name]) for name in names)] for arm, rows in by_arm.items()]
        if cells:
            parts.append(f"#### Against the {role}\n\n{table(['arm', *(escaped(title(name)) for name in names)], cells)}")
    return paragraphs("Points (NLL: nats) with 95 % t intervals, not adjusted. For NLL and ECE lower is better.", *parts)


def _image_doubt(content: Content) -> list[Section]:
    """The paired bootstrap over test images and McNemar's test, which speak of these trained models only."""
    frame = content.frames.image_differences
    if frame.empty:
        return []
    told = (
        "Another question than the one above: would these very models differ on other test images? It says nothing about training again, "
        "and must not be added to the doubt from seeds. Interval: paired bootstrap over test images, 95 %. "
        "Gained and lost: images right in the arm only, and in the other only, per seed. "
        "Intervals and p values are not adjusted for the number of comparisons."
    )
    mcnemar = content.frames.mcnemar
    by_pair = dict(list(mcnemar.groupby(["arm", "role"], sort=False)))
    rows = []
    for key, own in frame.groupby(["arm", "role"], sort=False):
        by_metric = {row["metric"]: row for row in own.to_dict("records")}
        row = next(iter(by_metric.values()))
        tests = by_pair.get(key)
        told_p = ", ".join(p_value(p) for p in tests["p"]) if tests is not None else DASH
        cells = [_bootstrap(by_metric.get(name)) for name in ("accuracy", "balanced_accuracy")]
        moved = [number(row[column], decimals=1) for column in ("gained", "lost")]
        rows.append([named(content, row["arm"]), named(content, row["against"]), *cells, *moved, told_p])
    header = ["arm", "against", "accuracy", "balanced", "gained", "lost", "McNemar's p, seed by seed"]
    return [Section("Doubt from the test images", paragraphs(told, table(header, rows, left=2)))]


def _bootstrap(row: Mapping[Any, Any] | None) -> str:
    return interval(row["mean"], row["low"], row["high"]) if row else DASH


def conditions(content: Content) -> list[Section]:
    """Every arm under every condition, side by side."""
    rows = of_metric(content.frames.conditions, content.name)
    if rows.empty:
        return []
    kinds = {arm["name"]: arm["kind"] for arm in content.plan["arms"]}
    ladder = rows[[kinds.get(arm) == "ladder" for arm in rows["arm"]]]
    shown = ladder if len(ladder) else rows
    name = content.name
    told = (
        f"Of {escaped(title(name))}: mean ± standard deviation; in brackets the condition minus plain, paired by seed "
        f"({metrics.unit(name).differences}), with its 95 % t interval."
    )
    details = (Section("Every arm under every condition", _side_by_side(content, rows)),) if len(shown) < len(rows) else ()
    return [Section("Conditions side by side", paragraphs(_side_by_side(content, shown), told), details)]


def _side_by_side(content: Content, rows: pd.DataFrame) -> str:
    arms, name = {row["arm"]: row for row in content.frames.arms.to_dict("records")}, content.name
    names = list(dict.fromkeys(rows["condition"]))
    plains = ["plain"] if rows["arm"].isin(content.shown).any() else []
    cells = []
    for arm, found in rows.groupby("arm", sort=False):
        own = {row["condition"]: row for row in found.to_dict("records")}
        plain = arms.get(arm, {"n": 0})
        told = metrics.value(name, plain[f"{name}_mean"], plain[f"{name}_sd"]) if plain["n"] else ""
        cells.append(
            [named(content, str(arm)), *([told] if plains else []), *(_condition_cell(content, own.get(condition)) for condition in names)]
        )
    return table(["arm", *plains, *map(escaped, names)], cells)


def _condition_cell(content: Content, row: Mapping[Any, Any] | None) -> str:
    if row is None or not row["n"]:
        return ""
    name, marked = content.name, mark(content, f"{row['condition']}/{row['arm']}")
    pair = {"pairs": row["pairs"], "mean": row["difference"], "low": row["low"], "high": row["high"]}
    return f"{metrics.value(name, row['mean'], row['sd'])}{marked} ({difference(name, pair)})"
