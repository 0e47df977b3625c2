"""What is recorded of the inputs of one's own training code."""

import sys

import pytest

from ablation.planning.workspace import Workspace, short_inputs
from ablation.study.resolving import load_study
from ablation.system.digests import digest
from ablation.techniques.technique import allow_code
from tests.own import METRICS, PRINTED, imports_undone, write_command, write_function

UNKNOWN = "versions of packages are not known of this command's environment"


def inputs(folder, **task):
    """The inputs of the first run of a study with this in its task, as they are recorded."""
    file = write_function(folder, task={"function": "own_training:train", **task}, metrics=METRICS, ladder={"baseline": {}})
    with imports_undone():
        allow_code(folder)
        study = load_study(file)
        planner = study.task.prepare(study, Workspace(folder / "mlruns"), "cpu", lambda *_: None).planner
        return short_inputs(planner.inputs(study.arms[0], 0))


def test_a_long_input_is_recorded_by_its_digest(tmp_path):
    """Hundreds of classes and long variables leave room for the others in the tag; short ones are there as they are."""
    classes = [f"class number {i}" for i in range(200)]
    found = inputs(tmp_path, classes=classes, env={"PATH": "/usr/bin:" * 50})
    assert found["classes"] == digest(", ".join(classes))
    assert found["env"] == digest(f"PATH={'/usr/bin:' * 50}")
    assert found["threads"] == "1"
    short = inputs(tmp_path, classes=["cat", "dog"], env={"MODE": "fast"})
    assert (short["classes"], short["env"]) == ("cat, dog", "MODE=fast")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("{python} script.py --seed {seed} {args}", []),
        ("conda run -n other python script.py --seed {seed} {args}", [UNKNOWN]),
        ("bash -c 'python script.py | tee log' {seed} {args}", [UNKNOWN, "the shell hides a failure of any command but the last"]),
    ],
)
def test_what_a_plan_says_of_a_command(tmp_path, command, told):
    """What nobody would see otherwise."""
    words = command.replace("{python}", sys.executable)
    file = write_command(
        tmp_path, task={"command": words}, metrics=PRINTED, base={"width": 4, "lr": 0.1, "fast": False}, ladder={"baseline": {}}
    )
    study = load_study(file)
    planner = study.task.prepare(study, Workspace(tmp_path / "mlruns"), "cpu", lambda *_: None).planner
    assert [remark.startswith(words) for remark, words in zip(planner.remarks([]), told, strict=True)] == [True] * len(told)
