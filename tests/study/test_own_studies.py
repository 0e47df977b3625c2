"""Studies of one's own training code, from their file to their plan; nothing is run."""

import json

import pytest
import yaml

from ablation.errors import ConfigError
from ablation.planning import explain
from ablation.planning.describe import for_the_record
from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedRun, RecordedState
from ablation.planning.workspace import Workspace
from ablation.study.params import params
from ablation.study.resolving import load_study
from ablation.study.written import compared, written
from ablation.tasks.own.code import code_files
from ablation.techniques.technique import allow_code

OWN = {
    "study": "own",
    "task": {"command": "python train.py --seed {seed} {args}", "code": ["train.py"]},
    "metrics": {"test/mae": {"better": "lower", "from": "mae (.*)"}, "val/mae": {"better": "higher", "from": "val (.*)"}},
    "seeds": [0],
    "base": {"lr": 0.1, "width": 4, "opts": {"lr": 1.0}},
    "ladder": {"a": {}},
}


def write(folder, **sections):
    """The file of such a study, with its script."""
    (folder / "train.py").write_text("print(1)\n")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(OWN | sections, sort_keys=False))
    return path


def load(folder, **sections):
    return load_study(write(folder, **sections))


def arms(folder, **sections):
    return {arm.name: arm for arm in load(folder, **sections).arms}


def planner(study):
    return study.task.prepare(study, Workspace(study.folder / "mlruns"), "cpu", lambda *_: None).planner


def planned(folder, past=(), rerun="", **sections):
    study = load(folder, **sections)
    known = RecordedState({(arm.name, 0): list(past) for arm in study.arms})
    return make_plan(study, (0,), [arm.name for arm in study.arms], planner(study), known, rerun=rerun)


def recorded(plan, **inputs):
    """The plan's first run as the store has it; None leaves an input out."""
    run, arm = plan.runs[0], plan.study.arms[0]
    made_of = {name: value for name, value in (planner(plan.study).inputs(arm, 0) | inputs).items() if value is not None}
    return RecordedRun(run.key, run.content, "FINISHED", "", "", params(arm, 0, plan.study.task), made_of)


# --- what counts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [{"code": ["train.py"]}, {"code": ["*"]}, {"code": []}])
def test_a_file_that_the_run_writes_is_no_code(tmp_path, task):
    """A metric is read from it beside the study, and the command names it, so that it is there after the first run."""
    command = "python train.py --seed {seed} --log log.json --note note.txt {args}"
    metrics = {"test/mae": {"better": "lower", "from": {"file": "log.json", "at": "mae"}}}
    study = load(tmp_path, task={"command": command, **task}, metrics=metrics)
    before = code_files(study.task.definition)
    (tmp_path / "log.json").write_text('{"mae": 1}')
    assert "log.json" not in {path.name for path in code_files(study.task.definition)}
    assert {path.name for path in before} >= {"train.py"}
    (tmp_path / "note.txt").write_text("a configuration, which counts")
    assert "note.txt" in {path.name for path in code_files(study.task.definition)}


FUNCTION = "def train(run, *, feats: int | float = 1.0, flag: bool | int = 0, more: list[int | float] = [1.0]):\n    return {}\n"


def test_numbers_of_other_types_are_other_settings(folder):
    """As the code is given 1, 1.0 and true apart: other keys, other changes, no arm that stands for another."""
    module = f"types_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(FUNCTION)
    allow_code(folder)
    sections = {
        "task": {"function": f"{module}:train"},
        "metrics": {"mae": {"better": "lower"}},
        "base": {},
        "ladder": {"a": {}, "whole": {"feats": 1}, "flag": {"flag": True}, "more": {"more": [1]}},
        "sweeps": {"f": {"over": {"feats": [1, 1.0]}}},
    }
    plan = planned(folder, **sections)
    keys = {run.arm: run.key for run in plan.runs}
    by_name = {arm.name: arm for arm in plan.study.arms}
    assert len({keys[name] for name in ("a", "whole", "flag", "more")}) == 4
    assert (keys["f/1.0"], keys["f/1"]) == (keys["a"], keys["whole"])
    assert (by_name["f/1.0"].same_as, by_name["f/1"].same_as) == ("a", "whole")
    assert json.dumps(by_name["whole"].change) == '{"feats": [1.0, 1]}'
    sections["ladder"] = {"a": {"feats": 1}}
    assert "feats 1.0 was 1" in compared(load(folder, **sections | {"ladder": {"a": {}}}), {"written": written(load(folder, **sections))})


# --- choices ---------------------------------------------------------------------------------------------------------------------

RATE = {"rate": {"over": {"lr": [0.2, 0.4]}, "choose": "val/mae"}}


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_choice_goes_by_the_direction_of_its_own_metric(tmp_path, better):
    """And not by that of another with the same last part."""
    other = {"higher": "lower", "lower": "higher"}[better]
    metrics = {
        "train/mae": {"better": other, "from": "t (.*)"},
        "test/mae": {"better": other, "from": "mae (.*)"},
        "val/mae": {"better": better, "from": "val (.*)"},
    }
    assert arms(tmp_path, sweeps=RATE, metrics=metrics)["rate/best"].choice.is_lower_better == (better == "lower")


