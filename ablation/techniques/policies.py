"""Learnt and random policies of image operations, a batch at a time. B batch, N images, C = 3 channels, H x W pixels, K operations.

Every image has its own operations and magnitudes, drawn for a whole epoch. The operations are those of 8-bit images: values are
whole levels from 0 to 255 and each operation cuts its result to whole levels, as the published policies were found on. All is
computed without asking the device for a value.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.geometry import warp
from ablation.techniques.technique import Technique

Operation = Callable[[Tensor, Tensor], Tensor]  # levels BCHW and magnitudes B to levels BCHW
Bins = Annotated[int, Field(ge=2)]


class MaxMagnitudes(NamedTuple):
    """The largest magnitudes of a set of operations."""

    shear: float  # pixels per pixel
    translate: float  # a share of the side or, where `in_pixels`, pixels
    rotate: float  # degrees
    blend: float  # what brightness, colour, contrast and sharpness differ from 1 by
    bits: int  # what posterize takes away
    in_pixels: bool = False


USUAL = MaxMagnitudes(shear=0.3, translate=150 / 331, rotate=30, blend=0.9, bits=4)  # 150 pixels of ImageNet's 331 in the paper
WIDE = MaxMagnitudes(shear=0.99, translate=32, rotate=135, blend=0.99, bits=6, in_pixels=True)

NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
)
NUM_RANDOM = NAMES.index("Invert")  # the random policies draw among those before it
TWO_SIDED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")

Subpolicy = tuple[tuple[str, float, int], tuple[str, float, int]]  # of either operation the name, the chance and the level out of 10
CIFAR10: tuple[Subpolicy, ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
IMAGENET: tuple[Subpolicy, ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
SVHN: tuple[Subpolicy, ...] = (
    (("ShearX", 0.9, 4), ("Invert", 0.2, 0)),
    (("ShearY", 0.9, 8), ("Invert", 0.7, 0)),
    (("Equalize", 0.6, 0), ("Solarize", 0.6, 6)),
    (("Invert", 0.9, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.6, 0), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("AutoContrast", 0.8, 0)),
    (("ShearY", 0.9, 8), ("Invert", 0.4, 0)),
    (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
    (("Invert", 0.9, 0), ("AutoContrast", 0.8, 0)),
    (("Equalize", 0.6, 0), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
    (("ShearY", 0.8, 8), ("Invert", 0.7, 0)),
    (("Equalize", 0.9, 0), ("TranslateY", 0.6, 6)),
    (("Invert", 0.9, 0), ("Equalize", 0.6, 0)),
    (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
    (("Invert", 0.8, 0), ("TranslateY", 0.0, 2)),
    (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
    (("Invert", 0.6, 0), ("Rotate", 0.8, 4)),
    (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
    (("ShearX", 0.1, 6), ("Invert", 0.6, 0)),
    (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
    (("ShearY", 0.8, 4), ("Invert", 0.8, 0)),
    (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
    (("ShearY", 0.8, 5), ("AutoContrast", 0.7, 0)),
    (("ShearX", 0.7, 2), ("Invert", 0.1, 0)),
)
POLICIES = {"cifar10": CIFAR10, "imagenet": IMAGENET, "svhn": SVHN}


class AutoAugment(Technique):
    """One of 25 learnt pairs of operations for each image, either with its own chance and magnitude.

    Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019; the tables and magnitudes are torchvision's.
    torchvision gives a whole batch the same pair; here each image draws its own. It stands after crop and flip.
    """

    name: Literal["auto_augment"] = "auto_augment"
    policy: Literal["cifar10", "imagenet", "svhn"] = "cifar10"
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The numbers in NAMES of each image's two operations, Identity where one is left out, and their signed magnitudes."""
        pairs = POLICIES[self.policy]
        pair_N = torch.randint(len(pairs), (num_images,), generator=generator)
        slots = []
        for slot in range(2):
            names, chances, levels = zip(*(pair[slot] for pair in pairs), strict=True)
            applied_N = torch.rand(num_images, generator=generator) < torch.tensor(chances)[pair_N]
            operation_N = torch.tensor([NAMES.index(name) for name in names])[pair_N]
            magnitude_N = draw_signs(operation_N, magnitude_table(USUAL, 10)[operation_N, torch.tensor(levels)[pair_N]], generator)
            slots.append((operation_N * applied_N, magnitude_N * applied_N))
        return stack_draws(slots)

    def __call__(self, images_BCHW: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The images, each after its operations."""
        return apply_operations(images_BCHW, draws, USUAL)


class RandAugment(Technique):
    """`num_ops` operations for each image, drawn evenly from 14 of which one changes nothing, all at one magnitude.

    Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", 2020; `magnitude` counts from 0 to
    `num_bins` - 1, as in torchvision, where 9 of 30 is the default. Signs are drawn. torchvision gives a whole batch the same
    operations; here each image draws its own. One operation more does not change the draws of those before it.
    """

    name: Literal["rand_augment"] = "rand_augment"
    num_ops: Annotated[int, Field(ge=1)] = 2
    num_bins: Bins = 31
    magnitude: Annotated[int, Field(ge=0)] = 9
    works_on: ClassVar[str] = "pixels"

    @model_validator(mode="after")
    def _check_magnitude(self) -> "RandAugment":
        if self.magnitude >= self.num_bins:
            raise ConfigError("magnitude", f"found {self.magnitude}; expected at most num_bins - 1, {self.num_bins - 1}")
        return self

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The numbers in NAMES of each image's operations, and their signed magnitudes."""
        magnitude_O = magnitude_table(USUAL, self.num_bins)[:, self.magnitude]
        slots = []
        for _ in range(self.num_ops):
            operation_N = torch.randint(NUM_RANDOM, (num_images,), generator=generator)
            slots.append((operation_N, draw_signs(operation_N, magnitude_O[operation_N], generator)))
        return stack_draws(slots)

    def __call__(self, images_BCHW: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The images, each after its operations."""
        return apply_operations(images_BCHW, draws, USUAL)


class TrivialAugment(Technique):
    """One operation for each image, drawn evenly from 14 of which one changes nothing, at a magnitude drawn evenly from `num_bins`.

    Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021, its wide set of magnitudes.
    Translations reach 32 pixels whatever the image's size, as published: at 32 pixels the farthest leaves nothing but black.
    torchvision gives a whole batch the same operation; here each image draws its own.
    """

    name: Literal["trivial_augment"] = "trivial_augment"
    num_bins: Bins = 31
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The number in NAMES of each image's operation, and its signed magnitude."""
        operation_N = torch.randint(NUM_RANDOM, (num_images,), generator=generator)
        bin_N = torch.randint(self.num_bins, (num_images,), generator=generator)
        return stack_draws([(operation_N, draw_signs(operation_N, magnitude_table(WIDE, self.num_bins)[operation_N, bin_N], generator))])

    def __call__(self, images_BCHW: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The images, each after its operation."""
        return apply_operations(images_BCHW, draws, WIDE)


def magnitude_table(maxima: MaxMagnitudes, num_bins: int) -> Tensor:
    """The magnitude of each operation, in the order of NAMES, in each of the evenly spaced bins; 0 where it has none."""
    increasing = {
        **dict.fromkeys(("ShearX", "ShearY"), maxima.shear),
        **dict.fromkeys(("TranslateX", "TranslateY"), maxima.translate),
        "Rotate": maxima.rotate,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), maxima.blend),
    }
    decreasing = {
        "Posterize": (8 - torch.arange(num_bins) / ((num_bins - 1) / maxima.bits)).round(),
        "Solarize": torch.linspace(1, 0, num_bins),
    }
    return torch.stack([decreasing[name] if name in decreasing else torch.linspace(0, increasing.get(name, 0), num_bins) for name in NAMES])


def draw_signs(operation_N: Tensor, magnitude_N: Tensor, generator: Generator) -> Tensor:
    """The magnitudes; of those of two-sided operations, half are negated at random."""
    is_negated_N = torch.rand(len(operation_N), generator=generator) < 0.5
    is_two_sided_N = torch.tensor([name in TWO_SIDED for name in NAMES])[operation_N]
    return torch.where(is_negated_N & is_two_sided_N, -magnitude_N, magnitude_N)


def stack_draws(slots: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The operations and the magnitudes of all slots, each N x K."""
    operation_slots, magnitude_slots = zip(*slots, strict=True)
    return {"operation": torch.stack(operation_slots, 1), "magnitude": torch.stack(magnitude_slots, 1)}


def apply_operations(images_BCHW: Tensor, draws: Mapping[str, Tensor], maxima: MaxMagnitudes) -> Tensor:
    """The images in [0, 1], each after its operations."""
    levels_BCHW = images_BCHW.float().mul(255).round()
    for operation_B, magnitude_B in zip(draws["operation"].unbind(1), draws["magnitude"].unbind(1), strict=True):
        levels_BCHW = apply_one_each(levels_BCHW, operation_B, magnitude_B, in_pixels=maxima.in_pixels)
    return levels_BCHW.div(255).to(images_BCHW.dtype)


def apply_one_each(levels_BCHW: Tensor, operation_B: Tensor, magnitude_B: Tensor, *, in_pixels: bool) -> Tensor:
    """The levels after one operation, which differs between images."""
    is_geometric_B = (operation_B >= NAMES.index("ShearX")) & (operation_B <= NAMES.index("Rotate"))
    matrix_B23 = affine_matrices(operation_B, magnitude_B, levels_BCHW, in_pixels=in_pixels)
    changed_BCHW = apply_where(levels_BCHW, is_geometric_B, lambda levels, matrix: warp(levels, matrix, "nearest"), matrix_B23)
    for name, operation in OPERATIONS.items():
        changed_BCHW = apply_where(changed_BCHW, operation_B == NAMES.index(name), operation, magnitude_B)
    return changed_BCHW


def apply_where(levels_BCHW: Tensor, chosen_B: Tensor, operation: Operation, argument_B: Tensor) -> Tensor:
    """The levels, with an operation applied to the chosen images, each with its own argument."""
    if levels_BCHW.device.type != "cpu":
        return torch.where(chosen_B[:, None, None, None], operation(levels_BCHW, argument_B), levels_BCHW)
    # A GPU would have to wait to learn how many are chosen; a CPU saves most of the work.
    rows = chosen_B.nonzero()[:, 0]
    return levels_BCHW.index_copy(0, rows, operation(levels_BCHW[rows], argument_B[rows])) if len(rows) else levels_BCHW


def affine_matrices(operation_B: Tensor, magnitude_B: Tensor, levels_BCHW: Tensor, *, in_pixels: bool) -> Tensor:
    """For each image the matrix 2x3 from a pixel to its source, in pixels from the middle.

    Positive angles turn counter-clockwise, about the middle; shears leave the top or left edge where it is.
    """
    height, width = levels_BCHW.shape[2:]

    def where_operation(name: str, amount_B: Tensor) -> Tensor:
        return amount_B * (operation_B == NAMES.index(name))

    angle_B = where_operation("Rotate", magnitude_B).deg2rad()
    shear_x_B, shear_y_B = where_operation("ShearX", magnitude_B), where_operation("ShearY", magnitude_B)
    shift_x_B = where_operation("TranslateX", (magnitude_B * (1 if in_pixels else width)).trunc())
    shift_y_B = where_operation("TranslateY", (magnitude_B * (1 if in_pixels else height)).trunc())
    x_B3 = torch.stack([angle_B.cos(), shear_x_B - angle_B.sin(), shear_x_B * height / 2 - shift_x_B], 1)
    y_B3 = torch.stack([shear_y_B + angle_B.sin(), angle_B.cos(), shear_y_B * width / 2 - shift_y_B], 1)
    return torch.stack([x_B3, y_B3], 1)


def adjust_brightness(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images moved away from black, or towards it."""
    return blend(torch.zeros_like(levels_BCHW), levels_BCHW, magnitude_B)


def adjust_color(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images moved away from their grey versions, or towards them."""
    return blend(to_grey(levels_BCHW), levels_BCHW, magnitude_B)


def adjust_contrast(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images moved away from their mean grey level, or towards it."""
    grey_B1HW = to_grey(levels_BCHW)
    # Sums of whole numbers do not depend on the order, and so neither on the batch.
    mean_B = grey_B1HW.flatten(1).sum(1, dtype=torch.int64) / grey_B1HW[0].numel()
    return blend(mean_B[:, None, None, None], levels_BCHW, magnitude_B)


def adjust_sharpness(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images moved away from smoothed versions, or towards them; pixels at the border stay."""
    sums_BCHW = functional.avg_pool2d(levels_BCHW, 3, stride=1, padding=1, divisor_override=1) + 4 * levels_BCHW
    smooth_BCHW = levels_BCHW.clone()
    smooth_BCHW[:, :, 1:-1, 1:-1] = (sums_BCHW / 13).round()[:, :, 1:-1, 1:-1]
    return blend(smooth_BCHW, levels_BCHW, magnitude_B)


def posterize(levels_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """The images with that many bits per value, the lower ones 0."""
    step_B111 = (8 - bits_B).exp2()[:, None, None, None]
    return (levels_BCHW / step_B111).floor() * step_B111


def solarize(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images, inverted from that share of the range upwards."""
    return torch.where(levels_BCHW >= (255 * magnitude_B)[:, None, None, None], 255 - levels_BCHW, levels_BCHW)


def autocontrast(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images with every channel stretched to the whole range; a channel of one level stays."""
    low_BC11, high_BC11 = levels_BCHW.amin((2, 3), keepdim=True), levels_BCHW.amax((2, 3), keepdim=True)
    stretched_BCHW = ((levels_BCHW - low_BC11) * 255 / (high_BC11 - low_BC11).clamp(min=1)).floor()
    return torch.where(high_BC11 > low_BC11, stretched_BCHW, levels_BCHW)


def equalize(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images with every channel's levels spread evenly over the range, by Pillow's rule in whole numbers.

    A level's new one is the number of pixels below it over the step, a 255th of the pixels that are not at the channel's highest
    level; where that is below one pixel, in images under about 16 x 16, the channel stays.
    """
    values_BCP = levels_BCHW.flatten(2).long()
    ones_BCP = torch.ones(1, 1, 1, dtype=torch.int32, device=levels_BCHW.device).expand_as(values_BCP)
    empty_BCL = torch.zeros(*values_BCP.shape[:2], 256, dtype=torch.int32, device=levels_BCHW.device)
    counts_BCL = empty_BCL.scatter_add(2, values_BCP, ones_BCP)
    below_BCL = counts_BCL.cumsum(2) - counts_BCL
    step_BC1 = below_BCL.gather(2, values_BCP.amax(2, keepdim=True)) // 255
    spread_BCL = ((below_BCL + step_BC1 // 2) // step_BC1.clamp(min=1)).clamp(max=255)
    table_BCL = torch.where(step_BC1 > 0, spread_BCL, torch.arange(256, device=levels_BCHW.device))
    return table_BCL.gather(2, values_BCP).view_as(levels_BCHW).to(levels_BCHW.dtype)


def invert(levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The negatives of the images."""
    return 255 - levels_BCHW


def blend(other_BCHW: Tensor, levels_BCHW: Tensor, magnitude_B: Tensor) -> Tensor:
    """The images moved away from `other` by that share of the difference, cut to whole levels in the range."""
    factor_B111 = (1 + magnitude_B)[:, None, None, None]
    blended_BCHW = levels_BCHW * factor_B111 + other_BCHW * (1 - factor_B111)
    # The margin, above the rounding error and below a thousandth, keeps 99.99999 from becoming 99.
    return (blended_BCHW.clamp(0, 255) + 5e-4).floor()


def to_grey(levels_BCHW: Tensor) -> Tensor:
    """The grey levels B1HW, cut to whole ones; in whole numbers up to the division, so that every device cuts alike."""
    red_BHW, green_BHW, blue_BHW = levels_BCHW.unbind(1)
    return ((2989 * red_BHW + 5870 * green_BHW + 1140 * blue_BHW) / 10000).floor()[:, None]


OPERATIONS: dict[str, Operation] = {
    "Brightness": adjust_brightness,
    "Color": adjust_color,
    "Contrast": adjust_contrast,
    "Sharpness": adjust_sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": invert,
}
