"""From stored pixels to the model's input, in batches and on the device. N images, B batch, H x W pixels, C = 3 channels."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ablation.system.randomness import generator
from ablation.techniques.augmentations import Resize
from ablation.training.settings import Settings

Draws = list[dict[str, Tensor]]  # for each augmentation its random parameters by name, with a value for each image


@dataclass(frozen=True)
class ImagePipeline:
    """The steps of preprocessing: augmentations of pixels in [0, 1], resizing, normalisation, augmentations of the model's input."""

    augmentations: tuple[Any, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether an image looks the same in every epoch."""
        return all(technique.works_on == "resize" for technique in self.augmentations)

    @property
    def eval_batch_size(self) -> int:
        """The number of images in a batch of which no gradients are computed."""
        if self.image_size <= 64:
            return 1024
        return max(1, min(256, 256 * 224**2 // self.image_size**2))  # as much memory for larger images as for those of 224 pixels

    def draw(self, seed: int, epoch: int, num_images: int, device: torch.device, purpose: str = "augment") -> Draws:
        """The epoch's random parameters of every augmentation, each from a generator by purpose, position and name."""
        draws = []
        for position, technique in enumerate(self.augmentations):
            source = generator(seed, f"{purpose}/{position}/{technique.name}", epoch)
            draws.append(draws_on_device(technique.draw(source, num_images), device))
        return draws

    def training_inputs(self, pixels_BCHW: Tensor, draws: Draws) -> Tensor:
        """The model's input for a batch of uint8 pixels, augmented; `draws` are the batch's part of the epoch's draws."""
        images_BCHW = pixels_BCHW.float().div_(255)
        is_resized = False
        for technique, parameters in zip(self.augmentations, draws, strict=True):
            if technique.works_on != "pixels" and not is_resized:
                images_BCHW, is_resized = self.normalised(self._resized(images_BCHW)), True
            if technique.works_on != "resize":
                images_BCHW = technique(images_BCHW, parameters)
        return images_BCHW if is_resized else self.normalised(self._resized(images_BCHW))

    def resized(self, pixels_BCHW: Tensor) -> Tensor:
        """The images in [0, 1] at the model's size, without augmentation; test-time views are applied before `normalised`."""
        return self._resized(pixels_BCHW.float().div_(255))

    def normalised(self, images_BCHW: Tensor) -> Tensor:
        """The model's input for images in [0, 1]."""
        mean_C, std_C = (_per_channel(values, images_BCHW.device) for values in (self.mean, self.std))
        return (images_BCHW - mean_C) / std_C

    def _resized(self, images_BCHW: Tensor) -> Tensor:
        """The images at the model's size, by the augmentation that resizes, wherever it stands, or else as `resize` does by default."""
        if images_BCHW.shape[-2:] == (self.image_size, self.image_size):
            return images_BCHW
        resize = next((technique for technique in self.augmentations if technique.works_on == "resize"), Resize())
        resized_BCHW: Tensor = resize.resize(images_BCHW, self.image_size)
        return resized_BCHW


@lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The values on the device, in a shape that broadcasts over C x H x W; the copy is cached because each one makes the host wait."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def draws_on_device(parameters: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """An augmentation's random parameters on the device; numbers in float32, since not every device has float64."""
    return {name: (values.float() if values.is_floating_point() else values).to(device) for name, values in parameters.items()}


def draws_of_batch(draws: Draws, batch: slice) -> Draws:
    """The batch's part of an epoch's draws."""
    return [{name: values[batch] for name, values in parameters.items()} for parameters in draws]


def image_pipeline(settings: Settings) -> ImagePipeline:
    """The pipeline that the settings describe."""
    return ImagePipeline(settings.augment, settings.model.image_size, *settings.model.normalisation)
