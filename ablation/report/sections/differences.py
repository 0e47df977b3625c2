"""Paired differences with their tests, by family, and the second source of uncertainty: the test images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablation.formatting import DASH, capitalised, counted, counted_groups, escaped, interval, number, p_value, shortened
from ablation.report.metrics import with_unit
from ablation.report.sections.claims import tally
from ablation.report.sections.common import (
    OTHER_MARK,
    ROLES,
    bullets,
    chunked,
    mark,
    named,
    of_columns,
    of_metric,
    paragraphs,
    pictures,
    seeds_needed,
    table,
)
from ablation.report.sections.content import Content
from ablation.report.sections.families import MOST_IN_MARKDOWN, elsewhere
from ablation.report.sections.section import Section, SectionSpec, sections_of
from ablation.report.statistics import items
from ablation.report.statistics.descriptive import records_by

EQUAL = "p equal (Holm)"
ALIKE = "No interval where all items, or clusters, differ alike (no spread)."
MOST_PAIRS = 6  # that are named in a sentence
# title -> columns of the frame: the p, and the adjusted one
TESTS = {"p t (Holm)": ("p_t", "p_t_holm"), "p sign-flip (Holm)": ("p_flip", "p_flip_holm"), EQUAL: ("p_equal_holm",)}


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
        f"Of {escaped(content.metrics.words(content.name))}, paired by seed. A family is what is read together, and Holm's correction is "
        "over all of its comparisons that are planned, shown here or not.",
        *([needed] if content.has_margin else []),
    ]
    details = sections_of(
        (
            SectionSpec(every_test),
            SectionSpec(other_metrics),
            SectionSpec(item_doubt, needs=frozenset({"items"})),
            SectionSpec(image_doubt, needs=frozenset({"predictions"})),
        ),
        content,
    )
    return [Section("Differences", paragraphs(_overview(content, rows), bullets(legend), pictures(content, "differences")), tuple(details))]


def _families(rows: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    return [((str(key[0]), str(key[1])), part) for key, part in rows.groupby(["family", "role"], sort=False)]


def _overview(content: Content, rows: pd.DataFrame) -> str:
    cells = []
    for (family, role), part in _families(rows):
        needed = [seeds_needed(part["seeds_needed"].max())] if content.has_margin else []
        cells.append([escaped(family), role, tally(content, part), str(int(part["tests"].max())), *needed])
    header = ["family", "against", "verdicts", "tests", *(["seeds needed"] if content.has_margin else [])]
    return table(header, cells, left=3)


# --- every test ----------------------------------------------------------------------------------------------------------------


def every_test(content: Content) -> list[Section]:
    """One table per family and role with every test of the metric."""
    rows = of_metric(content.frames.differences, content.name)
    tables = tuple(_family(content, part, *key) for key, part in _families(rows))
    return [Section("Every test", _notes(content), tables, elsewhere=elsewhere("The tests of the other families", "differences.csv"))]


def _notes(content: Content) -> str:
    unit = content.metrics.unit(content.name).differences
    equal = (
        f"*p equal*: two one-sided t tests against {content.margin}, adjusted; small where the difference is surely smaller. At 0.05 they "
        "go by a 90 % interval, so that the 95 % one beside them may reach a little further."
    )
    return bullets(
        [
            f"Differences and intervals in {unit}; intervals are not adjusted." if unit else "Intervals are not adjusted.",
            "*p t*: paired t test, which takes the differences to be normal. *p sign-flip*: assumes only that a difference "
            "might as well have had the other sign. In brackets the same after Holm's correction.",
            *([equal] if content.has_margin else []),
        ]
    )


def _family(content: Content, rows: pd.DataFrame, family: str, role: str) -> Section:
    """The family's tests; who all arms are compared with stands above the table if it is one arm."""
    shown = [column for column in TESTS if content.has_margin or column != EQUAL]
    records = rows.to_dict("records")
    partners = list(dict.fromkeys(row["against"] for row in records))
    each = [[named(content, row["against"])] for row in records] if len(partners) > 1 else [[] for _ in records]
    cells = [[named(content, row["arm"]), *partner, *_test_cells(content, row, shown)] for row, partner in zip(records, each, strict=True)]
    header = ["arm", *(["against"] if len(partners) > 1 else []), "difference", "pairs", *shown, "verdict"]
    against = f"All against {named(content, partners[0])}." if len(partners) == 1 else ""
    is_minor = family != "ladder" and len(content.shown) > MOST_IN_MARKDOWN
    return Section(f"{escaped(family)}, against the {role}", paragraphs(against, table(header, cells, left=1)), is_minor=is_minor)


