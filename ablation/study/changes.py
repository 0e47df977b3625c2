"""What differs between two arms: every setting, and every stage from its first epoch on."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablation.study.config import Arm
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import Stage, Task


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings as one mapping from dotted paths; lists of techniques are numbered, other lists stay as they are."""
    if isinstance(value, Mapping):
        return {
            leaf_path: leaf
            for key, item in value.items()
            for leaf_path, leaf in flatten(item, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return {leaf_path: leaf for i, item in enumerate(value) for leaf_path, leaf in flatten(item, f"{path}.{i}").items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def changes_between(parent: Arm, arm: Arm, task: Task) -> dict[str, tuple[Any, Any]]:
    """dotted setting -> (the parent's value, the arm's), for all that differ; `stages.N.` precedes what differs only in some stages."""
    lengths, unrolled = _length_changes(parent, arm), _differences_by_start(parent, arm, task)
    if "epochs" not in lengths and not any(differences for _, differences in unrolled):
        return {}  # the stages may be split elsewhere, which changes nothing
    differences_by_stage = _differences_by_stage(parent, arm, task) if len(parent.stages) == len(arm.stages) else unrolled
    changes = lengths
    for name in dict.fromkeys(name for _, differences in differences_by_stage for name in differences):
        values = [differences.get(name) for _, differences in differences_by_stage]
        if all(value == values[0] for value in values):
            changes[name] = differences_by_stage[0][1][name]
        else:
            changes |= {f"stages.{i}.{name}": differences[name] for i, differences in differences_by_stage if name in differences}
    return changes


Differences = dict[str, tuple[Any, Any]]


def _differences_by_stage(parent: Arm, arm: Arm, task: Task) -> list[tuple[int, Differences]]:
    """(number, what differs) for each pair of stages with the same number."""
    return [
        (i, _differences(*(task.in_force(compared_arm.stages, i, begins=i > 0) for compared_arm in (parent, arm))))
        for i in range(len(arm.stages))
    ]


def _differences_by_start(parent: Arm, arm: Arm, task: Task) -> list[tuple[int, Differences]]:
    """(number, what differs) for each epoch at which a stage of either arm begins; stages are numbered as in the arm with more of them."""
    starts = sorted({stage.first_epoch for compared_arm in (parent, arm) for stage in compared_arm.stages})
    longer = arm.stages if len(arm.stages) >= len(parent.stages) else parent.stages
    return [(_stage_at(longer, start), _differences(_settings_at(parent, start, task), _settings_at(arm, start, task))) for start in starts]


def _settings_at(arm: Arm, epoch: int, task: Task) -> dict[str, Any]:
    stage_number = _stage_at(arm.stages, epoch)
    return task.in_force(arm.stages, stage_number, begins=arm.stages[stage_number].first_epoch == epoch > 0)


def _length_changes(parent: Arm, arm: Arm) -> dict[str, tuple[Any, Any]]:
    old, new = ([stage.epochs for stage in compared_arm.stages] for compared_arm in (parent, arm))
    changes: dict[str, tuple[Any, Any]] = {"epochs": (sum(old), sum(new))} if sum(old) != sum(new) else {}
    if max(len(old), len(new)) > 1:
        for i, (before, after) in enumerate(itertools.zip_longest(old, new)):
            if before != after:
                changes[f"stages.{i}.epochs"] = (before, after)
    return changes


def _stage_at(stages: Sequence[Stage], epoch: int) -> int:
    """The number of the stage in force at an epoch."""
    return max(i for i, stage in enumerate(stages) if stage.first_epoch <= epoch)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {name: (old.get(name), new.get(name)) for name in names if not is_same(old.get(name), new.get(name))}


def is_same(old: Any, new: Any) -> bool:
    """Whether two values of a setting, plain data, are one; unlike in Python, `1`, `1.0` and `true` are three."""
    return bool(old == new) and json.dumps(old, sort_keys=True, default=str) == json.dumps(new, sort_keys=True, default=str)


def families(changed_settings: Iterable[str], schema: SettingsSchema) -> list[str]:
    """The families that a change touches.

    The options of stages count as one family, and their lengths only if nothing else differs.
    """
    touched: dict[str, None] = {}
    lengths: dict[str, None] = {}
    for path in changed_settings:
        parts = path.split(".")
        is_length = parts[0] == "stages" and parts[2] == "epochs"
        setting = parts[2] if parts[0] == "stages" else parts[0]
        (lengths if is_length else touched)["stages" if setting in schema.option_names else setting] = None
    return list(touched or lengths)
