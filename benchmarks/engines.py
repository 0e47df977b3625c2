"""A study on a real Slurm of this machine, undisturbed and with what clusters do to jobs, held against the same study run by one process.

    python benchmarks/engines.py                     (the quick matrix's ladder, three seeds, in four parts)
    python benchmarks/engines.py --seeds 1 --epochs 6

Needs root and Slurm's packages, as scripts/slurm-up.sh says, which starts it. One after another: a node is killed, and the job on it goes
on as an orphan; a part is preempted; one is warned of its time limit; a worker is frozen, and its part cancelled and begun again; whoever
watches is killed, and another begins on another host (`unshare`); the rest is left to the queue, and collected. Then params, metrics,
curves and the bytes of predictions must be those of the undisturbed study, each run once, none RUNNING. Exit status 1 on any difference.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LADDER = ("baseline", "cb", "mixup", "ls", "tta", "decoupling")
PATIENCE = 900.0
NUM_PARTS = 4


class Campaign:
    """The study in a folder, with the Slurm that carries it out; without one, this machine does."""

    def __init__(self, folder: Path, seeds: int, epochs: int, slurm: Path | None) -> None:
        self.folder, self.slurm = folder, slurm
        folder.mkdir(parents=True)
        sites = {"slurm": {"parts": NUM_PARTS, "poll": 2, "jobs": 1, "device": "cpu"}}
        (folder / "executors.yaml").write_text(json.dumps(sites))
        (folder / "experiments.yaml").write_bytes((ROOT / "experiments.yaml").read_bytes())
        arms = [word for arm in LADDER for word in ("--arm", arm)]
        drawn = [word for seed in range(seeds) for word in ("--seed", str(seed))]
        self.words = ["run", "experiments.yaml", "--profile", "quick", "--device", "cpu", *arms, *drawn, "--set", f"epochs={epochs}"]
        self.words += ["--executor", "slurm"] if slurm else []
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.environment |= {"SLURM_CONF": str(slurm / "slurm.conf")} if slurm else {}
        self.told: list[str] = []

    def start(self, *words: str, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """The command under way; `before` are the words in front of it."""
        with (self.folder / "printed").open("ab") as output:
            command = [*before, sys.executable, "-m", "ablation", *self.words, *words]
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True)

    def call(self, *words: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(words, check=True, capture_output=True, text=True, env=self.environment).stdout.strip()

    def tell(self, text: str) -> None:
        """Note a step."""
        self.told.append(text)
        print(text, file=sys.stderr, flush=True)

    def logs(self, part: int) -> list[list[dict[str, Any]]]:
        """The lines of each attempt at a part."""
        paths = sorted(
            self.folder.glob(f"mlruns/parts/*/*/part-{part}.attempt-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])
        )
        texts = [path.read_text() for path in paths]
        return [[json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()] for text in texts]

    def until(self, what: Callable[[], Any]) -> Any:
        """What it gives once that is true."""
        began = time.monotonic()
        while not (found := what()):
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError((self.folder / "printed").read_text()[-3000:])
            time.sleep(0.2)
        return found

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


def node_killed(campaign: Campaign, part: int) -> Callable[[], None]:
    """Kill a part's node; what runs there hangs until the part trains elsewhere, and then goes on beside it."""
    engine, node, attempts, began = campaign.slurm, campaign.node_of(part), len(campaign.logs(part)), time.monotonic()
    assert engine is not None, campaign
    on_node = [other for other in range(1, NUM_PARTS + 1) if campaign.node_of(other) == node]
    orphans = [one for other in on_node for one in campaign.processes_of(other)]
    os.kill(int((engine / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
    for orphan in orphans:
        orphan.suspend()
    campaign.tell(f"node {node} killed, on which parts {', '.join(map(str, on_node))} were, of {len(orphans)} processes")

    def wait() -> None:
        campaign.until(lambda: campaign.trains(part, attempts + 1))
        campaign.tell(f"part {part} trained elsewhere {time.monotonic() - began:.0f} s after its node was killed")
        for orphan in orphans:
            orphan.resume()
        again = time.monotonic()
        campaign.until(lambda: not any(_lives(one) for one in orphans))
        campaign.tell(f"its orphans, let go beside it, ended by themselves after {time.monotonic() - again:.0f} s")
        subprocess.run(["slurmd", "-N", node, "-f", engine / "slurm.conf"], check=True)

    return wait


def preempted(campaign: Campaign, part: int) -> Callable[[], None]:
    """Let a more important job take a part's node."""
    attempts, began, node = len(campaign.logs(part)), time.monotonic(), campaign.node_of(part)
    campaign.call("sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    return lambda: _trains_again(campaign, part, attempts, began, "was preempted")


def warned(campaign: Campaign, part: int) -> Callable[[], None]:
    """Warn a part of its time limit, as Slurm does: it asks for its job again."""
    attempts, began = len(campaign.logs(part)), time.monotonic()
    campaign.call("scancel", "--batch", "--signal=USR1", campaign.job_of(part))
    return lambda: _trains_again(campaign, part, attempts, began, "was warned of its time limit")


def _trains_again(campaign: Campaign, part: int, attempts: int, began: float, why: str) -> None:
    campaign.until(lambda: campaign.trains(part, attempts + 1))
    campaign.tell(f"part {part} trained again {time.monotonic() - began:.0f} s after it {why}")


def frozen_and_cancelled(campaign: Campaign, part: int) -> Callable[[], None]:
    """Freeze a part's workers, and cancel its job, as one does who sees that nothing comes of it."""
    workers = campaign.processes_of(part)[1:]
    for worker in workers:
        worker.suspend()
    campaign.call("scancel", campaign.job_of(part))
    campaign.tell(f"{len(workers)} worker of part {part} frozen, and its job cancelled")
    return lambda: campaign.until(lambda: f"the job of part {part} was cancelled" in (campaign.folder / "printed").read_text())


def disturbed(campaign: Campaign) -> list[float]:
    """The study with all of this; of each part the seconds from its job's start to its first epoch."""
    watching, parts = campaign.start(), range(1, NUM_PARTS + 1)
    seconds = first_epochs(campaign)
    other, last = [part for part in parts if campaign.node_of(part) != campaign.node_of(1)][:2]
    lost, taken = node_killed(campaign, 1), preempted(campaign, other)  # each with all that runs there
    taken()
    campaign.until(lambda: campaign.trains(last, 2))
    for wait in (warned(campaign, other), frozen_and_cancelled(campaign, last), lost):
        wait()
    watching.kill()
    watching.wait()
    campaign.tell("whoever watched killed")
    elsewhere = campaign.start(before=["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"])
    campaign.until(lambda: campaign.trains(last, 3))
    campaign.tell(f"begun again on another host, which submitted part {last} again")
    elsewhere.kill()
    elsewhere.wait()
    if campaign.start("--detach").wait(PATIENCE):
        raise AssertionError((campaign.folder / "printed").read_text()[-3000:])
    campaign.until(lambda: not campaign.call("squeue", "--noheader", "--states=running,pending,completing"))
    campaign.tell("killed, too, and the rest left to the queue, in which all jobs have ended")
    collected(campaign)
    return seconds


def collected(campaign: Campaign) -> float:
    """The command, until it ends by itself; its seconds."""
    began = time.monotonic()
    if campaign.start().wait(PATIENCE):
        raise AssertionError((campaign.folder / "printed").read_text()[-3000:])
    campaign.tell(f"the command ended by itself after {time.monotonic() - began:.0f} s")
    return time.monotonic() - began


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


# --- figures ---------------------------------------------------------------------------------------------------------------------


def first_epochs(campaign: Campaign) -> list[float]:
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


def problems(reference: Path, found: Path) -> list[str]:
    """What differs between the two stores, with runs that are there twice or are left running."""
    from ablation.tracking.store import Store
    from benchmarks.faults import compared

    runs = Store.open(found / "mlruns").runs_of("reports.quick")
    names = Counter(
        (run["tags"]["ablation.arm"], run["tags"]["ablation.seed"]) for run in runs if run["tags"].get("ablation.kind") == "run"
    )
    told = [f"{' '.join(name)} is there {count} times" for name, count in names.items() if count > 1]
    told += [f"{run['name']} is {run['status']}" for run in runs if run["status"] in ("RUNNING", "SCHEDULED")]
    return [*told, *compared(reference, found)]


@contextlib.contextmanager
def slurm(folder: Path, port: int) -> Iterator[Path]:
    """A Slurm of our own, while this lasts."""
    try:
        subprocess.run([ROOT / "scripts" / "slurm-up.sh", folder, str(port)], check=True, stdout=sys.stderr)
        yield folder
    finally:
        subprocess.run([ROOT / "scripts" / "slurm-down.sh", folder], check=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry it out three times, print what was done and found, and keep the figures; 1 where anything differs."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.commands import hardware

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--port", type=int, default=27817, help="the first of five free ports")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, slurm(Path(name).resolve() / "slurm", args.port) as engine:
        folders = [Path(name).resolve() / one for one in ("local", "undisturbed", "disturbed")]
        local, calm, wild = [Campaign(one, args.seeds, args.epochs, engine if number else None) for number, one in enumerate(folders)]
        seconds = collected(local)
        calm_seconds = collected(calm)
        start_seconds = disturbed(wild)
        differences = {one.folder.name: problems(local.folder, one.folder) for one in (calm, wild)}
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "command": f"python benchmarks/engines.py --seeds {args.seeds} --epochs {args.epochs}",
        "runs": len(LADDER) * args.seeds,
        "seconds": {"by this machine": round(seconds), "by Slurm, undisturbed": round(calm_seconds)},
        "seconds from a part's start to the end of its first epoch": start_seconds,
        "done to jobs": wild.told,
        "differences": differences,
        "load": [round(value, 1) for value in os.getloadavg()],
        "seconds of all": round(time.monotonic() - began),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"engines-{result['date'][:10]}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(*wild.told, f"first epoch {median(start_seconds):.1f} s after a part's start (median)", sep="\n")
    print(*(f"{name}: {len(found)} differences {found}" for name, found in differences.items()), sep="\n")
    return 1 if any(differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
