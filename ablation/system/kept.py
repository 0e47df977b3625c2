"""What was found out of the installed code before, kept on disk so that it need not be imported to say it again.

No key and no result has any of it. What cannot be read is found out again; what cannot be written is not kept.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ablation.system.code import package_version
from ablation.system.digests import digest, sealed, unsealed
from ablation.system.files import part_of

LIBRARIES = ("torch", "torchvision", "timm", "pydantic")  # whose versions may change what is kept
T = TypeVar("T")


def kept(kind: str, key: str, find: Callable[[], T]) -> T:
    """What `find` returns, plain data, from the file of that kind if it has the key; otherwise it is found and added.

    A file holds what was found with one state of the code: with another, it begins anew.
    """
    path, state = folder() / f"{kind}.json", code_state()
    known = _read(path, state)
    if key in known:
        value: T = known[key]
        return value
    value = find()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = part_of(path)  # another process may write too; what it adds may be found twice
        partial.write_text(sealed({"state": state, "known": {**_read(path, state), key: value}}), encoding="utf-8")
        partial.replace(path)
    return value


def folder() -> Path:
    """Where it is kept: in the folder that ABLATE_CACHE names, by default beside the caches of other programs."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("ABLATE_CACHE") or os.path.join(caches, "longtail-ablation"))


@cache
def code_state() -> str:
    """The identity of the code: of this package by the sizes and times of its files, of libraries by their versions."""
    package = Path(__file__).parent.parent
    files = [(str(path.relative_to(package)), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(package.rglob("*.py"))]
    return digest([sys.version, files, [package_version(name) for name in LIBRARIES]])


def _read(path: Path, state: str) -> dict[str, Any]:
    """What the file has for this state; nothing if there is none, or if any of it was changed since it was written."""
    with contextlib.suppress(OSError, ValueError):
        data = unsealed(path.read_text(encoding="utf-8"))
        if data is not None and data.get("state") == state and isinstance(data.get("known"), dict):
            return dict(data["known"])
    return {}
