"""The identity of code: the syntax trees of modules, of classes with everything that they use, and the versions of packages."""

import ast
import importlib.util
import json
import sysconfig
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ablation.errors import ConfigError

# How techniques are built, and what users are told. Neither computes anything, so a new family or message changes no key.
UNCOUNTED = ("ablation.errors", "ablation.techniques.technique")
REGISTERING_NOTHING = (
    "dataclass", "dataclasses", "define", "frozen", "cache", "lru_cache", "contextmanager", "wraps", "total_ordering", "overload", "final",
    "runtime_checkable", "no_grad", "inference_mode", "jit", "njit", "compile", "vmap", "fixture",
)  # fmt: skip
"""Decorators that everyone knows, and that leave a definition to be found by its name alone."""
_parsing = threading.Lock()


@cache
def package_version(name: str) -> str:
    """The version of an installed package, or `none`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def module_code(name: str) -> str:
    """The syntax tree of a module, without docstrings and comments."""
    return ast.dump(_tree(name))


WHOLE = "*"  # stands for everything in a module
ALWAYS = ""  # stands for the statements that run when a module is imported, whichever of its names are used


@cache
def class_code(cls: type) -> str:
    """The syntax trees of a class and of all code by its author that it uses, directly or indirectly, in any module.

    For a built-in class that is our code; for a user's class it is the user's code and ours. Raises ConfigError if the class was
    not written in a file.
    """
    start = (cls.__module__, cls.__qualname__.partition(".")[0])
    if start[1] not in _defined(start[0]):
        problem = f"the code of {cls.__module__}:{cls.__qualname__} was not found, so that nobody could tell when it changes"
        raise ConfigError("", f"{problem}; expected a class in a file of Python code")
    dumps_by_name = {f"{module}.{name}": dumps for (module, name), dumps in _used_code(start, _defined, _counts).items()}
    return json.dumps(dumps_by_name, sort_keys=True)


def current_code(module: str, name: str) -> dict[tuple[str, str], list[str]]:
    """(module, name) -> syntax trees of all code that a name of a module uses, from the files as they are now.

    As for `class_code`, but whatever is not installed counts, wherever it lies. Empty if the name is not defined in a file.
    """
    defined = cache(_current_statements)
    return _used_code((module, name), defined, _is_not_installed) if name in defined(module) else {}


def _current_statements(module: str) -> dict[str, list[ast.stmt]]:
    file = module_file(module)
    return _statements_by_name(lenient_tree(file.read_bytes())) if file and file.exists() else {}


Defined = Callable[[str], Mapping[str, list[ast.stmt]]]  # the statements that define each name of a module


Counts = Callable[[str, str], bool]  # whether a module's code counts in an importer


def _used_code(start: tuple[str, str], defined: Defined, counts: Counts) -> dict[tuple[str, str], list[str]]:
    """(module, name) -> syntax trees, of all names that `start` uses, directly or indirectly, and that have any."""
    dumps_by_name: dict[tuple[str, str], list[str]] = {}
    pending = [start]
    while pending:
        module, name = pending.pop()
        if (module, name) in dumps_by_name:
            continue
        nodes = defined(module).get(name, [])
        dumps_by_name[module, name] = [ast.dump(node) for node in nodes]
        pending += [(module, ALWAYS), *(use for node in nodes for use in _used_names(module, node, counts))]
        pending += [(module, member) for member in defined(module)] if name == WHOLE else []
    return {qualified_name: dumps for qualified_name, dumps in dumps_by_name.items() if dumps}


@cache
def _defined(module: str) -> dict[str, list[ast.stmt]]:
    """The statements that define each name of a module, as they are when this process first asks."""
    return _statements_by_name(_tree(module))


def _statements_by_name(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The statements that define each name, including imports."""
    statements: dict[str, list[ast.stmt]] = {}
    for node in (single for statement in tree.body for single in _split_import(statement) if not _is_script(statement)):
        for name in _names_defined(node):
            statements.setdefault(name, []).append(node)
    return statements


