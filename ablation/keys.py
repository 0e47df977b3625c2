"""What identifies a stage: its content (settings, data, seed, what came before) and its environment (code, versions, device)."""

import ast
import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ablation.config import WATCHERS, Settings, Stage
from ablation.errors import ConfigError
from ablation.techniques.augmentations import Resize
from ablation.techniques.mixing import NoMix
from ablation.techniques.technique import Technique
from ablation.techniques.tta import View

# The modules that compute a step; techniques are added class by class, those that a step uses without being asked among them.
STEP_MODULES = (
    "ablation.randomness",
    "ablation.training.loop",
    "ablation.training.captured",
    "ablation.training.frozen",
    "ablation.training.step",
    "ablation.training.images",
    "ablation.training.pixels",
    "ablation.worker",
)
TEST_MODULES = ("ablation.evaluation", "ablation.groups")  # the modules that compute a run's numbers from its predictions
STEP_TECHNIQUES = (Resize, NoMix, View)
# What techniques are made of, and what users are told: it computes nothing, so that a new family or message changes no key.
UNCOUNTED = ("ablation.errors", "ablation.techniques.technique")
PACKAGES = ("torch", "torchvision", "timm")


def digest(payload: object) -> str:
    """32 hexadecimal digits that identify plain data."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def essential(technique: Technique) -> dict[str, Any]:
    """A technique's settings without those at their defaults, so that a new setting with a default changes no key."""
    fields = type(technique).model_fields
    found: dict[str, Any] = {}
    for name in fields:
        value = getattr(technique, name)
        default = fields[name].get_default(call_default_factory=True)
        if name == "name" or _plain(value) != _plain(default):
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Technique):
        plain = essential(value)
        return plain["name"] if set(plain) == {"name"} else plain
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def stage_content(
    stage: Stage,
    epochs: int,
    *,
    parent: str,
    data: str,
    weights: str,
    seed: int,
    precision: str,
    tail: tuple[int, ...],
    average_before: str,
) -> str:
    """The identity of the state after `epochs` epochs of a stage, whatever the code, versions and device.

    The schedule counts by the learning rates of these epochs, so that schedules share what they have in common; the stage's place in
    the whole counts only where the sampler or the mixing goes by it. `parent` is the
    content of the stage before ("" for none), `data` and `weights` are digests, `tail` the tail classes where the mixing looks at
    them, and `average_before` the average that the stage starts from, where it does.
    """
    settings = stage.settings
    by_length = settings.sampler.depends_on_length or settings.mix.depends_on_length
    place = {"place": [stage.schedule_epoch, stage.span]} if by_length else {}
    trained = {
        name: _plain(getattr(settings, name))
        for name in Settings.model_fields
        if name not in (*WATCHERS, "data", "epochs", "precision", "model", "schedule")
        and _plain(getattr(settings, name)) != _plain(Settings.model_fields[name].default)
    }
    model = {name: value for name, value in essential(settings.model).items() if name not in ("weights", "pretrained")}
    how = {name: getattr(stage, name) for name in ("train", "head", "backbone", "start", "restart", "first_epoch")}
    return digest(
        {
            "settings": trained,
            "model": model,
            "stage": how,
            "rates": rates(stage, epochs),
            "parent": parent,
            "data": data,
            "weights": weights,
            "seed": seed,
            "precision": precision,
            "tail": tail,
            "average": average_before,
            **place,
        }
    )


def rates(stage: Stage, epochs: int) -> list[float]:
    """The learning rates of the first epochs of a stage."""
    settings = stage.settings
    return [float(settings.schedule(stage.schedule_epoch + i, stage.schedule_span, settings.optimizer.lr)) for i in range(epochs)]


def speed_key(stage: Stage, device: str) -> str:
    """What the time per image depends on, mostly."""
    settings = stage.settings
    model = {name: value for name, value in essential(settings.model).items() if name not in ("weights", "pretrained")}
    about = [model, stage.train, stage.backbone, settings.batch_size, settings.precision, [one.name for one in settings.augment], device]
    return digest(about)[:16]


def run_content(stage_content: str, settings: Settings, since: int, groups: object) -> str:
    """The identity of a run's numbers: its last stage, and what only watches; `since` is the epoch at which the average began."""
    watching = {name: _plain(getattr(settings, name)) for name in WATCHERS}
    return digest({"stage": stage_content, "watching": watching, "since": since if settings.average.averages else 0, "groups": groups})


def with_environment(content: str, environment: str) -> str:
    """The key: content under one environment."""
    return digest([content, environment])


def environment(techniques: Iterable[Technique], device_class: str) -> str:
    """The identity of the code of the step and of these techniques, of the libraries that compute, and of the device."""
    return digest(
        {
            "code": code_digest(frozenset(type(one) for one in techniques)),
            "versions": versions(),
            "device": device_class,
        }
    )


def test_environment(techniques: Iterable[Technique], device_class: str) -> str:
    """The same for the code that tests."""
    return digest([environment(techniques, device_class), *(_module_code(name) for name in TEST_MODULES)])


def code_of(settings: Iterable[Settings]) -> str:
    """The identity of the code that trains and tests by these settings, as its files are when this process first asks."""
    classes = frozenset(type(technique) for one in settings for technique in techniques_of(one))
    return digest([code_digest(classes), _tests_code()])


