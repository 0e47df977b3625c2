"""Simulates a study of many runs on many workers: the real planner, scheduler, split, follower and recorder, with jobs that only sleep.

Usage: python benchmarks/scale.py --arms 100 --seeds 100 --workers 1000 --recorded 1000

Time is simulated where jobs sleep, so that what is measured is the coordinator: its seconds of processor for each run. Nothing is
trained but one small run, whose results every recorded run then has under a key of its own.
"""

import argparse
import heapq
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from rich.console import Console  # noqa: E402

from ablation.commands.options import Options  # noqa: E402
from ablation.commands.session import Session  # noqa: E402
from ablation.planning.jobs import Job  # noqa: E402
from ablation.planning.parts import shares  # noqa: E402
from ablation.planning.plan import Plan  # noqa: E402
from ablation.running.messages import RunMessages  # noqa: E402
from ablation.running.outcomes import Outcome  # noqa: E402
from ablation.running.parts.engine import JobState, State  # noqa: E402
from ablation.running.parts.following import follow  # noqa: E402
from ablation.running.parts.log import PartLog  # noqa: E402
from ablation.running.parts.pinning import pinned  # noqa: E402
from ablation.running.progress import PlainView, ProgressState, Results  # noqa: E402
from ablation.running.scheduler import execute  # noqa: E402

FILE = Path("many.yaml")
EPOCHS, EPOCH_SECONDS = 4, 30.0


def study_text(arms: int, seeds: int) -> str:
    """A baseline and so many rates, each with so many seeds."""
    rates = ", ".join(f"{(i + 1) * 1e-5:.5f}" for i in range(arms - 1))
    base = f"base: {{data: digits, model: test_efficientnet, epochs: {EPOCHS}}}\nladder: {{baseline: {{}}}}\n"
    return f"study: many\nseeds: {list(range(seeds))}\n{base}sweeps: {{lr: {{over: {{optimizer.lr: [{rates}]}}}}}}\n"


def session_of(file: Path) -> Session:
    """The study's session on the CPU."""
    return Session(Options(file, device="cpu"), Console(stderr=True))


class Timer:
    """Seconds of processor and by the clock, and the memory that was added, from one point to the next."""

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> dict[str, float]:
        """What was used since the last call."""
        now = time.process_time(), time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before, self.before = getattr(self, "before", now), now
        used = [after - then for after, then in zip(now, before, strict=True)]
        return {"processor s": round(used[0], 3), "clock s": round(used[1], 3), "MB more": round(used[2], 1)}


class Sleeping:
    """An executor whose jobs only sleep, in simulated time: its next event is there at once."""

    num_idle = 0

    def __init__(self, num_slots: int) -> None:
        self.num_slots, self.running = num_slots, 0
        self.now, self.queue, self.random = 0.0, list[tuple[float, int, dict[str, Any]]](), random.Random(0)
        self.num_events = 0

    @property
    def num_free(self) -> int:
        """How many jobs could start now."""
        return self.num_slots - self.running

    def submit(self, job: Job, *, alone: bool = False) -> None:
        """Let a job sleep through its epochs; its events come when they would."""
        self.running += 1
        at, about = self.now, {"stage": job.key, "device": "cpu"}
        self._put(at, {"kind": "started", **about})
        for epoch in range(1, EPOCHS + 1):
            at += EPOCH_SECONDS * self.random.uniform(0.5, 1.5)
            values = {"loss": 1 / epoch, "accuracy": 0.5}
            row = {"epoch": epoch, "time": int(1000 * at), "seconds": EPOCH_SECONDS, "values": values, "rate": 1000.0}
            self._put(at, {"kind": "epoch", "epoch": epoch, "row": row, **about})
        for run in job.requests:
            self._put(at, {"kind": "result", "run": run, **about})
        self._put(at, {"kind": "done", **about})

    def _put(self, at: float, event: dict[str, Any]) -> None:
        self.num_events += 1
        heapq.heappush(self.queue, (at, self.num_events, event))

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """All events of the next `timeout` seconds, the first of which may be later."""
        self.now = max(self.now + timeout, self.queue[0][0])
        found = []
        while self.queue and self.queue[0][0] <= self.now:
            found.append(heapq.heappop(self.queue)[2])
        self.running -= sum(event["kind"] == "done" for event in found)
        return found

    def ask_to_stop(self) -> None:
        """Nobody does."""

    def close(self) -> None:
        """Nothing is held."""


