"""The life of a worker process: jobs in, events out, until the pipe is closed."""

import contextlib
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ablation.planning.jobs import Job
from ablation.running.job_json import job_from_json
from ablation.study.task import CodeChanged, Fenced, Interrupted, load_task
from ablation.system import fencing, signals, streams
from ablation.system.failures import failure
from ablation.system.memory import keep_freed_memory
from ablation.techniques.technique import allow_code

# Asks a worker to end at once, in order. No cluster sends it; what clusters send asks the command to stop, and workers ignore it.
END = int(getattr(signal, "SIGRTMIN", signal.SIGUSR2))  # macOS has no signals of one's own
TAKEN_OVER: dict[str, Any] = {"kind": "stopped", "why": "another attempt has taken over what this one did"}
OTHER_CODE: dict[str, Any] = {"kind": "stopped", "why": "the code was changed while the study ran"}


class Order(NamedTuple):
    """What a worker is given: a job, as JSON if it comes from another machine, and how many jobs share its device.

    With an `owner`, it is an attempt at his work: a later one, which has a greater number, takes it over.
    """

    job: Job | str
    num_jobs: int = 1
    owner: str = ""
    attempt: int = 0
    code: tuple[str, ...] = ()  # folders from which a job in JSON may have code of the user's imported

    def read(self) -> Job:
        """The job; raises an exception if the code that it names is no longer there."""
        if isinstance(self.job, Job):
            return self.job
        if self.code:
            allow_code(*map(Path, self.code))
        return job_from_json(self.job)


def work(pipe: Connection, device: str, task: str, stop: Any, parent: int) -> None:
    """Take jobs of one kind of work from the pipe and carry them out on a device; `stop.value` asks to end at the next epoch."""
    for number in signals.NUMBERS:
        signal.signal(number, signal.SIG_IGN)  # where it could not be blocked
    streams.output_to_error()  # what a technique prints is no part of the document, and nobody may read it any more
    signal.signal(END, _end)
    signals.die_with_parent(parent)
    keep_freed_memory()
    with contextlib.suppress(Exception):  # what fails here, as on a device that is full, fails again with the first job, which tells of it
        load_task(task).start(device)
    order: Order
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            try:
                order = pipe.recv()
                job = order.read()
            except (EOFError, ConnectionError):
                raise
            except Exception:  # its classes are imported now, by a worker that began after their file was edited
                pipe.send(OTHER_CODE)
                continue
            if order.owner:
                fencing.become(order.owner, order.attempt)
            pipe.send({"kind": "started"})
            pipe.send(carry_out(job, device, pipe, stop, order.num_jobs))


def _end(_number: int, _frame: object) -> None:
    """End in order, so that a device is let go of as its driver wants it."""
    signal.signal(END, signal.SIG_IGN)
    sys.exit(1)


def carry_out(job: Job, device: str, pipe: Any, stop: Any, num_jobs: int = 1) -> dict[str, Any]:
    """Do a job on a device that so many share, sending its events; the last event, which tells how it ended."""

    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "untested":
            fencing.check()  # then it is no failure
        try:
            pipe.send(event)
        except OSError:
            sys.exit(1)  # the coordinator is gone

    task, has_begun = load_task(job.task), False
    try:
        task.start(device, num_jobs)
        has_begun = True
        task.run(job.work, device, emit, lambda: bool(stop.value), job.checkpoint_interval)
    except Interrupted:
        return {"kind": "stopped"}
    except CodeChanged:
        return OTHER_CODE
    except Fenced:
        return TAKEN_OVER
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:  # whatever it is, the others go on
        return {"kind": "failed", "has_begun": has_begun} | failure(error, task.memory_advice)
    return {"kind": "done"}
