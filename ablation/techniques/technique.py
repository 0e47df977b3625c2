"""What a technique is (its settings, frozen), and how a family's YAML form becomes one."""

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_serializer,
)
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
# The settings of a family's members that the rest of the package reads, whether they are fields or fixed.
READ = {
    "losses": {"weights"},
    "models": {"image_size", "pretrained", "weights"},
    "optimizers": {"lr"},
    "schedules": {"epochs"},
    "longtail": {"indices"},
    "data": {"longtail", "validation"},
}
CODE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"  # the name of a class of the user's: module:Class


class Technique(BaseModel):
    """A frozen set of settings; unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, populate_by_name=True, allow_inf_nan=False)

    def check(self, settings: Any) -> None:
        """Raises ConfigError, its path starting at this technique, where the other settings of the arm do not fit; most fit any."""

    @field_serializer("name", check_fields=False)
    def _written(self, name: str) -> str:
        # A class that the file names as module:Class keeps that name, which its Literal does not admit, so that what is dumped
        # and recorded can be resolved again anywhere.
        return name


def dump(settings: Technique) -> dict[str, Any]:
    """The settings as plain data, under the names that the file uses."""
    return settings.model_dump(by_alias=True)


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
    plugins: Mapping[str, tuple[EntryPoint, ...]]  # of installed packages, imported where their names are used

    @property
    def noun(self) -> str:
        """What one of them is called in messages."""
        return {"losses": "loss", "class_weights": "class weights", "longtail": "long tail", "data": "data set"}.get(
            self.name, self.name.removesuffix("s")
        )

    @property
    def names(self) -> list[str]:
        """Every name that the file may use, those of classes by module:Class aside."""
        return [*self.techniques, *self.short_forms, *(name for name in self.plugins if name not in (*self.techniques, *self.short_forms))]

    @property
    def built_in(self) -> list[type[Technique]]:
        """The classes that come with the package."""
        return [*self.techniques.values(), *([self.any_name] if self.any_name else [])]


def family(name: str) -> Family:
    """The family of that name, its module imported on first use."""
    if name not in FAMILIES:
        raise unknown_name("", "family", name, FAMILIES)
    module = import_module(FAMILIES[name])
    techniques = {technique_name(technique): technique for technique in module.TECHNIQUES}
    short_forms, unnamed = getattr(module, "SHORT_FORMS", {}), getattr(module, "UNNAMED", None)
    return Family(name, techniques, short_forms, unnamed, getattr(module, "ANY_NAME", None), plugins(name))


def technique_name(technique: type[Technique]) -> str:
    """The name by which the file calls this class."""
    return str(technique.model_fields["name"].default)


def make(family_name: str, spec: object, path: str = "") -> Any:
    """The technique that a YAML form stands for: a name, a mapping with `name`, or a technique already made.

    Raises ConfigError with the dotted `path` for an unknown name, an unknown field or a wrong value.
    """
    kind = family(family_name)
    if isinstance(spec, Technique):
        if not _is_member(kind, spec):
            raise ConfigError(path, f"found {spec!r}; expected a {kind.noun}")
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        names = f", out of {', '.join(kind.names)}" if kind.names else ""
        raise ConfigError(path, f"found {spec!r}; expected a name or a mapping with a name{names}")
    fields = dict(spec)
    name = fields.get("name", kind.unnamed)
    if name is None:
        raise ConfigError(path, f"the mapping has no name; expected name: one of {', '.join(kind.names)}")
    if not isinstance(name, str):
        raise ConfigError(f"{path}.name".lstrip("."), f"found {name!r}; expected one of {', '.join(kind.names)}")
    if name in kind.short_forms and name not in kind.plugins:
        fields = _written_out(kind, name, fields, path)
        name = fields["name"]
    where = f"{path}.name".lstrip(".") if "name" in fields and len(fields) > 1 else path
    if re.fullmatch(CODE, name):
        chosen = by_path(kind, name, where)
        return build(chosen, {**fields, "name": technique_name(chosen)}, path).model_copy(update={"name": name})
    return build(_named(kind, name, where), {**fields, "name": name}, path)


def _named(kind: Family, name: str, where: str) -> type[Technique]:
    """The class of that name, a built-in or a plug-in."""
    if name in kind.plugins:
        return plugin(kind, name, where)
    chosen = kind.techniques.get(name, kind.any_name)
    if chosen is None:
        raise unknown_name(where, kind.noun, name, kind.names)
    return chosen


def _is_member(kind: Family, technique: Technique) -> bool:
    """Whether a technique is of this family; one that the file names as module:Class is known by what it can do."""
    if type(technique) in kind.built_in:
        return True
    name = getattr(technique, "name", "")
    if re.fullmatch(CODE, name):
        return not _lacking(kind, type(technique))
    return name in kind.plugins and plugin(kind, name, "") is type(technique)


# --- techniques of the user's own ----------------------------------------------------------------------------------------------


@dataclass
class _Permission:
    """Whether files may name code in this process."""

    is_given: bool = False


_PERMISSION = _Permission()


def allow_code(*folders: Path) -> None:
    """From now on files may name classes as module:Class, which are looked for among installed modules, in these folders and here."""
    _PERMISSION.is_given = True
    # At the end: a file of the user's that is called as an installed module must not take that module's place for everyone else.
    sys.path.extend(text for text in dict.fromkeys(str(folder.resolve()) for folder in (*folders, Path.cwd())) if text not in sys.path)


def by_path(kind: Family, code: str, where: str) -> type[Technique]:
    """The class that module:Class names, which is imported only where `allow_code` was called."""
    if not _PERMISSION.is_given:
        raise ConfigError(where, f"names code ({code}); --allow-code lets it be imported")
    module_name, _, class_name = code.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        problem = f"{code} cannot be imported: {_failure(error)}"
        raise ConfigError(where, f"{problem}; expected a module that is installed, beside the study's file or here") from error
    if not hasattr(module, class_name):
        place = getattr(module, "__file__", None) or "no file"
        raise ConfigError(where, f"{code} was not found in {place}; expected a class there.{nearest(class_name, vars(module))}")
    return _checked(kind, getattr(module, class_name), code, where)


@cache
def plugins(family_name: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a family by name; several under one name are an error once that name is used."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for one in _registered():
        if one.group == f"ablation.{family_name}":
            found.setdefault(one.name, {})[one.value] = one
    return {name: tuple(ones.values()) for name, ones in found.items()}


@cache
def _registered() -> tuple[EntryPoint, ...]:
    """The entry points of all families; it reads every installed package's metadata, so once."""
    installed = entry_points()
    return tuple(one for name in FAMILIES for one in installed.select(group=f"ablation.{name}"))


