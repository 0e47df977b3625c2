"""A frozen backbone in eval mode: its features are computed once for all classifiers on it. N images, B batch, F features, C classes."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
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

MIN_FREE_BYTES = 2**31  # of the disk, which the cache leaves free
MAX_EPOCH_BYTES = 2**31  # of one epoch's features; more would not fit into memory beside the rest
# These settings act after the backbone, or do not change its input.
AFTER_BACKBONE = {*WATCHERS, "loss", "smoothing", "classifier", "optimizer", "schedule", "epochs"}
Batches = Generator[tuple[Tensor, Tensor], None, None]  # the model's inputs, or features, and the targets


@dataclass(frozen=True)
class FeatureCache:
    """A folder with tensors that several trainings of one study share; without a folder, each training computes its own."""

    folder: Path | None = None
    num_sharers: int = 0  # how many trainings use each epoch's features

    def get(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of that name; if they are not in the folder, one process computes them now.

        Where the lock keeps nobody off, several do: what each writes is whole and the same.
        """
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            saved = checkpoints.read(path)
            if saved is not None:
                return saved.tensors
            tensors = compute()
            if shutil.disk_usage(self.folder).free > MIN_FREE_BYTES + sum(tensor.nbytes for tensor in tensors.values()):
                with contextlib.suppress(OSError):  # such as a quota: the other trainings then compute their own
                    checkpoints.write(path, tensors, {})
            return tensors

    def release(self, name: str) -> None:
        """Note that one training no longer needs the tensors of that name; the last training deletes them.

        Where the lock keeps nobody off, or one training is done twice, they are deleted late, or early and computed again.
        """
        if self.folder is None:
            return
        path = self.folder / f"{name}.safetensors"
        with FileLock(path.with_suffix(".lock")):
            count_file = path.with_suffix(".count")
            num_released = 1
            with contextlib.suppress(OSError, ValueError):  # not there yet, or cut off by a kill: the tensors then stay until `clean`
                num_released += int(count_file.read_text())
            with contextlib.suppress(OSError):
                count_file.write_text(str(num_released))
            if num_released >= self.num_sharers:
                path.unlink(missing_ok=True)


def has_frozen_backbone(stage: Stage) -> bool:
    """Whether only the classifier changes in a stage, so that an image has the same features in every epoch."""
    return stage.train == "head" and stage.backbone == "eval"


def backbone_digest(model: nn.Module) -> str:
    """64 hexadecimal digits that identify the weights and buffers of a model without its classifier."""
    of_classifier = classifier_names(model)
    return checkpoints.checksum({name: tensor.cpu() for name, tensor in model.state_dict().items() if name not in of_classifier}, {})


def cache_name(*parts: Any) -> str:
    """32 hexadecimal digits that identify plain data."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def settings_before_backbone(settings: Settings) -> str:
    """The settings that determine the backbone's input, as text."""
    return settings.model_dump_json(exclude=AFTER_BACKBONE)


def split_cache_name(model: nn.Module, data_name: str, settings: Settings, split: str, view: Any) -> str:
    """The name under which the features of a split's images are cached, for images without augmentation."""
    resize = [technique.model_dump(mode="json") for technique in settings.augment if technique.works_on == "resize"]
    model_settings = settings.model.model_dump(mode="json")
    return cache_name(backbone_digest(model), data_name, model_settings, settings.precision, resize, split, repr(view))


def cached_features(cache: FeatureCache, name: str, compute: Callable[[], Tensor], device: torch.device) -> Tensor:
    """The features of that name, from the cache or else computed."""
    return cache.get(name, lambda: {"features": compute()})["features"].to(device)


@torch.no_grad()
def features_of_batch(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> Tensor:
    """The classifier's input for these images, B x F in float32."""
    return _features_and_logits(model, images_BCHW, precision)[0]


def _features_and_logits(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    classifier_inputs: list[Tensor] = []
    hook = classifier_of(model).register_forward_pre_hook(lambda _layer, inputs: classifier_inputs.append(inputs[0]))
    try:
        with precision.autocast(images_BCHW.device):
            logits_BC = model(images_BCHW)
    finally:
        hook.remove()
    return classifier_inputs[0].float(), logits_BC


@torch.no_grad()
def ends_with_classifier(model: nn.Module, images_BCHW: Tensor, precision: Precision) -> bool:
    """Whether the classifier is the last layer of the model: its output for the features is the model's output, to the bit."""
    features_BF, logits_BC = _features_and_logits(model, images_BCHW, precision)
    with precision.autocast(images_BCHW.device):
        return bool(torch.equal(classifier_of(model)(features_BF), logits_BC))


@torch.no_grad()
def logits_of_features(classifier: nn.Module, features_NF: Tensor, batch_size: int) -> Tensor:
    """The logits of all features, N x C in float32, computed in batches."""
    return torch.cat([classifier(features_BF) for features_BF in torch.split(features_NF, batch_size)])


@contextlib.contextmanager
def in_float32(layer: nn.Module) -> Iterator[None]:
    """Let a layer compute in float32 within autocast.

    Of logits in bf16 one in a few hundred images has two highest ones that are equal, and the class with the lower number, in a long tail
    the more frequent one, would win.
    """

    def computed_again(layer: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Any:
        with torch.autocast(logits.device.type, enabled=False):
            return layer.forward(*(tensor.float() for tensor in inputs))

    hook = layer.register_forward_hook(computed_again)
    try:
        yield
    finally:
        hook.remove()


def cached_batches(cache: FeatureCache, name: str, batches: Batches, slices: Sequence[slice], device: torch.device) -> Batches:
    """An epoch's batches of features and targets, from the cache; if it does not have them, `batches` computes them."""

    def compute() -> dict[str, Tensor]:
        pairs = list(batches)
        return {
            "features": torch.cat([features_BF for features_BF, _ in pairs]),
            "targets": torch.cat([targets_BC for _, targets_BC in pairs]),
        }

    tensors = {kind: tensor.to(device) for kind, tensor in cache.get(name, compute).items()}
    cache.release(name)
    return ((tensors["features"][batch], tensors["targets"][batch]) for batch in slices)
