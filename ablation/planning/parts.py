"""The shares of a plan, for several machines that work at one study at once: whole trees of stages, balanced by their expected seconds."""

import math

from ablation.planning.cost import is_unknown
from ablation.planning.plan import Node, Plan, Run
from ablation.system.digests import digest


def unrecorded(plan: Plan) -> list[Run]:
    """The runs that the store lacks, whether or not their results lie in the local folder: this does not change while parts work."""
    return [run for run in plan.runs if run.state in ("missing", "evaluated")]


def identity(plan: Plan, num_parts: int) -> str:
    """The identity of a plan's split into so many parts, by the runs that the store lacks."""
    return digest([num_parts, sorted(run.key for run in unrecorded(plan))])[:12]


def shares(plan: Plan, num_parts: int) -> list[list[Run]]:
    """The runs that have to be computed, in so many shares, some of them empty if there are fewer trees.

    Runs that share a stage are in one share. The largest tree goes first, each to the share with the least to do so far, so that the
    same plan always gives the same shares.
    """
    trees: dict[str, list[Run]] = {}
    for run in plan.waiting:
        if run.choice is None:
            trees.setdefault(plan.lineage(run)[0].job.key, []).append(run)
    costs = _costs(plan)
    stages = {root: {node.job.key for run in runs for node in plan.lineage(run)} for root, runs in trees.items()}
    totals = {root: math.fsum(costs[key] for key in keys) for root, keys in stages.items()}  # exact: the order of a set is of its process
    split: list[list[Run]] = [[] for _ in range(num_parts)]
    loads = [0.0] * num_parts
    for root in sorted(trees, key=lambda root: -totals[root]):
        part = loads.index(min(loads))
        split[part] += trees[root]
        loads[part] += totals[root]
    return split


def _costs(plan: Plan) -> dict[str, float]:
    """What is left of each stage: in seconds, or in images where the seconds of some are unknown."""
    if any(map(is_unknown, plan.nodes.values())):
        return {key: _amount(node) for key, node in plan.nodes.items()}
    return {key: node.seconds for key, node in plan.nodes.items()}


def _amount(node: Node) -> float:
    if not (node.remaining_epochs or node.job.requests):
        return 0.0
    return float(max(1, node.remaining_epochs) * max(1, node.items))
