"""Attempts at the same work for tests: forked processes that freeze while they hold a folder, and locks that keep nobody off."""

import contextlib
import multiprocessing
import os
import signal
import traceback
from pathlib import Path

from ablation.system import fencing
from tests.tasks.own.runs import until


class NoLock:
    """A lock that keeps nobody off, as on a network disk without any."""

    def __init__(self, *_args, **_options):
        self.is_locked = False

    def acquire(self, *_args, **_options):
        self.is_locked = True

    def release(self):
        self.is_locked = False

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_error):
        self.release()


def freeze():
    """Stop this process until it is let go."""
    os.kill(os.getpid(), signal.SIGSTOP)


class Orphan:
    """A forked process that is an attempt at an owner's work and freezes; `let_go` says what its function returned in the end."""

    def __init__(self, owner, attempt, function):
        context = multiprocessing.get_context("fork")
        self.answer, theirs = context.Pipe(duplex=False)

        def work():
            fencing.become(owner, attempt)
            try:
                theirs.send(function())
            except BaseException:  # or nobody would ever hear of it
                theirs.send(traceback.format_exc())

        self.process = context.Process(target=work)
        self.process.start()
        theirs.close()

    def __enter__(self):
        until(lambda: b") T " in Path(f"/proc/{self.process.pid}/stat").read_bytes())
        return self

    def let_go(self):
        os.kill(self.process.pid, signal.SIGCONT)
        assert self.answer.poll(30)
        return self.answer.recv()

    def __exit__(self, *_error):
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.answer.close()


def contents(folder):
    """Every file below a folder with its bytes and the time that it was written."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