class Counting:
    """A record that only counts."""

    def __init__(self) -> None:
        self.num_finished = 0

    def live(self, *_: Any) -> None:
        """An epoch."""

    def finished(self, _: Any) -> None:
        """A run."""
        self.num_finished += 1

    def failed(self, *_: Any) -> None:
        """None does."""
        raise AssertionError("a sleeping job failed")


# --- what is measured ------------------------------------------------------------------------------------------------------------


def planning(file: Path) -> tuple[Session, Plan, dict[str, Any]]:
    """Plan it once more after everything is imported and decoded."""
    session = session_of(file)
    session.check()
    timer = Timer()
    session = session_of(file)
    plan = session.plan([], probe=False)
    return session, plan, {"runs": len(plan.runs), **timer.lap()}


def scheduling(session: Session, plan: Plan, workers: int) -> dict[str, Any]:
    """Hand all jobs out to so many workers, with the lines and the status that a user sees meanwhile."""
    executor, record = Sleeping(workers), Counting()
    console = Console(file=io.StringIO(), width=100)
    state = ProgressState(plan, workers, Results(plan, session.workspace.results, {}))
    messages, display = RunMessages(plan, session.workspace, None, state, console), PlainView(state, console)
    timer = Timer()
    outcome = execute(plan, executor, record, lambda event: messages(event, display), should_stop=lambda: False)
    used = timer.lap()
    assert record.num_finished == len(outcome.finished) == len(plan.runs), record.num_finished
    hours = round(executor.now / 3600, 2)
    return {"workers": workers, "events": executor.num_events, "simulated hours": hours, **used, "ms a run": _each(used, len(plan.runs))}


def splitting(plan: Plan, parts: int) -> dict[str, Any]:
    """Split it into so many parts."""
    timer = Timer()
    sizes = [len(share) for share in shares(plan, parts)]
    return {"parts": parts, "fewest runs": min(sizes), "most runs": max(sizes), **timer.lap()}


class Started:
    """An engine whose jobs all run, and whose logs are there already."""

    about = {"kind": "none"}  # noqa: RUF012  never changed

    def submit(self, parts: Any) -> str:
        """The one job."""
        return "1"

    def states(self, jobs: Any) -> dict[tuple[str, int], JobState]:
        """All run."""
        return {("1", part): JobState(State.RUNNING) for part in range(1, 100_000)}

    def stop(self, jobs: Any) -> None:
        """Nobody does."""

    def cancel(self, jobs: Any) -> None:
        """Nobody does."""


def following(plan: Plan, parts: int, folder: Path) -> dict[str, Any]:
    """Take the logs of so many parts, in which everything has happened."""
    split = pinned(folder / "parts", plan, parts, "cpu")
    for number, keys in enumerate(split.shares, 1):
        log = PartLog(split.folder, number)
        log.begin()
        wanted = set(keys)
        for node in plan.nodes.values():
            if wanted & set(node.job.requests):
                executor = Sleeping(1)
                executor.submit(node.job)
                for _, _, event in sorted(executor.queue, key=lambda entry: entry[1]):
                    log(event)
        for run in plan.runs:
            if run.key in wanted:
                (folder / "results" / run.key).mkdir(parents=True, exist_ok=True)
                (folder / "results" / run.key / "result.json").touch()
                log.finished(run)
        log.end(0)
    timer = Timer()
    outcome: Outcome = follow(plan, split, Started(), Counting(), lambda event: None, should_stop=lambda: False)
    used = timer.lap()
    assert len(outcome.finished) == len(plan.runs), outcome.why
    return {"parts": parts, **used, "ms a run": _each(used, len(plan.runs))}


