"""What identifies plain data and files, and JSON that has its own checksum in it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUM = "sha256"  # the name of the checksum among what it is of


def digest(payload: object) -> str:
    """32 hexadecimal digits that identify plain data."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(about: Mapping[str, Any]) -> str:
    """Plain data as JSON that has its own checksum in it."""
    return json.dumps({**about, SUM: _checksum(about)})


def unsealed(text: str) -> dict[str, Any] | None:
    """The data in what `sealed` made, or nothing where any of it has changed since."""
    try:
        about = dict(json.loads(text))
        return about if about.pop(SUM) == _checksum(about) else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _checksum(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()
