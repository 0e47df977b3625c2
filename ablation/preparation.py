"""What a plan needs to know of the outside: data decoded, weights found, devices, what is there already, and how fast things go."""

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ablation import groups, keys
from ablation.config import Arm, Stage, Study
from ablation.data import Split, open_dataset, prepare, split
from ablation.errors import ConfigError, DataError
from ablation.files import write_json
from ablation.plan import Past, RecordedRun, Source, Surroundings
from ablation.probing import seconds_per_image
from ablation.techniques.models import classifier_of, digest_of_file
from ablation.training import checkpoints
from ablation.training.loop import batches
from ablation.training.step import resolve_precision
from ablation.worker import device_name, is_whole

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Workspace:
    """The folders beside the store: decoded data, trained stages, computed results."""

    root: Path

    @property
    def stages(self) -> Path:
        """A folder per trained stage, by key."""
        return self.root / "stages"

    @property
    def results(self) -> Path:
        """A folder per computed run, by key."""
        return self.root / "results"

    @property
    def data(self) -> Path:
        """The decoded data sets."""
        return self.root / "data"

    @property
    def speeds(self) -> Path:
        """Measured seconds per training image."""
        return self.root / "speeds.json"

    def shelf(self, study: str) -> Path:
        """What trainings of one study share while it is run, deleted afterwards."""
        return self.root / "features" / study

    def forget(self, stages: Iterable[str], results: Iterable[str]) -> None:
        """Delete the states of these stages and the results of these runs, so that they are computed again."""
        for key in stages:
            for name in (checkpoints.FINAL, checkpoints.CHECKPOINT):
                (self.stages / key / name).unlink(missing_ok=True)
        for key in results:
            shutil.rmtree(self.results / key, ignore_errors=True)

    @contextlib.contextmanager
    def held_off(self, but: str = "") -> Iterator[list[str]]:
        """Let no study but one begin to run in this folder for a while; the names of those that do already."""
        with contextlib.ExitStack() as locks:
            running = []
            for path in sorted((self.root / "locks").glob("*.lock")):
                try:
                    if path.stem != but:
                        locks.enter_context(FileLock(path, timeout=0))
                except Timeout:
                    running.append(path.stem)
            yield running

    def past(self, recorded: Iterable[Mapping[str, Any]]) -> Past:
        """What lies in the folders and, of the store's runs, what is recorded."""
        by_run: dict[tuple[str, int], list[RecordedRun]] = {}
        for run in recorded:
            tags = run["tags"]
            if tags.get("ablation.kind") == "run":
                one = RecordedRun(
                    tags["ablation.key"],
                    tags.get("ablation.content", ""),
                    run["status"],
                    tags.get("ablation.failure", ""),
                    tags.get("ablation.reason", ""),
                )
                by_run.setdefault((tags["ablation.arm"], int(tags["ablation.seed"])), []).append(one)
        finished = {one.key for runs in by_run.values() for one in runs if one.status == "FINISHED"}  # these are not looked at again
        there = {path.parent.name for path in self.results.glob("*/result.json")}
        results = frozenset(key for key in there if key in finished or is_whole(self.results / key))
        finals = {path.parent.name: checkpoints.record(path) for path in self.stages.glob(f"*/{checkpoints.FINAL}")}
        partial = {path.parent.name: checkpoints.record(path) for path in self.stages.glob(f"*/{checkpoints.CHECKPOINT}")}
        return Past(
            by_run,
            results,
            {key: frozenset(record["products"]) for key, record in finals.items() if record},
            {key: int(record["epoch"]) for key, record in partial.items() if record},
        )


