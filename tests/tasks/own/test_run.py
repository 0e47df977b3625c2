"""Runs of functions and commands: what comes back, what is refused, how they end and fail."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ablation.study.task import CodeChanged, Interrupted
from ablation.system.failures import failure as event_of
from ablation.system.hardware import hardware
from ablation.tasks.own import keys
from ablation.tasks.own import run as run_module
from ablation.tasks.own.alone import alone
from ablation.tasks.own.code import IMPORTED_BEFORE
from ablation.tasks.own.definition import DataPath, Source
from ablation.tasks.own.work import OwnRequest
from tests.tasks.own.runs import after, alive, carry_out, done, failure, function, result, script, table, work

FIT = """
import random

def fit(run, *, lr: float = 0.1, sizes: tuple[int, ...] = (1,)):
    for step in range(3):
        run.log(step, {"val/loss": lr / (step + 1)})
    run.items(["b", "a"], {"test/mae": [1.0, 3.0]}, cluster=["p", "q"])
    run.same("split", ["a", "b"])
    (run.out / "note.txt").write_text("kept")
    print("drew", random.random(), type(sizes).__name__, run.seed)
    return {"mae": 2.0}
"""
PRINT = "import json, sys; print(json.dumps(sys.argv[1:]))\nprint('mae: 1.5')\n"
FULL = "a file could not be written: sqlite3.OperationalError: database or disk is full"
PRINTED = {"sources": {"test/mae": Source(pattern=r"mae: (\S+)")}}


def log_of(a_run):
    return (a_run.results / a_run.key / "log.txt").read_text(encoding="utf-8")


# --- functions ---------------------------------------------------------------------------------------------------------------


def test_a_function_hands_back_all(tmp_path):
    """Metrics, curves, items, what is the same, files and what was printed are in the result; events come while it runs."""
    a_run = work(tmp_path, function=function(tmp_path, FIT), settings={"lr": 0.5, "sizes": [1, 2]}, seed=3)
    events = carry_out(a_run)
    recorded = result(a_run)
    assert recorded["metrics"] == {"test/mae": 2.0}
    assert [(row["epoch"], row["values"]) for row in recorded["history"]] == [(i, {"val/loss": 0.5 / (i + 1)}) for i in range(3)]
    assert [event["kind"] for event in events] == ["epoch"] * 3 + ["result"]
    assert [event["row"] for event in events[:3]] == recorded["history"]
    assert events[-1]["run"] == a_run.request.key
    assert events[-1]["seconds"] == recorded["seconds"] > 0
    assert set(recorded["same"]) == {"split", "test items"}
    assert table(a_run, "items").to_dict("list") == {"item": ["b", "a"], "test/mae": [1.0, 3.0], "cluster": ["p", "q"]}
    assert (a_run.results / a_run.key / "files" / "note.txt").read_text() == "kept"
    assert "tuple 3" in log_of(a_run)
    assert recorded["tags"] == {"device": "cpu", "hardware": hardware()}
    assert recorded["notes"] == []
    assert recorded["digest"] == "data"
    assert 0 <= recorded["finished"] - recorded["started"] < 60_000


def test_a_result_is_not_computed_twice(tmp_path):
    """A whole result is only told; a damaged one is computed again, and that is said."""
    a_run = work(tmp_path, function=function(tmp_path, FIT))
    first = done(a_run)
    assert [event["kind"] for event in carry_out(a_run)] == ["result"]
    assert result(a_run) == first
    (a_run.results / a_run.key / "log.txt").write_text("other")
    assert [event["kind"] for event in carry_out(a_run)] == ["damaged", "epoch", "epoch", "epoch", "result"]


def test_runs_without_curves_have_one_row(tmp_path):
    a_run = work(tmp_path, function=function(tmp_path, "def fit(run):\n    return {'mae': 1}\n"))
    (row,) = done(a_run)["history"]
    assert (row["epoch"], row["values"]) == (1, {})


def test_generators_are_seeded(tmp_path):
    """Python's, NumPy's and torch's generators have the run's seed, also where the function imports the library itself."""
    text = """
import random
random.random()

def fit(run):
    import numpy
    first = random.random(), numpy.random.rand()
    print(first)
    return {"mae": first[0] + first[1]}
