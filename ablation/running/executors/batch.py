"""Parts as jobs of any batch system, by the commands of `executors.yaml` that submit, list and cancel."""

import contextlib
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from ablation.errors import AblateError
from ablation.formatting import ranges
from ablation.running.executors.queue_commands import carried_out
from ablation.running.parts.engine import JobState, State
from ablation.running.parts.script import PartCommand, write_script
from ablation.running.parts.split import Split
from ablation.system import kept
from ablation.system.digests import digest

NO_JOB = re.compile(
    r"unknown job|not found|no (unfinished |such )?job|jobs? do(es)? not exist|has (already )?finished|invalid job", re.IGNORECASE
)  # what they say of an ended one
ENDED_STATES = ("C", "E", "F", "X", "DONE", "EXIT")  # of PBS and LSF, in a column of its own


def note_used(settings: Mapping[str, Any]) -> None:
    """Keep that this user has submitted to a queue with these commands."""
    path = _used(settings)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def was_used(settings: Mapping[str, Any]) -> bool:
    """Whether this user has submitted to a queue with these commands: what lies in a folder that somebody sent is not carried out."""
    return _used(settings).exists()


def _used(settings: Mapping[str, Any]) -> Path:
    return kept.folder() / "queues" / digest([settings["list"], settings["cancel"]])[:32]


class BatchEngine:
    """A batch system as one site's settings describe it."""

    def __init__(self, settings: Mapping[str, Any], command: PartCommand | None, split: Split) -> None:
        self.settings, self.command, self.split = dict(settings), command, split

    @property
    def about(self) -> dict[str, Any]:
        """What another process needs to ask for these jobs and to end them."""
        return {"kind": "batch", "list": self.settings["list"], "cancel": self.settings["cancel"]}

    def submit(self, parts: Sequence[int], *, alone: bool = False) -> str:
        """Submit these parts, as one array or each as a job of its own; the id of the job, or `1=id 2=id` of several."""
        assert self.command is not None, "made to look on"
        if self.settings["takes_many"]:
            path = write_script(self.command, self.split, self.settings["part"], alone=alone)
            return self._submit(path, ranges(parts).replace(" ", ""), "job")
        ids: list[str] = []
        try:
            for part in parts:
                path = write_script(self.command, self.split, "ABLATE_PART", head=f"export ABLATE_PART={part}\n", alone=alone)
                ids.append(f"{part}={self._submit(path, str(part), f'part-{part}')}")
        except AblateError:
            if ids:  # nobody would know of them
                self.cancel([" ".join(ids)])
            raise
        return " ".join(ids)

    def _submit(self, path: Path, parts: str, name: str) -> str:
        values = {"script": path, "parts": parts, "name": f"ablate-{self.split.study}", "output": self.split.folder / f"{name}.out"}
        done = self._run("submit", values)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"its command ended with status {done.returncode} and printed nothing"
            raise AblateError(f"the queue refused the parts: {said}")
        if not done.stdout.split():
            raise AblateError(
                "submit printed no id, so that nothing is known of what it may have submitted; expected the job's id on stdout"
            )
        return _id(done.stdout)

    def states(self, jobs: Collection[str]) -> dict[tuple[str, int], JobState] | None:
        """The jobs that are listed: those wait or run. None if the command fails, unless it says that there is no such job."""
        states: dict[tuple[str, int], JobState] = {}
        parts_of = {submitted["id"]: submitted["parts"] for submitted in self.split.jobs.get("submitted", ())}
        for job in jobs:
            for part, single in _singles(job).items():
                done = self._run("list", {"job": single})
                if done.returncode and not _says_no_job(done):
                    return None
                numbers = [part] if part else parts_of.get(job, range(1, len(self.split.shares) + 1))
                if _is_listed(single, done.stdout):
                    states |= {(job, number): JobState(State.RUNNING) for number in numbers}
        return states

    def stop(self, jobs: Collection[str]) -> None:
        """Nothing: the parts look whether they shall stop; those that wait end as they begin."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End the jobs at once."""
        for single in [single for job in sorted(jobs) for single in _singles(job).values()]:
            done = self._run("cancel", {"job": single})
            if done.returncode and not _says_no_job(done):
                why = done.stderr.strip() or done.stdout.strip() or "it gave no reason"
                raise AblateError(f"the queue did not end job {single}: {why}")

    def _run(self, name: str, values: Mapping[str, Any]) -> CompletedProcess[str]:
        """One of the site's commands with its words filled in; no shell is started."""
        words = [word.format(**values) for word in shlex.split(self.settings[name])]
        return carried_out(words, f"the command that executors.yaml names under {name}")


def _says_no_job(done: CompletedProcess[str]) -> bool:
    """Whether a command failed since there is no such job, and not since its program was not there: `bash: qstat: command not found`."""
    printed = done.stderr + done.stdout
    return done.returncode not in (126, 127) and "command not found" not in printed and NO_JOB.search(printed) is not None


def _singles(job: str) -> dict[int, str]:
    """part -> id, of parts that were submitted each for itself; 0 -> id of an array."""
    if "=" not in job:
        return {0: job}
    return {int(part): single for part, _, single in (pair.partition("=") for pair in job.split())}


def _id(printed: str) -> str:
    """The job's id in what `submit` printed: `1234[].server` of qsub, `1234` of `Job <1234> is submitted to queue <normal>.`"""
    words = [word.strip("<>.,") for word in printed.split()]
    return next((word for word in words if word[:1].isdigit()), words[-1])


def _is_listed(job: str, printed: str) -> bool:
    """Whether a line of a list is of that job, and does not say that it has ended."""
    number = re.compile(rf"(?<!\d){re.escape(re.split(r'[.[]', job)[0])}(?!\d)")
    return any(number.search(line) and not set(line.split()) & set(ENDED_STATES) for line in printed.splitlines())
