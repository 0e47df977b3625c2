"""The parent of the user's process: ends it, and whatever it started, when it is asked to, or when nobody is left to ask.

A script of its own, started with `python -I -S guard.py CONTROL STATUS WORD...`, which imports nothing of ours. From the file
descriptor CONTROL it reads `stop SECONDS`, after which the process has so long to end; its end means that the worker is gone. To STATUS it
writes one JSON object: the exit code (negative for a signal), or why the command could not be started.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

DEATH_SIGNAL, SUBREAPER = 1, 36  # of prctl
HASTE = 5.0  # seconds to end in order where the worker is gone
LEFTOVER = 1.0  # seconds for what the process left running
TICK = 0.05
IS_LINUX = sys.platform == "linux"


def main(control: int, status: int, words: list[str]) -> None:
    """Run the command, and say how it ended when nothing is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # whoever wants it to end closes CONTROL
    _prctl(SUBREAPER, 1)  # orphans below become our children
    try:
        process = subprocess.Popen(words, start_new_session=True, preexec_fn=_as_a_new_program(os.getpid()))  # noqa: PLW1509  one thread
    except OSError as error:
        os.write(status, json.dumps({"unstarted": error.strerror, "errno": error.errno}).encode())
        return
    for descriptor in (0, 1, 2):  # whoever reads what it prints shall see its end
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    guard = _Guard(process, control)
    code = guard.watch()
    guard.end(LEFTOVER)
    with contextlib.suppress(OSError):
        os.write(status, json.dumps({"code": code}).encode())


def _as_a_new_program(parent: int) -> Callable[[], None]:
    """What the child does before its program begins: it ends with its parent, and ignores no signal that the worker ignores."""

    def prepare() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _prctl(DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _prctl(option: int, value: int) -> None:
    if IS_LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Guard:
    """A process, all that it starts, and the descriptor that says when they shall end."""

    def __init__(self, process: "subprocess.Popen[bytes]", control: int) -> None:
        self.process, self.control, self.is_alone = process, control, False
        self.ending: list[int] = []  # what can be read when the process ends
        with contextlib.suppress(AttributeError, OSError):  # where the system has no such descriptor, the next tick tells
            self.ending.append(os.pidfd_open(process.pid))

    def watch(self) -> int:
        """The exit code of the process, which ends by itself, when it is asked to, or when the worker is gone."""
        while self.process.poll() is None:
            grace = self._asked(TICK)
            if grace is not None:
                self.end(grace)
        return self.process.returncode

    def end(self, grace: float) -> None:
        """Ask everything below to end, and kill what has not after `grace` seconds, or fewer if that is asked meanwhile."""
        if self._is_left():
            _signal(self.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self._is_left() and time.monotonic() < deadline:
            asked = self._asked(TICK / 5)
            deadline = deadline if asked is None else min(deadline, time.monotonic() + asked)
        while self._is_left():
            _signal(self.process.pid, signal.SIGKILL)
            time.sleep(TICK / 5)

    def _asked(self, timeout: float) -> float | None:
        """The seconds to end in, if somebody asks for that within `timeout` seconds; nobody does twice after the worker's end."""
        ending = self.ending if self.process.returncode is None else []
        if self.is_alone or self.control not in select.select([self.control, *ending], [], [], timeout)[0]:
            time.sleep(timeout if self.is_alone else 0)
            return None
        words = os.read(self.control, 100).split()
        self.is_alone = not words
        return float(words[1]) if words else HASTE

    def _is_left(self) -> bool:
        """Whether something below is alive; orphans that have ended are let go."""
        is_alive = self.process.poll() is None
        with contextlib.suppress(ChildProcessError):
            while not is_alive and os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return is_alive or bool(list(_below(os.getpid()))) or _has_group(self.process.pid)


def _signal(group: int, number: int) -> None:
    """Send a signal to the process group, and to what below has left it."""
    with contextlib.suppress(OSError):
        os.killpg(group, number)
    for pid in _below(os.getpid()):
        with contextlib.suppress(OSError):
            if os.getpgid(pid) != group:
                os.kill(pid, number)


def _has_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _below(root: int) -> Iterator[int]:
    """The processes below one that have not ended; none where the system has no /proc."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if IS_LINUX else ():
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    parents.setdefault(int(parent), []).append(int(name))
    pending = [root]
    while pending:
        found = parents.get(pending.pop(), [])
        yield from found
        pending += found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
