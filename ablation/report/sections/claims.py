"""What can be claimed from the numbers, and what cannot, in plain words."""

import math
from collections.abc import Iterator

import pandas as pd

from ablation.formatting import counted, escaped, listed, shortened
from ablation.report.sections.common import (
    BETTER,
    INCONCLUSIVE,
    NO_DIFFERENCE,
    WORSE,
    bullets,
    condition_of,
    label_meaning,
    named,
    of_metric,
    paragraphs,
    seeds_needed,
)
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section
from ablation.report.statistics import inference
from ablation.report.statistics.best import once
from ablation.report.statistics.differences import NO_EFFECT, NOT_COMPARABLE, NOT_RUN, SAME, UNTESTED

MOST_NAMED = 5
FLIP = "a sign-flip test"
LESS, T_ONLY = "by less than", "t only"  # in verdicts


def claims(content: Content) -> list[Section]:
    """Two lists: what can be claimed, and what cannot."""
    rows = of_metric(content.frames.differences, content.name)
    can, cannot = list(_findings(content, rows)), list(_limits(content, rows))
    reason = content.metrics.reason if content.name == content.metrics.default else ""
    why = f" ({escaped(reason)})" if reason else ""
    start = (
        f"Verdicts are of {escaped(content.metrics.words(content.name))}{why}, at 0.05 after Holm's correction within each family of "
        "comparisons."
    )
    legend = f"(T): {label_meaning(content, 'selected on test')}." if content.on_test & {*content.shown, *rows["against"]} else ""
    limits = ("What cannot:", bullets(cannot)) if cannot else ()
    return [Section("What can be claimed", paragraphs(start if len(rows) else "", legend, bullets(can), *limits))]


# --- what can be claimed -------------------------------------------------------------------------------------------------------