def _test_cells(content: Content, row: Mapping[Any, Any], shown: Sequence[str]) -> list[str]:
    """The difference, the pairs, and each p with the adjusted one in brackets; the p of equivalence is adjusted."""
    if not row["pairs"]:
        return [DASH, "0", *[DASH] * len(shown), row["verdict"]]
    tests = [_p_values(*(row[column] for column in TESTS[title])) for title in shown]
    return [content.difference(row), str(row["pairs"]), *tests, row["verdict"]]


def _p_values(p: float, adjusted: float | None = None) -> str:
    return p_value(p) if adjusted is None or not np.isfinite(p) else f"{p_value(p)} ({p_value(adjusted)})"


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
        by_arm = {str(arm): {row["metric"]: row for row in rows} for arm, rows in records_by(of_role, "arm").items()}
        if by_arm:
            is_minor = len(by_arm) > MOST_IN_MARKDOWN
            parts.append(Section(f"Against the {role}", _metric_tables(content, by_arm, names), is_minor=is_minor))
    units = capitalised(metrics.difference_units(metrics.names)) or "Differences"
    legend = escaped(f"{units} with 95 % t intervals, not adjusted. {metrics.lower_words(metrics.names)}")
    where = elsewhere("The differences of the other metrics", "differences.csv")
    return [Section("Differences of the other metrics", legend, tuple(parts), elsewhere=where)]


def _metric_tables(content: Content, by_arm: Mapping[str, Mapping[str, Mapping[Any, Any]]], names: Sequence[str]) -> str:
    """A column per metric, in as many tables as fit on a page each; with the number of pairs where the report's metric has more."""

    def cell(rows: Mapping[str, Mapping[Any, Any]], name: str) -> str:
        pairs, most = rows[name]["pairs"], rows[content.name]["pairs"]
        return content.metrics.interval(name, rows[name]) + (f" ({pairs} of {most})" if 0 < pairs < most else "")

    arms = ["arm", *(named(content, arm) for arm in by_arm)]
    columns = [[escaped(content.metrics.title(name)), *(cell(rows, name) for rows in by_arm.values())] for name in names]
    parts = []
    for places in chunked(columns, [arms]):
        shown = [arms, *(columns[place] for place in places)]
        parts.append(of_columns(shown))
    return paragraphs(*parts)


# --- the test images -------------------------------------------------------------------------------------------------------------


def image_doubt(content: Content) -> list[Section]:
    """The paired bootstrap over test images and McNemar's test, which only hold for these trained models."""
    frame = content.frames.image_differences
    if frame.empty:
        return []
    title = "Doubt from the test items, right or wrong" if content.own else f"Doubt from the test {content.items}"
    by_pair = records_by(content.frames.mcnemar, "arm", "role")
    rows: dict[str, list[list[str]]] = {"": [], "minor": []}
    kinds = {arm["name"]: arm["kind"] for arm in content.plan["arms"]}
    is_long = len(frame["arm"].unique()) > MOST_IN_MARKDOWN
    for key, part in records_by(frame, "arm", "role").items():
        by_metric = {row["metric"]: row for row in part}
        row = next(iter(by_metric.values()))
        p_values = ", ".join(p_value(test["p"]) for test in by_pair.get(key, ())) or DASH
        cells = [_bootstrap(by_metric.get(name)) for name in ("accuracy", "balanced_accuracy")]
        moved = [number(row[column], decimals=1) for column in ("gained", "lost")]
        which = "minor" if is_long and kinds[row["arm"]] != "ladder" else ""
        rows[which].append([named(content, row["arm"]), named(content, row["against"]), *cells, *moved, p_values])
    header = [
        "arm",
        "against",
        "accuracy",
        "balanced acc.",
        "gained",
        "lost",
        "p, seed by seed" if content.plan.get("clusters") else "McNemar's p, seed by seed",
    ]
    first, others = (table(header, part, left=2) if part else "" for part in rows.values())
    details = (Section(f"{title}: the other arms", others, is_minor=True),) if others else ()
    where = elsewhere("The other arms", "image_differences.csv", "mcnemar.csv")
    return [Section(title, paragraphs(_legend_of_images(content, frame), first), details, elsewhere=where)]


def _legend_of_images(content: Content, frame: pd.DataFrame) -> str:
    """What the table of differences on the test images asks and shows."""
    clusters, items = content.plan.get("clusters"), content.items
    whole = (
        f" The {escaped(counted_groups(clusters['test'], clusters['name']))} of the test {items} are drawn whole, since the {items} of one "
        f"are alike; p: the signs of whole ones are flipped, which is McNemar's test where each has one {content.item}."
        if clusters
        else ""
    )
    is_alone = bool((frame["low"].isna() & frame["mean"].notna()).any())
    alone = f" {without_interval(content.item)}" if is_alone else ""
    return (
        f"Another question than the one above: would these very models differ on other test {items}? It says nothing about training again, "
        f"and must not be added to the doubt from seeds. Interval: paired bootstrap over test {items}, 95 %. "
        f"Gained and lost: {items} right in the arm only, and in the other only, per seed. "
        f"Intervals and p values are not adjusted for the number of comparisons.{whole}{alone}"
    )