def devices(choice: str) -> list[torch.device]:
    """The devices of --device: auto (every CUDA device, else MPS, else the CPU), cpu, cuda, cuda:0,1 or mps."""
    if choice == "cpu":
        return [torch.device("cpu")]
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice == "auto":
        if num_cuda:
            return [torch.device("cuda", i) for i in range(num_cuda)]
        return [torch.device("mps" if torch.backends.mps.is_available() else "cpu")]
    if choice == "mps" and torch.backends.mps.is_available():
        return [torch.device("mps")]
    kind, _, numbers = choice.partition(":")
    if kind == "cuda" and all(part.isdigit() for part in numbers.split(",") if numbers):
        chosen = [int(part) for part in numbers.split(",")] if numbers else list(range(num_cuda))
        if not num_cuda:
            raise ConfigError("--device", f"found {choice!r}, but there is no CUDA device; expected cpu or auto")
        missing = [i for i in chosen if i >= num_cuda]
        if missing:
            raise ConfigError("--device", f"found cuda:{missing[0]}, but there are {num_cuda} CUDA devices (counted from 0)")
        return [torch.device("cuda", i) for i in dict.fromkeys(chosen)]
    raise ConfigError("--device", f"found {choice!r}; expected auto, cpu, cuda, cuda:0,1 or mps (where there is one)")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Preparation:
    """Looks each thing up once: data, weights, precision and speed for the arms of one study."""

    study: Study
    workspace: Workspace
    device: torch.device
    progress: Progress
    _datasets: dict[Any, Path] = field(default_factory=dict)
    _splits: dict[Any, Split] = field(default_factory=dict)
    _weights: dict[Any, tuple[str, Path | None]] = field(default_factory=dict)
    _probed: dict[str, float] = field(default_factory=dict)
    _measured: dict[str, float] | None = None

    @cached_property
    def surroundings(self) -> Surroundings:
        """What the plan takes."""
        return Surroundings(
            source=self.source,
            weights=self.weights,
            precision=lambda name: resolve_precision(name, self.device).name,
            device_class=device_name(self.device),
            tail=self.tail,
            stages=self.workspace.stages,
            results=self.workspace.results,
            shelf=self.workspace.shelf(self.study.name),
        )

    def source(self, arm: Arm, seed: int) -> Source:
        """The arm's data for a seed, decoded on first use; raises DataError where they cannot be had."""
        try:
            return self._source(arm, seed)
        except DataError as error:
            raise DataError(f"data ({arm.settings.data.name}): {error}") from None

    def _source(self, arm: Arm, seed: int) -> Source:
        settings = arm.settings
        place = (settings.data, settings.model.image_size)
        if place not in self._datasets:
            self._datasets[place] = prepare(settings.data, settings.model.image_size, self.study.folder, self.workspace.data, self.progress)
        folder = self._datasets[place]
        if (folder, settings.data, seed) not in self._splits:
            self._splits[folder, settings.data, seed] = split(open_dataset(folder), settings.data, seed)
        parts = self._splits[folder, settings.data, seed]
        dataset = open_dataset(folder)
        tested = np.bincount(dataset.labels_N[parts.test_N], minlength=len(dataset.classes))
        counts, test_counts = tuple(parts.counts_C.tolist()), tuple(tested.tolist())
        return Source(folder, parts.digest, counts, test_counts, len(parts.validation_N), tuple(dataset.classes))

    def weights(self, model: Any) -> tuple[str, Path | None]:
        """The digest of the weights that a model starts from, and their file where it names one."""
        if model not in self._weights:
            self._weights[model] = self._find_weights(model)
        return self._weights[model]

    def _find_weights(self, model: Any) -> tuple[str, Path | None]:
        if model.weights == "none":
            return (f"hub:{model.name}" if model.pretrained else "random"), None
        path = (self.study.folder / model.weights).resolve()
        if not path.is_file():
            raise ConfigError("model.weights", f"found {model.weights!r}, but there is no file {path}; expected a .safetensors file")
        return digest_of_file(path), path

    def tail(self, counts: Sequence[int], classes: Sequence[str]) -> tuple[int, ...]:
        """The tail classes: those of the group few; an empty tail is an error."""
        few = groups.resolve(self.study.groups, counts, classes)["few"]
        if not few:
            raise ConfigError("groups.few", "no class is in it, but mix.only is tail; expected a bound or a list that names at least one")
        return few

    def check(self, arms: Iterable[Arm], seeds: Iterable[int]) -> None:
        """Find before training what would stop a run at its start."""
        arms, seeds = list(arms), list(seeds)
        for arm in arms:
            for seed in seeds:
                source = self.source(arm, seed)
                members = groups.resolve(self.study.groups, source.counts, source.classes)
                if arm.choice is not None and not members.get(arm.choice.metric, (0,)):
                    found = f"found val/{arm.choice.metric} in {arm.name!r}, but no class is in that group"
                    raise ConfigError("choose", f"{found}; expected another metric")
                if source.classes != self.source(arms[0], seed).classes:
                    problem = f"{arm.name!r} has other classes than {arms[0].name!r}; expected the same classes in all arms of a study"
                    raise ConfigError("data", problem)
                for stage in arm.stages:
                    _check_stage(arm, stage, source, self.device)

    def check_models(self, arms: Iterable[Arm], seed: int) -> None:
        """Make each model once, so that weights that cannot be had are found before training."""
        seen = set()
        for arm in arms:
            model, posthoc = arm.settings.model, arm.stages[-1].settings.posthoc
            classifiers = tuple(dict.fromkeys(stage.settings.classifier for stage in arm.stages))
            if (model, classifiers, posthoc) in seen:
                continue
            seen.add((model, classifiers, posthoc))
            num_classes = len(self.source(arm, seed).classes)
            for classifier in classifiers:
                made = model(num_classes, seed, self.weights(model)[1], classifier)
            if posthoc.replaces_classifier and not posthoc.needs_features:
                posthoc.classifier(classifier_of(made), None, None, num_classes)

    # --- speed -----------------------------------------------------------------------------------------------------------

    def seconds_per_image(self, stage: Stage) -> float:
        """Seconds per training image of a stage on one worker: measured in past runs, else by a short probe."""
        name, measured = keys.speed_key(stage, device_name(self.device)), self.measured_seconds(stage)
        if measured:
            return measured
        if name not in self._probed:
            self._probed[name] = seconds_per_image(stage, self.device)
        return self._probed[name]

    def measured_seconds(self, stage: Stage) -> float:
        """The same where past runs were measured, else 0."""
        if self._measured is None:
            self._measured = read_speeds(self.workspace.speeds)
        return self._measured.get(keys.speed_key(stage, device_name(self.device)), 0.0)


