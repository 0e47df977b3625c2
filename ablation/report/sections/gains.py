"""The groups and classes that gained and paid, and the effect of each rung in different orders."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablation.formatting import DASH, change, escaped, interval, p_value, percent, shortened
from ablation.report.frames.classes import on_common_seeds, recall_spreads, seeds_words
from ablation.report.frames.facts import classes_of, groups_of, train_counts
from ablation.report.metrics import with_unit
from ablation.report.sections.common import (
    OTHER_MARK,
    WORSE,
    bullets,
    chunked,
    mark,
    named,
    of_columns,
    of_metric,
    paragraphs,
    pictures,
    table,
)
from ablation.report.sections.content import Content
from ablation.report.sections.families import MOST_IN_MARKDOWN, elsewhere
from ablation.report.sections.section import Section
from ablation.report.statistics.attribution import WAYS, trades
from ablation.report.statistics.descriptive import Records, records_by
from ablation.report.statistics.inference import LEVEL

MOST_CLASSES_IN_A_TABLE = 20
MOST_MOVED = 5
GROUPS = "Groups: those whose difference the t test finds after Holm's correction within the arm's family of comparisons. "
LEGEND = (
    "Recall against the baseline, in points, paired by seed. {groups}Classes: the largest mean gain and loss; \\* where the t test's p is "
    "below 0.05 after Holm's correction over the arm's classes only. *(t only)*: the sign-flip test, corrected alike, does not agree."
)


def classes(content: Content) -> list[Section]:
    """Which class suffers: the largest losses by name, and each class's recall under the arms that matter."""
    frame = content.frames.class_differences
    of_baseline = frame[(frame["role"] == "baseline") & frame["arm"].isin(content.shown)]
    losses = _worst(of_baseline, content) if len(of_baseline) else ""
    recalls = _recalls(content)
    if not recalls:
        return []
    gained = ["[Who gained, who paid](#who-gained-who-paid)"] if len(of_baseline) else []
    more = f"More: {', '.join([*gained, '[Per class](#per-class)', '[Confusion matrices](#confusion-matrices)'])}."
    return [Section("Classes", paragraphs(losses, recalls, more), (), pictures(content, "recall"))]


def _arms_that_matter(content: Content) -> list[str]:
    """The baseline, the ladder's last arm and the best one; without a ladder the first arm and the best one."""
    ladder, best = content.overview.ladder, content.overview.best
    rungs = [ladder.rows[0].arm, ladder.rows[-1].arm] if ladder else content.shown[:1]
    return list(dict.fromkeys([*rungs, *([best.row.arm] if best else [])]))


def _recalls(content: Content) -> str:
    """A row per class: its training and test images, and its recall under the baseline, the ladder's last arm and the best one.

    Where there are many classes, those of the lowest recall under the last of these arms.
    """
    frame, wanted = content.frames.per_class, _arms_that_matter(content)
    common = on_common_seeds(content.frames.recalls, wanted[::-1])  # the best arm counts first
    arms = [arm for arm in wanted if arm in common]
    if not arms:
        return ""
    recalls = {arm: recall_spreads(common[arm]) for arm in arms}
    last = recalls[arms[-1]]
    rows = frame[frame["arm"] == arms[-1]].to_dict("records")
    is_long = len(rows) > MOST_CLASSES_IN_A_TABLE
    shown = sorted(rows, key=lambda row: last[row["class"]][0] if math.isfinite(last[row["class"]][0]) else math.inf)
    shown = shown[:MOST_MOVED] if is_long else rows
    which = f"the {MOST_MOVED} classes of {len(rows)} with the lowest under {named(content, arms[-1])}" if is_long else ""
    seeds = seeds_words(content.frames.recalls, common)
    words = "; ".join(filter(None, ["Recall in percent", f"of {seeds}, which all of these arms have" if seeds else "", which])) + "."
    counts = train_counts(content.plan) if "counts" in content.facts else []
    trained = dict(zip(classes_of(content.plan), counts, strict=False))
    cells = [
        [
            escaped(row["class"]),
            *([str(trained[row["class"]])] if trained else []),
            f"{row['support']:.10g}",
            *(percent(*recalls[arm][row["class"]]) for arm in arms),
        ]
        for row in shown
    ]
    header = ["class", *(["training images"] if trained else []), f"test {content.items}", *(named(content, arm) for arm in arms)]
    return paragraphs(words, table(header, cells))


