"""What pydantic finds wrong with a setting, as one of our errors."""

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
    known = {field.alias or name for name, field in model.model_fields.items()}
    where = ".".join([*([path] if path else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        return ConfigError(where, f"unknown field {unknown!r}; expected one of {', '.join(sorted(known))}.{nearest(unknown, known)}")
    if first["type"] == "missing":
        return ConfigError(where, "is missing; expected a value")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return ConfigError(where, f"found {shorten(first['input'])}; expected {PLAIN_WORDS.get(message, message)}{_meant(first)}")


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
