"""A real Slurm on this machine, for the tests that need one: whether and how it is started, and a study in its hands."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ablation.running.parts.split import splits
from benchmarks import engines

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "ablation"]
WAIT = 600.0  # seconds; a machine with much to do is slow
PROGRAMS = ("sbatch", "squeue", "scancel", "slurmctld", "slurmd", "munged")
MISSING = [name for name in PROGRAMS if not shutil.which(name)]
WHY_NOT = f"Slurm is not installed ({', '.join(MISSING)})" if MISSING else "a Slurm of our own needs root" if os.geteuid() else ""
needs_slurm = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def started(folder):
    """A Slurm in this folder, while the context lasts."""
    return engines.slurm(folder, free_ports(5))


def free_ports(count):
    """The first of so many ports in a row that nobody listens to, below those that the system gives to clients."""
    while True:
        first = random.randrange(20_000, 32_000 - count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


class Cluster:
    """A folder with a study, whose file is the first of its words, and its commands there."""

    def __init__(self, folder, database, environment, study):
        self.folder, self.study = folder, study
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
        (folder / "executors.yaml").write_text("slurm: {parts: 3, poll: 1, jobs: 1, device: cpu}\n")
        (folder / "mlruns").mkdir()
        shutil.copyfile(database, folder / "mlruns" / "mlflow.db")
        self.started = []

    def start(self, *words, before=()):
        """A command under way; `before` are the words in front of it."""
        self.output = self.folder / f"out-{len(self.started)}"
        with self.output.open("w") as output:
            self.started.append(
                subprocess.Popen(
                    [*before, *COMMAND, *words], cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True
                )
            )
        return self.started[-1]

    def run(self, *words, before=()):
        """A command's status and what it printed."""
        status = self.start(*words, before=before).wait(WAIT)
        return status, self.printed()

    def printed(self):
        """What the newest command printed so far."""
        return self.output.read_text()

    def here(self, *words):
        """The study by this machine: the command's status and what it printed."""
        return self.run("run", *self.study, "--device", "cpu", "--jobs", "1", *words)

    def by_slurm(self, *words, before=()):
        return self.run("run", *self.study, "--device", "cpu", "--executor", "slurm", *words, before=before)

    def follow(self):
        return self.start("run", *self.study, "--device", "cpu", "--executor", "slurm")

    def call(self, *words):
        """What a command of Slurm prints."""
        return subprocess.run(words, check=True, capture_output=True, text=True, env=self.environment).stdout

    @property
    def split(self):
        (found,) = splits(self.folder / "mlruns" / "parts")
        return found

    @property
    def job(self):
        return self.split.jobs["submitted"][0]["id"]

    def jobs(self):
        """What squeue has of them: part -> state."""
        rows = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%K %T").splitlines()
        return {int(part): state for part, state in (row.split() for row in rows) if part.isdecimal()}

    def until(self, what):
        """Wait until this comes true."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < WAIT, self.printed()
            time.sleep(0.05)

    def trained(self, part, attempt=1):
        """Whether an epoch of this attempt at the part is told in its log."""
        path = self.split.folder / f"part-{part}.attempt-{attempt}.jsonl"
        return path.exists() and '"epoch"' in path.read_text()

    def until_trained(self, part=1, attempt=1):
        self.until(lambda: splits(self.folder / "mlruns" / "parts") and self.trained(part, attempt))

    def hold(self, *parts):
        """Freeze the processes of each part as soon as it has trained an epoch: whatever is done to it finds it at work."""
        held = {}

        def all_are_held():
            for part in [part for part in parts if part not in held and self.trained(part)]:
                commands = [one for one in self.processes() if f"{part}/3" in one.cmdline()]
                held[part] = [*commands, *(child for one in commands for child in one.children(recursive=True))]
                for process in held[part]:
                    process.suspend()
            return len(held) == len(parts)

        self.until(lambda: splits(self.folder / "mlruns" / "parts") and all_are_held())
        return held

    def processes(self):
        """The processes of jobs that work in the folder."""
        found = [(one, one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
        file = str((self.folder / self.study[0]).resolve())
        return [one for one, words in found if "--part" in words and file in words and words[0] != "/bin/bash"]

    def close(self):
        """End its jobs and its commands, none of whose processes is left."""
        self.call("scancel", "--user=root", "--full", "--signal=KILL")
        self.call("scancel", "--user=root")
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.until(lambda: not self.processes())


def resume(processes):
    """Let frozen processes go on, but for those that were killed meanwhile."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