def plugin(kind: Family, name: str, where: str) -> type[Technique]:
    """The class that an installed package registers under that name."""
    found = [*_built_in_of_name(kind, name), *(_origin(one) for one in kind.plugins[name])]
    if len(found) > 1:
        raise ConfigError(where, f"{name!r} is the name of {' and of '.join(found)}; expected one, so uninstall or rename the other")
    one = kind.plugins[name][0]
    try:
        loaded = one.load()
    except Exception as error:  # whatever that package raises
        raise ConfigError(where, f"the plug-in {name!r} ({_origin(one)}) cannot be imported: {_failure(error)}") from error
    chosen = _checked(kind, loaded, one.value, where)
    if technique_name(chosen) != name:
        problem = f"the plug-in {name!r} ({_origin(one)}) calls itself {technique_name(chosen)!r}; expected one name for both"
        raise ConfigError(where, problem)
    return chosen


def _built_in_of_name(kind: Family, name: str) -> list[str]:
    """What comes with the package under that name, in words."""
    if name in kind.techniques:
        return [f"the built-in {home(kind.techniques[name])}"]
    if name in kind.short_forms:
        return ["a built-in short form"]
    try:
        return [f"a {kind.noun} of {home(build(kind.any_name, {'name': name}).__class__)}"] if kind.any_name else []
    except ConfigError:
        return []


