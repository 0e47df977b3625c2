"""Studies of one's own training code from the file to the report: mistakes, edits, failures, and every command."""

import json
import os
import re
import sys

import pytest

from ablation.tasks.own import run as process
from ablation.tracking.store import Store
from tests.own import ARMS, FUNCTION, SCRIPT, write_command, write_function

WRITE = {"function": write_function, "command": write_command}
PLAIN = {"ladder": {"baseline": {}, "wide": {"width": 8}}}


@pytest.fixture(params=WRITE)
def kind(request):
    return request.param


@pytest.fixture
def no_process(monkeypatch):
    """A run's process must not be started."""

    def refuse(*words, **options):
        raise AssertionError(f"started {words}")

    monkeypatch.setattr(process, "GuardedProcess", refuse)


def run(own, file, *words, command="run", **options):
    return own(command, file, *words, "--allow-code", **options)


def recorded(name):
    """(arm, seed) -> the newest record of that run."""
    runs = [run for run in Store.open().runs_of(name) if run["tags"].get("ablation.kind") == "run"]
    return {(run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"])): run for run in reversed(runs)}


def states(own, file, *words):
    """How many runs of a plan have each state."""
    planned = json.loads(run(own, file, "--json", *words, command="plan").out)["runs"]
    return {state: sum(one["state"] == state for one in planned) for state in {one["state"] for one in planned}}


# --- mistakes ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "words", "told"),
    [
        ({"base": {"widht": 3}}, (), "base: unknown setting 'widht'; expected one of fault, lr, width. Did you mean 'width'?"),
        ({"variants": {"a": {"widht": 3}}}, (), "variants.a: unknown setting 'widht'"),
        ({"ladder": {"a": {}, "b": {"widht": 3}}}, (), "ladder.b: unknown setting 'widht'"),
        ({"sweeps": {"s": {"over": {"widht": [3]}}}}, (), "widht"),
        ({"conditions": {"c": {"widht": 3}}}, (), "conditions.c: unknown setting 'widht'"),
        ({"profiles": {"try": {"base": {"widht": 3}}}}, ("--profile", "try"), "profiles.try.base: unknown setting 'widht'"),
        (PLAIN, ("--set", "widht=3"), "--set"),
        (PLAIN, ("--arm", "wied"), "--arm: "),
        ({"variants": {"a": {"of": "basline", "width": 3}}}, (), "variants.a.of: "),
        ({"ladder": {"a": {"width": "wide"}}}, (), "ladder.a"),
        ({"ladder": {"a": {"width": 2.5}}}, (), "found 2.5; expected a whole number"),
        ({"ladder": {"a": {"lr": True}}}, (), "found True; expected a number"),
        (
            {"task": "json:train"},
            (),
            "task.function: there is no json.py beside the study, and the module json of ",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_starts_nothing(own, no_process, sections, words, told):
    """Its place, what was found, what was expected, the nearest name; status 2."""
    refused = run(own, write_function(own.folder, **sections), *words)
    assert refused.status == 2
    error = refused.err.splitlines()[-1]
    assert error.startswith("error: "), refused.err
    assert told in error
    if "widht" in error:
        assert "Did you mean 'width'?" in error


def test_mistakes_in_a_command_are_told_alike(own, no_process):
    """Its base says what there is."""
    told = {
        "variants": ({"a": {"widht": 3}}, "unknown setting 'widht'; expected one of fast, lr, width. Did you mean 'width'?"),
        "ladder": ({"a": {"lr": "high"}}, "expected a number"),
    }
    for section, (arms, words) in told.items():
        refused = run(own, write_command(own.folder, **{section: arms}))
        assert (refused.status, words in refused.err) == (2, True), refused.err
    whole = run(own, write_command(own.folder, base={"lr": 20}, ladder={"a": {"lr": 0.5}}))
    assert "found 0.5; expected a whole number, as base has there: 20.0 in base makes it a number" in whole.err
    no_seed = {"command": "python script.py {args}"}
    assert "every seed would be the same run" in run(own, write_command(own.folder, task=no_seed, **PLAIN)).err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("pythn script.py {seed} {args}", "there is no program 'pythn'; expected one that is installed, or a path"),
        ("python3 scrpt.py {seed} {args}", "expected a script. Did you mean 'script.py'?"),
        ("python3 -u script.py {seed} scrpt.py {args}", "task.command: there is no scrpt.py in "),
    ],
)
def test_a_program_that_is_not_there_is_told_before_anything_starts(own, no_process, command, told):
    """So is the script that Python is given."""
    refused = run(own, write_command(own.folder, task=command, **PLAIN))
    assert (refused.status, told in refused.err) == (2, True), refused.err


def test_a_program_may_be_on_the_path_that_the_file_sets(own):
    """There it is looked for before anything starts, and by the run."""
    tools = own.folder / "tools"
    tools.mkdir()
    (tools / "trainer").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "trainer").chmod(0o755)
    task = {"command": "trainer script.py --seed {seed} {args}", "code": ["script.py"]}
    file = write_command(own.folder, task=task, ladder={"baseline": {}}, seeds=[0])
    refused = run(own, file)
    assert (refused.status, "there is no program 'trainer'" in refused.err) == (2, True)
    task["env"] = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = run(own, write_command(own.folder, task=task, ladder={"baseline": {}}, seeds=[0]))
    assert done.status == 0, done.err


def test_a_plan_refuses_a_script_that_is_not_there(own, no_process):
    """Whatever is in braces or begins with a dash is none."""
    refused = run(own, write_command(own.folder, task="python3 scrpt.py {seed} {args}", **PLAIN), command="plan")
    assert (refused.status, "expected a script. Did you mean 'script.py'?" in refused.err) == (2, True), refused.err
    planned = run(own, write_command(own.folder, task="python3 script.py --x=a.py {seed} {lr}.py {args}", **PLAIN), command="plan")
    assert planned.status == 0, planned.err


@pytest.mark.parametrize(("place", "resumes", "is_told"), [("", True, True), ("--from={checkpoints}", True, False), ("", False, False)])
def test_a_plan_tells_of_a_command_that_cannot_find_its_checkpoints(own, no_process, place, resumes, is_told):
    """Their folder reaches a command by its place in braces alone."""
    task = {"command": f"python3 script.py --seed {{seed}} {place} {{args}}", "resumes": resumes}
    planned = run(own, write_command(own.folder, task=task, **PLAIN), command="plan")
    assert planned.status == 0, planned.err
    assert ("no {checkpoints} in the command" in " ".join(planned.out.split())) is is_told


@pytest.mark.parametrize("sections", [{"base": {"lr": 0.1}}, {"ladder": {"baseline": {}, "low": {"lr": 0.1}}}])
def test_a_first_parameter_that_is_a_setting_is_told(own, no_process, sections):
    """It is given the run, whatever it is called."""
    refused = run(own, write_function(own.folder, "def train(lr, width=3):\n    return {}\n", **sections))
    assert refused.status == 2
    assert "the first parameter of own_training:train, lr, is given the run, and the file has a setting of that name" in refused.err


def test_nothing_runs_unless_it_is_allowed(own, no_process, kind):
    """Neither when it is planned nor when it shall run."""
    refused = own("run", WRITE[kind](own.folder))
    assert (refused.status, "--allow-code lets it" in refused.err) == (2, True)


# --- edits ---------------------------------------------------------------------------------------------------------------------------


def edited(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_helper_makes_results_stale(own):
    """A comment, a docstring and a function that nobody calls do not; what a stale result allows is what it allows for images."""
    file, helper = write_function(own.folder, **PLAIN), own.folder / "helper.py"
    assert run(own, file).status == 0
    edited(helper, "return 3", "return 4  # another number")
    edited(helper, '"""Smaller for larger widths."""', '"""Larger for smaller widths."""')
    assert states(own, file) == {"done": 4}
    edited(helper, "1 / width", "2 / width")
    assert states(own, file) == {"stale": 4}
    refused = run(own, file)
    assert refused.status == 2
    assert "4 of 4 results were made by other code" in refused.err
    kept = run(own, file, "--rerun", "keep")
    assert (kept.status, kept.epochs) == (0, 0)
    again = run(own, file, "--rerun", "cached")
    assert (again.status, again.epochs) == (0, 8)
    assert states(own, file) == {"done": 4}


def test_an_edited_script_makes_results_stale(own):
    """Only the files that the file names count."""
    file = write_command(own.folder, **PLAIN)
    assert run(own, file).status == 0
    (own.folder / "other.py").write_text("x = 1\n")
    edited(own.folder / "script.py", "args = parser", "# they are read here\nargs = parser")
    assert states(own, file) == {"done": 4}
    edited(own.folder / "script.py", "args.seed / 100", "args.seed / 50")
    assert states(own, file) == {"stale": 4}


def test_a_new_parameter_with_a_default_changes_nothing_but_the_code(own):
    """The settings' identity leaves defaults out, so that `--rerun keep` uses what is there; a changed default is another run."""
    file, code = write_function(own.folder, **PLAIN), own.folder / "own_training.py"
    assert run(own, file).status == 0
    edited(code, 'fault: str = "none"', 'fault: str = "none", extra: int = 0')
    assert states(own, file, "--rerun", "keep") == {"done": 4}
    edited(code, "lr: float = 0.1", "lr: float = 0.3")
    assert states(own, file, "--rerun", "keep") == {"missing": 4}


def test_declared_data_count(own):
    """Its content does, wherever it lies."""
    (own.folder / "table.csv").write_text("1,2\n")
    file = write_function(own.folder, task={"function": "own_training:train", "data": ["table.csv"]}, **PLAIN)
    assert run(own, file).status == 0
    (own.folder / "table.csv").write_text("1,3\n")
    changed = run(own, file, command="plan")
    assert "declared data" in changed.out
    assert states(own, file) == {"missing": 4}


# --- failures ------------------------------------------------------------------------------------------------------------------------

FAULTS = FUNCTION.replace(
    "    run.items(",
    """    if fault == "nan":
        return {"test/mae": float("nan"), "val/mae": 1.0}
    if fault == "missing":
        return {"test/mea": 1.0, "val/mae": 1.0}
    if fault == "double":
        items = ["a"] * 6
    if fault == "bug":
        raise KeyError("colour")
    run.items(""",
)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("nan", "test/mae is nan; expected a finite number"),
        ("missing", "did not return test/mae; found test/mea, val/mae"),
        ("double", "has the item 'a' more than once; expected each once"),
        ("bug", "KeyError: 'colour'"),
    ],
)
def test_a_run_that_fails_fails_alone(own, fault, told):
    """One sentence says why, the others go on; status 1. `log` says where; --rerun retry tries again."""
    file = write_function(
        own.folder, FAULTS, ladder={"baseline": {}, "broken": {"fault": fault}}, variants={"wide": {"width": 8}}, seeds=[0]
    )
    failed = run(own, file)
    assert failed.status == 1
    assert re.search(rf"failed: broken seed 0: .*{re.escape(told)}", failed.err), failed.err
    assert {arm: one["status"] for (arm, _), one in recorded("fun").items()} == {
        "baseline": "FINISHED",
        "broken": "FAILED",
        "wide": "FINISHED",
    }
    assert told in re.sub(r"\s+", " ", own("log", "broken", 0).out)
    again = run(own, file)
    assert (again.status, again.epochs) == (1, 0)
    assert run(own, file, "--rerun", "retry").epochs == 2


