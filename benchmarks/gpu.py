"""The same comparison on a CUDA device: the step, the plain script, and 16 arms with 5 seeds at 32 pixels; each part under ten minutes.

python benchmarks/gpu.py --data-root DIR --only step      (CIFAR-10 in DIR; the plain script takes what workers it can have)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
SIZES = (32, 224)
STEPS = 60  # measured of each way, after as many that are not
ARMS = 16
Row = dict[str, Any]


def step_rates(size: int) -> dict[str, float]:
    """Images per second of a training step of 128 images, plain, captured and compiled: forward, loss, backward, update; nothing else."""
    import timm

    import ablation
    from ablation.techniques.convolutions import trim
    from ablation.training.accelerated import choose_step
    from ablation.training.step import PlainStep, resolve_precision

    device = torch.device("cuda")
    torch.manual_seed(0)
    net = trim(timm.create_model("efficientnet_b0", num_classes=10, drop_path_rate=0.1)).to(device)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = ablation.make("optimizers", "adamw")(list(net.parameters()))
    scaler, counts_C = torch.amp.GradScaler("cuda", enabled=False), torch.ones(10, device=device)
    plain = PlainStep(net, optimizer, scaler, resolve_precision("auto", device), ablation.make("losses", "cross_entropy"), counts_C, {})
    images_BCHW = torch.randn(128, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    batch = (images_BCHW, torch.eye(10, device=device)[torch.arange(128, device=device) % 10], counts_C)
    rates = {"plain": _rate(plain, batch)}
    for kind, is_compiled in (("captured", False), ("compiled, captured", True)):
        began = time.perf_counter()
        step = choose_step(plain, 2 * STEPS, deterministic=False, is_compiled=is_compiled)
        rate = _rate(step, batch)
        if step.kind == kind:
            rates[kind] = rate
        print(f"{size} pixels, {step.kind}: {rate:.0f} images/s, {time.perf_counter() - began:.0f} s in all", file=sys.stderr)
    return rates


def _rate(step: Any, batch: Sequence[Any]) -> float:
    for _ in range(STEPS):
        step(*batch)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        step(*batch)
    torch.cuda.synchronize()
    return STEPS * len(batch[0]) / (time.perf_counter() - began)


def trained_rates(size: int, root: Path) -> dict[str, float]:
    """Training images per second of the baseline's last epoch, with data and augmentation: ours and the plain script's."""
    from benchmarks.run import PLAIN, flags, small, study

    settings = [*small(root), "epochs=2", f"model.image_size={size}"]
    written = study("laptop", settings)
    arm = next(one for one in written.arms if one.name == "baseline")
    workers = str(max(1, (os.cpu_count() or 2) - 1))
    command = [sys.executable, str(PLAIN), *flags(written, arm, root), "--device", "cuda", "--workers", workers]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    rates = {"plain script": json.loads(output)["history"][-1]["images_per_second"]}
    with tempfile.TemporaryDirectory() as folder:
        results = ours(Path(folder), "--arm", "baseline", "--seed", "0", settings=settings)["results"]
    return rates | {"ablate": statistics.mean(one["history"][-1]["rate"] for one in results)}


def ours(folder: Path, *options: str, settings: Sequence[str]) -> Row:
    """One `ablate run` on CUDA: its seconds and results."""

    from benchmarks.run import STUDY, sets

    command = [sys.executable, "-m", "ablation", "run", str(STUDY), "--profile", "laptop", "--device", "cuda", "--yes", *options]
    began = time.perf_counter()
    subprocess.run([*command, *sets(settings)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "results": [json.loads(path.read_text()) for path in folder.glob("mlruns/results/*/result.json")]}


def step(size: int) -> Row:
    """The fastest of our steps against the plain one."""
    rates = step_rates(size)
    own, kind = max((rate, kind) for kind, rate in rates.items())
    what = f"step at {size} pixels ({kind})"
    return {"what": what, "ablate": own, "plain": rates["plain"], "ratio": own / rates["plain"], "unit": "images/s", "all": rates}


def training(size: int, root: Path) -> Row:
    """Training with its data, against the plain script."""
    rates = trained_rates(size, root)
    what, own, plain = f"training at {size} pixels, data included, against the plain script", rates["ablate"], rates["plain script"]
    return {"what": what, "ablate": own, "plain": plain, "ratio": own / plain, "unit": "images/s"}


def matrix(root: Path, jobs: int) -> Row:
    """Seconds of 16 arms with 5 seeds at 32 pixels, four epochs each, with so many jobs at once, or (0) as many as turn out to be best."""
    from benchmarks.run import small, study

    settings = [*small(root), "epochs=4"]  # fewer are too short for jobs to be packed by
    arms = [arm.name for arm in study("laptop", settings).arms][:ARMS]
    chosen = [word for arm in arms for word in ("--arm", arm)] + [word for seed in range(5) for word in ("--seed", str(seed))]
    with tempfile.TemporaryDirectory() as folder:
        done = ours(Path(folder), *chosen, *(("--jobs", str(jobs)) if jobs else ()), settings=settings)
    how = f"--jobs {jobs}" if jobs else "jobs by measurement"
    return {"what": f"{ARMS} arms x 5 seeds at 32 pixels, 4 epochs, {how}", "ablate": done["seconds"], "unit": "s"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and keep the figures; 2 where there is no CUDA device."""
    sys.path.insert(0, str(HERE.parent))
    from benchmarks.run import keep, plot, table

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True, help="the folder in which CIFAR-10 lies")
    parser.add_argument("--only", action="append", default=[], choices=("step", "training", "matrix"), help="one part; may be repeated")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA device; benchmarks/run.py measures on the CPU", file=sys.stderr)
        return 2
    root = args.data_root.resolve()
    parts: dict[str, Callable[[], list[Row]]] = {
        "step": lambda: [step(size) for size in SIZES],
        "training": lambda: [training(size, root) for size in SIZES],
        "matrix": lambda: [matrix(root, jobs) for jobs in (1, 4, 0)],
    }
    rows = [row for name in args.only or parts for row in parts[name]()]
    command = " ".join(["python benchmarks/gpu.py --data-root DIR", *(f"--only {name}" for name in args.only)])
    target = keep("-".join(["gpu", *args.only]), command, rows, args.output, torch.cuda.get_device_name())
    plot(rows, target.with_suffix(".png"))
    print(f"{table(rows)}\n\nwritten to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
