"""What is written of a run that stands for the best of others."""

import math
from collections.abc import Mapping
from typing import Any

from ablation.running.recorder.contents import COPIED_TAGS, spent_by_others
from ablation.running.recorder.provenance import is_made_tag
from ablation.study.config import Choice
from ablation.study.metrics import is_curve

ROUNDING = 1e-12  # as a share of the score


def best_of(choice: Choice, scores: Mapping[str, float]) -> str:
    """The arm with the best score; of equal ones the first."""
    best = (min if choice.is_lower_better else max)(scores.values())
    return next(name for name, score in scores.items() if _is_equal(score, best))


def _is_equal(score: float, other: float) -> bool:
    """Whether both are one number but for rounding, as means of the same recalls in another order are."""
    return math.isclose(score, other, rel_tol=ROUNDING)


def chosen_values(about: Mapping[str, Any], values: Mapping[str, float], score: float, scores: Mapping[str, float]) -> dict[str, float]:
    """The numbers of the run that is chosen, as they are those of the one that chooses: no curves, and nothing that it paid for itself."""
    final = {name: value for name, value in values.items() if not is_curve(about, name) and not name.startswith(("watched/", "own/"))}
    num_equal = sum(_is_equal(other, score) for other in scores.values())
    return final | spent_by_others(values) | {"choice/equal": num_equal}


def copied_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """What the run that is chosen was computed by, and what was noted of it."""
    copied = {f"ablation.{name}" for name in COPIED_TAGS}
    return {tag: value for tag, value in tags.items() if tag in copied or is_made_tag(tag)}