def test_a_seed_without_effect_is_told(own):
    """Its interval would mean nothing."""
    code = FUNCTION.replace('run.seed_for("split")', "3").replace("run.seed", "0")
    assert run(own, write_function(own.folder, code, **PLAIN)).status == 0
    assert "seed without effect" in own("report", "--format", "text").out
    assert "seed without effect" in own("report", "--format", "markdown").out


def test_test_items_that_differ_between_arms_are_told(own):
    """Pairing is checked, not promised."""
    code = FUNCTION.replace('split = run.seed_for("split")', "split = width")
    assert run(own, write_function(own.folder, code, **PLAIN)).status == 0
    first_screen = own("report", "--format", "text").out
    assert "test items" in first_screen
    assert "wide" in first_screen


# --- the file's forms ------------------------------------------------------------------------------------------------------------------


def test_every_form_of_arms(own, kind):
    """A ladder, drop-one, a sweep that chooses, a condition and a profile; numbers are those that the code reckons."""
    file = WRITE[kind](
        own.folder, **ARMS, conditions={"slower": {"arms": ["baseline", "wide"], "lr": 0.3}}, profiles={"try": {"seeds": [7]}}
    )
    assert run(own, file).status == 0
    name = {"function": "fun", "command": "com"}[kind]
    runs = recorded(name)
    arms = (
        "baseline",
        "wide",
        "slow",
        "slow/without-wide",
        "slow/without-slow",
        "rate/0.2",
        "rate/0.4",
        "rate/best",
        "slower/baseline",
        "slower/wide",
    )
    assert {*runs} == {(arm, seed) for arm in arms for seed in (0, 1)}
    assert {one["status"] for one in runs.values()} == {"FINISHED"}
    for seed in (0, 1):
        assert runs["wide", seed]["metrics"]["validation/mae"] == pytest.approx(1 / 8 + seed / 100)
        best = min(runs[f"rate/{value}", seed]["metrics"]["validation/mae"] for value in ("0.2", "0.4"))
        assert runs["rate/best", seed]["metrics"]["validation/mae"] == best
    assert run(own, file, "--profile", "try", "--arm", "baseline").status == 0
    assert {*recorded(f"{name}.try")} == {("baseline", 7)}
    for document in ("markdown", "csv"):
        assert "rate/best" in own("report", file, "--format", document).out