"""
    reference = function(tmp_path, text)
    values = []
    for seed in (0, 0, 1):
        a_run = replace(work(tmp_path, function=reference, seed=seed), results=tmp_path / str(len(values)))
        values.append(done(a_run)["metrics"]["test/mae"])
    assert values[0] == values[1] != values[2]
    import random

    import numpy

    assert values[0] == random.Random(0).random() + numpy.random.RandomState(0).rand()


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("return None", "data", "{reference} returned nothing; expected its metrics, such as {{'test/mae': 0.5}}"),
        ("return {'mse': 1.0}", "data", "{reference} did not return test/mae; found mse. Did you mean 'mse'?"),
        ("return {'mae': float('nan')}", "nan", "test/mae is nan; expected a finite number"),
        ("return {'mae': 'low'}", "data", "test/mae is \"'low'\"; expected a number"),
        ("raise ValueError('no such\\n  file')", "bug", "ValueError: no such"),
        ("import sys; sys.exit('enough')", "bug", "enough"),
        ("import os; os._exit(3)", "bug", "it ended with exit code 3 and printed nothing"),
        (
            "raise OSError(28, 'No space left on device')",
            "store",
            "a file could not be written: OSError: [Errno 28] No space left on device",
        ),
        ("import sqlite3; raise sqlite3.OperationalError('database or disk is full')", "store", FULL),
        ("bytearray(2**60)", "memory", "out of memory: MemoryError"),
        ("raise RuntimeError('CUDA out of memory. Tried')", "memory", "out of memory: RuntimeError: CUDA out of memory. Tried"),
    ],
)
def test_failures_have_one_message(tmp_path, body, kind, message):
    reference = function(tmp_path, f"def fit(run):\n    {body}\n")
    error = failure(work(tmp_path, function=reference))
    assert (error.kind, error.message.partition("; what it handed")[0]) == (kind, message.format(reference=reference))


def test_a_failure_shows_what_was_printed(tmp_path):
    """The log of a failure is the end of the output, with the traceback of the user's code."""
    text = "def fit(run):\n    print('reading')\n    return helper()\n\ndef helper():\n    return 1 / 0\n"
    error = failure(work(tmp_path, function=function(tmp_path, text)))
    assert error.message == "ZeroDivisionError: division by zero"
    assert "reading" in error.log
    assert "in helper" in error.log
    assert event_of(error, "") == {"failure": "bug", "message": error.message, "log": error.log}


def test_what_cannot_be_used_is_kept(tmp_path):
    """After days of work a misspelt metric loses nothing: what was handed back stays in a folder that the log names."""
    text = "def fit(run):\n    (run.out / 'weights').write_text('dear')\n    return {'mea': 1.0}\n"
    a_run = work(tmp_path, function=function(tmp_path, text))
    error = failure(a_run)
    folder = a_run.stages / a_run.key / "refused"
    assert error.message.endswith("did not return test/mae; found mea. Did you mean 'mea'?")
    assert error.log.startswith(f"What it handed back is in {folder}\n")
    assert (folder / "weights").read_text() == "dear"
    assert json.loads((folder / "metrics.json").read_text()) == {"mea": 1.0}


def test_what_a_failed_run_left_is_kept(tmp_path):
    """Also what code that ends with an error has written until then; the next attempt that is recorded takes it away."""
    text = "def fit(run):\n    (run.out / 'best').write_text('dear')\n    raise ValueError('late')\n"
    reference = function(tmp_path, text)
    a_run = work(tmp_path, function=reference)
    error = failure(a_run)
    folder = a_run.stages / a_run.key / "refused"
    assert (error.message, error.log.splitlines()[0]) == ("ValueError: late", f"What it handed back is in {folder}")
    assert (folder / "best").read_text() == "dear"
    done(work(tmp_path, function=function(tmp_path, FIT)))
    assert not folder.exists()


def test_settings_are_what_their_parameters_say(tmp_path):
    text = """
import enum
from pathlib import Path
from typing import Literal

class Loss(enum.Enum):
    CE = "ce"

def fit(run, *, loss: Loss, path: Path, kind: Literal["a", "b"] = "a", rate: float = 1.0, more: "list[Path] | None" = None):
    assert loss is Loss.CE and path == Path("x/y") and kind == "b" and type(rate) is float and more == [Path("z")], (loss, path, more)
    return {"mae": 1}
"""
    settings = {"loss": "ce", "path": "x/y", "kind": "b", "rate": 2, "more": ["z"]}
    assert done(work(tmp_path, function=function(tmp_path, text), settings=settings))["metrics"] == {"test/mae": 1.0}