@cache
def _tests_code() -> str:
    return digest([_module_code(name) for name in TEST_MODULES])


def techniques_of(settings: Settings) -> list[Technique]:
    """Every technique in the settings, those inside others too."""
    found: list[Technique] = []
    waiting: list[Any] = [getattr(settings, name) for name in Settings.model_fields if name != "data"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Technique):
            found.append(value)
            waiting += [getattr(value, name) for name in type(value).model_fields]
        elif isinstance(value, tuple):
            waiting += value
    return found


@cache
def versions() -> Mapping[str, str]:
    """The versions of the libraries that compute."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@cache
def code_digest(classes: frozenset[type]) -> str:
    """The identity of what the step's modules and these classes compute, docstrings and comments aside."""
    return digest([*(_module_code(name) for name in STEP_MODULES), *sorted(class_code(one) for one in {*classes, *STEP_TECHNIQUES})])


@cache
def _module_code(name: str) -> str:
    return ast.dump(_tree(name))


WHOLE = "*"  # as a name: everything in a module
ALWAYS = ""  # as a name: the statements that act when a module is imported, whatever of it is used


@cache
def class_code(one: type) -> str:
    """The syntax tree of a class and of everything of its author's that it uses, directly or not, in its module or another.

    For a class of ours that is our code; for a user's class it is the user's and ours. Raises ConfigError where a class is
    written in no file.
    """
    start = (one.__module__, one.__qualname__.partition(".")[0])
    if start[1] not in _defined(start[0]):
        problem = f"the code of {one.__module__}:{one.__qualname__} was not found, so that nobody could tell when it changes"
        raise ConfigError("", f"{problem}; expected a class in a file of Python code")
    needed: dict[str, list[str]] = {}
    waiting = [start]
    while waiting:
        module, name = waiting.pop()
        if f"{module}.{name}" in needed:
            continue
        nodes = _defined(module).get(name, [])
        needed[f"{module}.{name}"] = [ast.dump(node) for node in nodes]
        waiting += [(module, ALWAYS), *(use for node in nodes for use in _uses(module, node))]
        waiting += [(module, other) for other in _defined(module)] if name == WHOLE else []
    return json.dumps({place: dumps for place, dumps in needed.items() if dumps}, sort_keys=True)


@cache
def _defined(module: str) -> dict[str, list[ast.stmt]]:
    """The statements by which a module defines each name, imports among them; of a module without a file, none."""
    found: dict[str, list[ast.stmt]] = {}
    for node in (one for statement in _tree(module).body for one in _single(statement) if not _is_script(statement)):
        for name in _names_defined(node):
            found.setdefault(name, []).append(node)
    return found


def _single(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports; any other statement as it is."""
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names] if isinstance(node, ast.ImportFrom) else [node]


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [ALWAYS if alias.name == "*" else alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)] or [ALWAYS]


def _is_script(node: ast.stmt) -> bool:
    """Whether this is what a file does only when it is run by itself."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _uses(module: str, node: ast.stmt) -> list[tuple[str, str]]:
    """The names in a statement, and what it imports from modules that count, each with its module."""
    found: list[tuple[str, str]] = []
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.append((module, part.id))
        elif isinstance(part, ast.Import):
            found += [(alias.name, WHOLE) for alias in part.names if _counts(alias.name, module)]
        elif isinstance(part, ast.ImportFrom):
            found += _taken(module, part)
    return found


def _taken(module: str, node: ast.ImportFrom) -> list[tuple[str, str]]:
    """What a statement takes from another module that counts: names, or modules of a package as a whole."""
    package = module if _is_package(module) else module.rpartition(".")[0]
    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
    inside = [(f"{source}.{alias.name}", WHOLE) for alias in node.names if _counts(f"{source}.{alias.name}", module)]
    return [*inside, *((source, alias.name) for alias in node.names if _counts(source, module))]


def _is_package(module: str) -> bool:
    found = _found(module)
    return found is not None and found.submodule_search_locations is not None


@cache
def _counts(module: str, importer: str) -> bool:
    """Whether a module's code counts where another uses it: ours always, and a user's in what the same user wrote."""
    found, top = _found(module), module.partition(".")[0]
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return False
    if top == "ablation":
        return "." in module and module not in UNCOUNTED
    return top == importer.partition(".")[0] or (_root(top) == _root(importer.partition(".")[0]) and not _is_installed(_root(top)))


def _root(top: str) -> str:
    """The folder from which a module without dots is imported."""
    found = _found(top)
    places = list(found.submodule_search_locations or [str(found.origin)]) if found else []
    return str(Path(places[0]).parent) if places else ""


def _is_installed(folder: str) -> bool:
    """Whether a folder holds Python's own or installed packages, which need not be of one author."""
    return folder in {str(Path(place)) for place in sysconfig.get_paths().values()}


@cache
def _tree(module: str) -> ast.Module:
    found = _found(module)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ast.Module([], [])
    return _without_docstrings(ast.parse(Path(found.origin).read_bytes()))


def _found(module: str) -> ModuleSpec | None:
    """Where a module lies; None where there is none."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is missing; or it is no file's, such as __main__
        return None


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree
