"""Commands in processes of their own, several at once, ended with all that they started when the time is over."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Command:
    """A command in a folder of its own; with `stop`, that signal goes to all its processes once it has written a checkpoint."""

    name: str
    words: tuple[str, ...]
    folder: Path
    stop: signal.Signals | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, None if the time was over, its seconds, and what it printed."""

    name: str
    status: int | None
    seconds: float
    output: str

    @property
    def problem(self) -> str:
        """A sentence with the last that it printed."""
        return f"{self.name} ended with status {self.status}: {' | '.join(self.output.strip().splitlines()[-8:])[-1500:]}"


class Running:
    """A process and all that it starts, in a session of its own; they end with the context."""

    def __init__(self, command: Command) -> None:
        command.folder.mkdir(parents=True, exist_ok=True)
        self.command, self.log, self.began, self.is_stopped = command, command.folder / "log", time.monotonic(), False
        with self.log.open("w") as log:
            given = {"cwd": command.folder, "env": environment(), "stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen(command.words, **given)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill(signal.SIGKILL)
            self.process.wait()

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to all processes, if there are any."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def ended(self, deadline: float) -> Ended | None:
        """How it ended, or None while it runs."""
        stop, is_late = self.command.stop, time.monotonic() > deadline
        if stop and not self.is_stopped and any(self.command.folder.glob("mlruns/stages/*/checkpoint.safetensors")):
            self.is_stopped = True
            self.kill(stop)
        if self.process.poll() is None and not is_late:
            return None
        seconds, output = time.monotonic() - self.began, self.log.read_text(errors="replace")
        return Ended(self.command.name, self.process.returncode, seconds, output)


def environment() -> dict[str, str]:
    """Our own, with the checkout in Python's path and no store but a folder's own."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return kept | {"PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "COLUMNS": "200"}


def all_ended(commands: Iterable[Command], deadline: float, at_once: int = 64) -> Iterator[Ended]:
    """The commands as they end, so many at once; what runs or waits at the deadline comes with no status."""
    waiting, running = list(commands), list[Running]()
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() <= deadline:
                running.append(stack.enter_context(Running(waiting.pop(0))))
            if not running:
                break
            for one in list(running):
                if (done := one.ended(deadline)) is not None:
                    running.remove(one)
                    yield done
            time.sleep(0.02)
    yield from (Ended(command.name, None, 0.0, "") for command in waiting)
