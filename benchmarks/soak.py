"""Runs hundreds of tiny runs in one command, and looks at its processes' memory and open files: they must stay flat.

    python benchmarks/soak.py --runs 500   (about five minutes on two cores)

The first third of the samples is passed over, since libraries are loaded and caches fill then. Through the rest of each process's samples
goes a straight line; what it rises by over that time is the growth. Exit status 1 where a process has grown.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
GROWTH_MB, GROWTH_FILES = 0.05, 3.0  # what is allowed: MB for each run, of numbers that are kept, and files in all
SAMPLES = 12  # fewer say nothing of a process
STUDY = """
study: soak
seeds: [0]
base:
  data: {{name: digits, longtail: {{name: linear, largest: 20, smallest: 10}}}}
  model: {{name: test_efficientnet, image_size: 16}}
  optimizer: {{name: adamw, lr: 1e-3}}
  epochs: 1
  batch_size: 32
  tta: none
keep: none
ladder: {{baseline: {{}}}}
sweeps: {{lr: {{over: {{optimizer.lr: [{rates}]}}}}}}
"""


def study(num_runs: int) -> str:
    """A study file of that many arms with one seed."""
    return STUDY.format(rates=", ".join(f"{(i + 2) * 1e-5:.5f}" for i in range(num_runs - 1)))


def watch(process: "subprocess.Popen[bytes]", every: float) -> dict[int, list[tuple[float, float, int]]]:
    """Of each process of the tree, by its id, the samples until the command ends: seconds, MB of memory, open files and sockets."""
    samples: dict[int, list[tuple[float, float, int]]] = {}
    began = time.monotonic()
    while process.poll() is None:
        for one in tree(process.pid):
            try:
                sample = (time.monotonic() - began, one.memory_info().rss / 2**20, one.num_fds())
            except psutil.Error:  # it has just ended
                continue
            if sample[1]:  # what has ended and is not collected yet has no memory
                samples.setdefault(one.pid, []).append(sample)
        time.sleep(every)
    return samples


def tree(pid: int) -> list[psutil.Process]:
    """The command and its workers, without Python's own helper."""
    try:
        top = psutil.Process(pid)
        return [top, *(one for one in top.children(recursive=True) if "resource_tracker" not in " ".join(one.cmdline()))]
    except psutil.Error:
        return []


def growth(samples: Sequence[tuple[float, float, int]]) -> dict[str, float]:
    """What a process had in the end, and by how much a line through the later two thirds of its samples rises."""
    seconds, megabytes, files = np.array(samples[len(samples) // 3 :], dtype=float).T
    rises = [float(np.polyfit(seconds, values, 1)[0] * (seconds[-1] - seconds[0])) for values in (megabytes, files)]
    last = {"memory_mb": round(float(megabytes[-1]), 1), "files": int(files[-1])}
    return last | {"samples": len(samples), "growth_mb": round(rises[0], 1), "growth_files": round(rises[1], 1)}


def is_flat(found: dict[str, Any], num_runs: int) -> bool:
    """Whether a process has not grown by more than is allowed for that many runs."""
    return bool(found["growth_mb"] <= GROWTH_MB * num_runs and found["growth_files"] <= GROWTH_FILES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print a row for each process, and keep the figures; 1 where a process grew or the command failed."""
    sys.path.insert(0, str(HERE.parent))
    from benchmarks.commands import hardware

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two samples")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "soak.yaml").write_text(study(args.runs), encoding="utf-8")
        command, began = [sys.executable, "-m", "ablation", "run", "soak.yaml", "--device", "cpu"], time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples = watch(process, args.every)
    rows = {
        "coordinator" if pid == process.pid else f"worker {pid}": growth(values)
        for pid, values in samples.items()
        if len(values) >= SAMPLES
    }
    flat = {name: is_flat(row, args.runs) for name, row in rows.items()}
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "command": f"python benchmarks/soak.py --runs {args.runs}",
        "seconds": round(time.monotonic() - began),
        "exit_status": process.returncode,
        "allowed": {"mb_per_run": GROWTH_MB, "files": GROWTH_FILES},
        "processes": {name: row | {"is_flat": flat[name]} for name, row in rows.items()},
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"soak-{result['date'][:10]}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| process | MB at the end | growth, MB | open files | growth, files | flat |\n|---|---:|---:|---:|---:|---|")
    for name, row in rows.items():
        numbers = f"{row['memory_mb']} | {row['growth_mb']} | {row['files']} | {row['growth_files']}"
        print(f"| {name} | {numbers} | {'yes' if flat[name] else 'no'} |")
    print(f"\n{args.runs} runs in {result['seconds']} s; exit status {process.returncode}")
    return 0 if rows and all(flat.values()) and process.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
