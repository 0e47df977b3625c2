"""What a technique is, a class with frozen settings, and how it is made from its form in the YAML file."""

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
from ablation.techniques.setting_errors import shorten, to_config_error

# family -> its module. Every such module has TECHNIQUES (its classes) and may have SHORT_FORMS (name -> a function that returns the
# mapping that it stands for), UNNAMED (the name of a mapping without one) and ANY_NAME (the class for every name not listed).
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
# The settings of a family's techniques that the rest of the package reads, as fields or as class attributes.
REQUIRED_SETTINGS = {
    "losses": {"weights"},
    "models": {"image_size", "pretrained", "weights"},
    "optimizers": {"lr"},
    "schedules": {"epochs"},
    "longtail": {"indices"},
    "data": {"longtail", "validation"},
}
CLASS_PATH_PATTERN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"  # a class of the user: module:Class


class Technique(BaseModel):
    """A frozen set of settings; unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, populate_by_name=True, allow_inf_nan=False)

    def check(self, settings: Any) -> None:
        """Raise ConfigError if other settings of the arm do not fit this technique; the error's path starts here."""

    @property
    def why_neutral(self) -> str:
        """Why it changes nothing with its settings, and what is expected: `tau 0 adjusts nothing; expected more`; "" if it acts."""
        return ""

    @field_serializer("name", check_fields=False)
    def _keep_name(self, name: str) -> str:
        # A class that the file names as module:Class keeps that name, so that dumped and recorded settings can be resolved again.
        # Its Literal does not allow that name.
        return name


def dump(settings: Technique) -> dict[str, Any]:
    """The settings as plain data, under their names in the file."""
    return settings.model_dump(by_alias=True)


Pair = Annotated[tuple[float, float], Field(strict=False)]  # YAML has only lists, so a tuple field must accept them


@dataclass(frozen=True)
class Family:
    """The interchangeable techniques of one kind, by name."""

    name: str
    techniques: Mapping[str, type[Technique]]
    short_forms: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]
    unnamed: str | None
    any_name: type[Technique] | None
    plugins: Mapping[str, tuple[EntryPoint, ...]]  # of installed packages, imported when their names are used

    @property
    def noun(self) -> str:
        """What one of them is called in messages."""
        return {"losses": "loss", "class_weights": "class weights", "longtail": "long tail", "data": "data set"}.get(
            self.name, self.name.removesuffix("s")
        )

    @property
    def names(self) -> list[str]:
        """Every name that the file may use, except module:Class."""
        return [*self.techniques, *self.short_forms, *(name for name in self.plugins if name not in (*self.techniques, *self.short_forms))]

    @property
    def expected_name(self) -> str:
        """What a message says may stand as the name."""
        return f"one of {', '.join(self.names)}" if self.names else f"the name of a {self.noun}"

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
    """The technique for a YAML form: a name, a mapping with `name`, or a technique, which is returned.

    Raises ConfigError with the dotted `path` for an unknown name, an unknown field or a wrong value.
    """
    technique_family = family(family_name)
    if isinstance(spec, Technique):
        if not _is_member(technique_family, spec):
            raise ConfigError(path, f"found {spec!r}; expected a {technique_family.noun}")
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        names = f", out of {', '.join(technique_family.names)}" if technique_family.names else ""
        raise ConfigError(path, f"found {spec!r}; expected a name or a mapping with a name{names}")
    fields = dict(spec)
    name = fields.get("name", technique_family.unnamed)
    if name is None:
        raise ConfigError(path, f"the mapping has no name; expected name: {technique_family.expected_name}")
    if not isinstance(name, str):
        raise ConfigError(f"{path}.name".lstrip("."), f"found {name!r}; expected {technique_family.expected_name}")
    if name in technique_family.short_forms and name not in technique_family.plugins:
        fields = _expand_short_form(technique_family, name, fields, path)
        name = fields["name"]
    where = f"{path}.name".lstrip(".") if "name" in fields and len(fields) > 1 else path
    if re.fullmatch(CLASS_PATH_PATTERN, name):
        technique_class = class_by_path(technique_family, name, where)
        return build(technique_class, {**fields, "name": technique_name(technique_class)}, path).model_copy(update={"name": name})
    return build(_class_of_name(technique_family, name, where), {**fields, "name": name}, path)


def _class_of_name(family: Family, name: str, where: str) -> type[Technique]:
    """The class of that name, built in or from a plug-in."""
    if name in family.plugins:
        return plugin(family, name, where)
    technique = family.techniques.get(name, family.any_name)
    if technique is None:
        raise unknown_name(where, family.noun, name, family.names)
    return technique


