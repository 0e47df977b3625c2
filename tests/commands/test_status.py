"""What `ablate status` and `ablate log` print, on lines of at most 100 letters."""

import json
import re

import pytest

from ablation.commands import status as command
from ablation.commands.last_run import note_last_run
from ablation.tracking.recorded import Point


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
