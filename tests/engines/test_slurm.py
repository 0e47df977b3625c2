"""Parts as jobs of a real Slurm with three nodes on this machine, and what clusters do to jobs: the bits and the record stay the same.

These tests take minutes, so that only ABLATE_ENGINES=all runs them; what the default run has of Slurm is in test_ladder.py.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.faults import compared
from tests import tiny
from tests.engines import slow
from tests.engines.slurm import COMMAND, WAIT, Cluster, needs_slurm, resume

pytestmark = [pytest.mark.slurm, needs_slurm, slow]
EPOCHS = 12
DECOUPLED = {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]}
LADDER = {"baseline": {}, "cb": {"sampler": "class_balanced"}, "decoupling": DECOUPLED, "mixup": {"mix": "mixup"}}


@pytest.fixture
def cluster(slurm, tmp_path, empty_database):
    """A study of dozens of short epochs, none of whose processes outlives the test."""
    made = Cluster(tmp_path, empty_database, slurm, study(tmp_path))
    yield made
    made.close()


def study(folder):
    """The words of a command that stand for it."""
    return [tiny.write(folder, base={"epochs": EPOCHS}, ladder=LADDER).name]


@pytest.fixture(scope="module")
def local(tmp_path_factory, empty_database):
    """The same study as one machine carries it out."""
    folder = tmp_path_factory.mktemp("local")
    status, printed = Cluster(folder, empty_database, {}, study(folder)).here()
    assert status == 0, printed
    return folder


def test_warned_preempted_and_cancelled(cluster, local):
    """One part is warned of its time limit, another preempted, the third cancelled by hand: two go on by themselves, one is left."""
    cluster.follow()
    held, job = cluster.hold(1, 2, 3), cluster.job
    cluster.call("scancel", f"{job}_3")
    cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_1")
    node = cluster.call("squeue", "--noheader", "--array", "--states=running", f"--jobs={job}_2", "--format=%N").strip()
    high = ["sbatch", "--parsable", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"]
    cluster.call(*high)
    cluster.until(lambda: "PreemptTime=None" not in cluster.call("scontrol", "show", "job", f"{job}_2"))
    resume(process for processes in held.values() for process in processes)
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


@pytest.mark.parametrize("how", ["once", "twice", "cancel"])
def test_users_end_it(cluster, how):
    """Ctrl-C once: the parts end after their epoch; twice, or by ablate cancel: the jobs are ended. No job is left."""
    watching = cluster.follow()
    held = cluster.hold(1)
    if how == "cancel":
        assert (
            f"tiny: ended (job {cluster.job})"
            in subprocess.run(
                [*COMMAND, "cancel"], cwd=cluster.folder, env=cluster.environment, capture_output=True, text=True, check=True
            ).stdout
        )
    else:
        watching.send_signal(signal.SIGINT)
        cluster.until(lambda: cluster.split.is_stopped)
    resume(held[1])
    if how == "twice":
        time.sleep(1)
        watching.send_signal(signal.SIGINT)
    assert watching.wait(WAIT) == 130, cluster.printed()
    cluster.until(lambda: not {"RUNNING", "PENDING", "COMPLETING"} & set(cluster.jobs().values()))
    assert "o go on: " in cluster.printed()
    if how == "once":
        assert '"status": 130' in (cluster.split.folder / "part-1.attempt-1.jsonl").read_text()


def test_a_node_dies_and_its_orphan_goes_on(cluster, local):
    """Slurm gives its job to another node; what the first still does is not written, and it ends by itself."""
    cluster.follow()
    orphans = cluster.hold(1)[1]
    node = cluster.call("squeue", "--noheader", "--array", "--states=running", f"--jobs={cluster.job}_1", "--format=%N").strip()
    pid = Path(cluster.environment["SLURM_CONF"]).with_name(f"slurmd.{node}.pid")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    cluster.until_trained(attempt=2)
    for orphan in orphans:
        orphan.resume()
    assert cluster.started[-1].wait(WAIT) == 0, cluster.printed()
    cluster.until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in orphans))
    assert compared(local, cluster.folder) == []
    subprocess.run(["slurmd", "-N", node, "-f", cluster.environment["SLURM_CONF"]], check=True)
