"""Imports point one way, each outside library has one place, and the command answers before anything heavy is imported."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ablation"

# The rooms, from the ground up; each may import from itself and from those before it. CONTRIBUTING.md says what lives where.
ROOMS = (
    "errors",
    "system",
    "formatting",
    "techniques",
    "study",
    "data",
    "tracking",
    "training",
    "tasks",
    "planning",
    "report",
    "running",
    "commands",
    "cli_group",
    "cli",
    "__main__",
)
# What knows neither images nor classes: it asks the Protocol in study.task.
BEHIND_THE_TASK = ("study", "tracking", "planning", "running")
DRAWING = (
    "style",
    "vector",
    "fonts",
    "page",
    "dots",
    "sweeps",
    "recall",
    "ranking",
    "matrices",
    "classes",
    "curves",
    "differences",
    "waterfall",
)
FIGURES = {f"report.figures.{room}" for room in (*DRAWING, "cost", "reliability")}
# Where an outside library may be imported.
PLACES = {
    "mlflow": {"tracking.store", "tracking.api", "tracking.rows", "tracking.transactions"},
    "click": {"cli", "cli_group"},
    "seaborn": {"report.figures.style"},
    "matplotlib": FIGURES,
    "timm": {"techniques.models", "techniques.cifar_resnet"},
    "ray": {"running.executors.ray"},
    "yaml": {"study.yamlfile", "running.recorder.contents", "commands.verify"},  # the last two: written, not read
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}


def room(module):
    """The room of a module of ours."""
    return module.partition(".")[0]


def imported(node, module):
    """The modules that a statement imports, ours without `ablation.` before them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{module} imports by a relative name"
    if node.module == "ablation":
        return [f"ablation.{alias.name}" for alias in node.names]
    inside = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name.removeprefix("ablation.") in MODULES else str(node.module) for name in inside]


def imports(module, *, at_once):
    """What a module imports: where it is imported itself, or with what its functions import later."""
    nodes = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return {name for node in (nodes.body if at_once else ast.walk(nodes)) for name in imported(node, module)}


def ours(names):
    return {name.removeprefix("ablation.") for name in names if name.startswith("ablation.")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    """A module lives in a room, and imports from its own and those below, also within functions."""
    assert room(module) in ROOMS
    below = set(ROOMS[: ROOMS.index(room(module)) + 1])
    wrong = {name for name in ours(imports(module, at_once=False)) if room(name) not in below}
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in BEHIND_THE_TASK])
def test_the_engine_knows_no_kind_of_work(module):
    """What stands behind the Protocol of a kind of work imports neither one nor what trains."""
    wrong = {name for name in ours(imports(module, at_once=False)) if room(name) in ("tasks", "training", "data")}
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    """None is longer than 45 lines."""
    nodes = [node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    assert not [node.name for node in nodes if node.end_lineno - node.lineno + 1 > 45]


def test_every_room_says_what_lives_there():
    """The first line of a package is a sentence about it."""
    for path in PACKAGE.rglob("__init__.py"):
        sentence = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(sentence) > 20, path
        assert sentence.endswith("."), path


def test_the_map_is_the_order_of_the_rooms():
    """CONTRIBUTING.md has a line for each room, from the roof down."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| room, from the roof down")[2].partition("\n\n")[0]
    lines = [re.findall(r"`(\w+)[/.`]", line.split("|")[1]) for line in text.splitlines()[2:]]
    assert [name for names in lines for name in reversed(names)] == ["__main__", *ROOMS[-2::-1]]


def test_the_report_knows_no_kind_of_work():
    """The report imports no task, and of training only how calibration and ranking are reckoned."""
    own = {name for module in MODULES if room(module) == "report" for name in ours(imports(module, at_once=False))}
    assert {name for name in own if room(name) in ("tasks", "training", "data")} == {"training.evaluation", "training.ranking"}


def test_no_circles():
    """Within a room, too, no module is imported by what it imports."""
    graph = {module: ours(imports(module, at_once=True)) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("library", PLACES)
def test_one_library_one_place(library):
    """An outside library is imported in its place alone, within functions too."""
    places = {module for module in MODULES if any(name.partition(".")[0] == library for name in imports(module, at_once=False))}
    assert places <= PLACES[library]


def test_import_of_the_package_costs_nothing():
    """`import ablation` imports no other module of ours, so that a script pays for what it uses."""
    code = "import sys, ablation; print(sorted(name for name in sys.modules if name.startswith('ablation.')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "seaborn",
    "pydantic",
    "pyarrow",
    "ray",
}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["report", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    """`ablate --help` is answered without any of the libraries that take long to import."""
    command = [sys.executable, "-X", "importtime", "-m", "ablation", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    modules = {match[1].partition(".")[0] for match in re.finditer(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE)}
    assert "click" in modules
    assert not modules & HEAVY
    assert done.stdout
