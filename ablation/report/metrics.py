"""The final metrics as documents show them: which exist, in which unit, and which direction is better."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ablation.errors import StoreError
from ablation.formatting import DASH, change, interval, listed, number
from ablation.study.metrics import Metric
from ablation.study.task import DEFAULT, TASKS, load_task

if TYPE_CHECKING:
    from ablation.planning.plan import Plan

MARGIN = 0.5  # points; for plans that were recorded before it could be set
PREFIX = "test/"  # of the names of final metrics in the store
COMPARISON, QUALITY, RANKING = "comparison", "quality", "ranking"  # the tables of the report that have a column per metric


@dataclass(frozen=True)
class Unit:
    """How a metric's numbers are shown: the words for values and for differences, and the factor to the store's numbers."""

    values: str
    differences: str
    scale: int
    decimals: int
    suffix: str  # of the names of columns with differences that are not in the store's unit


PERCENT = Unit("percent", "points", 100, 2, "_points")


def unit_called(word: str) -> Unit:
    """The unit of that name. Percent is for fractions; any other word, which may be empty, is shown as it is."""
    return PERCENT if word == PERCENT.values else Unit(word, word, 1, 3, "")


def short_name(metric: str) -> str:
    """The metric's name without the prefix that all final metrics have."""
    return metric.removeprefix(PREFIX)


def with_unit(text: str, unit: str, pattern: str = "{}, {}") -> str:
    """The text followed by the unit, or the text alone if the unit is empty."""
    return pattern.format(text, unit) if unit else text


