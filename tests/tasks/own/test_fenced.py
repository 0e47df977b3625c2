"""A run of own code whose worker was given up and lives on: a later attempt goes on from its checkpoints, the orphan changes nothing."""

import sys

import pytest

from ablation.study.task import Fenced
from ablation.system import fencing
from ablation.tasks.own import run
from tests.fenced import NoLock, Orphan, contents, freeze
from tests.tasks.own.runs import alive, carry_out, result, script, until
from tests.tasks.own.test_run import PRINTED

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells that a process is frozen"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
# What is resumed ends at once, what is not goes on to write its state until it is ended.
RESUMED = """
import sys, time
from pathlib import Path
there = Path(sys.argv[2])
state = there / "state"
if state.exists():
    print("mae:", state.read_text())
    sys.exit()
for step in range(500):
    state.write_text("5")
    time.sleep(0.02)
"""


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    monkeypatch.setattr(fencing, "_identity", [])
    monkeypatch.setattr(run, "FENCE_TICK", 0.1)
    monkeypatch.setattr(run, "PATIENCE", 0.3)
    if request.param == "no locks":
        monkeypatch.setattr("filelock.FileLock", NoLock)


def resumed(folder):
    return script(folder, RESUMED, "{checkpoints}", f"mark-{folder.name}", **PRINTED, resumes=True)


def orphaned(a_run):
    """An attempt at a run that is given up once the run has kept a state; how it ends."""

    def work():
        state, is_over = a_run.stages / a_run.key / "checkpoints" / "state", []

        def should_stop():
            if state.exists() and not is_over:
                is_over.append(True)
                freeze()
            return False

        try:
            carry_out(a_run, should_stop=should_stop)
        except Fenced:
            return "fenced"
        return "done"

    return Orphan("owner", 1, work)


def test_a_run_is_taken_over(tmp_path, locks):
    """The orphan's own process goes on meanwhile: it writes where nobody looks any more, and ends when the orphan is let go."""
    a_run = resumed(tmp_path)
    with orphaned(a_run) as orphan:
        assert alive(f"mark-{tmp_path.name}")
        fencing.become("owner", 2)
        carry_out(a_run)
        assert result(a_run)["metrics"] == {"test/mae": 5.0}
        before = contents(tmp_path)
        assert orphan.let_go() == "fenced"
        until(lambda: not alive(f"mark-{tmp_path.name}"))
        assert contents(tmp_path) == before
