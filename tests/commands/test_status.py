"""What `ablate status` and `ablate log` print, on lines of at most 100 letters."""

import json
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock

from ablation.commands import status as command
from ablation.commands.last_run import note_last_run
from ablation.errors import ConfigError
from ablation.tracking.recorded import Point
from tests.tiny import write


def test_an_epoch_of_many_curves_takes_several_lines():
    """No line is wider than 100 letters, and a name stays beside its number."""
    names = ["train/loss", "train/lr", *(f"val/curve_{i}" for i in range(12))]
    lines = command._epoch_text({name: Point(name, 0.5, 0, 3) for name in names}, 3).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 100
    assert re.findall(r"(\S+) 0\.5(?:\s|$)", "\n".join(lines)) == [name.removeprefix("train/") for name in sorted(names)]


def test_a_long_failure_is_wrapped(tmp_path):
    """What failed is told in full, on lines of at most 100 letters."""
    reason = "the training loss became nan in epoch 3 " * 8
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"pid": 1, "headline": "1/2 runs", "failed": [f"cb seed 0: {reason}"]}))
    lines = command._status_text(path, is_running=False).splitlines()
    assert max(map(len, lines)) <= 100
    assert " ".join(" ".join(lines[1:]).split()) == " ".join(f"failed: cb seed 0: {reason}".split())


@pytest.mark.parametrize(("then", "now", "is_told"), [("", "", True), ("", "http://server:5000", False), ("http://server:5000", "", False)])
def test_only_the_store_of_the_study_tells_that_it_was_deleted(folder, monkeypatch, then, now, is_told):
    """Not the folder's database where this shell names another store, or the study was last run with one."""
    monkeypatch.setattr(command, "is_deleted", lambda root, study: study == "tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", then)
    note_last_run(folder / "mlruns", folder / "tiny.yaml", None, "tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", now)
    path = folder / "tiny.json"
    path.write_text(json.dumps({"pid": 1, "headline": "1/2 runs"}))
    assert ("deleted in MLflow" in command._status_text(path, is_running=False)) == is_told


@pytest.mark.parametrize("before", [None, {"state": "ended"}, {"state": "running"}])
def test_a_study_that_is_being_planned_is_told(ablate, before):
    """Its lock is held, and what another process said of it before, if any did, is over; a process of that number is long gone."""
    told = ablate.folder / "mlruns" / "status" / "tiny.json"
    told.parent.mkdir()
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    about = {"pid": done.pid, "host": socket.gethostname(), "headline": "1/2 runs", "running": [], "failed": ["cb seed 0: nan"]}
    if before is not None:
        told.write_text(json.dumps(about | before))
    (ablate.folder / "mlruns" / "locks").mkdir(exist_ok=True)
    with FileLock(ablate.folder / "mlruns" / "locks" / "tiny.lock"):
        assert ablate("status").out == "tiny: running · plans what is to be done\n"
        told.write_text(json.dumps(about | {"pid": os.getpid(), "state": "ended"}))  # the rest of the record is written
        assert ablate("status").out.startswith(f"tiny: running (pid {os.getpid()}) · 1/2 runs\n")


def test_a_run_without_anything_to_do_is_the_last_word(ablate):
    """It had failed before, and is done since."""
    file = write(ablate.folder)
    assert ablate("run", file).status == 0
    told = ablate.folder / "mlruns" / "status" / "tiny.json"
    told.write_text(told.read_text().replace("1/1 runs", "0/1 runs, 1 failed"))
    assert ablate("run", file).epochs == 0
    assert "tiny: not running · 1/1 runs" in ablate("status").out


@pytest.mark.parametrize(("arm", "seeds"), [("cb", "0, 1"), ("focal", "none")])
def test_a_seed_of_another_arm_is_not_expected(monkeypatch, arm, seeds):
    """Each arm is told with its own seeds, which --arm and --seed may have made others than those of the plan."""
    runs = [{"arm": "baseline", "seed": 7}, {"arm": "cb", "seed": 0}, {"arm": "cb", "seed": 1}]
    plan = {"seeds": [7, 0, 1], "runs": runs, "arms": [{"name": name} for name in ("baseline", "cb", "focal")]}
    monkeypatch.setattr("ablation.commands.recorded.open_recorded", lambda *_: SimpleNamespace(study="tiny", plan=plan))
    with pytest.raises(ConfigError, match=f"SEED: found 7; expected one of the seeds of {arm} in the newest plan of tiny: {seeds}$"):
        command.log(arm, 7, None, None)
