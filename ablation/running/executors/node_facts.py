"""What a machine must have in common with the one that plans: the folders, this package, the versions that compute, and the device."""

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.study.task import load_task
from ablation.system.code import package_version
from ablation.system.digests import digest, file_digest

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
PATIENCE = 5.0  # seconds that a network disk may take to show a new file


def node_facts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of this machine as plain data: `asked` has the `task`, its `devices`, the `folders` and a `marker` in a file among them."""
    return {
        "Python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "ablate": _package_digest(),
        "device": " and ".join(sorted({load_task(asked["task"]).device_class(device) for device in asked["devices"]})),
        "unseen": _unseen(asked["folders"], asked["marker"]),
    }


def difference(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """What keeps a machine from computing the same results, in words; "" if nothing does."""
    if there["unseen"]:
        return f"does not see {there['unseen'][0]}; expected the same folder at the same path, on a disk that all machines share"
    names = [name for name in here if name != "unseen" and here[name] != there[name]]
    if not names:
        return ""
    if names[0] == "ablate":
        return "has another version of ablate; expected the same code on all machines"
    return f"has {names[0]} {there[names[0]]}; expected {here[names[0]]}, as on the machine that plans"


def _unseen(folders: Sequence[str], marker: str) -> list[str]:
    """The folders that are not there, or lack the file that was just written there."""
    until = time.monotonic() + PATIENCE
    while unseen := [folder for folder in folders if not Path(folder).is_dir()] or [
        folder for folder in folders[:1] if not (Path(folder) / marker).exists()
    ]:
        if time.monotonic() > until:
            return unseen
        time.sleep(0.2)
    return []


def _package_digest() -> str:
    """The identity of all files of this package."""
    root = Path(__file__).parents[2]
    return digest({path.relative_to(root).as_posix(): file_digest(path) for path in sorted(root.rglob("*.py"))})
