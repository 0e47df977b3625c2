"""What pydantic finds wrong with a setting, as one of our errors."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ablation.errors import ConfigError, nearest

PLAIN_WORDS = {  # pydantic's words for a type: ours
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a mapping",
}

# Settings below 1 that people also say in percent; eps, gamma and their like they do not.
SHARES = {"probability", "validation", "test", "epsilon", "head", "tail", "drop", "drop_path", "lambda", "momentum", "decay"}


def to_config_error(error: ValidationError, model: type[BaseModel], path: str) -> ConfigError:
    """The first problem of a ValidationError as a ConfigError in our words."""
    first = error.errors(include_url=False)[0]
    where = ".".join([*([path] if path else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        known = {field.alias or name for name, field in _model_at(model, first["loc"]).model_fields.items()}
        return ConfigError(where, f"unknown field {unknown!r}; expected one of {', '.join(sorted(known))}.{nearest(unknown, known)}")
    if first["type"] == "missing":
        return ConfigError(where, "is missing; expected a value")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").partition(" or instance of ")[0]
    return ConfigError(where, f"found {shorten(first['input'])}; expected {PLAIN_WORDS.get(message, message)}{_meant(first)}")


def _model_at(model: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The model that the last part of a place is a field of, or should be: nested ones lie in fields, also in lists and mappings."""
    for part in place[:-1]:
        annotations = [field.annotation for name, field in model.model_fields.items() if part in (name, field.alias)]
        model = next((nested for annotation in annotations for nested in _models(annotation)), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _meant(problem: ErrorDetails) -> str:
    """What may be meant by a number in another unit: a percentage where a fraction is expected, or a fraction where a ratio is."""
    limits, value = problem.get("ctx", {}), problem["input"]
    if not isinstance(value, int | float):
        return ""
    if limits.get("lt", limits.get("le")) == 1 and 1 < value <= 100 and SHARES & set(problem["loc"]):
        return f", such as {value / 100:.10g} for {value:g} percent"
    return f", such as {1 / value:g} for 1 / {value:g}" if limits.get("ge") == 1 and 0 < value < 1 else ""


def shorten(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