def test_a_choice_with_another_direction_is_another(tmp_path):
    """So that it is made again where the file has said the wrong one."""
    keys = []
    for better in ("higher", "lower"):
        metrics = OWN["metrics"] | {"val/mae": {"better": better, "from": "val (.*)"}}
        keys.append({run.arm: (run.key, run.content) for run in planned(tmp_path, sweeps=RATE, metrics=metrics).runs})
    assert keys[0]["rate/0.2"] == keys[1]["rate/0.2"]
    assert not set(keys[0]["rate/best"]) & set(keys[1]["rate/best"])


def test_a_choice_in_a_condition_is_compared_point_by_point(tmp_path):
    """Where the arm that the sweep is of is not in the condition: what the points set is no change then, and no bundle."""
    study = load(tmp_path, sweeps=RATE, conditions={"c": {"opts.lr": 2.0, "arms": ["rate/*"]}})
    best = next(arm for arm in study.arms if arm.name == "c/rate/best")
    assert (best.parent, best.change) == ("rate/best", {"opts.lr": (1.0, 2.0)})


# --- names and places ------------------------------------------------------------------------------------------------------------


def test_two_axes_cannot_set_one_field(tmp_path):
    """One value would count, and both would stand in the arm's name; the same value is no contradiction."""
    big = {"small": {"width": 2}, "big": {"width": 9, "lr": 0.5}}
    with pytest.raises(
        ConfigError, match=r"sweeps\.two\.over\.preset\.big: the point big sets lr to 0\.5, and another axis sets it to 0\.2"
    ):
        load(tmp_path, sweeps={"two": {"over": {"lr": [0.2, 0.3], "preset": big}}})
    nested = {"preset": {"big": {"opts": {"lr": 0.5}}}, "opts.lr": [0.1, 0.2]}
    with pytest.raises(ConfigError, match=r"sets opts\.lr to 0\.1, and another axis sets it to 0\.5"):
        load(tmp_path, sweeps={"two": {"over": nested}})
    assert "two/0.5/big" in arms(tmp_path, sweeps={"two": {"over": {"lr": [0.5], "preset": big}}})


def test_a_rung_named_twice_has_its_own_place(tmp_path):
    with pytest.raises(ConfigError, match=r"^drop_one: two arms are named 'b/without-b'"):
        load(tmp_path, ladder={"a": {}, "b": {"lr": 0.2}}, drop_one=["b", "b"])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"profiles": {"quick": {"groups": {"few": 3}}}}, r"profiles\.quick\.groups: is for images"),
        ({"metrics": {"mae": {"better": "lower", "from": {"file": "", "at": "x"}}}}, r"metrics\.mae\.from\.file"),
        ({"metrics": {"mae": {"better": "lower", "from": {"file": "x", "at": ""}}}}, r"metrics\.mae\.from\.at"),
    ],
)
def test_what_would_do_nothing_is_refused(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **sections)


def test_settings_called_stage_are_watched(tmp_path):
    """They are no lengths of stages, which such code has none of; nor are those of plans from before."""
    base = OWN["base"] | {"stage": 2, "zero_stage": 2}
    then = {"written": written(load(tmp_path, base=base)), "file": "study.yaml"}
    now = load(tmp_path, base=base | {"stage": 3, "zero_stage": 4})
    assert compared(now, then).startswith("study.yaml was edited since: stage 3 was 2 in a; zero_stage 4 was 2 in a")
    then = {"written": written(load(tmp_path)), "file": "study.yaml"}
    then["written"]["first"]["stage"] = [0, 1, None, None, None, None, None]
    assert compared(load(tmp_path), then) == ""


def test_sweeps_and_conditions_are_told_as_they_are(tmp_path):
    """Labels with slashes split no sweep, and a condition's line has its own change, whichever arms are selected."""
    plan = planned(
        tmp_path,
        base=OWN["base"] | {"model": "x"},
        variants={"a1": {"of": "b", "lr": 0.7}, "b": {"width": 16}},
        sweeps={"m": {"over": {"model": ["facebook/one", "facebook/two", "other/three"]}}},
        conditions={"c": {"opts.lr": 2.0, "arms": ["a1", "b"]}},
    )
    lines = [" ".join(line.split()) for line in explain.screen(plan, planner(plan.study), 2).splitlines()]
    assert "m 3 of a; model facebook/one, facebook/two and other/three" in lines
    assert "c 2 opts.lr 2: a1 and b" in lines
    assert for_the_record(plan, planner(plan.study))["arms"]


# --- reasons ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"data": ["d.txt"]}, "the declared data"),
        ({"env": {"A": 1}}, "env none -> A=1"),
        ({"classes": ["a", "b"]}, "classes none -> a, b"),
    ],
)
def test_what_is_declared_for_the_first_time_is_named(tmp_path, task, words):
    """Data, variables and classes, of runs whose study declared none."""
    (tmp_path / "d.txt").write_text("data")
    before = recorded(planned(tmp_path))
    (run,) = planned(tmp_path, [before], task=OWN["task"] | task).runs
    assert run.reason == f"has changed: {words}"


def test_an_input_that_nobody_recorded_is_not_guessed(tmp_path):
    """Runs of an earlier version have no classes and, where none were declared, no data; groups and weights are not named."""
    before = recorded(planned(tmp_path), classes=None, **{"declared data": None})
    (run,) = planned(tmp_path, [before], task=OWN["task"] | {"classes": ["a", "b"]}).runs
    assert run.reason == "has changed: how runs are told apart"
