"""What `first_light` checks on a CUDA device: tests, accuracies, speeds, packing, equal bits, and going on.

Each check is a generator of what it has found so far, so that nothing is lost when the time is over.
"""

import contextlib
import json
import math
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ablation.training.device_option import num_cores
from benchmarks.processes import ROOT, Command, Ended, all_ended

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a part found so far: figures, numbers that disagree, commands that failed, and what the end of the time cut short."""

    figures: Row = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    cut_short: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where and until when a part works, and whether the device computes numbers."""

    folder: Path
    deadline: float  # of time.monotonic()
    has_numbers: bool


@dataclass(frozen=True)
class Part:
    """One part: what it shows, the seconds that it is expected to take on an H100 with 16 cores, and how it is done until a deadline."""

    name: str
    shows: str
    expected: float
    check: Callable[[Place], Iterator[Outcome]]


def ablate(name: str, folder: Path, *options: str, stop: signal.Signals | None = None) -> Command:
    """An `ablate run` with these options."""
    return Command(name, (sys.executable, "-m", "ablation", "run", *options, "--yes"), folder, stop)


def outcome_of(
    done: Sequence[Ended], figures: Row, differs: Sequence[str] = (), *, expected: Mapping[str, int] = MappingProxyType({})
) -> Outcome:
    """What a part found, with the commands that were cut short, and those that ended otherwise than expected, which is with status 0."""
    failed = tuple(one.problem for one in done if one.status not in (None, expected.get(one.name, 0)))
    return Outcome(figures, tuple(differs), failed, tuple(one.name for one in done if one.status is None))


# --- 1: the tests ------------------------------------------------------------------------------------------------------------------------

