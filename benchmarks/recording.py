"""Times how finished runs are recorded: this checkout, and another one in the same run.

`processor` are the seconds of the processor that the recorder's process takes, `drawing` those of processes that draw for it.

Usage: python benchmarks/recording.py --study FOLDER --profile quick --before CHECKOUT   (nothing else should run meanwhile)

FOLDER holds an experiments.yaml and the mlruns/ of a study that is finished. Its results are recorded again, without training, into an
empty store: an SQLite file, or what --uri names, each time under another name of the study. `--keep DIR` keeps both stores, so that
`python benchmarks/faults.py --compare DIR/before DIR/now` can hold them against each other.
"""

import argparse
import cProfile
import importlib
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = "experiments.yaml"
PARTS = {  # functions of the recorder, of this checkout or of earlier ones, by what they are for
    "its beginning": ("_begin",),
    "its end": ("_end",),
    "pictures of runs": ("of_result",),
    "pictures of arms": ("_show_pictures", "_show_picture"),
    "numbers of summaries": ("summarise",),
    "rows of new runs": ("insert_runs",),
    "runs one by one": ("create",),
    "MLflow's batches": ("log_batch",),
    "data sets": ("log_dataset",),
    "ends": ("end_runs", "finish"),
    "files": ("add_files",),
}


def child(profile: str, is_profiled: bool) -> None:
    """Record what lies in the results of this folder; print the seconds a run, or those by part, as JSON."""
    from rich.console import Console

    from ablation.commands.options import Options
    from ablation.commands.session import Session
    from ablation.running.recorder.recorder import Recorder
    from ablation.running.recorder.writer import Writer
    from ablation.tracking.store import Store

    session, profiler = Session(Options(Path(FILE), profile=profile, device="cpu"), Console(stderr=True)), cProfile.Profile()
    session.check()
    for name in ("figures", "statistics.descriptive", "statistics.differences"):
        importlib.import_module(f"ablation.report.{name}")  # imports are not measured
    store = Store.open()
    store.check()  # with the import of MLflow
    plan = session.plan([], probe=False)
    if is_profiled:
        work = Writer._work
        Writer._work = lambda writer: profiler.runcall(work, writer)
    began, spent, drawn = time.perf_counter(), time.process_time(), _of_children()
    recorder = Recorder(store, plan, session.preparation.planner, session.workspace, "ablate run")
    recorder.begin([])
    runs = [run for run in plan.runs if run.state == "evaluated"]
    for run in runs:
        recorder.finished(run)
    recorder.close()
    used = {"seconds": time.perf_counter() - began, "processor": time.process_time() - spent, "drawing": _of_children() - drawn}
    if recorder.problems:
        sys.exit(str(recorder.problems))
    print(json.dumps(parts(profiler) if is_profiled else {"runs": len(runs), **used}))


def _of_children() -> float:
    """The processor's seconds of child processes that have ended: those that draw pictures."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parts(profiler: cProfile.Profile) -> dict[str, float]:
    """Seconds in each of PARTS with all that they call, by the profile of the recorder's thread."""
    spent: dict[str, float] = {}
    for (path, _, name), (_, _, _, seconds, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        if "running/recorder" in path or "tracking" in path:
            spent[name] = max(spent.get(name, 0.0), seconds)
    by_part = {part: max(spent.get(name, 0.0) for name in names) for part, names in PARTS.items()}
    return {part: round(seconds, 2) for part, seconds in by_part.items() if seconds}


def recorded(checkout: Path, study: Path, profile: str, uri: str, *, is_profiled: bool, keep: Path | None = None) -> dict[str, float]:
    """What one child says, which records a copy of the study into an empty store."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "study"
        shutil.copytree(study, folder, ignore=shutil.ignore_patterns("mlflow.db*", "artifacts", "features", "stages"))
        if uri:
            file = folder / FILE
            file.write_text(file.read_text().replace("study: ", f"study: {Path(parent).name}-", 1))
        environment = os.environ | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": uri}
        words = [sys.executable, __file__, "--child", "--profile", profile, *(["--parts"] if is_profiled else [])]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"recording with {checkout} failed:\n{done.stderr}")
        if keep:
            shutil.copytree(folder, keep)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures


def measure(checkouts: dict[str, Path], options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """For each checkout the least seconds a run of so many times, in turn, and the seconds by part of one more."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for index in range(options.times):
        for name, checkout in checkouts.items():
            keep = options.keep / name if options.keep and index == 0 else None
            samples[name].append(recorded(checkout, options.study, options.profile, options.uri, is_profiled=False, keep=keep))
            print(name, json.dumps(samples[name][-1]), flush=True)
    results = {}
    for name, checkout in checkouts.items():
        by_part = {} if options.no_parts else recorded(checkout, options.study, options.profile, options.uri, is_profiled=True)
        each = {what: round(min(one[what] / one["runs"] for one in samples[name]), 4) for what in ("seconds", "processor", "drawing")}
        results[name] = {"runs": samples[name][0]["runs"], "a run": each, "seconds by part, profiled": by_part}
        print(name, json.dumps(results[name]), flush=True)
    return results


def main() -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="the folder of a finished study")
    parser.add_argument("--profile", default="", help="its profile")
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--uri", default="", help="the address of another store than an SQLite file, as MLFLOW_TRACKING_URI has it")
    parser.add_argument("--times", type=int, default=2, help="how often each is timed")
    parser.add_argument("--no-parts", action="store_true", help="leave out the seconds by part, which take one more time each")
    parser.add_argument("--keep", type=Path, help="where the first stores of both are kept")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.profile, options.parts)
        return
    checkouts = {**({"before": options.before.resolve()} if options.before else {}), "now": HERE.parent}
    results = measure(checkouts, options)
    sys.path.insert(0, str(HERE.parent))
    from commands import hardware

    now, kind = datetime.now(UTC), options.uri.partition(":")[0].partition("+")[0] or "sqlite"
    about = {"date": now.isoformat(timespec="seconds"), "hardware": hardware(), "load": os.getloadavg()[0], "times": options.times}
    target = HERE / "results" / f"recording-{kind}-{now:%Y-%m-%d}.json"
    target.write_text(json.dumps({**about, "command": "python benchmarks/recording.py", **results}, indent=1) + "\n")
    print(f"\n{about['hardware']}, {about['date']}; written to {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
