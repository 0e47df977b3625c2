"""What each command imports: a look at a study costs none of the libraries that it does without. Wall times are in benchmarks/."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recorded import record
from tests.test_layers import HEAVY

ROOT = Path(__file__).parent.parent
WATCHED = (*sorted(HEAVY), "sqlalchemy")
CODE = f"""
import json, os, sys
words = {{}}
real = sys.stderr.write
def noted(text):
    said = text.decode() if isinstance(text, bytes) else text
    if said:
        words.setdefault("first", [said, [name for name in {WATCHED} if name in sys.modules]])
    return real(text)
sys.stderr.write = noted
from ablation.cli import cli
try:
    cli.main(sys.argv[1:], prog_name="ablate", standalone_mode=False)
finally:
    found = [name for name in {WATCHED} if name in sys.modules]
    json.dump([words.get("first"), found], open("imported.json", "w"))
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory, empty_database):
    """A recorded study, and what a command in a process of its own imports there, as a set; the first words come with it."""
    folder = tmp_path_factory.mktemp("recorded")
    record(folder, empty_database, ["--device", "cpu"], ladder={"baseline": {}, "ls": {"smoothing": {"epsilon": 0.1}}})

    def call(*words):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", CODE, *words], check=True, capture_output=True, text=True, cwd=folder, env=environment)
        first, names = json.loads((folder / "imported.json").read_text())
        assert done.stdout, done.stderr
        return set(names), first

    return call


def test_what_commands_import(imported):
    """Nothing for the status; no torch for what is recorded, nor MLflow or timm for a look, once the code is known."""
    assert imported("status")[0] == set()
    file = "tiny.yaml"
    for words in (["techniques", "focal"], ["report", file]):
        imported(*words)  # what it finds of the code is kept
    assert imported("techniques", "focal")[0] <= {"pydantic", "numpy"}
    assert not imported("report", file)[0] & {"torch", "timm", "mlflow", "sqlalchemy", "sklearn", "matplotlib", "seaborn"}
    assert not imported("compare", "baseline", "ls", "--file", file)[0] & {
        "torch",
        "timm",
        "mlflow",
        "sqlalchemy",
        "sklearn",
        "matplotlib",
        "seaborn",
    }
    assert not imported("show", "ls", "--file", file)[0] & {"timm", "torchvision", "mlflow", "sqlalchemy", "pandas", "scipy", "matplotlib"}
    imported("run", file, "--device", "cpu")  # notes the command, if it is another one than before
    assert not imported("run", file, "--device", "cpu")[0] & {"timm", "torchvision", "mlflow", "sqlalchemy", "sklearn", "matplotlib"}
    assert not imported("plan", file)[0] & {"timm", "torchvision", "mlflow", "sqlalchemy", "pandas", "scipy", "matplotlib"}


def test_a_run_says_something_before_it_imports(imported):
    """The first words of a run, even into a log, come before anything that takes long."""
    first = imported("run", "tiny.yaml", "--device", "cpu")[1]
    assert first == ["reading tiny.yaml ...\n", []]
