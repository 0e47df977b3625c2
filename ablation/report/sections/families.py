"""What follows the best arm: the ladder, then each family of arms with its own small table and figure."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ablation.formatting import DASH, escaped, listed, ranges, shortened
from ablation.report.metrics import with_unit
from ablation.report.overview import Family, Row
from ablation.report.overview.families import best_of, once, rivals
from ablation.report.sections.claims import tally
from ablation.report.sections.common import LABELS, bullets, label_meaning, mean_and_sd, named, of_metric, paragraphs, pictures, table
from ablation.report.sections.content import Content
from ablation.report.sections.section import Section
from ablation.report.statistics.best import has_same_seeds, mean_over, shared_seeds

COMPARISON = "Comparison"
VERDICTS = "Verdict: of the difference to the parent, after Holm's correction within the family{tests}."
KIND = "family/"  # of the families' figures, before the family's name
MOST_NAMED = 3


def families(content: Content) -> list[Section]:
    """The ladder, unless its one arm stands in another family's table, and each family; those of conditions last."""
    overview = content.overview
    ladder, rest = overview.ladder, overview.rest
    plain = [family for family in rest if family.kind != "condition"]
    first = ladder.rows[0] if ladder is not None and len(ladder.rows) == 1 else None
    home = next((family for family in plain if first is not None and family.reference in (None, first)), None)  # where the one arm stands
    shown = [*([] if ladder is None or home else [ladder]), *rest]
    above = {family.name: [first] for family in (home,) if family and first and family.reference is None}
    return [_section(content, family, above=above.get(family.name, []), is_first=place == 0) for place, family in enumerate(shown)]


MOST_IN_MARKDOWN = 12  # arms, beyond which long tables are left out of a Markdown document


def elsewhere(what: str, *files: str) -> str:
    """Where numbers are that a Markdown document leaves out."""
    names = listed([f"`{file}`" for file in files])
    return f"{what}: in the HTML page, and in {names} (`ablate report --output DIR` writes them)."


def _section(content: Content, family: Family, *, above: Sequence[Row] = (), is_first: bool) -> Section:
    """The family's table, what it shows in a sentence, and its figure; the legend stands below the first one.

    `above` are arms of another family that stand on top of the table.
    """
    rows, others = _shown(content, family)
    rows = [*above, *rows]
    is_asked = bool(content.options.sort or content.options.only_changed)  # then another table is the comparison, and comes first
    heading = escaped(family.title) if is_asked else title(family)
    legend = bullets(legend_lines(content)) if is_first and not is_asked else ""
    body = paragraphs(
        lead(content, family), family_table(content, rows, family.reference, family.own), bullets(_notes(content, rows)), legend
    )
    more = f"The other arms under {escaped(family.name.partition(' ')[2])}"
    details = (Section(more, family_table(content, others, best=family.best), is_minor=len(others) > MOST_IN_MARKDOWN),) if others else ()
    return Section(heading, body, details, pictures(content, KIND + family.name), elsewhere=elsewhere("The other arms", "report.csv"))


def title(family: Family) -> str:
    """`Comparison` for the ladder, `Comparison under no-lag` for a condition; other families have their own names."""
    if family.kind == "condition":
        return f"{COMPARISON} under {escaped(family.name.partition(' ')[2])}"
    return COMPARISON if family.kind == "ladder" else escaped(family.title)


def _shown(content: Content, family: Family) -> tuple[list[Row], list[Row]]:
    """The rows to show, and those to fold: of a condition, the arms that are not on the ladder, if that has rungs."""
    rungs = {arm["name"] for arm in content.plan["arms"] if arm["kind"] == "ladder"}
    if family.kind != "condition" or len(rungs) < 2:
        return family.all_rows if family.kind != "condition" else list(family.rows), []
    on_ladder = [row for row in family.rows if row.arm.partition("/")[2] in rungs]
    kept = on_ladder or list(family.rows)
    return kept, [row for row in family.rows if row not in kept]


