"""The devices of --device, and the cores that this process may use; no result depends on what is here."""

import os

import torch

from ablation.errors import ConfigError


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
