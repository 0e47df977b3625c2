"""Prepares trainings on images: decodes data, finds weights, and measures how fast a stage trains."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ablation.data import Split, open_dataset, split
from ablation.data.account import Account, account_of, clusters_of
from ablation.data.cache import find_files, prepare_files
from ablation.data.raster import FULL_RANGE
from ablation.data.source import SourceFiles
from ablation.data.splits import test_set_of
from ablation.errors import ConfigError, DataError
from ablation.study import groups
from ablation.study.config import Arm, Study
from ablation.study.task import Folders
from ablation.system.digests import file_digest
from ablation.system.paths import user_file
from ablation.tasks.images.context import PlanContext, Source
from ablation.tasks.images.planner import ImagePlanner, TrainingStep
from ablation.tasks.images.probing import measured_speed
from ablation.techniques.models import classifier_of
from ablation.techniques.optimizer_state import check_saved
from ablation.techniques.smoothing import check_strength
from ablation.training.frozen import ends_with_classifier
from ablation.training.loop import batch_slices, prepare_model
from ablation.training.planned_device import device_name, planned_precision
from ablation.training.settings import Stage
from ablation.training.step import Precision

Progress = Callable[[str, int, int], None]
WRITTEN = {"ladder": "ladder", "variant": "variants"}  # kind of an arm that the file writes on top of another -> its section


@dataclass
class ImagePreparation:
    """Looks up data, weights, precision and speed for the arms of one study, each of them once."""

    study: Study
    folders: Folders
    device: torch.device
    progress: Progress
    _datasets: dict[Any, tuple[SourceFiles, Path]] = field(default_factory=dict)
    _splits: dict[Any, Split] = field(default_factory=dict)
    _sources: dict[Any, Source] = field(default_factory=dict)
    _accounts: dict[Any, Account] = field(default_factory=dict)
    _weights: dict[Any, tuple[str, Path | None]] = field(default_factory=dict)
    _speeds: dict[str, float | str] = field(default_factory=dict)

    @cached_property
    def planner(self) -> ImagePlanner:
        """The planner of the study's trainings."""
        context = PlanContext(
            source=self.source,
            account=self.account,
            weights=self.weights,
            precision=lambda name: planned_precision(name, self.device).name,
            device_class=self.device_class,
            tail=self.tail,
            stages=self.folders.stages,
            results=self.folders.results,
            features=self.folders.features(self.study.name),
            remarks=self._unknown_speeds,
        )
        return ImagePlanner(self.study, context)

    @property
    def device_class(self) -> str:
        """The class of device, on which the bits of a result depend."""
        return device_name(self.device)

    def source(self, arm: Arm, seed: int) -> Source:
        """The arm's data for a seed, decoded on first use; raises DataError if they are not available."""
        try:
            return self._source(arm, seed)
        except DataError as error:
            raise DataError(f"data ({arm.settings.data.name}): {error}") from None

    def _source(self, arm: Arm, seed: int) -> Source:
        data, (_, folder) = arm.settings.data, self._dataset(arm)
        key = (folder, data, seed)
        if key not in self._sources:
            dataset = open_dataset(folder)
            parts = self._splits[key] = split(dataset, data, seed)
            test_counts, validation_counts = (
                tuple(np.bincount(dataset.labels_N[rows_N], minlength=len(dataset.classes)).tolist())
                for rows_N in (parts.test_N, parts.validation_N)
            )
            self._sources[key] = Source(
                dataset=folder,
                digest=parts.digest,
                counts=tuple(parts.counts_C.tolist()),
                group_counts=tuple(parts.group_counts_C.tolist()),
                test_counts=test_counts,
                num_validation=len(parts.validation_N),
                classes=tuple(dataset.classes),
                validation_counts=validation_counts if len(parts.validation_N) else (),
                test_set=test_set_of(dataset, parts),
                clusters=clusters_of(dataset, parts, data),
            )
        return self._sources[key]

    def _dataset(self, arm: Arm) -> tuple[SourceFiles, Path]:
        """The files of the arm's data, and the folder in which they lie decoded."""
        data, image_size = arm.settings.data, arm.settings.model.image_size
        if (data, image_size) not in self._datasets:
            files = find_files(data, image_size, self.study.folder)
            self._datasets[data, image_size] = files, prepare_files(data, files, self.folders.data, self.progress)
        return self._datasets[data, image_size]

    def account(self, arm: Arm, seed: int) -> Account:
        """What was found in the arm's data, as the seed splits them."""
        source, (files, folder), data = self.source(arm, seed), self._dataset(arm), arm.settings.data
        image_size = arm.settings.model.image_size
        key = (folder, source.digest, image_size)
        if key not in self._accounts:
            place = " ".join([data.name, *(str(getattr(data, name)) for name in ("root", "file", "train_list") if _is_set(data, name))])
            parts = self._splits[folder, data, seed]
            self._accounts[key] = account_of(open_dataset(folder), parts, data, files.split_origin, files.remarks, place, image_size)
        return self._accounts[key]

    def weights(self, model: Any) -> tuple[str, Path | None]:
        """The digest of the weights that a model starts from, and their file if the settings name one."""
        if model not in self._weights:
            self._weights[model] = self._find_weights(model)
        return self._weights[model]

    def _find_weights(self, model: Any) -> tuple[str, Path | None]:
        if model.weights == "none":
            return (f"hub:{model.name}" if model.pretrained else "random"), None
        path = user_file(model.weights, "model.weights", "a .safetensors file", self.study.folder).resolve()
        return file_digest(path), path

    def tail(self, counts: Sequence[int], classes: Sequence[str]) -> tuple[int, ...]:
        """The tail classes: those of the group few; raises ConfigError if there are none."""
        few = groups.resolve(self.study.groups, counts, classes)["few"]
        if not few:
            raise ConfigError("groups.few", "no class is in it, but mix.only is tail; expected a bound or a list that names at least one")
        if len(few) == len(classes):
            raise ConfigError(
                "groups.few", "every class is in it, so mix.only: tail is as all; expected a bound or a list that leaves some out"
            )
        return few

    def check(self, arms: Iterable[Arm], seeds: Iterable[int]) -> None:
        """Raise before training what would stop a run at its start."""
        arms, seeds = list(arms), list(seeds)
        for arm in arms:
            for seed in seeds:
                source = self.source(arm, seed)
                classes_by_group = groups.resolve(self.planner.groups(arm, seed), source.group_counts, source.classes)
                _check_choice(arm, classes_by_group, source.validation_counts)
                if source.classes != self.source(arms[0], seed).classes:
                    problem = f"{arm.name!r} has other classes than {arms[0].name!r}; expected the same classes in all arms of a study"
                    raise ConfigError("data", problem)
                _check_range(arm.settings.data, source)
                for stage in arm.stages:
                    _check_stage(arm, stage, source, self.device)
            self._check_averages(arm, seeds)

    def _check_averages(self, arm: Arm, seeds: Sequence[int]) -> None:
        """Raise for a written arm that only changes averages which nothing is tested with, started from or watched by."""
        parent = next((other for other in self.study.arms if other.name == arm.parent), None)
        is_average = all(re.fullmatch(r"stages\.\d+\.average(\..+)?", path) for path in arm.change)
        if parent is None or arm.kind not in WRITTEN or not arm.change or not is_average:
            return
        for seed in seeds:
            contents = [self.planner.request(one, seed, self.planner.steps(one, seed)).content for one in (arm, parent)]
            if contents[0] != contents[1] or self.source(arm, seed).num_validation:
                return
        place, _, _ = next(iter(arm.change)).partition(".average")
        problem = f"is neither tested nor started from, so that {arm.name!r} is the same as {arm.parent!r}"
        expected = "expected it in the last stage, start: average in the stage after it, or no such arm"
        raise ConfigError(f"{WRITTEN[arm.kind]}.{arm.name}.{place}.average", f"{problem}; {expected}")

    @property
    def imported_code(self) -> str:
        """None: a worker refuses code that is no longer that of the plan."""
        return ""

    def check_starts(self, arms: Iterable[Arm], seed: int, *, is_here: bool = True) -> None:
        """Make each model once, to raise before training if its weights are not available."""
        checked = set()
        for arm in arms:
            model, posthoc = arm.settings.model, arm.stages[-1].settings.posthoc
            classifiers = tuple(dict.fromkeys(stage.settings.classifier for stage in arm.stages))
            for optimizer in {stage.settings.optimizer for stage in arm.stages}:
                if not type(optimizer).__module__.startswith("ablation."):
                    check_saved(optimizer.name, optimizer)
            source = self.source(arm, seed)
            num_classes = len(source.classes)
            lone = {(stage.train, stage.backbone): stage for stage in arm.stages if _has_batch_of_one(stage, sum(source.counts))}
            if (model, classifiers, posthoc, *lone) in checked:
                continue
            checked.add((model, classifiers, posthoc, *lone))
            for classifier in classifiers:
                network = model(num_classes, seed, self.weights(model)[1], classifier)
            if posthoc.replaces_classifier:
                if not posthoc.needs_features:
                    posthoc.classifier(classifier_of(network), None, None, num_classes)
                _check_last_layer(network, model, posthoc)
            for stage in lone.values():
                _check_batch_of_one(network, stage)

    def seconds_per_item(self, step: TrainingStep) -> float:
        """Seconds per training image of a stage on one worker, measured with a few steps; 0 if that failed."""
        if step.kind not in self._speeds:
            self._speeds[step.kind] = measured_speed(step.stage, self.device)
        speed = self._speeds[step.kind]
        return 0.0 if isinstance(speed, str) else speed

    def _unknown_speeds(self) -> list[str]:
        """A sentence for each reason why a speed could not be measured."""
        reasons = Counter(speed for speed in self._speeds.values() if isinstance(speed, str))
        return [
            f"the speed of {count} of its kinds of training is unknown, as measuring it failed: {reason}"
            for reason, count in reasons.items()
        ]