def lead(content: Content, family: Family) -> str:
    """`Highest mean: **ls** (smoothing.epsilon 0.2), 97.63 ± 0.20. Against ls: 3 inconclusive.`, and over which seeds if arms differ."""
    best = [row for row in family.all_rows if row.arm in family.best]
    extreme = "Lowest" if content.metrics.is_lower_better(content.name) else "Highest"
    names = [f"**{named(content, row.arm)}**{_point(family, row)}" for row in best]
    value = _value(content, family, best) if best else ""
    first = f"{extreme} mean: {shortened(names, MOST_NAMED)}, {value}." if best else ""
    frame = of_metric(content.frames.differences, content.name)
    rows = frame[frame["arm"].isin([row.arm for row in family.rows]) & (frame["role"] == "parent")]
    partner = named(content, family.reference.arm) if family.reference else "the parents"
    return " ".join(filter(None, [first, f"Against {partner}: {tally(content, rows)}." if len(rows) else "", _baseline(content, family)]))


def _baseline(content: Content, family: Family) -> str:
    """Which arm is the baseline of a condition that has none of the study's."""
    against = {str(row.vs_baseline["against"]) for row in family.rows if row.vs_baseline}
    plain = {arm["baseline"] for arm in content.plan["arms"] if arm["kind"] != "condition" and arm["baseline"]}
    condition = family.name.partition(" ")[2]
    is_other = family.kind == "condition" and against and not against <= {f"{condition}/{arm}" for arm in plain}
    return f"Its baseline is {listed([named(content, arm) for arm in sorted(against)])}." if is_other else ""


def _value(content: Content, family: Family, leading: Sequence[Row]) -> str:
    """The best mean: of all seeds of the arm, or of those that the family's complete arms share."""
    values = rivals(once(family.all_rows))
    if not has_same_seeds(values):
        seeds = shared_seeds(values)
        which = f"seed{'s' * (len(seeds) > 1)} {ranges(seeds)}, which the complete arms share"
        return f"{content.metrics.value(content.name, mean_over(leading[0].values, seeds))} on {which}"
    return content.metrics.value(content.name, leading[0].mean, leading[0].sd if len(leading) == 1 else math.nan)


def over_shared(content: Content, arms: Collection[str]) -> str:
    """Over which seeds these arms are ranked, where they have different ones."""
    return "" if content.has_same_seeds(arms) else " (over the seeds that all complete arms of its table share)"


def _point(family: Family, row: Row) -> str:
    """The swept values of a point; those of the parent where they are on the axes."""
    values = family.own if row is family.reference else row.factors if family.kind == "sweep" else {}
    words = ", ".join(f"{escaped(axis)} {escaped(value)}" for axis, value in values.items())
    return f" ({words})" if words else ""


# --- the table ---------------------------------------------------------------------------------------------------------------------


def family_table(
    content: Content,
    rows: Sequence[Row],
    reference: Row | None = None,
    own: Mapping[str, str] | None = None,
    columns: Mapping[str, Mapping[str, str]] | None = None,
    best: Collection[str] | None = None,
) -> str:
    """Six columns: arm, change, metric, difference to parent and to baseline, verdict.

    The `reference` is what the others are compared with, and has its `own` values of what they change. `columns` are others, by title and
    arm. The `best` are bold (None: those of these rows).
    """
    more = columns or {}
    header = ["arm", "change", escaped(content.metrics.title(content.name)), *more, "vs parent", "vs baseline", "verdict"]
    best = best_of(rows, is_lower_better=content.metrics.is_lower_better(content.name)) if best is None else best
    cells = [
        [
            arm_cell(content, row),
            _reference(own or {}) if row is reference else _change(row),
            value_cell(content, row, is_best=row.arm in best),
            *(by_arm[row.arm] for by_arm in more.values()),
            DASH if row is reference else against_cell(content, row, "parent"),
            against_cell(content, row, "baseline"),
            "" if row is reference else row.verdict,
        ]
        for row in rows
    ]
    return table(header, cells, left=2)


def _reference(own: Mapping[str, str]) -> str:
    """`smoothing.epsilon 0.2: the parent, with which the others are compared`."""
    values = ", ".join(f"{escaped(axis)} {escaped(value)}" for axis, value in own.items())
    return f"{values}{': ' if values else ''}*the parent of the others*"


def arm_cell(content: Content, row: Row) -> str:
    """The arm's name with its label and its marks: `mixup (MixUp; L, T)`."""
    few = [f"n {row.n}/{row.most_planned}"] if row.n < row.most_planned else []
    label = [breakable(escaped(row.label))] if row.label not in ("", row.arm) else []
    words = "; ".join([*label, *filter(None, [", ".join([*marks_of(content, row), *few])])])
    return escaped(row.arm) + (f" ({words})" if words else "")


