"""The identity of a run of one's own training code: what changes it, and what does not."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ablation.errors import ConfigError
from ablation.study.metrics import Metric
from ablation.study.params import moved_params
from ablation.system import file_digests
from ablation.tasks.own import code, keys, packages
from ablation.tasks.own.definition import DataPath, Definition, Source
from ablation.techniques.technique import allow_code

MAE = Metric("test/mae", "mae", "lower", "", None)
MODULE = '''
"""A module."""

import json

import numpy as np

from own_helper import scale
from own_package.net import Net

LIMIT = 3


def train(run, *, lr: float = 0.1, width: int = 4):
    """What is run."""
    return {"mae": scale(width) + Net().size + LIMIT}


def unused():
    return 1
'''
HELPER = """
FACTOR = 2


def scale(width):
    # a comment
    return width * FACTOR


def never_used():
    return 1
"""
NET = """
from .blocks import block


class Net:
    size = block()
"""
BLOCKS = "def block():\n    return 1\n"


@pytest.fixture
def function(tmp_path):
    """A function with a helper beside it and a package."""
    (tmp_path / "own_package").mkdir()
    files = {"own_module": MODULE, "own_helper": HELPER, "own_package/__init__": "", "own_package/net": NET, "own_package/blocks": BLOCKS}
    for name, source in files.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    allow_code(tmp_path)
    return Definition(folder=tmp_path, function="own_module:train", metrics=(MAE,))


@pytest.fixture
def command(tmp_path):
    """A command with its script, another file beside it, and folders that hold no code of it."""
    files = {
        "train.py": "import numpy\nimport own_lib\nimport yaml\nimport src.deep.net\nprint(1)\n",
        "own_lib.py": "import torch\n",
        "src/deep/net.py": "x = 1\n",
        "conf.yaml": "a: 1\n",
        ".hidden/a.py": "x = 1\n",
        "env/lib/b.py": "x = 1\n",
        "env/pyvenv.cfg": "",
        "mlruns/c.py": "x = 1\n",
        "build/__pycache__/d.py": "x = 1\n",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    words = shlex.split(f"{sys.executable} train.py --seed {{seed}} {{args}}")
    return Definition(folder=tmp_path, command=tuple(words), metrics=(MAE,))


def edit(path, old, new):
    """Replace a text in a file that has it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def names(definition):
    """The files whose code counts, as seen from the folder."""
    return [path.relative_to(definition.folder).as_posix() for path in keys.code_files(definition)]


# --- the code of a function --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("own_module.py", "+ LIMIT", "- LIMIT", True),
        ("own_module.py", "LIMIT = 3", "LIMIT = 4", True),
        ("own_module.py", "lr: float = 0.1", "lr: float = 0.2", True),
        ("own_helper.py", "width * FACTOR", "width + FACTOR", True),
        ("own_helper.py", "FACTOR = 2", "FACTOR = 3", True),
        ("own_package/net.py", "size = block()", "size = 2", True),
        ("own_package/blocks.py", "return 1", "return 2", True),
        ("own_module.py", '"""What is run."""', '"""What runs."""', False),
        ("own_module.py", "def unused():\n    return 1", "def unused():\n    return 2", False),
        ("own_helper.py", "# a comment", "# another comment", False),
        ("own_helper.py", "never_used():\n    return 1", "never_used():\n    return 2", False),
    ],
)
def test_an_edit_counts_where_the_function_uses_it(function, file, old, new, counts):
    """Within one process, since a run asks again when it ends."""
    before = keys.code_of(function)
    assert keys.code_of(function) == before
    edit(function.folder / file, old, new)
    assert (keys.code_of(function) != before) == counts


def test_a_broken_edit_is_another_code(function):
    """A helper that is no Python any more counts as it is written, and one that is gone as well."""
    found = [keys.code_of(function)]
    for text in ("def scale(width:", "def scale(width):::"):
        (function.folder / "own_helper.py").write_text(text, encoding="utf-8")
        found.append(keys.code_of(function))
    (function.folder / "own_helper.py").unlink()
    found.append(keys.code_of(function))
    assert len(set(found)) == 4


