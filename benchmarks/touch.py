"""Times the commands that only look, or find nothing to do, on a finished study: this checkout, and another one in the same run.

Usage: python benchmarks/touch.py --study FOLDER --profile quick --before CHECKOUT   (nothing else should run meanwhile)

FOLDER holds an experiments.yaml and the mlruns/ of a study that is finished; both checkouts work on copies of it, one command of each in
turn. Beside seconds on the clock stand those of the processor, which depend less on what else runs.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
FILE = "experiments.yaml"


def commands(profile: str, arms: tuple[str, str]) -> dict[str, list[str]]:
    """What is timed, in words, and the words of each command."""
    study = [FILE, *(["--profile", profile] if profile else [])]
    named = ["--file", *study]
    return {
        "--version": ["--version"],
        "--help": ["--help"],
        "status": ["status"],
        "techniques": ["techniques"],
        "show": ["show", arms[0], *named],
        "compare": ["compare", *arms, *named],
        "plan": ["plan", *study, "--device", "cpu", "--rerun", "keep"],
        "run with nothing to do": ["run", *study, "--device", "cpu", "--rerun", "keep"],
        "report": ["report", *study],
        "report with figures": ["report", *study, "--output", "report"],
    }


def measured(words: list[str], checkout: Path, folder: Path) -> dict[str, float]:
    """Seconds to the end, to the first words, and of the processor, of one command; one that fails ends the benchmark."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "ABLATE_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile() as rest:
        process = subprocess.Popen(
            [sys.executable, "-m", "ablation", *words], cwd=folder, env=environment, stdout=rest, stderr=subprocess.STDOUT
        )
        first = 0.0
        while process.poll() is None:
            first = first or (time.perf_counter() - began if os.fstat(rest.fileno()).st_size else 0.0)
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        if process.returncode:
            rest.seek(0)
            sys.exit(f"{' '.join(words)} of {checkout} failed:\n{rest.read().decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "first": first or seconds, "processor": spent}


def measure(checkouts: dict[str, Path], study: Path, profile: str, arms: tuple[str, str], times: int) -> dict[str, dict[str, object]]:
    """For each command and checkout the least and the median of so many times, the checkouts in turn; one time before that warms up."""
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as parent:
        for name in checkouts:
            shutil.copytree(study, Path(parent) / name)
        for what, words in commands(profile, arms).items():
            samples: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
            for _ in range(times + 1):
                for name, checkout in checkouts.items():
                    samples[name].append(measured(words, checkout, Path(parent) / name))
            results[what] = {name: summary(rows[1:]) for name, rows in samples.items()}
            print(what, json.dumps(results[what]), flush=True)
    return results


def summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """The least and the median of each number."""
    return {name: [round(of(row[name] for row in rows), 3) for of in (min, median)] for name in rows[0]}


def main() -> None:
    """Measure, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="the folder of a finished study")
    parser.add_argument("--profile", default="", help="its profile")
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--arms", nargs=2, default=("ls", "mixup"), help="the arms of show and compare")
    parser.add_argument("--times", type=int, default=5, help="how often each command is timed")
    options = parser.parse_args()
    checkouts = {**({"before": options.before.resolve()} if options.before else {}), "now": HERE.parent}
    results = measure(checkouts, options.study, options.profile, tuple(options.arms), options.times)
    sys.path.insert(0, str(HERE.parent))
    from commands import hardware

    now = datetime.now(UTC)
    about = {"date": now.isoformat(timespec="seconds"), "hardware": hardware(), "load": os.getloadavg()[0], "times": options.times}
    target = HERE / "results" / f"touch-{now:%Y-%m-%d}.json"
    target.write_text(json.dumps({**about, "command": "python benchmarks/touch.py", "least and median": results}, indent=1) + "\n")
    print(f"\n{about['hardware']}, {about['date']}; written to {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
