"""The code that counts for one's own training: of a function all that it uses, of a command the files that it declares."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablation.errors import ConfigError
from ablation.formatting import shortened
from ablation.system.code import current_code, lenient_tree, module_file
from ablation.system.digests import digest
from ablation.tasks.own import function
from ablation.tasks.own.definition import PLACE, Definition

MOST_FILES = 5000  # that count without being named
CONFIGURATIONS = ("conf", "config", "configs")  # folders whose YAML counts as code does, as Hydra's
RESULTS = "mlruns"
NO_CODE = (RESULTS, "report", "node_modules", "__pycache__", "site-packages")  # folders that hold no code of the study
# Modules that the process of a run has imported before it looks beside the study, as far as files there may be called so.
IMPORTED_BEFORE = {
    *("abc", "ablation", "collections", "enum", "functools", "importlib", "inspect", "io", "json", "math", "operator", "os"),
    *("pathlib", "random", "re", "stat", "sys", "token", "tokenize", "types", "typing", "warnings"),
}
CHANGED = (
    "the code of {} was changed while it ran ({}), so its numbers are not recorded: nobody could tell which code they are of; ablate run "
    "does the run again"
)
CACHED = 2000  # files whose syntax tree was made before

Parts = Sequence[tuple[str, Any]]  # of code: names, and what identifies each


def code_of(definition: Definition) -> str:
    """The identity of the code, from the files as they are now: syntax trees without docstrings and comments."""
    return identity(parts_of(definition))


def parts_of(definition: Definition) -> Parts:
    """The name of each part of the code, a file or a definition in a module, and what identifies it."""
    if not definition.is_function:
        return [(_name(path, definition.folder), _file_identity(path)) for path in code_files(definition)]
    return sorted((f"{module}.{name}", dumps) for (module, name), dumps in _used(definition).items())


def identity(parts: Parts) -> str:
    """The identity of code that consists of these parts."""
    return digest(parts)


def why_changed(definition: Definition, parts: Parts) -> str:
    """What to say of a run, of whose code these were the parts when it began, if it has others now; else empty."""
    try:
        old, new = dict(parts), dict(parts_of(definition))
    except (ConfigError, OSError) as error:
        return CHANGED.format(definition.text, error)
    if old == new:
        return ""
    words = {name: "is new" if name not in old else "is gone" if name not in new else "has changed" for name in sorted(old | new)}
    changes = shortened([f"{name} {word}" for name, word in words.items() if old.get(name) != new.get(name)], 3)
    written = "" if definition.is_function else "; a file that the run itself writes belongs in {out}, or task.code says which files count"
    return CHANGED.format(definition.text, changes) + written


def code_files(definition: Definition) -> list[Path]:
    """The files whose code counts; raises ConfigError if there are none or too many."""
    if definition.is_function:
        modules = dict.fromkeys(module for module, _ in _used(definition) if module.partition(".")[0] != "ablation")
        return sorted(file for module in modules if (file := module_file(module)))
    written = {definition.folder / source.file for source in definition.sources.values()} if definition.reads_its_folder else set()
    return [path for path in (_globbed(definition) if definition.code else _by_default(definition)) if path not in written]


def _used(definition: Definition) -> dict[tuple[str, str], list[str]]:
    """All code that the function uses, by module and name; its module is not imported."""
    module, _, name = definition.function.partition(":")
    used = current_code(module, name)
    if not used:
        problem = f"the code of {definition.function} was not found, so that nobody could tell when it changes"
        raise ConfigError(function.PLACE, f"{problem}; expected a function that is defined in a file of Python code")
    _check_helpers(definition, {used_module for used_module, _ in used})
    return used


def _check_helpers(definition: Definition, modules: Iterable[str]) -> None:
    """Raise ConfigError if what these modules of the study import is a file beside it and also another module: a run takes the former."""
    folder = definition.folder.resolve()
    files = {file for module in modules if (file := module_file(module)) and file.resolve().is_relative_to(folder)}
    for helper in sorted(_top_level(_trees(files)) - IMPORTED_BEFORE):
        function.check_place(helper, folder)


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
    """The code below the study's folder that git does not ignore, and the files that the command names.

    Of a script that lies elsewhere, what it imports from beside it too.
    """
    folder, named = definition.folder, _named(definition)
    elsewhere = [path for path in named if path.suffix == ".py" and not path.resolve().is_relative_to(folder.resolve())]
    files = sorted({*_code_below(folder, Path(), set()), *named, *(file for script in elsewhere for file in _imported_beside(script))})
    if len(files) > MOST_FILES:
        expected = f"at most {MOST_FILES:,}, or the globs of those that count, such as [train.py, src/**/*.py]"
        raise ConfigError("task.code", f"there are {len(files):,} Python files below {folder}; expected {expected}")
    if not files:
        raise ConfigError("task.code", f"there is no Python file below {folder}; expected the globs of the files whose code counts")
    return files


def _code_below(folder: Path, name: Path, seen: set[Path]) -> Iterator[Path]:
    """The files of code below a folder, also in repositories within it and behind links to folders, each folder once.

    `name` is the folder's own, as seen from that of the study.
    """
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for path in _listed_by_git(folder) or _walked(folder):
        below = name / path.relative_to(folder)
        if path.is_dir():
            yield from _code_below(path, below, seen)
        elif _is_code(below) and path.is_file():
            yield path


def _is_code(name: Path) -> bool:
    """Whether a file is a module, or belongs to a folder of configurations."""
    folders = name.parts[:-1]
    is_configuration = name.suffix in (".yaml", ".yml") and not set(folders).isdisjoint(CONFIGURATIONS)
    return (name.suffix == ".py" or is_configuration) and RESULTS not in folders


def _listed_by_git(folder: Path) -> list[Path]:
    """What git tracks or would add, with links and repositories within; nothing where there is no repository or no git."""
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false"]  # which a repository may set to a program
    try:
        listed = subprocess.run([*command, *listing], capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [folder / os.fsdecode(name) for name in listed.split(b"\0") if name]


def _walked(folder: Path) -> Iterator[Path]:
    """All files below a folder and links to folders, without those of environments, of results, and in hidden folders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(Path(parent, name))]
        yield from (Path(parent, name) for name in files)
        yield from (path for name in folders if (path := Path(parent, name)).is_symlink())