def test_the_command_line_overrides_and_selects(own, kind):
    """--set, --arm and --seed mean what they mean for images."""
    file = WRITE[kind](own.folder, **PLAIN)
    done = run(own, file, "--set", "lr=0.7", "--arm", "wide", "--seed", "4")
    assert done.status == 0, done.err
    ((key, one),) = recorded({"function": "fun", "command": "com"}[kind]).items()
    assert key == ("wide", 4)
    assert one["params"]["lr"] == "0.7"


def test_force_runs_all_of_it_again(own):
    """And records it anew."""
    file = write_function(own.folder, **PLAIN)
    assert run(own, file).epochs == 8
    before = {one["run_id"] for one in recorded("fun").values()}
    assert run(own, file, "--rerun", "force").epochs == 8
    assert not before & {one["run_id"] for one in recorded("fun").values()}


def test_a_budget_leaves_what_does_not_fit(own):
    """Once it is known how long a run takes."""
    code = FUNCTION.replace("    split =", "    import time; time.sleep(1.2)\n    split =")
    file = write_function(own.folder, code, **PLAIN)
    assert run(own, file, "--seed", "0").status == 0
    assert "for an unknown time" not in run(own, file, "--seed", "1", "--seed", "2", command="plan").out
    limited = run(own, file, "--seed", "1", "--seed", "2", "--seed", "3", "--budget", "4s")
    assert limited.status == 130
    assert "the budget is used up" in limited.err
    assert 2 < len(recorded("fun")) < 8


