"""Kills `ablate run` at random moments, again and again, and holds what comes of it against a run that nobody disturbed.

    python benchmarks/faults.py --kills 200                 (a small study, about a second and a half for each kill)
    python benchmarks/faults.py --kills 200 --matrix quick  (the profile `quick`)
    python benchmarks/faults.py --kills 200 --matrix own    (a script of one's own, which resumes and has a child)
    python benchmarks/faults.py --injected                  (a fault at every single write, a store that is held, full, slow, away)
    python benchmarks/faults.py --compare BEFORE AFTER      (the study in the mlruns/ of two folders, run by two versions of the code)

Each kill takes any process of the tree, the coordinator or another, by SIGKILL, SIGTERM or SIGINT, at any moment. The same command is
given until it ends by itself; then every run must be there once, finished, with the same params, metrics, curves and predictions (or
items) to the bit, and none may be left running. No process of a command may outlive it. Exit status 1 on any difference.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

HERE = Path(__file__).resolve().parent
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_WAIT = 12.0  # seconds before a kill
TRAINING = 0.75  # the share of kills that wait until there are workers: most of a short command is its start
SMALL = """
study: small
seeds: [0]
base:
  data: {name: digits, longtail: {name: linear, largest: 60, smallest: 12}}
  model: {name: test_efficientnet, image_size: 16, drop_path: 0.1}
  optimizer: {name: adamw, lr: 3e-3}
  average: {name: ema, decay: 0.9}
  epochs: 4
  batch_size: 32
ladder:
  baseline: {}
  cb: {sampler: class_balanced}
  mixup: {mix: mixup}
  tta: {tta: hflip}
  decoupling: {stages: [{epochs: 1/2}, {epochs: 1/2, train: head, mix: none}]}
variants: {focal: {loss: focal}, best: {select: best_on_test}}
"""
OWN = """
study: own
task: {command: "python own.py {seed} {out} {checkpoints} {args}", resumes: true, grace: 2s}
metrics: {test/score: {better: higher}}
seeds: [0, 1]
base: {scale: 1.0}
variants: {double: {scale: 2.0}, half: {scale: 0.5}}
"""
SCRIPT = """
import json, os, pathlib, random, subprocess, sys, time

seed, out, checkpoints = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
scale, state = float(sys.argv[sys.argv.index("--scale") + 1]), checkpoints / "state.json"
helper = subprocess.Popen(["sleep", "1000"], start_new_session=True)  # which only its guard can find
done, score = json.loads(state.read_text()) if state.exists() else (0, 0.0)
for step in range(done, 8):
    time.sleep(0.1)
    score += scale * random.Random(f"{seed} {step}").random()
    with (out / "curves.jsonl").open("a") as file:  # before it is saved: a step that is done again is told again, none is missing
        file.write(json.dumps({"step": step, "val/score": score}) + "\\n")
    part = checkpoints / f"{os.getpid()}.part"
    part.write_text(json.dumps([step + 1, score]))
    part.replace(state)
items = [f"item,test/score"] + [f"{i},{score}" for i in range(5)]
(out / "items.csv").write_text("\\n".join(items))
(out / "metrics.json").write_text(json.dumps({"test/score": score}))
"""
FILES = {"small.yaml": SMALL, "own.yaml": OWN, "own.py": SCRIPT}
STUDIES = {
    "small": ["small.yaml"],
    "own": ["own.yaml", "--allow-code"],
    "quick": [str(HERE.parent / "experiments.yaml"), "--profile", "quick"],
}


def command(matrix: str) -> list[str]:
    """The command that is given again and again."""
    return [sys.executable, "-m", "ablation", "run", *STUDIES[matrix], "--device", "cpu"]


def write_studies(folder: Path) -> None:
    """Write the small studies into the folder."""
    for name, text in FILES.items():
        (folder / name).write_text(text)


def undisturbed(folder: Path, matrix: str) -> None:
    """The whole matrix in one go."""
    write_studies(folder)
    subprocess.run(command(matrix), cwd=folder, check=True, capture_output=True)


def disturbed(folder: Path, matrix: str, kills: int, lot: random.Random, longest_wait: float = LONGEST_WAIT) -> Counter[str]:
    """The whole matrix with at most that many kills; how many of each kind were made."""
    write_studies(folder)
    made: Counter[str] = Counter()
    while True:
        process = subprocess.Popen(command(matrix), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        while made.total() < kills and process.poll() is None:
            if lot.random() < TRAINING:
                wait_for_workers(process)
            wait_for(process, lot.uniform(0, longest_wait))
            what = kill_one(process, lot)
            made.update([what] if what else [])
        errors = (process.communicate()[1] or b"").decode()
        left = outliving(folder)
        assert not left, f"what outlives the command: {left}"
        if process.returncode == 0:
            return made
        assert made, f"the command failed undisturbed: {errors}"
        assert "Traceback" not in errors, errors


def wait_for(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait that long, or until the process has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def wait_for_workers(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the command has begun its workers, or has ended."""
    with contextlib.suppress(psutil.Error):  # one of them has ended just now
        while process.poll() is None and len(tree(process.pid)) < 2:
            time.sleep(0.05)


