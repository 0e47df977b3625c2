"""The content of a document, and the options it was made with."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from ablation.report.frames.facts import Needs
from ablation.report.frames.own import OwnCode
from ablation.report.frames.references import References
from ablation.report.frames.tables import Frames
from ablation.report.metrics import MetricTable, metrics_of, short_name
from ablation.report.overview import Overview, overview
from ablation.report.statistics import best
from ablation.report.statistics.differences import is_other_test, test_sets_of

EDITION = 2  # of the layout of Markdown and HTML documents; one of another edition cannot be compared line by line
MADE_BY = "ablate report "  # the beginning of a document's first line, after the comment mark

# the provenance of a run in the store
RECORDED = ("commit", "dirty", "versions", "hardware", "device", "precision", "statistical", "digest", "command")


@dataclass(frozen=True)
class Shown:
    """The options of a report: the metric (none: the study's), globs of arms, the order, and a file of published figures.

    `notes` are sentences about the plan and the file that was named, `content` says which plan is shown if it is not the newest one,
    `undrawn` names the figures that could not be drawn. `columns` are those of LaTeX's tables (none: the usual ones), and `part` says
    which of several files the document is.
    """

    metric: str = ""
    arms: tuple[str, ...] = ()
    sort: str = ""
    only_changed: bool = False
    reference: str = ""
    notes: tuple[str, ...] = ()
    content: str = ""
    undrawn: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    part: str = ""


RARE = ("notes", "content", "undrawn", "columns", "part")  # the options that a document names only if they are there


@dataclass(frozen=True)
class Content:
    """Everything that a document is made of. `figures` has the path and the alt text of each picture, by kind."""

    study: str
    plan: Mapping[str, Any]
    superseded: Sequence[str]
    frames: Frames
    metric: str  # its full name
    references: References
    figures: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    options: Shown = field(default_factory=Shown)
    recorded: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["run_id", *RECORDED]))  # per run, its provenance
    own: OwnCode | None = None  # of a study of one's own training code

    # --- the study -----------------------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> MetricTable:
        """The study's metrics."""
        return metrics_of(self.plan)

    @cached_property
    def facts(self) -> Needs:
        """What the study has besides its metrics."""
        return self.frames.facts(self.plan)

    @property
    def items(self) -> str:
        """The word for what the data consist of."""
        return "images" if "classes" in self.facts and not self.own else "items"

    @property
    def item(self) -> str:
        """The word for one of them."""
        return self.items.removesuffix("s")

    @cached_property
    def on_test(self) -> frozenset[str]:
        """The plan's arms, shown or not, that were chosen on the test items."""
        return best.chosen_on_test(self.plan)

    @cached_property
    def _test_sets(self) -> dict[str, Any]:
        return test_sets_of(self.plan)

    def has_other_test(self, *arms: str) -> bool:
        """Whether any of these arms, shown or not, are known to have other test items than others, so that no seed makes a pair of them."""
        return is_other_test(*(self._test_sets.get(arm) for arm in arms))

    # --- the metric that differences are taken of ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The metric's short name, as in the frames."""
        return short_name(self.metric)

    @property
    def has_margin(self) -> bool:
        """Whether the metric has a margin below which two arms count as equal."""
        return self.metrics.margin(self.name) is not None

    @property
    def margin(self) -> str:
        """The margin with its unit: `0.5 points`."""
        return self.metrics.margin_words(self.name)

    @property
    def notes(self) -> list[str]:
        """What makes results worth less or differs from the file, in sentences without a full stop."""
        return [*self.options.notes, *(self.own.warnings if self.own else ())]

    @property
    def about(self) -> list[str]:
        """All that a reader must know: of one's own code, what it is, and the notes."""
        return [*([self.own.text.rstrip(".")] if self.own else []), *self.notes]

    @cached_property
    def pairs(self) -> dict[tuple[str, str], dict[Any, Any]]:
        """(arm, role) -> the difference of the metric."""
        rows = self.frames.differences[self.frames.differences["metric"] == self.name].to_dict("records")
        return {(row["arm"], row["role"]): row for row in rows}

    def difference(self, row: Mapping[Any, Any]) -> str:
        """`+0.75 [-0.10, +1.60]`, from a row of the metric; a dash if there is no pair."""
        return self.metrics.interval(self.name, row)

    # --- the arms that are shown -----------------------------------------------------------------------------------------------

    @cached_property
    def shown(self) -> list[str]:
        """The arms that are shown, in the order of the tables."""
        return [str(arm) for arm in self.frames.arms["arm"]]

    @cached_property
    def arm_records(self) -> Sequence[Mapping[Any, Any]]:
        """The rows of the frame of arms."""
        return self.frames.arms.to_dict("records")

    @cached_property
    def most_planned(self) -> int:
        """The largest number of planned runs that any of the arms has."""
        return max((int(row["planned"]) for row in self.arm_records), default=0)

    @cached_property
    def planned(self) -> dict[str, Mapping[str, Any]]:
        """The plan's arms that are shown, by name."""
        by_name = {arm["name"]: arm for arm in self.plan["arms"]}
        return {name: by_name[name] for name in self.shown}

    @cached_property
    def overview(self) -> Overview:
        """The first screen: the best arm, the ladder and the families."""
        frames = self.frames
        return overview(self.plan, frames.runs, frames.arms, frames.differences, self.name, self.notes, self.own)

    def values(self, name: str) -> dict[str, dict[int, float]]:
        """The finite values of a metric, by its short name, by arm and seed."""
        if name not in self._values:
            self._values[name] = best.values_of(self.frames.runs, self.shown, self.metrics.full_name(name))
        return self._values[name]

    @cached_property
    def _planned_runs(self) -> dict[str, int]:
        return best.planned_runs(self.frames.runs)

    @cached_property
    def _values(self) -> dict[str, dict[str, dict[int, float]]]:
        return {}

    def best_arms(self, arms: Iterable[str], name: str) -> list[str]:
        """The arms with the best mean of a metric: see `statistics.best`. All of them can be ranked, by their labels."""
        values = self.values(name)
        rankable = [arm for arm in arms if best.may_be_best(self.planned[arm]["labels"])]
        rivals = {arm: values[arm] for arm in rankable if 0 < len(values[arm]) == self._planned_runs[arm]}
        same_as = {arm: str(self.planned[arm]["same_as"]) for arm in rivals if self.planned[arm].get("same_as")}
        return best.best_of(rivals, is_lower_better=self.metrics.is_lower_better(name), same_as=same_as)

    def has_same_seeds(self, arms: Collection[str]) -> bool:
        """Whether all of these arms have finished runs of the same seeds, so that their means can be compared as they are."""
        runs = self.frames.runs
        done = runs[(runs["state"] == "done") & runs["arm"].isin(arms)]
        return len({frozenset(seeds) for _, seeds in done.groupby("arm")["seed"]}) <= 1

    @property
    def unfinished(self) -> pd.DataFrame:
        """The runs of the shown arms that are not done."""
        return self.frames.runs[self.frames.runs["state"] != "done"]


def made_by(content: Content) -> str:
    """The document's options on one line, which is safe in a comment of HTML, Markdown or LaTeX.

    The line is JSON, with escapes for everything that could end the comment.
    """
    rare = {name: value for name in RARE if (value := getattr(content.options, name))}
    common = {name: value for name, value in asdict(content.options).items() if name not in RARE}
    options = {"study": content.study, **common, "figures": bool(content.figures), "edition": EDITION, **rare}
    line = json.dumps(options, ensure_ascii=True)
    for mark in ("<", ">", "--"):
        line = line.replace(mark, "".join(f"\\u{ord(letter):04x}" for letter in mark))
    return MADE_BY + line
