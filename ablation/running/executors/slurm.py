"""Parts as one job array of Slurm, by its plain commands: sbatch, squeue (no accounting is needed) and scancel."""

import re
from collections.abc import Collection, Mapping, Sequence
from subprocess import CompletedProcess
from typing import Any

from ablation.errors import AblateError
from ablation.formatting import ranges
from ablation.running.executors.queue_commands import carried_out
from ablation.running.parts.engine import JobState, State
from ablation.running.parts.script import RESTARTS, PartCommand, begin_of_scripts, write_script
from ablation.running.parts.split import Split

WARNING = 60  # seconds before the time limit at which Slurm sends SIGUSR1
STATES = {
    "PENDING": State.WAITING,
    "CONFIGURING": State.WAITING,
    "REQUEUED": State.WAITING,
    "REQUEUE_HOLD": State.WAITING,
    "SPECIAL_EXIT": State.WAITING,
    "RESV_DEL_HOLD": State.WAITING,
    "REQUEUE_FED": State.WAITING,
    "RUNNING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "RESIZING": State.RUNNING,
    "CANCELLED": State.CANCELLED,
    "OUT_OF_MEMORY": State.NO_MEMORY,
    "PREEMPTED": State.LOST,
    "NODE_FAIL": State.LOST,
    "BOOT_FAIL": State.LOST,
}
JOB = re.compile(r"(\d+)(;\S*)?")  # behind it stands the cluster
TOO_MANY = "Invalid job array specification"
HEAD = f'export {RESTARTS}="${{SLURM_RESTART_COUNT:-0}}"\n'
AGAIN = 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && sleep 60'


class SlurmEngine:
    """Slurm, with the options of one site's jobs."""

    def __init__(self, options: Mapping[str, Any], command: PartCommand | None, split: Split) -> None:
        self.options, self.command, self.split = dict(options), command, split

    @property
    def name(self) -> str:
        """That of its jobs, unless the site has another."""
        return f"ablate-{self.split.study}"

    @property
    def about(self) -> dict[str, Any]:
        """What another process needs to ask for these jobs and to end them."""
        return {"kind": "slurm"}

    def submit(self, parts: Sequence[int], *, alone: bool = False) -> str:
        """Submit an array of these parts; the id of the job."""
        assert self.command is not None, "made to look on"
        path = write_script(self.command, self.split, "SLURM_ARRAY_TASK_ID", head=HEAD, again=AGAIN, alone=alone)
        ours = {
            "job-name": self.name,
            "output": str(self.split.folder).replace("%", "%%") + "/part-%a.out",
            "open-mode": "append",
            "signal": f"B:USR1@{WARNING}",
            "requeue": True,
        }
        words = ["sbatch", "--parsable", *_words(ours | self.options), f"--array={ranges(parts).replace(' ', '')}", str(path)]
        done = _run(words)
        if done.returncode:
            few = "; MaxArraySize of scontrol show config is how many parts there may be" if TOO_MANY in done.stderr else ""
            raise AblateError(f"sbatch refused the parts, and nothing was submitted: {_said(done)}{few}")
        printed = [match[1] for line in done.stdout.splitlines() if (match := JOB.fullmatch(line.strip()))]
        if not printed:
            raise AblateError(f"sbatch printed no job's id, but: {_said(done) or 'nothing'}; squeue shows whether it has a job {self.name}")
        return printed[-1]

    def states(self, jobs: Collection[str]) -> dict[tuple[str, int], JobState] | None:
        """What squeue says of the split's jobs, ended ones for a few minutes too; None if it does not answer.

        A job is known by its script, also one of which nobody could note the id. An id alone says little: a controller that lost its state
        gives them anew.
        """
        done = _run(["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%r|%j|%o"])
        if done.returncode:
            return None
        rows = [row for line in done.stdout.splitlines() if len(row := line.strip().split("|", 4)) == 5 and row[1].isdecimal()]
        return {(row[0], int(row[1])): _state(row[2], row[3]) for row in rows if self._is_ours(row[4], is_noted=row[0] in jobs)}

    def _is_ours(self, name_and_script: str, *, is_noted: bool) -> bool:
        """Whether a job is of the split; a site's own sbatch may submit a copy of the script, but of that name."""
        ours = f"/{self.split.study}/{self.split.folder.name}/{begin_of_scripts(self.split)}"
        return ours in name_and_script or (is_noted and name_and_script.startswith(f"{self.name}|"))

    def stop(self, jobs: Collection[str]) -> None:
        """Send SIGUSR1 to the parts that run, and take out those that wait."""
        for job in filter(str.isdecimal, jobs):
            _run(["scancel", "--state=PENDING", job])
            _run(["scancel", "--batch", "--signal=USR1", job])

    def cancel(self, jobs: Collection[str]) -> None:
        """End the jobs at once."""
        if jobs and (done := _run(["scancel", *sorted(jobs)])).returncode:
            raise AblateError(f"scancel did not end job {', '.join(sorted(jobs))}: {_said(done)}")


def _state(word: str, reason: str) -> JobState:
    """A word of squeue as a state; of an ended job the word itself is the reason."""
    state = STATES.get(word, State.ENDED)
    if state is State.WAITING:
        return JobState(state, "" if reason == "None" else reason)
    return JobState(state, "" if state is State.RUNNING else word.lower().replace("_", " "))


def _words(options: Mapping[str, Any]) -> list[str]:
    """The options of sbatch: `{gres: gpu:1}` as `--gres=gpu:1`, true as an option without a value, false as none."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items() if value is not False]


def _said(done: CompletedProcess[str]) -> str:
    """What a command printed, as one line."""
    return "; ".join((done.stderr.strip() or done.stdout.strip()).splitlines())


def _run(words: Sequence[str]) -> CompletedProcess[str]:
    return carried_out(words, "Slurm's commands, as on a cluster's login node")
