"""What other programs leave in the environment changes nothing."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from ablation.system import environment
from ablation.training.devices import set_up_process

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def settled(monkeypatch):
    """`settle` under variables, in an environment that is put back afterwards; the variables that are left."""

    def settle(**variables):
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.setattr(os, "environ", dict(variables))
            patch.setattr(sys, "warnoptions", ["error"])
            environment.settle()
            return os.environ

    return settle


@pytest.mark.parametrize("name", environment.NUMERIC)
def test_what_would_change_bits_is_dropped_and_told(settled, capsys, name):
    """One line names it."""
    assert name not in settled(**{name: "1"})
    assert capsys.readouterr().err.count(name) == 1


def test_what_this_tool_sets_itself_is_left_alone(settled, capsys, monkeypatch):
    """A process that a command or a test of ours starts has it from there, and nothing is told."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", {})
        set_up_process(torch.device("cpu"))
        ours = {name: os.environ[name] for name in environment.NUMERIC if name in os.environ}
    assert ours
    assert settled(**ours).items() >= ours.items()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", [*environment.OF_MLFLOW, *environment.OF_PYTHON, *environment.OF_GIT, "MLFLOW_SQLALCHEMYSTORE_POOLCLASS"])
def test_what_is_meant_for_others_is_dropped(settled, capsys, name):
    """Runs, experiments, servers, filters and repositories of others are none of ours."""
    assert name not in settled(**{name: "1"})
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "is_kept"),
    [
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "many", False),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3", True),
        ("MLFLOW_LOGGING_LEVEL", "loud", False),
        ("MLFLOW_LOGGING_LEVEL", "debug", True),
        ("MLFLOW_TRACKING_USERNAME", "me", True),
        ("OMP_NUM_THREADS", "4", True),
        ("ATEN_CPU_CAPABILITY", "default", True),  # it is part of the device's class, in each key
    ],
)
def test_nonsense_is_dropped_and_the_rest_is_kept(settled, name, value, is_kept):
    """A count that is none would be a traceback; what is meant for this tool stays."""
    assert (name in settled(**{name: value})) == is_kept


@pytest.mark.parametrize("name", environment.QUIET)
@pytest.mark.parametrize("nonsense", ["", "loud", "yes"])
def test_mlflow_says_nothing_in_our_output_unless_it_is_told_to(settled, name, nonsense):
    """Neither where a run of a server is seen, nor how much of a file was fetched; a value that MLflow would refuse counts as none."""
    ours = environment.QUIET[name]
    theirs = "false" if ours == "true" else "True"
    assert settled()[name] == settled(**{name: nonsense})[name] == ours
    assert settled(**{name: theirs})[name] == theirs


def test_a_store_of_others_keeps_its_settings(settled):
    """The pool of a server's database is chosen by whoever names the database."""
    assert "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE" in settled(MLFLOW_SQLALCHEMYSTORE_POOL_SIZE="5", MLFLOW_TRACKING_URI="postgresql://x/y")


STRAYS = ["random", "yaml", "click", "mlflow", "tempfile", "json", "torch", "selectors", "logging", "signal"]


def test_a_file_here_that_is_called_like_a_library_is_not_imported(tmp_path):
    """`python -m ablation`, and the processes that it starts, import libraries from where they are installed."""
    for name in STRAYS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    for command in (["--version"], ["techniques", "mixup"]):
        done = subprocess.run(
            [sys.executable, "-m", "ablation", *command], cwd=tmp_path, env=variables, capture_output=True, timeout=120, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


HOSTILE = [{"PYTHONWARNINGS": "error"}, {"PYTHONOPTIMIZE": "2"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"TMPDIR": "/nowhere"}]
HOSTILE += [{"COLUMNS": "wide"}, {"HOME": "/nowhere"}, {"TERM": "dumb", "FORCE_COLOR": "1"}, {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "x"}]


@pytest.mark.parametrize("variables", HOSTILE)
def test_commands_answer_in_any_environment(tmp_path, variables):
    """What a shell, a notebook or a service sets ends no command with a traceback."""
    names = os.environ | {"PYTHONPATH": ROOT} | variables
    done = subprocess.run(
        [sys.executable, "-m", "ablation", "status"], cwd=tmp_path, env=names, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert b"error: nothing was run here yet" in done.stderr
    assert b"Traceback" not in done.stderr
