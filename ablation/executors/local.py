"""Worker processes on this machine: one for each slot, each importing torch once for many jobs."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from typing import Any

from ablation.worker import THREADS, Interrupted, Job, failure, run


@dataclass
class _Slot:
    """One worker process, its pipe, and the key of what it works on."""

    process: SpawnProcess
    pipe: Connection
    device: str
    busy: str = ""


class LocalExecutor:
    """Runs jobs in `num_jobs` processes for each device; start_ahead begins importing before the first job is there."""

    def __init__(self, devices: list[str], num_jobs: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stop: Event = self._context.Event()
        self._slots = [self._start(device) for device in devices for _ in range(num_jobs)]

    def _start(self, device: str) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, device, self._stop, os.getpid()), daemon=True)
        with _deaf():
            process.start()
        theirs.close()
        return _Slot(process, ours, device)

    @property
    def num_free(self) -> int:
        """How many jobs could start now."""
        return sum(not slot.busy for slot in self._slots)

    @property
    def num_slots(self) -> int:
        """How many jobs can run at once."""
        return len(self._slots)

    def submit(self, job: Job) -> None:
        """Start a job in a free slot."""
        number = next(i for i, slot in enumerate(self._slots) if not slot.busy)
        if not self._slots[number].process.is_alive():
            self._slots[number] = self._start(self._slots[number].device)
        self._slots[number].pipe.send(job)
        self._slots[number].busy = job.key

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """What happened since the last call, after at most `timeout` seconds: started, epoch, result, done, failed, stopped."""
        found: list[dict[str, Any]] = []
        for ready in wait([slot.pipe for slot in self._slots if slot.busy], timeout):
            slot = next(slot for slot in self._slots if slot.pipe is ready)
            found.append(self._receive(slot))
        return found

    def _receive(self, slot: _Slot) -> dict[str, Any]:
        try:
            event: dict[str, Any] = slot.pipe.recv() | {"stage": slot.busy}
        except (EOFError, ConnectionError):
            slot.process.join(5)
            code = slot.process.exitcode
            event = {"kind": "failed", "stage": slot.busy, "failure": "killed", "message": f"its process ended with {code}", "log": ""}
        if event["kind"] in ("done", "failed", "stopped"):
            slot.busy = ""
        return event

    def ask_to_stop(self) -> None:
        """Have every job end at its next epoch."""
        self._stop.set()

    def close(self) -> None:
        """End all processes, whatever they do."""
        for slot in self._slots:
            with contextlib.suppress(OSError, ValueError):
                slot.process.terminate()
        for slot in self._slots:
            slot.process.join(5)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Blocks Ctrl-C, for processes that begin meanwhile for good: it is the coordinator that decides when to stop."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, device_name: str, stop: Event, parent: int) -> None:
    """A worker's life: jobs in, events out, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    _die_with_parent(parent)
    _keep_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic where that is asked for
    import timm  # noqa: F401  imported now, while the coordinator still plans
    import torch

    from ablation import evaluation  # noqa: F401  the same

    device = torch.device(device_name)
    torch.set_num_threads(THREADS)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            pipe.send({"kind": "started"})
            pipe.send(_finish(job, device, pipe, stop))


def _finish(job: Job, device: Any, pipe: Connection, stop: Event) -> dict[str, Any]:
    try:
        run(job, device, pipe.send, stop.is_set)
    except Interrupted:
        return {"kind": "stopped"}
    except (ConnectionError, KeyboardInterrupt):
        sys.exit(1)  # the coordinator is gone
    except Exception as error:  # whatever it is, the others go on
        return {"kind": "failed"} | failure(error)
    return {"kind": "done"}


def _keep_memory() -> None:
    """Have glibc keep what is freed: a step's tensors, given back and asked for again, cost a page fault for every 4 KiB."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is killed (Linux); elsewhere the closed pipe does, at the next epoch."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)
