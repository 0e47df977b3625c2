"""What is measured on a CUDA device: first light, which needs no data, and the comparison with the plain script.

    python benchmarks/gpu.py --first-light                    (everything that only a GPU can show, in under eight minutes: first_light.py)
    python benchmarks/gpu.py --data-root DIR --only step      (CIFAR-10 in DIR; the plain script takes what workers it can have)

The parts of the comparison are the step, training with its data, and 16 arms with 5 seeds at 32 pixels. Each figure is kept as soon as it
is known: `timeout 7m` before the command loses only what was not measured yet.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
SIZES = (32, 224)
ARMS = 16
Row = dict[str, Any]


def step_rates(size: int) -> dict[str, float]:
    """Images per second of a training step of 128 images, plain, captured and compiled: forward, loss, backward, update; nothing else."""
    from benchmarks.roofline import BATCH, WAYS, timed_ways

    rates = {}
    for row in timed_ways(size, list(WAYS), torch.device("cuda")):
        rate, ready = BATCH / row["seconds"], row["seconds_until_ready"]
        if row["step"] == WAYS[row["way"]]:
            rates[row["step"]] = rate
        print(f"{size} pixels, {row['step']}: {rate:.0f} images/s, ready after {ready:.0f} s", file=sys.stderr)
    return rates


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


def options() -> argparse.ArgumentParser:
    """What the command understands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first-light", action="store_true", help="check everything that only a GPU can show; needs no data")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of --first-light, when it ends at the latest; 450 if not said")
    parser.add_argument("--part", action="append", default=[], help="of --first-light, one part; may be repeated")
    parser.add_argument("--data-root", type=Path, help="the folder in which CIFAR-10 lies")
    parser.add_argument("--only", action="append", default=[], choices=("step", "training", "matrix"), help="one part; may be repeated")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or HERE / "results"), help="$OUT if it is set")
    return parser


def checked(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; a combination that would do nothing ends the command with a sentence."""
    from benchmarks.device_checks import PARTS

    args = parser.parse_args(argv)
    if args.first_light and (args.only or args.data_root):
        parser.error("--first-light takes no --only and no --data-root; expected --part NAME, or nothing")
    if not args.first_light and (args.part or args.budget is not None or not args.data_root):
        parser.error("expected --first-light, which --part and --budget belong to, or --data-root DIR")
    if args.budget is not None and not args.budget > 0:
        parser.error(f"--budget: found {args.budget:g}; expected seconds, such as 450")
    if unknown := sorted(set(args.part) - {part.name for part in PARTS}):
        parser.error(f"--part: found {unknown[0]}; expected one of {', '.join(part.name for part in PARTS)}")
    return args


def comparison(only: Sequence[str], root: Path, output: Path) -> Path:
    """The parts of the comparison, kept row by row; the file."""
    from benchmarks.run import keep, plot, table

    parts: dict[str, list[Callable[[], Row]]] = {
        "step": [partial(step, size) for size in SIZES],
        "training": [partial(training, size, root) for size in SIZES],
        "matrix": [partial(matrix, root, jobs) for jobs in (1, 4, 0)],
    }
    command = " ".join(["python benchmarks/gpu.py --data-root DIR", *(f"--only {name}" for name in only)])
    rows: list[Row] = []
    for measure in (measure for name in only or parts for measure in parts[name]):
        rows.append(measure())
        target = keep("-".join(["gpu", *only]), command, rows, output, torch.cuda.get_device_name())
    plot(rows, target.with_suffix(".png"))
    print(table(rows))
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and keep the figures; 2 where there is no CUDA device."""
    sys.path.insert(0, str(HERE.parent))
    from benchmarks import first_light

    args = checked(options(), argv)
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA device; benchmarks/run.py measures on the CPU", file=sys.stderr)
        return 2
    if args.first_light:
        return first_light.run(args.part, args.budget or first_light.BUDGET, args.output)
    print(f"\nwritten to {comparison(args.only, args.data_root.resolve(), args.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
