"""What campaigns on engines share: a study and its command, a store that is killed for a while, what differs in the end, the figures."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.commands import hardware
from benchmarks.faults import compared, opened

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRIPTS = ROOT / "scripts"
LADDER = ("baseline", "cb", "mixup", "ls", "tta", "decoupling")
STUDY = "reports.quick"
PATIENCE = 1200.0  # seconds after which something does not come any more
AWAY = 20.0  # seconds for which the store is away at the least
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")  # before a command: another host's name


class Servers:
    """MLflow's server on PostgreSQL, with artifacts on S3, by our scripts in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.ports = folder, [str(port + number) for number in range(3)]
        self.uri = f"http://127.0.0.1:{port}"

    def up(self) -> None:
        """Start what has ended, and wait until all answer."""
        server, database, s3 = self.ports
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for words in (("postgresql-up.sh", self.folder, database), ("mlflow-server-up.sh", self.folder, server, database, s3)):
            subprocess.run([SCRIPTS / words[0], *words[1:]], check=True, env=environment, stdout=sys.stderr)

    def kill(self) -> None:
        """End the server and PostgreSQL with all their processes by SIGKILL; the S3 goes on, which has all in memory."""
        os.killpg(int((self.folder / "mlflow.pid").read_text()), signal.SIGKILL)
        database = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        processes = [database, *database.children(recursive=True)]
        signalled(processes, signal.SIGKILL)
        psutil.wait_procs(processes, 30)

    def down(self) -> None:
        """End all."""
        subprocess.run([SCRIPTS / "store-down.sh", self.folder], check=False)


class Campaign:
    """The study in a folder; it is recorded there, or by these servers."""

    def __init__(self, folder: Path, args: argparse.Namespace, options: Sequence[str] = (), servers: Servers | None = None) -> None:
        self.folder, self.servers, self.told = folder, servers, list[str]()
        self.started = list["subprocess.Popen[bytes]"]()
        self.address = servers.uri if servers else ""
        folder.mkdir(parents=True)
        (folder / "experiments.yaml").write_bytes((ROOT / "experiments.yaml").read_bytes())
        arms = [word for arm in LADDER for word in ("--arm", arm)]
        drawn = [word for seed in range(args.seeds) for word in ("--seed", str(seed))]
        self.words = ["run", "experiments.yaml", "--profile", "quick", "--device", "cpu", *arms, *drawn, "--set", f"epochs={args.epochs}"]
        self.words += options
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.environment |= {"MLFLOW_TRACKING_URI": self.address} if servers else {}

    def start(self, *words: str, before: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """The command under way; `before` are the words in front of it."""
        with (self.folder / "printed").open("ab") as output:
            command = [*before, sys.executable, "-m", "ablation", *self.words, *words]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True)
        self.started.append(process)
        return process

    @property
    def printed(self) -> str:
        """What the commands have printed."""
        return (self.folder / "printed").read_text()

    def tell(self, text: str) -> None:
        """Note a step."""
        self.told.append(text)
        print(text, file=sys.stderr, flush=True)

    def until(self, what: Callable[[], Any]) -> Any:
        """What it gives once that is true."""
        began = time.monotonic()
        while not (found := what()):
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(self.printed[-3000:])
            time.sleep(0.2)
        return found

    def num_ended(self) -> int:
        """How many runs have their results."""
        return len(list(self.folder.glob("mlruns/results/*/result.json")))

    def collect(self, *, before: Sequence[str] = ()) -> float:
        """Give the command, which must end well by itself; its seconds."""
        began = time.monotonic()
        self.ends(self.start(before=before))
        self.tell(f"the command ended by itself after {time.monotonic() - began:.0f} s")
        return time.monotonic() - began

    def ends(self, process: "subprocess.Popen[bytes]", status: int = 0) -> None:
        """Wait for the end of a command, with this exit status."""
        if process.wait(PATIENCE) != status:
            raise AssertionError(f"exit status {process.returncode}: {self.printed[-3000:]}")