def without_interval(item: str) -> str:
    """Where a difference on the test images has no interval over them, though it has a mean."""
    return f"No interval where a class has one test {item}, all of its {item}s are of one group, or all {item}s differ alike (no spread)."


def _bootstrap(row: Mapping[Any, Any] | None, decimals: int = 2) -> str:
    return interval(row["mean"], row["low"], row["high"], decimals) if row else DASH


# --- the test items ------------------------------------------------------------------------------------------------------------


def item_doubt(content: Content) -> list[Section]:
    """The paired bootstrap over the test items whose scores one's own training code handed back, and where it would say nothing."""
    frame = content.frames.item_differences
    if frame.empty:
        return []
    known = frame[frame["why_not"] == ""]
    legend, body = (item_legend(known), _item_table(content, known)) if len(known) else ("", "")
    skipped = bullets(_without_interval(content, frame[frame["why_not"] != ""]))
    if len(frame["arm"].unique()) <= MOST_IN_MARKDOWN:
        return [Section("Doubt from the test items", paragraphs(legend, body, skipped))]
    details = (Section("Doubt from the test items: every comparison", body, is_minor=True),) if body else ()
    where = elsewhere("The comparisons", "item_differences.csv")
    return [Section("Doubt from the test items", paragraphs(legend, skipped), details, elsewhere=where)]


def item_legend(known: pd.DataFrame) -> str:
    """What the intervals over items are: of what mean, over which items, by which method."""
    clusters = int(known["clusters"].max())
    whole = f" Whole clusters are drawn, since the items of one are alike ({clusters} clusters)." if clusters else ""
    return (
        "Another question than the one above: would these very models differ on other test items? It says nothing about training again, "
        "and must not be added to the doubt from seeds. The mean is over all pairs of an item and a seed, so an item weighs by the seeds "
        "in which both arms were tested on it; where seeds have different numbers of items, it may differ from the mean over seeds in "
        f"the other tables. In brackets is its 95 % interval from {items.RESAMPLES:,} bootstrap resamples (percentiles, widened as few "
        f"{'clusters' if clusters else 'items'} need it) over the {counted(int(known['items'].max()), 'test item')}; not adjusted for "
        f"the number of comparisons.{whole}{f' {ALIKE}' if known['low'].isna().any() else ''}"
    )


def _without_interval(content: Content, rows: pd.DataFrame) -> list[str]:
    """Why comparisons have no interval over items, for each metric and reason; a pair is named once, whatever its roles."""
    pairs: dict[tuple[str, str], dict[tuple[str, ...], str]] = {}
    for row in rows.to_dict("records"):
        arms = row["arm"], row["against"]
        pairs.setdefault((row["metric"], row["why_not"]), {}).setdefault(
            tuple(sorted(arms)), " against ".join(named(content, arm) for arm in arms)
        )
    return [
        f"{escaped(content.metrics.title(metric))}: no interval for {shortened([*those.values()], MOST_PAIRS)}, since {why}."
        for (metric, why), those in pairs.items()
    ]


def _item_table(content: Content, known: pd.DataFrame) -> str:
    """A row for each comparison, which may be with parent and baseline at once, and a column for each metric."""
    metrics, names = content.metrics, list(dict.fromkeys(known["metric"]))
    by_pair = {key: {row["metric"]: row for row in rows} for key, rows in records_by(known, "arm", "against").items()}
    rows = [next(iter(by_metric.values())) for by_metric in by_pair.values()]
    fixed = [["arm", *(named(content, row["arm"]) for row in rows)], ["against", *(named(content, row["against"]) for row in rows)]]
    columns = [
        [escaped(metrics.title(name)), *(_bootstrap(by_metric.get(name), metrics.unit(name).decimals) for by_metric in by_pair.values())]
        for name in names
    ]
    return paragraphs(*(of_columns([*fixed, *(columns[place] for place in places)], left=2) for places in chunked(columns, fixed)))


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
        f"Of {escaped(content.metrics.words(content.name))}: mean ± standard deviation; in brackets the condition minus plain, {paired}, "
        "with its 95 % t interval."
    )
    if any(_is_of_other_test(content, row) for row in rows.to_dict("records")):
        legend += f" {OTHER_MARK}: tested on other {content.items} than plain, so that there is no difference."
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
    beside = OTHER_MARK if _is_of_other_test(content, row) else f"({content.difference(pair)})"
    return f"{content.metrics.value(content.name, row['mean'], row['sd'])}{marked} {beside}"


def _is_of_other_test(content: Content, row: Mapping[Any, Any]) -> bool:
    return content.has_other_test(row["arm"], f"{row['condition']}/{row['arm']}")