def _check_last_layer(network: nn.Module, model: Any, posthoc: Any) -> None:
    """Raise if a post-hoc technique would replace a classifier of which the model's scores are not made alone."""
    image_13HW = torch.zeros(1, 3, model.image_size, model.image_size)
    if not ends_with_classifier(network.eval(), image_13HW, Precision("fp32")):
        problem = f"found {posthoc.name!r}, which replaces the classifier, but {model.name} does more after its classifier"
        raise ConfigError("posthoc", f"{problem}; expected another model, or a post-hoc technique that adjusts scores")


def _has_batch_of_one(stage: Stage, num_images: int) -> bool:
    """Whether a batch of each epoch is a single image."""
    batch_size, drop_last = stage.settings.batch_size, stage.settings.drop_last
    return batch_size == 1 or (not drop_last and num_images % batch_size == 1)


def _check_batch_of_one(network: nn.Module, stage: Stage) -> None:
    """Raise if a batch normalisation of the network, in its mode of that stage, sees one value per channel of a single image."""
    from ablation.tasks.images.run import explained_single_image  # which imports what tests need, too

    prepare_model(network, stage)
    size = stage.settings.model.image_size
    with torch.no_grad(), torch.random.fork_rng(devices=[]), explained_single_image():
        network(torch.zeros(1, 3, size, size))


