"""What a result is made with: the versions of packages in the process that computes it, and the commit of the study's folder."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from functools import cache
from typing import Any

COMMIT = "ABLATE_COMMIT"  # in the environment: the commit, and whether files differ from it, as whoever started this process saw it
DIRTY = "dirty"
NAMES = ("torch", "torchvision", "timm", "mlflow", "mlflow-skinny", "scikit-learn", "numpy", "longtail-ablation")


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of those of its packages that a run's record names."""
    installed = {"python": platform.python_version()}
    for name in NAMES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def made() -> dict[str, Any]:
    """The versions, and the commit where one was told."""
    commit, _, state = os.environ.get(COMMIT, "").partition(" ")
    return {"versions": versions()} | ({"commit": commit, "dirty": state == DIRTY} if commit else {})


def tell_commit(commit: str, *, is_dirty: bool) -> None:
    """Let the processes that this one starts know the commit; "" where there is none."""
    os.environ.pop(COMMIT, None)
    if commit:
        os.environ[COMMIT] = f"{commit} {DIRTY}" if is_dirty else commit
