"""Published figures from a CSV file, with each row matched to an arm."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError
from ablation.report.frames.facts import classes_of
from ablation.report.metrics import PERCENT, metrics_of

PER_CLASS = ("arm", "class", "precision", "recall", "f1", "support")


@dataclass(frozen=True)
class References:
    """Published figures by arm: one metric per report, figures per class, and the rows that match no arm."""

    headlines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    per_class: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    unmatched: Sequence[str] = ()


def read(path: Path, plan: Mapping[str, Any]) -> References:
    """The figures in the file. A row names an arm by its name, its label, or its chain of rungs (cb+mixup)."""
    columns, rows = _rows(path)
    headline, has_classes = ("report", "arm", metrics_of(plan).published), bool(classes_of(plan))
    if set(headline) <= set(columns):
        return _headlines(path, rows, plan)
    if has_classes and set(PER_CLASS) <= set(columns):
        return _per_class(path, rows, plan)
    expected = " or ".join(", ".join(names) for names in (headline, *([PER_CLASS] if has_classes else [])))
    raise ConfigError(str(path), f"found the columns {', '.join(columns)}; expected {expected}")


def chain_names(arms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """arm -> the names on the path to it, without the first rung, joined with "+"; arms of a condition are left out."""
    parents = {arm["name"]: arm["parent"] for arm in arms if arm["kind"] != "condition"}
    chains = {}
    for name, parent in parents.items():
        steps, place = [name], parent
        while place is not None and parents.get(place) is not None:
            steps.append(place)
            place = parents[place]
        chains[name] = "+".join(reversed(steps))
    return chains


def find_arm(text: str, arms: Sequence[Mapping[str, Any]]) -> str | None:
    """The arm that a row names, or None if there is none or more than one; spaces and case are ignored."""
    chains = chain_names(arms)
    ways = [
        [arm["name"] for arm in arms if _plain(arm["name"]) == _plain(text)],
        [arm["name"] for arm in arms if arm["kind"] != "condition" and _plain(arm.get("label") or "") == _plain(text)],
        [arm for arm, chain in chains.items() if _plain(chain) == _plain(text)],
    ]
    return next((candidates[0] if len(candidates) == 1 else None for candidates in ways if candidates), None)


def _headlines(path: Path, rows: list[dict[str, str]], plan: Mapping[str, Any]) -> References:
    """Figures of the metric that reports publish."""
    metrics = metrics_of(plan)
    name = metrics.published
    by_arm: dict[str, dict[str, float]] = {}
    unmatched, is_fraction = [], metrics.unit(name).values == PERCENT.values
    for line, row in enumerate(rows, start=2):
        value, arm = _number(path, line, row, name, is_fraction=is_fraction), find_arm(row["arm"], plan["arms"])
        if arm is None:
            unmatched.append(f"{row['report']}: {row['arm']} ({metrics.value(name, value)})")
            continue
        if row["report"] in by_arm.setdefault(arm, {}):
            raise ConfigError(f"{path}:{line}", f"found a second row of report {row['report']} for the arm {arm}; expected one")
        by_arm[arm][row["report"]] = value
    return References(headlines=by_arm, unmatched=unmatched)


def _per_class(path: Path, rows: list[dict[str, str]], plan: Mapping[str, Any]) -> References:
    by_arm: dict[str, dict[str, dict[str, float]]] = {}
    unmatched = []
    classes = {_plain(name): name for name in classes_of(plan)}
    for line, row in enumerate(rows, start=2):
        figures = {name: _number(path, line, row, name, is_fraction=True) for name in ("precision", "recall", "f1")}
        arm, name = find_arm(row["arm"], plan["arms"]), classes.get(_plain(row["class"]))
        if arm is None or name is None:
            unmatched.append(row["arm"] if arm is None else f"{row['arm']}, class {row['class']}")
            continue
        if name in by_arm.setdefault(arm, {}):
            raise ConfigError(f"{path}:{line}", f"found a second row of class {name} for the arm {arm}; expected one")
        by_arm[arm][name] = figures
    return References(per_class=by_arm, unmatched=list(dict.fromkeys(unmatched)))


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            rows = list(reader)
            return list(reader.fieldnames or []), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            str(path), f"cannot be read ({getattr(error, 'strerror', None) or error}); expected a CSV file of published figures"
        ) from None


def _number(path: Path, line: int, row: Mapping[str, str], column: str, *, is_fraction: bool) -> float:
    text = row[column].strip()
    value = _parsed(text.removesuffix("%"))
    if math.isfinite(value) and not text.endswith("%") and (not is_fraction or 0 <= value <= 1):
        return value
    near = f", such as {value / 100:.10g} for {value:g} percent" if 1 < value <= 100 or text.endswith("%") else ""
    expected = f"a fraction between 0 and 1{near}" if is_fraction else "a number"
    raise ConfigError(f"{path}:{line}", f"found {column} {row[column]!r}; expected {expected}")


def _parsed(text: str) -> float:
    """The number; NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