PYTEST = (sys.executable, "-m", "pytest", "-o", "addopts=", "-W", "default", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short")
OUTCOME = re.compile(r"^\S*?(tests/\S+?::.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", re.MULTILINE)
APART = "tests/test_gpu.py"  # each of its tests takes a process of its own: they are minutes together


def tests(place: Place) -> Iterator[Outcome]:
    """Every test that is marked `gpu`, several processes at once, and beside them the compilations that the step needs."""
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text())
    collecting = Command("collecting", (*PYTEST, f"--rootdir={ROOT}", "--collect-only", "-q", *in_root(files)), place.folder / "collecting")
    (collected,) = all_ended([collecting], place.deadline)
    ids = [line for line in collected.output.splitlines() if line.startswith("tests/") and "::" in line]
    if collected.status != 0:
        yield outcome_of([collected], {"collected": len(ids)})
        return
    commands = [pytest_command(i, chosen, place.folder) for i, chosen in enumerate(shards(ids))]
    warming = [Command("warming", roofline_words("compiled"), place.folder / "warming")] if place.has_numbers else []
    done: list[Ended] = []
    for one in all_ended([*warming, *commands], place.deadline, min(8, max(1, num_cores() // 2))):
        done += [one] if one.name != "warming" else []
        yield tested(ids, done)


def in_root(names: Iterable[str]) -> list[str]:
    """Files or tests with their whole path."""
    return [str(ROOT / name) for name in names]


def pytest_command(number: int, ids: Sequence[str], folder: Path) -> Command:
    """The command that runs these tests."""
    name = ids[0] if len(ids) == 1 else f"{ids[0].partition('::')[0]} ({len(ids)} tests)"
    options = ("-v", f"--rootdir={ROOT}", f"--basetemp={folder / f'tests{number}' / 'tmp'}")
    return Command(name, (*PYTEST, *options, *in_root(ids)), folder / f"tests{number}")


def shards(ids: Iterable[str]) -> list[list[str]]:
    """The tests that run together: a file's, or one of APART."""
    by_process: dict[str, list[str]] = {}
    for one in ids:
        file = one.partition("::")[0]
        by_process.setdefault(one if file == APART else file, []).append(one)
    return list(by_process.values())


def tested(ids: Sequence[str], done: Sequence[Ended]) -> Outcome:
    """Counts and the names of failures; a test that is skipped here has shown nothing, and a process that crashed fails as a command."""
    outcomes = {name: word.lower() for one in done for name, word in OUTCOME.findall(one.output)}
    words = Counter(outcomes.values())
    differs = tuple(f"{name} {word}" for name, word in sorted(outcomes.items()) if word != "passed")
    ended = [replace(one, status=0) if one.status == 1 and OUTCOME.search(one.output) else one for one in done]  # 1: some test failed
    figures = {
        "collected": len(ids),
        **{word: words[word] for word in ("passed", "failed", "skipped")},
        "last_lines_of_failures": {one.name: one.output[-3000:] for one in done if one.status not in (None, 0)},
        "seconds_by_process": {one.name: round(one.seconds, 1) for one in done},
    }
    return outcome_of(ended, figures, differs)


# --- 2: the quick matrix -----------------------------------------------------------------------------------------------------------------

QUICK = "reports.quick"
ARMS = ("baseline", "cb", "mixup", "ls", "tta", "decoupling", "cutmix-tail", "decoupled/balanced-softmax", "no-lag/baseline")


def matrix(place: Place) -> Iterator[Outcome]:
    """Arms of the quick profile on the CPU and on CUDA at once, two seeds each; their accuracies."""
    options = [str(ROOT / "experiments.yaml"), "--profile", "quick", "--seed", "0", "--seed", "1"]
    options += [word for arm in ARMS for word in ("--arm", arm)]
    jobs = {"cpu": str(max(1, num_cores() // 2)), "cuda": str(max(1, min(4, num_cores() // 4)))}
    commands = [ablate(device, place.folder / device, *options, "--device", device, "--jobs", jobs[device]) for device in jobs]
    done = list(all_ended(commands, place.deadline))
    seconds = {f"{one.name}_seconds": one.seconds for one in done}
    if any(one.status != 0 for one in done):
        yield outcome_of(done, seconds)
        return
    rows = compared_arms(*(predictions_by_run(place.folder / device) for device in jobs))
    differs = [f"{row['arm']}: {row['cpu']:.2f} % on the CPU, {row['cuda']:.2f} % on CUDA" for row in rows if not row["agrees"]]
    yield outcome_of(done, {"arms": rows, "steps_on_cuda": steps(place.folder / "cuda"), **seconds}, differs)


def predictions_by_run(folder: Path) -> dict[tuple[str, int], Any]:
    """The predictions of each arm and seed that the folder's store has."""
    from ablation.tracking.store import Store

    recorded = Store.open(folder / "mlruns").recorded(QUICK)
    runs = recorded.runs[recorded.runs["status"] == "FINISHED"]
    return {(row["arm"], int(row["seed"])): recorded.predictions(row["run_id"]) for _, row in runs.iterrows()}


def compared_arms(cpu: Mapping[tuple[str, int], Any], cuda: Mapping[tuple[str, int], Any]) -> list[Row]:
    """For each arm both accuracies in percent, their difference, its tolerance, and how many predictions are the same."""
    arms = sorted({arm for arm, _ in (*cpu, *cuda)})
    sides = {arm: [[side[run] for run in sorted(cpu) if run[0] == arm and run in side] for side in (cpu, cuda)] for arm in arms}
    return [arm_row(arm, *both, len(arms)) for arm, both in sides.items()]


def arm_row(arm: str, cpu: Sequence[Any], cuda: Sequence[Any], num_arms: int) -> Row:
    """The row of one arm, from the predictions of its seeds; a run that is missing on one side disagrees."""
    images = sum(map(len, cpu))
    if len(cpu) != len(cuda) or not images:
        return {"arm": arm, "cpu": math.nan, "cuda": math.nan, "agrees": False, "runs": [len(cpu), len(cuda)]}
    right, other = ([(one["label"] == one["predicted"]).to_numpy() for one in side] for side in (cpu, cuda))
    gained, lost = (sum(int((b & ~a).sum()) for a, b in zip(*both, strict=True)) for both in ((right, other), (other, right)))
    same = sum(int((a["predicted"] == b["predicted"]).sum()) for a, b in zip(cpu, cuda, strict=True))
    points, allowed = 100 * (gained - lost) / images, tolerance(gained + lost, images, num_arms)
    shares = {"cpu": 100 * sum(int(one.sum()) for one in right) / images, "cuda": 100 * sum(int(one.sum()) for one in other) / images}
    counts = {"images": images, "right_on_one_only": gained + lost, "same_predictions": same / images}
    return {"arm": arm, **shares, "points": points, "tolerance": allowed, **counts, "agrees": abs(points) <= allowed}


def tolerance(num_differing: int, num_images: int, num_arms: int) -> float:
    """By how many points the accuracies of two devices may differ before one arm of so many is called different.

    Of the images that are right on one device alone, each is as likely to be right on either (McNemar's test, corrected): 1 % false alarms
    for all arms together, 3.3 standard errors for nine. Measured on a CPU: other seeds, in 45 comparisons of these arms, differ by 0.98
    standard errors (2.3 at most), bf16 from fp32 by 2.3 at most; a fifth of the learning rate is found, in four of the arms.
    """
    z = statistics.NormalDist().inv_cdf(1 - 0.01 / (2 * num_arms))
    return 100 * (z * math.sqrt(num_differing) + 1) / num_images


def results(folder: Path) -> list[Row]:
    """What every result in a folder's `mlruns` says of itself."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("mlruns/results/*/result.json"))]


def steps(folder: Path) -> dict[str, int]:
    """How many results each kind of step has."""
    return dict(Counter(one["tags"]["step"] for one in results(folder)))


# --- 3: the step -------------------------------------------------------------------------------------------------------------------------


def roofline_words(*ways: str, batch: int | None = None) -> tuple[str, ...]:
    """The command that measures these ways to run the step."""
    chosen = [word for way in ways for word in ("--way", way)]
    return (sys.executable, str(HERE / "roofline.py"), *chosen, *(("--batch", str(batch)) if batch else ()))


def step(place: Place) -> Iterator[Outcome]:
    """The plain, the captured and the compiled step at 32 and 224 pixels against the roofline; the compiled one last."""
    from benchmarks.roofline import WAYS

    rows: list[Row] = []
    done: list[Ended] = []
    for ways in (("plain", "captured"), ("compiled",))[: 2 if place.has_numbers else 1]:  # the stand-in cannot load what is compiled
        words = roofline_words(*ways, batch=None if place.has_numbers else 8)
        done += all_ended([Command(f"step, {' and '.join(ways)}", words, place.folder / ways[0])], place.deadline)
        rows += json_lines(done[-1].output)
        timed = [row for row in rows if "way" in row]
        differs = [f"{row['way']} at {row['size']} pixels became: {row['step']}" for row in timed if row["step"] != WAYS[row["way"]]]
        yield outcome_of(done, {"peaks": [row for row in rows if "peaks" in row], "ways": timed}, differs)


def json_lines(text: str) -> list[Row]:
    """The lines that are JSON objects; a line that a kill cut off is none."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found += [json.loads(line)] if line.startswith("{") else []
    return found


# --- 4 to 6: packing, equal bits, and going on -------------------------------------------------------------------------------------------

SMALL = """
study: small
seeds: [0]
base:
  data: {name: digits, longtail: {name: linear, largest: 140, smallest: 14}}
  model: {name: efficientnet_b0, image_size: 32, drop_path: 0.1}
  augment: [{name: affine, degrees: 10}, {name: erase, probability: 0.1}]
  optimizer: {name: adamw, lr: 1e-3, weight_decay: 0.05}
  average: {name: ema, decay: 0.9}
  epochs: 12
  batch_size: 32
"""
TOGETHER = re.compile(r"(\d+) at once on cuda:\d+ from now on: (.*)")


def small(name: str, folder: Path, *options: str, stop: signal.Signals | None = None) -> Command:
    """A run of the small study on CUDA."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(SMALL)
    return ablate(name, folder, "small.yaml", "--device", "cuda", *options, stop=stop)


def packing(place: Place) -> Iterator[Outcome]:
    """Eight runs of twelve epochs with one job, with as many as are found best, with four and with two: runs per minute of each."""
    seeds = [word for seed in range(8) for word in ("--seed", str(seed))]
    rows: list[Row] = []
    done: list[Ended] = []
    for jobs in ("1", "auto", "4", "2"):
        folder = place.folder / jobs
        chosen = () if jobs == "auto" else ("--jobs", jobs)
        done += all_ended([small(f"jobs {jobs}", folder, *seeds, *chosen)], place.deadline)
        rows += [packed(jobs, done[-1], results(folder))] if done[-1].status == 0 else []
        best = max(rows, key=lambda row: row["runs_per_minute"], default=None)
        yield outcome_of(done, {"ways": rows, "best": best and best["jobs"]})
        if done[-1].status is None:
            return


def packed(jobs: str, done: Ended, found: Sequence[Row]) -> Row:
    """Runs per minute from the first epoch's beginning to the last result, the command's own seconds, and how many ran at once."""
    first = min(row["time"] - 1000 * row["seconds"] for one in found for row in one["history"])
    seconds = (max(one["finished"] for one in found) - first) / 1000
    changes = TOGETHER.findall(done.output)
    row = {"jobs": jobs, "runs": len(found), "seconds": seconds, "runs_per_minute": 60 * len(found) / seconds}
    row |= {"command_seconds": done.seconds, "steps": dict(Counter(one["tags"]["step"] for one in found))}
    chose = {"chose": int(changes[-1][0]) if changes else 1, "why": [f"{number}: {why}" for number, why in changes]}
    return row | (chose if jobs == "auto" else {})


DETERMINISTIC = ("--set", "deterministic=true")


def deterministic(place: Place) -> Iterator[Outcome]:
    """The same training twice with `deterministic: true`, and twice without, all at once: the bytes of their predictions."""
    names = {"equal": DETERMINISTIC, "free": ()}
    commands = [small(f"{name} {i}", place.folder / f"{name}{i}", *options) for name, options in names.items() for i in (1, 2)]
    done = list(all_ended(commands, place.deadline))
    if any(one.status != 0 for one in done):
        yield outcome_of(done, {})
        return
    figures = {name: difference(*(place.folder / f"{name}{i}" for i in (1, 2))) for name in names}
    differs = [] if figures["equal"]["equal_bytes"] else [f"deterministic: true gave other predictions: {figures['equal']}"]
    yield outcome_of(done, {"with": figures["equal"], "without": figures["free"]}, differs)


def difference(one: Path, other: Path) -> Row:
    """How the predictions of two folders' only runs differ."""
    import pandas as pd

    files = [next(folder.glob("mlruns/results/*/predictions.parquet")) for folder in (one, other)]
    a, b = (pd.read_parquet(file) for file in files)
    logits = [name for name in a if name.startswith("logit/")]
    largest = float((a[logits] - b[logits]).abs().to_numpy().max())
    equal, accuracies = files[0].read_bytes() == files[1].read_bytes(), [float((one["label"] == one["predicted"]).mean()) for one in (a, b)]
    same = float((a["predicted"] == b["predicted"]).mean())
    return {"equal_bytes": equal, "largest_difference_of_logits": largest, "same_predictions": same, "accuracies": accuracies}


def resuming(place: Place) -> Iterator[Outcome]:
    """A deterministic training in one go, one that is interrupted and one that is killed after an epoch, and both again: equal bytes."""
    stops = {"interrupted": signal.SIGINT, "killed": signal.SIGKILL}
    first = [small("in one go", place.folder / "whole", *DETERMINISTIC)]
    first += [small(name, place.folder / name, *DETERMINISTIC, stop=stop) for name, stop in stops.items()]
    done = list(all_ended(first, place.deadline))
    stopped = outcome_of(done, {}, expected={"interrupted": 130, "killed": -signal.SIGKILL})
    if stopped.failed or stopped.cut_short:
        yield stopped
        return
    begun = int(time.time() * 1000)
    again = list(all_ended([small(name, place.folder / name, *DETERMINISTIC) for name in stops], place.deadline))
    if any(one.status != 0 for one in again):
        yield outcome_of(again, {})
        return
    figures = {name: resumed(place.folder / "whole", place.folder / name, begun) for name in stops}
    differs = [f"the {name} training went on with other results: {row}" for name, row in figures.items() if not row["agrees"]]
    yield outcome_of(again, figures, differs)


def resumed(whole: Path, stopped: Path, begun: int) -> Row:
    """How a training that went on differs from one in one go; the epochs that it had before it went on, at least one."""
    (result,) = results(stopped)
    epochs = sum(row["time"] < begun for row in result["history"])
    row = difference(whole, stopped)
    return row | {"epochs_before": epochs, "epochs": len(result["history"]), "agrees": row["equal_bytes"] and epochs > 0}


PARTS = (
    Part("tests", "the tests that are marked gpu", 150, tests),
    Part("matrix", "accuracies of the quick profile's arms, against the CPU's", 50, matrix),
    Part("step", "the plain, captured and compiled step against the roofline", 80, step),
    Part("packing", "runs per minute with one, two, four and a measured number of jobs", 80, packing),
    Part("deterministic", "equal bits of two trainings", 30, deterministic),
    Part("resuming", "equal bits after an interruption and a kill", 45, resuming),
)