PLAIN_SCRIPT = SCRIPT.replace(
    '    print(f"epoch {epoch} val_loss={1 / epoch + args.lr}")', '    print("\\n".join(f"line {i + 20 * epoch - 20}" for i in range(20)))'
)

FILES = """
import json, pathlib, sys

settings, out = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
errors = [settings["lr"] + settings["seed"] / 100 + i / 10 for i in range(4)]
rows = "".join(f"image-{i},{error!r},{'ab'[i % 2]}\\n" for i, error in enumerate(errors))
(out / "items.csv").write_text("item,mae,cluster\\n" + rows)
(out / "curves.jsonl").write_text("".join(json.dumps({"step": i, "val/loss": 1 / i}) + "\\n" for i in (1, 2, 3)))
(out / "same.json").write_text(json.dumps({"split": "abc"}))
(out / "metrics.json").write_text(json.dumps({"mae": sum(errors) / 4}))
(out / "notes.txt").write_text("kept")
(out / "log.json").write_text(json.dumps({"eval": {"mae": [3.0, 2.0]}}))
"""


def test_a_command_hands_back_files(own):
    """Metrics, curves, items with clusters, what is the same, and a number in a file of its own; anything else is kept."""
    task = {"command": "python3 script.py {settings} {out}", "code": ["script.py"]}
    metrics = {"mae": {"better": "lower"}, "val/mae": {"better": "lower", "from": {"file": "log.json", "at": "eval.mae.-1"}}}
    file = write_command(own.folder, FILES, task=task, metrics=metrics, curves={}, **PLAIN)
    assert run(own, file).status == 0
    one = recorded("com")["baseline", 1]
    assert one["metrics"]["test/mae"] == pytest.approx(0.1 + 0.01 + 0.15)
    assert one["metrics"]["validation/mae"] == 2.0
    assert {point.step for point in Store.open().curves(one["run_id"]) if point.name == "val/loss"} == {1, 2, 3}
    assert json.loads(one["tags"]["ablation.same"]).keys() == {"split", "test items"}
    assert Store.open().artifact(one["run_id"], "files/notes.txt").read_text() == "kept"
    report = own("report", file, "--format", "markdown").out
    assert "Same across arms, checked: test items, split;" in report


# --- the other commands ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def done(own, kind):
    """A recorded study of that kind."""
    file = WRITE[kind](own.folder, **PLAIN)
    assert run(own, file).status == 0
    return file


