"""MLflow's server on PostgreSQL with artifacts on S3, as docs/store.md has it, that crash while a study is recorded there."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from ablation.tracking.store import Store
from benchmarks import faults
from tests.tiny import write

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
NEEDED = {name: find_spec(name) is not None for name in ("psycopg", "boto3", "moto", "flask_cors")}
NEEDED |= {"PostgreSQL": bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))}
MISSING = ", ".join(name for name, is_there in NEEDED.items() if not is_there)
pytestmark = [pytest.mark.engines, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")]

ARMS, SEEDS = ("base", "smooth"), (0, 1)
RUNS = {(arm, str(seed)) for arm in ARMS for seed in SEEDS}
OF_ONE_RECORD = {"run_id", "start", "end", "created", "command"}  # what two records of the same results need not share


class Servers:
    """PostgreSQL, an S3 and MLflow's server, started by our scripts in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.ports = Path(folder), free_ports(3)
        self.uri = f"http://127.0.0.1:{self.ports[0]}"
        self.coming = self._up()

    def _up(self):
        server, database, s3 = self.ports
        both = '"$0/postgresql-up.sh" "$1" "$3" && "$0/mlflow-server-up.sh" "$1" "$2" "$3" "$4"'
        words = ["bash", "-c", both, *map(str, (SCRIPTS, self.folder, server, database, s3))]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self):
        """Until all of them answer."""
        said, _ = self.coming.communicate(timeout=300)
        assert said.splitlines()[-1] == self.uri, said

    def start(self):
        """Start what has ended, and wait for it."""
        self.coming = self._up()
        self.wait()

    def kill_server(self):
        """End MLflow's server with its processes by SIGKILL."""
        os.killpg(int((self.folder / "mlflow.pid").read_text()), signal.SIGKILL)
        wait_until(lambda: not answers(self.ports[0]))

    def crash_database(self):
        """End PostgreSQL at once: nothing is written any more, and its next start begins with what its log holds."""
        running = self.folder / "data" / "postmaster.pid"
        os.kill(int(running.read_text().split()[0]), signal.SIGQUIT)
        wait_until(lambda: not running.exists())

    def close(self):
        """End all three."""
        self.coming.wait(timeout=300)
        subprocess.run([SCRIPTS / "store-down.sh", self.folder], check=True)


def free_ports(count):
    """Ports that nobody listens to, below those that the system gives to clients: one that is left for a while stays free."""
    ports = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def answers(port):
    """Whether somebody listens to it."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_so):
    """Until something is so, for a minute at most."""
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.02)
    raise TimeoutError


@pytest.fixture
def servers():
    """The servers, on their way. Not below pytest's own folder, which PostgreSQL's user may not enter."""
    folder = tempfile.mkdtemp(prefix="ablate-store-")
    started = Servers(folder)
    yield started
    started.close()
    shutil.rmtree(folder)


def finished(folder):
    """The keys of the runs whose results are complete in the folder."""
    return {path.parent.name for path in folder.glob("mlruns/results/*/result.json") if "." not in path.parent.name}


def predictions(folder):
    """The predictions of each finished run, by its key."""
    return {key: (folder / "mlruns" / "results" / key / "predictions.parquet").read_bytes() for key in finished(folder)}


def wait_for_another(folder, process):
    """Until one more run is finished in the folder."""
    before = finished(folder)
    while finished(folder) == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def signalled(processes, number):
    """Send them all a signal; those that have ended are passed over."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextlib.contextmanager
def frozen(process):
    """Its children stand still, as on a slow machine: the study that they train cannot end first."""
    children = process.children(recursive=True)
    signalled(children, signal.SIGSTOP)
    try:
        yield
    finally:
        signalled(children, signal.SIGCONT)


def run_through_outages(folder, servers):
    """`ablate run` whose database crashes as the first run is recorded, and whose server is killed at the second: status, out, err."""
    words = [sys.executable, "-m", "ablation", "run", "tiny.yaml", "--jobs", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": servers.uri, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as study:
        for end_one in (servers.crash_database, servers.kill_server):
            wait_for_another(folder, study)
            with frozen(psutil.Process(study.pid)):
                end_one()
                servers.start()
        out, err = study.communicate(timeout=300)
    return study.returncode, out, err


def comparable(value):
    """A report as JSON without what is of one record: ids of runs, and times."""
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if name not in OF_ONE_RECORD and not name.startswith("time/")}
        return {name: comparable(one) for name, one in kept.items() if name != "runs" or not isinstance(one, str)}
    return [comparable(one) for one in value] if isinstance(value, list) else value


def test_a_study_outlives_its_store(ablate, tmp_path, monkeypatch, servers):
    """Status 0, the table alone on stdout, each run recorded once, the bytes and the report of a record in a local database."""
    layers = {"seeds": list(SEEDS), "ladder": {"base": {}, "smooth": {"smoothing": {"epsilon": 0.2}}}}
    local, remote = ablate.folder, tmp_path / "remote"
    remote.mkdir()
    for folder in (local, remote):
        write(folder, **layers)
    done = ablate("run", "tiny.yaml")  # while the servers are on their way
    report = ablate("report", "tiny.yaml", "--format", "json")
    servers.wait()
    status, out, err = run_through_outages(remote, servers)
    assert (status, out) == (0, done.out), err
    assert "View run" not in out + err
    assert "%|" not in out + err  # of a progress bar
    assert faults.compared(local, remote, servers.uri) == []

    monkeypatch.chdir(remote)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.uri)
    store = Store.open(make=False)
    recorded = store.runs_of("tiny")
    assert {run["status"] for run in recorded} == {"FINISHED"}
    runs = [run for run in recorded if run["tags"]["ablation.kind"] == "run"]
    assert sorted((run["tags"]["ablation.arm"], run["tags"]["ablation.seed"]) for run in runs) == sorted(RUNS)
    stored = {run["tags"]["ablation.key"]: store.artifact(run["run_id"], "predictions.parquet").read_bytes() for run in runs}
    assert stored == predictions(remote) == predictions(local)
    again = ablate("report", "tiny.yaml", "--format", "json")
    assert comparable(json.loads(again.out)) == comparable(json.loads(report.out))