def _check_choice(arm: Arm, classes_by_group: Mapping[str, Sequence[int]], validation_counts: Sequence[int]) -> None:
    """Raise if the arm is chosen by the recall of a group without classes, or without validation images where others have some."""
    metric = arm.choice.metric if arm.choice is not None else ""
    members = classes_by_group.get(metric)
    if members is None:
        return
    if not members:
        what = "no class is in that group"
    elif validation_counts and not any(validation_counts[c] for c in members):
        what = "no validation image is of its classes"
    else:
        return
    raise ConfigError("choose", f"found val/{metric} in {arm.name!r}, but {what}; expected another metric")


def _check_range(data: Any, source: Source) -> None:
    value_range = getattr(data, "range", FULL_RANGE)
    if value_range != FULL_RANGE and not (open_dataset(source.dataset).inspections_N["bits"] == 16).any():
        raise ConfigError(
            "data.range", f"found {list(value_range)}, but no grey image has 16 bits, so that it changes nothing; leave it out"
        )


def _check_stage(arm: Arm, stage: Stage, source: Source, device: torch.device) -> None:
    settings = stage.settings
    precision = planned_precision(settings.precision, device)
    if settings.compile and (settings.deterministic or precision.name == "fp16"):
        conflict = "deterministic: true" if settings.deterministic else "precision: fp16"
        raise ConfigError("compile", f"found true with {conflict} in {arm.name!r}, which keeps the plain step; expected false")
    batch_slices(sum(source.counts), settings.batch_size, drop_last=settings.drop_last)  # raises if there is no batch
    needs_validation = {
        "select": settings.select == "best_on_validation",
        "posthoc": settings.posthoc.needs_validation,
        "choose": arm.choice is not None,
    }
    for name in [name for name, is_needed in needs_validation.items() if is_needed and not source.num_validation]:
        raise ConfigError(name, f"needs validation images in {arm.name!r}, but data.validation is 0; expected a fraction such as 0.1")
    if len(source.classes) < 2:
        raise DataError(f"data ({settings.data.name}): found one class, {source.classes[0]!r}; expected at least two")
    if not sum(source.test_counts):
        raise DataError(f"there are no test images for {arm.name!r}; expected a test folder, a test split, or data.test")
    try:
        check_strength(settings.smoothing, len(source.classes))
    except ConfigError as error:
        raise ConfigError(f"smoothing.{error.path}", f"{error.problem} (in {arm.name!r})") from None
    _check_resize(arm, stage, source)
    is_resized = False
    for i, technique in enumerate(settings.augment):
        is_resized = is_resized or technique.works_on != "pixels"
        if is_resized and technique.works_on == "pixels":
            raise ConfigError(f"augment.{i}", f"{technique.name} works on the image before resizing; expected it before erase and resize")


def _check_resize(arm: Arm, stage: Stage, source: Source) -> None:
    """Raise ConfigError for an arm that changes nothing but how images get a size that they have."""
    settings, size = stage.settings, stage.settings.model.image_size
    resizes = [f"augment.{i}." for i, technique in enumerate(settings.augment) if technique.works_on == "resize"]
    fields = [path for path in arm.change if path != "augment"]  # which is the list without any
    is_of_resize = bool(resizes) and all(any(path.startswith(resize) for resize in resizes) for path in fields)
    replaces = any(old is not None for path, (old, _) in arm.change.items() if path.endswith(".name"))  # another augmentation, by it
    if arm.change and is_of_resize and not replaces and open_dataset(source.dataset).images_NHWC.shape[1] == size:
        problem = f"resize changes nothing in {arm.name!r}: images of {settings.data.name} have the model's size, {size} x {size}"
        raise ConfigError(resizes[0].removesuffix("."), f"{problem}; expected no such arm, or another model.image_size")


def _is_set(technique: Any, name: str) -> bool:
    """Whether the technique has that setting, with a value that says something."""
    return getattr(technique, name, ".") != "."
