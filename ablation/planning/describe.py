"""The plan as plain data: for machines, and for the record that the report reads."""

from collections.abc import Mapping
from typing import Any

from ablation.planning.cost import is_unknown
from ablation.planning.plan import Node, Plan
from ablation.study.config import Arm
from ablation.study.metrics import metric_rows
from ablation.study.task import Planner
from ablation.study.written import written

MOST_IMAGES = 20  # named for each finding about the data


def describe(plan: Plan, planner: Planner, *, others: bool = False) -> dict[str, Any]:
    """The plan as plain data; with `others`, and the other runs that are recorded already."""
    runs = [*plan.runs, *(plan.others if others else ())]
    seeds = list(dict.fromkeys([*plan.seeds, *(run.seed for run in runs)]))
    names = {*plan.selected, *(run.arm for run in runs)}
    arms = [arm for arm in plan.study.arms if arm.name in names]
    return {
        "study": plan.study.name,
        "seeds": seeds,
        **planner.facts(plan.first_arm, seeds),
        "data": planner.data(arms, plan.study.seeds[0], MOST_IMAGES),
        "metric": plan.metric,
        "metric_reason": plan.metric_reason,
        "margin": plan.study.margin,
        "arms": [_arm_as_data(arm, plan.labels[arm.name]) | planner.arm_facts(arm) for arm in arms],
        "runs": [{"arm": run.arm, "seed": run.seed, "key": run.used_key, "state": run.state, "reason": run.reason} for run in runs],
        "stages": [_node_as_data(key, node) for key, node in plan.nodes.items()],
    }


def for_the_record(plan: Plan, planner: Planner) -> dict[str, Any]:
    """The same with all that is recorded, each run's content, and what the report must know of the kind of work."""
    metrics = plan.study.task.metrics(plan.study.margin)
    about = {"task": plan.study.task.name, "metrics": metric_rows(metrics), "written": written(plan.study)}
    data = describe(plan, planner, others=True)
    contents = {(run.arm, run.seed): run.content for run in (*plan.runs, *plan.others)}
    runs = [{**run, "content": contents[run["arm"], run["seed"]]} for run in data["runs"]]
    return {**data, **about, "runs": runs, **({"left": sorted(plan.left)} if plan.left else {})}


def _arm_as_data(arm: Arm, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": arm.name,
        "kind": arm.kind,
        "parent": arm.parent,
        "baseline": arm.baseline,
        "condition": arm.condition,
        "change": {name: list(values) for name, values in arm.change.items()},
        "labels": dict(labels),
        "same_as": arm.same_as,
        "label": arm.label,
        "note": arm.note,
        "published": dict(arm.published),
        "factors": dict(arm.factors),
    }


def _node_as_data(key: str, node: Node) -> dict[str, Any]:
    return {
        "key": key,
        "parent": node.job.parent or None,
        "seed": node.seed,
        "arms": list(node.arms),
        "owner": node.owner,
        "epochs": node.epochs,
        "state": node.state,
        "seconds": None if is_unknown(node) else node.seconds,
    }
