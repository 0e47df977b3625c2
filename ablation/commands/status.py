"""`ablate status` and `ablate log`: the progress of studies, and the epochs of one run."""

import contextlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.last_run import last_stores
from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.formatting import counted, ranges, wrapped
from ablation.running.executors.engines import engine_of_split, job_ids
from ablation.running.parts.engine import State, waiting_words
from ablation.running.parts.split import Split, splits
from ablation.running.words import curve_words, epoch_words
from ablation.study.metrics import has_own_code
from ablation.system.sealed import RESULT
from ablation.tracking.addresses import named_address
from ablation.tracking.database import at_work, is_deleted
from ablation.tracking.recorded import Point, Recorded

if TYPE_CHECKING:
    from ablation.report.frames.recorded import Recorded as AnyRecorded

MOST_PRINTED = 20  # lines of what a run printed itself
QUEUE_EVERY = 15.0  # seconds between two questions to a queue
TIED = "\u00a0"  # between a name and its number, which stay on one line


def status(*, follow: bool) -> int:
    """Print the progress of every study that is running, or of the one that was run last, and what is submitted to a queue."""
    console, asked_at, submitted = Console(), -math.inf, list[tuple[str, bool]]()
    while True:
        status_files = sorted(Path("mlruns/status").glob("*.json"), key=lambda path: -path.stat().st_mtime)
        if time.monotonic() - asked_at > QUEUE_EVERY:
            asked_at, submitted = time.monotonic(), list(filter(None, map(_submitted, splits(Path("mlruns/parts").resolve()))))
        running = at_work(Path("mlruns"))
        if not (status_files or submitted or running):
            raise AblateError("nothing was run here yet; ablate run FILE runs a study")
        running_files = [Path("mlruns/status") / f"{name}.json" for name in running]
        texts = [_status_text(path, is_running=path in running_files) for path in running_files or _last(status_files)]
        for text in [*texts, *(words for words, _ in submitted)]:
            console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        if not (follow and (running_files or any(is_alive for _, is_alive in submitted))):
            return DONE
        time.sleep(2)


def _last(files: Sequence[Path]) -> list[Path]:
    """Of files with what is known of studies, newest first, that of the one run last; of parts, those of the same split."""
    study, is_part, number = files[0].stem.partition(".part-") if files else ("", "", "")
    split = number.rpartition("-")[2]
    parts = [path for path in files if is_part and re.fullmatch(rf"{re.escape(study)}\.part-\d+-of-{split}", path.stem)]
    return sorted(parts, key=lambda path: int(path.stem.split("-")[-3])) or list(files[:1])


def _submitted(split: Split) -> tuple[str, bool] | None:
    """`tiny: job 12: 2 parts (1-2) run; 1 part (3) waits in the queue (Resources)`, and whether any does; None if none was submitted."""
    jobs = ", ".join(sorted(job_ids(split)))
    try:
        engine = engine_of_split(split)
        if engine is None:
            return None
        states = engine.states(job_ids(split))
    except AblateError as error:  # a host without the queue's commands
        return f"{split.study}: submitted as job {jobs}; {error}", False
    if states is None:
        return f"{split.study}: submitted as job {jobs}; the queue does not answer", False
    running = sorted(part for (_, part), state in states.items() if state.state is State.RUNNING)
    runs = f"{counted(len(running), 'part')} ({ranges(running)}) {'runs' if len(running) == 1 else 'run'}" if running else ""
    alive = sorted({job for (job, _), state in states.items() if state.state in (State.RUNNING, State.WAITING)})
    words = "; ".join(filter(None, [runs, waiting_words(states)]))
    if not alive and not jobs:
        return None
    if not alive:
        keys = {key for share in split.shares for key in share}
        computed = sum((split.folder.parents[2] / "results" / key / RESULT).exists() for key in keys)
        ended = f"its parts have ended (job {jobs}), {computed} of {counted(len(keys), 'run')} computed"
        rest = "" if computed == len(keys) else f" and goes on; what they printed is in {split.folder}/part-*.out"
        return f"{split.study}: {ended}; the same ablate run records what is there{rest}", False
    return f"{split.study}: job {', '.join(alive)}: {words}", True


