"""How near a training step comes to what its device can do: EfficientNet-B0 at 32 and 224 pixels on random images, a JSON line each.

    python benchmarks/roofline.py --way plain --way captured --way compiled      (a CUDA device; no data)

The roofline of a step is the longer of two times: its floating-point operations at the rate of a large matrix product, and its bytes at the
rate of a large copy, both measured on the same device just before. Operations are three forward passes (one forward, one for the gradients
of the inputs, one for those of the weights), counted by `torch.utils.flop_counter`, which counts only the forward pass of a depthwise
convolution right. Bytes are counted twice: what convolutions and matrix products alone read and write, as if everything else were fused
into them (no step does better), and what all operators of the plain step read and write. B batch, C classes, H, W pixels.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).resolve().parent
SIZES = (32, 224)
BATCH = 128
STEPS = 60  # measured of each way, after as many that are not
WAYS = {"plain": "plain", "captured": "captured", "compiled": "compiled, captured"}  # what the step calls itself
PRODUCTS = {"convolution", "convolution_backward", "cudnn_convolution", "mm", "addmm", "bmm", "baddbmm"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Peaks:
    """What a device attains: operations per second of a large product in bf16, and bytes per second of a large copy."""

    operations: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What a step has to do: floating-point operations, and bytes, of its products alone and of all its operators."""

    operations: float
    product_bytes: float
    operator_bytes: float


def roofline(operations: float, num_bytes: float, peaks: Peaks) -> tuple[float, str]:
    """The seconds that this takes at least, and what bounds it: "operations" or "memory"."""
    by_operations, by_memory = operations / peaks.operations, num_bytes / peaks.bandwidth
    return (by_operations, "operations") if by_operations > by_memory else (by_memory, "memory")


def compared(seconds: float, work: Work, peaks: Peaks) -> Row:
    """A step's time beside both rooflines."""
    best, bound = roofline(work.operations, work.product_bytes, peaks)
    unfused, _ = roofline(work.operations, work.operator_bytes, peaks)
    return {
        "step_milliseconds": 1e3 * seconds,
        "roofline_milliseconds": 1e3 * best,
        "bound": bound,
        "fraction_of_roofline": best / seconds,
        "unfused_roofline_milliseconds": 1e3 * unfused,
        "fraction_of_unfused_roofline": unfused / seconds,
        "attained_teraflops": work.operations / seconds / 1e12,
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, each argument and each result once; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.operators = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "new_empty")):
            num_bytes = sum(one.nbytes for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor))
            self.operators += num_bytes
            self.products += num_bytes if name in PRODUCTS else 0
        return result


def work_of(plain: Any, batch: Sequence[torch.Tensor]) -> Work:
    """What a plain step of this batch has to do; it takes one."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain.precision.autocast(batch[0].device):
        plain.model(batch[0])
    with Traffic() as traffic:
        plain(*batch)
    return Work(3.0 * counter.get_total_flops(), traffic.products, traffic.operators)


def step_and_batch(size: int, device: torch.device, num_images: int = BATCH) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """The plain step of EfficientNet-B0 as `ablate` trains it, and a batch of random images."""
    import timm

    import ablation
    from ablation.techniques.convolutions import trim
    from ablation.training.step import PlainStep, resolve_precision

    torch.manual_seed(0)
    net = trim(timm.create_model("efficientnet_b0", num_classes=10, drop_path_rate=0.1)).to(device)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = ablation.make("optimizers", "adamw")(list(net.parameters()))
    scaler, counts_C = torch.amp.GradScaler(device.type, enabled=False), torch.ones(10, device=device)
    loss = ablation.make("losses", "cross_entropy")
    plain = PlainStep(net, optimizer, scaler, resolve_precision("auto", device), loss, counts_C, {})
    images_BCHW = torch.randn(num_images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets_BC = torch.eye(10, device=device)[torch.arange(num_images, device=device) % 10]
    return plain, (images_BCHW, targets_BC, counts_C)


def seconds_of(call: Callable[[], object], repeats: int = STEPS) -> float:
    """Seconds of one call on the device, after as many that are not measured."""
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def attainable(device: torch.device) -> Peaks:
    """The best of three products of 8,192 by 8,192 random numbers in bf16 (equal ones take less power) and of three copies of 1 GiB."""
    left, right, product = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(3))
    source, target = (torch.ones(2**29, device=device, dtype=torch.bfloat16) for _ in range(2))
    multiplying = min(seconds_of(lambda: torch.mm(left, right, out=product), 20) for _ in range(3))
    copying = min(seconds_of(lambda: target.copy_(source), 20) for _ in range(3))
    return Peaks(2 * 8192**3 / multiplying, 2 * source.nbytes / copying)


def timed_ways(size: int, ways: Sequence[str], device: torch.device, num_images: int = BATCH) -> Iterator[Row]:
    """A row for each way to run the step: what it is called, its seconds, and those until it was ready."""
    from ablation.training.accelerated import choose_step

    plain, batch = step_and_batch(size, device, num_images)
    seconds_of(lambda: plain(*batch), 3)
    work = work_of(plain, batch)
    for way in ways:
        began = time.perf_counter()
        step = plain if way == "plain" else choose_step(plain, 2 * STEPS, deterministic=False, is_compiled=way == "compiled")
        step(*batch)
        torch.cuda.synchronize()
        ready = time.perf_counter() - began
        row = {"size": size, "way": way, "step": step.kind, "seconds_until_ready": ready, "work": vars(work)}
        yield row | {"seconds": seconds_of(lambda step=step: step(*batch))}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a JSON line with the device's peaks, then one for each size and way, as soon as it is known."""
    sys.path.insert(0, str(HERE.parent))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--way", action="append", choices=WAYS, help="may be repeated; by default all")
    parser.add_argument("--size", action="append", type=int, help=f"pixels; may be repeated; by default {SIZES}")
    parser.add_argument("--batch", type=int, default=BATCH, help="images of a batch")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks/roofline.py needs a CUDA device", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    peaks = attainable(device)
    print(json.dumps({"peaks": vars(peaks), "device": torch.cuda.get_device_name()}), flush=True)
    for size in args.size or SIZES:
        for row in timed_ways(size, args.way or list(WAYS), device, args.batch):
            print(json.dumps(row | compared(row["seconds"], Work(**row["work"]), peaks)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
