"""A study's arms by where they come from: the ladder, the variants, each sweep, each condition ..., each in a few words."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from ablation.formatting import shortened
from ablation.study.config import Arm
from ablation.study.settings_schema import SettingsSchema
from ablation.study.wording import change_words

MOST_NAMED = 8  # arms or values of a family
MOST_WORDS = 2  # phrases of what a condition changes


@dataclass(frozen=True)
class Family:
    """Arms that belong together: what they are called, and which they are in words."""

    name: str
    arms: tuple[Arm, ...]
    words: str


def families(arms: Sequence[Arm], selected: Container[str], schema: SettingsSchema) -> Iterator[Family]:
    """The families of a study's arms in the order of the file, with those of their arms that are selected."""
    by_name: dict[str, list[Arm]] = {}
    for arm in arms:
        by_name.setdefault(_name(arm), []).append(arm)
    for name, whole in by_name.items():
        if members := [arm for arm in whole if arm.name in selected]:
            words = _condition_words(members, whole, schema) if whole[0].kind == "condition" else _words(members)
            yield Family(name, tuple(members), words)


def _name(arm: Arm) -> str:
    if arm.kind == "condition":
        return str(arm.condition)
    if arm.kind == "sweep":
        return sweep_of(arm)
    return {"variant": "variants", "drop_one": "drop one", "add_one": "add one"}.get(arm.kind, arm.kind)


def sweep_of(arm: Arm) -> str:
    """The name of the sweep of which the arm is a point, or the choice."""
    return arm.name.partition("/")[0]  # which has no slash; the labels of points may have one


def _condition_words(arms: Sequence[Arm], whole: Sequence[Arm], schema: SettingsSchema) -> str:
    """`average none: baseline and cb`: what the condition changes, as an arm shows it whose parent is the same arm without it."""
    changes = next((change_words(arm.change, schema) for arm in whole if arm.parent == arm.name.partition("/")[2]), [])
    return f"{'; '.join(changes[:MOST_WORDS]) or 'another base'}: {_listed([arm.name.partition('/')[2] for arm in arms])}"


def _words(arms: Sequence[Arm]) -> str:
    kind = arms[0].kind
    if kind == "sweep":
        return _sweep_words(arms)
    if kind in ("drop_one", "add_one"):
        verb = "without" if kind == "drop_one" else "with"
        by_parent: dict[str, list[str]] = {}
        for arm in arms:
            by_parent.setdefault(str(arm.parent), []).append(arm.factors[verb])
        return "; ".join(f"{parent} {verb} {_listed(rungs)}" for parent, rungs in by_parent.items())
    if kind == "grid":
        return f"subsets of {_listed(list(arms[0].factors))} over {arms[0].parent}"
    return _listed([arm.name for arm in arms])


def _sweep_words(arms: Sequence[Arm]) -> str:
    """`of ls; smoothing.epsilon 0.05, 0.1 and 0.3`, crossed axes with an x between them."""
    axes: dict[str, dict[str, None]] = {}
    for arm in arms:
        for axis, level in arm.factors.items():
            axes.setdefault(axis, {})[level] = None
    crossed = " x ".join(f"{axis} {_listed(list(levels))}" for axis, levels in axes.items())
    chosen = "; the best is chosen" if any(arm.choice for arm in arms) else ""
    return f"of {arms[0].parent}; {crossed}{chosen}"


def _listed(names: Sequence[str]) -> str:
    return shortened(names, MOST_NAMED)