def _is_member(family: Family, technique: Technique) -> bool:
    """Whether a technique belongs to this family; one named as module:Class does if it has all attributes of the family."""
    if type(technique) in family.built_in:
        return True
    name = getattr(technique, "name", "")
    if re.fullmatch(CLASS_PATH_PATTERN, name):
        return not _lacking(family, type(technique))
    return name in family.plugins and plugin(family, name, "") is type(technique)


# --- techniques of the user's own ----------------------------------------------------------------------------------------------


@dataclass
class _Permission:
    """Whether files may name code in this process."""

    is_given: bool = False


_PERMISSION = _Permission()


def allow_code(*folders: Path) -> None:
    """Let files name classes as module:Class from now on: in installed modules, these folders and the current one."""
    _PERMISSION.is_given = True
    here = str(Path.cwd())
    if here in sys.path and sys.path.index(here) == len(sys.path) - 1:  # where `python -m ablation` has it, before the study's folder
        sys.path.pop()
    # At the end, so that a user's file with the name of an installed module does not replace it for other code.
    sys.path.extend(text for text in dict.fromkeys([*(str(folder.resolve()) for folder in folders), here]) if text not in sys.path)


def is_code_allowed() -> bool:
    """Whether files may name code in this process."""
    return _PERMISSION.is_given


def class_by_path(family: Family, reference: str, where: str) -> type[Technique]:
    """The class that module:Class names; imported only if `allow_code` was called."""
    return _check_class(family, imported(reference, where, "class"), reference, where)


def imported(reference: str, where: str, kind: str) -> Any:
    """What module:name stands for, a class or another `kind`; its module is imported only if `allow_code` was called."""
    if not _PERMISSION.is_given:
        raise ConfigError(where, f"names code ({reference}); --allow-code lets it be imported")
    module_name, _, name = reference.partition(":")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        problem = f"{reference} cannot be imported: {_describe_error(error)}"
        raise ConfigError(where, f"{problem}; expected a module that is installed, beside the study's file or here") from error
    if not hasattr(module, name):
        place = getattr(module, "__file__", None) or "no file"
        raise ConfigError(where, f"{reference} was not found in {place}; expected a {kind} there.{nearest(name, vars(module))}")
    return getattr(module, name)


