"""A function in a process of its own: one that raises, hangs or crashes, or what it leaves on a device, ends with that process."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ablation.system import signals


class ChildError(Exception):
    """The function did not return; the message says why, in one line."""


def call_in_child(function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
    """What the function returns, of a new process; raises ChildError if it raises, crashes, or takes longer than `timeout` seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    process = context.Process(target=_answer, args=(sender, os.getpid(), function, arguments), daemon=True)
    with signals.blocked():
        process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            raise ChildError(f"it was not done after {timeout:.0f} s")
        has_returned, answer = receiver.recv()
        process.join(30)  # it removes its temporary files, and lets go of a device
    except EOFError:
        process.join(5)
        raise ChildError(f"its process ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join(5)
    if not has_returned:
        raise ChildError(answer)
    return answer


def _answer(pipe: Connection, parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signals.die_with_parent(parent)
    try:
        answer = True, function(*arguments)
    except Exception as error:  # of any kind: it is told to whoever waits
        answer = False, one_line(error)
    pipe.send(answer)


def one_line(error: Exception) -> str:
    """The error's class and its message, in one line; CUDA adds several of advice."""
    message = str(error).partition("CUDA kernel errors might be")[0]
    return f"{type(error).__name__}: {' '.join(message.split())}"
