"""Finds the arms whose scores are no logits of a softmax: distances, by their last post-hoc technique, and those of sigmoids."""

from collections.abc import Mapping
from typing import Any

DISTANCES = "ncm"  # the technique whose scores are distances to class means
OF_PROBABILITIES = ("nll", "ece")  # the metrics that treat scores as probabilities


def distance_arms(plan: Mapping[str, Any]) -> list[str]:
    """The plan's arms whose scores are distances."""
    by_name = {str(arm["name"]): arm for arm in plan["arms"]}
    return [name for name in by_name if _posthoc(by_name, name) == DISTANCES]


def sigmoid_arms(plan: Mapping[str, Any]) -> list[str]:
    """The plan's arms that were trained with a sigmoid for each class."""
    return [str(arm["name"]) for arm in plan["arms"] if arm.get("is_sigmoid")]


def _posthoc(by_name: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """The technique in the plan; if it is not recorded there, the nearest change of it up the chain of parents."""
    arm: Mapping[str, Any] | None = by_name[name]
    while arm is not None:
        changes = [values[1] for path, values in arm["change"].items() if path.endswith("posthoc.name")]
        techniques = [arm["posthoc"]] if "posthoc" in arm else changes
        if techniques:
            return str(techniques[-1])
        arm = by_name.get(arm["parent"])
    return "none"
