"""Whether one's own training code repeats: runs to compare, what differs between them, and what was found of it, on disk."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from ablation.study.task import EVERY_EPOCH, Emit, Interrupted
from ablation.system.files import write_json
from ablation.system.sealed import RESULT
from ablation.tasks.own.work import OwnWork

TABLES = ("items.parquet", "predictions.parquet")


@dataclass(frozen=True)
class Trial:
    """What a run came to, as far as another one must come to the same."""

    metrics: Mapping[str, float]
    curves: Mapping[tuple[int, str], float]  # (step, name) -> value
    tables: Mapping[str, str]  # file -> digest
    same: Mapping[str, str]  # what the code says is the same in all arms: name -> digest
    steps: int
    seconds: float


def trial(work: OwnWork, folder: Path, device: str, emit: Emit, should_stop: Callable[[], bool]) -> Trial:
    """Carry out a run below a folder of its own. Raises what `run.run` raises, Interrupted if it was asked to stop."""
    from ablation.tasks.own.run import run

    began = time.monotonic()
    work = replace(work, stages=folder / "stages", results=folder / "results")
    run(work, device, emit, should_stop, EVERY_EPOCH)
    seconds = time.monotonic() - began
    result = json.loads((work.results / work.request.key / RESULT).read_text(encoding="utf-8"))
    curves = {(row["epoch"], name): value for row in result["history"] for name, value in row["values"].items()}
    tables = {name: content for name, content in result["files"].items() if name in TABLES}
    return Trial(result["metrics"], curves, tables, result["same"], len(result["history"]), seconds)


def stopped_trial(work: OwnWork, folder: Path, device: str, first: Trial, should_stop: Callable[[], bool]) -> tuple[float, int] | None:
    """Stop a run in the middle of what the first took; the seconds and steps after which it was. None if it ended before.

    Raises Interrupted if `should_stop` stopped it.
    """
    began, steps = time.monotonic(), 0

    def emit(event: dict[str, Any]) -> None:
        nonlocal steps
        steps += event["kind"] == "epoch"

    def is_half() -> bool:
        is_late = time.monotonic() - began >= first.seconds / 2
        return should_stop() or (steps >= first.steps / 2 if first.steps > 1 else is_late)

    try:
        trial(replace(work, hold_after=(first.steps + 1) // 2 if first.steps > 1 else 0), folder, device, emit, is_half)
    except Interrupted:
        if should_stop():
            raise
        return time.monotonic() - began, steps
    return None


def differences(first: Trial, second: Trial, *, is_resumed: bool = False) -> list[str]:
    """A clause for each thing in which two runs differ; a resumed run tells only the rest of its curves."""
    return [
        *_of_metrics(first.metrics, second.metrics),
        *(f"{name} differs" for name in TABLES if first.tables.get(name) != second.tables.get(name)),
        *(f"{name} is not the same" for name in sorted({*first.same, *second.same}) if first.same.get(name) != second.same.get(name)),
        *_of_curves(first.curves, second.curves, is_resumed=is_resumed),
    ]


def _of_metrics(first: Mapping[str, float], second: Mapping[str, float]) -> Iterator[str]:
    for name, value in first.items():
        if value != second[name]:
            yield f"{name} is {value!r} and {second[name]!r}, {abs(value - second[name]):.2g} apart"


def _of_curves(first: Mapping[tuple[int, str], float], second: Mapping[tuple[int, str], float], *, is_resumed: bool) -> Iterator[str]:
    """Where each curve first differs."""
    points = {*first} & {*second} if is_resumed else {*first} | {*second}
    steps: dict[str, int] = {}
    for step, name in sorted(points):
        if first.get((step, name)) != second.get((step, name)):
            steps.setdefault(name, step)
    yield from (f"the curve {name} differs from step {step} on" for name, step in steps.items())


# --- what was found ---------------------------------------------------------------------------------------------------------------


def keep(path: Path, arm: str, work: OwnWork, *, repeatable: bool, resumes: bool | None) -> dict[str, Any]:
    """Keep what was found today of a run of an arm, and return what is kept: what is amiss of another run stays until that one repeats.

    `resumes` is None where that was not tried, or where the code does not say so.
    """
    about = {"arm": arm, "seed": work.seed, "key": work.request.key, "when": date.today().isoformat()}
    checked, before = {"repeatable": repeatable, "resumes": resumes, **about}, _read(path)
    if before and before.get("key") != work.request.key and _is_amiss(before) and not _is_amiss(checked):
        return before
    write_json(path, checked)
    return checked


def _is_amiss(checked: Mapping[str, Any]) -> bool:
    return checked["repeatable"] is False or checked["resumes"] is False


def found(root: Path, identity: str) -> dict[str, Any] | None:
    """What `ablate check-task` found: `repeatable`, `resumes`, of which `arm`, `seed` and `key`, and `when`; None if it never looked."""
    return _read(path_of(root, identity))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        checked: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return checked


def path_of(root: Path, identity: str) -> Path:
    """The file that holds it, in the folder of the store: one for each state of code, packages, data and device."""
    return root / "checks" / f"{identity[:24]}.json"
