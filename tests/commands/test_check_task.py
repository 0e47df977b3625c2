"""`ablate check-task`: whether one's own training code repeats, also once it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ablation.commands import check_task
from ablation.tasks.own.checking import Trial, differences
from ablation.tracking.store import Store
from tests.own import FUNCTION, SCRIPT, write_command, write_function
from tests.tiny import write

ROOT = Path(__file__).parents[2]
FIRST = "two runs come out the same, bit for bit"
AT_ONCE = f"""
import io, os, pathlib, sys, time

sys.stdout = io.StringIO()
{SCRIPT}
os.write(1, sys.stdout.getvalue().encode())
with pathlib.Path("runs").open("a") as runs:
    runs.write("x")
if pathlib.Path("runs").stat().st_size == 3:  # the run that is stopped ends in no other way
    time.sleep(600)
"""
LOOP = '''
"""A loop that is stopped in the middle, and may go on."""

import json
import time


def train(run, *, epochs: int = 4, saves: bool = True, drift: float = 0.0, pause: float = 0.0):
    """A number that depends on all steps."""
    saved = run.latest("*.json")
    begun, value = json.loads(saved.read_text()) if saved else (0, 0.0)
    for epoch in range(begun + 1, epochs + 1):
        value = value * 0.9 + epoch + (drift if begun else 0)
        if saves:
            (run.checkpoints / "new").write_text(json.dumps([epoch, value]))
            (run.checkpoints / "new").rename(run.checkpoints / "last.json")
        run.log(epoch, {"value": value})
        time.sleep(pause)
    return {"test/mae": value}
'''
LOOPING = {"metrics": {"test/mae": {"better": "lower"}}, "ladder": {"baseline": {}}}


def checked(folder):
    """What is kept of the one check, without its day and its run."""
    (path,) = (folder / "mlruns" / "checks").iterdir()
    kept = json.loads(path.read_text())
    assert kept.pop("when")[:2] == "20"
    assert (kept.pop("arm"), kept.pop("seed"), len(kept.pop("key"))) == ("baseline", 0, 32)
    return kept


def leftover(folder):
    """The scratch folders beside the store."""
    return list((folder / "mlruns").glob("check-*"))


def test_code_that_repeats(own):
    """It is said in words, kept for the report, and nothing else is left or recorded."""
    done = own("check-task", write_function(own.folder), "--allow-code")
    assert (done.status, done.out.splitlines()[0]) == (0, "fun: baseline seed 0 (own_training:train)")
    assert FIRST in done.out
    assert checked(own.folder) == {"repeatable": True, "resumes": None}
    assert not leftover(own.folder)
    assert Store.open().runs_of("fun") == []
    assert not (own.folder / "mlruns" / "results").exists()


@pytest.mark.parametrize(("saves", "resumes"), [(True, True), (False, True), (True, False)])
def test_a_run_that_is_stopped(own, saves, resumes):
    """Resumed, or begun anew, it comes out the same; the file says which. It waits after half of its steps, however quick it is."""
    file = write_function(own.folder, LOOP, task={"function": "own_training:train", "resumes": resumes}, base={"saves": saves}, **LOOPING)
    done = own("check-task", file, "--allow-code")
    assert done.status == 0, (done.out, done.err)
    what = "resumed" if resumes else "began anew (the file does not say resumes: true)"
    assert f"stopped after 2 of 4 steps and {what} comes out the same" in done.out
    assert checked(own.folder) == {"repeatable": True, "resumes": True if resumes else None}


def test_a_command_that_prints_its_steps_at_once(own):
    """A stop after the last of them says nothing of one in the middle, and is no proof of what a stopped one comes to."""
    done = own("check-task", write_command(own.folder, AT_ONCE), "--allow-code")
    assert done.status == 0, (done.out, done.err)
    assert "a run logged its last step before it could be stopped" in done.out
    assert checked(own.folder) == {"repeatable": True, "resumes": None}


def test_resuming_to_other_numbers(own):
    """It says in which metric, and fails."""
    task = {"function": "own_training:train", "resumes": True}
    done = own("check-task", write_function(own.folder, LOOP, task=task, base={"drift": 0.5}, **LOOPING), "--allow-code")
    assert done.status == 1
    assert "and resumed differs: test/mae is 9.04" in done.out
    assert checked(own.folder) == {"repeatable": True, "resumes": False}


def test_code_that_does_not_repeat(own):
    """Which metric, by how much, which curve and which items."""
    code = FUNCTION.replace("/ step + lr}", "/ step + noise}").replace("(width) + lr +", "(width) + noise +")
    code = code.replace("    split =", "    import time\n    noise = time.time() % 1000\n    split =")
    done = own("check-task", write_function(own.folder, code), "--allow-code")
    assert done.status == 1
    for words in ("two runs differ: test/mae is ", " apart", "items.parquet differs", "the curve val/loss differs from step 1 on"):
        assert words in done.out
    assert checked(own.folder)["repeatable"] is False


def test_what_is_amiss_of_one_run_stays_until_that_run_repeats(own):
    """Another run that repeats says nothing of it; the report names the run, and one with other settings as such."""
    code = FUNCTION.replace("(width) + lr +", "(width) + lr + noise +")
    noise = "    import os, time\n    noise = 0.0 if lr < 0.2 or os.path.exists('quiet') else time.time() % 1000\n"
    code = code.replace("    split =", f"{noise}    split =")
    words = [write_function(own.folder, code), "--allow-code"]
    assert own("check-task", *words, "--set", "lr=0.5").status == 1
    done = own("check-task", *words)
    assert done.status == 0
    assert "what was found amiss of baseline seed 0 on 20" in done.out
    assert checked(own.folder)["repeatable"] is False
    (own.folder / "quiet").touch()
    assert own("check-task", *words, "--set", "lr=0.5").status == 0
    assert checked(own.folder)["repeatable"] is True
    assert own("run", *words).status == 0
    text = own("report", words[0], "--format", "markdown").out
    assert "A run of baseline with seed 0 and other settings gave the same numbers twice" in text


def test_a_command(own):
    """It is run as in the study; another arm and seed can be named."""
    done = own("check-task", write_command(own.folder), "--allow-code", "--arm", "wide", "--seed", "3")
    assert (done.status, done.out.splitlines()[0].partition(" (")[0]) == (0, "com: wide seed 3"), done.err
    assert FIRST in done.out


def test_what_fails_is_told_as_that_of_a_run(own):
    """With the exception and where it was raised; nothing is kept."""
    code = FUNCTION.replace("    split =", "    raise ValueError('no such file')\n    split =")
    done = own("check-task", write_function(own.folder, code), "--allow-code")
    assert (done.status, done.out) == (1, "")
    assert "fun: baseline seed 0 failed: ValueError: no such file" in done.err
    assert "own_training.py" in done.err
    assert not leftover(own.folder)
    assert not (own.folder / "mlruns" / "checks").exists()


def test_refusals(own):
    """A sentence each: code that is not allowed, no such arm, a study of images."""
    file = write_function(own.folder)
    assert "--allow-code lets it" in own("check-task", file).err
    assert "--arm: " in own("check-task", file, "--allow-code", "--arm", "base").err
    refused = own("check-task", write(own.folder))
    assert (refused.status, refused.err) == (
        2,
        f"error: FILE: {own.folder / 'tiny.yaml'} has no task; expected a study of one's own training code (for others: verify)\n",
    )
    assert not leftover(own.folder)


def test_long_runs_are_stopped_only_if_the_user_agrees(own, monkeypatch):
    """Else it says how to try it."""
    monkeypatch.setattr(check_task, "LONG", 0.0)
    file = write_function(own.folder)
    done = own("check-task", file, "--allow-code")
    assert done.status == 0
    assert "whether a stopped run comes out the same was not tried, since a run takes 0 min: --yes does" in done.out
    assert "was not tried, since" not in own("check-task", file, "--allow-code", "--yes").out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(own, number):
    """The run ends, its folder goes, and the status says so."""
    write_function(own.folder, LOOP, base={"epochs": 1000, "pause": 0.25}, **LOOPING)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "ablation", "check-task", "fun.yaml", "--allow-code"]
    process = subprocess.Popen(words, cwd=own.folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(own.folder.glob("mlruns/check-*/1/stages/*/try-*/out/curves.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing is kept of what was tried" in said
    assert not leftover(own.folder)
    assert str(own.folder) not in subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def test_what_a_killed_command_left_is_deleted(own):
    """By the next one, unless another is at work there."""
    for name in ("check-left", "check-busy"):
        (own.folder / "mlruns" / name / "1").mkdir(parents=True)
        (own.folder / "mlruns" / name / "lock").touch()
    with FileLock(own.folder / "mlruns" / "check-busy" / "lock"):
        assert own("check-task", write_command(own.folder), "--allow-code").status == 0
    assert [path.name for path in leftover(own.folder)] == ["check-busy"]


# --- what differs ------------------------------------------------------------------------------------------------------------------


def made(**changes):
    """A trial with these changes."""
    usual = {"metrics": {"test/mae": 1.0}, "curves": {(1, "loss"): 3.0, (2, "loss"): 2.0}, "tables": {"items.parquet": "a"}}
    return Trial(**(usual | {"same": {"split": "x"}, "steps": 2, "seconds": 1.0} | changes))


def test_equal_trials():
    """Times do not count."""
    assert differences(made(), made(seconds=9.0)) == []


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"metrics": {"test/mae": 1.25}}, "test/mae is 1.0 and 1.25, 0.25 apart"),
        ({"curves": {(1, "loss"): 3.0, (2, "loss"): 2.5}}, "the curve loss differs from step 2 on"),
        ({"curves": {(1, "loss"): 3.0}}, "the curve loss differs from step 2 on"),
        ({"tables": {}}, "items.parquet differs"),
        ({"same": {"split": "y"}}, "split is not the same"),
    ],
)
def test_each_difference_is_one_clause(changes, clause):
    """What it is, and where it begins."""
    assert differences(made(), made(**changes)) == [clause]


def test_a_resumed_run_tells_the_rest_of_its_curves():
    """What it told before is not missing; what it tells must be the same."""
    assert differences(made(), made(curves={(2, "loss"): 2.0}), is_resumed=True) == []
    assert differences(made(), made(curves={(2, "loss"): 2.5}), is_resumed=True) == ["the curve loss differs from step 2 on"]
