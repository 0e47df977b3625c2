"""Devices: which ones there are, which class of device results depend on, and how a model is put on one."""

import os

import torch
from torch import nn

from ablation.errors import ConfigError

THREADS = 1  # of each run on the CPU: the number changes bits, so it does not depend on how many runs there are


def devices(choice: str) -> list[torch.device]:
    """The devices of --device: auto (all CUDA devices, else MPS, else the CPU), cpu, cuda, cuda:0,1 or mps."""
    if choice == "cpu":
        return [torch.device("cpu")]
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "auto":
        if num_cuda:
            return [torch.device("cuda", i) for i in range(num_cuda)]
        return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    if choice == "mps" and torch.backends.mps.is_available():
        return [torch.device("mps")]
    device_type, _, numbers = choice.partition(":")
    if device_type == "cuda" and all(number.isdigit() for number in numbers.split(",") if numbers):
        indices = [int(number) for number in numbers.split(",")] if numbers else list(range(num_cuda))
        if not num_cuda:
            raise ConfigError("--device", f"found {choice!r}, but there is no CUDA device; expected cpu or auto")
        missing = [i for i in indices if i >= num_cuda]
        if missing:
            raise ConfigError("--device", f"found cuda:{missing[0]}, but there are {num_cuda} CUDA devices (counted from 0)")
        return [torch.device("cuda", i) for i in dict.fromkeys(indices)]
    raise ConfigError("--device", f"found {choice!r}; expected auto, cpu, cuda, cuda:0,1 or mps (where there is one)")


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """The class of device, on which the bits of a result depend."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, in the memory format channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)
