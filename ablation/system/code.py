"""The identity of code: the syntax trees of modules and of classes with all that they use, and the versions of libraries."""

import ast
import importlib.util
import json
import sysconfig
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ablation.errors import ConfigError

# What techniques are made of, and what users are told: it computes nothing, so that a new family or message changes no key.
UNCOUNTED = ("ablation.errors", "ablation.techniques.technique")


@cache
def package_version(name: str) -> str:
    """The version of an installed package, or `none`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def module_code(name: str) -> str:
    """The syntax tree of a module, docstrings and comments aside."""
    return ast.dump(_tree(name))


WHOLE = "*"  # as a name: everything in a module
ALWAYS = ""  # as a name: the statements that act when a module is imported, whatever of it is used


@cache
def class_code(cls: type) -> str:
    """The syntax tree of a class and of everything of its author's that it uses, directly or not, in its module or another.

    For a class of ours that is our code; for a user's class it is the user's and ours. Raises ConfigError where a class is
    written in no file.
    """
    start = (cls.__module__, cls.__qualname__.partition(".")[0])
    if start[1] not in _defined(start[0]):
        problem = f"the code of {cls.__module__}:{cls.__qualname__} was not found, so that nobody could tell when it changes"
        raise ConfigError("", f"{problem}; expected a class in a file of Python code")
    needed: dict[str, list[str]] = {}
    waiting = [start]
    while waiting:
        module, name = waiting.pop()
        if f"{module}.{name}" in needed:
            continue
        nodes = _defined(module).get(name, [])
        needed[f"{module}.{name}"] = [ast.dump(node) for node in nodes]
        waiting += [(module, ALWAYS), *(use for node in nodes for use in _uses(module, node))]
        waiting += [(module, other) for other in _defined(module)] if name == WHOLE else []
    return json.dumps({place: dumps for place, dumps in needed.items() if dumps}, sort_keys=True)


@cache
def _defined(module: str) -> dict[str, list[ast.stmt]]:
    """The statements by which a module defines each name, imports among them; of a module without a file, none."""
    found: dict[str, list[ast.stmt]] = {}
    for node in (one for statement in _tree(module).body for one in _single(statement) if not _is_script(statement)):
        for name in _names_defined(node):
            found.setdefault(name, []).append(node)
    return found


def _single(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports; any other statement as it is."""
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names] if isinstance(node, ast.ImportFrom) else [node]


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [ALWAYS if alias.name == "*" else alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)] or [ALWAYS]


def _is_script(node: ast.stmt) -> bool:
    """Whether this is what a file does only when it is run by itself."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _uses(module: str, node: ast.stmt) -> list[tuple[str, str]]:
    """The names in a statement, and what it imports from modules that count, each with its module."""
    found: list[tuple[str, str]] = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.append((module, part.id))
        elif isinstance(part, ast.Import):
            found += [(alias.name, WHOLE) for alias in part.names if _counts(alias.name, module)]
        elif isinstance(part, ast.ImportFrom):
            found += _taken(module, part)
    return found


def _taken(module: str, node: ast.ImportFrom) -> list[tuple[str, str]]:
    """What a statement takes from another module that counts: names, or modules of a package as a whole."""
    package = module if _is_package(module) else module.rpartition(".")[0]
    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
    inside = [(f"{source}.{alias.name}", WHOLE) for alias in node.names if _counts(f"{source}.{alias.name}", module)]
    return [*inside, *((source, alias.name) for alias in node.names if _counts(source, module))]


def _is_package(module: str) -> bool:
    found = _found(module)
    return found is not None and found.submodule_search_locations is not None


@cache
def _counts(module: str, importer: str) -> bool:
    """Whether a module's code counts where another uses it: ours always, and a user's in what the same user wrote."""
    found, top = _found(module), module.partition(".")[0]
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return False
    if top == "ablation":
        return "." in module and module not in UNCOUNTED
    return top == importer.partition(".")[0] or (_root(top) == _root(importer.partition(".")[0]) and not _is_installed(_root(top)))


def _root(top: str) -> str:
    """The folder from which a module without dots is imported."""
    found = _found(top)
    places = list(found.submodule_search_locations or [str(found.origin)]) if found else []
    return str(Path(places[0]).parent) if places else ""


def _is_installed(folder: str) -> bool:
    """Whether a folder holds Python's own or installed packages, which need not be of one author."""
    return folder in {str(Path(place)) for place in sysconfig.get_paths().values()}


@cache
def _tree(module: str) -> ast.Module:
    found = _found(module)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ast.Module([], [])
    return _without_docstrings(ast.parse(Path(found.origin).read_bytes()))


def _found(module: str) -> ModuleSpec | None:
    """Where a module lies; None where there is none."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is missing; or it is no file's, such as __main__
        return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
