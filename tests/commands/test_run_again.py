"""What is run again: --rerun force begins at the beginning, choices follow their points, and `clean` leaves what was begun."""

import contextlib
import json
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from ablation.commands import run as run_command
from ablation.commands import run_part as part_command
from ablation.commands.running import study_lock
from ablation.planning.workspace import Workspace
from ablation.tracking.store import Store
from tests.own import METRICS, PRINTED, write_command, write_function
from tests.tiny import write

SHIFTED = '''
"""Training code of a test that reads a file which no study declares."""

from pathlib import Path


def train(run, *, lr: float = 0.1):
    """The distance of the rate from the number in the file."""
    error = abs(lr - float((Path(__file__).parent / "shift.txt").read_text()))
    return {"test/mae": error, "val/mae": error}
'''
RATES = {"ladder": {"baseline": {}}, "sweeps": {"rate": {"over": {"lr": [0.2, 0.4]}, "choose": "val/mae"}}, "seeds": [0]}
RESUMING = '''
"""Training code of a test that goes on from its checkpoint, and fails once, or is to be stopped, at its third step."""

from pathlib import Path


def train(run, *, lr: float = 0.1):
    """The step at which it began."""
    state, folder = run.latest("state"), Path(__file__).parent
    begin = int(state.read_text()) if state else 0
    for step in range(begin, 5):
        run.log(step, {"val/loss": step})
        (run.checkpoints / "state").write_text(str(step))
        if step == 3 and (folder / "bad-node").exists():
            raise RuntimeError("bad node")
    return {"test/mae": float(begin), "val/mae": lr}
'''


def records(name="fun", **tags):
    """The finished runs of a study, by arm, with these tags."""
    runs = [run for run in Store.open().runs_of(name) if run["tags"]["ablation.kind"] == "run" and run["status"] == "FINISHED"]
    return [run for run in runs if all(run["tags"].get(f"ablation.{tag}") == value for tag, value in tags.items())]


def reasons(own, file):
    """Why runs are done or left, by the plan."""
    plan = json.loads(run(own, "plan", file, "--json").out)
    return {one["reason"].partition(" (")[0] for one in plan["runs"]}


def run(own, *words):
    return own(*words, "--allow-code")


def test_a_choice_follows_its_points(own):
    """A point that was run again has other numbers: the choice is made again, once, and the earlier one is gone."""
    file = write_function(own.folder, SHIFTED, **RATES)
    (own.folder / "shift.txt").write_text("0.2")
    assert run(own, "run", file).status == 0
    (best,) = records(arm="rate/best")
    assert (best["tags"]["ablation.chosen"], best["metrics"]["test/mae"]) == ("rate/0.2", 0)
    (own.folder / "shift.txt").write_text("0.35")
    assert run(own, "run", file, "--arm", "rate/0.2", "--arm", "rate/0.4", "--rerun", "force").status == 0
    assert run(own, "run", file).status == 0
    (again,) = records(arm="rate/best")
    assert again["tags"]["ablation.chosen"] == "rate/0.4"
    assert again["metrics"]["test/mae"] == pytest.approx(0.05)
    assert run(own, "run", file).status == 0
    assert [one["run_id"] for one in records(arm="rate/best")] == [again["run_id"]]


def test_force_begins_at_the_beginning(own):
    """Not at the checkpoint of an attempt that failed."""
    task = {"function": "own_training:train", "resumes": True}
    file = write_function(own.folder, RESUMING, task=task, metrics=METRICS, seeds=[0], ladder={"baseline": {}})
    (own.folder / "bad-node").touch()
    assert run(own, "run", file).status == 1
    (own.folder / "bad-node").unlink()
    assert run(own, "run", file, "--rerun", "force").status == 0
    (one,) = records()
    assert one["metrics"]["test/mae"] == 0


@pytest.mark.parametrize("kept", [False, True], ids=["stopped while it deletes", "a result cannot be deleted"])
def test_no_earlier_result_passes_for_a_forced_one(own, monkeypatch, kept):
    """Until all of it is gone its record counts: a command that ends there has asked for nothing yet."""
    file = write_function(own.folder, ladder={"baseline": {}}, seeds=[0])
    assert run(own, "run", file).status == 0
    (before,) = records()

    def stopped(path, **_):
        if not kept:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ablation.planning.workspace.shutil.rmtree", stopped)
        ended = run(own, "run", file, "--rerun", "force")
    assert ended.status == (2 if kept else 130)
    assert ("could not be deleted, and nothing was started" in ended.err) == kept
    assert run(own, "run", file).status == 0
    (after,) = records()
    assert (after["run_id"], "ablation.superseded" in after["tags"]) == (before["run_id"], False)
    assert run(own, "run", file, "--rerun", "force").status == 0
    assert {one["run_id"] for one in records()} != {before["run_id"]}


