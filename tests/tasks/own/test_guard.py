"""Whoever is killed, and when: nothing is left running, and no result is there that is not whole."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablation.errors import TrainingError
from ablation.planning.jobs import Job
from ablation.running.executors.local import LocalExecutor
from ablation.study.task import OWN
from ablation.system import sealed
from ablation.tasks.own import guard
from tests.tasks.own.runs import alive, carry_out, done, failure, script, until
from tests.tasks.own.test_run import PRINTED

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is left"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # those of this process need not go on in the other
]

FAMILY = """
import subprocess, sys, time
if "deaf" in sys.argv:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = [sys.executable, "-c", "import time; time.sleep(60)", sys.argv[2]]
for new in (False, True):
    subprocess.Popen(below, start_new_session=new)
subprocess.run([sys.executable, "-c", "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)", *below])
time.sleep(0.3)
print("mae: 1.0")
"""
MOMENTS = random.Random(0)


def family(folder, *words, **definition):
    """A run with a child, one in a session of its own, and an orphan in one, all with the same mark."""
    return script(folder, FAMILY, f"mark-{folder.name}", *words, **{**PRINTED, "grace": 0.5, **definition})


def check_nothing_is_left(a_run, seconds=guard.HASTE + 10):
    """No process of the run, and no part of a result under its name."""
    until(lambda: not alive(f"mark-{a_run.definition.folder.name}"), seconds)
    folder = a_run.results / a_run.key
    assert not folder.exists() or sealed.is_whole(folder)


def kill(pids):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", [MOMENTS.uniform(0.0, 0.8) for _ in range(10)])
def test_a_worker_that_is_killed_leaves_nothing(tmp_path, moment):
    """Its guard ends what it guards; the run is done by the next one."""
    a_run = family(tmp_path)
    worker = multiprocessing.get_context("fork").Process(target=carry_out, args=(a_run,))
    worker.start()
    time.sleep(moment)
    kill([worker.pid])
    worker.join()
    check_nothing_is_left(a_run)
    assert done(a_run)["metrics"] == {"test/mae": 1.0}
    assert not list((a_run.stages / a_run.key).glob("try-*"))


def test_what_a_worker_left_that_was_killed_after_its_result_is_deleted(tmp_path):
    """Its folder, its checkpoints and its curves so far: else the run, done again, would go on from its own end."""
    a_run = family(tmp_path)
    done(a_run)
    folder = a_run.stages / a_run.key
    for name in ("try-1", "checkpoints", "checkpoints-2"):
        (folder / name).mkdir()
    (folder / "earlier.jsonl").touch()
    done(a_run)
    assert {path.name for path in folder.iterdir()} <= {"lock", "owner", "owner-lock", "processes"}


def test_a_deaf_run_ends_with_its_worker(tmp_path):
    a_run = family(tmp_path, "deaf")
    worker = multiprocessing.get_context("fork").Process(target=carry_out, args=(a_run,))
    worker.start()
    until(lambda: len(alive(f"mark-{tmp_path.name}")) >= 3)
    kill([worker.pid])
    worker.join()
    check_nothing_is_left(a_run)


def _kill_later(mark, which, moment):
    time.sleep(moment)
    kill(pid for pid in alive(mark) if which in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize("moment", [MOMENTS.uniform(0.05, 0.6) for _ in range(7)])
@pytest.mark.parametrize("which", ["guard.py", "train.py"])
def test_a_guard_or_a_run_that_is_killed_leaves_nothing(tmp_path, which, moment):
    """It is told as killed, unless it had ended before; what is below is ended all the same."""
    a_run = family(tmp_path)
    killer = multiprocessing.get_context("fork").Process(target=_kill_later, args=(f"mark-{tmp_path.name}", which, moment))
    killer.start()
    errors = []
    try:
        carry_out(a_run)
    except TrainingError as error:
        errors.append((error.kind, error.facts["exit"]))
    killer.join()
    assert errors in ([], [("killed", -signal.SIGKILL)])
    check_nothing_is_left(a_run, 5)
    assert done(a_run)["metrics"] == {"test/mae": 1.0}


COORDINATOR = """
import pickle, sys
from pathlib import Path
from ablation.planning.jobs import Job
from ablation.running.executors.local import LocalExecutor