def test_modules_beside_the_study_are_imported_first(tmp_path):
    """The working folder is the study's, the first place of modules, and no setting of ours is left in the environment."""
    (tmp_path / "helper.py").write_text("value = 7.0\n")
    text = "import os, sys\nimport helper\n\ndef fit(run):\n    print(sys.path[0], os.getcwd())\n    return {'mae': helper.value}\n"
    a_run = work(tmp_path, function=function(tmp_path, text))
    assert done(a_run)["metrics"] == {"test/mae": 7.0}
    assert log_of(a_run).split() == [str(tmp_path), str(tmp_path)]


# --- commands ----------------------------------------------------------------------------------------------------------------


def test_words_arrive_as_they_are(tmp_path):
    """No shell reads the words: spaces, quotes, semicolons and $() stay in one argument."""
    words = ("a b", "it's", '"', ";rm -rf x", "$(touch made)", "`touch made`", "*", "|", "é")
    a_run = script(tmp_path, PRINT, *words, **PRINTED)
    done(a_run)
    assert json.loads(log_of(a_run).splitlines()[0]) == ["0", *words]
    assert not (tmp_path / "made").exists()


def test_an_untouched_script_is_read_by_patterns(tmp_path):
    """Curves and metrics come out of what is printed, also from a progress bar and from the error output."""
    text = """
import sys
for epoch in range(1, 4):
    sys.stderr.write(f"\\r\\x1b[31m{epoch}/3 loss={1 / epoch}\\x1b[0m")
    sys.stderr.flush()
    print(f"epoch {epoch} val={epoch * 2}", flush=True)
print("mae: 9"); print("mae: 1.5")
"""
    a_run = script(tmp_path, text, curves={"loss": r"loss=([\d.]+)", "val": r"val=(\d+)"}, **PRINTED)
    recorded = done(a_run)
    assert recorded["metrics"] == {"test/mae": 1.5}
    rows = {row["epoch"]: row["values"] for row in recorded["history"]}
    assert rows == {epoch: {"loss": 1 / epoch, "val": epoch * 2} for epoch in (1, 2, 3)}


def test_a_command_hands_back_files(tmp_path):
    text = """
import csv, json, sys
from pathlib import Path
out = Path(sys.argv[2])
(out / "curves.jsonl").write_text(json.dumps({"step": 2, "val/loss": 0.5}) + "\\nno json\\n")
(out / "items.csv").write_text("item,mae,cluster\\n007,1,p\\nNA,2,q\\n")
(out / "metrics.json").write_text(json.dumps({"test/mae": 1.5, "speed": 3}))
(out / "same.json").write_text(json.dumps({"split": ["a"]}))
assert json.loads(Path(sys.argv[3]).read_text()) == {"seed": 0, "lr": 0.1}
"""
    a_run = script(tmp_path, text, "{out}", "{settings}", settings={"lr": 0.1})
    recorded = done(a_run)
    assert recorded["metrics"] == {"test/mae": 1.5}
    assert [(row["epoch"], row["values"]) for row in recorded["history"]] == [(2, {"val/loss": 0.5})]
    assert table(a_run, "items")["item"].tolist() == ["007", "NA"]
    assert recorded["notes"] == [
        "also handed back, and not declared: speed",
        "curves.jsonl has lines that are no JSON mapping with a step, which are left out",
    ]
    assert recorded["own"]["words"][:2] == [sys.executable, "train.py"]


def test_a_value_is_read_from_a_file(tmp_path):
    """From {out} where the command is told it, else from the study's folder, where a file of an earlier run does not count."""
    source = {"test/mae": Source(file="log.json", at="eval.0.mae")}
    text = "import json, sys; open(f'{sys.argv[2]}/log.json', 'w').write(json.dumps({'eval': [{'mae': 4}]}))"
    a_run = script(tmp_path, text, "{out}", sources=source)
    assert done(a_run)["metrics"] == {"test/mae": 4.0}
    a_run = replace(script(tmp_path, "pass", sources=source), results=tmp_path / "others")
    assert failure(a_run).message.startswith("test/mae: there is no log.json in the study's folder")
    (tmp_path / "log.json").write_text('{"eval": [{"mae": 5}]}')
    assert failure(a_run).message.startswith("test/mae: log.json is not of this run, which did not write it")
    a_run = replace(script(tmp_path, "open('log.json', 'a').write(' ')", sources=source), results=tmp_path / "others")
    assert done(a_run)["metrics"] == {"test/mae": 5.0}


