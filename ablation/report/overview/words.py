"""The overview's sentences: the best arm, how much of its lead is luck, what can be claimed, and what would claim more."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ablation.formatting import counted, escaped, ranges, shortened
from ablation.report.metrics import MetricTable
from ablation.report.overview.best import Best
from ablation.report.overview.families import Row, once, plain_rows, rivals
from ablation.report.overview.overview import Overview
from ablation.report.overview.seeds import More
from ablation.report.statistics import inference
from ablation.report.statistics.best import may_be_best
from ablation.report.statistics.differences import NO_EFFECT, NOT_RUN, UNTESTED

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference"  # how verdicts begin
T_ONLY = "t only"
THE = "the "  # how metrics' names begin that are phrases
MOST_NAMED = 4
FAMILIES = {
    "ladder": "the ladder's", "variants": "the variants'", "drop_one": "drop one's", "add_one": "add one's", "grid": "the grid's",
}  # fmt: skip


@dataclass(frozen=True)
class Marks:
    """How a document writes names, words that stand out, and commands; and where it has a long command, if not in the sentence."""

    name: Callable[[str], str]
    strong: Callable[[str], str]
    code: Callable[[str], str]
    long_command: str = ""


PLAIN = Marks(name=str, strong=str, code=str)
MARKDOWN = Marks(
    name=escaped,
    strong=lambda text: f"**{text}**",
    code=lambda text: f"`{text}`",
    long_command="see [Provenance](#provenance).",
)


def sentences(overview: Overview, metrics: MetricTable, marks: Marks = PLAIN) -> list[str]:
    """That little was learnt, the best arm with its difference, luck, claims, and what more seeds would show; each a short paragraph."""
    chance, is_nothing = _near_chance(overview, marks)
    found = [_best(overview, metrics, marks), _claims(overview, marks), "" if is_nothing else chance, _more(overview, metrics, marks)]
    return [sentence for sentence in ([chance, *found] if is_nothing else found) if sentence]


# --- whether anything was learnt -------------------------------------------------------------------------------------------------


def _near_chance(overview: Overview, marks: Marks) -> tuple[str, bool]:
    """The arms that are near chance, and whether all or the best one are among them, so that nothing else is worth reading."""
    near, arms = overview.near_chance, [row for family in overview.families for row in family.rows]
    finished = sum(row.done > 0 for row in arms)
    if not near:
        return "", False
    means = "little was learnt, so ranks mean nothing."
    if len(near) == finished == 1:
        return f"{marks.strong(marks.name(near[0]))} is near chance: little was learnt.", True
    if len(near) == finished:
        which = "All arms" if finished == len(arms) else f"All {finished} arms with finished runs"
        return f"{marks.strong(f'{which} are near chance')}: {means}", True
    some = f"{len(near)} of {finished} arms {_are(len(near))} near chance"
    if overview.best and overview.best.row.arm in near:
        return f"{marks.strong(f'{some}, the best one among them')}: {means}", True
    return f"{some}, so little was learnt there: {shortened([marks.name(arm) for arm in near], MOST_NAMED)}.", False


# --- the best arm ----------------------------------------------------------------------------------------------------------------


def _best(overview: Overview, metrics: MetricTable, marks: Marks) -> str:
    best, name = overview.best, overview.metric
    if best is None:
        return _no_best(overview, metrics, marks)
    row, extreme = best.row, "lowest" if metrics.is_lower_better(name) else "highest"
    title = marks.name(metrics.words(name))
    ties = counted(best.tied, "other arm") if 0 < best.tied < best.others else ""
    has = f"{'has on average' if _is_phrase(title) else 'has'}{f', with {ties},' if ties else ''}"
    what = title.removeprefix(THE) if _is_phrase(title) else f"mean {title}"
    against, is_all = row.vs_baseline, len(once(plain_rows(overview.families))) == best.others + 1
    ranked = f"{best.others + 1} arms{'' if is_all else ' that can be ranked'}"
    of = "" if is_all or best.is_partial else f" of the {ranked}"
    start = f"{marks.strong(marks.name(row.arm))} {has} the {extreme} {what}{of}, {_mean(best, name, metrics, ranked)}"
    luck = f"{_luck(best, name, metrics, is_all=is_all and not overview.is_part)}{_ahead(overview, best, metrics, marks)}"
    if not against:
        which = "no arm shown" if overview.is_part else "no arm" if is_all else "none that can be ranked"
        return f"{start}: it is the baseline, and {which} has a better mean.{luck}"
    partner = _name(overview, str(against["against"]), marks)
    if not against["pairs"]:
        would = f"{partner}, to which it would be compared"
        why = f"{would}, was not run" if str(against["verdict"]).endswith(NOT_RUN) else f"it has no seed in common with {would}"
        return f"{start}; {why}.{luck}"
    unit = metrics.unit(name).differences
    over = f" over {counted(against['pairs'], 'shared seed')}" if best.is_partial or against["pairs"] < row.n else ""
    difference = f"{metrics.interval(name, against)}{f' {unit}' if unit else ''} against {partner}{over}"
    return f"{start}: {difference}, {_shown(str(against['verdict']))}.{luck}"


def _mean(best: Best, name: str, metrics: MetricTable, ranked: str) -> str:
    """`68.95 ± 0.20`; where arms have different seeds, over those that all have, with the arm's own mean if it has more.

    `ranked` are the arms in words.
    """
    row = best.row
    own = metrics.value(name, row.mean, row.sd)
    if not best.is_partial:
        return own
    few = f"seed{'s' * (len(best.seeds) > 1)} {ranges(best.seeds)}, which all {ranked} have"
    more = f" ({own} over its own {row.n})" if row.n > len(best.seeds) else ""
    return f"{metrics.value(name, best.mean)} on {few}{more}"


def _ahead(overview: Overview, best: Best, metrics: MetricTable, marks: Marks) -> str:
    """Arms with a better mean that are not ranked with the others, one for each reason: ` Not ranked: no-lag/cb has 70.72 ± 0.20.`"""
    under = {row.arm for family in overview.families if family.kind == "condition" for row in family.rows}
    reasons = {
        "under a condition": [row for row in best.ahead if row.arm in under],
        "with runs missing": [row for row in best.ahead if row.arm not in under],
    }
    better = "lower" if metrics.is_lower_better(overview.metric) else "higher"
    found = [
        f"{marks.name(rows[0].arm)}, {metrics.value(overview.metric, rows[0].mean, rows[0].sd)}"
        f"{f' on {rows[0].n} of {rows[0].planned} seeds' if rows[0].arm not in under else ''}"
        f"{f', and {len(rows) - 1} more' if len(rows) > 1 else ''} ({why})"
        for why, rows in reasons.items()
        if rows
    ]
    return f" {better.capitalize()}, but not ranked with them: {'; '.join(found)}." if found else ""


def _no_best(overview: Overview, metrics: MetricTable, marks: Marks) -> str:
    """Why there is no best arm: numbers are missing, no seed is shared, or there is one arm only, whose value is told."""
    rows = [row for family in overview.families for row in family.rows]
    if overview.num_done < overview.num_runs or not rows:
        return f"No best arm yet: {overview.num_done} of {counted(overview.num_runs, 'run')} {_are(overview.num_runs)} done."
    if all(row.is_on_test for row in rows):
        return "No best arm: all were chosen on the test items, so none can be ranked."
    if not any(may_be_best(row.labels) for row in rows):
        return "No best arm: all were chosen on the test items or tested on other ones, so none can be ranked."
    title = marks.name(metrics.words(overview.metric))
    if not any(row.n for row in rows):
        return f"No best arm: no run has a number for {title}."
    compared = rivals(once(plain_rows(overview.families)))
    if len(compared) > 1:
        return f"No best arm: no seed is shared by all {len(compared)} arms that are complete, and means over different seeds say little."
    row = next((row for row in rows if row.arm in compared), None)
    if row is None:
        return f"No best arm: no arm has a number for {title} of all its runs."
    which = "is the only arm" if len(rows) == 1 else "is the only arm that can be compared"
    value = metrics.value(overview.metric, row.mean, row.sd)
    found = f"{title} is {value} on average" if _is_phrase(title) else f"mean {title} {value}"
    return f"{marks.strong(marks.name(row.arm))} {which}: {found}."


def _is_phrase(title: str) -> bool:
    """Whether a metric's title, such as `the recall of the worst class`, cannot stand behind `mean`."""
    return title.startswith(THE)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _shown(verdict: str) -> str:
    """What the verdict against the baseline says, in words: `shown to be better, by less than 0.5`."""
    if verdict == NO_EFFECT:
        return f"of which nothing is claimed ({NO_EFFECT})"
    if verdict.startswith(BETTER):
        return f"shown to be {verdict.replace(f' ({T_ONLY})', '')}{' by the t test only' if T_ONLY in verdict else ''}"
    return f"{verdict}: not shown to be better" if verdict else "not shown to be better"


