"""How numbers, settings and names are put into a Markdown document."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.config import Settings, StageOptions
from ablation.techniques.technique import Nested, family

DASH = "–"
STAGE_OPTIONS = tuple(StageOptions.model_fields)
# where a technique stands in the settings -> its family
FAMILY_AT = {name: mark.family for name, field in Settings.model_fields.items() for mark in field.metadata if isinstance(mark, Nested)} | {
    "loss.weights": "class_weights",
    "data.longtail": "longtail",
}


def change_words(change: Mapping[str, Sequence[Any]]) -> list[str]:
    """What an arm sets, shortly: `mix mixup (alpha 0.4)`, `smoothing.epsilon 0.1`, `stages.1: epochs 2, train head, head new`.

    Of a technique that is newly named, the fields at their defaults are not told, nor those that left with the one before it.
    """
    parts: dict[str, dict[str, Sequence[Any]]] = {}
    for path, values in change.items():
        stage = re.match(r"(stages\.\d+)\.(.+)", path)
        parts.setdefault(stage[1] if stage else "", {})[stage[2] if stage else path] = values
    words = _setting_words(parts.pop("", {}))
    return words + [f"{stage}: {', '.join(_stage_words(own))}" for stage, own in sorted(parts.items(), key=lambda item: _number(item[0]))]


def _number(stage: str) -> int:
    return int(stage.rpartition(".")[2])


def _stage_words(change: Mapping[str, Sequence[Any]]) -> list[str]:
    """The stage's own options first; a frozen backbone that is in eval mode goes without saying."""
    is_implied = change.get("train", ("", ""))[1] == "head" and change.get("backbone", ("", ""))[1] == "eval"
    told = {path: values for path, values in change.items() if not (path == "backbone" and is_implied)}
    options = [name for name in STAGE_OPTIONS if name in told]
    return [_setting_of(name, told.pop(name)[1]) for name in options] + _setting_words(told)


def _setting_words(change: Mapping[str, Sequence[Any]]) -> list[str]:
    lists = list(dict.fromkeys(path.partition(".")[0] for path in change if re.match(r"[^.]+\.\d+\.name$", path)))
    whole = {path for path in change if path.partition(".")[0] in lists}
    named = [path.removesuffix(".name") for path in change if path.endswith(".name") and path not in whole]
    words = [_technique_words(path, change) for path in named if not _is_within(path, named)]
    words += [_list_words(name, change) for name in lists]
    for path in change:
        if path in whole or _is_within(path, named):
            continue
        words.append(_setting_of(path, change[path][1]) if change[path][1] is not None else f"no {path}")
    return words


def _is_within(path: str, named: Sequence[str]) -> bool:
    """Whether the setting belongs to one of these techniques."""
    return any(path.startswith(f"{technique}.") for technique in named)


def _technique_words(path: str, change: Mapping[str, Sequence[Any]]) -> str:
    """`mix mixup (alpha 0.4)`: the technique that is new at this path, with its fields that are no defaults."""
    name = change[f"{path}.name"][1]
    told = _own_fields(path, change, defaults(path, name))
    fields = f" ({', '.join(told)})" if told else ""
    return _setting_of(path, name) + fields


def _own_fields(path: str, change: Mapping[str, Sequence[Any]], known: Mapping[str, Any]) -> list[str]:
    """The fields set at this path that differ from what is known as their default; techniques within by their own."""
    told = []
    for full in [one for one in change if one.startswith(f"{path}.") and one != f"{path}.name"]:
        field, new = full.removeprefix(f"{path}."), change[full][1]
        inner = field.removesuffix(".name")
        if new is None or (full in change and _is_inner_default(full, path, change)):
            continue
        if field.endswith(".name") and new != known.get(inner):
            told.append(_setting_of(inner, new))
        elif not field.endswith(".name") and new != known.get(field):
            told.append(_setting_of(field, new))
    return told


