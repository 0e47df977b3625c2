"""Digests that identify plain data and files, and JSON that contains its own checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUM = "sha256"  # the key of the checksum in the data


def digest(payload: object) -> str:
    """32 hexadecimal digits that identify plain data."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(data: Mapping[str, Any]) -> str:
    """Plain data as JSON that contains its own checksum."""
    return json.dumps({**data, SUM: _checksum(data)})


def unsealed(text: str) -> dict[str, Any] | None:
    """The data in JSON that `sealed` made, or None if any of it has changed since."""
    try:
        data = dict(json.loads(text))
        return data if data.pop(SUM) == _checksum(data) else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
