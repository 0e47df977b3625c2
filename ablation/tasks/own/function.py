"""The function that a study runs: how it is found, and what its parameters may be set to."""

import ast
import enum
import inspect
import json
import math
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from ablation.errors import ConfigError, nearest
from ablation.system.code import lenient_tree, module_file
from ablation.tasks.own.annotations import annotation_of
from ablation.techniques.setting_errors import shorten
from ablation.techniques.technique import imported, is_code_allowed

PLACE = "task.function"
PLAIN = (bool, int, float, str, type(None))
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    Path: "a path",
    Any: "numbers, text, true or false, null, or lists and mappings of these",
}
LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
EXPECTED = "bool, int, float, str, None, Literal, an Enum, Path, or list, tuple or dict of these"


# --- values ------------------------------------------------------------------------------------------------------------------


class Unsupported(Exception):  # noqa: N818  it is told as a ConfigError with its place
    """The annotation, or a part of it, that no value in a file can have."""


@dataclass(frozen=True)
class Values:
    """The values that a setting may have, all of them plain data."""

    annotation: Any  # normalised: one of the keys of WORDS, or made of these, literals and enums

    def plain(self, value: object) -> Any:
        """The value as plain data; raises ValueError if it is none of these values."""
        adapter = _adapter(self.annotation)
        found = adapter.validate_json(json.dumps(checked_plain(value), allow_nan=False), strict=True)
        plain = adapter.dump_python(found, mode="json")
        if isinstance(value, bool) != isinstance(plain, bool):
            raise ValueError("a bool is no number")
        return plain

    @property
    def words(self) -> str:
        """`a whole number`, `one of ce, dice`: what is expected."""
        return _words(self.annotation)

    def problem(self, value: object) -> str:
        """What is wrong with a value, as a message has it."""
        names = [str(choice) for choice in _choices(self.annotation)]
        meant = nearest(value, names) if isinstance(value, str) else ""
        return f"found {shorten(value)}; expected {self.words}{'.' if meant else ''}{meant}"


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def checked_plain(value: object) -> Any:
    """The value, if it is plain data with text as keys; raises ValueError otherwise."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("keys that are no text")
        return {key: checked_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [checked_plain(item) for item in value]
    if not isinstance(value, PLAIN):
        raise ValueError("no plain data")
    return value


def values(annotation: Any) -> Values:
    """The values that an annotation allows; raises Unsupported if there may be others than plain data."""
    return Values(_normalised(annotation))


def _normalised(annotation: Any) -> Any:
    """The annotation with the types that pydantic is to check."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (inspect.Parameter.empty, Any, object):
        return Any
    if annotation is None or annotation in PLAIN:
        return type(None) if annotation is None else annotation
    if isinstance(annotation, typing.NewType):
        return _normalised(annotation.__supertype__)
    if origin is typing.Annotated:
        return _normalised(arguments[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(_normalised(part) for part in arguments)]  # noqa: UP007  of as many parts as there are
    if origin is Literal or _is_enum(annotation):
        return _of_choices(annotation)
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return Path
    return _container(annotation, origin or _plain_class(annotation), arguments)


def _plain_class(annotation: Any) -> Any:
    """The class of a container without arguments, also of those in typing, which have it as their origin."""
    return annotation if isinstance(annotation, type) else None


def _of_choices(annotation: Any) -> Any:
    if not all(isinstance(choice, PLAIN) for choice in _choices(annotation)):
        raise Unsupported(annotation)
    return annotation


def _container(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    """A list, tuple or mapping of plain data."""
    if origin in LISTS and len(arguments) < 2:
        return list[_normalised(arguments[0]) if arguments else Any]  # type: ignore[misc]
    if origin is tuple:
        parts = arguments or (Any, ...)
        return tuple[tuple(part if part is ... else _normalised(part) for part in parts)]  # type: ignore[misc]
    if origin in MAPPINGS and (not arguments or arguments[0] is str):
        return dict[str, _normalised(arguments[1]) if arguments else Any]  # type: ignore[misc]
    raise Unsupported(annotation)


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


def _choices(annotation: Any) -> list[Any]:
    """The values that a literal or an enum lists, also within a union."""
    if _is_enum(annotation):
        return [member.value for member in annotation]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) if get_origin(annotation) is Union for choice in _choices(part)]


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union:
        return " or ".join(_words(part) for part in arguments)
    if choices := _choices(annotation):
        return f"{'one of ' if len(choices) > 1 else ''}{', '.join(map(str, choices))}"
    if origin is dict:
        return "a mapping" if arguments[1] is Any else f"a mapping (each value {_words(arguments[1])})"
    if origin is list or arguments[1:] == (...,):
        return "a list" if arguments[0] is Any else f"a list (each item {_words(arguments[0])})"
    if origin is tuple:
        return f"a list of {len(arguments)} ({', '.join(map(_words, arguments))})"
    return WORDS[annotation]


# --- the function --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A parameter that an arm may set."""

    name: str
    values: Values
    default: Any = ...  # plain data; ... if there is none


