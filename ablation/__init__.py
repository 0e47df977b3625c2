"""One YAML file in, one defended ablation table out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation.study.resolving import load_study
    from ablation.tasks.own.handle import Run
    from ablation.techniques.technique import make
    from ablation.training.export import load

__all__ = ["Run", "load", "load_study", "make"]

_MODULES = {
    "Run": "ablation.tasks.own.handle",
    "load": "ablation.training.export",
    "load_study": "ablation.study.resolving",
    "make": "ablation.techniques.technique",
}


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that `import ablation` is fast."""
    if name == "report":
        return import_module("ablation.report")
    if name not in _MODULES:
        raise AttributeError(f"module 'ablation' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
