"""What a study's file says, as plain data: recorded with each plan, so that a report can tell when the file has changed since."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.formatting import counted, shortened, worded
from ablation.study.changes import flatten, is_same
from ablation.study.config import AUTO, Arm, Study
from ablation.study.settings_schema import SettingsSchema
from ablation.study.task import Task
from ablation.system.digests import digest
from ablation.techniques.technique import dump

MOST_NAMED = 4  # differences that a sentence lists
STAGE = "stage"  # the key of a stage's length and options
WHOLE = ("seeds", "groups", "metric", "margin", "keep")  # what a file says besides its arms
ANNOTATIONS = ("label", "note", "published")

Written = Mapping[str, Any]


def written(study: Study) -> dict[str, Any]:
    """The file's seeds, groups, metric, margin, arms and what its kind of work declares, without what --set changed.

    The settings of an arm are those that differ from the first arm's. `digest` tells two contents apart.
    """
    schema = study.task.schema
    settings = {arm.name: _settings(arm, study, schema) for arm in study.plain}
    first = next(iter(settings.values()))
    arms = {arm.name: _about(arm) | {"settings": _differing(settings[arm.name], first)} for arm in study.plain}
    about = {"seeds": list(study.seeds), "groups": study.groups, "margin": study.margin, "keep": study.keep}
    about |= {"declared": study.task.declared} if study.task.declared else {}
    about |= {"metric": study.metric} if study.metric != AUTO else {}  # which plans that were recorded before it could be set lack
    content: dict[str, Any] = json.loads(json.dumps(about | {"first": first, "arms": arms}, default=str))  # as it is read again
    return content | {"digest": digest(content), "text": study.text, "sets": [list(pair) for pair in study.sets]}


def _settings(arm: Arm, study: Study, schema: SettingsSchema) -> dict[str, Any]:
    """dotted setting -> value, of the last stage and of what differs in the stages before; paths as from the file's folder."""
    stages = [flatten(dump(stage.settings)) | (_length(stage) if schema.option_names else {}) for stage in arm.stages]
    settings = dict(stages[-1])
    for i, stage in enumerate(stages[:-1]):
        settings |= {f"stages.{i}.{name}": value for name, value in stage.items() if value != stages[-1].get(name)}
    for family, name in schema.paths:
        path = settings.get(f"{family}.{name}")
        if isinstance(path, str) and os.path.isabs(path):
            settings[f"{family}.{name}"] = os.path.relpath(path, study.folder)
    return settings


def _length(stage: Any) -> dict[str, Any]:
    """The stage's own length and its options."""
    options = ("train", "head", "backbone", "start", "restart")
    return {STAGE: [stage.first_epoch, stage.epochs, *(getattr(stage, name, None) for name in options)]}


def _about(arm: Arm) -> dict[str, Any]:
    choice = [arm.choice.metric, *arm.choice.among] if arm.choice else None
    return {"parent": arm.parent, "label": arm.label, "note": arm.note, "published": dict(arm.published), "choice": choice}


