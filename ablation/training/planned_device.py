"""The class of device that a study is planned for, which may be that of other machines: nothing is computed there by this process."""

import torch

from ablation.training import devices
from ablation.training.step import Precision, cuda_precision, resolve_precision

_other = {"name": "", "capability": ""}


def plan_for(name: str, capability: str) -> torch.device:
    """Plan from now on for another machine's class of device, such as `cuda NVIDIA H100`, and its compute capability; the device."""
    _other["name"], _other["capability"] = name, capability
    return torch.device(name.partition(" ")[0])


def plan_for_here() -> None:
    """Plan again for the devices of this machine."""
    _other["name"] = _other["capability"] = ""


def device_name(device: torch.device) -> str:
    """The class of device, on which the bits of a result depend."""
    return _other["name"] or devices.device_name(device)


def planned_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name, or for `auto` the fastest safe one; raises ConfigError if the device does not support it."""
    if not _other["name"] or device.type != "cuda":
        return resolve_precision(name, device)
    major, _, minor = _other["capability"].partition(".")
    return cuda_precision(name, (int(major), int(minor)), _other["name"])
