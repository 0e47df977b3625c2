"""The code that counts for one's own training: of a function all that it uses, of a command the files that it declares."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ablation.errors import ConfigError
from ablation.system.code import current_code, lenient_tree, module_file
from ablation.system.digests import digest
from ablation.tasks.own import function
from ablation.tasks.own.definition import PLACE, Definition

MOST_FILES = 5000  # that count without being named
NO_CODE = ("mlruns", "report", "node_modules", "__pycache__", "site-packages")  # folders that hold no code of the study
CACHED = 2000  # files whose syntax tree was made before


def code_of(definition: Definition) -> str:
    """The identity of the code, from the files as they are now: syntax trees without docstrings and comments."""
    if not definition.is_function:
        return digest([(_name(path, definition.folder), _file_identity(path)) for path in code_files(definition)])
    return digest(sorted((f"{module}.{name}", dumps) for (module, name), dumps in _used(definition).items()))


def has_changed(definition: Definition, code: str) -> bool:
    """Whether the code is another now than that of this identity, or cannot be found any more."""
    try:
        return code_of(definition) != code
    except (ConfigError, OSError):
        return True


def code_files(definition: Definition) -> list[Path]:
    """The files whose code counts; raises ConfigError if there are none or too many."""
    if definition.is_function:
        modules = dict.fromkeys(module for module, _ in _used(definition) if module.partition(".")[0] != "ablation")
        return sorted(file for module in modules if (file := module_file(module)))
    return _globbed(definition) if definition.code else _by_default(definition)


def _used(definition: Definition) -> dict[tuple[str, str], list[str]]:
    """All code that the function uses, by module and name; its module is not imported."""
    module, _, name = definition.function.partition(":")
    used = current_code(module, name)
    if not used:
        problem = f"the code of {definition.function} was not found, so that nobody could tell when it changes"
        raise ConfigError(function.PLACE, f"{problem}; expected a function that is defined in a file of Python code")
    return used


def _name(path: Path, folder: Path) -> str:
    """The path as seen from the study's folder."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _file_identity(path: Path) -> str:
    """A file of Python by its syntax tree, another by its content."""
    content = path.read_bytes()
    return _tree_digest(content) if path.suffix == ".py" else digest(content.hex())


@lru_cache(CACHED)
def _tree_digest(content: bytes) -> str:
    return digest(ast.dump(lenient_tree(content)))


# --- the files of a command ------------------------------------------------------------------------------------------------------


def _globbed(definition: Definition) -> list[Path]:
    """The files that the globs of a study name."""
    files = dict[Path, None]()
    for i, pattern in enumerate(definition.code):
        try:
            matches = [path for path in definition.folder.glob(pattern) if path.is_file()]
        except (ValueError, NotImplementedError):
            raise ConfigError(
                f"task.code.{i}", f"found {pattern!r}; expected a glob below the study's folder, such as src/**/*.py"
            ) from None
        if not matches:
            raise ConfigError(f"task.code.{i}", f"{pattern!r} matches no file in {definition.folder}; expected files of code")
        files |= dict.fromkeys(matches)
    return sorted({*files, *_named(definition)})


def _named(definition: Definition) -> list[Path]:
    """The files that the command itself names: a script of Python, and in the study's folder any other script, or a configuration."""
    data = {item.path for item in definition.data}
    words = [word for whole in definition.command for word in (whole, whole.partition("=")[2]) if word and not PLACE.search(whole)]
    paths = [definition.folder / word for word in words]
    ours = [path for path in paths if path.suffix == ".py" or path.resolve().is_relative_to(definition.folder)]
    return [path for path in ours if path.is_file() and path not in data]


def _by_default(definition: Definition) -> list[Path]:
    """The Python files below the study's folder that git does not ignore, and those that the command names."""
    folder = definition.folder
    files = sorted({*(_listed_by_git(folder) or _walked(folder)), *_named(definition)})
    if len(files) > MOST_FILES:
        expected = f"at most {MOST_FILES:,}, or the globs of those that count, such as [train.py, src/**/*.py]"
        raise ConfigError("task.code", f"there are {len(files):,} Python files below {folder}; expected {expected}")
    if not files:
        raise ConfigError("task.code", f"there is no Python file below {folder}; expected the globs of the files whose code counts")
    return files


def _listed_by_git(folder: Path) -> list[Path]:
    """The Python files that git tracks or would add; none where there is no repository or no git."""
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.py"]
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false"]  # which a repository may set to a program
    try:
        listed = subprocess.run([*command, *listing], capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [path for name in listed.split(b"\0") if name and (path := folder / os.fsdecode(name)).is_file()]


def _walked(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, without those of environments, of results, and in hidden folders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(Path(parent, name))]
        yield from (Path(parent, name) for name in files if name.endswith(".py"))


def _is_left_out(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in NO_CODE or (folder / "pyvenv.cfg").exists()


# --- what it imports ---------------------------------------------------------------------------------------------------------------


def imported_modules(files: Iterable[Path]) -> set[str]:
    """The top-level modules, beside those of Python itself, that these files import by their full names."""
    trees = [lenient_tree(path.read_bytes()) for path in files if path.suffix == ".py"]
    names = {name for tree in trees for node in ast.walk(tree) for name in _imports(node)}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and not node.level and node.module else []


def local_modules(files: Iterable[Path], folder: Path) -> set[str]:
    """The names of modules and packages that these files may be."""
    return {part.removesuffix(".py") for path in files for part in Path(_name(path, folder)).parts}