def gains(content: Content) -> list[Section]:
    """Per arm the groups of classes that gained and paid against the baseline, and the classes that moved most."""
    classes = content.frames.class_differences
    of_baseline = classes[(classes["role"] == "baseline") & classes["arm"].isin(content.shown)]
    groups = [group for group, members in groups_of(content.plan).items() if members]
    trade_words = trades(content.frames.differences, groups)
    by_arm = records_by(of_baseline, "arm")
    if not by_arm:
        return []
    plain = {arm for arm in by_arm if content.planned[arm]["kind"] != "condition"} or set(by_arm)
    moved = {arm: rows for arm, rows in by_arm.items() if arm in plain and not trade_words.get(arm, "no ").startswith("no ")}
    rest = {arm: rows for arm, rows in by_arm.items() if arm not in moved}
    tested = [arm for arm, rows in by_arm.items() if any(row["pairs"] for row in rows)]
    still = [named(content, arm) for arm in tested if arm in plain and arm not in moved and groups]
    has_spread = bool((of_baseline["pairs"] > 1).any())  # or there is no test
    undecided = f"No group's difference withstands the correction: {shortened(still)}." if still and has_spread else ""
    drawn = pictures(content, "slopes", "confusion-difference")
    heading = "Who gained, who paid: the other arms" if moved else "Who gained, who paid: every arm"
    outside, under = ({arm: rows for arm, rows in rest.items() if (arm in plain) == is_plain} for is_plain in (True, False))
    is_long = len(content.shown) > MOST_IN_MARKDOWN
    details = [Section(heading, _movers(content, outside, trade_words))] if outside else []
    if under:
        details.append(Section("Who gained, who paid: under the conditions", _movers(content, under, trade_words), is_minor=is_long))
    recalls = "Recall of every class against the baseline"
    details.append(Section(recalls, _classes(content, {arm: rows for arm, rows in by_arm.items() if arm in plain})))
    if under:
        details.append(Section(f"{recalls}, under the conditions", _classes(content, under), is_minor=is_long))
    legend = LEGEND.format(groups=GROUPS if groups else "")
    body = paragraphs(_worst(of_baseline, content), _movers(content, moved, trade_words) if moved else "", undecided, legend, drawn)
    where = elsewhere("The arms under conditions", "class_differences.csv")
    return [Section("Who gained, who paid", body, tuple(details), elsewhere=where)]


def _worst(rows: pd.DataFrame, content: Content) -> str:
    """The worst trades, named."""
    is_plain = rows["arm"].map({name: arm["kind"] != "condition" for name, arm in content.planned.items()}).astype(bool)
    looked_at = rows[is_plain] if is_plain.any() else rows
    worst = looked_at[looked_at["verdict"].str.startswith(WORSE)].sort_values("mean", kind="stable").head(3).to_dict("records")
    if not (looked_at["pairs"] > 1).any():
        return ""  # one seed is no test
    if not worst:
        which = "any arm" if len(looked_at) == len(rows) else "any arm outside conditions"
        return f"No class of {which} lost against the baseline by the t test (Holm over the arm's classes only)."
    losses = [f"{escaped(row['class'])} under {named(content, row['arm'])} {_loss(row)}" for row in worst]
    return f"The largest losses of a class: {'; '.join(losses)} (Holm over the arm's classes only)."


def _loss(row: Mapping[Any, Any]) -> str:
    return interval(row["mean"], row["low"], row["high"]) + (" (t only)" if "t only" in row["verdict"] else "")


def _movers(content: Content, by_arm: Mapping[str, Records], trade_words: Mapping[str, str]) -> str:
    """Per arm its effect on the groups, if there are any, and on the classes that moved most."""
    groups, cells = ["groups"] if trade_words else [], []
    for arm, rows in by_arm.items():
        ordered = _by_mean(rows)
        most, least = (ordered[place] if ordered else None for place in (-1, 0))
        traded = [trade_words.get(arm, "")] if trade_words else []
        cells.append([named(content, arm), *traded, _mover(most, sign=1), _mover(least, sign=-1)])
    return table(["arm", *groups, "gained most", "lost most"], cells, left=4)


def _by_mean(rows: Records) -> Records:
    """The rows that have a mean, the lowest first."""
    return sorted((row for row in rows if not math.isnan(row["mean"])), key=lambda row: float(row["mean"]))


def _mover(row: Mapping[Any, Any] | None, sign: int) -> str:
    """`cat +3.10*`, or a dash if no class moved in that direction."""
    return f"{escaped(row['class'])} {_marked(row)}" if row is not None and sign * row["mean"] > 0 else DASH


def _marked(row: Mapping[Any, Any]) -> str:
    return change(row["mean"]) + ("\\*" if row["p_t_holm"] <= LEVEL else "")


def _classes(content: Content, by_arm: Mapping[str, Records]) -> str:
    """One column per class if they fit on a page, otherwise the classes that moved most."""
    classes = classes_of(content.plan)
    arms = ["arm", *(named(content, arm) for arm in by_arm)]
    moves = [{row["class"]: row for row in rows} for rows in by_arm.values()]
    columns = [
        [escaped(name), *(_marked(rows[name]) if name in rows and rows[name]["pairs"] else DASH for rows in moves)] for name in classes
    ]
    if len(chunked(columns, [arms])) > 1:
        cells = [[named(content, arm), *_extremes(rows)] for arm, rows in by_arm.items()]
        return table(["arm", f"the {MOST_MOVED} largest gains", f"the {MOST_MOVED} largest losses"], cells, left=3)
    return of_columns([arms, *columns])