def _status_text(path: Path, *, is_running: bool) -> str:
    try:
        status = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise AblateError(f"{path} was damaged; expected JSON, as the next ablate run writes it") from None
    host = f" on {status['host']}" if status.get("host", "") not in ("", socket.gethostname()) else ""
    if is_running and not _tells_of_now(status):
        return f"{path.stem}: running · plans what is to be done"
    state = f"running (pid {status['pid']}{host})" if is_running else "not running"
    lines = [f"{path.stem}: {state} · {status.get('headline', 'starting')}"]
    for row in status.get("running", []) if is_running else []:
        lines.append(f"  {row['name']}: {epoch_words(row)}{curve_words(row.get('shown', {}))}")
    lines += [f"  failed: {text}" for text in status.get("failed", [])]
    lines += ["  deleted in MLflow; ablate run FILE restores it"] if _is_deleted(path.stem) else []
    return "\n".join(part for line in lines for part in wrapped(line, 4))


def _tells_of_now(status: Mapping[str, Any]) -> bool:
    """Whether a process said this that is still there, and not one that was at it before."""
    if not status or status.get("host", socket.gethostname()) != socket.gethostname():
        return bool(status)
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _is_deleted(study: str) -> bool:
    """Whether the study was deleted in the folder's own database, if it is in that one: another store is not asked, which may take long."""
    is_here = not named_address() and not last_stores().get(study)
    return is_here and is_deleted(Path("mlruns"), study)


def log(arm: str, seed: int, file: Path | None, profile: str | None) -> int:
    """Print one run's state, its epochs, and why it failed."""
    from ablation.commands.recorded import open_recorded  # not for `status`, which looks at no store and answers at once

    recorded = open_recorded(file, profile)
    name = recorded.study
    planned = next((run for run in recorded.plan["runs"] if (run["arm"], run["seed"]) == (arm, seed)), None)
    if planned is None:
        arms = [planned_arm["name"] for planned_arm in recorded.plan["arms"]]
        if arm not in arms:
            raise unknown_name("ARM", "arm", arm, arms)
        seeds = ", ".join(str(run["seed"]) for run in recorded.plan["runs"] if run["arm"] == arm) or "none"
        raise ConfigError("SEED", f"found {seed}; expected one of the seeds of {arm} in the newest plan of {name}: {seeds}")
    rows = recorded.runs
    run_rows = rows[(rows["arm"] == arm) & (rows["seed"] == seed)].to_dict("records")
    print(f"{name}: {arm} seed {seed}: {run_rows[0]['status'].lower() if run_rows else planned['state']} (key {planned['key'][:8]})")
    points, is_own = _points(recorded, run_rows[0]["run_id"]) if run_rows else [], has_own_code(recorded.plan)
    for step in sorted({point.step for point in points}):
        of_step = {point.name: point for point in points if point.step == step}
        print(_epoch_text(of_step, step, is_own=is_own))
    if not points:
        print(f"no {'curve' if is_own else 'epoch'} is recorded yet (ablate status shows what is under way)")
    if is_own and run_rows:
        _print_printed(recorded, run_rows[0]["run_id"])
    if run_rows and run_rows[0]["reason"]:
        print("\n".join(wrapped(f"reason: {run_rows[0]['reason']}", 2)))
        with contextlib.suppress(AblateError):
            print(recorded.artifact(run_rows[0]["run_id"], "error.txt").read_text(encoding="utf-8"))
    return DONE


def _print_printed(recorded: "AnyRecorded", run_id: str) -> None:
    """Print the end of what a run of one's own code printed itself, if it is recorded and anything."""
    with contextlib.suppress(AblateError):
        lines = recorded.artifact(run_id, "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        if lines:
            left_out = f" (the last {MOST_PRINTED} of {len(lines)} lines; ablate ui shows all of them)" if len(lines) > MOST_PRINTED else ""
            print("\n".join([f"it printed{left_out}:", *(f"  {line}" for line in lines[-MOST_PRINTED:])]))


def _points(recorded: "AnyRecorded", run_id: str) -> list[Point]:
    """The points of a run's curves, with their times."""
    from ablation.report.frames.packed import Packed

    if isinstance(recorded, Recorded):
        return recorded.points(run_id)
    assert isinstance(recorded, Packed), recorded
    rows = recorded.points([run_id]).to_dict("records")
    return [Point(row["metric"], row["value"], int(row["time"]), int(row["step"])) for row in rows]


def _epoch_text(points: Mapping[str, Point], step: int, *, is_own: bool = False) -> str:
    """One epoch (of one's own code, step) as a line, or more if it has many curves: when it ended, and its curves."""
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(point.time for point in points.values()) / 1000))
    values = "".join(f"  {name.removeprefix('train/')}{TIED}{point.value:.4g}" for name, point in sorted(points.items()))
    row = f"step {step:>4}" if is_own else f"epoch {step + 1:>3}"
    return "\n".join(wrapped(f"{ended}  {row}{values}", 32)).replace(TIED, " ")