def test_a_curve_without_a_point_is_told(tmp_path):
    """Its pattern may be wrong, and the run is as good as it would be without it."""
    curves = {"step": r"step (\d+)", "val/loss": r"val ([\d.]+)", "val/lss": r"lss ([\d.]+)"}
    recorded = done(script(tmp_path, "print('step 1 val 0.5'); print('mae: 1.0')", **PRINTED, curves=curves))
    assert recorded["notes"] == ["nothing that was printed matches the pattern of the curve val/lss"]


def test_runs_that_write_one_file_beside_the_study_go_one_after_another(tmp_path):
    """Or one would read what another wrote; a command that is told {out} need not wait."""
    source = {"test/mae": Source(file="log.json", at="mae")}
    text = "import sys, time; time.sleep(0.3); open('log.json', 'w').write('{\"mae\": ' + sys.argv[1] + '}'); time.sleep(0.3)"
    a_run = script(tmp_path, text, sources=source)
    runs = [replace(a_run, key=f"key{seed}", seed=seed, request=OwnRequest(f"key{seed}", "")) for seed in (3, 4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(carry_out, runs))
    assert [result(a_run)["metrics"] for a_run in runs] == [{"test/mae": 3.0}, {"test/mae": 4.0}]


def test_a_run_of_another_store_waits_for_the_file_beside_the_study_too(tmp_path):
    """As that of check-task, whose stages lie in a folder of its own."""
    source = {"test/mae": Source(file="log.json", at="mae")}
    text = "import sys, time; time.sleep(0.3); open('log.json', 'w').write('{\"mae\": ' + sys.argv[1] + '}'); time.sleep(0.3)"
    a_run = script(tmp_path, text, sources=source)
    runs = [replace(a_run, seed=seed, stages=tmp_path / f"{seed}/stages", results=tmp_path / f"{seed}/results") for seed in (3, 4)]
    with ThreadPoolExecutor() as pool:
        events = [event for some in pool.map(carry_out, runs) for event in some]
    assert [result(a_run)["metrics"] for a_run in runs] == [{"test/mae": 3.0}, {"test/mae": 4.0}]
    told = [event["message"] for event in events if event["kind"] == "told"]
    assert told == [f"another command has a run in {tmp_path}, which writes the same file; waiting for it to end"]


def test_a_run_that_waits_for_another_store_can_be_stopped(tmp_path):
    """Nothing of it is left."""
    a_run = script(tmp_path, "pass", sources={"test/mae": Source(file="log.json", at="mae")})
    with alone(a_run, print, lambda: False), pytest.raises(Interrupted):
        carry_out(replace(a_run, stages=tmp_path / "others"), should_stop=lambda: True)


def test_names_of_what_a_run_has_imported_before_are_just_that(tmp_path):
    """When the first module of the study is imported."""
    text = "import sys\n\nBEFORE = set(sys.modules)\n\ndef fit(run, *, names: list[str]):\n    return {'mae': len(set(names) - BEFORE)}\n"
    a_run = work(tmp_path, function=function(tmp_path, text), settings={"names": sorted(IMPORTED_BEFORE)})
    assert done(a_run)["metrics"] == {"test/mae": 0.0}


def test_without_a_cache_that_can_be_written_a_run_goes_on(tmp_path, monkeypatch):
    """Nothing then keeps runs of other stores off."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    a_run = script(tmp_path, "open('log.json', 'w').write('{\"mae\": 1}')", sources={"test/mae": Source(file="log.json", at="mae")})
    assert done(a_run)["metrics"] == {"test/mae": 1.0}


def test_what_a_command_leaves_is_kept_whatever_its_name(tmp_path):
    """Also a folder of checkpoints in {out}, and files that only a function's methods would write; links are left out."""
    text = """
import sys
from pathlib import Path
out = Path(sys.argv[2])
(out / "checkpoints").mkdir()
for name in ("checkpoints/best.pt", "model.pt", "notes.json", "items.json"):
    (out / name).write_text("5")
(out / "last.pt").symlink_to("model.pt")
print("mae: 1.0")
"""
    recorded = done(script(tmp_path, text, "{out}", **PRINTED))
    assert recorded["own"]["left"] == [f"files/{name}" for name in ("checkpoints/best.pt", "items.json", "model.pt", "notes.json")]
    assert recorded["notes"] == []


def test_data_that_change_meanwhile_are_told(tmp_path):
    """Before a run, and at its end; nothing is recorded."""
    data = tmp_path / "data.txt"
    data.write_text("1")
    text = f"open({str(data)!r}, 'a').write('2'); print('mae: 1.0')"
    a_run = script(tmp_path, text, **PRINTED, data=(DataPath(data),))
    a_run = replace(a_run, data=keys.data_of(a_run.definition))
    for _ in range(2):
        error = failure(a_run)
        assert (error.kind, error.message.partition(",")[0]) == ("data", "the declared data were changed since the study was planned")
    assert data.read_text() == "12"
    assert not (a_run.results / a_run.request.key).exists()


def test_packages_of_other_versions_are_told(tmp_path):
    """As they are on another machine, or after an upgrade while the study runs: the numbers would count as those of the planned ones."""
    a_run = script(tmp_path, "import numpy; print('mae: 1.0')", **PRINTED)
    assert {"numpy", "python"} <= a_run.packages.keys()
    error = failure(replace(a_run, packages={**a_run.packages, "numpy": "1.0"}))
    assert (error.kind, error.message.partition(";")[2]) == ("data", " expected 1.0, with which the study was planned")
    assert not (a_run.results / a_run.request.key).exists()
    carry_out(a_run)
    assert result(a_run)["metrics"] == {"test/mae": 1.0}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("pass", "data", "test/mae: nothing that was printed matches 'mae: (\\S+)'; expected a line that does"),
        ("print('mae: low')", "data", "test/mae: its pattern matched 'low'; expected a number"),
        ("print('mae: nan')", "nan", "test/mae is nan; expected a finite number"),
        ("import sys; sys.stderr.write('usage: x\\nno such option\\n'); sys.exit(2)", "bug", "no such option"),
        ("print('what is wrong'); raise SystemExit(1)", "bug", "what is wrong"),
        ("raise SystemExit('cp: x: Disk quota exceeded')", "store", "a file could not be written: cp: x: Disk quota exceeded"),
    ],
)
def test_failures_of_commands(tmp_path, text, kind, message):
    error = failure(script(tmp_path, text, **PRINTED))
    assert (error.kind, error.message) == (kind, message)