@pytest.mark.parametrize("helper", ["mailbox", "yaml"])
def test_a_helper_that_has_the_name_of_another_module_is_refused(function, helper):
    """A run would import the file beside the study, and an edit of it would change no key; where nothing imports it, it may lie there."""
    (function.folder / f"{helper}.py").write_text("def scale(width):\n    return width\n", encoding="utf-8")
    keys.code_of(function)
    edit(function.folder / "own_helper.py", "FACTOR = 2", f"import {helper}\n\nFACTOR = 2")
    with pytest.raises(ConfigError, match=rf"{helper} is .*{helper}\.py and also .*; expected a name that no other module has"):
        keys.code_of(function)


def test_a_file_with_the_name_of_what_a_run_has_imported_before_is_no_helper(function):
    """A run takes Python's own `types`, as planning does."""
    (function.folder / "types.py").write_text("raise ImportError\n", encoding="utf-8")
    edit(function.folder / "own_helper.py", "FACTOR = 2", "import types\n\nFACTOR = 2")
    keys.code_of(function)


def test_code_that_cannot_be_found_is_refused(function):
    """A function that no statement of its module defines."""
    edit(function.folder / "own_module.py", "def train", "def other")
    edit(function.folder / "own_module.py", "LIMIT = 3", "LIMIT = 3\nglobals().update(train=lambda run: {})")
    with pytest.raises(ConfigError, match="the code of own_module:train was not found"):
        keys.code_of(function)


def test_code_that_is_gone_when_a_run_ends_has_changed(function, command):
    """Which is no failure of the run."""
    for definition, file in ((function, "own_module.py"), (replace(command, code=("train.py",)), "train.py")):
        before = keys.parts_of(definition)
        assert keys.why_changed(definition, before) == ""
        (definition.folder / file).unlink()
        assert "was changed while it ran" in keys.why_changed(definition, before)


@pytest.mark.parametrize(
    "wrapping",
    [
        "import functools\n\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a, **k):\n        return f(*a, **k)\n    return w\n",
        "def deco(f):\n    def w(run, lr=0.1):\n        return f(run)\n    return w\n",
    ],
)
def test_a_decorated_function_counts_with_its_decorator(function, wrapping):
    """Whether or not the decorator keeps the function's name."""
    folder = function.folder
    (folder / "own_deco.py").write_text(wrapping, encoding="utf-8")
    edit(folder / "own_module.py", "def train", "from own_deco import deco\n\n\n@deco\ndef train")
    found = [keys.code_of(function)]
    edit(folder / "own_module.py", "+ LIMIT", "- LIMIT")
    found.append(keys.code_of(function))
    edit(folder / "own_deco.py", "return w\n", "return w  # the same\n")
    assert keys.code_of(function) == found[-1]
    edit(folder / "own_deco.py", "    return w", "    print()\n    return w")
    found.append(keys.code_of(function))
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    "found",
    ['NETS["mlp"]()', 'globals()["plain"]()', "next(c for c in Base.__subclasses__())().size", "SIZE"],
    ids=["registry", "globals", "subclasses", "package"],
)
def test_code_that_is_found_by_another_name_counts(function, found):
    """What a decorator registers, what is looked up in a module, and what a package does when a module of it is imported."""
    folder = function.folder
    (folder / "own_nets").mkdir()
    (folder / "own_nets" / "__init__.py").write_text("import builtins\nsetattr(builtins, 'OWN_SIZE', 5)\n", encoding="utf-8")
    text = (
        "import builtins\nNETS = {}\nSIZE = builtins.OWN_SIZE\n\ndef register(name):\n    return lambda f: NETS.setdefault(name, f)\n\n"
        "@register('mlp')\ndef mlp():\n    return 5\n\ndef plain():\n    return 5\n\nclass Base:\n    size = 1\n\n"
        f"class Net(Base):\n    size = 5\n\ndef build():\n    return {found}\n"
    )
    (folder / "own_nets" / "nets.py").write_text(text, encoding="utf-8")
    edit(folder / "own_module.py", "def train", "from own_nets.nets import build\n\n\ndef train")
    edit(folder / "own_module.py", "+ LIMIT", "+ LIMIT + build()")
    before = keys.code_of(function)
    edit(folder / "own_nets" / ("__init__.py" if found == "SIZE" else "nets.py"), "5", "6")
    assert keys.code_of(function) != before


