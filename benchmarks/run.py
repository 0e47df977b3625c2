"""Measures `ablate` against the plain script, both in one go, and writes table, plot and figures with hardware and date.

    python benchmarks/run.py                           (about 25 minutes on two idle cores; --only PART for one part)
    python benchmarks/run.py --data-root ../data       (with CIFAR-10 there; without it the 32-pixel parts take the digits)

Two runs of `ablate` at once, of one thread each, stand against the plain script with two DataLoader workers, or against two plain
scripts at once without workers, whichever is faster: all cores are busy on both sides. Where only some arms of a matrix are run by the
plain script, the table says how many, and the rest is counted at their mean.
"""

import argparse
import itertools
import json
import math
import random
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ablation.study.config import Arm, Study
from ablation.study.resolving import load_study

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "experiments.yaml"
PLAIN = HERE / "plain_script.py"
CORES = 2  # plain scripts, and runs of ours, at once
LONG_TAIL = {"largest": 640, "smallest": 64}  # of CIFAR-10 in the 32-pixel parts: 3,520 images
Row = dict[str, Any]


# --- the two sides ---------------------------------------------------------------------------------------------------------


def flags(study: Study, arm: Arm, root: Path) -> list[str]:
    """The plain script's options for an arm, from its resolved settings."""
    stages = [stage for stage in arm.stages if stage.epochs]
    body, head = stages[0].settings, stages[-1] if stages[-1].train == "head" else None
    last, tail = stages[-1].settings, body.data.longtail
    options: dict[str, Any] = {
        "data": body.data.name,
        "root": root,
        "largest": tail.largest,
        "smallest": tail.smallest,
        "model": body.model.name,
        "image-size": body.model.image_size,
        "drop-path": body.model.drop_path,
        "epochs": sum(stage.epochs for stage in stages),
        "batch-size": body.batch_size,
        "lr": body.optimizer.lr,
        "final-lr": body.schedule.final_lr,
        "weight-decay": body.optimizer.weight_decay,
        "select": last.select,
        "sampler": body.sampler.name,
        "tta": last.tta.name,
        **_augmentations(body.augment),
        **_mixing(body.mix),
        **_smoothing(body.smoothing),
        **_average(last.average),
        "loss": _loss(body.loss),
    }
    if head:
        options |= {"head-epochs": head.epochs, "head-loss": _loss(head.settings.loss), "head-sampler": head.settings.sampler.name}
    switches = [f"--{name}" for name, value in options.items() if value is True]
    pairs = [(name, value if isinstance(value, tuple) else (value,)) for name, value in options.items() if not isinstance(value, bool)]
    return [*itertools.chain.from_iterable((f"--{name}", *map(str, values)) for name, values in pairs), *switches]


def _augmentations(augment: Sequence[Any]) -> Row:
    by_name = {one.name: one for one in augment}
    affine, erase = by_name.get("affine"), by_name.get("erase")
    return {
        "flips": int("hflip" in by_name),
        "degrees": affine.degrees if affine else 0,
        "scale": tuple(affine.scale) if affine else (1.0, 1.0),
        "erase": erase.probability if erase else 0,
    }


def _mixing(mix: Any) -> Row:
    if mix.name == "none":
        return {"mix": "none"}
    fixed = getattr(mix, "fixed_lambda", None)
    return {"mix": mix.name, "mix-lambda": fixed or 0, "alpha": mix.alpha or 1, "mix-only-tail": getattr(mix, "only", "all") == "tail"}


def _smoothing(smoothing: Any) -> Row:
    return {} if smoothing.name == "none" else {"smoothing": smoothing.epsilon, "spread": smoothing.spread}


def _average(average: Any) -> Row:
    return {"ema": average.decay, "ema-warmup": average.warmup} if average.averages else {"ema": 0}


def _loss(loss: Any) -> str:
    weighted = {"inverse": {"cross_entropy": "weighted_cross_entropy"}}
    weighted["effective_number"] = {"cross_entropy": "class_balanced", "focal": "class_balanced_focal"}
    return weighted.get(loss.weights.name, {}).get(loss.name, str(loss.name))


