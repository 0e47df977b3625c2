"""Paths that users write, in a file or on the command line: expanded, and checked before anything is done with them."""

import errno
import os
import stat
from pathlib import Path

from ablation.errors import ConfigError, nearest

SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
MISSING = (errno.ENOENT, errno.ENOTDIR)
MAX_SHOWN = 120  # characters of a path that a message shows


def user_path(text: str | Path, where: str, base: Path = Path()) -> Path:
    """The path with its ~ expanded, from `base` if it is relative; raises ConfigError, with its place, if no file can have that name.

    There need be nothing at the path yet; what is there is a file or a folder.
    """
    shown = quoted(text)
    if not str(text).strip():
        raise ConfigError(where, f"found {shown}; expected a path")
    try:
        path = base / Path(text).expanduser()
        kind = SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except UnicodeEncodeError:
        raise ConfigError(where, f"found {shown}, which is not text in UTF-8; expected a path") from None
    except ValueError:
        raise ConfigError(where, f"found {shown}, which has a null character; expected a path") from None
    except RuntimeError:
        raise ConfigError(where, f"found {shown}, but this machine has no such user; expected a path, or ~/ for your own folder") from None
    except OSError as error:
        if error.errno in MISSING:
            return path
        raise ConfigError(where, f"found {shown}, which cannot be used: {_reason(error)}; expected a path") from None
    if kind:
        raise ConfigError(where, f"{shown} is {kind}; expected a file or a folder")
    return path


def user_file(text: str | Path, where: str, what: str, base: Path = Path()) -> Path:
    """The path of a file that is there and can be read; `what` is what it is expected to be."""
    path = user_path(text, where, base)
    if path.is_dir():
        raise ConfigError(where, f"{quoted(text)} is a folder; expected {what}")
    if not path.exists():
        can_look = path.parent.is_dir() and os.access(path.parent, os.R_OK)
        names = [file.name for file in path.parent.iterdir() if file.suffix == path.suffix] if can_look else []
        hint = _from_here(path, Path(text), base) or nearest(path.name, names)
        raise ConfigError(where, f"found {quoted(text)}, but there is no file {path}; expected {what}.{hint}")
    if not os.access(path, os.R_OK):
        raise ConfigError(where, f"{quoted(text)} cannot be read: permission denied; expected {what}")
    return path


def user_folder(text: str | Path, where: str) -> Path:
    """The path of a folder that can be written: it is there, or can be made below one that is."""
    path = user_path(text, where)
    lowest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not lowest.is_dir():
        raise ConfigError(where, f"found {quoted(text)}, but {quoted(lowest)} is a file; expected a folder that can be written")
    if not os.access(lowest, os.W_OK | os.X_OK):
        raise ConfigError(where, f"found {quoted(text)}, but {quoted(lowest)} cannot be written; expected a folder that can be")
    return path


def quoted(text: str | Path) -> str:
    """The path in quotes for a message, with escapes for what cannot be printed, and cut where it is long."""
    shown = repr(str(text))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN // 2]}...{shown[-MAX_SHOWN // 2 :]}"


def _from_here(path: Path, written: Path, base: Path) -> str:
    """The sentence with the right path, if the one that was written is that of a file from the current folder instead of from `base`."""
    if path == written or not os.path.isfile(written):
        return ""
    return f" Relative paths start at {base}: did you mean {os.path.relpath(written, base)!r}?"


def _reason(error: OSError) -> str:
    """What is wrong, in words: `file name too long`."""
    return (error.strerror or type(error).__name__).lower()