def test_a_failed_run_that_was_forced_goes_on_without_the_word(own):
    """It was to be run again, so that the command that goes on does so; once it has failed again it is one that failed."""
    file = write_function(own.folder, RESUMING, ladder={"baseline": {}, "slow": {"lr": 0.05}}, seeds=[0])
    (own.folder / "bad-node").touch()
    assert run(own, "run", file).status == 1
    assert run(own, "run", file, "--rerun", "force", "--budget", "0.000001s").status == 130
    assert "was forced" in reasons(own, file)  # of one of them at least
    assert run(own, "run", file).status == 1
    assert reasons(own, file) == {"failed before"}
    (own.folder / "bad-node").unlink()
    assert run(own, "run", file, "--rerun", "retry").status == 0
    assert len(records()) == 2


def test_forced_runs_are_recorded_once_though_a_clock_is_behind(own, monkeypatch):
    """A node's clock may be behind that of the command that forced them."""
    file = write_function(own.folder, seeds=[0], ladder={"baseline": {}})
    assert run(own, "run", file).status == 0
    behind = SimpleNamespace(time=lambda: time.time() - 600, monotonic=time.monotonic)
    with monkeypatch.context() as patch:
        patch.setattr("ablation.tasks.own.run.time", behind)
        assert run(own, "run", file, "--rerun", "force").status == 0
    known = {one["run_id"] for one in records()}
    again = run(own, "run", file)
    assert again.epochs == 0
    assert {one["run_id"] for one in records()} <= known


@pytest.fixture
def edited(monkeypatch):
    """Has a file edited, by a function of it, while a command waits for the study's lock."""

    def when_locked(file, edit):
        @contextlib.contextmanager
        def waited(*words, **options):
            edit(file)
            with study_lock(*words, **options):
                yield True

        for command in (run_command, part_command):
            monkeypatch.setattr(command, "study_lock", waited)

    return when_locked


def test_a_file_that_is_edited_while_its_command_waits_is_read_again(ablate, edited):
    """What is recorded is the file that was run, with its settings."""
    file = write(ablate.folder, ladder={"baseline": {}}, base={"epochs": 1})
    edited(file, lambda file: file.write_text(file.read_text().replace("epochs: 1", "epochs: 2")))
    done = ablate("run", file)
    assert (done.status, done.epochs) == (0, 2)
    assert "was edited meanwhile, and read again" in done.err.replace("\n", " ")
    store = Store.open()
    (plan,) = [one for one in store.runs_of("tiny") if one["tags"]["ablation.kind"] == "plan"]
    assert store.artifact(plan["run_id"], "experiments.yaml").read_bytes() == file.read_bytes()


def test_a_function_that_is_edited_while_a_command_waits_is_not_planned_with(own, edited):
    """Its signature was read before: settings of the old one would be recorded as those of the new."""
    file = write_function(own.folder, seeds=[0], ladder={"baseline": {}})
    assert run(own, "run", file).status == 0
    edited(file, lambda file: (file.parent / "helper.py").write_text("def scale(width):\n    return 3.0 / width\n"))
    refused = run(own, "run", file)
    assert (refused.status, refused.epochs) == (2, 0)
    assert "the code was edited while this command waited, and nothing was begun" in refused.err.replace("\n", " ")


def test_a_script_that_is_edited_while_a_command_waits_is_looked_at_again(own, edited):
    """Results of the code from before are stale, not done."""
    task = {"command": f"{sys.executable} script.py --seed {{seed}} {{args}}"}
    declared = {"task": task, "metrics": PRINTED, "base": {"width": 4, "lr": 0.1, "fast": False}}
    file = write_command(own.folder, seeds=[0], ladder={"baseline": {}}, **declared)
    assert run(own, "run", file).status == 0
    edited(file, lambda file: (file.parent / "script.py").write_text((file.parent / "script.py").read_text() + "\nprint(1)\n"))
    refused = run(own, "run", file)
    assert (refused.status, refused.epochs) == (2, 0)
    assert "made by other code" in refused.err.replace("\n", " ")