def breakable(text: str) -> str:
    """The text with invisible places to break in long words of mixed case, which a narrow column would not hold."""
    return re.sub(r"(?<=[a-z]{4})(?=[A-Z][a-z]{3})", "\N{ZERO WIDTH SPACE}", text)


def marks_of(content: Content, row: Row) -> list[str]:
    """The marks of the arm's labels; a label without a mark stands for itself."""
    return [LABELS[label][0] if label in LABELS else escaped(label) for label in content.overview.labels_of(row)]


def _change(row: Row) -> str:
    same = f"same training as {escaped(row.same_as)}" if row.same_as else ""
    return "; ".join(filter(None, [escaped(row.change), same]))


def value_cell(content: Content, row: Row, *, is_best: bool = False) -> str:
    """The mean and sd, which lead to the arm's runs; bold if best, blank where no run is done, a dash where none has the metric."""
    if not row.done:
        return ""
    value = content.metrics.value(content.name, row.mean, row.sd)
    if value == DASH:
        return value
    return f"**[{value}](#runs)**" if is_best else f"[{value}](#runs)"


def against_cell(content: Content, row: Row, role: str) -> str:
    """The difference to the parent or the baseline, and of how many pairs, if others have more seeds; a dash if there is none."""
    pair: Mapping[Any, Any] = row.vs_parent if role == "parent" else row.vs_baseline
    if not row.done:
        return ""
    few = f" ({pair['pairs']} of {row.most_planned})" if pair and 0 < pair["pairs"] < row.most_planned else ""
    return content.difference(pair) + few if pair else DASH


# --- what stands below it ------------------------------------------------------------------------------------------------------------


def legend_lines(content: Content) -> list[str]:
    """What the numbers are, and what the marks mean, once for all tables."""
    metrics, name = content.metrics, content.name
    lower = " Lower is better: a difference below zero is a gain." if metrics.is_lower_better(name) else ""
    differences = with_unit(f"of {escaped(metrics.words(name))}", metrics.unit(name).differences, "{1} {0}")
    tests = " (see [Differences](#differences))" if len(content.frames.differences) else ""
    shared = over_shared(content, content.shown)
    numbers = (
        f"{mean_and_sd(content, [name])}; the best is bold{shared}, and a number leads to its runs. "
        f"Differences are {differences}, paired by seed, with the 95 % t interval, which is not adjusted.{lower} "
        f"{'' if content.options.only_changed else VERDICTS.format(tests=tests)}"
    ).strip()
    return [numbers, *_mark_lines(content)]


def _mark_lines(content: Content) -> Iterator[str]:
    """One line for all marks in use: `(L) lag: the averaged weights still hold ...`; reasons are under Labels."""
    rows = {row.arm: row for family in content.overview.families for row in family.rows}
    labels = [label for arm in content.shown for label in content.overview.labels_of(rows[arm])]
    known = [label for label in dict.fromkeys(labels) if label in LABELS]
    meanings = [f"**{LABELS[label][0]}** *{label}*, {label_meaning(content, label)}" for label in known]
    if meanings:
        reasons = " Reasons: [Labels](#labels)." if any(content.planned[arm]["labels"] for arm in content.shown) else ""
        yield f"{'; '.join(meanings)}.{reasons}"
    if any(row.n < row.most_planned for row in rows.values()):
        never = "" if all(row.is_complete for row in rows.values()) else " An arm of which a planned run has no number is never the best."
        yield f"n 1/2: numbers of fewer seeds than other arms have; pairs of fewer are counted in brackets.{never}"


def _notes(content: Content, rows: Sequence[Row]) -> list[str]:
    """The notes on the rows' arms, and whose runs a chosen arm has."""
    records = {row["arm"]: row for row in content.arm_records}
    found = [records[row.arm] for row in rows]
    notes = [f"{named(content, row['arm'])}: {escaped(row['note'])}" for row in found if row["note"]]
    return notes + [f"Chosen for {named(content, row['arm'])}: {escaped(row['chosen'])}" for row in found if row["chosen"]]
