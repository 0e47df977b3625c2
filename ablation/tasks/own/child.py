"""The process of one run of a function: seeds the generators, calls it with its settings, and writes down what it returns.

A script of its own, started with the path of a JSON file that says what to call. Nothing heavy is imported that the function does not.
"""

import importlib
import importlib.util
import inspect
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

SEEDED = ("numpy", "torch")


def main(request: Path) -> None:
    """Call the function of a request, and write `metrics.json` into its folder."""
    from ablation.tasks.own.handle import METRICS, Run

    asked = json.loads(request.read_text(encoding="utf-8"))
    sys.path.insert(0, asked["folder"])
    sys.argv = [asked["function"]]
    random.seed(asked["seed"])
    sys.meta_path.insert(0, _Seeding(asked["seed"]))
    module, _, name = asked["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    settings = converted(function, asked["settings"])
    run = Run(asked["seed"], asked["out"], asked["checkpoints"])
    run._hold_after = asked["hold_after"]
    seed_all(asked["seed"])  # what was drawn while modules were imported does not count
    returned = function(run, **settings)
    (run.out / METRICS).write_text(json.dumps(_metrics(returned)), encoding="utf-8")


def converted(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as their parameters are annotated: a list as a tuple, a text as a Path or a member of an Enum."""
    from ablation.tasks.own.annotations import annotation_of

    parameters = inspect.signature(function).parameters
    return {name: _as(annotation_of(parameters[name], function), value) for name, value in settings.items()}


def _as(annotation: Any, value: Any) -> Any:
    if value is None or annotation in (bool, int, str, Any, inspect.Parameter.empty):
        return value  # None may be a default that the annotation does not have
    if annotation is float and isinstance(value, int | float):
        return float(value)
    from pydantic import TypeAdapter  # late: most functions have plain settings, and it takes longer than they may

    from ablation.tasks.own.function import values

    return TypeAdapter(values(annotation).annotation).validate_python(value)  # of the types by which planning has checked it


def _metrics(returned: Any) -> Any:
    """The returned numbers by name; the name of its type where something else was returned."""
    from ablation.tasks.own.handle import number_of

    if not isinstance(returned, Mapping):
        return type(returned).__name__
    return {str(name): repr(value) if (number := number_of(value)) is None else number for name, value in returned.items()}


# --- seeds -----------------------------------------------------------------------------------------------------------------------


def seed_all(seed: int) -> None:
    """Seed Python's generator, and NumPy's and torch's where they are imported."""
    random.seed(seed)
    for name in SEEDED:
        if name in sys.modules:
            _seed(name, seed)


def _seed(name: str, seed: int) -> None:
    module: Any = sys.modules[name]
    if name == "torch":
        module.manual_seed(seed)
    else:
        module.random.seed(seed % 2**32)


class _Seeding(MetaPathFinder):
    """Seeds the generators of a library when it is imported, which may be within the function."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.is_looking = False

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The library's own spec, whose loader seeds it afterwards; None for any other module."""
        if fullname not in SEEDED or self.is_looking:
            return None
        self.is_looking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.is_looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _SeedingLoader(spec.loader, self.seed)
        return spec


class _SeedingLoader(Loader):
    def __init__(self, loader: Loader, seed: int) -> None:
        self.loader, self.seed = loader, seed

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Import the library as its own loader does, which it has again, and seed it."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _seed(module.__name__, self.seed)


if __name__ == "__main__":
    if importlib.util.find_spec("ablation") is None:  # not installed, but run from its folder
        sys.path.append(str(Path(__file__).resolve().parents[3]))
    main(Path(sys.argv[1]))
