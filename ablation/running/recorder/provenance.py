"""Where a number comes from: commit, versions, hardware and command."""

import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ablation.system import made
from ablation.system.hardware import hardware
from ablation.tracking.recorded import VERSION_TAG

COMMIT, DIRTY = "mlflow.source.git.commit", "ablation.git.dirty"


def context_tags(command: str, folder: Path) -> dict[str, str]:
    """Commit, versions, hardware and command, as tags."""
    about = provenance(folder)
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL", "ablation.command": command}
    return tags | made_tags(about) | {"ablation.hardware": about["hardware"], "mlflow.user": about["user"]}


def made_tags(about: Mapping[str, Any]) -> dict[str, str]:
    """Versions, commit and dirtiness as tags, as far as they are known: of whoever records, or of who computed a result."""
    tags = {f"{VERSION_TAG}{name}": str(value) for name, value in about.get("versions", {}).items()}
    return tags | ({COMMIT: about["commit"], DIRTY: str(about["dirty"]).lower()} if about.get("commit") else {})


def is_made_tag(name: str) -> bool:
    """Whether a tag is one of those."""
    return name.startswith(VERSION_TAG) or name in (COMMIT, DIRTY)


def tell_workers(folder: Path) -> None:
    """Let the processes that this one starts know what commit the study is at, for the results that they compute."""
    about = provenance(folder)
    made.tell_commit(about["commit"], is_dirty=about["dirty"])


@cache
def provenance(folder: Path) -> dict[str, Any]:
    """Commit and dirtiness of the repository around the study's file, versions, and hardware; looked up once."""
    commit = _git(folder, "rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")) if commit else False,
        "versions": made.versions(),
        "hardware": hardware(),
        "user": os.environ.get("USER", ""),
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
