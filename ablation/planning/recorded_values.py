"""The metrics of a plan's runs that are recorded, and whether the metric that the study goes by is among them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.formatting import counted
from ablation.planning.plan import Plan

Values = dict[tuple[str, int], Mapping[str, float]]


def recorded_values(plan: Plan, known_runs: Sequence[Mapping[str, Any]]) -> Values:
    """(arm, seed) -> the metrics of the plan's runs that are recorded."""
    wanted_runs = {(run.arm, run.seed, run.used_key) for run in plan.runs if run.state == "done"}
    values: Values = {}
    for run in known_runs:
        tags = run["tags"]
        if tags.get("ablation.kind") == "run" and run["status"] == "FINISHED":
            arm_and_seed = (tags["ablation.arm"], int(tags["ablation.seed"]))
            if (*arm_and_seed, tags["ablation.key"]) in wanted_runs:
                values.setdefault(arm_and_seed, run["metrics"])
    return values


def lacking_metric(plan: Plan, known_runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line if recorded runs, which are used as they are, have no value of the study's metric; else none."""
    values = recorded_values(plan, known_runs)
    lacking = sum(plan.metric not in metrics for metrics in values.values())
    if not plan.metric or not lacking:
        return []
    which = f"{lacking} of {counted(len(values), 'recorded run')}"
    return [f"note: {which} {'has' if lacking == 1 else 'have'} no {metric_words(plan)}; --rerun cached tests them again"]


def metric_words(plan: Plan) -> str:
    """The study's metric as the report names it in a sentence: `balanced accuracy`, `AUROC`."""
    known = {metric.name: metric.words or metric.title for metric in plan.study.task.metrics(plan.study.margin)}
    return known.get(plan.metric, plan.metric.removeprefix("test/"))