def test_a_program_that_is_not_there(tmp_path):
    (tmp_path / "file.py").touch()
    error = failure(work(tmp_path, command=("no-such-program", "{seed}"), code=("*",), **PRINTED))
    assert (error.kind, error.message.partition(" in /")[0]) == ("data", "'no-such-program' could not be started")
    assert "No such file or directory; expected a program" in error.message


# --- ends --------------------------------------------------------------------------------------------------------------------

STEPS = """
import signal, sys, time
from pathlib import Path
{prepare}
there = Path({checkpoints!r}) / "state"
print("from", there.read_text() if there.exists() else 0, flush=True)
there.write_text("5")
Path({begun!r}).touch()
time.sleep(60)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (print('mae: 1.0', flush=True), sys.exit(0)))"


def steps(folder, prepare="", **definition):
    checkpoints, begun = folder / "stages" / "key" / "checkpoints", folder / "begun"
    begun.unlink(missing_ok=True)
    text = STEPS.format(prepare=prepare, checkpoints=str(checkpoints), begun=str(begun))
    return script(folder, text, "mark-" + folder.name, **{**PRINTED, **definition})


@pytest.mark.parametrize(("prepare", "seconds"), [("", 5), (DEAF, 5), (POLITE, 5)])
def test_a_run_that_is_stopped_is_not_recorded(tmp_path, prepare, seconds):
    """Not even one that ends in order; one that is deaf is killed after its grace."""
    a_run = steps(tmp_path, prepare, grace=0.5)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        carry_out(a_run, should_stop=(tmp_path / "begun").exists)
    assert time.monotonic() - began < seconds + 5
    assert not a_run.results.exists()
    assert not alive("mark-" + tmp_path.name)


@pytest.mark.parametrize("resumes", [True, False])
def test_checkpoints_outlast_a_stop_only_where_the_code_resumes(tmp_path, resumes):
    a_run = steps(tmp_path, resumes=resumes)
    with pytest.raises(Interrupted):
        carry_out(a_run, should_stop=(tmp_path / "begun").exists)
    text = (tmp_path / "train.py").read_text().replace("time.sleep(60)", "print('mae: 1.0')")
    a_run = script(tmp_path, text, **PRINTED, resumes=resumes)
    done(a_run)
    assert log_of(a_run).splitlines()[0] == ("from 5" if resumes else "from 0")


GOES_ON = """
import time
from pathlib import Path