def test_status_log_show_and_compare(own, done):
    """They say what there is, in words that fit."""
    assert "not running" in own("status").out
    log = own("log", "wide", 0).out
    assert "finished" in log
    assert "val/loss" in log
    shown = run(own, "wide", "--file", done, command="show")
    assert shown.status == 0, shown.err
    assert "width" in shown.out
    compared = own("compare", "baseline", "wide", "--file", done)
    assert compared.status == 0, compared.err
    for text in (log, shown.out, compared.out):
        assert not re.search(r"\b(images?|accuracy|points)\b", text), text


def test_log_shows_what_a_run_printed(own):
    """The end of it, also of a run that told no curves."""
    file = write_command(own.folder, PLAIN_SCRIPT, curves={}, **PLAIN)
    assert run(own, file, "--arm", "wide", "--seed", "0").status == 0
    log = own("log", "wide", 0).out
    assert "it printed (the last 20 of 42 lines; ablate ui shows all of them):\n  line 22\n" in log
    assert log.endswith("  validation mae 0.125\n")


def test_a_packed_study_is_read_without_the_code(own, done, monkeypatch):
    """Elsewhere, in every format; so is the store itself."""
    assert own("pack", own.folder / "s.zip").status == 0
    for path in [*own.folder.glob("*.py"), done]:
        path.unlink()
    for words in ((own.folder / "s.zip",), ()):
        report = own("report", *words)
        assert report.status == 0, report.err
        assert "wide" in report.out


def test_clean_deletes_what_is_recorded(own, done):
    """The report is as before."""
    before = own("report", "--format", "csv").out
    assert list((own.folder / "mlruns" / "results").iterdir())
    assert own("clean", "--yes").status == 0
    assert list((own.folder / "mlruns" / "results").iterdir()) == []
    assert own("report", "--format", "csv").out == before
    assert states(own, done) == {"done": 4}


def test_commands_for_images_say_what_to_use_instead(own, done):
    """One sentence each, status 2; nothing is trained."""
    refused = {
        ("verify", "wide", 0): "ablate check-task FILE runs it twice",
        ("export", "wide", own.folder / "model"): "is among the files of each run",
        ("plan", done, "--compile", "--allow-code"): "training code of one's own calls torch.compile itself",
        ("run", done, "--save-every", 5, "--allow-code"): "--save-every: is for image classification; expected none",
        ("run", done, "--part", "1/1", "--save-every", 5, "--allow-code"): "--save-every: is for image classification; expected none",
    }
    for words, told in refused.items():
        answer = own(*words)
        assert (answer.status, told in answer.err) == (2, True), answer.err
        assert len([line for line in answer.err.splitlines() if line.startswith("error: ")]) == 1


def test_data_lists_what_is_declared(own, kind):
    """Each path, how it is known again, and how much it is; a study that declares none is told so."""
    (own.folder / "rows").mkdir()
    for name in "ab":
        (own.folder / "rows" / name).write_bytes(b"x" * 600_000)
    task = {"function": "own_training:train"} if kind == "function" else {"command": "python script.py --seed {seed} {args}"}
    declared = {**task, "data": ["rows", {"path": "rows/a", "by": "listing"}]}
    shown = run(own, WRITE[kind](own.folder, task=declared, **PLAIN), command="data")
    assert shown.status == 0, shown.err
    assert re.search(r"rows +\| the content of each file +\| +2 \| +1 MB", shown.out), shown.out
    assert re.search(r"rows/a +\| the names, sizes and times of its files +\| +1 \| 600 kB", shown.out)
    as_json = json.loads(run(own, "fun.yaml" if kind == "function" else "com.yaml", "--json", command="data").out)
    assert [item["by"] for item in as_json["data"]] == ["content", "listing"]
    assert "no data are declared" in run(own, WRITE[kind](own.folder, **PLAIN), command="data").out


def test_the_report_says_whether_runs_repeat(own, done):
    """First that nobody looked; then, once the next run has noted it, what was found."""
    assert "check-task" in own("report", "--format", "markdown").out
    assert run(own, done, command="check-task").status == 0
    assert run(own, done).epochs == 0
    report = own("report", "--format", "markdown").out
    assert "was not checked" not in report
    assert "gave the same numbers twice" in report


def test_a_study_may_be_run_from_another_folder(own, kind, monkeypatch):
    """Its code and its working folder are those of the file."""
    file = WRITE[kind](own.folder, **PLAIN)
    (own.folder / "elsewhere").mkdir()
    monkeypatch.chdir(own.folder / "elsewhere")
    done = run(own, file, "--arm", "baseline", "--seed", "0")
    assert done.status == 0, done.err
