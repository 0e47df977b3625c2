"""Whether one's own training code repeats: what was found of it, on disk."""

import json
from pathlib import Path
from typing import Any

from ablation.system.digests import digest
from ablation.tasks.own.definition import Definition


def found(root: Path, definition: Definition, code: str) -> dict[str, Any] | None:
    """What `ablate check-task` found of this code: `repeatable`, `resumes` and `when`; None if it never looked."""
    try:
        checked: dict[str, Any] = json.loads(path_of(root, definition, code).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return checked


def path_of(root: Path, definition: Definition, code: str) -> Path:
    """The file that holds it, in the folder of the store: one for each state of the code."""
    return root / "checks" / f"{digest([definition.text, str(definition.folder), code])[:24]}.json"
