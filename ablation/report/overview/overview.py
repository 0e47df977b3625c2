"""All of a report's first screen, from the plan, the runs and the differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablation.report.frames.own import NO_CHANGE, OwnCode
from ablation.report.metrics import metrics_of, short_name
from ablation.report.overview.best import Best, best_arm
from ablation.report.overview.chance import near_chance
from ablation.report.overview.families import NEAR_CHANCE, Family, Row, families, plain_rows
from ablation.report.overview.seeds import More, more_seeds
from ablation.report.overview.strip import Fact, counted_once, facts
from ablation.report.statistics.best import chosen_on_test
from ablation.report.statistics.differences import NO_EFFECT


@dataclass(frozen=True)
class Overview:
    """The first screen. `metric` is the short name of the metric that it goes by; `notes` say what differs between file and record."""

    study: str
    metric: str
    facts: Sequence[Fact]
    notes: Sequence[str]
    best: Best | None
    more: More | None
    families: Sequence[Family]
    num_done: int
    num_runs: int
    near_chance: Sequence[str]  # arms that have learnt little
    own: OwnCode | None = None  # of a study of one's own training code
    is_part: bool = False  # whether arms outside conditions are left out
    on_test: frozenset[str] = frozenset()  # the plan's arms, shown or not, that were chosen on the test items

    def labels_of(self, row: Row) -> list[str]:
        """The labels of the plan, and those that only numbers tell."""
        return [*row.labels, *self.found_labels(row.arm)]

    def found_labels(self, arm: str) -> list[str]:
        """The labels that only numbers tell: whether the arm is near chance, and whether its seeds or its change have no effect."""
        found = {NEAR_CHANCE: self.near_chance}
        found |= {NO_EFFECT: [*self.own.no_effect], NO_CHANGE: [*self.own.no_change]} if self.own else {}
        return [label for label, arms in found.items() if arm in arms]

    @property
    def ladder(self) -> Family | None:
        """The ladder, if any of its arms is shown."""
        return next((family for family in self.families if family.name == "ladder"), None)

    @property
    def rest(self) -> list[Family]:
        """The other families, conditions last."""
        return [family for family in self.families if family.name != "ladder"]


def overview(
    plan: Mapping[str, Any],
    runs: pd.DataFrame,
    arms: pd.DataFrame,
    differences: pd.DataFrame,
    metric: str = "",
    notes: Sequence[str] = (),
    own: OwnCode | None = None,
) -> Overview:
    """The overview of the arms in `arms`, which is `frames.tables.arm_rows`, as `runs` is `run_rows`.

    `differences` is the frame of that name, `metric` a metric in both, with or without `test/` (none: the study's own).
    """
    metrics = metrics_of(plan)
    name = short_name(metric) or metrics.default
    runs = runs[runs["arm"].isin(arms["arm"])]
    found = families(plan, runs, arms, differences, name, metrics)
    plain = plain_rows(found)
    under = [row for family in found for row in family.rows if row not in plain]
    best = best_arm(plain, under, runs, name, metrics)
    return Overview(
        study=str(plan["study"]),
        metric=name,
        facts=facts(plan, runs, len(arms), name, metrics),
        notes=tuple(notes),
        best=best,
        more=more_seeds(plan, differences, name, best, metrics),
        families=found,
        num_done=int((counted_once(plan, runs)["state"] == "done").sum()),
        num_runs=len(counted_once(plan, runs)),
        near_chance=near_chance(plan, runs, list(arms["arm"]), metrics, name),
        own=own,
        is_part=any(arm["kind"] != "condition" and arm["name"] not in set(arms["arm"]) for arm in plan["arms"]),
        on_test=chosen_on_test(plan),
    )
