"""What identifies a stage of image classification: its content (settings, data, seed, what came before) and its environment."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ablation.system.code import class_code, module_code, package_version
from ablation.system.digests import digest
from ablation.techniques.augmentations import Resize
from ablation.techniques.mixing import NoMix
from ablation.techniques.technique import Technique
from ablation.techniques.tta import View
from ablation.training.settings import WATCHERS, Settings, Stage

# The modules that compute a step; techniques are added class by class, those that a step uses without being asked among them.
STEP_MODULES = (
    "ablation.system.randomness",
    "ablation.training.loop",
    "ablation.training.captured",
    "ablation.training.frozen",
    "ablation.training.step",
    "ablation.training.images",
    "ablation.training.pixels",
    "ablation.training.datasets",
    "ablation.training.devices",
    "ablation.training.states",
)
# The modules that compute a run's numbers from trained weights.
TEST_MODULES = ("ablation.training.testing", "ablation.training.evaluation", "ablation.study.groups")
STEP_TECHNIQUES = (Resize, NoMix, View)
PACKAGES = ("torch", "torchvision", "timm")


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


@cache
def versions() -> Mapping[str, str]:
    """The versions of the libraries that compute."""
    return {name: package_version(name) for name in PACKAGES}


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
    return digest([environment(techniques, device_class), _test_code()])


def code_of(settings: Iterable[Settings]) -> str:
    """The identity of the code that trains and tests by these settings, as its files are when this process first asks."""
    classes = frozenset(type(technique) for one in settings for technique in techniques_of(one))
    return digest([code_digest(classes), _test_code()])


@cache
def _test_code() -> str:
    return digest([module_code(name) for name in TEST_MODULES])


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
def code_digest(classes: frozenset[type]) -> str:
    """The identity of what the step's modules and these classes compute, docstrings and comments aside."""
    return digest([*(module_code(name) for name in STEP_MODULES), *sorted(class_code(one) for one in {*classes, *STEP_TECHNIQUES})])
