"""Where a number comes from: commit, versions, hardware and command."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from ablation.system.hardware import hardware
from ablation.tracking.recorded import VERSION_TAG


def context_tags(command: str, folder: Path) -> dict[str, str]:
    """Commit, versions, hardware and command, as tags."""
    about = provenance(folder)
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", "ablation.command": command}
    tags |= {f"{VERSION_TAG}{name}": value for name, value in about["versions"].items()}
    tags |= {"ablation.hardware": about["hardware"], "mlflow.user": about["user"]}
    if about["commit"]:
        tags |= {"mlflow.source.git.commit": about["commit"], "ablation.git.dirty": str(about["dirty"]).lower()}
    return tags


@cache
def provenance(folder: Path) -> dict[str, Any]:
    """Commit and dirtiness of the repository around the study's file, versions, and hardware; looked up once."""
    commit = _git(folder, "rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")) if commit else False,
        "versions": {"python": platform.python_version()} | package_versions(),
        "hardware": hardware(),
        "user": os.environ.get("USER", ""),
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def package_versions() -> dict[str, str]:
    """The versions of Python's packages that a run's record names."""
    names = ("torch", "torchvision", "timm", "mlflow", "mlflow-skinny", "scikit-learn", "numpy", "longtail-ablation")
    installed = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