def function_of(reference: str, folder: Path | None = None) -> Callable[..., Any]:
    """The function that module:function names; raises ConfigError unless it is one, and in the study's folder if that has its module."""
    try:
        function = imported(reference, PLACE, "function")
    except ConfigError as error:
        raise _of_another_module(reference, folder) or error from None
    if inspect.isclass(function) or not callable(function):
        raise ConfigError(PLACE, f"{reference} is {shorten(function)}; expected a function")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(PLACE, f"{reference} returns no numbers when it is called; expected a function without async and yield")
    if folder is not None:
        check_place(reference.partition(":")[0], folder)
    return function  # type: ignore[no-any-return]


def _of_another_module(reference: str, folder: Path | None) -> ConfigError | None:
    """What to say of a function that is not in its module, where that is none of the study's but Python's own or an installed one."""
    name, _, attribute = reference.partition(":")
    module = sys.modules.get(name)
    if not is_code_allowed() or folder is None or module is None or hasattr(module, attribute) or _beside(name, folder):
        return None
    place = getattr(module, "__file__", None) or "Python itself"
    problem = f"there is no {name.replace('.', '/')}.py beside the study, and the module {name} of {place} has no {attribute}"
    return ConfigError(PLACE, f"{problem}; expected a function in a file beside the study")


def _beside(module: str, folder: Path) -> list[Path]:
    """The files in the study's folder that are the module."""
    here = folder.joinpath(*module.split("."))
    return [path for path in (here.with_suffix(".py"), here / "__init__.py") if path.is_file()]


def check_place(module: str, folder: Path) -> None:
    """Raise ConfigError if the folder has a module of that name and another was imported: a run would import the former."""
    beside, file = _beside(module, folder), module_file(module)
    if beside and file is not None and not any(path.samefile(file) for path in beside):
        raise ConfigError(PLACE, f"{module} is {beside[0]} and also {file}; expected a name that no other module has")


def settings_of(reference: str, folder: Path) -> tuple[Setting, ...]:
    """What the function's parameters after the first may be set to; raises ConfigError for those that no file can set."""
    function = function_of(reference, folder)
    try:
        first, *others = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        raise ConfigError(PLACE, f"{reference} has no parameter for the run; expected a first one, such as run") from None
    if first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        raise ConfigError(PLACE, f"{reference} begins with the parameter {first}; expected a first one for the run, such as run")
    return tuple(_setting(parameter, function) for parameter in others)


def written_defaults(reference: str) -> frozenset[str]:
    """The parameters whose defaults are written out in the signature, so that the code of the function says all about them."""
    module, _, name = reference.partition(":")
    file = module_file(module)
    tree = lenient_tree(file.read_bytes()) if file else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            arguments = [*node.args.posonlyargs, *node.args.args]
            late = arguments[len(arguments) - len(node.args.defaults) :]
            pairs = [*zip(late, node.args.defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            return frozenset(argument.arg for argument, default in pairs if default is not None and _is_literal(default))
    return frozenset()


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def check_first(reference: str, folder: Path, names: Container[str]) -> None:
    """Raise ConfigError for a function whose first parameter has one of these names of settings, since it is given the run."""
    first = next(iter(inspect.signature(function_of(reference, folder)).parameters.values()), None)
    if first is not None and first.default is first.empty and first.name in names:
        problem = f"the first parameter of {reference}, {first.name}, is given the run, and the file has a setting of that name"
        raise ConfigError(PLACE, f"{problem}; expected a first parameter for the run, such as run, before it")


def _setting(parameter: inspect.Parameter, function: Callable[..., Any]) -> Setting:
    """What one parameter may be set to."""
    _check_kind(parameter)
    annotation, default = _annotation(parameter, function), parameter.default
    try:
        allowed = values(annotation)
    except Unsupported as error:
        found = inspect.formatannotation(error.args[0])
        raise ConfigError(PLACE, f"found {found} as the type of the parameter {parameter.name}; expected {EXPECTED}") from None
    if default is parameter.empty:
        return Setting(parameter.name, allowed)
    if default is None and annotation is not parameter.empty:
        allowed = Values(Union[allowed.annotation, None])  # noqa: UP007  as type checkers used to read it
    return Setting(parameter.name, allowed, _default(parameter.name, default, allowed))


def _check_kind(parameter: inspect.Parameter) -> None:
    """Raise ConfigError for a parameter that cannot be given by its name."""
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        problem = "has no names of its own, so that nobody could tell a misspelt setting"
        raise ConfigError(PLACE, f"the parameter {parameter} {problem}; expected a parameter for each setting")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigError(PLACE, f"the parameter {parameter.name} cannot be given by its name; expected no / after it")


def _annotation(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The type of the parameter; raises ConfigError if it cannot be looked up."""
    try:
        return annotation_of(parameter, function)
    except Exception as error:  # whatever its evaluation raises
        problem = f"the type of the parameter {parameter.name}, {parameter.annotation}, cannot be looked up ({error})"
        raise ConfigError(PLACE, f"{problem}; expected {EXPECTED}") from None


def _default(name: str, default: object, allowed: Values) -> Any:
    """A default as plain data."""
    try:
        return allowed.plain(_as_plain(default))
    except (ValidationError, ValueError):
        is_infinite = isinstance(default, float) and not math.isfinite(default)
        expected = "a finite number, or None" if is_infinite else allowed.words
        raise ConfigError(PLACE, f"found {shorten(default)} as the default of the parameter {name}; expected {expected}") from None


def _as_plain(value: object) -> object:
    """Members of enums by their values, paths as text, also within lists, tuples and mappings."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_as_plain(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_as_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value