def recording(file: Path, runs: int) -> dict[str, Any]:
    """Record so many runs: one is trained, and the others get its results under their own keys."""
    from ablation.running.recorder.recorder import Recorder
    from ablation.tracking.store import Store

    subprocess.run(
        [sys.executable, "-m", "ablation", "run", str(file), "--arm", "baseline", "--seed", "0", "--device", "cpu"],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "MLFLOW_TRACKING_URI": ""},
    )
    session = session_of(file)
    store = Store.open()
    known, _ = session.known_runs(store)
    plan = session.plan(known, probe=False)
    trained = next(run for run in plan.runs if run.state == "done")
    wanted = [run for run in plan.waiting if run.choice is None][:runs]
    for run in wanted:
        copied(session.workspace.results / trained.key, session.workspace.results / run.key, run.key, run.content)
    plan = replace(plan, runs=tuple(replace(run, state="evaluated") for run in wanted))
    timer = Timer()
    recorder = Recorder(store, plan, session.preparation.planner, session.workspace, "ablate run")
    recorder.begin(known)
    for run in wanted:
        recorder.finished(run)
    recorder.close()
    assert not recorder.problems, recorder.problems
    used = timer.lap()
    return {"runs": len(wanted), **used, "ms a run": _each(used, len(wanted)), "runs a second": round(len(wanted) / used["clock s"], 1)}


def copied(source: Path, target: Path, key: str, content: str) -> None:
    """The results of one run under another key, its large files linked."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file() and path.name != "result.json":
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.relative_to(source))
    result = json.loads((source / "result.json").read_text(encoding="utf-8"))
    (target / "result.json").write_text(json.dumps(result | {"key": key, "content": content}), encoding="utf-8")


def _each(used: dict[str, float], count: int) -> float:
    return round(1000 * used["processor s"] / count, 3)


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw how many workers one coordinator keeps busy, by the length of a run: as many as end runs no faster than it can take them."""
    import matplotlib.pyplot as plt

    lengths = [10.0, 36_000.0]  # seconds
    costs = {  # seconds of the coordinator a run
        "hands out, and shows": max(row["ms a run"] for row in figures["scheduling"]) / 1000,
        "follows parts": max(row["ms a run"] for row in figures["following"]) / 1000,
        "records (SQLite)": 1 / figures["recording"][0]["runs a second"],
    }
    fig, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for name, cost in costs.items():
        ax.plot(lengths, [length / cost for length in lengths], label=f"{name}: {1000 * cost:.{2 if cost < 0.01 else 0}f} ms a run")
    for workers in (1000, 10_000):
        ax.axhline(workers, color="0.7", linewidth=0.8)
        ax.annotate(f"{workers:,} workers", (lengths[1], workers), xytext=(-4, 3), textcoords="offset points", ha="right", color="0.4")
    ax.set(xscale="log", yscale="log", xlabel="length of a run in seconds", ylabel="workers that one coordinator keeps busy")
    ax.legend(frameon=False)
    fig.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure each part, print it, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--parts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--recorded", type=int, default=1000, help="how many runs are recorded, in an SQLite file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw how many workers one coordinator keeps busy")
    options = parser.parse_args()
    from commands import hardware

    folder, now = Path(tempfile.mkdtemp(prefix="ablate-scale-")), datetime.now(UTC)
    picture = options.plot and options.plot.resolve()
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    FILE.write_text(study_text(options.arms, options.seeds), encoding="utf-8")
    session, plan, planned = planning(FILE)
    figures: dict[str, Any] = {"planning": planned}
    print(json.dumps({"planning": planned}), flush=True)
    measures: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        *(("scheduling", partial(scheduling, session, plan, size)) for size in options.workers),
        *(("splitting", partial(splitting, plan, size)) for size in options.parts),
        *(("following", partial(following, plan, size, folder / f"followed-{size}")) for size in options.parts),
        ("recording", partial(recording, FILE, options.recorded)),
    ]
    for name, measure in measures:
        figures.setdefault(name, []).append(measure())
        print(json.dumps({name: figures[name][-1]}), flush=True)
    about = {"date": now.isoformat(timespec="seconds"), "hardware": hardware(), "load": os.getloadavg()[0], "command": " ".join(sys.argv)}
    target = HERE / "results" / f"scale-{now:%Y-%m-%d}.json"
    target.write_text(json.dumps({**about, **figures}, indent=1) + "\n", encoding="utf-8")
    if picture:
        plot(figures, picture)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{about['hardware']}, {about['date']}; written to {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
