"""A frozen backbone in eval mode: its features are made once for all classifiers on it. N images, B batch, F features, C classes."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from ablation.techniques.models import classifier_names, classifier_of
from ablation.training import checkpoints
from ablation.training.settings import WATCHERS, Settings, Stage
from ablation.training.step import Precision

SPARE_BYTES = 2**31  # what is left free of the disk
MOST_BYTES = 2**31  # of one epoch's features; more would crowd the memory
# What acts behind the backbone, or does not change what it sees.
BEHIND = {*WATCHERS, "loss", "smoothing", "classifier", "optimizer", "schedule", "epochs"}
Batches = Generator[tuple[Tensor, Tensor], None, None]


@dataclass(frozen=True)
class FeatureCache:
    """A folder with tensors that several trainings of one study need alike; without a folder, each makes its own."""

    folder: Path | None = None
    sharers: int = 0  # how many trainings take each epoch's features

    def get(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of that name; made now, by one process, where they do not lie there."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            found = checkpoints.read(path)
            if found is not None:
                return found.tensors
            made = make()
            if shutil.disk_usage(self.folder).free > SPARE_BYTES + sum(tensor.nbytes for tensor in made.values()):
                with contextlib.suppress(OSError):  # a quota, say: others make their own then
                    checkpoints.write(path, made, {})
            return made

    def release(self, name: str) -> None:
        """Take note that a training needs the tensors of that name no more; the last one deletes them."""
        if self.folder is None:
            return
        path = self.folder / f"{name}.safetensors"
        with FileLock(path.with_suffix(".lock")):
            count = path.with_suffix(".count")
            taken = 1
            with contextlib.suppress(OSError, ValueError):  # not there yet, or cut by a kill: the file then stays until `clean`
                taken += int(count.read_text())
            with contextlib.suppress(OSError):
                count.write_text(str(taken))
            if taken >= self.sharers:
                path.unlink(missing_ok=True)


def is_frozen(stage: Stage) -> bool:
    """Whether nothing but the classifier changes in a stage, so that an image has the same features in all its epochs."""
    return stage.train == "head" and stage.backbone == "eval"


def digest_of(model: nn.Module) -> str:
    """64 hexadecimal digits that identify the weights and buffers of a model without its classifier."""
    own = classifier_names(model)
    return checkpoints.checksum({name: tensor.cpu() for name, tensor in model.state_dict().items() if name not in own}, {})


def name_of(*parts: Any) -> str:
    """32 hexadecimal digits that identify plain data."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def before_backbone(settings: Settings) -> str:
    """The settings that decide what a backbone sees, as text."""
    return settings.model_dump_json(exclude=BEHIND)


def plain_name(model: nn.Module, source: str, settings: Settings, split: str, view: Any) -> str:
    """The name of what a model's backbone makes of a split's images, without augmentation."""
    resize = [technique.model_dump(mode="json") for technique in settings.augment if technique.works_on == "resize"]
    return name_of(digest_of(model), source, settings.model.model_dump(mode="json"), settings.precision, resize, split, repr(view))


def cached(cache: FeatureCache, name: str, look: Callable[[], Tensor], device: torch.device) -> Tensor:
    """The features of that name, made by `look` where they do not lie in the cache."""
    return cache.get(name, lambda: {"features": look()})["features"].to(device)


@torch.no_grad()
def seen(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> Tensor:
    """What the classifier sees of these images, B x F in float32."""
    return _with_logits(model, images_BCHW, precision)[0]


def _with_logits(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    found: list[Tensor] = []
    hook = classifier_of(model).register_forward_pre_hook(lambda _layer, inputs: found.append(inputs[0]))
    try:
        with precision.autocast(images_BCHW.device):
            logits_BC = model(images_BCHW)
    finally:
        hook.remove()
    return found[0].float(), logits_BC


@torch.no_grad()
def is_divisible(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> bool:
    """Whether the classifier is the last that a model does: its output for the features is the model's, to the bit."""
    features_BF, logits_BC = _with_logits(model, images_BCHW, precision)
    with precision.autocast(images_BCHW.device):
        return bool(torch.equal(classifier_of(model)(features_BF), logits_BC))


@torch.no_grad()
def classified(classifier: nn.Module, features_NF: Tensor, precision: Precision, size: int) -> Tensor:
    """The logits of all features, N x C in float32, `size` at a time."""
    with precision.autocast(features_NF.device):
        return torch.cat([classifier(part_BF).float() for part_BF in torch.split(features_NF, size)])


def fed(cache: FeatureCache, name: str, made: Batches, slices: Sequence[slice], device: torch.device) -> Batches:
    """The batches of features and targets of that name, from the cache where they lie in it, else as `made` makes them."""

    def make() -> dict[str, Tensor]:
        pairs = list(made)
        return {"features": torch.cat([one for one, _ in pairs]), "targets": torch.cat([one for _, one in pairs])}

    found = {what: tensor.to(device) for what, tensor in cache.get(name, make).items()}
    cache.release(name)
    return ((found["features"][batch], found["targets"][batch]) for batch in slices)