def fit(run):
    state = run.latest("state")
    begin = int(state.read_text()) if state else 0
    for step in range(begin, begin + 3):
        run.log(step, {"loss": step})
        (run.checkpoints / "state").write_text(str(step + 1))
    (run.checkpoints.parent.parent.parent / f"begun-{begin}").touch()
    time.sleep(0 if begin else 60)
    return {"mae": begin}
"""


def test_curves_and_seconds_are_those_of_all_attempts(tmp_path):
    """Where a run goes on from its checkpoints."""
    a_run = work(tmp_path, function=function(tmp_path, GOES_ON), resumes=True)
    with pytest.raises(Interrupted):
        carry_out(a_run, should_stop=(tmp_path / "begun-0").exists)
    kept = json.loads((a_run.stages / a_run.key / "earlier.jsonl").read_text().splitlines()[-1])
    assert kept["seconds"] > 0
    events = carry_out(a_run)
    recorded = result(a_run)
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == [3, 4, 5]
    assert [(row["epoch"], row["values"]) for row in recorded["history"]] == [(i, {"loss": float(i)}) for i in range(6)]
    assert recorded["metrics"] == {"test/mae": 3.0}
    assert recorded["seconds"] > kept["seconds"]
    assert recorded["started"] == int(kept["started"])
    assert not (a_run.stages / a_run.key / "earlier.jsonl").exists()
    assert not (a_run.stages / a_run.key / "checkpoints").exists()  # or the run, done again, would go on from its own end


def test_curves_of_a_command_without_steps_go_on(tmp_path):
    """Its points are numbered after those of the attempt that was stopped."""
    text = """
import pathlib, sys, time
state, begun = pathlib.Path(sys.argv[2]) / "state", pathlib.Path("begun")
begin = 2 if state.exists() else 0
for i in range(begin, begin + 2):
    print(f"loss {i}")
state.write_text("2")
begun.touch()
time.sleep(0 if begin else 60)
print("mae: 1.0")
"""
    a_run = script(tmp_path, text, "{checkpoints}", **PRINTED, curves={"loss": "loss {number}"}, resumes=True)
    with pytest.raises(Interrupted):
        carry_out(a_run, should_stop=(tmp_path / "begun").exists)
    recorded = done(a_run)
    assert [(row["epoch"], row["values"]) for row in recorded["history"]] == [(i + 1, {"loss": float(i)}) for i in range(4)]
    assert [note.split(";")[0] for note in recorded["notes"]] == ["the run was stopped and went on"]


def test_what_a_killed_attempt_logged_is_not_lost(tmp_path):
    """Where a run goes on from its checkpoints: also what nobody had read yet, and after a line that the kill cut short."""
    a_run = work(tmp_path, function=function(tmp_path, GOES_ON), resumes=True)
    folder = a_run.stages / a_run.key
    for name, text in {
        "checkpoints/state": "2",
        "try-1/out/curves.jsonl": '{"step": 1, "loss": 1.0}\n{"step": 9, "lo',
        "earlier.jsonl": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    row = {"epoch": 0, "time": 5, "seconds": 1.0, "values": {"loss": 0.0}}
    kept = json.dumps({"started": 4.0, "seconds": 7.0, "rows": [row]})
    (folder / "earlier.jsonl").write_text(f'\n{kept}\n{{"started": 4.0, "rows": [')
    carry_out(a_run)
    recorded = result(a_run)
    assert [(row["epoch"], row["values"]) for row in recorded["history"]] == [(i, {"loss": float(i)}) for i in range(5)]
    assert recorded["started"] == 4
    assert recorded["seconds"] > 7


def test_a_run_that_takes_too_long_fails(tmp_path):
    error = failure(steps(tmp_path, DEAF, timeout=0.5, grace=0.3))
    assert (error.kind, error.message) == ("timeout", "it had not ended after 0.5 s (task.timeout), and was ended")
    assert "from 0" in error.log


def test_what_a_run_leaves_running_is_ended(tmp_path):
    """Processes that outlive theirs, also in a session of their own, end with the run, which is recorded."""
    text = """