def _differing(settings: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the first arm's; null for those that the first arm alone has."""
    names = dict.fromkeys([*first, *settings])
    return {name: settings.get(name) for name in names if not is_same(settings.get(name), first.get(name))}


def compared(study: Study, plan: Mapping[str, Any]) -> str:
    """A sentence about what the study's file says now and did not when this plan was recorded; empty if there is nothing."""
    file, recorded_file, then = study.file.name, plan.get("file", ""), plan.get("written")
    if then is None:
        return f"whether {file} was edited since cannot be told, since the plan was recorded by an earlier version"
    return _since(file, recorded_file, differences(written(study), then))


def declared_since(task: Task, file: Path, plan: Mapping[str, Any]) -> str:
    """The same about what the file declares beside its arms, for which these need not be resolved."""
    words = _declared({"declared": task.declared}, plan.get("written", {}))
    return _since(file.name, plan.get("file", ""), _first(words))


def _since(file: str, recorded_file: str, words: Sequence[str]) -> str:
    if not words:
        return ""
    since = f"{file} was edited since" if file == recorded_file else f"{file} differs from the file {recorded_file} that was run"
    return f"{since}: {'; '.join(words)}; the numbers are those of the recorded plan"


def about_sets(plan: Mapping[str, Any]) -> str:
    """A sentence about the settings that --set changed when this plan was recorded; empty if it changed none."""
    sets = plan.get("written", {}).get("sets", ())
    return (
        f"run with --set {' --set '.join(f'{path}={worded(value)}' for path, value in sets)}, which the file does not say" if sets else ""
    )


# --- in words ------------------------------------------------------------------------------------------------------------------


def differences(now: Written, then: Written) -> list[str]:
    """What a file says now and did not then, each in a few words: `epochs 9 was 1 in 2 arms`, `arm wce is new`."""
    changes: dict[str, list[str]] = {}
    shared = [name for name in now["arms"] if name in then["arms"]]
    for name in shared:
        for change in _of_arm(now, then, name):
            changes.setdefault(change, []).append(name)
    words = [f"{change} in {_arms(names, len(shared))}" for change, names in changes.items()]
    for verb, these, others in (("new", now, then), ("gone", then, now)):
        names = [name for name in these["arms"] if name not in others["arms"]]
        words += [f"{'arm' if len(names) == 1 else 'arms'} {shortened(names)} {'is' if len(names) == 1 else 'are'} {verb}"] if names else []
    new, old = ({"metric": AUTO} | dict(file) for file in (now, then))
    words += [f"{name} {worded(new[name])} was {worded(old[name])}" for name in WHOLE if new[name] != old[name]]
    return _first([*_declared(now, then), *words])


def _first(words: list[str]) -> list[str]:
    """The first few, and how many others there are."""
    more = len(words) - MOST_NAMED
    return words if more <= 0 else [*words[:MOST_NAMED], f"and {counted(more, 'other change')}"]


def _declared(now: Written, then: Written) -> list[str]:
    """What differs in what a file declares beside arms: `metrics.test/mae.margin 2 was 1`; nothing if it was not recorded then."""
    new, old = now.get("declared") or {}, then.get("declared") or {}
    names = dict.fromkeys([*new, *old]) if new and old else {}
    new = json.loads(json.dumps(new))
    return [f"{name} {_told(new, name)} was {_told(old, name)}" for name in names if new.get(name) != old.get(name)]


def _told(declared: Mapping[str, Any], name: str) -> str:
    value = declared.get(name)
    return worded(None if value in ("", [], {}) else value)


def _of_arm(now: Written, then: Written, name: str) -> Iterator[str]:
    """What differs in one arm."""
    new, old = (file["first"] | file["arms"][name]["settings"] for file in (now, then))
    has_stages = not now.get("declared")  # unlike one's own code, of which plans of an earlier version have lengths all the same
    if not has_stages and STAGE not in new:
        old.pop(STAGE, None)
    changed = [setting for setting in dict.fromkeys([*new, *old]) if not is_same(new.get(setting), old.get(setting))]
    replaced = {setting.removesuffix("name") for setting in changed if setting.endswith(".name")}  # techniques, whose fields go with them
    for setting in changed:
        is_field = any(setting.startswith(technique) and setting != f"{technique}name" for technique in replaced)
        if not is_field and not (has_stages and _is_length(setting)):
            yield f"{setting.removesuffix('.name')} {worded(new.get(setting))} was {worded(old.get(setting))}"
    if has_stages and "epochs" not in changed and any(_is_length(setting) for setting in changed):
        yield "other stages"
    before, after = then["arms"][name], now["arms"][name]
    for annotation in ANNOTATIONS:
        if after[annotation] != before[annotation]:
            yield f"{annotation} {worded(after[annotation] or None)} was {worded(before[annotation] or None)}"
    if (after["parent"], after["choice"]) != (before["parent"], before["choice"]):
        yield f"of {worded(after['parent'])} was {worded(before['parent'])}"


def _is_length(setting: str) -> bool:
    return re.fullmatch(rf"(stages\.\d+\.)?{STAGE}", setting) is not None


def _arms(names: list[str], total: int) -> str:
    return names[0] if len(names) == 1 else "every arm" if len(names) == total > 2 else counted(len(names), "arm")
