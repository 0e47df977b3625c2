"""What a plan costs."""

from ablation.planning.plan import Node, Plan
from ablation.study.task import Planner


def is_unknown(node: Node) -> bool:
    """Whether something is left to do of a node, and nothing is known of how long it takes."""
    return not node.seconds and bool(node.remaining_epochs or node.job.requests)


def wall_seconds(plan: Plan, num_slots: int) -> float:
    """The time of the whole with every slot busy, but not less than the longest chain's."""
    chains: dict[str, float] = {}
    for key, node in plan.nodes.items():
        chains[key] = node.seconds + chains.get(node.job.parent, 0.0)
    return max(plan.seconds / num_slots, max(chains.values(), default=0.0))


def disk(plan: Plan, planner: Planner) -> float:
    """Bytes that the waiting work will leave."""
    works = [node.job.work for node in plan.nodes.values() if node.state != "done"]
    return planner.disk(works, len(plan.waiting), plan.first_arm, plan.seeds[0])
