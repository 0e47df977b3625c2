"""What a study of one's own training code may set, checked, and how settings reach a command."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, create_model

from ablation.errors import ConfigError, unknown_name
from ablation.study.changes import flatten
from ablation.study.params import NO_SETTINGS
from ablation.study.specs import NON_SETTINGS
from ablation.tasks.own import function
from ablation.tasks.own.definition import ALL, CHECKPOINTS, OUT, OVERRIDES, PLACE, PLACES, SEED, SETTINGS, Definition
from ablation.tasks.own.function import Values
from ablation.techniques.setting_errors import shorten
from ablation.techniques.technique import Technique, build, dump

RESERVED = (*NON_SETTINGS, *NO_SETTINGS, "stages", "name")  # words of a study's file, and of what is recorded of a run
NAME = r"\w[\w-]*"
BARE = r"[A-Za-z_/][\w./-]*"  # text that a parser of overrides takes for text without quotes
KEYWORDS = ("true", "false", "null", "none", "inf", "nan", "yes", "no", "on", "off")
Check = Callable[[Any], Any]  # the plain data that a value stands for; raises ConfigError


class OwnSettings(Technique):
    """The settings of one's own code: plain data under the names that the code gives them, which are the aliases of the fields."""

    model_config = ConfigDict(populate_by_name=False)

    def __hash__(self) -> int:
        return hash(json.dumps(dump(self), sort_keys=True))


def schema_of(definition: Definition, base: Mapping[str, Any]) -> type[Technique]:
    """The model of the settings: a function's parameters, whose module is imported, or what the base of a command sets.

    Raises ConfigError for what cannot be a setting, and for what does not reach the command.
    """
    if definition.is_function:
        function.check_first(definition.function, definition.folder, base)
        return _model(
            {setting.name: (partial(_checked, setting.name, setting.values), setting.default) for setting in _of_function(definition)}
        )
    settings = _nested(base)
    _check_places(definition, list(flatten(settings)))
    for name in settings:
        if name in (*RESERVED, *PLACES):
            raise ConfigError(f"base.{name}", "means something else in a study or its command; expected another name")
    has_options = ALL in definition.places
    return _model({name: (_by_example(name, value, f"base.{name}", has_options=has_options), value) for name, value in settings.items()})


def required_of(definition: Definition) -> tuple[str, ...]:
    """The settings that a base must have: the parameters without a default."""
    return tuple(setting.name for setting in _of_function(definition) if setting.default is ...) if definition.is_function else ()


def defaults_of(definition: Definition) -> dict[str, Any]:
    """The defaults in the function's signature, as plain data; a command has none, since its base says all."""
    return (
        {setting.name: setting.default for setting in _of_function(definition) if setting.default is not ...}
        if definition.is_function
        else {}
    )


def _of_function(definition: Definition) -> tuple[function.Setting, ...]:
    settings = function.settings_of(definition.function, definition.folder)
    for setting in settings:
        if setting.name in RESERVED:
            problem = f"{definition.function} has the parameter {setting.name}, which means something else in a study"
            expected = "run.seed in its place" if setting.name == SEED else "another name for it"
            raise ConfigError(function.PLACE, f"{problem}; expected {expected}")
    return settings


def _model(fields: Mapping[str, tuple[Check, Any]]) -> type[Technique]:
    """The model with these names; its fields are numbered, since any of its own attributes may be the name of a setting."""
    definitions: dict[str, Any] = {
        f"field_{i}": (Annotated[Any, AfterValidator(check)], Field(default, alias=name))
        for i, (name, (check, default)) in enumerate(fields.items())
    }
    return create_model("Settings", __base__=OwnSettings, **definitions)


def _checked(name: str, values: Values, value: object) -> Any:
    """The value as plain data; raises ConfigError for one of another type."""
    try:
        return values.plain(value)
    except ValueError:
        raise ConfigError(name, values.problem(value)) from None


def _checked_as_base(name: str, values: Values, example: Any, value: object) -> Any:
    """The value, of which base has an example; where that is a whole number and this one is not, the message says what to write."""
    try:
        return _checked(name, values, value)
    except ConfigError as error:
        if type(example) is not int or not isinstance(value, float):
            raise
        expected = f"a whole number, as base has there: {float(example)} in base makes it a number"
        raise ConfigError(name, f"found {shorten(value)}; expected {expected}") from error


# --- the base of a command -------------------------------------------------------------------------------------------------------


def _nested(base: Mapping[str, Any]) -> dict[str, Any]:
    """The base with its dotted names as mappings within mappings."""
    nested = {name: value for name, value in base.items() if "." not in name}
    for dotted in sorted(name for name in base if "." in name):
        nested = _with_dotted(nested, dotted.split("."), base[dotted], f"base.{dotted}", is_new=dotted.split(".")[0] not in base)
    return nested


def _with_dotted(nested: Mapping[str, Any], parts: list[str], value: Any, where: str, *, is_new: bool) -> dict[str, Any]:
    """The mapping with the value at that path; what the base has as a mapping already must have its place."""
    first, *rest = parts
    inner = nested.get(first, {})
    if (not is_new and first not in nested) or (rest and not isinstance(inner, Mapping)):
        raise ConfigError(where, "is not in the mapping that base has beside it; expected it there, since that says what there is")
    return {**nested, first: _with_dotted(inner, rest, value, where, is_new=is_new) if rest else value}