def _is_inner_default(full: str, path: str, change: Mapping[str, Sequence[Any]]) -> bool:
    """Whether this is a field, at its default, of a technique within the one at `path`."""
    inner, _, field = full.rpartition(".")
    name = change.get(f"{inner}.name", ("", ""))[1]
    return inner != path and field != "name" and change[full][1] == defaults(inner, name).get(field)


def _list_words(name: str, change: Mapping[str, Sequence[Any]]) -> str:
    """`augment: affine, erase → hflip, affine`: the part of a list of techniques that changed, three dots for what stayed between."""
    places = sorted(int(match[1]) for path in change if (match := re.match(rf"{re.escape(name)}\.(\d+)\.name$", path)))
    around = range(places[0], places[-1] + 1)
    ends = []
    for side in (0, 1):
        told = [_listed_technique(f"{name}.{place}", change, side) for place in around]
        kept = [word for word in told if word]
        ends.append(", ".join([*(["…"] if places[0] > 0 else []), *kept]) or "none")
    return f"{name}: {ends[0]} → {ends[1]}"


def _listed_technique(path: str, change: Mapping[str, Sequence[Any]], side: int) -> str:
    if f"{path}.name" not in change:
        return "…"
    name: str | None = change[f"{path}.name"][side]
    if name is None:
        return ""
    sided = {one: (None, values[side]) for one, values in change.items() if one.startswith(f"{path}.")}
    told = _own_fields(path, sided, defaults(path, name))
    return name + (f" ({', '.join(told)})" if told else "")


def defaults(path: str, name: object) -> dict[str, Any]:
    """field -> default of the technique of that name at that path of the settings; nothing where it is not one of ours."""
    steps = [step for step in re.sub(r"^stages\.\d+\.", "", path).split(".") if not step.isdigit()]
    family_name = FAMILY_AT.get(".".join(steps), "")
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


def setting(value: object) -> str:
    """A setting's value as the file would have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def percent(mean: float, sd: float = math.nan) -> str:
    """`84.22 ± 0.31`, without the ± where there is no sd, and a dash where there is no number."""
    return number(100 * mean, 100 * sd)


def number(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """`0.512 ± 0.004`, without the ± where there is no sd, and a dash where there is no number."""
    return f"{mean:.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def change(mean: float, sd: float = math.nan, decimals: int = 2) -> str:
    """`+0.012 ± 0.004`: the same with a sign, and never a negative zero."""
    return f"{round(mean, decimals) + 0.0:+.{decimals}f}{_plus_minus(sd, decimals)}" if math.isfinite(mean) else DASH


def interval(mean: float, low: float, high: float, decimals: int = 2) -> str:
    """`+0.75 [-0.10, +1.60]`: a difference within its interval, without the interval where there is none."""
    told = change(mean, decimals=decimals)
    bounds = f" [{change(low, decimals=decimals)}, {change(high, decimals=decimals)}]"
    return told + bounds if math.isfinite(mean) and math.isfinite(low) and math.isfinite(high) else told


def p_value(p: float) -> str:
    """`0.031`, `<0.001`, and a dash where there is no test."""
    if not math.isfinite(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """`1 arm`, `2 arms`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def shortened(items: Sequence[str], most: int = 6) -> str:
    """`a, b, c and 12 more`."""
    rest = [f"{len(items) - most} more"] if len(items) > most else []
    return listed([*items[:most], *rest])


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def escaped(text: object) -> str:
    """The text on one line, with nothing in it that Markdown or HTML would take for its own."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, padded so that it also reads well as text; the first `left` columns are words, the rest numbers."""
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]
    ruler = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([_line(header, widths, left), _line(ruler, widths, left), *(_line(row, widths, left) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = (
        cell.ljust(width) if column < left else cell.rjust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _plus_minus(sd: float, decimals: int) -> str:
    return f" ± {sd:.{decimals}f}" if math.isfinite(sd) else ""
