"""Who gained and who paid: groups and classes; and what each rung is worth in other orders than the ladder's."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.report import attribution as ways
from ablation.report import metrics
from ablation.report.inference import LEVEL
from ablation.report.section import Section
from ablation.report.sections.common import bullets, difference, images, of_metric, paragraphs
from ablation.report.sections.content import Content
from ablation.report.words import DASH, change, escaped, interval, p_value, shortened, table

MOST_CLASSES_IN_A_TABLE = 20
MOST_MOVED = 5
TOLD = (
    "Recall against the baseline, in points, paired by seed. Groups: only those whose 95 % interval excludes 0. "
    "Classes: the largest mean gain and loss; \\* where p is below 0.05 after Holm's correction over the arm's classes."
)


def gains(content: Content) -> list[Section]:
    """Per arm which groups of classes gained and paid against the baseline, and the classes that moved most."""
    classes = content.frames.class_differences
    own = classes[(classes["role"] == "baseline") & classes["arm"].isin(content.shown)]
    trades = ways.trades(content.frames.differences, list(content.plan["groups"]))
    by_arm = {str(arm): rows for arm, rows in own.groupby("arm", sort=False)}
    if not by_arm:
        return []
    plain = {arm for arm in by_arm if content.planned[arm]["kind"] != "condition"} or set(by_arm)
    moved = {arm: rows for arm, rows in by_arm.items() if arm in plain and not trades.get(arm, "no ").startswith("no ")}
    rest = {arm: rows for arm, rows in by_arm.items() if arm not in moved}
    still = [escaped(arm) for arm in by_arm if arm in plain and arm not in moved]
    others = f"No group of classes surely moved: {shortened(still)}." if still else ""
    pictures = images(content, "slopes", "confusion-difference")
    details = [Section("Who gained, who paid: the other arms", _movers(rest, trades))] if rest else []
    details.append(Section("Recall of every class against the baseline", _classes(content, by_arm)))
    return [
        Section(
            "Who gained, who paid",
            paragraphs(_worst(own, content), _movers(moved, trades) if moved else "", others, TOLD, pictures),
            tuple(details),
        )
    ]


def _worst(rows: pd.DataFrame, content: Content) -> str:
    """The worst trades, named."""
    plain = rows["arm"].map({arm: one["kind"] != "condition" for arm, one in content.planned.items()})
    sure = rows[rows["verdict"].str.startswith("worse") & plain.astype(bool)]
    worst = sure.sort_values("mean", kind="stable").head(3).to_dict("records")
    if not worst:
        return "No class of any arm lost surely against the baseline (adjusted t test over the arm's classes)."
    told = [f"{escaped(row['class'])} under {escaped(row['arm'])} {_told(row)}" for row in worst]
    return f"The worst losses that are sure: {'; '.join(told)}."


def _told(row: Mapping[Any, Any]) -> str:
    return interval(row["mean"], row["low"], row["high"])


def _movers(by_arm: Mapping[str, pd.DataFrame], trades: Mapping[str, str]) -> str:
    cells = []
    for arm, rows in by_arm.items():
        known = rows[rows["mean"].notna()].sort_values("mean", kind="stable")
        most, least = (known.iloc[place].to_dict() if len(known) else None for place in (-1, 0))
        cells.append([escaped(arm), trades.get(arm, ""), _mover(most, sign=1), _mover(least, sign=-1)])
    return table(["arm", "groups", "gained most", "lost most"], cells, left=4)


def _mover(row: Mapping[Any, Any] | None, sign: int) -> str:
    """`cat +3.10*`, or a dash where no class moved that way."""
    return f"{escaped(row['class'])} {_marked(row)}" if row is not None and sign * row["mean"] > 0 else DASH


def _marked(row: Mapping[Any, Any]) -> str:
    return change(row["mean"]) + ("\\*" if row["p_t_holm"] < LEVEL else "")


def _classes(content: Content, by_arm: Mapping[str, pd.DataFrame]) -> str:
    """A column per class where there are few, else the classes that moved most."""
    classes = list(content.plan["classes"])
    if len(classes) > MOST_CLASSES_IN_A_TABLE:
        cells = [[escaped(arm), *_extremes(rows)] for arm, rows in by_arm.items()]
        return table(["arm", f"the {MOST_MOVED} largest gains", f"the {MOST_MOVED} largest losses"], cells, left=3)
    cells = []
    for arm, rows in by_arm.items():
        found = {row["class"]: row for row in rows.to_dict("records")}
        cells.append([escaped(arm), *(_marked(found[name]) if name in found and found[name]["pairs"] else DASH for name in classes)])
    return table(["arm", *map(escaped, classes)], cells)


def _extremes(rows: pd.DataFrame) -> tuple[str, str]:
    ordered = rows[rows["mean"].notna()].sort_values("mean", kind="stable")
    gained, lost = ordered[ordered["mean"] > 0].tail(MOST_MOVED).iloc[::-1], ordered[ordered["mean"] < 0].head(MOST_MOVED)
    told = [", ".join(f"{escaped(row['class'])} {_marked(row)}" for row in part.to_dict("records")) for part in (gained, lost)]
    return told[0] or DASH, told[1] or DASH


def attribution(content: Content) -> list[Section]:
    """The rungs' worth in the ladder's order, first in, last out and by Shapley, side by side; then the effects of crossed settings."""
    name = content.name
    rows, effects = of_metric(content.frames.attribution, name), of_metric(content.frames.effects, name)
    rows = rows[rows["arm"].isin(content.shown)]
    effects = effects[[_is_shown(content, str(group)) for group in effects["group"]]]
    others = rows[rows["way"] != "ladder"]
    parts = []
    for condition in dict.fromkeys(others["condition"]):
        heading = f"Under {escaped(condition)}:" if condition else ""
        parts.append(paragraphs(heading, _ways(name, rows[rows["condition"] == condition])))
    if parts:
        parts.append(
            bullets(
                [
                    f"What each rung is worth ({metrics.unit(name).differences}, 95 % t intervals). *Ladder*: over the rung above it.",
                    "*First in*: alone over the first rung. *Last out*: what is lost without it. *Shapley*: the mean over all orders. "
                    "Where they disagree, rungs depend on each other.",
                ]
            )
        )
    details = (Section("Effects of swept and crossed settings", _effects(name, effects)),) if len(effects) else ()
    alone = "Only the ladder's own order was run; `add_one`, `drop_one` and `grid` in the file show others."
    return [Section("Attribution", paragraphs(*parts) or alone, details)] if parts or details else []


def _is_shown(content: Content, group: str) -> bool:
    """Whether any arm of a sweep or grid is shown."""
    return any(arm.startswith(f"{group}/") for arm in content.shown)


def _ways(name: str, rows: pd.DataFrame) -> str:
    present = [way for way in ways.WAYS if way in set(rows["way"])]
    by_rung: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        by_rung.setdefault(row["rung"], {})[row["way"]] = row
    cells = [[escaped(rung), *(difference(name, own[way]) if way in own else DASH for way in present)] for rung, own in by_rung.items()]
    return table(["rung", *present], cells)


def _effects(name: str, rows: pd.DataFrame) -> str:
    told = (
        "Main effects average over the other settings; an interaction is a difference of differences. "
        "Paired by seed; p after Holm's correction within the sweep."
    )
    cells = [
        [
            escaped(row["group"]),
            row["kind"],
            escaped(row["term"]),
            difference(name, row),
            str(row["pairs"]),
            p_value(row["p_t"]),
            p_value(row["p_t_holm"]),
        ]
        for row in rows.to_dict("records")
    ]
    return paragraphs(told, table(["sweep", "kind", "effect", "difference", "pairs", "p t", "p Holm (t)"], cells, left=3))
