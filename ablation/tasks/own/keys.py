"""The identity of a run of one's own training code: its content (settings, data, seed, what is run) and its environment."""

from collections.abc import Mapping
from typing import Any

from ablation.study.changes import is_same
from ablation.system.digests import digest
from ablation.tasks.own.code import Parts, code_files, code_of, identity, imported_modules, local_modules, parts_of, why_changed
from ablation.tasks.own.declared import data_digest
from ablation.tasks.own.definition import Definition
from ablation.tasks.own.function import function_of, written_defaults
from ablation.tasks.own.packages import versions
from ablation.tasks.own.settings import defaults_of

__all__ = [
    "Parts",
    "code_files",
    "code_of",
    "content",
    "data_of",
    "device_class",
    "environment",
    "function_of",
    "identity",
    "packages",
    "parts_of",
    "why_changed",
    "with_environment",
]

SCHEME = 1  # raised when the same settings and seed reach the code in another way


def content(definition: Definition, settings: Mapping[str, Any], seed: int, data: str) -> str:
    """The identity of a run for any code, versions and device; `data` is the identity of the declared data.

    Settings at the defaults that the function's signature writes out are left out, so that a new parameter with a default changes no key;
    a default that is computed counts by its value.
    """
    written = written_defaults(definition.function) if definition.is_function else ()
    defaults = {name: value for name, value in defaults_of(definition).items() if name in written}
    set_otherwise = {name: value for name, value in settings.items() if name not in defaults or not is_same(value, defaults[name])}
    return digest(
        {
            "scheme": SCHEME,
            "run": definition.function or list(definition.command),
            "settings": set_otherwise,
            "seed": seed,
            "data": data,
            "env": dict(definition.env),
            "threads": definition.threads,
            "metrics": {metric.name: _source(definition, metric.name) for metric in definition.metrics},
            **({"classes": list(definition.classes)} if definition.classes else {}),  # by whose places predictions are kept
        }
    )


def _source(definition: Definition, metric: str) -> list[str]:
    """Where a command's metric is read that the command does not hand back itself."""
    source = definition.sources.get(metric)
    return [source.pattern, source.file, source.at] if source else []


def environment(definition: Definition, device: str) -> str:
    """The identity of code, packages and the class of device, as `device_class` has it."""
    return digest([code_of(definition), packages(definition), device, _build() if device.startswith("cuda") else ""])


def with_environment(content: str, environment: str) -> str:
    """The key: the identity of content and environment."""
    return digest([content, environment])


def packages(definition: Definition) -> dict[str, str]:
    """distribution -> version, of those that the code imports directly, and `python`."""
    files = code_files(definition)
    return versions(definition, imported_modules(files), local_modules(files, definition.folder))


def data_of(definition: Definition) -> str:
    """The identity of the declared data."""
    return data_digest(definition.data)


def device_class(device: str) -> str:
    """The class of a device: `cpu`, or a GPU with its name."""
    if not device.startswith("cuda"):
        return device.partition(":")[0]
    import torch

    from ablation.training.planned_device import device_name

    return device_name(torch.device(device))


def _build() -> str:
    """The build of CUDA of this environment."""
    from ablation.training.devices import cuda_build

    return cuda_build()