def home(technique: type) -> str:
    """Where a class is written, as module:Class."""
    return f"{technique.__module__}:{technique.__qualname__}"


def _origin(one: EntryPoint) -> str:
    return f"{one.value} of {one.dist.name} {one.dist.version}" if one.dist else one.value


def _checked(kind: Family, found: object, code: str, where: str) -> type[Technique]:
    """What was imported, which must be a technique and offer what the family's others do."""
    if not isinstance(found, type) or not issubclass(found, Technique):
        raise ConfigError(where, f"{code} is {_short(found)}; expected a class that inherits from ablation.techniques.technique.Technique")
    field = found.model_fields.get("name")
    if field is None or not isinstance(field.default, str) or ":" in field.default:
        raise ConfigError(where, f'{code} has no name; expected a field such as name: Literal["mine"] = "mine"')
    lacking = _lacking(kind, found)
    if lacking:
        problem = f"{code} is no {kind.noun}: it has no {', '.join(lacking)}"
        raise ConfigError(where, f"{problem}; expected what every {kind.noun} has (see {home(_base(kind))})")
    return found


def _lacking(kind: Family, technique: type[Technique]) -> list[str]:
    """The attributes that all built-in members of a family have, and the settings that others read, where this class has none."""
    common = set.intersection(*(_methods(one) for one in kind.built_in)) | READ.get(kind.name, set())
    return sorted(technique.__abstractmethods__ | common - _methods(technique) - set(technique.model_fields))


def _methods(technique: type[Technique]) -> set[str]:
    return {name for name in dir(technique) if not name.startswith("_") or name == "__call__"}


def _base(kind: Family) -> type[Technique]:
    """The class to look at for what a family's members offer: the one that all of them inherit from, or the first of them."""
    first = kind.built_in[0]
    shared = next(one for one in first.__mro__ if all(issubclass(other, one) for other in kind.built_in))
    return first if shared is Technique else shared


def _failure(error: Exception) -> str:
    """What a user's module raised while it was imported, and where."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}{place}"


# --- forms in the file ---------------------------------------------------------------------------------------------------------


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
    """Marks a field that holds a technique of a family: `loss: Annotated[Any, Nested("losses")]`; with `many`, a list of them.

    A technique that holds others of its own family is named by `without`, or its JSON schema would have no end.
    """

    family: str
    many: bool = False
    without: str = ""

    def resolve(self, value: object, info: ValidationInfo) -> object:
        """The technique, or the tuple of techniques, that the YAML form stands for."""
        where = str(info.field_name)
        if not self.many:
            return self._one(value, where)
        if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
            raise ConfigError(where, f"found {value!r}; expected a list of techniques")
        return tuple(self._one(one, f"{where}.{i}") for i, one in enumerate(cast(Any, value)))

    def _one(self, value: object, where: str) -> Any:
        technique = make(self.family, value, where)
        if technique.name == self.without:
            raise ConfigError(where, f"found {self.without!r}; expected another {family(self.family).noun}")
        return technique

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_before_validator_function(self.resolve, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kind = family(self.family)
        mappings = [handler(one.__pydantic_core_schema__) for name, one in kind.techniques.items() if name != self.without]
        shorts = [{"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]} for name in kind.short_forms]
        free = [{"type": "string"}, handler(kind.any_name.__pydantic_core_schema__)] if kind.any_name else []
        code = {"type": "string", "pattern": f"^{CODE}$"}
        others = [code, {"type": "object", "properties": {"name": code}, "required": ["name"]}]
        others += [handler(plugin(kind, name, name).__pydantic_core_schema__) for name in kind.plugins]
        names = [name for name in kind.names if name != self.without]
        named = [{"enum": names}] if names else []
        one = {"anyOf": [*named, *mappings, *shorts, *free, *others]}
        return {"type": "array", "items": one} if self.many else one
