"""What an arm changes, in few words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.formatting import setting
from ablation.study.task import SettingsSchema
from ablation.techniques.technique import family


def change_words(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    """What an arm sets, shortly: `mix mixup (alpha 0.4)`, `smoothing.epsilon 0.1`, `stages.1: epochs 2, train head, head new`.

    Of a technique that is newly named, the fields at their defaults are not told, nor those that left with the one before it.
    """
    parts: dict[str, dict[str, Sequence[Any]]] = {}
    for path, values in change.items():
        stage = re.match(r"(stages\.\d+)\.(.+)", path)
        parts.setdefault(stage[1] if stage else "", {})[stage[2] if stage else path] = values
    words = _setting_words(parts.pop("", {}), schema)
    return words + [
        f"{stage}: {', '.join(_stage_words(own, schema))}" for stage, own in sorted(parts.items(), key=lambda item: _number(item[0]))
    ]


def _number(stage: str) -> int:
    return int(stage.rpartition(".")[2])


def _stage_words(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    """The stage's own options first; a frozen backbone that is in eval mode goes without saying."""
    is_implied = change.get("train", ("", ""))[1] == "head" and change.get("backbone", ("", ""))[1] == "eval"
    told = {path: values for path, values in change.items() if not (path == "backbone" and is_implied)}
    options = [name for name in schema.option_names if name in told]
    return [_setting_of(name, told.pop(name)[1]) for name in options] + _setting_words(told, schema)


def _setting_words(change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> list[str]:
    lists = list(dict.fromkeys(path.partition(".")[0] for path in change if re.match(r"[^.]+\.\d+\.name$", path)))
    whole = {path for path in change if path.partition(".")[0] in lists}
    named = [path.removesuffix(".name") for path in change if path.endswith(".name") and path not in whole]
    words = [_technique_words(path, change, schema) for path in named if not _is_within(path, named)]
    words += [_list_words(name, change, schema) for name in lists]
    for path in change:
        if path in whole or _is_within(path, named):
            continue
        words.append(_setting_of(path, change[path][1]) if change[path][1] is not None else f"no {path}")
    return words


def _is_within(path: str, named: Sequence[str]) -> bool:
    """Whether the setting belongs to one of these techniques."""
    return any(path.startswith(f"{technique}.") for technique in named)


def _technique_words(path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> str:
    """`mix mixup (alpha 0.4)`: the technique that is new at this path, with its fields that are no defaults."""
    name = change[f"{path}.name"][1]
    told = _own_fields(path, change, schema, name)
    fields = f" ({', '.join(told)})" if told else ""
    return _setting_of(path, name) + fields


def _own_fields(path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema, name: str) -> list[str]:
    """The fields set at this path that are not at the defaults of the technique of that name; techniques within by their own."""
    known, told = defaults(path, name, schema), []
    for full in [one for one in change if one.startswith(f"{path}.") and one != f"{path}.name"]:
        field, new = full.removeprefix(f"{path}."), change[full][1]
        inner = field.removesuffix(".name")
        if new is None or (full in change and _is_inner_default(full, path, change, schema)):
            continue
        if field.endswith(".name") and new != known.get(inner):
            told.append(_setting_of(inner, new))
        elif not field.endswith(".name") and new != known.get(field):
            told.append(_setting_of(field, new))
    return told


def _is_inner_default(full: str, path: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> bool:
    """Whether this is a field, at its default, of a technique within the one at `path`."""
    inner, _, field = full.rpartition(".")
    name = change.get(f"{inner}.name", ("", ""))[1]
    return inner != path and field != "name" and change[full][1] == defaults(inner, name, schema).get(field)


def _list_words(name: str, change: Mapping[str, Sequence[Any]], schema: SettingsSchema) -> str:
    """`augment: affine, erase → hflip, affine`: the part of a list of techniques that changed, three dots for what stayed between."""
    places = sorted(int(match[1]) for path in change if (match := re.match(rf"{re.escape(name)}\.(\d+)\.name$", path)))
    around = range(places[0], places[-1] + 1)
    ends = []
    for side in (0, 1):
        told = [_listed_technique(f"{name}.{place}", change, side, schema) for place in around]
        kept = [word for word in told if word]
        ends.append(", ".join([*(["…"] if places[0] > 0 else []), *kept]) or "none")
    return f"{name}: {ends[0]} → {ends[1]}"


def _listed_technique(path: str, change: Mapping[str, Sequence[Any]], side: int, schema: SettingsSchema) -> str:
    if f"{path}.name" not in change:
        return "…"
    name: str | None = change[f"{path}.name"][side]
    if name is None:
        return ""
    sided = {one: (None, values[side]) for one, values in change.items() if one.startswith(f"{path}.")}
    told = _own_fields(path, sided, schema, name)
    return name + (f" ({', '.join(told)})" if told else "")


def defaults(path: str, name: object, schema: SettingsSchema) -> dict[str, Any]:
    """field -> default of the technique of that name at that path of the settings; nothing where it is not one of ours."""
    steps = [step for step in re.sub(r"^stages\.\d+\.", "", path).split(".") if not step.isdigit()]
    family_name = schema.families.get(".".join(steps), "")
    if not family_name:
        return {}
    kind = family(family_name)
    technique = kind.techniques.get(str(name), kind.any_name)
    fields = technique.model_fields if technique else {}
    found = {
        alias: field.get_default(call_default_factory=True, validated_data={})
        for key, field in fields.items()
        for alias in {key, field.alias or key}
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _setting_of(path: str, value: object) -> str:
    """`mix mixup`, and with a colon where the value is a phrase: `posthoc.tau: the best of 0.5, 1.0 by val/nll`."""
    return f"{path}: {value}" if isinstance(value, str) and " " in value else f"{path} {setting(value)}"