def _luck(best: Best, name: str, metrics: MetricTable, *, is_all: bool) -> str:
    """How many arms may be as good, and what is left of the lead where luck is taken out. `is_all`: whether no other arm is shown."""
    if best.tied == best.others:
        return f" {'All arms' if is_all else f'The {best.others + 1} arms that can be ranked'} have the same mean."
    tests = f" by paired t tests with Holm's correction over these {best.others}" if best.others > 1 else " by a paired t test"
    if best.untested and len(best.untested) < best.others:
        tests += f"; {len(best.untested)} could not be tested"
    many = "" if len(best.alike) == best.others else f"{len(best.alike)} of "
    alike = (
        f" {many}{'The' if not many else 'the'} {counted(best.others, 'other arm')} cannot be told apart from it{tests}."
        if best.alike
        else ""
    )
    if not math.isfinite(best.repeated) or not best.row.vs_baseline:  # the baseline is not compared with itself
        return alike
    left = metrics.difference(name, best.repeated)
    if best.is_steady:
        whichever = f"It is the best of {best.others + 1} whichever seed is left out"
        return f"{alike} {whichever}, which says nothing of how much of its lead is luck."
    how = "picked on the other seeds and measured on the one left out, the difference is"
    return f"{alike} The best of {best.others + 1} is partly luck: {how} {left}."


