"""Folders that appear whole or not at all: their files, and one JSON file with everybody's digest."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.system.digests import file_digest, sealed, unsealed
from ablation.system.files import to_disk

RESULT = "result.json"


def part_of(folder: Path) -> Path:
    """The folder beside it, of this process alone, that becomes it when it is whole."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True, exist_ok=True)
    return part


def clear_part(folder: Path) -> None:
    """Delete what a process left there that had our number and was killed."""
    shutil.rmtree(part_of(folder), ignore_errors=True)


def complete(folder: Path, about: Mapping[str, Any], unsealed_files: Mapping[str, Path]) -> None:
    """Seal the files of the part with `about`, link the other files beside them, and rename it to the folder."""
    part = part_of(folder)
    files = {path.name: file_digest(path) for path in sorted(part.iterdir())}
    (part / RESULT).write_text(sealed({**about, "files": files}), encoding="utf-8")
    for name, path in unsealed_files.items():
        link(path, part / name)
    for path in (*part.iterdir(), part):
        to_disk(path)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    to_disk(folder.parent)


def is_whole(folder: Path) -> bool:
    """Whether the folder is as it was written; files that have a checksum of their own, as weights have, are not looked at."""
    try:
        about = unsealed((folder / RESULT).read_text(encoding="utf-8"))
        return about is not None and all(file_digest(folder / name) == digest for name, digest in about["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
