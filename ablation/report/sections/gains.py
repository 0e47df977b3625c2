"""Who gained and who paid: groups and classes; and what each rung is worth in other orders than the ladder's."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.report import attribution as ways
from ablation.report import metrics
from ablation.report.inference import LEVEL
from ablation.report.section import Section
from ablation.report.sections.common import WORSE, bullets, difference, images, mark, named, of_metric, paragraphs
from ablation.report.sections.content import Content
from ablation.report.words import DASH, change, escaped, interval, p_value, shortened, table

MOST_CLASSES_IN_A_TABLE = 20
MOST_MOVED = 5
GROUPS = "Groups: those whose difference the t test finds after Holm's correction within the arm's family of comparisons. "
TOLD = (
    "Recall against the baseline, in points, paired by seed. {groups}Classes: the largest mean gain and loss; \\* where the t test's p is "
    "below 0.05 after Holm's correction over the arm's classes only. *(t only)*: the sign-flip test, corrected alike, does not agree."
)


def gains(content: Content) -> list[Section]:
    """Per arm which groups of classes gained and paid against the baseline, and the classes that moved most."""
    classes = content.frames.class_differences
    own = classes[(classes["role"] == "baseline") & classes["arm"].isin(content.shown)]
    groups = _groups(content)
    trades = ways.trades(content.frames.differences, groups)
    by_arm = {str(arm): rows for arm, rows in own.groupby("arm", sort=False)}
    if not by_arm:
        return []
    plain = {arm for arm in by_arm if content.planned[arm]["kind"] != "condition"} or set(by_arm)
    moved = {arm: rows for arm, rows in by_arm.items() if arm in plain and not trades.get(arm, "no ").startswith("no ")}
    rest = {arm: rows for arm, rows in by_arm.items() if arm not in moved}
    still = [named(content, arm) for arm in by_arm if arm in plain and arm not in moved and groups]
    others = f"No group's difference withstands the correction: {shortened(still)}." if still else ""
    pictures = images(content, "slopes", "confusion-difference")
    heading = "Who gained, who paid: the other arms" if moved else "Who gained, who paid: every arm"
    details = [Section(heading, _movers(content, rest, trades))] if rest else []
    details.append(Section("Recall of every class against the baseline", _classes(content, by_arm)))
    told = TOLD.format(groups=GROUPS if groups else "")
    body = paragraphs(_worst(own, content), _movers(content, moved, trades) if moved else "", others, told, pictures)
    return [Section("Who gained, who paid", body, tuple(details))]


def _groups(content: Content) -> list[str]:
    """The groups that have classes."""
    return [group for group, names in content.plan["groups"].items() if names]


def _worst(rows: pd.DataFrame, content: Content) -> str:
    """The worst trades, named."""
    plain = rows["arm"].map({arm: one["kind"] != "condition" for arm, one in content.planned.items()})
    found = rows[rows["verdict"].str.startswith(WORSE) & plain.astype(bool)]
    worst = found.sort_values("mean", kind="stable").head(3).to_dict("records")
    if not worst:
        return "No class of any arm lost against the baseline by the t test (Holm over the arm's classes only)."
    told = [f"{escaped(row['class'])} under {named(content, row['arm'])} {_told(row)}" for row in worst]
    return f"The largest losses of a class: {'; '.join(told)} (Holm over the arm's classes only)."


def _told(row: Mapping[Any, Any]) -> str:
    return interval(row["mean"], row["low"], row["high"]) + (" (t only)" if "t only" in row["verdict"] else "")


def _movers(content: Content, by_arm: Mapping[str, pd.DataFrame], trades: Mapping[str, str]) -> str:
    """What each arm did to the groups, where there are any, and to the classes that moved most."""
    groups, cells = ["groups"] if trades else [], []
    for arm, rows in by_arm.items():
        known = rows[rows["mean"].notna()].sort_values("mean", kind="stable")
        most, least = (known.iloc[place].to_dict() if len(known) else None for place in (-1, 0))
        told = [trades.get(arm, "")] if trades else []
        cells.append([named(content, arm), *told, _mover(most, sign=1), _mover(least, sign=-1)])
    return table(["arm", *groups, "gained most", "lost most"], cells, left=4)


def _mover(row: Mapping[Any, Any] | None, sign: int) -> str:
    """`cat +3.10*`, or a dash where no class moved that way."""
    return f"{escaped(row['class'])} {_marked(row)}" if row is not None and sign * row["mean"] > 0 else DASH


def _marked(row: Mapping[Any, Any]) -> str:
    return change(row["mean"]) + ("\\*" if row["p_t_holm"] <= LEVEL else "")


def _classes(content: Content, by_arm: Mapping[str, pd.DataFrame]) -> str:
    """A column per class where there are few, else the classes that moved most."""
    classes = list(content.plan["classes"])
    if len(classes) > MOST_CLASSES_IN_A_TABLE:
        cells = [[named(content, arm), *_extremes(rows)] for arm, rows in by_arm.items()]
        return table(["arm", f"the {MOST_MOVED} largest gains", f"the {MOST_MOVED} largest losses"], cells, left=3)
    cells = []
    for arm, rows in by_arm.items():
        found = {row["class"]: row for row in rows.to_dict("records")}
        cells.append([named(content, arm), *(_marked(found[name]) if name in found and found[name]["pairs"] else DASH for name in classes)])
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
        parts.append(paragraphs(heading, _ways(content, rows[rows["condition"] == condition])))
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
    return [Section("Attribution", paragraphs(*parts) or _alone(content), details)] if parts or details else []


def _alone(content: Content) -> str:
    """How to get other orders of the ladder's rungs, where it has steps and the study asks for no other order."""
    kinds = {arm["kind"] for arm in content.plan["arms"]}
    has_step = any(arm["kind"] == "ladder" and arm["parent"] for arm in content.plan["arms"])
    told = "Only the ladder's own order was run; `add_one`, `drop_one` and `grid` in the file show others."
    return told if has_step and not kinds & {"add_one", "drop_one", "grid"} else ""


def _is_shown(content: Content, group: str) -> bool:
    """Whether any arm of a sweep or grid is shown."""
    return any(arm.startswith(f"{group}/") for arm in content.shown)


def _ways(content: Content, rows: pd.DataFrame) -> str:
    present = [way for way in ways.WAYS if way in set(rows["way"])]
    by_rung: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        by_rung.setdefault(row["rung"], {})[row["way"]] = row
    cells = [
        [
            escaped(rung) + mark(content, rung, *(row["arm"] for row in own.values())),
            *(difference(content.name, own[way]) if way in own else DASH for way in present),
        ]
        for rung, own in by_rung.items()
    ]
    return table(["rung", *present], cells)


def _effects(name: str, rows: pd.DataFrame) -> str:
    told = (
        "Main effects average over the other settings; an interaction is a difference of differences. "
        "Paired by seed; p after Holm's correction within the sweep or grid."
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
