"""Who may write in a folder: one process at a time, and of several attempts at the same work the newest.

Locks keep the processes of one host apart. On a network disk they may keep nobody off, or be held for ever by a process whose host was
declared dead and that lives on. So whoever takes a folder also puts a token there, and looks whether it is still its own before anything
gets its final name. The newest claim counts. Between that look and the name lie microseconds, and what a process may do that is frozen
just then costs epochs and no bits: what it puts there is whole, and of the same work.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.errors import ConfigError
from ablation.system.files import write_json
from ablation.system.identity import place, process_name, start_of

if TYPE_CHECKING:
    from filelock import FileLock

OWNER, ATTEMPT = "ABLATE_OWNER", "ABLATE_ATTEMPT"  # the environment's variables: whose work this is, and which start of it
TOKEN, LOCK = "owner", "owner-lock"  # files in the folder; the first is JSON
TICK = 0.1  # seconds between two looks at a folder that another process holds


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user asked to stop; the state after the last epoch is saved."""


class Fenced(BaseException):  # it is no error, and nothing that handles errors may take it for one
    """Another process has taken over the folder that this one works in; nothing more may be written there."""


@dataclass(frozen=True)
class Token:
    """One claim to a folder: of which attempt at whose work, and by which process."""

    owner: str
    attempt: int
    process: str
    place: str
    pid: int
    start: str
    claim: str
    is_released: bool = False

    @classmethod
    def new(cls) -> "Token":
        """A new claim of this process."""
        owner, attempt = identity()
        pid = os.getpid()
        return cls(owner, attempt, process_name(), place(), pid, start_of(pid), os.urandom(16).hex())

    @classmethod
    def read(cls, folder: Path) -> "Token | None":
        """The newest claim to a folder, if there is one."""
        try:
            return cls(**json.loads((folder / TOKEN).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @property
    def is_held(self) -> bool:
        """Whether its process is known to live and to hold the folder still."""
        if self.process == process_name():
            return self.claim in _claims
        return not self.is_released and self.place == place() and bool(self.start) and start_of(self.pid) == self.start

    def is_earlier(self, other: "Token") -> bool:
        """Whether this is of an earlier attempt at the same work."""
        return self.owner == other.owner and self.attempt < other.attempt


@dataclass(frozen=True)
class Fence:
    """A folder that this process holds; `left` is the claim of an earlier attempt that never gave it back."""

    folder: Path
    token: Token
    left: Token | None = None

    def check(self) -> None:
        """Raise Fenced if the folder has been taken over."""
        found = Token.read(self.folder)
        if found is None or found.claim != self.token.claim:
            raise Fenced(self.folder)

    def release(self) -> None:
        """Give the folder back, if it was not taken over; the attempt stays known there, so that none that is earlier begins again."""
        with contextlib.suppress(Fenced, OSError):
            self.check()
            try:
                write_json(self.folder / TOKEN, asdict(replace(self.token, is_released=True)), is_kept=False)
            except OSError:  # such as a full disk
                (self.folder / TOKEN).unlink(missing_ok=True)


_identity: list[tuple[str, int]] = []
_claims: set[str] = set()  # that this process holds, in any thread
_held: ContextVar[tuple[Fence, ...]] = ContextVar("held", default=())  # by thread


def become(owner: str, attempt: int) -> None:
    """Let what this process takes from now on be taken for this attempt at the owner's work; a later one has a greater number."""
    _identity[:] = [(owner, attempt)]


def identity() -> tuple[str, int]:
    """The owner and the attempt: as `become` or the environment has them, else those of this process alone."""
    if _identity:
        return _identity[0]
    owner, attempt = os.environ.get(OWNER), os.environ.get(ATTEMPT) or "0"
    if not attempt.isdecimal():
        raise ConfigError(ATTEMPT, f"found {attempt!r}; expected a whole number")
    return (owner, int(attempt)) if owner else (process_name(), 0)


def is_named() -> bool:
    """Whether somebody starts attempts at this work, possibly on several hosts."""
    return bool(_identity or os.environ.get(OWNER))


def check() -> None:
    """Raise Fenced if any folder that this thread holds has been taken over."""
    for fence in _held.get():
        fence.check()


@contextlib.contextmanager
def held(folder: Path, should_stop: Callable[[], bool], locks: Sequence[str] = ()) -> Iterator[Fence]:
    """Hold a folder, as soon as nobody does, or at once where an earlier attempt at the same work does.

    `locks` are the names of other locks there that are taken meanwhile. Raises Interrupted if asked to stop before, and Fenced if a later
    attempt is or was there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = Token.new()
    lock, left = _take(folder, token, should_stop, locks)
    try:
        write_json(folder / TOKEN, asdict(token), is_kept=False)
        for part in folder.glob("*.part"):  # of processes that were killed, or must not end what they write
            part.unlink(missing_ok=True)
        with _entered(Fence(folder, token, left)) as fence:
            yield fence
    finally:
        lock.release()


@contextlib.contextmanager
def _entered(fence: Fence) -> Iterator[Fence]:
    """Have `check` look at a fence too; what fails where the folder was taken over is no failure."""
    before = _held.set((*_held.get(), fence))
    _claims.add(fence.token.claim)
    try:
        yield fence
    except Exception:
        with contextlib.suppress(OSError):
            fence.check()
        raise
    finally:
        _held.reset(before)
        _claims.remove(fence.token.claim)
        fence.release()


def _take(folder: Path, token: Token, should_stop: Callable[[], bool], locks: Sequence[str]) -> "tuple[FileLock, Token | None]":
    """The folder's lock, and the claim that an earlier attempt left there."""
    from filelock import FileLock

    seen = None
    while True:
        lock = FileLock(folder / LOCK)
        is_free, found = _is_free(lock), Token.read(folder)
        left = found if found and found.is_earlier(token) and not found.is_released else None
        if is_free and (left or not found or not found.is_held) and not (found and token.is_earlier(found)):
            _put_aside(folder, locks if left else ())
            return lock, left
        if is_free:
            lock.release()
        if found and token.is_earlier(found):
            raise Fenced(folder)
        if left and left == seen:  # twice: it is not just about to be replaced by whoever has the lock now
            _put_aside(folder, (LOCK,))
        seen = left
        if should_stop():
            raise Interrupted
        time.sleep(TICK)


def _is_free(lock: "FileLock") -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _put_aside(folder: Path, locks: Sequence[str]) -> None:
    """Have locks made anew: whoever holds the old files holds nothing by them any more."""
    for name in locks:
        (folder / name).unlink(missing_ok=True)
