"""A process under guard: what it prints while it runs, how it ends, and that nothing of it is left."""

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ablation.tasks.own import guard

TOKEN = "ABLATE_RUN"  # the variable by which what a killed guard left is found
OUTPUT, ERRORS, STATUS = "output", "errors", "status"
AT_ONCE = 65536  # bytes
PATIENCE = 15.0  # seconds beyond its grace in which a guard has to end what it guards
DRAIN = 1.0  # seconds for what was printed before the end


class GuardedProcess:
    """A command in a folder; as a context, it is ended by the guard when the context is left, if it has not ended by then.

    `held` is a file descriptor that the guard keeps open until nothing of the process is left.
    """

    def __init__(self, words: Sequence[str], folder: Path, env: Mapping[str, str], held: int) -> None:
        self.ended: dict[str, Any] | None = None  # as `guard` says it; {} if it was killed
        self._token = uuid.uuid4().hex
        control, self._control = os.pipe()
        status_source, status = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(control), str(status), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={**env, TOKEN: self._token},
                pass_fds=(control, status, held),
                start_new_session=True,
            )
        finally:
            os.close(control)
            os.close(status)
        self._selector = selectors.DefaultSelector()
        self._said = b""
        assert self._guard.stdout is not None and self._guard.stderr is not None  # noqa: PT018
        for source, name in ((self._guard.stdout.fileno(), OUTPUT), (self._guard.stderr.fileno(), ERRORS), (status_source, STATUS)):
            self._selector.register(source, selectors.EVENT_READ, name)
        self._status, self._asked_until = status_source, float("inf")

    def __enter__(self) -> "GuardedProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._control)  # the guard ends what is left, also without us
        self._selector.close()
        os.close(self._status)
        for pipe in (self._guard.stdout, self._guard.stderr):
            if pipe is not None:
                pipe.close()
        if self.ended is not None:
            self._guard.wait()

    def stop(self, grace: float) -> None:
        """Have the process end: asked at first, killed after so many seconds."""
        with contextlib.suppress(OSError):
            os.write(self._control, f"stop {grace}\n".encode())
        self._asked_until = time.monotonic() + grace + PATIENCE

    def read(self, timeout: float) -> Iterator[tuple[str, bytes]]:
        """What was printed meanwhile, after at most so many seconds; each piece with where."""
        if not self._selector.get_map():
            time.sleep(timeout)
        for ready, _ in self._selector.select(timeout):
            data = os.read(ready.fd, AT_ONCE)
            if not data:
                self._selector.unregister(ready.fd)
            if ready.data != STATUS:
                yield ready.data, data
            elif data:
                self._said += data
            else:
                self._take_end()
        if self.ended is None and time.monotonic() > self._asked_until:
            self._guard.kill()  # it cannot end what it guards

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """What was printed before the end and not read yet."""
        deadline = time.monotonic() + DRAIN
        while self._selector.get_map() and time.monotonic() < deadline:
            pieces = list(self.read(0.02))
            yield from pieces
            if not pieces:
                return

    def _take_end(self) -> None:
        try:
            self.ended = json.loads(self._said)
        except ValueError:  # the guard was killed, and with it the process, but not what that had started
            self.ended = {}
            kill_marked(self._token)


def kill_marked(token: str, seconds: float = 5.0) -> None:
    """Kill every process with this mark in its environment, which a process inherits (where there is /proc)."""
    mark, deadline = f"{TOKEN}={token}".encode(), time.monotonic() + seconds
    while (pids := list(_marked(mark))) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _marked(mark: bytes) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


@contextlib.contextmanager
def held(path: Path, is_given_up: Callable[[], bool], patience: float = math.inf) -> Iterator[int | None]:
    """A locked file's descriptor, which a guard inherits: nobody else gets it while something of a process is left.

    After `patience` seconds whatever is left counts no more, and the file is made anew. None if it was given up before the lock was free.
    """
    deadline = time.monotonic() + patience
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _is_locked_now(descriptor):
            if is_given_up():
                yield None
                return
            if time.monotonic() > deadline:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            else:
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked_now(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
