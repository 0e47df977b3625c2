"""The versions of the packages that one's own code imports, in the environment in which it runs."""

import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from ablation.tasks.own.definition import Definition

PYTHON_FOLDER = r"python(3\.\d+)"
PYTHON = r"python[\d.]*"
# Programs that choose the environment of the one behind them.
CHOOSERS = {
    *("conda", "mamba", "micromamba", "pixi", "poetry", "pipenv", "pdm", "hatch", "rye"),
    *("docker", "podman", "apptainer", "singularity", "enroot", "ssh"),
}


def versions(definition: Definition, modules: Collection[str], local: Collection[str] = ()) -> dict[str, str]:
    """distribution -> its version, of those that have these modules, and `python` with its own; a command's are those of its environment.

    What is not known of another environment is left out, and so are the `local` modules but for those that a package is named after.
    """
    prefix = Path(sys.prefix) if definition.is_function else _prefix(definition)
    if prefix is None:
        return {}
    is_ours = prefix == Path(sys.prefix)
    folders = tuple(sys.path) if is_ours else _site_packages(prefix)
    python = f"{sys.version_info.major}.{sys.version_info.minor}" if is_ours else _python_version(folders)
    found = {module: dist for module in modules for dist in _named(module, folders)}
    others = {module for module in modules if module not in found and module not in local}
    provided = [(name, version) for module, name, version in _provided(folders) if module in others] if others else []
    named = [(dist.metadata["Name"], dist.version) for dist in found.values()]
    return dict(sorted([*named, *provided])) | ({"python": python} if python else {})


def _named(module: str, folders: Sequence[str]) -> list[Distribution]:
    """The distribution with the name of a module, if there is one; to look for it takes no time."""
    return list(distributions(name=module, path=list(folders)))[:1]


def _prefix(definition: Definition) -> Path | None:
    """The environment of a command: that of its program, or of the project for `uv run`; it is only looked at, never run."""
    first = definition.command[0]
    program = next((word for word in definition.command if re.fullmatch(PYTHON, Path(word).name)), first)
    if Path(first).name in CHOOSERS:
        return None
    if "uv" in (Path(program).name, Path(first).name):
        return next((folder / ".venv" for folder in (definition.folder, *definition.folder.parents) if (folder / ".venv").is_dir()), None)
    text = str(definition.folder / program) if os.sep in program else program
    path = shutil.which(text, path=definition.env.get("PATH"))
    return Path(path).absolute().parent.parent if path else None


def _site_packages(prefix: Path) -> tuple[str, ...]:
    """The folders of installed packages below the prefix of an environment."""
    return tuple(str(path) for path in sorted(prefix.glob("lib/python3.*/site-packages")))


def _python_version(folders: Iterable[str]) -> str:
    """The version of Python by the folder of its packages."""
    found = [match[1] for folder in folders if (match := re.fullmatch(PYTHON_FOLDER, Path(folder).parent.name))]
    return found[0] if len(found) == 1 else ""


@cache
def _provided(folders: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    """(module, distribution, version) of all packages installed in these folders."""
    installed = distributions(path=list(folders))
    return tuple((module, dist.metadata["Name"], dist.version) for dist in installed for module in _modules(dist))


def _modules(distribution: Distribution) -> set[str]:
    """The top-level modules of a distribution."""
    declared = (distribution.read_text("top_level.txt") or "").split()
    files = () if declared else [file for file in distribution.files or () if file.suffix in (".py", ".so")]
    return {*declared, *(file.parts[0] if len(file.parts) > 1 else file.name.partition(".")[0] for file in files)}
