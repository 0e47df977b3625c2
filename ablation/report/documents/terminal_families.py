"""Sweeps and conditions in a terminal, folded to a line or a few each; and the labels of the arms."""

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from ablation.formatting import shortened
from ablation.report.documents.terminal_table import BEST, GAP, ON_TEST
from ablation.report.documents.terminal_text import Screen, filled, padded, short_names, widest
from ablation.report.metrics import MetricTable
from ablation.report.overview import Family, Overview, Row

LONGEST_NAME, LONGEST_VALUE, LONGEST_CHANGE, MOST_NAMED = 36, 24, 40, 4  # cells; arms of a label or verdict
UNDECIDED = "inconclusive"  # how such verdicts begin


def folded_blocks(found: Overview, metrics: MetricTable, screen: Screen) -> list[list[Text]]:
    """A block for the sweeps and one for the conditions."""
    name = found.metric
    rows = {row.arm: row for family in found.families for row in family.rows}
    sweeps = {_of(family): _sweep(family, name, metrics) for family in found.families if family.kind == "sweep"}
    conditions = {
        f"{_condition(family)} ({len(family.rows)})": _folded(family, rows, name, metrics)
        for family in found.families
        if family.kind == "condition"
    }
    return [
        _block("Sweeps: the mean of each value", sweeps, screen),
        _block("Conditions (arms again under another base); verdicts against the parent there", conditions, screen),
    ]


def label_lines(found: Overview, screen: Screen) -> list[Text]:
    """The arms of each label, and those that are one training; not those under conditions."""
    rows = [row for family in found.families if family.kind != "condition" for row in family.rows]
    names = short_names(list(dict.fromkeys([*(row.arm for row in rows), *(row.same_as for row in rows if row.same_as)])), LONGEST_NAME)
    labels = {row.arm: found.labels_of(row) for row in rows}
    known = dict.fromkeys(label for of_arm in labels.values() for label in of_arm)
    bodies = {label: shortened([names[arm] for arm, of_arm in labels.items() if label in of_arm], MOST_NAMED).split() for label in known}
    alike = [f"{names[row.arm]} = {names[row.same_as]}" for row in rows if row.same_as]
    return _block("Labels", bodies | ({"same training": shortened(alike, MOST_NAMED).split()} if alike else {}), screen)


def _block(title: str, bodies: Mapping[str, Sequence[str]], screen: Screen) -> list[Text]:
    """A title, and lines for each body beside its head; a body's parts are kept whole where they fit."""
    if not bodies:
        return []
    heads = short_names(list(bodies), screen.width // 3)
    width = widest(list(heads.values()))
    lines = [
        line
        for head, parts in bodies.items()
        for line in filled(
            [screen.letters(part) for part in parts],
            screen.width,
            f"{GAP}{padded(screen.letters(heads[head]), width)}{GAP}",
            " " * (width + 2 * len(GAP)),
        )
    ]
    return [*(Text(line, "bold") for line in filled(title.split(), screen.width)), *map(Text, lines)]


# --- sweeps ----------------------------------------------------------------------------------------------------------------------


def _of(family: Family) -> str:
    name = family.name.partition(" ")[2]
    return f"{name} of {family.reference.arm}" if family.reference else name


def _sweep(family: Family, metric: str, metrics: MetricTable) -> list[str]:
    """`0.1: 96.52,`, ..., `0.2 (ls): 97.49 *;`, `all 3 inconclusive`."""
    points = _points(family)
    labels = {row.arm: label for label, row in points}
    values = [f"{labels[row.arm]}: {_mean(row, metric, metrics)}{BEST * (row.arm in family.best)}" for _, row in points]
    words = list(_verdicts(family.rows, labels))
    return [*(f"{value}," for value in values[:-1]), values[-1] + ";" * bool(words), *words]


def _points(family: Family) -> list[tuple[str, Row]]:
    """The swept values and their arms, the parent's own value among them if it is a number, else the parent first."""
    short = short_names([_value(row) for row in family.rows], LONGEST_VALUE)
    points = [(short[_value(row)] + (" (chosen)" if "chosen" in row.labels else ""), row) for row in family.rows]
    reference, own = family.reference, "/".join(family.own.values())
    if reference is None:
        return points
    name = next(iter(short_names([reference.arm], LONGEST_VALUE).values()))
    place = sum(_number(_value(row)) < _number(own) for row in family.rows)
    return [*points[:place], (f"{own} ({name})" if own else name, reference), *points[place:]]


def _value(row: Row) -> str:
    return row.arm.partition("/")[2] or row.arm


def _number(text: str) -> float:
    """The number, or one that is smaller than no other."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _mean(row: Row, metric: str, metrics: MetricTable) -> str:
    missing = f" ({row.n} of {row.most_planned})" if row.n < row.most_planned else ""
    return metrics.value(metric, row.mean) + ON_TEST * row.is_on_test + missing


# --- conditions ------------------------------------------------------------------------------------------------------------------


def _condition(family: Family) -> str:
    return family.name.partition(" ")[2]


def _folded(family: Family, rows: Mapping[str, Row], metric: str, metrics: MetricTable) -> list[str]:
    """Its change, what it does to its first arm, its best arm, and what the comparisons within it show.

    If the condition's own first arm, the one that is compared with a plain arm, is not shown, neither is what the condition does.
    """
    first, prefix = family.rows[0], f"{_condition(family)}/"
    if first.parent.startswith(prefix):
        names = {row.arm: row.arm.removeprefix(prefix) for row in family.rows}
        best = [f"best {names[arm]} {_mean(rows[arm], metric, metrics)};" for arm in family.best[:1] if arm in names]
        return [*" ".join(best).split(), *_verdicts(family.rows, names)]
    names = {row.arm: row.arm.removeprefix(prefix) for row in family.rows}
    plain = rows.get(names[first.arm])
    means = " → ".join(_mean(row, metric, metrics) for row in (plain, first) if row)
    labels = [label for label in first.labels if all(label in row.labels for row in family.rows)]
    effect = ", ".join(filter(None, [f"{names[first.arm]} {means}", first.verdict]))
    best = [f"best {names[arm]} {_mean(rows[arm], metric, metrics)}" for arm in family.best[:1] if arm in names]  # or the reference is
    parts = [*_cut(first.change), *labels, effect, *best]
    return [*" ".join(f"{part};" for part in parts).split(), *_verdicts(family.rows[1:], names)]


def _cut(change: str) -> list[str]:
    return list(short_names([change], LONGEST_CHANGE).values()) if change else []


# --- verdicts --------------------------------------------------------------------------------------------------------------------


def _verdicts(rows: Sequence[Row], names: Mapping[str, str]) -> Iterator[str]:
    """Words: the arms of each verdict that claims something, and how many are open: `better: a and b; 3 inconclusive`."""
    verdicts = [row.verdict for row in rows if row.verdict]
    claims = [verdict for verdict in dict.fromkeys(verdicts) if not verdict.startswith(UNDECIDED)]
    parts = [f"{claim}: {shortened([names[row.arm] for row in rows if row.verdict == claim], MOST_NAMED)}" for claim in claims]
    num_open = sum(verdict.startswith(UNDECIDED) for verdict in verdicts)
    number = "all" if num_open == len(verdicts) > 1 else str(num_open)
    yield from "; ".join([*parts, *([f"{number} {UNDECIDED}"] if num_open else [])]).split()
