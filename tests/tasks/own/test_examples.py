"""The examples in studies/own run, as the documents say; the documents show them as they are."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from ablation.tracking.store import Store

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "studies" / "own"
PAGE = (ROOT / "docs" / "own-training.md").read_text(encoding="utf-8")
ARMS = {"diabetes": ("baseline", "shallow"), "lm": ("baseline", "wide"), "segmentation": ("ce", "dice")}
METRICS = {"diabetes": "test/mae", "lm": "test/perplexity", "segmentation": "test/iou"}
CURVES = {"diabetes": set(), "lm": {"val/loss"}, "segmentation": {"train/loss", "val/iou"}}


@pytest.fixture(params=ARMS)
def name(request):
    return request.param


@pytest.fixture
def example(own, name, monkeypatch):
    """A command on one of the examples, in a folder with a copy of them, where `python` is the one that has the libraries."""
    shutil.copytree(EXAMPLES, own.folder / "own", ignore=shutil.ignore_patterns("__pycache__", "mlruns"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def call(command, *words):
        return own(command, f"own/{name}.yaml", *words, *(("--allow-code",) if command != "report" else ()))

    return call


def recorded(name):
    runs = [run for run in Store.open().runs_of(name) if run["tags"].get("ablation.kind") == "run"]
    return {(run["tags"]["ablation.arm"], int(run["tags"]["ablation.seed"])): run for run in runs}


def test_an_example_runs_once_and_its_report_is_made(own, example, name):
    """Two arms of it are run, recorded with their curves, and not run again; the report shows them."""
    words = [part for arm in ARMS[name] for part in ("--arm", arm)] + ["--seed", "0"]
    done = example("run", *words)
    assert done.status == 0, done.err
    runs = recorded(name)
    assert {*runs} == {(arm, 0) for arm in ARMS[name]}
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    values = [run["metrics"][METRICS[name]] for run in runs.values()]
    assert len(set(values)) > 1
    curves = {point.name for point in Store.open().curves(runs[ARMS[name][0], 0]["run_id"])}
    assert CURVES[name] <= curves
    again = example("run", *words)
    assert (again.status, again.epochs) == (0, 0)
    assert "2 runs (2 recorded)" in again.err
    assert recorded(name) == runs
    shown = example("report", "--format", "markdown")
    assert shown.status == 0, shown.err
    assert ARMS[name][1] in shown.out


def test_an_example_repeats(example, name):
    """So does check-task say, and of the one that resumes, that it does."""
    done = example("check-task", *(("--set", "epochs=4") if name == "segmentation" else ()))
    assert done.status == 0, (done.out, done.err)
    assert "two runs come out the same, bit for bit" in done.out
    assert ("and resumed comes out the same" in done.out) == (name == "segmentation")


# --- the documents -------------------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_examples_as_they_are():
    """Each block that names a file of the repository has what that file has, but for the comments at its head."""
    blocks = re.findall(r"```(?:python|yaml)\n# (studies/\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert {file for file, _ in blocks} == {
        *(f"studies/own/{file}" for file in ("diabetes.py", "diabetes.yaml", "lm.yaml", "segmentation.py", "segmentation.yaml"))
    }
    for file, block in blocks:
        text = (ROOT / file).read_text(encoding="utf-8")
        whole = text if file.endswith(".py") else "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        assert block in whole, file
        assert whole.endswith(block), file


def test_the_page_links_to_files():
    """Every link leads somewhere."""
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("template", ["own-function", "own-command"])
def test_what_init_writes_runs_as_it_is(own, monkeypatch, template):
    """The commands that it names work: the plan, and an arm of the small profile."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert own("init", template).status == 0
    planned = own("plan", "experiments.yaml", "--allow-code")
    assert planned.status == 0, planned.err
    done = own("run", "experiments.yaml", "--profile", "try", "--arm", "baseline", "--allow-code")
    assert done.status == 0, done.err


def test_the_page_has_the_message_that_a_misspelt_setting_gets(own):
    """Word for word."""
    shutil.copy(EXAMPLES / "diabetes.py", own.folder)
    text = (EXAMPLES / "diabetes.yaml").read_text(encoding="utf-8")
    (own.folder / "diabetes.yaml").write_text(text.replace("shallow: {max_depth: 2}", "deep: {max_dept: 12}"), encoding="utf-8")
    refused = own("plan", "diabetes.yaml", "--allow-code")
    (message,) = (line for line in refused.err.splitlines() if line.startswith("error: "))
    assert f"    {message}\n" in PAGE
