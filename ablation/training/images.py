"""From stored pixels to what the model sees, in batches and on the device. N images, B batch, H x W pixels, C = 3 channels."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ablation.system.randomness import generator
from ablation.techniques.augmentations import Resize
from ablation.training.settings import Settings

Draws = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Images:
    """The way of an image: augmentations of pixels in [0, 1], resizing, normalisation, augmentations of the model's input."""

    augmentations: tuple[Any, ...]
    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether an image looks alike in all epochs."""
        return all(technique.works_on == "resize" for technique in self.augmentations)

    @property
    def at_once(self) -> int:
        """How many images are looked at together where nothing is trained."""
        return 256 if self.image_size > 64 else 1024

    def draw(self, seed: int, epoch: int, num_images: int, device: torch.device, purpose: str = "augment") -> Draws:
        """The epoch's parameters of every augmentation, each from a generator by purpose, position and name."""
        draws = []
        for position, technique in enumerate(self.augmentations):
            source = generator(seed, f"{purpose}/{position}/{technique.name}", epoch)
            draws.append(on_device(technique.draw(source, num_images), device))
        return draws

    def train(self, pixels_BCHW: Tensor, draws: Draws) -> Tensor:
        """The model's input for a batch of uint8 pixels, augmented by the batch's slices of the epoch's parameters."""
        images_BCHW = pixels_BCHW.float().div_(255)
        resized = False
        for technique, drawn in zip(self.augmentations, draws, strict=True):
            if technique.works_on != "pixels" and not resized:
                images_BCHW, resized = self._normalised(self._resized(images_BCHW, technique)), True
            if technique.works_on != "resize":
                images_BCHW = technique(images_BCHW, drawn)
        return images_BCHW if resized else self._normalised(self._resized(images_BCHW))

    def plain(self, pixels_BCHW: Tensor) -> Tensor:
        """Pixels in [0, 1] at the model's size, on which test-time views act before `normalised`."""
        resize = [technique for technique in self.augmentations if technique.works_on == "resize"]
        return self._resized(pixels_BCHW.float().div_(255), *resize)

    def normalised(self, images_BCHW: Tensor) -> Tensor:
        """The model's input for pixels in [0, 1]."""
        return self._normalised(images_BCHW)

    def _resized(self, images_BCHW: Tensor, technique: Any = None) -> Tensor:
        if images_BCHW.shape[-2:] == (self.image_size, self.image_size):
            return images_BCHW
        resize = technique if isinstance(technique, Resize) else Resize()
        return resize.resize(images_BCHW, self.image_size)

    def _normalised(self, images_BCHW: Tensor) -> Tensor:
        mean_C, deviation_C = (_per_channel(values, images_BCHW.device) for values in (self.mean, self.deviation))
        return (images_BCHW - mean_C) / deviation_C


@lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The numbers on the device, to be taken with C x H x W; copied there for each batch they would make the host wait for it."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def on_device(tables: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The drawn parameters where the images are; numbers in float32, since not every device has more."""
    return {name: (table.float() if table.is_floating_point() else table).to(device) for name, table in tables.items()}


def sliced(draws: Draws, batch: slice) -> Draws:
    """The batch's part of an epoch's parameters."""
    return [{name: table[batch] for name, table in drawn.items()} for drawn in draws]


def images_of(settings: Settings) -> Images:
    """The way from stored pixels to the model's input."""
    return Images(settings.augment, settings.model.image_size, *settings.model.normalisation)