def _findings(content: Content, rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        yield "Only one arm: nothing to compare." if len(content.shown) == 1 else "Nothing to compare: no arm has a parent or a baseline."
        return
    if not rows["pairs"].any() and not (rows["verdict"] == NOT_COMPARABLE).any():
        yield "No arm has a seed in common with its baseline or its parent, so no difference is claimed."
        return
    condition = rows["arm"].map(condition_of(content))
    for role in ("baseline", "parent"):
        yield from _of_role(content, rows[(condition == "") & (rows["role"] == role)], f"its {role}")
    for name in dict.fromkeys(condition[condition != ""]):
        yield from _of_condition(content, rows[condition == name], str(name))
    yield from _void(content, rows[rows["verdict"] == NO_EFFECT])


def _once(content: Content, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows; of those that were tested, each training once against the same partner, whatever their names: see `statistics.best`."""
    values, same_as = content.values(content.name), {arm["name"]: arm["same_as"] for arm in content.plan["arms"] if arm.get("same_as")}
    partners = rows["against"].map(lambda arm: same_as.get(arm, arm))
    is_kept = rows["verdict"].isin(UNTESTED)
    for _, part in rows[~is_kept].groupby(partners):
        arms = once({arm: values[arm] for arm in part["arm"]}, same_as)
        is_kept |= rows.index.isin(part.index[part["arm"].isin(arms)])
    return rows[is_kept]


def _void(content: Content, rows: pd.DataFrame) -> Iterator[str]:
    """The arms whose seeds have no effect, of those of these rows."""
    void = {arm["name"] for arm in content.plan["arms"] if arm.get("no_effect")}
    arms = [arm for arm in dict.fromkeys([*rows["arm"], *rows["against"]]) if arm in void]
    if arms:
        yield f"**Nothing is claimed** of comparisons with {shortened([named(content, arm) for arm in arms])}: {NO_EFFECT}."


def _of_role(content: Content, rows: pd.DataFrame, partner: str) -> Iterator[str]:
    compared = _once(content, rows[~rows["verdict"].isin([*UNTESTED, NO_EFFECT])])
    if len(rows) and (rows["verdict"] == "").all():
        yield f"No arm has a seed in common with {partner}, so no difference is claimed."
    elif len(rows) and (rows["verdict"] == SAME).all():
        yield f"No arm is another training than {partner}."
    elif len(rows) and rows["verdict"].isin(UNTESTED).all():
        yield f"No arm can be compared with {partner}."
    for word, verdict in (("Better", BETTER), ("Worse", WORSE)):
        yield from _directed(content, compared[compared["verdict"].str.startswith(verdict)], f"{word} than {partner}")
    same = compared[compared["verdict"].str.startswith(NO_DIFFERENCE)]
    yield from _named(content, same, f"**No difference beyond {content.margin} from {partner}**")
    undecided = int(compared["verdict"].str.startswith(INCONCLUSIVE).sum())
    if undecided:
        yield f"**Inconclusive against {partner}**: {undecided} of {counted(len(compared), 'comparison')}."


def _directed(content: Content, rows: pd.DataFrame, claim_words: str) -> Iterator[str]:
    """The arms of which that is claimed: first where both tests confirm it, and those shown to differ by less than the margin apart."""
    is_less, is_t_only = (rows["verdict"].str.contains(words, regex=False) for words in (LESS, T_ONLY))
    less = f"{claim_words}, {LESS} {content.margin}"
    for which, start in ((~is_less, claim_words), (is_less, less)):
        yield from _named(content, rows[which & ~is_t_only], f"**{start}**")
    for which, start in ((~is_less, claim_words), (is_less, f"{less},")):
        yield from _named(content, rows[which & is_t_only], f"**{start} by the t test only** (the sign-flip test does not confirm it)")


def _of_condition(content: Content, rows: pd.DataFrame, name: str) -> Iterator[str]:
    """The condition's effect on the plain arms, and the tallies of the comparisons within it."""
    is_within = rows["against"].map(condition_of(content)) == name
    changed = rows[~is_within & (rows["pairs"] > 0)].to_dict("records")
    if changed:
        changes = [f"{named(content, row['against'])} by {content.difference(row)} ({row['verdict']})" for row in changed]
        yield f"Condition {escaped(name)} changes {shortened(changes, MOST_NAMED)}."
    for role, partner in (("parent", "parents"), ("baseline", "baseline")):
        within = rows[is_within & (rows["role"] == role)]
        if len(within):
            yield f"Under {escaped(name)}, against its own {partner}: {tally(content, within)}."


def _named(content: Content, rows: pd.DataFrame, start: str) -> Iterator[str]:
    """The arms with their intervals, the largest difference first."""
    if not rows.empty:
        ordered = rows.loc[rows["mean"].abs().sort_values(ascending=False, kind="stable").index].to_dict("records")
        arms = [f"{named(content, row['arm'])} {content.difference(row)}" for row in ordered]
        yield f"{start} ({len(arms)}): {shortened(arms, MOST_NAMED)}."


def tally(content: Content, rows: pd.DataFrame) -> str:
    """`3 better (1 by the t test only), 1 worse by less than the margin, 5 without a difference beyond the margin and 15 inconclusive`."""
    verdicts = _once(content, rows)["verdict"]
    words = []
    for start, claim_words in ((BETTER, "better"), (WORSE, "worse"), (NO_DIFFERENCE, "without a difference beyond the margin")):
        claimed = verdicts[verdicts.str.startswith(start)]
        is_less = claimed.str.contains(LESS, regex=False)
        for some, bound in ((claimed[~is_less], ""), (claimed[is_less], f" {LESS} the margin")):
            by_t_only = int(some.str.contains(T_ONLY, regex=False).sum())
            words += [f"{len(some)} {claim_words}{bound}{_by_t_only(by_t_only, len(some))}"] if len(some) else []
    for is_such, other_words in (
        (verdicts.str.startswith(INCONCLUSIVE), "inconclusive"),
        (verdicts == SAME, "of the same training"),
        (verdicts == NO_EFFECT, "whose seeds have no effect"),
        (verdicts == NOT_COMPARABLE, "tested on other items"),
        (verdicts.str.endswith(NOT_RUN), "whose partner was not run"),
        (verdicts == "", "without a pair of seeds"),
    ):
        number = int(is_such.sum())
        words += [f"{number} {other_words}"] if number else []
    return listed(words) or "nothing to compare"


def _by_t_only(number: int, total: int) -> str:
    """How many of so many claims only the t test makes."""
    return "" if not number else " by the t test only" if number == total else f" ({number} by the t test only)"


# --- what cannot ---------------------------------------------------------------------------------------------------------------


def _limits(content: Content, rows: pd.DataFrame) -> Iterator[str]:
    tested = rows[~rows["verdict"].isin(UNTESTED)]
    if len(tested):
        yield claim(int(tested["pairs"].max()), int(rows["tests"].max()))
    yield from _power(content, rows)
    yield from _marked(content)
    yield from (escaped(note) + "." for note in content.plan["notes"])
    yield from _devices(content)
    if content.superseded:
        yield f"Not in the newest plan, and not counted: {counted(len(content.superseded), 'run')} in the store (see Provenance)."


def _devices(content: Content) -> Iterator[str]:
    """On which kinds of device the runs were made, if there are several."""
    done = content.frames.runs.loc[content.frames.runs["state"] == "done", ["run_id"]].astype(str).drop_duplicates()
    numbers = done.merge(content.recorded, on="run_id")["device"].value_counts()
    kinds = [f"{counted(number, 'run')} on {escaped(str(kind))}" for kind, number in numbers.items() if kind]
    if len(kinds) > 1:
        yield f"The runs were made on {len(kinds)} kinds of device, which round differently: {listed(kinds)}."


def claim(pairs: int, tests: int) -> str:
    """What `pairs` seeds can show if the largest family has so many tests."""
    needed, of_family = inference.seeds_needed_to_flip(), inference.seeds_needed_to_flip(tests)
    after = f" ({of_family} after Holm over {tests} comparisons, the largest family)" if tests > 1 else ""
    if pairs == 1:
        return f"One seed gives no interval: no difference can be told from chance. {needed} seeds can{after}."
    best = f"{inference.smallest_p(pairs):.2g}"
    if pairs < needed:
        return f"{pairs} seeds cannot reach 0.05 by {FLIP} (the smallest p is {best}); {needed} can{after}."
    most = int(inference.LEVEL / inference.smallest_p(pairs))
    reach = f"With {pairs} seeds {FLIP} can reach p = {best} at best, which withstands Holm over up to {counted(most, 'comparison')}"
    return f"{reach}; the largest family has {tests}, for which {of_family} seeds are needed." if pairs < of_family else f"{reach}."


def _power(content: Content, rows: pd.DataFrame) -> Iterator[str]:
    """The number of seeds that would find a difference as large as the margin."""
    known = rows[rows["seeds_needed"].notna()]["seeds_needed"]
    if not known.empty and content.has_margin:
        low, high = float(known.min()), float(known.max())
        of_all = f"{'about ' if math.isfinite(low) else ''}{seeds_needed(low)} seeds are"
        seeds = of_all if low == high else f"{seeds_needed(low)} to {seeds_needed(high)} seeds, depending on the family, are"
        has_unit = content.metrics.unit(content.name).differences
        target = content.margin if has_unit else f"a difference of {content.margin},"  # else two numbers would follow each other
        yield (
            f"To resolve {target} {seeds} needed (paired t test, 80 % power, at the first step of Holm's correction); "
            f"the study has {len(content.plan['seeds'])}."
        )


def _marked(content: Content) -> Iterator[str]:
    """Reservations about single arms."""
    near = content.overview.near_chance
    if near:
        yield f"**Near chance**, so little was learnt: {shortened([named(content, arm) for arm in near])}."
    repeated = [f"{named(content, arm)} ({why})" for arm, why in (content.own.no_effect.items() if content.own else ())]
    if repeated:
        yield f"**Seed without effect**, so that its intervals mean nothing: {shortened(repeated)}."
    unchanged = [f"{named(content, arm)} ({why})" for arm, why in (content.own.no_change.items() if content.own else ())]
    if unchanged:
        yield f"**Change without effect**: {shortened(unchanged)}."
    on_test = [named(content, arm) for arm in content.shown if arm in content.on_test]
    if on_test:
        yield f"**Chosen on the test set**: {shortened(on_test)}."
    short = [named(content, row["arm"]) for row in content.frames.arms.to_dict("records") if row["n"] < row["planned"]]
    if short:
        yield f"**Fewer runs than planned**: {shortened(short)} (see Not done)."
