"""The metrics of a plan's runs that are recorded, and what runs lack that are used as they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.formatting import counted
from ablation.planning.plan import Plan
from ablation.study.task import Planner
from ablation.system.sealed import RESULT

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


def lacking_files(plan: Plan, planner: Planner, results: Path) -> list[str]:
    """A line for what tested runs lack in this folder of results, since it was not to be kept when they were tested."""
    tested = [(run.request, results / run.used_key) for run in plan.runs if run.state in ("done", "evaluated") and run.choice is None]
    lacking = Counter(planner.lacks(request, folder) for request, folder in tested if (folder / RESULT).exists())
    return [
        f"note: {number} of {counted(len(tested), 'tested run')} {'has' if number == 1 else 'have'} no {what}, which were not to be kept "
        f"then; --rerun force runs {'it' if number == 1 else 'them'} again"
        for what, number in lacking.items()
        if what
    ]


def metric_words(plan: Plan) -> str:
    """The study's metric as the report names it in a sentence: `balanced accuracy`, `AUROC`."""
    known = {metric.name: metric.words or metric.title for metric in plan.study.task.metrics(plan.study.margin)}
    return known.get(plan.metric, plan.metric.removeprefix("test/"))
