"""What an arm changes against another: the settings that differ, leaf by leaf, its stages unrolled."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablation.study.config import Arm
from ablation.study.task import SettingsSchema, Stage, Task


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names; lists of techniques by position, other lists as they are."""
    if isinstance(value, Mapping):
        return {k: v for name, part in value.items() for k, v in flatten(part, f"{path}.{name}" if path else str(name)).items()}
    if isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
        return {k: v for i, part in enumerate(value) for k, v in flatten(part, f"{path}.{i}").items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def change(parent: Arm, arm: Arm, task: Task) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, leaf by leaf, stages unrolled: what differs throughout has its plain name, else that of its stage."""
    lengths, unrolled = _lengths_changed(parent, arm), _unrolled(parent, arm, task)
    if "epochs" not in lengths and not any(differences for _, differences in unrolled):
        return {}  # at most cut in other places, which alters nothing
    found = _paired(parent, arm, task) if len(parent.stages) == len(arm.stages) else unrolled
    changes = lengths
    for name in dict.fromkeys(name for _, differences in found for name in differences):
        values = [differences.get(name) for _, differences in found]
        if all(value == values[0] for value in values):
            changes[name] = found[0][1][name]
        else:
            changes |= {f"stages.{i}.{name}": differences[name] for i, differences in found if name in differences}
    return changes


Differences = dict[str, tuple[Any, Any]]


def _paired(parent: Arm, arm: Arm, task: Task) -> list[tuple[int, Differences]]:
    """What differs between stages of the same number."""
    return [(i, _differences(*(task.in_force(one.stages, i, begins=i > 0) for one in (parent, arm)))) for i in range(len(arm.stages))]


def _unrolled(parent: Arm, arm: Arm, task: Task) -> list[tuple[int, Differences]]:
    """What differs from each epoch on at which a stage of either begins, by the stage's number in the arm that has more of them."""
    starts = sorted({stage.first_epoch for one in (parent, arm) for stage in one.stages})
    numbered = arm.stages if len(arm.stages) >= len(parent.stages) else parent.stages
    return [(_index(numbered, start), _differences(_at(parent, start, task), _at(arm, start, task))) for start in starts]


def _at(arm: Arm, epoch: int, task: Task) -> dict[str, Any]:
    number = _index(arm.stages, epoch)
    return task.in_force(arm.stages, number, begins=arm.stages[number].first_epoch == epoch > 0)


def _lengths_changed(parent: Arm, arm: Arm) -> dict[str, tuple[Any, Any]]:
    old, new = ([stage.epochs for stage in one.stages] for one in (parent, arm))
    changes: dict[str, tuple[Any, Any]] = {"epochs": (sum(old), sum(new))} if sum(old) != sum(new) else {}
    if max(len(old), len(new)) > 1:
        for i, (before, after) in enumerate(itertools.zip_longest(old, new)):
            if before != after:
                changes[f"stages.{i}.epochs"] = (before, after)
    return changes


def _index(stages: Sequence[Stage], epoch: int) -> int:
    """The number of the stage in force at an epoch."""
    return max(i for i, stage in enumerate(stages) if stage.first_epoch <= epoch)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def families(changes: Iterable[str], schema: SettingsSchema) -> list[str]:
    """The families that a change touches; what stages train counts as one, and their lengths only where nothing else differs."""
    found: dict[str, None] = {}
    lengths: dict[str, None] = {}
    for name in changes:
        parts = name.split(".")
        is_length = parts[0] == "stages" and parts[2] == "epochs"
        top = parts[2] if parts[0] == "stages" else parts[0]
        (lengths if is_length else found)["stages" if top in schema.option_names else top] = None
    return list(found or lengths)