def _split_import(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports; any other statement as it is."""
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names] if isinstance(node, ast.ImportFrom) else [node]


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name, *([ALWAYS] if any(_may_register(decorator) for decorator in node.decorator_list) else [])]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [ALWAYS if alias.name == "*" else alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)] or [ALWAYS]


def _may_register(decorator: ast.expr) -> bool:
    """Whether a decorator may put what it decorates where it is found by another name, as `@register("mlp")` does."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) not in REGISTERING_NOTHING


def _is_script(node: ast.stmt) -> bool:
    """Whether this statement runs only when the file is run as a script."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _used_names(module: str, node: ast.stmt, counts: Counts) -> list[tuple[str, str]]:
    """The names that a statement uses, and those that it imports from modules that count, each with its module."""
    names: list[tuple[str, str]] = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            names.append((module, WHOLE if part.id in ("globals", "eval", "exec") else part.id))
        elif isinstance(part, ast.Attribute) and part.attr == "__subclasses__":
            names.append((module, WHOLE))
        elif isinstance(part, ast.Import):
            names += [(alias.name, WHOLE) for alias in part.names if counts(alias.name, module)]
        elif isinstance(part, ast.ImportFrom):
            names += _imported_names(module, part, counts)
    return names


def _imported_names(module: str, node: ast.ImportFrom, counts: Counts) -> list[tuple[str, str]]:
    """What an import takes from a module that counts: names, or whole modules of a package."""
    package = module if _is_package(module) else module.rpartition(".")[0]
    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
    inside = [(f"{source}.{alias.name}", WHOLE) for alias in node.names if counts(f"{source}.{alias.name}", module)]
    parts = source.split(".")
    packages = [".".join(parts[:depth]) for depth in range(1, len(parts))]  # whose own statements run with the import
    run = [(package, ALWAYS) for package in packages if parts[0] != "ablation" and counts(package, module)]
    return [*inside, *((source, alias.name) for alias in node.names if counts(source, module)), *run]


def _is_package(module: str) -> bool:
    spec = _find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


@cache
def _counts(module: str, importer: str) -> bool:
    """Whether a module's code counts when `importer` uses it: ours always does, a user's only in code by the same user."""
    if not _is_by_the_author_of(importer, module.partition(".")[0]):  # asked first: to look a module up imports its package
        return False
    spec = _find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return False
    return module.partition(".")[0] != "ablation" or ("." in module and module not in UNCOUNTED)


@cache
def _is_not_installed(module: str, importer: str) -> bool:
    """Whether a module's code is a file that may be edited: neither Python's own nor that of an installed package."""
    top = module.partition(".")[0]
    if top == "ablation" or _is_by_the_author_of(importer, top):
        return _counts(module, importer)
    folder = _import_folder(top)  # to look up what is in a package imports it, so an installed one is left alone
    return folder not in ("", ".") and not _is_installed(folder) and module_file(module) is not None


def _is_by_the_author_of(importer: str, top: str) -> bool:
    """Whether a top-level module is ours, or by the author of `importer`."""
    if top in ("ablation", importer.partition(".")[0]):
        return True
    folder = _import_folder(top)
    return folder == _import_folder(importer.partition(".")[0]) and not _is_installed(folder)


def _import_folder(top: str) -> str:
    """The folder from which a top-level module is imported."""
    spec = _find_spec(top)
    locations = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
    return str(Path(locations[0]).parent) if locations else ""


def _is_installed(folder: str) -> bool:
    """Whether a folder holds the standard library or installed packages, which may come from different authors."""
    return folder in {str(Path(path)) for path in sysconfig.get_paths().values()}


@cache
def _tree(module: str) -> ast.Module:
    file = module_file(module)
    return _without_docstrings(_parsed(file.read_bytes())) if file else ast.Module([], [])


def lenient_tree(source: bytes) -> ast.Module:
    """The syntax tree of a file's content, without docstrings; what is no Python of this version is one constant."""
    try:
        return _without_docstrings(_parsed(source, is_ours=False))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([ast.Expr(ast.Constant(source))], [])


def _parsed(source: bytes, *, is_ours: bool = True) -> ast.Module:
    """The syntax tree, made by one thread at a time: Python 3.11 counts the depths of those that are made at once as one, and fails."""
    with _parsing, warnings.catch_warnings():
        if not is_ours:
            warnings.simplefilter("ignore")  # of escapes such as "\d"
        return ast.parse(source)


def module_file(module: str) -> Path | None:
    """The Python file of a module, or None if it has none."""
    spec = _find_spec(module)
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None


def _find_spec(module: str) -> ModuleSpec | None:
    """The import spec of a module, or None if there is no such module."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is missing, or it has no file, as __main__
        return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
