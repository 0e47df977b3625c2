"""What a job costs more on a Ray cluster than in a process of this machine: its way there and back.

    python benchmarks/ray_overhead.py --jobs 200          (a cluster of this machine; --address HOST:PORT: another)

The job is the same on both sides: a stage of the smallest study that is trained already, of which a worker reads the state, sees that its
result is whole, and says so. Both sides take turns. One line of JSON: seconds from the submission to the end, by executor, and how much
more Ray takes (`overhead`), as medians and as the 95th percentile; `load` is how many processes wanted a core before.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ablation.planning.jobs import Job
from ablation.running.executors import start_executor
from ablation.running.scheduler import Executor

HERE = Path(__file__).parent


def seconds_of(executor: Executor, job: Job) -> float:
    """How long a job takes from its submission until its end is known here."""
    began = time.perf_counter()
    executor.submit(job)
    while True:
        for event in executor.events(1.0):
            if event["kind"] == "done":
                return time.perf_counter() - began
            if event["kind"] in ("failed", "stopped", "untested"):
                raise SystemExit(f"the job did not end well: {event}")


def measured(folder: Path, num_jobs: int, address: str) -> dict[str, Any]:
    """The seconds of a finished job on both sides, which take turns."""
    from tests.tiny import Planned, write

    planned = Planned(write(folder), folder / "mlruns")
    (job,) = planned.jobs()
    planned.carry_out()
    ray = start_executor("ray", ["cpu"], 1, "images", address=address, study="tiny", folders=[str(folder / "mlruns")])
    executors = {"local": start_executor("local", ["cpu"], 1, "images"), "ray": ray}
    try:
        for executor in executors.values():  # the first job waits for the process's imports
            seconds_of(executor, job)
        seconds = {name: list[float]() for name in executors}
        for _ in range(num_jobs):
            for name, executor in executors.items():
                seconds[name].append(seconds_of(executor, job))
    finally:
        for executor in executors.values():
            executor.close()
    last = {name: quantiles(values, n=20)[-1] for name, values in seconds.items()}
    middle = {name: median(values) for name, values in seconds.items()}
    overhead = {"median": middle["ray"] - middle["local"], "p95": last["ray"] - last["local"]}
    return {"jobs": num_jobs, "median": middle, "p95": last, "overhead": overhead}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description="What a job costs more on a Ray cluster than in a process of this machine.")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--address", default="", help="HOST:PORT of a cluster; by default one of this machine.")
    options = parser.parse_args(argv)
    sys.path.insert(0, str(HERE.parent))
    from benchmarks.commands import hardware

    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "hardware": hardware(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(about | measured(Path(name), options.jobs, options.address)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