def test_a_file_that_it_extends_counts_too(ablate, edited):
    """An edit there is told and read as well."""
    base = write(ablate.folder, "base", base={"epochs": 1}, ladder={"baseline": {}})
    file = ablate.folder / "tiny.yaml"
    file.write_text("extends: base.yaml\nstudy: tiny\n")
    edited(base, lambda base: base.write_text(base.read_text().replace("epochs: 1", "epochs: 2")))
    done = ablate("run", file)
    assert (done.status, done.epochs) == (0, 2)
    assert f"what {file} extends was edited meanwhile, and read again" in done.err


@pytest.mark.parametrize("words", [(), ("--part", "1/1")])
def test_data_that_are_deleted_while_a_command_waits_are_decoded_again(ablate, edited, words):
    """As `clean --all` does, which lets no study begin meanwhile, but may come between the check and the lock."""
    file = write(ablate.folder, ladder={"baseline": {}}, base={"epochs": 1})
    edited(file, lambda _: shutil.rmtree("mlruns/data", ignore_errors=True))
    done = ablate("run", file, *words)
    assert (done.status, done.epochs) == (0, 1), done.err


def test_a_file_that_becomes_another_study_meanwhile_is_refused(ablate, edited):
    """Its lock is that of the other one."""
    file = write(ablate.folder, ladder={"baseline": {}})
    edited(file, lambda file: file.write_text(file.read_text().replace("study: tiny", "study: other")))
    refused = ablate("run", file)
    assert (refused.status, refused.epochs) == (2, 0)
    assert "is the study 'other' now; nothing was begun" in refused.err.replace("\n", " ")


def test_what_is_recorded_is_the_file_that_was_read(ablate, monkeypatch):
    """Also where it is edited once the command has begun."""
    file = write(ablate.folder, ladder={"baseline": {}}, base={"epochs": 1})
    before, stop_if_stale = file.read_bytes(), run_command.stop_if_stale

    def edit(*words):
        file.write_bytes(before + b"# edited\n")
        return stop_if_stale(*words)

    monkeypatch.setattr(run_command, "stop_if_stale", edit)
    assert ablate("run", file).status == 0
    store = Store.open()
    (plan,) = [one for one in store.runs_of("tiny") if one["tags"]["ablation.kind"] == "plan"]
    assert store.artifact(plan["run_id"], "experiments.yaml").read_bytes() == before


def test_no_study_begins_while_something_is_deleted(tmp_path):
    """Not even one that never ran in the folder before."""
    workspace, begun = Workspace(tmp_path / "mlruns"), threading.Event()
    workspace.root.mkdir()

    def begin():
        with study_lock(workspace, "first", Console(quiet=True)):
            begun.set()

    thread = threading.Thread(target=begin)
    with workspace.held_off() as running:
        thread.start()
        assert (running, begun.wait(0.5)) == ([], False)
    assert begun.wait(60)
    thread.join()


def test_clean_leaves_what_other_arms_need(ablate):
    """Stages that runs share with unfinished ones which the newest plan does not have, of its seeds and of others."""
    head = {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head"}]}
    file = write(ablate.folder, base={"schedule": "constant"}, seeds=[0, 1], ladder={"baseline": {}}, variants={"head": head})
    assert sum(stage["epochs"] for stage in json.loads(ablate("plan", file, "--json").out)["stages"]) == 6
    assert ablate("run", file, "--arm", "head", "--seed", 1, stop_after=1).epochs == 1
    assert ablate("run", file, "--arm", "baseline", "--seed", 0).epochs == 2
    assert "2 trained stages" not in ablate("clean", "--yes").err
    assert ablate("run", file).epochs == 3


def test_clean_leaves_what_was_begun(own):
    """Also of arms that the newest plan does not have; --all takes it along."""
    task = {"function": "own_training:train", "resumes": True}
    arms = {"ladder": {"baseline": {}, "slow": {"lr": 0.05}}}
    file = write_function(own.folder, RESUMING, task=task, metrics=METRICS, seeds=[0], **arms)
    (own.folder / "bad-node").touch()
    assert run(own, "run", file, "--arm", "slow").status == 1
    (own.folder / "bad-node").unlink()
    assert run(own, "run", file, "--arm", "baseline").status == 0
    assert own("clean", "--yes").status == 0
    assert run(own, "run", file, "--rerun", "retry").status == 0
    assert {one["tags"]["ablation.arm"]: one["metrics"]["test/mae"] for one in records()} == {"baseline": 0, "slow": 3}
