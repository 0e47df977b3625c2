"""Times the plain and the captured training step on a CUDA device, without data and augmentation, and writes them with hardware and date.

Usage: python benchmarks/captured.py [MODEL [IMAGE_SIZE [BATCH_SIZE]]]   (efficientnet_b0, 32 and 128 unless told; about a minute)
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from ablation.techniques.losses import CrossEntropy
from ablation.techniques.models import TimmModel
from ablation.techniques.optimizers import AdamW
from ablation.training.captured import CapturedStep, Record, recorded_on_cuda
from ablation.training.step import PlainStep, Precision
from ablation.worker import device_name, placed

NUM_STEPS, NUM_CLASSES = 200, 10


def plain_step(name: str, image_size: int, precision: str, device: torch.device) -> PlainStep:
    """A fresh model's step, with drop path, cross-entropy and AdamW."""
    model = placed(TimmModel(name=name, image_size=image_size, drop_path=0.1)(NUM_CLASSES, 0), device).train()
    optimizer, format_ = AdamW()(list(model.parameters())), Precision(precision)
    counts_C = torch.ones(NUM_CLASSES, device=device)
    return PlainStep(model, optimizer, format_.scaler(device), format_, CrossEntropy(), counts_C, {})


def milliseconds(step: Callable[..., Tensor], batch: tuple[Tensor, Tensor, Tensor], num_steps: int) -> float:
    """The time of a step, the mean of many after a few that are not counted."""
    for _ in range(5):
        step(*batch)
    float(step(*batch))
    began = time.perf_counter()
    for _ in range(num_steps):
        loss = step(*batch)
    float(loss)
    return 1000 * (time.perf_counter() - began) / num_steps


def measure(
    name: str, image_size: int, batch_size: int, device: torch.device, record: Record, num_steps: int = NUM_STEPS
) -> dict[str, dict[str, float | str]]:
    """Milliseconds a step in each precision, plain and captured, and whether it was captured."""
    images_BCHW = torch.randn(batch_size, 3, image_size, image_size, device=device).contiguous(memory_format=torch.channels_last)
    targets_BC = torch.eye(NUM_CLASSES, device=device)[torch.arange(batch_size, device=device) % NUM_CLASSES]
    batch, found = (images_BCHW, targets_BC, torch.ones(NUM_CLASSES, device=device)), {}
    for precision in ("fp32", "bf16"):
        plain, step = (plain_step(name, image_size, precision, device) for _ in range(2))
        captured = CapturedStep(step, record)
        times = {"plain": milliseconds(plain, batch, num_steps), "captured": milliseconds(captured, batch, num_steps)}
        found[precision] = times | {"step": captured.kind}
    return found


def main() -> None:
    """Measure, print and write a file of results."""
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device, which this measures")
    name, image_size, batch_size = [*sys.argv[1:], *["efficientnet_b0", "32", "128"][len(sys.argv) - 1 :]]
    device, now = torch.device("cuda", torch.cuda.current_device()), datetime.now(UTC)
    found = measure(name, int(image_size), int(batch_size), device, recorded_on_cuda)
    about = {
        "command": " ".join(["python", *sys.argv]),
        "device": device_name(device),
        "torch": torch.__version__,
        "date": f"{now:%Y-%m-%d}",
    }
    text = json.dumps(about | {"milliseconds": found}, indent=1)
    print(text)
    folder = Path(__file__).resolve().parent / "results"
    (folder / f"captured-{name}-{image_size}-{batch_size}-{now:%Y-%m-%d}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