def _check_stage(arm: Arm, stage: Stage, source: Source, device: torch.device) -> None:
    settings = stage.settings
    precision = resolve_precision(settings.precision, device)
    if settings.compile and (settings.deterministic or precision.name == "fp16"):
        other = "deterministic: true" if settings.deterministic else "precision: fp16"
        raise ConfigError("compile", f"found true with {other} in {arm.name!r}, which keeps the plain step; expected false")
    batches(sum(source.counts), settings.batch_size, drop_last=settings.drop_last)
    looks = {
        "select": settings.select == "best_on_validation",
        "posthoc": settings.posthoc.needs_validation,
        "choose": arm.choice is not None,
    }
    for name in [name for name, needed in looks.items() if needed and not source.num_validation]:
        raise ConfigError(name, f"needs validation images in {arm.name!r}, but data.validation is 0; expected a fraction such as 0.1")
    if len(source.classes) < 2:
        raise DataError(f"data ({settings.data.name}): found one class, {source.classes[0]!r}; expected at least two")
    if not sum(source.test_counts):
        raise DataError(f"there are no test images for {arm.name!r}; expected a test folder, a test split, or data.test")
    resized = False
    for i, technique in enumerate(settings.augment):
        resized = resized or technique.works_on != "pixels"
        if resized and technique.works_on == "pixels":
            raise ConfigError(f"augment.{i}", f"{technique.name} works on the image before resizing; expected it before erase and resize")


def read_speeds(path: Path) -> dict[str, float]:
    """The measured seconds per image, by speed key."""
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def note_speed(path: Path, name: str, seconds: float) -> None:
    """Keep a measured speed for later plans."""
    write_json(path, read_speeds(path) | {name: seconds}, is_kept=False)


def package_versions() -> dict[str, str]:
    """The versions of Python's packages that a run's record names."""
    names = ("torch", "torchvision", "timm", "mlflow", "mlflow-skinny", "scikit-learn", "numpy", "longtail-ablation")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