import subprocess, sys
for new in (False, True):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", sys.argv[2]], start_new_session=new)
print("mae: 1.0")
"""
    a_run = script(tmp_path, text, "left-" + tmp_path.name, **PRINTED)
    began = time.monotonic()
    done(a_run)
    assert time.monotonic() - began < 20
    assert not alive("left-" + tmp_path.name)


def test_a_run_may_close_its_output(tmp_path):
    """It is followed to its end all the same."""
    text = (
        "import os, sys, time\nos.close(1); os.close(2)\ntime.sleep(0.5)\nopen(sys.argv[2] + '/metrics.json', 'w').write('{\"mae\": 2}')\n"
    )
    assert done(script(tmp_path, text, "{out}"))["metrics"] == {"test/mae": 2.0}


def test_a_run_that_prints_much_is_read(tmp_path):
    """The log is the end of what was printed, at most a megabyte."""
    a_run = script(tmp_path, "for i in range(200_000): print('line', i, 'x' * 20)\nprint('mae: 1.0')\n", **PRINTED)
    done(a_run)
    assert 2**19 < (a_run.results / a_run.key / "log.txt").stat().st_size <= 2**20
    assert log_of(a_run).endswith("mae: 1.0\n")


@pytest.mark.parametrize("code", ["os.kill(os.getpid(), 9)", "sys.exit(137)"])
def test_a_killed_run_is_told_as_a_killed_worker_is(tmp_path, monkeypatch, code):
    """With what the kernel says of memory, so that it is tried again, if need be alone."""
    monkeypatch.setattr("ablation.tasks.own.run.num_oom_kills", lambda: None)
    event = event_of(failure(script(tmp_path, f"import os, sys\nprint('begun', flush=True)\n{code}", **PRINTED)), "")
    assert event["failure"] == "killed"
    assert event["exit"] == -9
    assert event["may_lack_memory"] is True
    assert "SIGKILL" in event["message"]
    assert "begun" in event["log"]


def test_a_run_that_crashes_is_tried_again(tmp_path):
    event = event_of(failure(script(tmp_path, "import os; os.kill(os.getpid(), 11)", **PRINTED)), "")
    assert (event["failure"], event["exit"], event["message"]) == ("killed", -11, "its process ended with -11")


# --- code --------------------------------------------------------------------------------------------------------------------


def test_code_that_changed_before_is_not_run(tmp_path):
    a_run = script(tmp_path, PRINT, **PRINTED)
    (tmp_path / "train.py").write_text("print('mae: 2.0')")
    with pytest.raises(CodeChanged):
        carry_out(a_run)
    assert not a_run.stages.exists()


def test_code_that_changes_meanwhile_is_not_recorded(tmp_path):
    """Nobody could tell which code the numbers are of; a comment changes nothing."""
    text = "open(__file__, 'a').write({!r})\nprint('mae: 1.0')\n"
    a_run = script(tmp_path, text.format("# a comment\n"), **PRINTED)
    done(a_run)
    a_run = replace(script(tmp_path, text.format("\nprint()\n"), **PRINTED), results=tmp_path / "others")
    events = []
    with pytest.raises(CodeChanged):
        run_module.run(a_run, "cpu", events.append, lambda: False, None)
    assert "was changed while it ran (train.py has changed)" in events[-1]["message"]
    assert not a_run.results.exists()


def test_names_of_curves_never_clash(tmp_path):
    """A curve that is called like a final metric, or like what is recorded anyway, gets another name; a store takes each."""
    text = """
def fit(run):
    run.log(1, {"test/mae": 9, "time/own": 8, "a:b": 7, "../c//d/": 6, "é f.g-h_1": 5, "..": 4, "x" * 300: 3})
    return {"mae": 1}
"""
    values = done(work(tmp_path, function=function(tmp_path, text)))["history"][0]["values"]
    assert values == {"curves/test/mae": 9, "curves/time/own": 8, "a_b": 7, "c/d": 6, "é f.g-h_1": 5, "_": 4, "x" * 200: 3}
    from mlflow.utils.validation import _validate_metric_name

    for name in values:
        _validate_metric_name(name)


def test_a_second_process_waits_for_what_the_first_left(tmp_path):
    """The descriptor that a guard holds keeps others away until nothing is left; whoever is asked to stop gives up."""
    from ablation.tasks.own.process import held

    with held(tmp_path / "processes", lambda: False) as first, held(tmp_path / "processes", after(0.2)) as second:
        assert first is not None
        assert second is None
    with held(tmp_path / "processes", lambda: False) as third:
        assert third is not None
