"""An arm's resolved settings as text, as each run records them, and what differs between two records, in words."""

import json
from collections.abc import Iterator, Mapping

from ablation.study.changes import flatten
from ablation.study.config import Arm
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import Task
from ablation.techniques.technique import dump

LONGEST = 6000  # letters of a value that are recorded
NO_SETTINGS = ("arm", "seed", "condition")  # params that say which run it is


def params(arm: Arm, seed: int, task: Task) -> dict[str, str]:
    """The resolved settings as the file names them, dotted, and what the stages set otherwise."""
    plain = flatten(dump(arm.settings))
    values = {"arm": arm.name, "seed": seed, "condition": arm.condition or "", **plain}
    if len(arm.stages) > 1:
        for i, stage in enumerate(arm.stages):
            settings = flatten(dump(stage.settings))
            values |= {f"stages.{i}.{name}": value for name, value in settings.items() if plain.get(name) != value}
            values |= {f"stages.{i}.{name}": value for name, value in task.stage_options(stage).items()}
    return {
        name.replace("[", "").replace("]", ""): value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
    }


def changed_params(old: Mapping[str, str], new: Mapping[str, str], schema: SettingsSchema) -> list[str]:
    """What differs between two runs' params: `mix.alpha 0.4 -> 0.3`, `loss cross_entropy -> focal`; paths of files are left out.

    The fields of a technique that took another's place are left out, since they are not comparable.
    """
    paths = {f"{setting}.{field}" for setting, field in schema.paths}
    names = [name for name in dict.fromkeys([*old, *new]) if name not in NO_SETTINGS and name not in paths]
    changed = [name for name in names if _recorded(old.get(name)) != _recorded(new.get(name))]
    before, now = _num_stages(old), _num_stages(new)
    if before == now:
        return list(_words(changed, old, new))
    return [*_words([name for name in changed if not name.startswith("stages.")], old, new), f"stages {before} -> {now}"]


def moved_params(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The settings that two runs both have, and with other values."""
    names = [name for name in old if name in new and name not in NO_SETTINGS]
    return [name for name in names if _recorded(old[name]) != _recorded(new[name])]


def _num_stages(run_params: Mapping[str, str]) -> int:
    """How many stages a run has; those of a single one have no params of their own."""
    return max(1, len({name.split(".")[1] for name in run_params if name.startswith("stages.")}))


def _words(changed: list[str], old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    replaced = tuple(name.removesuffix("name") for name in changed if name.endswith(".name"))
    for name in changed:
        if name.endswith(".name") or not name.startswith(replaced):
            yield f"{name.removesuffix('.name')} {_worded(old.get(name))} -> {_worded(new.get(name))}"


def _recorded(value: str | None) -> str:
    """The value as far as it is recorded; an unset one, and the technique that does nothing, are as one that is not there."""
    return "" if value in (None, "null", "none") else str(value)[:LONGEST]


def _worded(value: str | None) -> str:
    return _recorded(value) or "none"
