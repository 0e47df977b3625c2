"""An arm's changes in short phrases."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.formatting import setting
from ablation.study.settings_schema import SettingsSchema
from ablation.techniques.defaults import field_defaults


def change_words(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    """Short phrases for what an arm sets: `mix mixup (alpha 0.4)`, `smoothing.epsilon 0.1`, `stages.1: epochs 2, train head, head new`.

    Of a technique that the arm newly names, fields at their defaults are left out, and so are the fields of the technique it replaces.
    """
    changes_by_stage: dict[str, dict[str, Sequence[Any]]] = {}
    for path, values in change.items():
        stage = re.match(r"(stages\.\d+)\.(.+)", path)
        changes_by_stage.setdefault(stage[1] if stage else "", {})[stage[2] if stage else path] = values
    phrases = _setting_phrases(changes_by_stage.pop("", {}), schema)
    return phrases + [
        f"{stage}: {', '.join(_stage_phrases(stage_changes, schema))}"
        for stage, stage_changes in sorted(changes_by_stage.items(), key=lambda item: _stage_number(item[0]))
    ]


def _stage_number(stage: str) -> int:
    return int(stage.rpartition(".")[2])


def _stage_phrases(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    """The stage's own options come first; that a frozen backbone is in eval mode is left out."""
    is_implied = change.get("train", ("", ""))[1] == "head" and change.get("backbone", ("", ""))[1] == "eval"
    shown = {path: values for path, values in change.items() if not (path == "backbone" and is_implied)}
    options = [name for name in schema.option_names if name in shown]
    return [_setting_phrase(name, shown.pop(name)[1]) for name in options] + _setting_phrases(shown, schema)


def _setting_phrases(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    lists = list(dict.fromkeys(path.partition(".")[0] for path in change if re.match(r"[^.]+\.\d+\.name$", path)))
    list_paths = {path for path in change if path.partition(".")[0] in lists}
    technique_paths = [path.removesuffix(".name") for path in change if path.endswith(".name") and path not in list_paths]
    phrases = [_technique_phrase(path, change, schema) for path in technique_paths if not _is_within(path, technique_paths)]
    phrases += [_list_phrase(name, change, schema) for name in lists]
    for path in change:
        if path in list_paths or _is_within(path, technique_paths):
            continue
        phrases.append(_setting_phrase(path, change[path][1]) if change[path][1] is not None else f"no {path}")
    return phrases


def _is_within(path: str, technique_paths: Sequence[str]) -> bool:
    """Whether the setting belongs to one of these techniques."""
    return any(path.startswith(f"{technique_path}.") for technique_path in technique_paths)


def _technique_phrase(path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> str:
    """`mix mixup (alpha 0.4)`: the new technique at this path, with those of its fields that are not at their defaults."""
    name = change[f"{path}.name"][1]
    field_phrases = _non_default_fields(path, change, schema, name)
    fields = f" ({', '.join(field_phrases)})" if field_phrases else ""
    return _setting_phrase(path, name) + fields


def _non_default_fields(path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema, name: str) -> list[str]:
    """Phrases for the fields set at this path that are not at their defaults; nested techniques have their own defaults."""
    field_defaults, phrases = defaults(path, name, schema), []
    for field_path in [changed_path for changed_path in change if changed_path.startswith(f"{path}.") and changed_path != f"{path}.name"]:
        field, new_value = field_path.removeprefix(f"{path}."), change[field_path][1]
        nested_field = field.removesuffix(".name")
        if new_value is None or (field_path in change and _is_nested_default(field_path, path, change, schema)):
            continue
        if field.endswith(".name") and new_value != field_defaults.get(nested_field):
            phrases.append(_setting_phrase(nested_field, new_value))
        elif not field.endswith(".name") and new_value != field_defaults.get(field):
            phrases.append(_setting_phrase(field, new_value))
    return phrases


def _is_nested_default(field_path: str, path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> bool:
    """Whether this field belongs to a technique nested in the one at `path`, and is at its default."""
    nested_path, _, field = field_path.rpartition(".")
    name = change.get(f"{nested_path}.name", ("", ""))[1]
    return nested_path != path and field != "name" and change[field_path][1] == defaults(nested_path, name, schema).get(field)


def _list_phrase(name: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> str:
    """`augment: affine, erase → hflip, affine`: the part of a list of techniques that changed; … stands for what stayed."""
    positions = sorted(int(match[1]) for path in change if (match := re.match(rf"{re.escape(name)}\.(\d+)\.name$", path)))
    changed_range = range(positions[0], positions[-1] + 1)
    sides = []
    for side in (0, 1):
        item_phrases = [_list_item_phrase(f"{name}.{position}", change, side, schema) for position in changed_range]
        shown = [phrase for phrase in item_phrases if phrase]
        sides.append(", ".join([*(["…"] if positions[0] > 0 else []), *shown]) or "none")
    return f"{name}: {sides[0]} → {sides[1]}"


def _list_item_phrase(path: str, change: Mapping[str, Sequence[Any]], side: int, schema: SettingsSchema) -> str:
    if f"{path}.name" not in change:
        return "…"
    name: str | None = change[f"{path}.name"][side]
    if name is None:
        return ""
    side_changes = {changed_path: (None, values[side]) for changed_path, values in change.items() if changed_path.startswith(f"{path}.")}
    field_phrases = _non_default_fields(path, side_changes, schema, name)
    return name + (f" ({', '.join(field_phrases)})" if field_phrases else "")


def defaults(path: str, name: object, schema: SettingsSchema) -> dict[str, Any]:
    """field -> default of the technique of that name at that path of the settings; empty if it is not a built-in one."""
    keys = [key for key in re.sub(r"^stages\.\d+\.", "", path).split(".") if not key.isdigit()]
    family_name = schema.families.get(".".join(keys), "")
    return field_defaults(family_name, str(name)) if family_name else {}


def _setting_phrase(path: str, value: object) -> str:
    """`mix mixup`, or with a colon if the value has several words: `posthoc.tau: the best of 0.5, 1.0 by val/nll`."""
    return f"{path}: {value}" if isinstance(value, str) and " " in value else f"{path} {setting(value)}"