if __name__ == "__main__":
    executor = LocalExecutor(["cpu"], 1, "own")
    executor.submit(pickle.loads(Path(sys.argv[1]).read_bytes()))
    print("submitted", flush=True)
    while True:
        for event in executor.events(0.2):
            print(event["kind"], flush=True)
"""


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.3])
def test_a_coordinator_that_is_killed_leaves_nothing(tmp_path, moment):
    """Its workers end with it, and their guards end what they guard."""
    import pickle

    a_run = family(tmp_path)
    (tmp_path / "coordinator.py").write_text(COORDINATOR)
    (tmp_path / "job").write_bytes(pickle.dumps(Job(a_run.key, "", "kind", (a_run.key,), OWN, a_run)))
    words = [sys.executable, str(tmp_path / "coordinator.py"), str(tmp_path / "job")]
    coordinator = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert coordinator.stdout.readline() == "submitted\n"
    assert coordinator.stdout.readline() == "started\n"
    time.sleep(moment)
    coordinator.kill()
    coordinator.wait()
    coordinator.stdout.close()
    check_nothing_is_left(a_run)
    until(lambda: not alive(str(tmp_path / "coordinator.py")))


def test_an_executor_runs_and_stops_own_code(tmp_path):
    """A worker sends what the scheduler waits for, and stops a run in the middle."""
    executor = LocalExecutor(["cpu"], 1, OWN)
    try:
        a_run = family(tmp_path)
        executor.submit(Job(a_run.key, "", "kind", (a_run.key,), OWN, a_run))
        assert _kinds(executor) == ["started", "result", "done"]
        a_run = script(tmp_path, "import time; time.sleep(60)", f"mark-{tmp_path.name}", "again", **PRINTED)
        sealed.clear_part(a_run.results / a_run.key)
        (a_run.results / a_run.key).rename(tmp_path / "first")
        executor.submit(Job(a_run.key, "", "kind", (a_run.key,), OWN, a_run))
        until(lambda: alive(f"mark-{tmp_path.name}"))
        executor.ask_to_stop()
        assert _kinds(executor) == ["started", "stopped"]
    finally:
        executor.close()
    check_nothing_is_left(a_run, 5)


def _kinds(executor):
    kinds = []
    deadline = time.monotonic() + 60
    while not set(kinds) & {"done", "stopped", "failed"}:
        assert time.monotonic() < deadline
        kinds += [event["kind"] for event in executor.events(0.2)]
    return kinds


def test_a_run_hears_what_its_worker_does_not(tmp_path):
    """Signals that a worker ignores and blocks reach the command."""
    text = """
import signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
ignored = [n for n in signal.valid_signals() if n not in (signal.SIGPIPE, 25) and signal.getsignal(n) == signal.SIG_IGN]
print("mae:", len(blocked) + len(ignored))
"""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        assert done(script(tmp_path, text, **PRINTED))["metrics"] == {"test/mae": 0.0}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)


def test_a_guard_that_hangs_is_killed(tmp_path, monkeypatch):
    """Where a guard cannot end its process in time, both are killed, and what is below."""
    monkeypatch.setattr("ablation.tasks.own.process.PATIENCE", 0.2)
    a_run = family(tmp_path, timeout=0.3, grace=0.1)

    def stop_guard():
        until(lambda: [pid for pid in alive(f"mark-{tmp_path.name}") if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text()])
        (pid, *_) = [pid for pid in alive(f"mark-{tmp_path.name}") if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(pid, signal.SIGSTOP)

    stopper = multiprocessing.get_context("fork").Process(target=stop_guard)
    stopper.start()
    assert failure(a_run).kind == "timeout"
    stopper.join()
    check_nothing_is_left(a_run, 5)