def plain(options: Iterable[str], *, workers: int = 2, threads: int = 0, seed: int = 0) -> Row:
    """What one plain script says of itself, and the seconds of its process."""
    command = [sys.executable, str(PLAIN), *options, "--workers", str(workers), "--threads", str(threads), "--seed", str(seed)]
    began = time.perf_counter()
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=True)
    said: Row = json.loads(done.stdout.splitlines()[-1])
    return said | {"process_seconds": time.perf_counter() - began}


def plain_scripts(jobs: Sequence[tuple[Sequence[str], int]], *, at_once: int = CORES, workers: int = 0, threads: int = 1) -> list[Row]:
    """The same for several (options, seed), some at once."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda job: plain(job[0], workers=workers, threads=threads, seed=job[1]), jobs))


def ours(folder: Path, *options: str) -> Row:
    """One `ablate run` from its start to its end: seconds, the peak memory of its processes, and what every training and run says."""
    command = [sys.executable, "-m", "ablation", "run", str(STUDY), "--device", "cpu", "--jobs", str(CORES), "--yes", *options]
    began = time.perf_counter()
    with (folder / "log").open("w") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        peak = _watch(process)
    seconds = time.perf_counter() - began
    output = (folder / "log").read_text()
    assert process.returncode == 0, output
    results = [json.loads(path.read_text()) for path in folder.glob("mlruns/results/*/result.json")]
    late = [float(line.split()[-2]) for line in output.splitlines() if line.startswith("wrote the rest of the record in")]
    return {"seconds": seconds, **peak, "results": results, "recorded_late_seconds": sum(late)}


def _watch(process: "subprocess.Popen[bytes]") -> Row:
    """The largest resident memory, in MB, of the coordinator and of a worker, looked at five times a second; the coordinator's work."""
    import psutil  # which a GPU host may lack: benchmarks/gpu.py needs other parts of this file

    peak = {"coordinator_mb": 0.0, "worker_mb": 0.0, "coordinator_cpu_seconds": 0.0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            try:
                top = psutil.Process(process.pid)
                peak["coordinator_cpu_seconds"] = sum(top.cpu_times()[:2])  # of its own, not of its children
                peak["coordinator_mb"] = max(peak["coordinator_mb"], top.memory_info().rss / 1e6)
                for child in top.children(recursive=True):
                    peak["worker_mb"] = max(peak["worker_mb"], child.memory_info().rss / 1e6)
            except psutil.Error:
                continue

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    process.wait()
    ended.set()
    looking.join()
    return peak


def trained_rows(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every epoch once, whatever number of runs share it."""
    return list({(row["time"], row["epoch"], row["values"]["train/loss"]): row for one in results for row in one["history"]}.values())


def small(root: Path | None) -> list[str]:
    """The settings of the 32-pixel parts: CIFAR-10 where it lies, else the digits."""
    if root is None:
        return ["data=digits", "data.longtail={name: linear, largest: 140, smallest: 14}"]
    sizes = ", ".join(f"{name}: {value}" for name, value in LONG_TAIL.items())
    return [f"data.root={root}", f"data.longtail={{name: linear, {sizes}}}"]


def sets(settings: Iterable[str]) -> list[str]:
    """As options."""
    return [word for setting in settings for word in ("--set", setting)]


def study(profile: str, settings: Sequence[str] = ()) -> Study:
    """The study as `ablate run` reads it."""
    from ablation.commands.options import parse_set

    return load_study(STUDY, profile, [parse_set(one) for one in settings])


# --- the parts -------------------------------------------------------------------------------------------------------------


def throughput(root: Path | None, quick: bool) -> list[Row]:
    """Training images per second, EfficientNet-B0 at 32 pixels, batch 128; nothing else of either side counts."""
    settings = [*small(root), f"epochs={2 if quick else 3}"]
    written = study("laptop", settings)
    arm = next(one for one in written.arms if one.name == "baseline")
    options = flags(written, arm, root or HERE)
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(Path(folder), "--profile", "laptop", "--arm", "baseline", "--seed", "0", "--seed", "1", *sets(settings))
    rates = [row["rate"] for one in mine["results"] for row in one["history"][1:]]
    ways = {
        "one plain script, 2 workers": [plain(options)],
        "two plain scripts, 1 thread each": plain_scripts([(options, 0), (options, 1)]),
    }
    ways["one plain script, 2 workers, channels_last and fused"] = [plain([*options, "--channels-last", "--fused"])]
    results = {name: sum(_mean(row["images_per_second"] for row in one["history"][1:]) for one in said) for name, said in ways.items()}
    own = CORES * _mean(rates)
    return [
        {
            "what": f"training images/s, EfficientNet-B0 at 32 pixels, against {name}",
            "ablate": own,
            "plain": rate,
            "ratio": own / rate,
            "unit": "images/s",
        }
        for name, rate in results.items()
    ]


def compiled(root: Path | None, quick: bool) -> list[Row]:
    """The step of EfficientNet-B0 at 32 pixels on one core with torch.compile against our own without; seconds to compile."""
    import torch

    from ablation.tasks.images.compiling import CompileTiming, measure_compiling

    stage = next(arm for arm in study("laptop", small(root)).arms if arm.name == "baseline").stages[0]
    results = measure_compiling(stage, torch.device("cpu"))
    if not isinstance(results, CompileTiming):
        raise RuntimeError(results)
    rates = {"ablate": 1 / results.compiled, "plain": 1 / results.plain, "ratio": results.plain / results.compiled, "unit": "images/s"}
    what = "torch.compile of our step at 32 pixels against the step without it, one core"
    return [{"what": what, **rates, "seconds to compile": results.first, "and again": results.again}]


def matrix(root: Path | None, quick: bool) -> list[Row]:
    """The profile `quick`, all arms, two seeds, from an empty folder to the table."""
    return [_matrix("quick", [], None, 4 if quick else 12, "the quick matrix")]


def reports32(root: Path | None, quick: bool) -> list[Row]:
    """The reports' matrix at 32 pixels with three epochs."""
    return [_matrix("laptop", [*small(root), "epochs=3"], root, 2 if quick else 6, "the reports' matrix at 32 pixels, 3 epochs")]


def _matrix(profile: str, settings: Sequence[str], root: Path | None, sample: int, what: str) -> Row:
    written = study(profile, settings)
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(Path(folder), "--profile", profile, *sets(settings))
    runs = [(arm, seed) for arm in written.arms for seed in written.seeds]
    chosen = random.Random(0).sample(runs, sample)
    ways = {"two at once": (CORES, 0, 1), "one with 2 workers": (1, 2, 0)}
    probe = [(flags(written, chosen[0][0], root or HERE), chosen[0][1])] * CORES
    times = {}
    for name, (at_once, workers, threads) in ways.items():
        began = time.perf_counter()
        plain_scripts(probe, at_once=at_once, workers=workers, threads=threads)
        times[name] = time.perf_counter() - began
    at_once, workers, threads = ways[min(times, key=lambda name: times[name])]
    began = time.perf_counter()
    plain_scripts([(flags(written, arm, root or HERE), seed) for arm, seed in chosen], at_once=at_once, workers=workers, threads=threads)
    seconds = (time.perf_counter() - began) / sample * len(runs)
    busy = sum(row["seconds"] for row in trained_rows(mine["results"])) + sum(one["seconds"] for one in mine["results"])
    return {
        "what": f"{what}: {len(runs)} runs (plain: {sample} measured, the rest at their mean)",
        "ablate": mine["seconds"],
        "plain": seconds,
        "ratio": seconds / mine["seconds"],
        "unit": "s",
        "busy_share": busy / CORES / mine["seconds"],
        "coordinator_share": mine["coordinator_cpu_seconds"] / CORES / mine["seconds"],  # imports, plan, live table and record
        **{name: mine[name] for name in ("coordinator_mb", "worker_mb", "recorded_late_seconds")},
    }


def accuracy(root: Path | None, quick: bool) -> list[Row]:
    """Mean test accuracies of three arms of `quick` over seeds, and the difference's 95 % interval (Welch's)."""
    from scipy import stats

    names, seeds = ("baseline", "ls", "decoupling"), range(2 if quick else 8)
    written = study("quick")
    arms = {arm.name: arm for arm in written.arms}
    with tempfile.TemporaryDirectory() as folder:
        chosen = itertools.chain(*(("--arm", name) for name in names), *(("--seed", str(seed)) for seed in seeds))
        ours(Path(folder), "--profile", "quick", *chosen)
        results = {(run["arm"], run["seed"]): 100 * run["test/accuracy"] for run in _report(Path(folder))}
        same = ["--data", "npz", "--root", str(_images(written, Path(folder)))]
        said = {name: plain_scripts([([*flags(written, arms[name], HERE), *same], seed) for seed in seeds]) for name in names}
    rows = []
    for name in names:
        mine, theirs = [results[name, seed] for seed in seeds], [100 * one["accuracy"] for one in said[name]]
        low, high = stats.ttest_ind(mine, theirs, equal_var=False).confidence_interval()
        what = f"accuracy of {name}, {len(mine)} seeds, quick (difference [{low:+.2f}, {high:+.2f}] points)"
        rows.append({"what": what, "ablate": _mean(mine), "plain": _mean(theirs), "unit": "%", "low": low, "high": high})
    return rows


def _images(written: Study, folder: Path) -> Path:
    """The study's images as `ablate` splits them, in a file: both sides test the same ones."""
    from ablation.data import open_dataset, prepare
    from ablation.data.source import TEST, TRAIN

    base = written.arms[0].settings
    dataset = open_dataset(prepare(base.data, base.model.image_size, folder, folder / "decoded", lambda *_: None))
    parts = {"train": dataset.split_N == TRAIN, "test": dataset.split_N == TEST}
    arrays = {f"{part}_images": np.asarray(dataset.images_NHWC)[chosen_N] for part, chosen_N in parts.items()}
    np.savez(folder / "images.npz", **arrays, **{f"{part}_labels": dataset.labels_N[chosen_N] for part, chosen_N in parts.items()})
    return folder / "images.npz"


def _report(folder: Path) -> list[Row]:
    command = [sys.executable, "-m", "ablation", "report", "--format", "json"]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return [row for row in json.loads(output)["runs"] if row["state"] == "done"]


def scaling(root: Path | None, quick: bool) -> list[Row]:
    """Seconds and memory of a plan, by how many runs it has; of whole commands, by classes and by images."""
    rows = _by_size(quick)
    for arms, seeds in ((10, 1), (100, 1), (200, 5)) if quick else ((10, 1), (100, 1), (200, 5), (500, 20)):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak_mb = _planned(Path(folder), arms, seeds)
        rows.append({"what": f"plan of {arms * seeds:,} runs, after imports", "ablate": seconds, "unit": "s", "coordinator_mb": peak_mb})
    return rows


RANDOM = """
study: random
seeds: [0]
base:
  data: {name: npz, file: random.npz}
  model: {name: test_efficientnet, image_size: 8}
  epochs: 1
  augment: []
ladder: {baseline: {}, cb: {sampler: class_balanced}}
"""


def _by_size(quick: bool) -> list[Row]:
    """Seconds of `run` and `report` by the number of classes, and of a first and a second `plan` by the number of images."""
    rows = []
    for num_classes in (10, 100) if quick else (10, 100, 1000):
        with tempfile.TemporaryDirectory() as folder:
            _random_images(Path(folder), num_classes, 4000)
            for command in ("run random.yaml --device cpu --yes", "report --output report"):
                row = {"what": f"{command.split()[0]} of 2 arms, {num_classes:,} classes, 4,000 images", "unit": "s"}
                rows.append(row | {"ablate": _seconds(Path(folder), command)})
    for num_images in (10_000,) if quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            _random_images(Path(folder), 10, num_images)
            for which in ("first", "second"):
                row = {"what": f"{which} plan with {num_images:,} images of 8 x 8 pixels", "unit": "s"}
                rows.append(row | {"ablate": _seconds(Path(folder), "plan random.yaml --device cpu")})
    return rows


def _random_images(folder: Path, num_classes: int, num_images: int) -> None:
    """A study of two arms on random images, as many for testing as a tenth of those for training."""
    generator, arrays = np.random.default_rng(0), {}
    for part, number in (("train", num_images), ("test", num_images // 10)):
        arrays[f"{part}_images"] = generator.integers(0, 256, (number, 8, 8, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(number) % num_classes
    np.savez(folder / "random.npz", **arrays)
    (folder / "random.yaml").write_text(RANDOM)


def _seconds(folder: Path, words: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ablation", *words.split()], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


PLAN = """
import resource, time
from pathlib import Path
from rich.console import Console
from ablation.commands.options import Options
from ablation.commands.session import Session
session = Session(Options(Path("many.yaml"), device="cpu"), Console(stderr=True))
session.plan([], probe=False)  # decodes the data
began = time.perf_counter()
Session(Options(Path("many.yaml"), device="cpu"), Console(stderr=True)).plan([], probe=False)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""


def _planned(folder: Path, arms: int, seeds: int) -> tuple[float, float]:
    rates = ", ".join(f"{(i + 1) * 1e-5:.5f}" for i in range(arms - 1))
    base = "base: {data: digits, model: test_efficientnet, epochs: 4}\nladder: {baseline: {}}\n"
    text = f"study: many\nseeds: {list(range(seeds))}\n{base}sweeps: {{lr: {{over: {{optimizer.lr: [{rates}]}}}}}}\n"
    (folder / "many.yaml").write_text(text)
    seconds, peak_mb = subprocess.run([sys.executable, "-c", PLAN], cwd=folder, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(peak_mb)


def _mean(values: Iterable[float]) -> float:
    results = list(values)
    return math.fsum(results) / len(results)


PARTS: dict[str, Callable[[Path | None, bool], list[Row]]] = {
    "throughput": throughput,
    "compiled": compiled,
    "matrix": matrix,
    "reports32": reports32,
    "accuracy": accuracy,
    "scaling": scaling,
}


# --- what is written -------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | ablate | plain script | ratio |", "|---|---:|---:|---:|"]
    for row in rows:
        other, ratio = (f"{row['plain']:.4g} {row['unit']}" if "plain" in row else ""), (f"{row['ratio']:.1f}" if "ratio" in row else "")
        lines.append(f"| {row['what']} | {row['ablate']:.4g} {row['unit']} | {other} | {ratio} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Every ratio as a bar."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if "ratio" in row]
    figure = Figure(figsize=(8, 0.8 + 0.65 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([textwrap.fill(row["what"].partition(" (")[0], 40) for row in shown], [row["ratio"] for row in shown], color="#4477aa")
    axes.bar_label(bars, fmt="%.1f x", padding=3)
    axes.axvline(1, color="0.5", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the plain script")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def keep(name: str, command: str, rows: Sequence[Row], folder: Path, hardware: str) -> Path:
    """The figures in a file of that name and today's date."""
    now = datetime.now(UTC)
    target = folder / f"{name}-{now:%Y-%m-%d}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    about = {"date": now.isoformat(timespec="seconds"), "hardware": hardware, "command": command, "rows": list(rows)}
    target.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the parts asked for, print the table, and keep figures and plot."""
    from benchmarks.commands import hardware

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part, may be given several times")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and arms, about a fifth of the time")
    parser.add_argument("--data-root", type=Path, help="the folder in which CIFAR-10 lies")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args(argv)
    root = args.data_root.resolve() if args.data_root else None
    rows: list[Row] = []
    words = [*(f"--only {name}" for name in args.only or ()), *(["--quick"] if args.quick else []), *(["--data-root DIR"] if root else [])]
    command = " ".join(["python benchmarks/run.py", *words])
    for name in args.only or PARTS:  # kept part by part: one that fails takes none of the others with it
        print(f"measuring {name}", file=sys.stderr)
        rows += [row | {"part": name} for row in PARTS[name](root, args.quick)]
        target = keep("-".join(["run", *(args.only or ())]), command, rows, args.output, hardware())
        if any("ratio" in row for row in rows):
            plot(rows, target.with_suffix(".png"))
    print(f"{table(rows)}\n\nwritten to {target}")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
