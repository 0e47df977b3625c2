"""Parts as jobs of a real Slurm with three nodes on this machine, and what clusters do to jobs: the bits and the record stay the same.

The default run has what takes seconds. With ABLATE_ENGINES=all a node is killed too, whose loss Slurm notices after a while.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ablation.running.parts.split import splits
from benchmarks.faults import compared
from tests import tiny

ROOT = Path(__file__).parents[2]
PROGRAMS = ("sbatch", "squeue", "scancel", "slurmctld", "slurmd", "munged")
MISSING = [name for name in PROGRAMS if not shutil.which(name)]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed ({', '.join(MISSING)})"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Slurm of our own needs root"),
]
SLOW = pytest.mark.skipif(os.environ.get("ABLATE_ENGINES") != "all", reason="takes half a minute or more; ABLATE_ENGINES=all runs it")
COMMAND = [sys.executable, "-m", "ablation"]
WAIT, EPOCHS = 180.0, 12
DECOUPLED = {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}
LADDER = {"baseline": {}, "cb": {"sampler": "class_balanced"}, "decoupling": DECOUPLED, "mixup": {"mix": "mixup"}}


def free_ports():
    """The first of five ports that nothing listens on."""
    for port in range(27017, 30000, 10):
        with socket.socket() as one, socket.socket() as other:
            if one.connect_ex(("127.0.0.1", port)) and other.connect_ex(("127.0.0.1", port + 3)):
                return port
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of its own, as environment."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([ROOT / "scripts" / "slurm-up.sh", folder, str(free_ports())], check=True, timeout=60)
        yield {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run([ROOT / "scripts" / "slurm-down.sh", folder], check=False, timeout=60)


class Cluster:
    """A folder with the study, and its commands there."""

    def __init__(self, folder, database, environment, epochs):
        self.folder = folder
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
        self.file = tiny.write(folder, base={"epochs": epochs}, ladder=LADDER)
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

    def by_slurm(self, *words, before=()):
        return self.run("run", "tiny.yaml", "--device", "cpu", "--executor", "slurm", *words, before=before)

    def follow(self):
        return self.start("run", "tiny.yaml", "--device", "cpu", "--executor", "slurm")

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
            time.sleep(0.1)

    def trained(self, part, attempt=1):
        """Whether an epoch of this attempt at the part is told in its log."""
        path = self.split.folder / f"part-{part}.attempt-{attempt}.jsonl"
        return path.exists() and '"epoch"' in path.read_text()

    def until_trained(self, part=1, attempt=1):
        self.until(lambda: splits(self.folder / "mlruns" / "parts") and self.trained(part, attempt))

    def processes(self):
        """The processes of jobs that work in the folder."""
        found = [one for one in psutil.process_iter(["cmdline"]) if "--part" in (one.info["cmdline"] or [])]
        return [one for one in found if str(self.file.resolve()) in one.info["cmdline"] and one.info["cmdline"][0] != "/bin/bash"]


@pytest.fixture
def cluster(slurm, tmp_path, empty_database):
    """A study of dozens of short epochs, none of whose processes outlives the test."""
    made = Cluster(tmp_path, empty_database, slurm, epochs=EPOCHS)
    yield made
    made.call("scancel", "--user=root", "--full", "--signal=KILL")
    made.call("scancel", "--user=root")
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.wait()
    made.until(lambda: not made.processes())


@pytest.fixture(scope="module")
def local(tmp_path_factory, empty_database):
    """The same study as one machine carries it out."""
    made = Cluster(tmp_path_factory.mktemp("local"), empty_database, {}, epochs=EPOCHS)
    status, printed = made.run("run", "tiny.yaml", "--device", "cpu")
    assert status == 0, printed
    return made.folder


def test_detached_killed_and_collected_elsewhere(cluster, local):
    """Submitted and left alone; watched by a process that is killed; recorded from another host. The same bytes, each run once."""
    status, printed = cluster.by_slurm("--detach")
    assert status == 0, printed
    assert f"3 parts of tiny submitted (job {cluster.job})" in printed
    assert f"tiny: job {cluster.job}: " in cluster.run("status")[1]
    watching = cluster.follow()
    cluster.until_trained()
    watching.kill()
    status, printed = cluster.by_slurm(before=["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"])
    assert status == 0, printed
    assert compared(local, cluster.folder) == []
    deadline = time.monotonic() + WAIT
    while cluster.call("squeue", "--noheader", "--states=running,pending,completing") and time.monotonic() < deadline:
        time.sleep(0.5)
    status, printed = cluster.by_slurm()  # the folders go once their jobs have ended
    assert status == 0, printed
    assert splits(cluster.folder / "mlruns" / "parts") == []


@SLOW
def test_warned_preempted_and_cancelled(cluster, local):
    """One part is warned of its time limit, another preempted, the third cancelled by hand: two go on by themselves, one is left."""
    cluster.follow()
    for part in (1, 2, 3):
        cluster.until_trained(part)
    job = cluster.job
    cluster.call("scancel", f"{job}_3")
    cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_1")
    node = cluster.call("squeue", "--noheader", "--array", "--states=running", f"--jobs={job}_2", "--format=%N").strip()
    high = ["sbatch", "--parsable", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    cluster.call(*high)
    status = cluster.started[-1].wait(WAIT)
    printed = cluster.printed()
    assert status == 130, printed
    assert f"the job of part 3 was cancelled ({job})" in printed
    for part in (1, 2):
        assert (cluster.split.folder / f"part-{part}.attempt-2.jsonl").exists(), printed
    status, printed = cluster.by_slurm()
    assert status == 0, printed
    assert "submitted 1 part (3) as job" in printed
    assert compared(local, cluster.folder) == []


@pytest.mark.parametrize("how", ["once", pytest.param("twice", marks=SLOW), pytest.param("cancel", marks=SLOW)])
def test_users_end_it(cluster, how):
    """Ctrl-C once: the parts end after their epoch; twice, or by ablate cancel: the jobs are ended. No job is left."""
    watching = cluster.follow()
    cluster.until_trained()
    if how == "cancel":
        assert (
            f"tiny: ended (job {cluster.job})"
            in subprocess.run(
                [*COMMAND, "cancel"], cwd=cluster.folder, env=cluster.environment, capture_output=True, text=True, check=True
            ).stdout
        )
    else:
        watching.send_signal(signal.SIGINT)
    if how == "twice":
        time.sleep(1)
        watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 130, cluster.printed()
    cluster.until(lambda: not {"RUNNING", "PENDING", "COMPLETING"} & set(cluster.jobs().values()))
    assert "o go on: " in cluster.printed()
    if how == "once":
        assert '"status": 130' in (cluster.split.folder / "part-1.attempt-1.jsonl").read_text()


@SLOW
def test_a_node_dies_and_its_orphan_goes_on(cluster, local):
    """Slurm gives its job to another node; what the first still does is not written, and it ends by itself."""
    cluster.follow()
    cluster.until_trained()
    node = cluster.call("squeue", "--noheader", "--array", "--states=running", f"--jobs={cluster.job}_1", "--format=%N").strip()
    pid = Path(cluster.environment["SLURM_CONF"]).with_name(f"slurmd.{node}.pid")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    orphans = [one for one in cluster.processes() if "1/3" in one.cmdline()]
    for orphan in orphans:
        orphan.suspend()
    cluster.until_trained(attempt=2)
    for orphan in orphans:
        orphan.resume()
    assert cluster.started[-1].wait(WAIT) == 0, cluster.printed()
    cluster.until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in orphans))
    assert compared(local, cluster.folder) == []
    subprocess.run(["slurmd", "-N", node, "-f", cluster.environment["SLURM_CONF"]], check=True)
