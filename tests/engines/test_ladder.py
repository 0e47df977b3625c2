"""The quick matrix's ladder by processes of this machine, by three parts and by Slurm: the same bytes and the same record.

By Ray it is in tests/running/executors/test_ray.py.
"""

import pytest

from ablation.running.parts.split import splits
from benchmarks.campaign import problems
from tests import ladder
from tests.engines import everything
from tests.engines.slurm import WAIT, WHY_NOT, Cluster, needs_slurm

NAME = "reports.quick"
ELSEWHERE = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]


@pytest.mark.skipif(not WHY_NOT and not everything, reason="Slurm is here, and has three parts too; ABLATE_ENGINES=all runs both")
def test_by_three_parts(ladder_here, tmp_path, empty_database):
    """Each by a command of its own, all at once; the next one records them, and trains nothing."""
    study = Cluster(tmp_path, empty_database, {}, ladder.write(tmp_path))
    parts = [study.start("run", *study.study, "--device", "cpu", "--jobs", "1", "--part", f"{part}/3") for part in (1, 2, 3)]
    assert [part.wait(WAIT) for part in parts] == [0, 0, 0], study.printed()
    status, printed = study.here()
    assert status == 0, printed
    assert ": epoch " not in printed
    assert problems(ladder_here, tmp_path) == []


@pytest.mark.slurm
@needs_slurm
def test_by_slurm(ladder_here, slurm, tmp_path, empty_database):
    """Submitted and left alone; watched by a process that is killed; recorded from another host. The same bytes, each run once."""
    cluster = Cluster(tmp_path, empty_database, slurm, ladder.write(tmp_path))
    try:
        status, printed = cluster.by_slurm("--detach")
        assert status == 0, printed
        assert f"3 parts of {NAME} submitted (job {cluster.job})" in printed
        assert f"{NAME}: job {cluster.job}: " in cluster.run("status")[1]
        watching = cluster.follow()
        cluster.until_trained()
        watching.kill()
        status, printed = cluster.by_slurm(before=ELSEWHERE)
        assert status == 0, printed
        assert problems(ladder_here, tmp_path) == []
        cluster.until(lambda: not cluster.call("squeue", "--noheader", "--states=running,pending,completing"))
        status, printed = cluster.by_slurm()  # the folders go once their jobs have ended
        assert status == 0, printed
        assert splits(tmp_path / "mlruns" / "parts") == []
    finally:
        cluster.close()
