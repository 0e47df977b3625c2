"""`ablate status` and `ablate log`: how the matrix stands, and one run's epochs."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ablation.commands.exit_codes import DONE
from ablation.commands.recorded import open_recorded
from ablation.commands.report_watch import is_held
from ablation.errors import AblateError, ConfigError, unknown_name
from ablation.running.progress import curve_words, epoch_words
from ablation.tracking.store import Point, Recorded

if TYPE_CHECKING:
    from ablation.report.frames import tables


def status(*, follow: bool) -> int:
    """Print how every study that is being run, or was run last, stands."""
    console = Console()
    while True:
        found = sorted(Path("mlruns/status").glob("*.json"), key=lambda path: -path.stat().st_mtime)
        if not found:
            raise AblateError("nothing was run here yet; ablate run FILE runs a study")
        alive = [path for path in found if is_held(Path("mlruns/locks") / f"{path.stem}.lock")]
        for path in alive or found[:1]:
            console.print(_status_text(path, is_alive=path in alive), markup=False, highlight=False)
        if not (follow and alive):
            return DONE
        time.sleep(2)


def _status_text(path: Path, *, is_alive: bool) -> str:
    about = json.loads(path.read_text(encoding="utf-8"))
    state = "running" if is_alive else "not running"
    lines = [f"{path.stem}: {state} (pid {about['pid']}) · {about.get('headline', 'starting')}"]
    for row in about.get("running", []) if is_alive else []:
        lines.append(f"  {row['name']}: {epoch_words(row)}{curve_words(row['shown'])}")
    lines += [f"  failed: {text}" for text in about.get("failed", [])]
    return "\n".join(lines)


def log(arm: str, seed: int, file: Path | None, profile: str | None) -> int:
    """Print what is known of one run: its state, its epochs, and why it failed."""
    recorded = open_recorded(file, profile)
    name = recorded.study
    planned = next((run for run in recorded.plan["runs"] if (run["arm"], run["seed"]) == (arm, seed)), None)
    if planned is None:
        arms = [one["name"] for one in recorded.plan["arms"]]
        if arm not in arms:
            raise unknown_name("ARM", "arm", arm, arms)
        raise ConfigError("SEED", f"found {seed}; the newest plan of {name} has {', '.join(map(str, recorded.plan['seeds']))}")
    rows = recorded.runs
    found = rows[(rows["arm"] == arm) & (rows["seed"] == seed)].to_dict("records")
    print(f"{name}: {arm} seed {seed}: {found[0]['status'].lower() if found else planned['state']} (key {planned['key'][:8]})")
    points = _points(recorded, found[0]["run_id"]) if found else []
    for step in sorted({point.step for point in points}):
        print(_epoch_text({point.name: point for point in points if point.step == step}, step))
    if not points:
        print("no epoch is recorded yet (ablate status shows what is under way)")
    if found and found[0]["reason"]:
        print(f"reason: {found[0]['reason']}")
        with contextlib.suppress(AblateError):
            print(recorded.artifact(found[0]["run_id"], "error.txt").read_text(encoding="utf-8"))
    return DONE


def _points(recorded: "tables.Recorded", run_id: str) -> list[Point]:
    """A run's curves with their times."""
    from ablation.report.frames.packed import Packed

    if isinstance(recorded, Recorded):
        return recorded.store.curves(run_id)
    assert isinstance(recorded, Packed), recorded
    rows = recorded.points([run_id]).to_dict("records")
    return [Point(row["metric"], row["value"], int(row["time"]), int(row["step"])) for row in rows]


def _epoch_text(points: Mapping[str, Point], step: int) -> str:
    """One epoch's line: when it ended, loss, learning rate, and what was watched."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(point.time for point in points.values()) / 1000))
    values = "".join(f"  {name.removeprefix('train/')} {point.value:.4g}" for name, point in sorted(points.items()))
    return f"{when}  epoch {step + 1:>3}{values}"
