"""Folders of results that appear whole or not at all: their files, and one JSON file with the digest of each."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.system import fencing
from ablation.system.digests import file_digest, sealed, unsealed
from ablation.system.files import to_disk
from ablation.system.identity import process_name
from ablation.system.made import made

RESULT = "result.json"


def part_of(folder: Path) -> Path:
    """The folder, beside `folder` and for this process alone, that `complete` renames to `folder`."""
    part = _parts(folder) / process_name()
    part.mkdir(parents=True, exist_ok=True)
    return part


def _parts(folder: Path) -> Path:
    """Holds the parts of `folder` of all processes; `ablate clean` deletes it if nobody completes the folder any more."""
    return folder.with_name(f"{folder.name}.part")


def clear_part(folder: Path) -> None:
    """Delete what processes left there that were killed, or to which the folder belongs no more.

    Raises Fenced if this is one of them, before it deletes what another is writing.
    """
    fencing.check()
    shutil.rmtree(_parts(folder), ignore_errors=True)


def complete(folder: Path, result: Mapping[str, Any], unsealed_files: Mapping[str, Path]) -> None:
    """Seal `result` with the digests of the part's files, link `unsealed_files` beside them, and rename the part to `folder`.

    Sealed with it is what it was made with: versions, and the commit.

    Raises Fenced if another process has taken over what this one does, and OSError if its part is gone.
    """
    part = _parts(folder) / process_name()
    part.stat()  # what was written into it would be missing, and the result whole all the same
    files = {path.relative_to(part).as_posix(): file_digest(path) for path in sorted(part.rglob("*")) if path.is_file()}
    (part / RESULT).write_text(sealed({**result, "made": made(), "files": files}), encoding="utf-8")
    for name, path in unsealed_files.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        link(path, part / name)
    for path in (*part.rglob("*"), part):
        to_disk(path)
    fencing.check()
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    to_disk(folder.parent)
    shutil.rmtree(_parts(folder), ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Whether the folder is as it was written. Files with checksums of their own, such as weights, are not checked."""
    try:
        result = unsealed((folder / RESULT).read_text(encoding="utf-8"))
        return result is not None and all(file_digest(folder / name) == digest for name, digest in result["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def link(source: Path, target: Path) -> None:
    """Hard-link the file, or copy it if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