class MetricTable:
    """The metrics of a study. Every method takes a metric's name with or without the prefix.

    A name that is not in the table, such as recall/cat, is treated as a fraction where higher is better. `main` is the metric that the
    study goes by (none: the first headline), which is in the table from then on, and `reason` says why.
    """

    def __init__(self, metrics: Iterable[Metric], margin: float = MARGIN, main: str = "", reason: str = "") -> None:
        self._metrics = {short_name(metric.name): metric for metric in metrics}
        self._margin = margin  # of the study, in points
        self.reason = reason
        self.published = next((name for name, metric in self._metrics.items() if metric.is_headline), next(iter(self._metrics), ""))
        self.default = short_name(main) or self.published
        if main:
            self._metrics.setdefault(self.default, Metric(self.full_name(main), self.default, margin=margin))

    # --- which there are -----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The short names of all metrics."""
        return list(self._metrics)

    @property
    def full_names(self) -> list[str]:
        """Their names in the store."""
        return [metric.name for metric in self._metrics.values()]

    @property
    def headlines(self) -> list[str]:
        """The short names of the few metrics that stand for an arm where space is short, that of the study first."""
        return [name for name in dict.fromkeys([self.default, *self._metrics]) if name == self.default or self._metrics[name].is_headline]

    @property
    def summarised(self) -> list[Metric]:
        """The headline metrics themselves, in the same order."""
        return [self._metrics[name] for name in self.headlines]

    def columns(self, table: str) -> list[str]:
        """The short names of the metrics with a column in that table of the report."""
        return [name for name, metric in self._metrics.items() if metric.table == table]

    def __contains__(self, name: str) -> bool:
        return short_name(name) in self._metrics

    # --- what each is --------------------------------------------------------------------------------------------------------

    def full_name(self, name: str) -> str:
        """The metric's name in the store."""
        metric = self._metrics.get(short_name(name))
        return metric.name if metric else PREFIX + short_name(name)

    def title(self, name: str) -> str:
        """The metric's name in the header of a table."""
        metric = self._metrics.get(short_name(name))
        return metric.title if metric else short_name(name)

    def words(self, name: str) -> str:
        """The metric's name in a sentence."""
        metric = self._metrics.get(short_name(name))
        return metric.words or metric.title if metric else short_name(name)

    def unit(self, name: str) -> Unit:
        """The unit in which the metric is shown."""
        metric = self._metrics.get(short_name(name))
        unit = unit_called(metric.unit) if metric else PERCENT
        return unit if metric is None or metric.decimals is None else replace(unit, decimals=metric.decimals)

    def is_lower_better(self, name: str) -> bool:
        """Whether a smaller number is a gain."""
        metric = self._metrics.get(short_name(name))
        return metric is not None and metric.better == "lower"

    def margin(self, name: str) -> float | None:
        """The difference, in its unit, below which two arms count as equal; None if no equivalence is claimed."""
        metric = self._metrics.get(short_name(name))
        return metric.margin if metric else self._margin

    # --- its numbers ---------------------------------------------------------------------------------------------------------

    def value(self, name: str, mean: float, sd: float = math.nan) -> str:
        """The store's numbers as documents show them: `84.22 ± 0.31` in percent, `0.512 ± 0.004` in another unit."""
        unit = self.unit(name)
        return number(unit.scale * mean, unit.scale * sd, unit.decimals)

    def difference(self, name: str, mean: float, sd: float = math.nan) -> str:
        """A difference that is already in its unit: `+0.75 ± 0.10`."""
        return change(mean, sd, self.unit(name).decimals)

    def interval(self, name: str, row: Mapping[Any, Any]) -> str:
        """`+0.75 [-0.10, +1.60]`, from a row with pairs, mean, low and high; a dash if there is no pair."""
        return interval(row["mean"], row["low"], row["high"], self.unit(name).decimals) if row["pairs"] else DASH

    def difference_columns(self, name: str, role: str) -> tuple[str, str]:
        """The columns with the mean and the sd of the differences to the parent or to the baseline."""
        start, suffix = f"{short_name(name)}_vs_{role}", self.unit(name).suffix
        return f"{start}{suffix}", f"{start}_sd{suffix}"

    def interval_columns(self, name: str, role: str) -> tuple[str, str]:
        """The columns with the ends of the 95 % interval of the mean difference."""
        start, suffix = f"{short_name(name)}_vs_{role}", self.unit(name).suffix
        return f"{start}_low{suffix}", f"{start}_high{suffix}"

    def gap_column(self, report: str) -> str:
        """The column with the measured minus the published figures of a report."""
        return f"gap/{report}{self.unit(self.published).suffix}"

    # --- in words ------------------------------------------------------------------------------------------------------------

    def margin_words(self, name: str) -> str:
        """The margin with its unit: `0.5 points`; empty if the metric has none."""
        margin = self.margin(name)
        unit = self.unit(name).differences
        return "" if margin is None else with_unit(f"{margin:g}", "point" if (margin, unit) == (1, "points") else unit, "{} {}")

    def value_units(self, names: Iterable[str]) -> str:
        """The units of these metrics' values: `percent (NLL: nats)`, or `RMSE in m` if none is in percent."""
        return self._units({name: self.unit(name).values for name in names}, PERCENT.values)

    def difference_units(self, names: Iterable[str]) -> str:
        """The units of their differences: `points (NLL: nats)`."""
        return self._units({name: self.unit(name).differences for name in names}, PERCENT.differences)

    def _units(self, words: Mapping[str, str], usual: str) -> str:
        """The usual unit, if any metric has it, and the exceptions by title; empty if no unit has a name."""
        others: dict[str, list[str]] = {}
        for name, word in words.items():
            if word != usual:
                others.setdefault(word, []).append(self.title(name))
        if sum(map(len, others.values())) < len(words):
            as_is = {True: "as they are", False: "as it is"}
            exceptions = "; ".join(f"{listed(titles)}: {word or as_is[len(titles) > 1]}" for word, titles in others.items())
            return with_unit(usual, exceptions, "{} ({})")
        return listed([f"{listed(titles)} in {word}" for word, titles in others.items() if word])

    def lower_words(self, names: Iterable[str]) -> str:
        """`For NLL and ECE lower is better.`; empty if higher is better for all of them."""
        titles = listed([self.title(name) for name in names if self.is_lower_better(name)])
        return f"For {titles} lower is better." if titles else ""


def metrics_of(plan: Mapping[str, Any]) -> MetricTable:
    """The metrics of a recorded plan; if it was recorded without them, those of its kind of work.

    Raises StoreError if that kind is unknown here.
    """
    margin, known = float(plan.get("margin", MARGIN)), {field.name for field in fields(Metric)}
    recorded = [Metric(**{name: value for name, value in row.items() if name in known}) for row in plan.get("metrics") or ()]
    main = (str(plan.get("metric", "")), str(plan.get("metric_reason", "")))
    if recorded:
        return MetricTable(recorded, margin, *main)
    task = plan.get("task", DEFAULT)
    if task not in TASKS:
        raise StoreError(f"found a study of the kind {task!r} without its metrics; expected one of {', '.join(TASKS)}")
    return MetricTable(load_task(task).metrics(margin), margin, *main)


def planned_metrics(plan: "Plan") -> MetricTable:
    """The metrics of a plan that is not recorded yet."""
    margin = plan.study.margin
    return MetricTable(plan.study.task.metrics(margin), margin, plan.metric, plan.metric_reason)
