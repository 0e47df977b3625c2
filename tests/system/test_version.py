"""The version, told without an installation; and the first words of a command."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ablation.system.invocation import first_words
from ablation.system.version import version

ROOT = Path(__file__).parents[2]
CODE = "import sys; sys.path.insert(0, '.'); from ablation.cli import cli; cli.main(['--version'], standalone_mode=False)"


def test_the_version_is_that_of_the_project():
    """As pyproject.toml has it."""
    assert version() == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize(("with_project", "expected"), [(True, "9.8.7\n"), (False, "unknown\n")])
def test_a_checkout_needs_no_installation(tmp_path, monkeypatch, with_project, expected):
    """A copy of the package says the version of the project that it lies in; a mere copy has none."""
    shutil.copytree(ROOT / "ablation", tmp_path / "ablation", ignore=shutil.ignore_patterns("__pycache__"))
    if with_project:
        text = (ROOT / "pyproject.toml").read_text().replace(f'version = "{version()}"', 'version = "9.8.7"', 1)
        (tmp_path / "pyproject.toml").write_text(text)
    hidden = f"import importlib.metadata as m; m.version = lambda name: (_ for _ in ()).throw(m.PackageNotFoundError(name)); {CODE}"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == expected


@pytest.mark.parametrize(
    ("command", "options", "is_terminal", "expected"),
    [
        ("run", {"file": "a.yaml", "profile": None}, False, "reading a.yaml ..."),
        ("run", {"file": "a.yaml", "profile": "quick"}, True, "reading a.yaml (profile quick) ..."),
        ("plan", {"file": "a.yaml", "profile": "quick"}, True, "reading a.yaml (profile quick) ..."),
        ("plan", {"file": "a.yaml", "profile": "quick"}, False, ""),
        ("report", {"file": None, "profile": None}, True, "reading what is here ..."),
        ("status", {"follow": False}, True, ""),
    ],
)
def test_first_words(command, options, is_terminal, expected):
    """A run says to everyone what it reads, other commands to a terminal, and what answers at once says nothing."""
    assert first_words(command, options, is_terminal=is_terminal) == expected