def test_a_function_that_is_imported_from_elsewhere(function):
    """What the module imports under the name counts where it is written."""
    (function.folder / "own_front.py").write_text("from own_module import train\n", encoding="utf-8")
    front = replace(function, function="own_front:train")
    before = keys.code_of(front)
    edit(function.folder / "own_module.py", "+ LIMIT", "- LIMIT")
    assert keys.code_of(front) != before
    assert "own_module.py" in names(front)


def test_files_and_packages_of_a_function(function):
    """Those of all modules that it uses; packages are those that they import, with Python's version."""
    assert names(function) == ["own_helper.py", "own_module.py", "own_package/blocks.py", "own_package/net.py"]
    found = keys.packages(function)
    assert set(found) == {"numpy", "python"}
    assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


# --- the code of a command ---------------------------------------------------------------------------------------------------------


def test_by_default_every_python_file_counts(command):
    """But for hidden folders, environments, results and caches."""
    assert names(command) == ["own_lib.py", "src/deep/net.py", "train.py"]


def test_files_that_git_ignores_do_not_count(command):
    """Where the folder is in a repository; new files count before they are added. No program is run that the repository names."""
    folder = command.folder
    (folder / ".gitignore").write_text("own_lib.py\nenv\nmlruns\nbuild\n.hidden\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    assert names(command) == ["src/deep/net.py", "train.py"]
    subprocess.run(["git", "-C", str(folder), "add", "-f", "own_lib.py"], check=True)
    assert names(command) == ["own_lib.py", "src/deep/net.py", "train.py"]
    subprocess.run(["git", "-C", str(folder), "config", "core.fsmonitor", f"touch {folder / 'ran'}; false"], check=True)
    (folder / "own_lib.py").unlink()
    assert names(command) == ["src/deep/net.py", "train.py"]
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", ["submodule", "nested", "link", "walked link"])
def test_code_in_repositories_within_and_behind_links_counts(command, tmp_path_factory, kind):
    """git lists neither what is in a submodule, nor in a repository that nobody added, nor behind a link."""
    folder, elsewhere = command.folder, tmp_path_factory.mktemp("elsewhere")
    git = ["git", "-c", "protocol.file.allow=always", "-c", "user.name=a", "-c", "user.email=a@b", "-C"]
    within = folder / "within" if kind == "nested" else elsewhere
    within.mkdir(exist_ok=True)
    (within / "model.py").write_text("SIZE = 1\n", encoding="utf-8")
    if "link" in kind:
        (folder / "within").symlink_to(within)
        (within / "back").symlink_to(folder)
    else:
        for words in (["init", "-q"], ["add", "model.py"], ["commit", "-qm", "model"]):
            subprocess.run([*git, str(within), *words], check=True)
    if kind != "walked link":
        subprocess.run([*git, str(folder), "init", "-q"], check=True)
    if kind == "submodule":
        subprocess.run([*git, str(folder), "submodule", "--quiet", "add", str(within), "within"], check=True)
    assert "within/model.py" in names(command)
    assert names(command).count("train.py") == 1


def test_folders_of_configurations_count(command):
    """As Hydra has them, below the study's folder; results that lie there do not, whatever they are."""
    for name in ("conf/model/base.yaml", "src/configs/a.yml", "mlruns/files/own.py", "mlruns/conf/a.yaml", "data/a.yaml", "conf/a.txt"):
        (command.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (command.folder / name).write_text("size: 1\n", encoding="utf-8")
    expected = ["conf/model/base.yaml", "own_lib.py", "src/configs/a.yml", "src/deep/net.py", "train.py"]
    assert names(command) == expected
    subprocess.run(["git", "init", "-q", str(command.folder)], check=True)
    (command.folder / ".gitignore").write_text("env\nbuild\n.hidden\n", encoding="utf-8")
    assert [name for name in names(command) if "env" not in name] == expected


@pytest.mark.parametrize("is_repository", [True, False])
def test_a_linked_folder_of_configurations_counts(command, tmp_path_factory, is_repository):
    """It counts by the name that it has here, not by that of the folder behind the link."""
    shared = tmp_path_factory.mktemp("shared")
    (shared / "a.yaml").write_text("size: 1\n", encoding="utf-8")
    (command.folder / "conf").symlink_to(shared)
    if is_repository:
        subprocess.run(["git", "init", "-q", str(command.folder)], check=True)
    assert "conf/a.yaml" in names(command)


def test_what_a_script_imports_from_beside_it_counts(command, tmp_path_factory):
    """Where the script lies outside the study's folder: modules and packages, directly or not, and nothing else that lies there."""
    folder = tmp_path_factory.mktemp("code")
    for name, text in {
        "train.py": "import helper, numpy\nfrom nets.blocks import conv\nimport train",
        "helper.py": "import nets.heads as heads, json",
        "nets/__init__.py": "",
        "nets/blocks.py": "from .common import width\nfrom . import more\nfrom .... import above",
        "nets/common.py": "from ..beyond import x",
        "nets/more.py": "",
        "nets/heads.py": "(",
        "nets/other.py": "",
        "other.py": "",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    named = replace(command, command=("python", str(folder / "train.py"), "{seed}"))
    found = {path.relative_to(folder).as_posix() for path in keys.code_files(named) if path.is_relative_to(folder)}
    assert found == {"train.py", "helper.py", "nets/__init__.py", "nets/blocks.py", "nets/common.py", "nets/more.py", "nets/heads.py"}
    before = keys.code_of(named)
    edit(folder / "nets" / "common.py", "x", "y")
    assert keys.code_of(named) != before


def test_globs_name_the_files_that_count(command):
    """Files of any kind, and the script that the command names; a glob without a file is an error with its place."""
    assert names(replace(command, code=("*.py", "**/*.yaml"))) == ["conf.yaml", "own_lib.py", "train.py"]
    assert names(replace(command, code=("src/**/*.py",))) == ["src/deep/net.py", "train.py"]
    for pattern, words in (
        ("*.pyx", "matches no file"),
        ("src/*", "matches no file"),
        ("/abs/*.py", "expected a glob below"),
        ("", "expected a glob"),
    ):
        with pytest.raises(ConfigError, match=words) as error:
            keys.code_files(replace(command, code=("*.py", pattern)))
        assert error.value.path == "task.code.1"


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("train.py", "print(1)", "print(2)", True),
        ("own_lib.py", "import torch", "import torch, numpy", True),
        ("conf.yaml", "a: 1", "a: 2", True),
        ("conf.yaml", "a: 1", "a: 1  # one", True),
        ("train.py", "print(1)", "print(1)  # one", False),
        ("train.py", "import numpy\n", '"""A script."""\nimport numpy\n', False),
        ("src/deep/net.py", "x = 1", "x = 2", False),
    ],
)
def test_an_edit_counts_where_a_glob_names_the_file(command, file, old, new, counts):
    """Python by its syntax tree, other files by their bytes."""
    declared = replace(command, code=("*.py", "*.yaml"))
    before = keys.code_of(declared)
    edit(command.folder / file, old, new)
    assert (keys.code_of(declared) != before) == counts


def test_a_file_that_is_no_python_counts_by_its_bytes(command):
    """Also one for another version of Python; its name counts as well."""
    found = [keys.code_of(command)]
    for text in ("print 1\n", "print 2\n", "\0"):
        (command.folder / "train.py").write_text(text, encoding="utf-8")
        found.append(keys.code_of(command))
    (command.folder / "own_lib.py").rename(command.folder / "own_lib2.py")
    found.append(keys.code_of(command))
    assert len(set(found)) == 5


def test_scripts_outside_the_folder_count_where_the_command_names_them(command, tmp_path_factory):
    """By their place relative to the folder."""
    script = tmp_path_factory.mktemp("elsewhere") / "other.py"
    script.write_text("print(1)\n", encoding="utf-8")
    named = replace(command, command=("python", str(script), "{seed}"))
    before = keys.code_of(named)
    edit(script, "1", "2")
    assert keys.code_of(named) != before


def test_too_many_or_no_files_are_refused(command, monkeypatch, tmp_path_factory):
    """With what to write instead."""
    monkeypatch.setattr(code, "MOST_FILES", 2)
    with pytest.raises(ConfigError, match=r"task\.code: there are 3 Python files below .*; expected at most 2, or the globs"):
        keys.code_files(command)
    empty = replace(command, folder=tmp_path_factory.mktemp("empty"))
    with pytest.raises(ConfigError, match=r"task\.code: there is no Python file below"):
        keys.code_files(empty)


def test_packages_of_a_command_are_those_of_its_interpreter(command, tmp_path):
    """Of this environment, of another one that is only looked at, and of none where nothing is known."""
    assert {"PyYAML", "numpy", "torch", "python"} == set(keys.packages(command))
    other = tmp_path / "other"
    site = other / "lib" / "python3.9" / "site-packages"
    for name, modules in (("numpy", "numpy"), ("unused", "unused"), ("torch_like", "torch")):
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n", encoding="utf-8")
        (info / "top_level.txt").write_text(modules, encoding="utf-8")
    (other / "bin").mkdir()
    (other / "bin" / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (other / "bin" / "python").chmod(0o755)
    (other / "pyvenv.cfg").write_text("", encoding="utf-8")
    expected = {"numpy": "1.5", "torch_like": "1.5", "python": "3.9"}
    assert keys.packages(replace(command, command=(str(other / "bin" / "python"), "train.py"))) == expected
    assert keys.packages(replace(command, command=("other/bin/python", "train.py"))) == expected
    assert keys.packages(replace(command, command=("python", "train.py"), env={"PATH": str(other / "bin")})) == expected
    other.rename(tmp_path / ".venv")
    packages._provided.cache_clear()
    assert keys.packages(replace(command, command=("uv", "run", "train.py"))) == expected
    assert keys.packages(replace(command, command=("uv", "run", "python", "train.py"))) == expected
    assert keys.packages(replace(command, command=("no-such-program", "train.py"))) == {}


# --- the content of a run ------------------------------------------------------------------------------------------------------------


def test_settings_at_their_defaults_change_no_key(function):
    """A new parameter with a default leaves a run as it is; a value that is set counts."""
    plain = keys.content(function, {"lr": 0.1, "width": 4}, 0, "")
    assert keys.content(function, {"lr": 0.1, "width": 5}, 0, "") != plain
    assert keys.content(function, {}, 0, "") == plain


def test_a_default_that_is_computed_counts_by_its_value(tmp_path):
    """The code of the function does not say what it is."""
    (tmp_path / "computed.py").write_text("RATE = 1\ndef fit(run, *, lr=RATE, width=3): ...\n")
    allow_code(tmp_path)
    function = Definition(folder=tmp_path, function="computed:fit", metrics=(MAE,))
    key = keys.content(function, {"lr": 1, "width": 3}, 0, "")
    assert key == keys.content(function, {"lr": 1}, 0, "")
    assert key != keys.content(function, {"width": 3}, 0, "")


def test_a_helper_in_another_folder_counts(tmp_path, monkeypatch):
    """Wherever it is imported from, unless it is installed."""
    (tmp_path / "library").mkdir()
    helper = tmp_path / "library" / "far_helper.py"
    helper.write_text("def scale(x):\n    return x\n")
    (tmp_path / "near.py").write_text("import numpy\nfrom far_helper import scale\ndef fit(run):\n    return scale(numpy.ones(1))\n")
    monkeypatch.syspath_prepend(tmp_path / "library")
    allow_code(tmp_path)
    function = Definition(folder=tmp_path, function="near:fit", metrics=(MAE,))
    assert [path.name for path in keys.code_files(function)] == ["far_helper.py", "near.py"]
    before = keys.code_of(function)
    helper.write_text("def scale(x):\n    return 100 * x\n")
    assert keys.code_of(function) != before


def test_packages_are_those_of_the_python_behind_a_launcher(command):
    """Of `env python train.py`, too."""
    launched = replace(command, command=("env", "A=1", sys.executable, "train.py", "{seed}"))
    assert keys.packages(launched) == keys.packages(replace(command, command=(sys.executable, "train.py", "{seed}")))
    assert "python" in keys.packages(launched)
    assert keys.packages(replace(command, command=("nice", "-n", "5", sys.executable, "train.py"))) == keys.packages(launched)


@pytest.mark.parametrize("launcher", ["conda run -n other", "poetry run", "docker run image", "/opt/bin/apptainer exec image.sif"])
def test_packages_of_an_environment_that_a_launcher_chooses_are_unknown(command, launcher):
    """Those of the first Python on the path would be others."""
    assert keys.packages(replace(command, command=(*launcher.split(), "python", "train.py", "{seed}"))) == {}
    assert "python" in keys.packages(replace(command, command=("./wrapper.sh", sys.executable, "train.py", "{seed}")))


def test_any_file_that_the_command_names_counts(command):
    """A script of another language, too, and with globs that do not name it; not a word that is filled in, nor declared data."""
    (command.folder / "run.sh").write_text("one")
    shell = replace(command, command=("bash", "run.sh", "{seed}"))
    assert "run.sh" in names(shell)
    assert "run.sh" in names(replace(shell, code=("*.py",)))
    before = keys.code_of(shell)
    (command.folder / "run.sh").write_text("other")
    assert keys.code_of(shell) != before
    assert "run.sh" not in names(replace(shell, data=(DataPath(command.folder / "run.sh"),)))


def test_a_file_behind_an_equals_sign_counts(command):
    """As options and Hydra's words have it."""
    (command.folder / "conf.yaml").write_text("lr: 1")
    for word in ("--config=conf.yaml", "config=conf.yaml"):
        named = replace(command, command=("python", "train.py", word, "{seed}"))
        assert "conf.yaml" in names(named)
        assert "conf.yaml" in names(replace(named, code=("*.py",)))


def test_all_settings_of_a_command_count(command):
    """Its base says all of them."""
    assert keys.content(command, {"lr": 0.1}, 0, "") != keys.content(command, {}, 0, "")


def test_what_makes_another_run(command):
    """Seed, data, words, environment variables, threads, metrics and where they are read; not what only watches a run."""
    settings = {"lr": 0.1}
    rmse = replace(MAE, name="test/rmse")
    others = [
        keys.content(definition, settings, seed, data)
        for definition, seed, data in [
            (command, 0, ""),
            (command, 1, ""),
            (command, 0, "data"),
            (replace(command, command=(*command.command, "--fast")), 0, ""),
            (replace(command, env={"A": "1"}), 0, ""),
            (replace(command, threads=2), 0, ""),
            (replace(command, metrics=(MAE, rmse)), 0, ""),
            (replace(command, sources={"test/mae": Source(pattern="mae (.*)")}), 0, ""),
            (replace(command, sources={"test/mae": Source(file="a.json", at="mae")}), 0, ""),
        ]
    ]
    assert len(set(others)) == len(others)
    watching = replace(
        command, timeout=5.0, grace=1.0, resumes=True, curves={"loss": "(.*)"}, metrics=(replace(MAE, margin=1.0, unit="m"),)
    )
    assert keys.content(watching, settings, 0, "") == others[0]


def test_the_environment_is_code_packages_and_device(function, monkeypatch):
    """Each of them makes another key of the same content."""
    found = [keys.environment(function, "cpu"), keys.environment(function, "mps")]
    monkeypatch.setattr(keys, "versions", lambda *words: {"numpy": "0.1"})
    found.append(keys.environment(function, "cpu"))
    edit(function.folder / "own_helper.py", "FACTOR = 2", "FACTOR = 3")
    found.append(keys.environment(function, "cpu"))
    assert len(set(found)) == 4
    assert keys.with_environment("content", found[0]) != keys.with_environment("content", found[1])
    assert keys.device_class("cpu") == "cpu"


# --- data ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """A folder of data with a file within a folder."""
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.csv").write_text("1,2\n", encoding="utf-8")
    (folder / "y.csv").write_text("3\n", encoding="utf-8")
    return folder


def digest_of(path, by="content"):
    return keys.data_of(Definition(folder=path.parent, function="a:b", data=(DataPath(path, by),)))


def test_data_count_by_their_content(data, tmp_path):
    """And by the names of files within a folder, wherever it lies; times do not matter."""
    before = digest_of(data)
    os.utime(data / "y.csv", (1, 1))
    assert digest_of(data) == before
    data.rename(tmp_path / "moved")
    assert digest_of(tmp_path / "moved") == before
    (tmp_path / "moved" / "y.csv").rename(tmp_path / "moved" / "z.csv")
    renamed = digest_of(tmp_path / "moved")
    (tmp_path / "moved" / "z.csv").write_text("4\n", encoding="utf-8")
    assert len({before, renamed, digest_of(tmp_path / "moved")}) == 3


def test_a_listing_counts_by_sizes_and_times(data):
    """No content is read."""
    before = digest_of(data, "listing")
    assert before != digest_of(data)
    status = (data / "y.csv").stat()
    (data / "y.csv").write_text("4\n", encoding="utf-8")
    os.utime(data / "y.csv", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_of(data, "listing") == before
    os.utime(data / "y.csv", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest_of(data, "listing") != before


def test_files_are_read_once(data, monkeypatch):
    """Until their size, time or inode is another; those that were just written are read again."""
    read = []
    digest = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda path: read.append(path.name) or digest(path))
    before = digest_of(data)
    assert digest_of(data) == before
    assert sorted(read) == ["x.csv", "x.csv", "y.csv", "y.csv"]
    for path in (data / "a" / "x.csv", data / "y.csv"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    read.clear()
    assert [digest_of(data), digest_of(data)] == [before, before]
    assert sorted(read) == ["x.csv", "y.csv"]
    read.clear()
    (data / "y.csv").write_text("5\n", encoding="utf-8")
    assert digest_of(data) != before
    assert read == ["y.csv"]


def test_digests_are_found_where_nothing_can_be_kept(data, monkeypatch, tmp_path):
    """A cache that is no folder, or no database, is not used."""
    before = digest_of(data)
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    assert digest_of(data) == before
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "files.sqlite").write_text("no database" * 1000, encoding="utf-8")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    assert digest_of(data) == before


@pytest.mark.parametrize("by", ["content", "listing"])
def test_data_that_cannot_be_read_are_told(data, by):
    """A link to nothing, a link in a circle, a pipe, and a path without anything."""
    places = {"nowhere": "a link to nothing", "circle": "a link that leads back to a folder above it", "pipe": "it is no file"}
    for name, words in places.items():
        path = data / "a" / name
        os.mkfifo(path) if name == "pipe" else path.symlink_to(data if name == "circle" else data / "nothing")
        with pytest.raises(ConfigError, match=rf"task\.data\.0: .*{name} cannot be read: {words}; expected files that can be read"):
            digest_of(data, by)
        path.unlink()
    with pytest.raises(ConfigError, match=r"task\.data\.0: there is no .*missing; expected a file or folder that the code reads"):
        digest_of(data.parent / "missing", by)


def test_files_without_permission_are_told(data, monkeypatch):
    """With the reason of the system."""

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(file_digests, "file_digest", denied)
    with pytest.raises(ConfigError, match=r"x\.csv cannot be read: permission denied"):
        digest_of(data)


def test_links_to_files_and_folders_are_followed(data, tmp_path):
    """They count by what they lead to."""
    before = digest_of(data)
    (data / "y.csv").rename(tmp_path / "y.csv")
    (data / "y.csv").symlink_to(tmp_path / "y.csv")
    (data / "a").rename(tmp_path / "a")
    (data / "a").symlink_to(tmp_path / "a")
    assert digest_of(data) == before


# --- what is kept ----------------------------------------------------------------------------------------------------------------------


def test_moved_settings_are_those_that_both_have():
    """What only one of two runs has, and which run it is, does not matter."""
    assert moved_params({"lr": "0.1", "old": "1", "arm": "a", "seed": "0"}, {"lr": "0.2", "new": "1", "arm": "b", "seed": "1"}) == ["lr"]
    assert moved_params({"lr": "0.1", "x": "none"}, {"lr": "0.1", "x": "null"}) == []