def _by_example(name: str, value: Any, where: str, *, has_options: bool) -> Check:
    """The check for values of the type of this one, which the base has at `where`."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(where, "is no name of a setting; expected letters, digits, - and _")
    if isinstance(value, Mapping) and value:
        inner = {key: (_by_example(key, item, f"{where}.{key}", has_options=has_options), ...) for key, item in value.items()}
        return partial(_checked_mapping, name, _model(inner))
    check = partial(_checked_as_base, name, Values(_type_of(value, where)), value)
    return partial(_checked_list, name, check) if isinstance(value, list) and has_options else check


def _type_of(value: Any, where: str) -> Any:
    """The type of a value in the base: bool, int, float, str, or a list of one of these."""
    if isinstance(value, list):
        kinds = {_type_of(item, f"{where}.{i}") for i, item in enumerate(value) if not isinstance(item, list)}
        kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else None
        if kind is None or any(isinstance(item, list) for item in value):
            raise ConfigError(where, f"found {shorten(value)}; expected a list of values of one type, since its type is taken from them")
        return list[kind]  # type: ignore[valid-type]
    if value is None or not isinstance(value, bool | int | float | str):
        shown = "null" if value is None else shorten(value)
        raise ConfigError(where, f"found {shown}; expected a value, since its type is taken from it")
    return type(value)


def _checked_mapping(name: str, model: type[Technique], value: object) -> dict[str, Any]:
    """A mapping with exactly the fields that the base has."""
    if not isinstance(value, Mapping):
        known = ", ".join(field.alias or "" for field in model.model_fields.values())
        raise ConfigError(name, f"found {shorten(value)}; expected a mapping with {known}")
    return dump(build(model, value, name))


def _checked_list(name: str, check: Check, value: object) -> Any:
    """A list whose items can stand after an option."""
    items = check(value)
    if wrong := next((item for item in items if isinstance(item, str) and item.startswith("-")), None):
        raise ConfigError(
            name, f"found {wrong!r} in a list, which a command would take for an option; expected text without a dash before it"
        )
    return items


def _check_places(definition: Definition, names: Iterable[str]) -> None:
    """Raise ConfigError for a place in braces that stands for nothing, and for a setting that reaches no place."""
    known = [*PLACES, *names]
    for place in sorted(definition.places):
        if place not in known:
            raise unknown_name("task.command", "place in braces", place, known)
    for word in definition.command:
        for place in (ALL, OVERRIDES):
            if place in PLACE.findall(word) and word != f"{{{place}}}":
                raise ConfigError("task.command", f"has {{{place}}} inside the word {word!r}; expected it as a word of its own")
    if not definition.places & {ALL, OVERRIDES, SETTINGS}:
        for name in names:
            if name not in definition.places:
                expected = f"{{{name}}}, {{args}}, {{overrides}} or {{settings}}"
                raise ConfigError(f"base.{name}", f"does not reach the command; expected {expected} in it")


# --- the words of a command ------------------------------------------------------------------------------------------------------


def argv(
    definition: Definition, settings: Mapping[str, Any], seed: int, out: Path | str, checkpoints: Path | str, settings_file: Path | str = ""
) -> list[str]:
    """The command's words, with every place filled in; no value is split or read as anything but itself."""
    values = flatten(settings)
    filled = {**values, SEED: seed, OUT: str(out), CHECKPOINTS: str(checkpoints), SETTINGS: str(settings_file)}
    others = {name: value for name, value in values.items() if name not in definition.places}
    words: list[str] = []
    for word in definition.command:
        place = PLACE.fullmatch(word)
        if word == f"{{{ALL}}}":
            words += [part for name, value in others.items() for part in _option(name, value)]
        elif word == f"{{{OVERRIDES}}}":
            words += [f"{name}={_override(value)}" for name, value in others.items()]
        elif place and isinstance(filled.get(place[1]), list):
            words += [_number_or_text(item) for item in filled[place[1]]]
        else:
            words.append(PLACE.sub(lambda match: _filled(match, filled), word))
    return words


def _filled(match: re.Match[str], values: Mapping[str, Any]) -> str:
    """What stands in a word for one place; {{name}} is {name}."""
    if not match[1]:
        return match[0][1:-1]
    value = values[match[1]]
    return _override(value) if isinstance(value, list) else _number_or_text(value)


def _option(name: str, value: Any) -> list[str]:
    """`--lr 0.1`, `--amp` or nothing, `--layers 1 2`, and `--shift=-5`, since some parsers take -5 for an option."""
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    if isinstance(value, list):
        return [f"--{name}", *map(_after_option, value)]
    text = _number_or_text(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _after_option(value: Any) -> str:
    """An item of a list; a negative number without an exponent, with which argparse would take it for an option."""
    is_negative = isinstance(value, float) and value < 0
    return format(Decimal(repr(value)), "f") if is_negative else _number_or_text(value)


def _number_or_text(value: Any) -> str:
    """A value as one word."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _override(value: Any) -> str:
    """A value as Hydra reads it: `[1,2]`, `true`, text in quotes where it could be read as something else."""
    if isinstance(value, list):
        return f"[{','.join(map(_override, value))}]"
    if not isinstance(value, str):
        return _number_or_text(value)
    if re.fullmatch(BARE, value) and value.lower() not in KEYWORDS:
        return value
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"
