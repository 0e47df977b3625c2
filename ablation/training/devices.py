"""Devices: which there are, what bits depend on of one, and how a model lies on it."""

import os

import torch
from torch import nn

from ablation.errors import ConfigError

THREADS = 1  # per run on the CPU: it changes bits, so it is the same however many run at once


def devices(choice: str) -> list[torch.device]:
    """The devices of --device: auto (every CUDA device, else MPS, else the CPU), cpu, cuda, cuda:0,1 or mps."""
    if choice == "cpu":
        return [torch.device("cpu")]
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "auto":
        if num_cuda:
            return [torch.device("cuda", i) for i in range(num_cuda)]
        return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    if choice == "mps" and torch.backends.mps.is_available():
        return [torch.device("mps")]
    kind, _, numbers = choice.partition(":")
    if kind == "cuda" and all(part.isdigit() for part in numbers.split(",") if numbers):
        chosen = [int(part) for part in numbers.split(",")] if numbers else list(range(num_cuda))
        if not num_cuda:
            raise ConfigError("--device", f"found {choice!r}, but there is no CUDA device; expected cpu or auto")
        missing = [i for i in chosen if i >= num_cuda]
        if missing:
            raise ConfigError("--device", f"found cuda:{missing[0]}, but there are {num_cuda} CUDA devices (counted from 0)")
        return [torch.device("cuda", i) for i in dict.fromkeys(chosen)]
    raise ConfigError("--device", f"found {choice!r}; expected auto, cpu, cuda, cuda:0,1 or mps (where there is one)")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """The class of device that bits depend on."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, its images and filters in channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)
