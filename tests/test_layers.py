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

# Each line may import from itself, if it is a package, and from the lines above it.
LAYERS = (
    "errors",
    "signals",
    "memory",
    "files",
    "randomness",
    "yamlfile",
    "invocation",
    "techniques",
    "contracts",
    "data",
    "groups",
    "config",
    "matrix",
    "catalogue",
    "schema",
    "training",
    "evaluation",
    "keys",
    "worker",
    "export",
    "labels",
    "probing",
    "packing",
    "plan",
    "tracking",
    "report",
    "progress",
    "explain",
    "preparation",
    "recorder",
    "executors",
    "scheduler",
    "commands",
    "watching",
    "looking",
    "verify",
    "cli",
    "__main__",
)
FIGURES = {
    f"report.figures.{room}"
    for room in ("style", "page", "matrices", "classes", "curves", "differences", "waterfall", "cost", "reliability")
}
# Where an outside library may be imported.
PLACES = {
    "mlflow": {"tracking.store"},
    "ray": {"executors.ray"},
    "click": {"cli"},
    "seaborn": {"report.figures.style", "report.figures.matrices"},
    "matplotlib": FIGURES,
    "timm": {"techniques.models", "techniques.cifar_resnet", "executors.local"},  # local: imported ahead of use
    "yaml": {"yamlfile", "recorder", "verify"},  # the last two: written, not read
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}


def layer(module):
    """The line of a module of ours: its name, or its package's."""
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
def test_every_module_has_its_line(module):
    """Each module stands in the list of layers."""
    assert layer(module) in LAYERS


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    """A module imports from the lines above its own, also within functions."""
    above = set(LAYERS[: LAYERS.index(layer(module)) + 1])
    wrong = {name for name in ours(imports(module, at_once=False)) if layer(name) not in above}
    assert not wrong, f"{module} imports {sorted(wrong)}"


def test_no_circles():
    """Within a package, too, no module is imported by what it imports."""
    graph = {module: ours(imports(module, at_once=True)) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("library", PLACES)
def test_one_library_one_place(library):
    """An outside library is imported in its place alone, within functions too."""
    found = {module for module in MODULES if any(name.partition(".")[0] == library for name in imports(module, at_once=False))}
    assert found <= PLACES[library]


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
