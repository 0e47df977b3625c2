"""What results depend on of a device: its class, the settings of a process, and how a model lies on it."""

import os

import torch
from torch import nn

THREADS = 1  # of each run on the CPU: the number changes bits, so it does not depend on how many runs there are


def set_up_process(device: torch.device) -> None:
    """Set what bits depend on in this process: the threads, and what cuBLAS needs for `deterministic: true`."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(THREADS)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def device_name(device: torch.device) -> str:
    """The class of device, on which the bits of a result depend."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, in the memory format channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)
