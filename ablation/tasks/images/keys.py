"""The identity of a stage of image classification: its content (settings, data, seed, the stages before) and its environment."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ablation.system.code import class_code, module_code, package_version
from ablation.system.digests import digest
from ablation.techniques.augmentations import Resize
from ablation.techniques.mixing import NoMix
from ablation.techniques.technique import Technique
from ablation.techniques.tta import View
from ablation.training.devices import cuda_build
from ablation.training.settings import WATCHERS, Settings, Stage

# The modules that compute a step. Techniques count class by class: those in the settings, and STEP_TECHNIQUES, which any step may use.
STEP_MODULES = (
    "ablation.system.randomness",
    "ablation.training.loop",
    "ablation.training.accelerated",
    "ablation.training.captured",
    "ablation.training.compiled",
    "ablation.training.verified",
    "ablation.training.frozen",
    "ablation.training.step",
    "ablation.training.images",
    "ablation.training.pixels",
    "ablation.training.datasets",
    "ablation.training.devices",
    "ablation.tasks.images.run",
    "ablation.training.states",
)
# The modules that compute a run's numbers from trained weights.
TEST_MODULES = ("ablation.training.testing", "ablation.training.evaluation", "ablation.training.ranking", "ablation.study.groups")
STEP_TECHNIQUES = (Resize, NoMix, View)
NOT_TRAINED = (*WATCHERS, "data", "epochs", "precision", "model", "schedule")  # settings that count otherwise, or not in training
PACKAGES = ("torch", "torchvision", "timm")


def non_default_settings(technique: Technique) -> dict[str, Any]:
    """A technique's settings without those at their defaults, so that a new setting with a default changes no key."""
    fields = type(technique).model_fields
    settings: dict[str, Any] = {}
    for name in fields:
        value = getattr(technique, name)
        default = fields[name].get_default(call_default_factory=True)
        if name == "name" or _as_plain_data(value) != _as_plain_data(default):
            settings[name] = _as_plain_data(value)
    return settings


def code_of_technique(technique: Technique) -> str:
    """The syntax trees of its class and of all code that this uses."""
    cls: type = type(technique)
    return class_code(cls)


def _as_plain_data(value: Any) -> Any:
    if isinstance(value, Technique):
        settings = non_default_settings(value)
        return settings["name"] if set(settings) == {"name"} else settings
    if isinstance(value, list | tuple):
        return [_as_plain_data(part) for part in value]
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
    """The identity of the state after `epochs` epochs of a stage, for any code, versions and device.

    The schedule counts only by the learning rates of these epochs, so that schedules with the same beginning share it. The position of
    the stage in the training counts only if the sampler or the mixing depends on it. `parent` is the content of the stage before ("" if
    there is none), `data` and `weights` are digests, `tail` are the tail classes if the mixing uses them, and `average_before` is the
    average that the stage starts from, if it does.
    """
    settings = stage.settings
    depends_on_length = settings.sampler.depends_on_length or settings.mix.depends_on_length
    place = {"place": [stage.schedule_epoch, stage.span]} if depends_on_length else {}
    options = {name: getattr(stage, name) for name in ("train", "head", "backbone", "start", "restart", "first_epoch")}
    return digest(
        {
            "settings": _trained(settings),
            "model": _model(settings),
            "stage": options,
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


def _trained(settings: Settings) -> dict[str, Any]:
    """The settings that training depends on, beside the model, the data, the length and its rates; without those at their defaults."""
    fields = {name: field for name, field in Settings.model_fields.items() if name not in NOT_TRAINED}
    values = {name: _as_plain_data(getattr(settings, name)) for name in fields}
    return {name: value for name, value in values.items() if value != _as_plain_data(fields[name].default)}


def _model(settings: Settings) -> dict[str, Any]:
    """The settings of the network, whatever its weights come from."""
    return {name: value for name, value in non_default_settings(settings.model).items() if name not in ("weights", "pretrained")}


def rates(stage: Stage, epochs: int) -> list[float]:
    """The learning rates of the first epochs of a stage."""
    settings = stage.settings
    return [float(settings.schedule(stage.schedule_epoch + i, stage.schedule_span, settings.optimizer.lr)) for i in range(epochs)]


def speed_key(stage: Stage, device: str) -> str:
    """The identity of everything that the time per image mostly depends on."""
    settings = stage.settings
    augmentations = [technique.name for technique in settings.augment]
    step = (settings.batch_size, settings.precision, settings.deterministic, settings.compile)
    return digest([_model(settings), stage.train, stage.backbone, *step, augmentations, device])[:16]


def run_content(stage_content: str, settings: Settings, since: int, groups: object) -> str:
    """The identity of a run's metrics: its last stage, and WATCHERS; `since` is the epoch at which the average began."""
    watching = {name: _as_plain_data(getattr(settings, name)) for name in WATCHERS}
    return digest({"stage": stage_content, "watching": watching, "since": since if settings.average.averages else 0, "groups": groups})


def with_environment(content: str, environment: str) -> str:
    """The key: the identity of content and environment."""
    return digest([content, environment])


@cache
def versions() -> Mapping[str, str]:
    """The versions of the libraries that compute."""
    return {name: package_version(name) for name in PACKAGES}


def environment(techniques: Iterable[Technique], device_class: str) -> str:
    """The identity of the code of the step and of these techniques, of the libraries' versions, and of the device and its libraries."""
    return digest(
        {
            "code": code_digest(frozenset(type(technique) for technique in techniques)),
            "versions": versions(),
            "device": device_class,
            **({"build": cuda_build()} if device_class.startswith("cuda") else {}),
        }
    )


def test_environment(techniques: Iterable[Technique], device_class: str) -> str:
    """The same, with the code that tests."""
    return digest([environment(techniques, device_class), _test_code()])


def code_of(all_settings: Iterable[Settings]) -> str:
    """The identity of the code that trains and tests with these settings, from the files as they are when this process first asks."""
    classes = frozenset(type(technique) for settings in all_settings for technique in techniques_of(settings))
    return digest([code_digest(classes), _test_code()])


@cache
def _test_code() -> str:
    return digest([module_code(name) for name in TEST_MODULES])


def techniques_of(settings: Settings) -> list[Technique]:
    """Every technique in the settings, including those inside others."""
    techniques: list[Technique] = []
    pending: list[Any] = [getattr(settings, name) for name in Settings.model_fields if name != "data"]
    while pending:
        value = pending.pop()
        if isinstance(value, Technique):
            techniques.append(value)
            pending += [getattr(value, name) for name in type(value).model_fields]
        elif isinstance(value, tuple):
            pending += value
    return techniques


@cache
def code_digest(classes: frozenset[type]) -> str:
    """The identity of the code of the step's modules and of these classes, without docstrings and comments."""
    return digest([*(module_code(name) for name in STEP_MODULES), *sorted(class_code(cls) for cls in {*classes, *STEP_TECHNIQUES})])
