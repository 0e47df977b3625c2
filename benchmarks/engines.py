"""A study on a real Slurm of this machine, undisturbed and with what clusters do to jobs, held against the same study run by one process.

    python benchmarks/engines.py                     (the quick matrix's ladder, three seeds, in four parts)
    python benchmarks/engines.py --seeds 1 --epochs 6

Needs root and Slurm's packages, as scripts/slurm-up.sh says, which starts it, and for the record of the disturbed study PostgreSQL and the
group "engines" of pyproject.toml. One after another: a node is killed, and the job on it goes on as an orphan; a part is preempted; one is
warned of its time limit; a worker is frozen, and its part cancelled and begun again; PostgreSQL and MLflow's server are killed for a while;
whoever watches is killed, and another begins on another host (`unshare`); the rest is left to the queue, and collected. Then params,
metrics, curves and the bytes of predictions must be those of the undisturbed study, each run once, none RUNNING. Exit status 1 on any
difference.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.campaign import (
    ELSEWHERE,
    SCRIPTS,
    Campaign,
    Servers,
    arguments,
    carried_out,
    keep,
    let_go,
    signalled,
    store_killed,
    workplace,
)

NUM_PARTS = 4


class SlurmCampaign(Campaign):
    """The study, and the Slurm that carries it out."""

    def __init__(self, folder: Path, args: argparse.Namespace, slurm: Path, servers: Servers | None = None) -> None:
        super().__init__(folder, args, ("--executor", "slurm"), servers)
        self.slurm = slurm
        sites = {"slurm": {"parts": NUM_PARTS, "poll": 2, "jobs": 1, "device": "cpu"}}
        (folder / "executors.yaml").write_text(json.dumps(sites))
        self.environment |= {"SLURM_CONF": str(slurm / "slurm.conf")}

    def call(self, *words: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(words, check=True, capture_output=True, text=True, env=self.environment).stdout.strip()

    def logs(self, part: int) -> list[list[dict[str, Any]]]:
        """The lines of each attempt at a part."""
        paths = sorted(
            self.folder.glob(f"mlruns/parts/*/*/part-{part}.attempt-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])
        )
        texts = [path.read_text() for path in paths]
        return [[json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()] for text in texts]

    def trains(self, part: int, attempt: int) -> bool:
        """Whether this attempt at a part has ended an epoch, and has not ended."""
        logs = self.logs(part)
        return len(logs) >= attempt and any(line["kind"] == "epoch" for line in logs[-1])

    def job_of(self, part: int) -> str:
        """The job that a part has, as Slurm names it."""
        jobs = json.loads(next(self.folder.glob("mlruns/parts/*/*/jobs.json")).read_text())["submitted"]
        return f"{[job['id'] for job in jobs if part in job['parts']][-1]}_{part}"

    def node_of(self, part: int) -> str:
        """The node on which it runs."""
        return self.call("squeue", "--noheader", "--array", "--states=running", f"--jobs={self.job_of(part)}", "--format=%N")

    def processes_of(self, part: int) -> list[psutil.Process]:
        """The processes of a part: its own, then its workers."""
        for one in psutil.process_iter(["cmdline", "cwd"]):
            words = one.info["cmdline"] or []
            if f"{part}/{NUM_PARTS}" in words and "--part" in words and one.info["cwd"] == str(self.folder):
                return [one, *(child for child in one.children(recursive=True) if "resource_tracker" not in " ".join(child.cmdline()))]
        return []


# --- what clusters do: each is done at once, and gives back how to wait for what comes of it ---------------------------------------


def node_killed(campaign: SlurmCampaign, part: int) -> Callable[[], None]:
    """Kill a part's node; what runs there hangs until the part trains elsewhere, and then goes on beside it."""
    engine, node, attempts, began = campaign.slurm, campaign.node_of(part), len(campaign.logs(part)), time.monotonic()
    on_node = [other for other in range(1, NUM_PARTS + 1) if campaign.node_of(other) == node]
    orphans = [one for other in on_node for one in campaign.processes_of(other)]
    os.kill(int((engine / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
    signalled(orphans, signal.SIGSTOP)
    campaign.tell(f"node {node} killed, on which parts {', '.join(map(str, on_node))} were, of {len(orphans)} processes")

    def wait() -> None:
        campaign.until(lambda: campaign.trains(part, attempts + 1))
        campaign.tell(f"part {part} trained elsewhere {time.monotonic() - began:.0f} s after its node was killed")
        let_go(campaign, orphans)
        subprocess.run(["slurmd", "-N", node, "-f", engine / "slurm.conf"], check=True)

    return wait


def preempted(campaign: SlurmCampaign, part: int) -> Callable[[], None]:
    """Let a more important job take a part's node."""
    attempts, began, node = len(campaign.logs(part)), time.monotonic(), campaign.node_of(part)
    campaign.call("sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    return lambda: _trains_again(campaign, part, attempts, began, "was preempted")


def warned(campaign: SlurmCampaign, part: int) -> Callable[[], None]:
    """Warn a part of its time limit, as Slurm does: it asks for its job again."""
    attempts, began = len(campaign.logs(part)), time.monotonic()
    campaign.call("scancel", "--batch", "--signal=USR1", campaign.job_of(part))
    return lambda: _trains_again(campaign, part, attempts, began, "was warned of its time limit")


def _trains_again(campaign: SlurmCampaign, part: int, attempts: int, began: float, why: str) -> None:
    campaign.until(lambda: campaign.trains(part, attempts + 1))
    campaign.tell(f"part {part} trained again {time.monotonic() - began:.0f} s after it {why}")


def frozen_and_cancelled(campaign: SlurmCampaign, part: int) -> Callable[[], None]:
    """Freeze a part's workers, and cancel its job, as one does who sees that nothing comes of it."""
    workers = campaign.processes_of(part)[1:]
    signalled(workers, signal.SIGSTOP)
    campaign.call("scancel", campaign.job_of(part))
    campaign.tell(f"{len(workers)} worker of part {part} frozen, and its job cancelled")
    return lambda: campaign.until(lambda: f"the job of part {part} was cancelled" in campaign.printed)


def disturbed(campaign: SlurmCampaign) -> dict[str, Any]:
    """The study with all of this; of each part the seconds from its job's start to its first epoch."""
    watching, parts = campaign.start(), range(1, NUM_PARTS + 1)
    seconds = first_epochs(campaign)
    other, last = [part for part in parts if campaign.node_of(part) != campaign.node_of(1)][:2]
    lost, taken = node_killed(campaign, 1), preempted(campaign, other)  # each with all that runs there
    taken()
    campaign.until(lambda: campaign.trains(last, 2))
    for wait in (warned(campaign, other), frozen_and_cancelled(campaign, last), store_killed(campaign), lost):
        wait()
    watching.kill()
    watching.wait()
    campaign.tell("whoever watched killed")
    elsewhere = campaign.start(before=ELSEWHERE)
    campaign.until(lambda: campaign.trains(last, 3))
    campaign.tell(f"begun again on another host, which submitted part {last} again")
    elsewhere.kill()
    elsewhere.wait()
    campaign.ends(campaign.start("--detach"))
    campaign.until(lambda: not campaign.call("squeue", "--noheader", "--states=running,pending,completing"))
    campaign.tell("killed, too, and the rest left to the queue, in which all jobs have ended")
    campaign.collect()
    return {"seconds from a part's start to the end of its first epoch": seconds}


# --- figures ---------------------------------------------------------------------------------------------------------------------


def first_epochs(campaign: SlurmCampaign) -> list[float]:
    """Of each part the seconds from its job's start, as Slurm has it, until its first epoch has ended, once all have."""
    seconds = dict[int, float]()

    def all_train() -> bool:
        for part in range(1, NUM_PARTS + 1):
            if part not in seconds and campaign.trains(part, 1):
                start = campaign.call("squeue", "--noheader", "--array", f"--jobs={campaign.job_of(part)}", "--format=%S")
                seconds[part] = round(time.time() - datetime.fromisoformat(start).timestamp(), 1)
        return len(seconds) == NUM_PARTS

    campaign.until(all_train)
    return [seconds[part] for part in sorted(seconds)]


@contextlib.contextmanager
def slurm(folder: Path, port: int) -> Iterator[Path]:
    """A Slurm of our own, while this lasts."""
    try:
        subprocess.run([SCRIPTS / "slurm-up.sh", folder, str(port)], check=True, stdout=sys.stderr)
        yield folder
    finally:
        subprocess.run([SCRIPTS / "slurm-down.sh", folder], check=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry it out three times, print what was done and found, and keep the figures; 1 where anything differs."""
    args = arguments(__doc__ or "", argv, epochs=40)
    with workplace(args.port) as (folder, servers), slurm(folder / "slurm", args.port + 3) as engine:
        calm, wild = SlurmCampaign(folder / "undisturbed", args, engine), SlurmCampaign(folder / "disturbed", args, engine, servers)
        result = carried_out("Slurm", args, Campaign(folder / "local", args), wild, lambda: disturbed(wild), [calm])
    return keep("engines", args, result)


if __name__ == "__main__":
    sys.exit(main())
