"""How many jobs share a GPU: one more as long as measured memory permits it and the last one made all of them faster together.

A small network leaves most of a GPU idle. What runs beside what changes no bit: each job is a process of its own.
"""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

SAMPLES = 2  # epochs at an unchanged number of jobs by which a number is judged
WORTH = 1.1  # times as fast together that one job more must make them
SPARE = 1.25  # times the memory of the largest job so far that must be free for another
CONTEXT = 2**30  # bytes that a process takes on the device beside torch's: CUDA's context and the libraries' workspaces


def has_mps() -> bool:
    """Whether NVIDIA's Multi-Process Service runs, by which the kernels of several processes run at once instead of by turns."""
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    try:
        os.kill(int((folder / "nvidia-cuda-mps-control.pid").read_text()), 0)
    except PermissionError:  # another user's; it is there
        return True
    except (OSError, ValueError):
        return False
    return True


class Packing:
    """Watches the epochs of all jobs; `jobs` is how many should share each device, and `reason` why."""

    def __init__(self, most: int) -> None:
        self.jobs, self.reason = 1, ""
        self._most, self._is_settled = most, False
        self._running: dict[str, str] = {}  # the device of each running stage
        self._seen: set[str] = set()  # those that have ended an epoch; the others may still be starting
        self._steady: dict[str, int] = {}  # with how many jobs each has run since its last epoch, where that did not change meanwhile
        self._rates: dict[tuple[Hashable, int], list[float]] = {}  # items per second of one job, by its kind and the number of jobs
        self._needs = 0  # bytes that the largest job so far took
        self._free: dict[str, int] = {}  # bytes, of each device

    def see(self, event: Mapping[str, Any], kind: Hashable) -> None:
        """Take note of an event; jobs of one `kind` are expected to be equally fast."""
        stage, device = event["stage"], event.get("device", "")
        if event["kind"] == "started":
            self._running[stage] = device
            self._disturb(device)
        elif event["kind"] in ("done", "failed", "stopped"):
            self._running.pop(stage, None)
            self._seen.discard(stage)
            self._disturb(device)
        elif event["kind"] == "epoch" and "memory" in event:
            self._take(event, stage, device, kind)
            self._judge()

    def fewer(self, jobs: int) -> None:
        """Memory did not suffice: no more than these from now on."""
        self.jobs, self._is_settled, self.reason = min(self.jobs, jobs), True, "memory did not suffice for more"

    def _on(self, device: str) -> list[str]:
        return [stage for stage, where in self._running.items() if where == device]

    def _disturb(self, device: str) -> None:
        for stage in self._on(device):
            self._steady.pop(stage, None)

    def _take(self, event: Mapping[str, Any], stage: str, device: str, kind: Hashable) -> None:
        self._needs = max(self._needs, event["memory"]["taken"])
        self._free[device] = event["memory"]["free"]
        if stage in self._steady:
            self._rates.setdefault((kind, self._steady[stage]), []).append(event["row"]["rate"])
        if stage not in self._seen:
            self._seen.add(stage)
            self._disturb(device)
        beside = self._on(device)
        if self._seen.issuperset(beside):
            self._steady[stage] = len(beside)

    def _judge(self) -> None:
        if self._is_settled:
            return
        gains = self._gains()
        if self.jobs > 1 and not gains:
            return  # not known yet
        if self.jobs > 1 and median(gains) < WORTH:
            self._is_settled = True
            if median(gains) < 1:
                self.reason = f"together {self.jobs} were only {median(gains):.2f} times as fast"
                self.jobs -= 1
        elif self._is_measured() and self.jobs < self._most and min(self._free.values()) > SPARE * self._needs + CONTEXT:
            self.jobs += 1
            self.reason = f"one took {self._needs / 1e9:.1f} GB, and {min(self._free.values()) / 1e9:.1f} GB are free"

    def _is_measured(self) -> bool:
        return any(num_jobs == self.jobs and len(rates) >= SAMPLES for (_, num_jobs), rates in self._rates.items())

    def _gains(self) -> list[float]:
        """How many times as fast all are together as they were with one job fewer, by kind of job."""
        gains = []
        for (kind, num_jobs), rates in self._rates.items():
            before = self._rates.get((kind, num_jobs - 1), [])
            if num_jobs == self.jobs and min(len(rates), len(before)) >= SAMPLES:
                gains.append(num_jobs * median(rates) / ((num_jobs - 1) * median(before)))
        return gains
