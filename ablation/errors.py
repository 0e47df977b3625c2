"""Errors for users: one sentence with the place, what was found, what was expected, and the nearest known name."""

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import Any


class AblateError(Exception):
    """A user's mistake or a run's failure, shown as one message and never as a traceback; the command ends with `status`."""

    status = 2


class ConfigError(AblateError):
    """A mistake in the study's file or in an option; `path` is the dotted place in the file, or the option."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem

    def under(self, prefix: str) -> "ConfigError":
        """The same error, with its place inside `prefix`."""
        return ConfigError(".".join(part for part in (prefix, self.path) if part), self.problem)


class DataError(AblateError):
    """The images or labels cannot be used: missing, broken, empty."""


class TrainingError(AblateError):
    """A run cannot go on; `kind` says why in one word: nan, memory, data, killed, timeout or bug.

    `log` is what a process of its own printed last, `facts` what else the event of the failure tells of it.
    """

    def __init__(self, kind: str, message: str, *, log: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.log = log
        self.facts = dict(facts or {})

    def __str__(self) -> str:
        return self.message


class ClusterError(AblateError):
    """The cluster that a study is carried out on is gone; what was done stays."""

    status = 1


class StoreError(AblateError):
    """The MLflow store cannot be used as it is."""


def os_words(error: OSError) -> str:
    """What an error of the system says; where a disk refuses locks, also what to do."""
    if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
        return str(error)
    return f"{error}: this disk has no locks; expected mlruns on one that has them, such as NFS with its lock service"


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence `Did you mean 'x'?` with the closest known name, or "" if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def unknown_name(path: str, kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for an unknown name, which lists the known ones."""
    names = sorted(known)
    if not names:
        return ConfigError(path, f"unknown {kind} {name!r}; expected none, since there is no {kind} here")
    return ConfigError(path, f"unknown {kind} {name!r}; expected one of {', '.join(names)}.{nearest(name, names)}")
