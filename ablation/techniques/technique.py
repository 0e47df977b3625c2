"""What a technique is (its settings, frozen), and how a family's YAML form becomes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import core_schema

from ablation.errors import ConfigError, nearest, unknown_name

# family -> the module that holds it. Every such module has TECHNIQUES (its classes) and may have SHORT_FORMS (name -> the mapping
# that it stands for), UNNAMED (the name of a mapping without one) and ANY_NAME (the class for every name that is not listed).
FAMILIES = {
    "losses": "ablation.techniques.losses",
    "class_weights": "ablation.techniques.class_weights",
    "samplers": "ablation.techniques.samplers",
    "mixing": "ablation.techniques.mixing",
    "smoothing": "ablation.techniques.smoothing",
    "augmentations": "ablation.techniques.augmentations",
    "models": "ablation.techniques.models",
    "classifiers": "ablation.techniques.classifiers",
    "optimizers": "ablation.techniques.optimizers",
    "schedules": "ablation.techniques.schedules",
    "averages": "ablation.techniques.averages",
    "tta": "ablation.techniques.tta",
    "posthoc": "ablation.techniques.posthoc",
    "longtail": "ablation.techniques.longtail",
    "data": "ablation.data.sources",
}


class Technique(BaseModel):
    """A frozen set of settings; unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, populate_by_name=True, allow_inf_nan=False)


Pair = Annotated[tuple[float, float], Field(strict=False)]  # YAML has lists only, so a tuple field must take them


WORDS = {  # pydantic's words for types, and ours
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a mapping",
}


@dataclass(frozen=True)
class Family:
    """The interchangeable techniques of one kind, by name."""

    name: str
    techniques: Mapping[str, type[Technique]]
    short_forms: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]
    unnamed: str | None
    any_name: type[Technique] | None

    @property
    def noun(self) -> str:
        """What one of them is called in messages."""
        return {"losses": "loss", "class_weights": "class weights", "longtail": "long tail", "data": "data set"}.get(
            self.name, self.name.removesuffix("s")
        )

    @property
    def names(self) -> list[str]:
        """Every name that the file may use."""
        return [*self.techniques, *self.short_forms]


def family(name: str) -> Family:
    """The family of that name, its module imported on first use."""
    if name not in FAMILIES:
        raise unknown_name("", "family", name, FAMILIES)
    module = import_module(FAMILIES[name])
    techniques = {technique_name(technique): technique for technique in module.TECHNIQUES}
    return Family(name, techniques, getattr(module, "SHORT_FORMS", {}), getattr(module, "UNNAMED", None), getattr(module, "ANY_NAME", None))


def technique_name(technique: type[Technique]) -> str:
    """The name by which the file calls this class."""
    return str(technique.model_fields["name"].default)


def make(family_name: str, spec: object, path: str = "") -> Any:
    """The technique that a YAML form stands for: a name, a mapping with `name`, or a technique already made.

    Raises ConfigError with the dotted `path` for an unknown name, an unknown field or a wrong value.
    """
    kind = family(family_name)
    if isinstance(spec, Technique):
        if type(spec) not in (*kind.techniques.values(), kind.any_name):
            raise ConfigError(path, f"found {spec!r}; expected a {kind.noun}")
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        raise ConfigError(path, f"found {spec!r}; expected a name or a mapping with a name, out of {', '.join(kind.names)}")
    fields = dict(spec)
    name = fields.get("name", kind.unnamed)
    if name is None:
        raise ConfigError(path, f"the mapping has no name; expected name: one of {', '.join(kind.names)}")
    if not isinstance(name, str):
        raise ConfigError(f"{path}.name".lstrip("."), f"found {name!r}; expected one of {', '.join(kind.names)}")
    if name in kind.short_forms:
        fields = _written_out(kind, name, fields, path)
        name = fields["name"]
    chosen = kind.techniques.get(name, kind.any_name)
    if chosen is None:
        raise unknown_name(f"{path}.name".lstrip(".") if "name" in fields and len(fields) > 1 else path, kind.noun, name, kind.names)
    return build(chosen, {**fields, "name": name}, path)


def _written_out(kind: Family, name: str, fields: dict[str, Any], path: str) -> dict[str, Any]:
    try:
        return kind.short_forms[name](fields)
    except ConfigError as error:
        raise error.under(path) from None


M = TypeVar("M", bound=BaseModel)


def build(model: type[M], fields: Mapping[str, Any], path: str = "") -> M:
    """The model made of these fields; whatever is wrong becomes one ConfigError with its dotted path."""
    try:
        return model.model_validate(dict(fields))
    except ConfigError as error:
        raise error.under(path) from None
    except ValidationError as error:
        raise _told(error, model, path) from None


def _told(error: ValidationError, model: type[BaseModel], path: str) -> ConfigError:
    """The first problem of a ValidationError in our words."""
    first = error.errors(include_url=False)[0]
    known = {field.alias or name for name, field in model.model_fields.items()}
    where = ".".join([*([path] if path else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        return ConfigError(where, f"unknown field {unknown!r}; expected one of {', '.join(sorted(known))}.{nearest(unknown, known)}")
    if first["type"] == "missing":
        return ConfigError(where, "is missing; expected a value")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return ConfigError(where, f"found {_short(first['input'])}; expected {WORDS.get(message, message)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Nested:
    """Marks a field that holds a technique of a family: `loss: Annotated[Any, Nested("losses")]`; with `many`, a list of them."""

    family: str
    many: bool = False

    def resolve(self, value: object, info: ValidationInfo) -> object:
        """The technique, or the tuple of techniques, that the YAML form stands for."""
        where = str(info.field_name)
        if not self.many:
            return make(self.family, value, where)
        if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
            raise ConfigError(where, f"found {value!r}; expected a list of techniques")
        return tuple(make(self.family, one, f"{where}.{i}") for i, one in enumerate(cast(Any, value)))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_before_validator_function(self.resolve, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kind = family(self.family)
        mappings = [handler(technique.__pydantic_core_schema__) for technique in kind.techniques.values()]
        shorts = [{"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]} for name in kind.short_forms]
        free = [{"type": "string"}, handler(kind.any_name.__pydantic_core_schema__)] if kind.any_name else []
        named = [{"enum": kind.names}] if kind.names else []
        one = {"anyOf": [*named, *mappings, *shorts, *free]}
        return {"type": "array", "items": one} if self.many else one
