"""The identity of the data that a study of one's own training code declares."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablation.errors import ConfigError
from ablation.system.digests import digest
from ablation.system.file_digests import content_digests, folder_files
from ablation.tasks.own.definition import DataPath


def data_digest(data: Sequence[DataPath]) -> str:
    """The identity of declared data, wherever it lies; raises ConfigError with the place of what cannot be read."""
    return digest([_identity(item, f"task.data.{i}") for i, item in enumerate(data)])


def _identity(data: DataPath, where: str) -> object:
    """What of a file or folder counts: the content of its files by their names, or their sizes and times."""
    if not data.path.exists():
        raise ConfigError(where, f"there is no {data.path}; expected a file or folder that the code reads")
    try:
        files = folder_files(data.path) if data.path.is_dir() else [data.path]
        states = {path: _state(path) for path in files}
        found: Mapping[Path, object] = content_digests(files) if data.by == "content" else states
    except OSError as error:
        reason = "a link to nothing" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise ConfigError(where, f"{error.filename or data.path} cannot be read: {reason}; expected files that can be read") from None
    return data.by, [(path.relative_to(data.path).as_posix(), found[path]) for path in files]  # a single file is "."


def _state(path: Path) -> tuple[int, int]:
    """The size and the time of a file; raises OSError if it is a pipe, a device or the like."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no file", str(path))
    return status.st_size, status.st_mtime_ns
