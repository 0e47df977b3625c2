"""What is written of a run that stands for the best of others."""

from collections.abc import Mapping
from typing import Any

from ablation.running.recorder.contents import COPIED_TAGS, spent_by_others
from ablation.running.recorder.provenance import is_made_tag
from ablation.study.config import Choice
from ablation.study.metrics import is_curve


def best_of(choice: Choice, scores: Mapping[str, float]) -> str:
    """The arm with the best score; of equal ones the first."""
    return (min if choice.is_lower_better else max)(scores, key=lambda name: scores[name])


def chosen_values(about: Mapping[str, Any], values: Mapping[str, float], score: float, scores: Mapping[str, float]) -> dict[str, float]:
    """The numbers of the run that is chosen, as they are those of the one that chooses: no curves, and nothing that it paid for itself."""
    final = {name: value for name, value in values.items() if not is_curve(about, name) and not name.startswith(("watched/", "own/"))}
    return final | spent_by_others(values) | {"choice/equal": list(scores.values()).count(score)}  # how many are as good


def copied_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What the run that is chosen was computed by, and what was noted of it."""
    copied = {f"ablation.{name}" for name in COPIED_TAGS}
    return {tag: value for tag, value in tags.items() if tag in copied or is_made_tag(tag)}