# --- what can be claimed -----------------------------------------------------------------------------------------------------------


def _claims(overview: Overview, marks: Marks) -> str:
    """The arms that differ from the baseline, and the number of those that are open; none under conditions, and each training once."""
    rows = once([row for family in overview.families if family.kind != "condition" for row in family.rows])
    tested = [row for row in rows if row.vs_baseline and row.vs_baseline["verdict"] not in UNTESTED]
    compared = [row for row in tested if row.vs_baseline["verdict"] != NO_EFFECT]
    void = f" Nothing is claimed of {counted(len(tested) - len(compared), 'other arm' if compared else 'arm')}: {NO_EFFECT}."
    return (_claimed(overview, compared, marks) + (void if len(compared) < len(tested) else "")).strip()


def _claimed(overview: Overview, compared: Sequence[Row], marks: Marks) -> str:
    if not compared:
        return ""
    parts = list(_parts(overview, compared, marks))
    baseline = f"the baseline{_mark(overview, *(str(row.vs_baseline['against']) for row in compared))}"
    undecided = sum(str(row.vs_baseline["verdict"]).startswith("inconclusive") for row in compared)
    if undecided == len(compared):
        return f"Claimed: nothing. {_all(undecided)} against {baseline} {_are(undecided)} inconclusive."
    rest = [f"{undecided} of {counted(len(compared), 'comparison')} inconclusive"] if undecided else []
    return f"Claimed against {baseline}: {'; '.join([*parts, *rest])}."


def _all(number: int) -> str:
    return "The comparison" if number == 1 else f"All {number} comparisons"


def _parts(overview: Overview, rows: Sequence[Row], marks: Marks) -> Iterator[str]:
    by_verdict: dict[str, list[Row]] = {}
    for row in rows:
        by_verdict.setdefault(str(row.vs_baseline["verdict"]), []).append(row)
    for word in (BETTER, WORSE, NO_DIFFERENCE):
        for verdict in sorted(
            (verdict for verdict in by_verdict if verdict.startswith(word)), key=lambda verdict: (T_ONLY in verdict, verdict)
        ):
            ordered = sorted(by_verdict[verdict], key=lambda row: -abs(row.vs_baseline["mean"]))
            how = "no difference beyond the margin" if word == NO_DIFFERENCE else verdict.replace(f"({T_ONLY})", "(by the t test only)")
            yield f"{marks.strong(how)}: {shortened([_name(overview, row.arm, marks) for row in ordered], MOST_NAMED)}"


def _name(overview: Overview, arm: str, marks: Marks) -> str:
    return f"{marks.name(arm)}{_mark(overview, arm)}"


def _mark(overview: Overview, *arms: str) -> str:
    """The mark of a name if one of its arms was chosen on the test items."""
    return "" if overview.on_test.isdisjoint(arms) else " (T)"


# --- what would claim more ---------------------------------------------------------------------------------------------------------


def _more(overview: Overview, metrics: MetricTable, marks: Marks) -> str:
    more = overview.more
    if more is None or (overview.best and overview.best.row.vs_baseline.get("verdict") == NO_EFFECT):
        return ""
    family = FAMILIES.get(more.family) or f"{marks.name(more.family)}'s"
    test = f"sign-flip test, Holm over {family} {counted(more.tests, 'comparison')}" if more.tests > 1 else "sign-flip test"
    seeds = counted(more.present, "seed" if more.is_even else "shared seed")
    can = f"cannot confirm a difference, {more.floor} can" if more.present < more.floor else "can confirm a difference"
    arms = f" of {shortened([marks.name(arm) for arm in more.fewest], MOST_NAMED)}" if more.fewest else ""
    sizes = _sizes(more, metrics.margin_words(overview.metric))
    text = f"{marks.strong(f'{seeds}{arms} {can}')} ({test}).{f' To find {sizes}.' if sizes else ''}"
    command = marks.long_command if more.has_long_command and marks.long_command else marks.code(more.command)
    return f"{text} To claim more: {command}" if more.command else text


def _sizes(more: More, margin: str) -> str:
    """`a difference like the best arm's takes about 9 seeds, one of 0.5 points about 332`; empty where neither number is known."""
    luck = ", without the luck of having been picked," if more.is_without_luck else ""
    known = {
        f"a difference like the best arm's{luck}": more.for_best,
        f"a difference of {margin}": more.for_margin,
    }
    words = [
        f"{what} takes {f'about {number:.0f}' if math.isfinite(number) else f'more than {inference.MOST_SEEDS:,}'} seeds"
        for what, number in known.items()
        if not math.isnan(number)
    ]
    return " and ".join(words)