def _is_left_out(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in NO_CODE or (folder / "pyvenv.cfg").exists()


# --- what it imports ---------------------------------------------------------------------------------------------------------------


def imported_modules(files: Iterable[Path]) -> set[str]:
    """The top-level modules, beside those of Python itself, that these files import by their full names."""
    return _top_level(_trees(path for path in files if path.suffix == ".py")) - sys.stdlib_module_names


def _trees(files: Iterable[Path]) -> list[ast.Module]:
    return [lenient_tree(path.read_bytes()) for path in files]


def _top_level(trees: Iterable[ast.AST]) -> set[str]:
    """The top-level modules that are imported by their full names."""
    return {name.partition(".")[0] for tree in trees for node in ast.walk(tree) for name in _imports(node)}


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and not node.level and node.module else []


def _imported_beside(script: Path) -> Iterator[Path]:
    """The modules in a script's own folder that it imports, directly or indirectly: Python looks for them there."""
    seen, pending = set[Path](), [script]
    while pending:
        file = pending.pop()
        for node in ast.walk(lenient_tree(file.read_bytes())):
            new = {path for path in _imported_files(node, file, script.parent) if path.is_file()} - seen
            seen |= new
            pending += new
    yield from seen


def _imported_files(node: ast.AST, file: Path, root: Path) -> list[Path]:
    """Where the modules that a statement imports may lie, those of the packages around them too."""
    names, folder = _imports(node), root
    if isinstance(node, ast.ImportFrom):
        module = f"{node.module}." if node.module else ""
        names = [f"{module}{alias.name}" for alias in node.names]
        folder = file.parents[min(node.level, len(file.parents)) - 1] if node.level else root
    dotted = [folder.joinpath(*name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)]
    return [path for module in dotted for path in (module.with_name(f"{module.name}.py"), module / "__init__.py")]


def local_modules(files: Iterable[Path], folder: Path) -> set[str]:
    """The names of modules and packages that these files may be."""
    return {part.removesuffix(".py") for path in files for part in Path(_name(path, folder)).parts}