@cache
def plugins(family_name: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a family by name; several under one name are an error when that name is used."""
    by_name: dict[str, dict[str, EntryPoint]] = {}
    for entry_point in _registered_entry_points():
        if entry_point.group == f"ablation.{family_name}":
            by_name.setdefault(entry_point.name, {})[entry_point.value] = entry_point
    return {name: tuple(same_name.values()) for name, same_name in by_name.items()}


@cache
def _registered_entry_points() -> tuple[EntryPoint, ...]:
    """The entry points of all families; cached, as this reads the metadata of every installed package."""
    installed = entry_points()
    return tuple(entry_point for family_name in FAMILIES for entry_point in installed.select(group=f"ablation.{family_name}"))


def plugin(family: Family, name: str, where: str) -> type[Technique]:
    """The class that an installed package registers under that name."""
    origins = [*_built_in_of_name(family, name), *(_origin(entry_point) for entry_point in family.plugins[name])]
    if len(origins) > 1:
        raise ConfigError(where, f"{name!r} is the name of {' and of '.join(origins)}; expected one, so uninstall or rename the other")
    entry_point = family.plugins[name][0]
    try:
        loaded = entry_point.load()
    except Exception as error:  # whatever that package raises
        raise ConfigError(where, f"the plug-in {name!r} ({_origin(entry_point)}) cannot be imported: {_describe_error(error)}") from error
    technique = _check_class(family, loaded, entry_point.value, where)
    if technique_name(technique) != name:
        problem = f"the plug-in {name!r} ({_origin(entry_point)}) calls itself {technique_name(technique)!r}; expected one name for both"
        raise ConfigError(where, problem)
    return technique


def _built_in_of_name(family: Family, name: str) -> list[str]:
    """What this package itself has under that name, in words."""
    if name in family.techniques:
        return [f"the built-in {class_path(family.techniques[name])}"]
    if name in family.short_forms:
        return ["a built-in short form"]
    try:
        return [f"a {family.noun} of {class_path(build(family.any_name, {'name': name}).__class__)}"] if family.any_name else []
    except ConfigError:
        return []


def class_path(technique: type) -> str:
    """Where a class is written, as module:Class."""
    return f"{technique.__module__}:{technique.__qualname__}"


def _origin(entry_point: EntryPoint) -> str:
    return f"{entry_point.value} of {entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else entry_point.value


def _check_class(family: Family, loaded: object, reference: str, where: str) -> type[Technique]:
    """The imported object, after checking that it is a technique with all attributes of the family."""
    if not isinstance(loaded, type) or not issubclass(loaded, Technique):
        raise ConfigError(
            where, f"{reference} is {shorten(loaded)}; expected a class that inherits from ablation.techniques.technique.Technique"
        )
    field = loaded.model_fields.get("name")
    if field is None or not isinstance(field.default, str) or ":" in field.default:
        raise ConfigError(where, f'{reference} has no name; expected a field such as name: Literal["mine"] = "mine"')
    missing = _lacking(family, loaded)
    if missing:
        problem = f"{reference} is no {family.noun}: it has no {', '.join(missing)}"
        raise ConfigError(where, f"{problem}; expected what every {family.noun} has (see {class_path(_common_base(family))})")
    return loaded


def _lacking(family: Family, technique: type[Technique]) -> list[str]:
    """The names that this class lacks: attributes of all built-in techniques of the family, and settings that other code reads."""
    common = set.intersection(*(_public_attributes(member) for member in family.built_in)) | REQUIRED_SETTINGS.get(family.name, set())
    return sorted(technique.__abstractmethods__ | common - _public_attributes(technique) - set(technique.model_fields))


def _public_attributes(technique: type[Technique]) -> set[str]:
    return {name for name in dir(technique) if not name.startswith("_") or name == "__call__"}


def _common_base(family: Family) -> type[Technique]:
    """The class that shows what a family's techniques must have: their common base class, or the first of them."""
    first = family.built_in[0]
    common = next(base for base in first.__mro__ if all(issubclass(member, base) for member in family.built_in))
    return first if common is Technique else common


def _describe_error(error: BaseException) -> str:
    """The error that importing a user's module raised, and its place."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    location = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}{location}"


# --- forms in the file ---------------------------------------------------------------------------------------------------------


def _expand_short_form(family: Family, name: str, fields: dict[str, Any], path: str) -> dict[str, Any]:
    try:
        return family.short_forms[name](fields)
    except ConfigError as error:
        raise error.under(path) from None


M = TypeVar("M", bound=BaseModel)


def build(model: type[M], fields: Mapping[str, Any], path: str = "") -> M:
    """The model with these fields; raises one ConfigError, with its dotted path, if any is wrong."""
    try:
        return model.model_validate(dict(fields))
    except ConfigError as error:
        raise error.under(path) from None
    except ValidationError as error:
        raise to_config_error(error, model, path) from None


@dataclass(frozen=True)
class Nested:
    """Marks a field that holds a technique of a family: `loss: Annotated[Any, Nested("losses")]`; with `many`, a list of them.

    A technique that holds others of its own family gives its own name as `without`, or its JSON schema would be infinite.
    """

    family: str
    many: bool = False
    without: str = ""

    def resolve(self, value: object, info: ValidationInfo) -> object:
        """The technique, or the tuple of techniques, that the YAML form stands for."""
        where = str(info.field_name)
        if not self.many:
            return self._make(value, where)
        if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
            raise ConfigError(where, f"found {value!r}; expected a list of techniques")
        return tuple(self._make(item, f"{where}.{i}") for i, item in enumerate(cast(Any, value)))

    def _make(self, value: object, where: str) -> Any:
        technique = make(self.family, value, where)
        if technique.name == self.without:
            raise ConfigError(where, f"found {self.without!r}; expected another {family(self.family).noun}")
        return technique

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_before_validator_function(self.resolve, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        nested_family = family(self.family)
        mappings = [
            handler(technique.__pydantic_core_schema__) for name, technique in nested_family.techniques.items() if name != self.without
        ]
        short_forms = [
            {"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]} for name in nested_family.short_forms
        ]
        any_name = [{"type": "string"}, handler(nested_family.any_name.__pydantic_core_schema__)] if nested_family.any_name else []
        class_path = {"type": "string", "pattern": f"^{CLASS_PATH_PATTERN}$"}
        others = [class_path, {"type": "object", "properties": {"name": class_path}, "required": ["name"]}]
        others += [handler(plugin(nested_family, name, name).__pydantic_core_schema__) for name in nested_family.plugins]
        names = [name for name in nested_family.names if name != self.without]
        enum = [{"enum": names}] if names else []
        one_technique = {"anyOf": [*enum, *mappings, *short_forms, *any_name, *others]}
        return {"type": "array", "items": one_technique} if self.many else one_technique
