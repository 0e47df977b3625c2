"""What identifies a stage: its content (settings, data, seed, what came before) and its environment (code, versions, device)."""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ablation.config import WATCHERS, Settings, Stage
from ablation.techniques.augmentations import Resize
from ablation.techniques.technique import Technique

# The modules that compute a step; techniques are added class by class, those that a step uses without being asked among them.
STEP_MODULES = (
    "ablation.randomness",
    "ablation.training.loop",
    "ablation.training.step",
    "ablation.training.images",
    "ablation.worker",
)
TEST_MODULES = ("ablation.evaluation", "ablation.groups")  # the modules that compute a run's numbers from its predictions
STEP_TECHNIQUES = (Resize,)
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

    The schedule counts by the learning rates of these epochs, so that schedules share what they have in common. `parent` is the
    content of the stage before ("" for none), `data` and `weights` are digests, `tail` the tail classes where the mixing looks at
    them, and `average_before` the average that the stage starts from, where it does.
    """
    settings = stage.settings
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
        }
    )


def rates(stage: Stage, epochs: int) -> list[float]:
    """The learning rates of the first epochs of a stage."""
    settings = stage.settings
    return [float(settings.schedule(stage.schedule_epoch + i, stage.schedule_span, settings.optimizer.lr)) for i in range(epochs)]


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


@cache
def class_code(one: type) -> str:
    """The syntax tree of a class and of everything of ours that it uses, directly or not, in its module or another."""
    needed: dict[str, str] = {}
    waiting = [(one.__module__, one.__name__)]
    while waiting:
        module, name = waiting.pop()
        node = _defined(module).get(name)
        if node is None or f"{module}.{name}" in needed:
            continue
        if isinstance(node, tuple):
            waiting.append(node)
            continue
        needed[f"{module}.{name}"] = ast.dump(node)
        waiting += [(module, part.id) for part in ast.walk(node) if isinstance(part, ast.Name)]
    return json.dumps(needed, sort_keys=True)


@cache
def _defined(module: str) -> dict[str, ast.stmt | tuple[str, str]]:
    """What a module of ours defines, by name; for what it takes from another of ours, that module and the name there."""
    found: dict[str, ast.stmt | tuple[str, str]] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom):
            if str(node.module).startswith("ablation.") and node.module not in UNCOUNTED:
                found |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
        else:
            found |= dict.fromkeys(_names_defined(node), node)
    return found


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


@cache
def _tree(module: str) -> ast.Module:
    found = importlib.util.find_spec(module)
    assert found is not None, module
    assert found.origin is not None, module
    return _without_docstrings(ast.parse(Path(found.origin).read_text(encoding="utf-8")))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
