"""Recorded runs of one's own code are kept only where no setting has another value than it had."""

import pytest

from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedRun, RecordedState
from ablation.planning.workspace import Workspace
from ablation.study.params import params
from ablation.study.resolving import load_study
from ablation.techniques.technique import allow_code
from tests.own import FUNCTION, imports_undone, write_command, write_function


def planned(folder, code, past=(), rerun="", status="FINISHED", kind=""):
    """The first run of a study of this code, and the same run as the store has it once it is finished."""
    return of_file(folder, write_function(folder, code, ladder={"baseline": {}}), past, rerun, status, kind)


def of_file(folder, file, past=(), rerun="", status="FINISHED", kind=""):
    """The same of a file."""
    with imports_undone():
        allow_code(folder)
        study = load_study(file)
        preparation = study.task.prepare(study, Workspace(folder / "mlruns"), "cpu", lambda *_: None)
        preparation.empty_store = None  # only a run needs it
        planner = preparation.planner
        plan = make_plan(study, (0,), ["baseline"], planner, RecordedState({("baseline", 0): list(past)}), rerun=rerun)
        (run,), (arm,) = plan.runs, study.arms
        return run, RecordedRun(run.key, run.content, status, kind, "", params(arm, 0, study.task), planner.inputs(arm, 0))


@pytest.mark.parametrize("rerun", ["", "keep", "retry"])
def test_a_changed_default_is_never_kept(tmp_path, rerun):
    """It makes another run, whose reason names the setting, as if the file had changed."""
    _, record = planned(tmp_path, FUNCTION)
    run, _ = planned(tmp_path, FUNCTION.replace("lr: float = 0.1", "lr: float = 0.2"), [record], rerun)
    assert run.content == record.content
    assert (run.state, run.reason) == ("missing", "has changed: lr 0.1 -> 0.2")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+ lr + (run", "+ 2 * lr + (run"),
        ('fault: str = "none"', 'fault: str = "none", depth: int = 3'),
        ('lr: float = 0.1, fault: str = "none"', "lr: float = 0.1"),
    ],
)
def test_other_edits_may_be_kept(tmp_path, old, new):
    """Also a new setting with a default, and one that is gone."""
    _, record = planned(tmp_path, FUNCTION)
    code = FUNCTION.replace(old, new)
    assert code != FUNCTION
    assert planned(tmp_path, code, [record])[0].state == "stale"
    run, _ = planned(tmp_path, code, [record], "keep")
    assert (run.state, run.used_key) == ("done", record.key)
    assert run.reason == "kept, though this has changed since it was recorded: the code"


def test_a_comment_changes_nothing(tmp_path):
    """Nor does the helper's unused function."""
    _, record = planned(tmp_path, FUNCTION)
    assert planned(tmp_path, FUNCTION + "\n# a comment\n", [record])[0].state == "done"


@pytest.mark.parametrize("rerun", ["keep", "cached"])
def test_what_failed_before_an_edit_runs_again(tmp_path, rerun):
    """Whatever is done with the results that the edit made stale."""
    _, record = planned(tmp_path, FUNCTION, status="FAILED", kind="bug")
    assert planned(tmp_path, FUNCTION, [record], rerun)[0].state == "failed"
    assert planned(tmp_path, FUNCTION.replace("+ lr + (run", "+ 2 * lr + (run"), [record], rerun)[0].state == "missing"


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"val/mae": {"from": "mae ([0-9.]+)"}}, "where val/mae is read: 'mae {number}' -> 'mae ([0-9.]+)'"),
        ({"val/mae": {"from": {"file": "log.json", "at": "mae"}}}, "where val/mae is read: 'mae {number}' -> log.json mae"),
        ({"val/mae": {}}, "where val/mae is read: 'mae {number}' -> metrics.json"),
        ({"val/mae": {"from": "mae {number}"}, "f1": {}}, "metrics validation/mae -> test/f1, validation/mae"),
    ],
)
def test_a_metric_that_is_read_elsewhere_is_another_run(tmp_path, metrics, reason):
    """The reason says of which metric, and how."""

    def of(metrics):
        declared = {name: {"better": "lower", **form} for name, form in metrics.items()}
        return write_command(tmp_path, metrics=declared, ladder={"baseline": {}})

    _, record = of_file(tmp_path, of({"val/mae": {"from": "mae {number}"}}))
    run, _ = of_file(tmp_path, of(metrics), [record])
    assert (run.state, run.reason) == ("missing", f"has changed: {reason}")
