"""What results depend on of a device: its class, the settings of a process, and how a model lies on it."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

THREADS = 1  # of each run on the CPU: the number changes bits, so it does not depend on how many runs there are
IEEE = "ieee"  # what torch calls fp32 without TF32
TF32 = False  # of fp32 on CUDA, in products of matrices and in convolutions alike: torch's own default allows it in convolutions alone


_sharing = {"jobs": 1}  # how many jobs share this process's device


def set_up_process(device: torch.device, num_jobs: int = 1) -> None:
    """Set what bits depend on in this process: the threads, TF32, and what cuBLAS needs for `deterministic: true`.

    `num_jobs` share the device, which changes no bit. Called again, it only takes note of another number.
    """
    _sharing["jobs"] = num_jobs
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(THREADS)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = TF32
        torch.cuda.set_device(device)


@contextlib.contextmanager
def as_in_tests(device: torch.device) -> Iterator[None]:
    """Let fp32 mean here what it means where runs are tested, without TF32, whatever the process has set."""
    if device.type != "cuda":
        yield
        return
    # Torch refuses to answer by its older names, `allow_tf32`, where these are set; they follow the older ones.
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = products.fp32_precision, convolutions.fp32_precision
    products.fp32_precision = convolutions.fp32_precision = IEEE
    try:
        yield
    finally:
        products.fp32_precision, convolutions.fp32_precision = before


def forget_peak(device: torch.device) -> None:
    """Give back what torch keeps for later of a CUDA device, and measure the peak of the memory that is taken from now on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def num_sharers() -> int:
    """How many jobs share the device of this process."""
    return _sharing["jobs"]


def device_name(device: torch.device) -> str:
    """The class of device, on which the bits of a result depend."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def cuda_build() -> str:
    """What else the bits of a result on CUDA depend on: the versions of CUDA and cuDNN that torch uses, and whether fp32 means TF32."""
    platform = f"CUDA {torch.version.cuda}" if torch.version.hip is None else f"ROCm {torch.version.hip}"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{platform}, cuDNN {cudnn}, TF32 {'on' if TF32 else 'off'} in fp32"


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, in the memory format channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)