def problems(expected: Path, found: Path, address: str = "") -> list[str]:
    """What differs between two folders' records, with runs that are there twice or left running; `address` is the second one's store."""
    runs = opened(found, address).runs_of(STUDY)
    names = Counter(
        (run["tags"]["ablation.arm"], run["tags"]["ablation.seed"]) for run in runs if run["tags"].get("ablation.kind") == "run"
    )
    told = [f"{' '.join(name)} is there {count} times" for name, count in names.items() if count > 1]
    told += [f"{run['name']} is {run['status']}" for run in runs if run["status"] in ("RUNNING", "SCHEDULED")]
    return [*told, *compared(expected, found, address)]


# --- what is done to any of them ---------------------------------------------------------------------------------------------------


def store_killed(campaign: Campaign) -> Callable[[], None]:
    """Kill PostgreSQL and MLflow's server; what starts them again, once runs have ended meanwhile that cannot be recorded."""
    servers, ended, began = campaign.servers, campaign.num_ended(), time.monotonic()
    assert servers is not None, campaign.folder
    servers.kill()

    def wait() -> None:
        campaign.until(lambda: time.monotonic() - began > AWAY and campaign.num_ended() > ended)
        more = campaign.num_ended() - ended
        servers.up()
        campaign.tell(f"PostgreSQL and MLflow's server killed, and away for {time.monotonic() - began:.0f} s, in which {more} runs ended")

    return wait


def let_go(campaign: Campaign, orphans: Sequence[psutil.Process]) -> None:
    """Let processes go on that hung, and wait until they have ended by themselves."""
    lived, began = [one for one in orphans if lives(one)], time.monotonic()
    signalled(lived, signal.SIGCONT)
    campaign.until(lambda: not any(lives(one) for one in lived))
    seconds = time.monotonic() - began
    campaign.tell(
        f"its {len(lived)} orphans, let go beside it, ended by themselves after {seconds:.0f} s" if lived else "no orphan lived on"
    )


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def signalled(processes: Sequence[psutil.Process], number: int) -> None:
    """Send them all a signal; those that have ended are passed over."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


# --- the course of a campaign ------------------------------------------------------------------------------------------------------


def arguments(text: str, argv: Sequence[str] | None, epochs: int) -> argparse.Namespace:
    """The options that all have; `epochs` are those of each run where nothing is said."""
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--port", type=int, default=27817, help="the first of eight free ports")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    return parser.parse_args(argv)


@contextlib.contextmanager
def workplace(port: int) -> Iterator[tuple[Path, Servers]]:
    """A folder for all, and the servers in it."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)  # PostgreSQL's user has to enter it
        servers = Servers(folder / "store", port)
        try:
            servers.up()
            yield folder, servers
        finally:
            servers.down()


def carried_out(
    kind: str,
    args: argparse.Namespace,
    local: Campaign,
    wild: Campaign,
    disturbed: Callable[[], Mapping[str, Any]],
    calm: Sequence[Campaign] = (),
) -> dict[str, Any]:
    """What comes of the study by an engine that is `disturbed`, by this machine, and by the engine where nothing is done to it."""
    began = time.monotonic()
    load, more = [round(os.getloadavg()[0], 1)], disturbed()  # what goes wrong there is known first
    seconds = {f"by {kind}, disturbed": round(time.monotonic() - began)}
    load.append(round(os.getloadavg()[0], 1))
    seconds |= {"by this machine": round(local.collect())}
    seconds |= {f"by {kind}, {one.folder.name}": round(one.collect()) for one in calm}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "command": f"python {Path(sys.argv[0]).parent.name}/{Path(sys.argv[0]).name} --seeds {args.seeds} --epochs {args.epochs}",
        "runs": len(LADDER) * args.seeds,
        "seconds": seconds,
        **more,
        "done": wild.told,
        "differences": {one.folder.name: problems(local.folder, one.folder, one.address) for one in (wild, *calm)},
        "load": [*load, round(os.getloadavg()[0], 1)],
        "seconds of all": round(time.monotonic() - began),
    }


def keep(name: str, args: argparse.Namespace, result: Mapping[str, Any]) -> int:
    """Write the figures down, and print what was done and found; 1 where anything differs."""
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{name}-{result['date'][:10]}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(*result["done"], sep="\n")
    print(*(f"{name}: {len(found)} differences {found}" for name, found in result["differences"].items()), sep="\n")
    return 1 if any(result["differences"].values()) else 0