def tree(pid: int) -> list[psutil.Process]:
    """The coordinator and its workers, without Python's own helper; raises psutil.Error where they have ended."""
    top = psutil.Process(pid)
    return [top, *(one for one in top.children(recursive=True) if "resource_tracker" not in " ".join(one.cmdline()))]


def outliving(folder: Path, patience: float = 10.0) -> list[str]:
    """The processes in the folder that go on, long after a command there has ended."""
    left, began = None, time.monotonic()
    while left is None or (left and time.monotonic() - began < patience):
        left = [" ".join(one.cmdline()) for one in psutil.process_iter() if _is_in(one, folder)]
        time.sleep(0.1 if left else 0)
    return left


def _is_in(process: psutil.Process, folder: Path) -> bool:
    """Whether a process works in the folder, and has not ended."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder.resolve())
    return False


def kill_one(process: "subprocess.Popen[bytes]", lot: random.Random) -> str:
    """Signal any process of the tree; in words what was done, or nothing where all had ended."""
    try:
        chosen, number = lot.choice(tree(process.pid)), lot.choice(SIGNALS)
        chosen.send_signal(number)
    except psutil.Error:
        return ""
    return f"{number.name} to {'the coordinator' if chosen.pid == process.pid else 'another'}"


def differences(found: Path, expected: Path) -> list[str]:
    """What differs between two stores, in words; times aside."""
    from ablation.tracking.store import Store

    stores = [Store.open(folder / "mlruns") for folder in (found, expected)]
    (study, _), *_rest = stores[1].studies()
    problems = [f"{one['name']} is {one['status']}" for one in stores[0].runs_of(study) if one["status"] in ("RUNNING", "SCHEDULED")]
    lists = [_finished(store, study) for store in stores]
    problems += [f"{name} is there {count} times" for name, count in Counter(name for name, _ in lists[0]).items() if count > 1]
    params = [dict(one) for one in lists]
    problems += [f"{name}: its params differ" for name in params[1] if params[0].get(name) != params[1][name]]
    pairs = [{(row["arm"], row["seed"]): row for row in store.recorded(study).runs.to_dict("records")} for store in stores]
    if pairs[0].keys() != pairs[1].keys():
        return [*problems, f"runs differ: {sorted(map(str, pairs[0].keys() ^ pairs[1].keys()))}"]
    for one, row in pairs[0].items():
        problems += [f"{one}: {problem}" for problem in _run_differences(stores, (row, pairs[1][one]))]
    return problems


def opened(folder: Path, address: str = "") -> Any:
    """The store of a folder, or the one at an address."""
    from ablation.tracking.store import Store

    return Store(address, folder / "mlruns", {}) if address else Store.open(folder / "mlruns")


def compared(before: Path, after: Path, address: str = "") -> list[str]:
    """What differs between one study's runs in two stores, whatever their keys: params, metrics, curves, and the bytes of predictions.

    The stores are those of two folders, or the second is the one at the address.
    """
    stores = [opened(before), opened(after, address)]
    (study, _), *_rest = stores[0].studies()
    recorded = [store.recorded(study) for store in stores]
    rows = [{(row["arm"], row["seed"]): row for row in one.runs.to_dict("records")} for one in recorded]
    params = [{run["run_id"]: run["params"] for run in store.runs_of(study)} for store in stores]
    problems = [f"runs differ: {sorted(map(str, rows[0].keys() ^ rows[1].keys()))}"] if rows[0].keys() != rows[1].keys() else []
    for name in rows[0].keys() & rows[1].keys():
        pair = (rows[0][name], rows[1][name])
        problems += [f"{name}: {problem}" for problem in _run_differences(stores, pair)]
        if params[0][pair[0]["run_id"]] != params[1][pair[1]["run_id"]]:
            problems.append(f"{name}: params differ")
        files = [store.artifact(row["run_id"], "predictions.parquet") for store, row in zip(stores, pair, strict=True)]
        if files[0].read_bytes() != files[1].read_bytes():
            problems.append(f"{name}: the bytes of predictions.parquet differ")
    print(f"{study}: {len(rows[0])} runs compared, {len(problems)} differences")
    return problems


def _finished(store: Any, study: str) -> list[tuple[str, Any]]:
    """The name and the params of every run of an arm and a seed that ended well."""
    runs = [one for one in store.runs_of(study) if one["status"] == "FINISHED" and one["tags"].get("ablation.kind") == "run"]
    return [(" ".join(one["tags"][f"ablation.{tag}"] for tag in ("arm", "seed", "key")), one["params"]) for one in runs]


def _run_differences(stores: Sequence[Any], rows: Sequence[Any]) -> list[str]:
    """What differs between two records of one run."""
    problems = [] if rows[0]["status"] == "FINISHED" else [f"is {rows[0]['status']}"]
    timeless = [{k: v for k, v in row.items() if "/" in k and not k.startswith("time/") and pd.notna(v)} for row in rows]
    problems += [f"{name} differs" for name in timeless[0].keys() | timeless[1].keys() if timeless[0].get(name) != timeless[1].get(name)]
    curves = [
        {
            (p.name, p.step): p.value
            for p in store.curves(row["run_id"])
            if "images_per_second" not in p.name and not p.name.startswith("time/")
        }
        for store, row in zip(stores, rows, strict=True)
    ]
    problems += [] if curves[0] == curves[1] else ["curves differ"]
    files = [store.files(row["run_id"]) for store, row in zip(stores, rows, strict=True)]
    for name in ("predictions.parquet", "items.parquet"):
        tables = [pd.read_parquet(paths[name]) if name in paths else None for paths in files]
        is_equal = tables[0] is tables[1] if tables[0] is None or tables[1] is None else tables[0].equals(tables[1])
        problems += [] if is_equal else [f"{name.partition('.')[0]} differ"]
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    """Kill until all kills are made, print what was done and found; 1 where anything differs."""
    sys.path.insert(0, str(HERE.parent))
    from benchmarks.commands import hardware

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matrix", choices=list(STUDIES), default="small")
    parser.add_argument("--each", type=int, default=10, help="the most kills of one matrix")
    parser.add_argument("--wait", type=float, default=LONGEST_WAIT, help="the longest time before a kill, in seconds")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--injected", action="store_true", help="instead of kills, the faults that the tests inject, at every write")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="instead of kills, compare two folders' studies")
    args = parser.parse_args(argv)
    if args.compare:
        problems = compared(*args.compare)
        print(*problems, sep="\n", end="\n" if problems else "")
        return 1 if problems else 0
    if args.injected:
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "2", str(HERE.parent / "tests" / "test_faults.py")]
        return subprocess.run(tests, check=False, env=os.environ | {"ABLATE_FAULTS": "all"}, cwd=HERE.parent).returncode
    lot, kills, told, matrices, began = random.Random(args.seed), Counter[str](), list[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as whole:
        undisturbed(Path(whole), args.matrix)
        while kills.total() < args.kills:
            with tempfile.TemporaryDirectory() as folder:
                kills += disturbed(Path(folder), args.matrix, min(args.each, args.kills - kills.total()), lot, args.wait)
                told += differences(Path(folder), Path(whole))
                matrices += 1
            print(f"{kills.total()} kills, {matrices} matrices, {len(told)} differences", file=sys.stderr)
    options = f"--kills {args.kills} --seed {args.seed} --matrix {args.matrix} --wait {args.wait:g} --each {args.each}"
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "command": f"python benchmarks/faults.py {options}",
        "kills": dict(kills),
        "matrices": matrices,
        "differences": told,
        "seconds": round(time.monotonic() - began),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"faults-{args.matrix}-{result['date'][:10]}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("| kill | times |\n|---|---:|\n" + "\n".join(f"| {what} | {count} |" for what, count in sorted(kills.items())))
    print(f"\n{matrices} matrices ended; {len(told)} differences to the undisturbed one", *told, sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