def _extremes(rows: Records) -> tuple[str, str]:
    ordered = _by_mean(rows)
    gained, lost = [row for row in reversed(ordered) if row["mean"] > 0], [row for row in ordered if row["mean"] < 0]
    moves = [", ".join(f"{escaped(row['class'])} {_marked(row)}" for row in part[:MOST_MOVED]) for part in (gained, lost)]
    return moves[0] or DASH, moves[1] or DASH


# --- what each rung is worth ---------------------------------------------------------------------------------------------------


def attribution(content: Content) -> list[Section]:
    """The effect of each rung on the ladder, first in, last out and by Shapley; then the effects of crossed settings."""
    name = content.name
    rows, effects = of_metric(content.frames.attribution, name), of_metric(content.frames.effects, name)
    rows = rows[rows["arm"].isin(content.shown)]
    effects = effects[[_is_shown(content, str(group)) for group in effects["group"]]]
    other_ways = rows[rows["way"] != "ladder"]
    parts = []
    for condition in dict.fromkeys(other_ways["condition"]):
        heading = f"Under {escaped(condition)}:" if condition else ""
        parts.append(paragraphs(heading, _ways(content, rows[rows["condition"] == condition])))
    if parts:
        is_other = any(content.has_other_test(*pair) for pair in zip(rows["arm"], rows["against"], strict=True))
        other = [f"{OTHER_MARK}: the two arms were tested on other {content.items}: their means, and no difference."] if is_other else []
        units = with_unit("95 % t intervals", content.metrics.unit(name).differences, "{1}, {0}")
        parts.append(
            bullets(
                [
                    f"What each rung is worth ({units}). *Ladder*: over the rung above it.",
                    "*First in*: alone over the first rung. *Last out*: what is lost without it. *Shapley*: the mean over all orders. "
                    "Where they disagree by more than their intervals, rungs depend on each other.",
                    *other,
                ]
            )
        )
    details = (Section("Effects of swept and crossed settings", _effects(content, effects)),) if len(effects) else ()
    if not parts and not details:
        return []
    body = paragraphs(paragraphs(*parts) or _alone(content), pictures(content, "waterfall"))
    return [Section("Attribution", body, details)]


def _alone(content: Content) -> str:
    """A hint on other orders of the rungs, if the ladder has steps and the study has no other order."""
    kinds = {arm["kind"] for arm in content.plan["arms"]}
    has_step = any(arm["kind"] == "ladder" and arm["parent"] for arm in content.plan["arms"])
    hint = "Only the ladder's own order was run; `add_one`, `drop_one` and `grid` in the file show others."
    return hint if has_step and not kinds & {"add_one", "drop_one", "grid"} else ""


def _is_shown(content: Content, group: str) -> bool:
    """Whether any arm of a sweep or grid is shown."""
    return any(arm.startswith(f"{group}/") for arm in content.shown)


def _ways(content: Content, rows: pd.DataFrame) -> str:
    present = [way for way in WAYS if way in set(rows["way"])]
    levels = {row["arm"]: float(row[f"{content.name}_mean"]) for row in content.arm_records}
    by_rung: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for row in rows.to_dict("records"):
        by_rung.setdefault(row["rung"], {})[row["way"]] = row
    cells = [
        [
            escaped(rung) + mark(content, rung, *(row["arm"] for row in by_way.values())),
            *(_worth(content, by_way[way], levels) if way in by_way else DASH for way in present),
        ]
        for rung, by_way in by_rung.items()
    ]
    return table(["rung", *present], cells)


def _worth(content: Content, row: Mapping[Any, Any], levels: Mapping[str, float]) -> str:
    """The difference; of arms that were tested on other items both means, marked."""
    if not content.has_other_test(row["against"], row["arm"]):
        return content.difference(row)
    both = (content.metrics.value(content.name, levels.get(row[end], math.nan)) for end in ("against", "arm"))
    return f"{' → '.join(both)} {OTHER_MARK}"


def _effects(content: Content, rows: pd.DataFrame) -> str:
    legend = (
        "Main effects average over the other settings; an interaction is a difference of differences. "
        "Paired by seed; p after Holm's correction within the sweep or grid."
    )
    cells = [
        [
            escaped(row["group"]),
            row["kind"],
            escaped(row["term"]),
            content.difference(row),
            str(row["pairs"]),
            p_value(row["p_t"]),
            p_value(row["p_t_holm"]),
        ]
        for row in rows.to_dict("records")
    ]
    return paragraphs(legend, table(["sweep", "kind", "effect", "difference", "pairs", "p t", "p Holm (t)"], cells, left=3))
