"""Parts as jobs of any batch system, by the commands of `executors.yaml` that submit, list and cancel."""

import re
import shlex
import subprocess
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ablation.errors import AblateError, ConfigError
from ablation.formatting import ranges
from ablation.running.parts.engine import JobState, State
from ablation.running.parts.script import PartCommand, script
from ablation.running.parts.split import Split

PATIENCE = 60  # seconds for one of its commands
ENDED_STATES = ("C", "E", "F", "X", "DONE", "EXIT")  # of PBS and LSF, in a column of its own


class BatchEngine:
    """A batch system as one site's settings describe it."""

    def __init__(self, settings: Mapping[str, Any], command: PartCommand | None, split: Split) -> None:
        self.settings, self.command, self.split = dict(settings), command, split

    @property
    def about(self) -> dict[str, Any]:
        """What another process needs to ask for these jobs and to end them."""
        return {"kind": "batch", "list": self.settings["list"], "cancel": self.settings["cancel"]}

    def submit(self, parts: Sequence[int]) -> str:
        """Submit these parts, as one array or each as a job of its own; the id of the job, or `1=id 2=id` of several."""
        assert self.command is not None, "made to look on"
        path = self.split.folder / "job.sh"
        if self.settings["takes_many"]:
            path.write_text(script(self.command, self.split, self.settings["part"]), encoding="utf-8")
            return self._submit(path, ranges(parts).replace(" ", ""), "job")
        ids = []
        for part in parts:
            single = path.with_name(f"job-{part}.sh")
            text = script(self.command, self.split, "ABLATE_PART", head=f"export ABLATE_PART={part}\n")
            single.write_text(text, encoding="utf-8")
            ids.append(f"{part}={self._submit(single, str(part), f'part-{part}')}")
        return " ".join(ids)

    def _submit(self, path: Any, parts: str, name: str) -> str:
        values = {"script": path, "parts": parts, "name": f"ablate-{self.split.study}", "output": self.split.folder / f"{name}.out"}
        done = _run(self.settings["submit"], "submit", values)
        if done.returncode or not done.stdout.split():
            raise AblateError(f"the queue refused the parts: {done.stderr.strip() or done.stdout.strip() or 'it printed no id'}")
        return _id(done.stdout)

    def states(self, jobs: Collection[str]) -> dict[tuple[str, int], JobState] | None:
        """Which of the jobs are listed: those wait or run. None if the command fails for a reason other than that it knows no job."""
        states: dict[tuple[str, int], JobState] = {}
        for job in jobs:
            for part, single in _singles(job).items():
                done = _run(self.settings["list"], "list", {"job": single})
                if done.returncode and not done.stderr.strip():
                    return None
                number = re.compile(rf"(?<!\d){re.escape(re.split(r'[.[]', single)[0])}(?!\d)")
                lines = [line for line in done.stdout.splitlines() if number.search(line)]
                alive = [line for line in lines if not set(line.split()) & set(ENDED_STATES)]
                numbers = [part] if part else range(1, len(self.split.shares) + 1)
                states |= {(job, number): JobState(State.RUNNING) for number in numbers if alive}
        return states

    def stop(self, jobs: Collection[str]) -> None:
        """Nothing: the parts look whether they shall stop; those that wait end as they begin."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End the jobs at once."""
        for job in jobs:
            for single in _singles(job).values():
                _run(self.settings["cancel"], "cancel", {"job": single})


def _singles(job: str) -> dict[int, str]:
    """part -> id, of parts that were submitted each for itself; 0 -> id of an array."""
    if "=" not in job:
        return {0: job}
    return {int(part): single for part, _, single in (pair.partition("=") for pair in job.split())}


def _id(printed: str) -> str:
    """The job's id in what `submit` printed: `1234[].server` of qsub, `1234` of `Job <1234> is submitted to queue <normal>.`"""
    words = [word.strip("<>.,") for word in printed.split()]
    return next((word for word in words if word[:1].isdigit()), words[-1])


def _run(template: str, name: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """A command of the site with its words filled in; no shell is started."""
    try:
        words = [word.format(**values) for word in shlex.split(template)]
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(f"executors.yaml: {name}", f"found {template!r}, with an unknown {error}; expected {', '.join(values)}") from None
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise AblateError(f"found no {words[0]} here; expected the command that executors.yaml names under {name}") from None
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", "")
