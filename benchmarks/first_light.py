"""First light: what only a CUDA device can show, checked in one go without a data set, a network or pretrained weights.

    python benchmarks/gpu.py --first-light                     (under eight minutes on one H100; --budget SECONDS, 450 if not said)
    python benchmarks/gpu.py --first-light --part packing      (one of the parts, such as one that was left out)

The parts, in order of worth, are PARTS in `device_checks`. Each begins only if the time that it is expected to take is left, and what still
runs at the end of the budget is stopped. One JSON file has every figure; it is written anew whenever something is known, so that a kill
loses nothing. Exit status 0 if all that ran agrees, else 1. With FAKE_CUDA=1, a stand-in whose kernels do nothing, no number is judged:
only commands that fail count.
"""

import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablation.training.device_option import num_cores
from benchmarks.device_checks import PARTS, Outcome, Part, Place
from benchmarks.processes import ROOT

BUDGET = 450.0  # seconds
LIMIT = 2  # times the expected seconds after which a part that hangs is given up, so that the others come to their turn
Row = dict[str, Any]


def fits(expected: float, elapsed: float, budget: float) -> bool:
    """Whether a part that takes so many seconds is begun after so many of the budget."""
    return elapsed + expected <= budget


def judged(outcome: Outcome, seconds: float, *, has_numbers: bool, is_over: bool = True) -> Row:
    """A part as it stands in the file, at its end or before; without numbers only what failed counts."""
    problems = [*outcome.failed, *(outcome.differs if has_numbers else ())]
    calm = "cut short" if outcome.cut_short else "runs" if not is_over else "agrees" if has_numbers else "ran; no numbers"
    row = {"state": "differs" if problems else calm, "is_over": is_over, "seconds": round(seconds, 1), "problems": problems}
    row |= {"cut_short": list(outcome.cut_short)} if outcome.cut_short else {}
    row |= {"not_judged": list(outcome.differs)} if outcome.differs and not has_numbers else {}
    return row | {"figures": finite(outcome.figures)}


def finite(value: Any) -> Any:
    """The same with None in the place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_right(record: Mapping[str, Any]) -> bool:
    """Whether nothing that ran disagrees."""
    return not any(part["problems"] for part in record["parts"].values())


def about(command: str, budget: float, *, has_numbers: bool) -> Row:
    """Date, command, hardware and versions."""
    import torch

    from ablation.running.recorder.provenance import provenance

    known, device = provenance(ROOT), torch.cuda.get_device_properties(0)
    versions = known["versions"] | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver()}
    gpu = {"gpu": device.name, "memory_gb": device.total_memory / 1e9, "capability": [device.major, device.minor]}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "hardware": gpu | {"host": known["hardware"], "usable_cores": num_cores()},
        "versions": versions,
        "commit": known["commit"] + (" and changes" if known["dirty"] else ""),
        "has_numbers": has_numbers,
        "budget_seconds": budget,
    }


def driver() -> str:
    """The version of NVIDIA's driver, if it says so."""
    try:
        return Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return ""


def measured(parts: Sequence[Part], budget: float, known: Row, target: Path, *, has_numbers: bool) -> Row:
    """All parts that fit, one after the other; the record, which is written to the file whenever more is known."""
    began = time.monotonic()
    record: Row = known | {"seconds": 0.0, "agrees": True, "left_out": {part.name: "not begun" for part in parts}, "parts": {}}
    kept(record, began, target)
    for part in parts:
        elapsed = time.monotonic() - began
        if not fits(part.expected, elapsed, budget):
            record["left_out"][part.name] = f"expected to take {part.expected:.0f} s; {max(0.0, budget - elapsed):.0f} s were left"
            say(f"{part.name}: left out, {record['left_out'][part.name]}")
            kept(record, began, target)
            continue
        say(f"{part.name}: {part.shows}")
        del record["left_out"][part.name]
        record["parts"][part.name] = judged(Outcome(), 0.0, has_numbers=has_numbers, is_over=False)
        kept(record, began, target)
        for row in rows_of(part, began + budget, has_numbers=has_numbers):
            record["parts"][part.name] = row
            kept(record, began, target)
        say(f"{part.name}: {'; '.join([row['state'], *row['problems']])}")
    return record


def rows_of(part: Part, end: float, *, has_numbers: bool) -> Iterator[Row]:
    """What stands in the file of a part, again and again as more is known; an error of its own is one of its problems."""
    began, last = time.monotonic(), Outcome()
    deadline = min(end, began + LIMIT * part.expected) if has_numbers else end
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for last in part.check(Place(Path(folder), deadline, has_numbers)):
                yield judged(last, time.monotonic() - began, has_numbers=has_numbers, is_over=False)
            if last.cut_short and deadline < end:
                raise TimeoutError(f"did not end within {LIMIT * part.expected:.0f} s, {LIMIT} times what is expected")
        except Exception as error:  # of any kind: the other parts go on
            last = replace(last, failed=(*last.failed, f"{part.name}: {type(error).__name__}: {error}"))
    yield judged(last, time.monotonic() - began, has_numbers=has_numbers)


def kept(record: Row, began: float, target: Path) -> None:
    """Write the record, whole."""
    record |= {"seconds": round(time.monotonic() - began, 1), "agrees": is_right(record)}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(target)


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def run(names: Sequence[str], budget: float, output: Path) -> int:
    """First light, or some parts of it; 0 if all that ran agrees, else 1."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that no process is left behind
    has_numbers = not os.environ.get("FAKE_CUDA")
    chosen = [part for part in PARTS if part.name in names or not names]
    command = " ".join(["python benchmarks/gpu.py --first-light", *(f"--part {name}" for name in names), f"--budget {budget:g}"])
    stem = "-".join(["first-light", *names, *(() if has_numbers else ("without-numbers",))])
    target = output / f"{stem}-{datetime.now(UTC):%Y-%m-%d}.json"
    record = measured(chosen, budget, about(command, budget, has_numbers=has_numbers), target, has_numbers=has_numbers)
    print(f"{'all that ran agrees' if record['agrees'] else 'not all agrees'}; written to {target}")
    return 0 if record["agrees"] else 1
