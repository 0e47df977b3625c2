"""How training images are varied. Shapes: B batch, C channels, H height, W width, N training images.

An augmentation draws its parameters for a whole epoch at once, one row per image, and applies a batch's rows on the device.
`works_on` says where it stands: `pixels` before the resizing, in [0, 1]; `resize`; `input` after the normalisation.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Generator, Tensor
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.geometry import CheckedDegrees, source_matrices, warp
from ablation.techniques.policies import AutoAugment, RandAugment, TrivialAugment
from ablation.techniques.technique import Pair, Technique

Draws = Mapping[str, Tensor]  # one batch's rows of what `draw` returned
Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=10)]
Numbers = tuple[float, float]


def check_pair(condition: Callable[[float, float], bool], expected: str) -> AfterValidator:
    """A check of the two numbers of a pair."""

    def check(pair: Numbers) -> Numbers:
        if not condition(*pair):
            raise ValueError(expected)
        return pair

    return AfterValidator(check)


Shares = Annotated[Pair, check_pair(lambda x, y: 0 <= x <= 1 and 0 <= y <= 1, "two shares between 0 and 1, of the width and the height")]
Areas = Annotated[Pair, check_pair(lambda low, high: 0 <= low <= high <= 1, "two areas with 0 <= low <= high <= 1")]
Factors = Annotated[Pair, check_pair(lambda low, high: 0 < low <= high <= 10, "two factors with 0 < low <= high <= 10, such as [0.8, 1.2]")]


class HFlip(Technique):
    """The image mirrored left to right, with a chance."""

    name: Literal["hflip"] = "hflip"
    probability: Probability = 0.5
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Which images are mirrored."""
        return {"flipped": torch.rand(num_images, generator=generator) < self.probability}

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images, some mirrored."""
        return torch.where(draws["flipped"][:, None, None, None], images_BCHW.flip(3), images_BCHW)

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        return "probability 0 mirrors no image; expected more, or no hflip" if self.probability == 0 else ""


class VFlip(Technique):
    """The image turned upside down, with a chance."""

    name: Literal["vflip"] = "vflip"
    probability: Probability = 0.5
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Which images are turned."""
        return {"flipped": torch.rand(num_images, generator=generator) < self.probability}

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images, some upside down."""
        return torch.where(draws["flipped"][:, None, None, None], images_BCHW.flip(2), images_BCHW)

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        return "probability 0 turns no image; expected more, or no vflip" if self.probability == 0 else ""


class Crop(Technique):
    """The image padded with black on every side, and a window of its old size cut out at random."""

    name: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=0)] = 4
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The window's first row and column in the padded image."""
        corner_N2 = torch.randint(0, 2 * self.padding + 1, (num_images, 2), generator=generator)
        return {"top": corner_N2[:, 0], "left": corner_N2[:, 1]}

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The windows."""
        num_images, num_channels, height, width = images_BCHW.shape
        device = images_BCHW.device
        rows_BH = draws["top"][:, None] + torch.arange(height, device=device)
        columns_BW = draws["left"][:, None] + torch.arange(width, device=device)
        image_B = torch.arange(num_images, device=device)[:, None, None, None]
        channel_C = torch.arange(num_channels, device=device)[:, None, None]
        return functional.pad(images_BCHW, [self.padding] * 4)[image_B, channel_C, rows_BH[:, None, :, None], columns_BW[:, None, None, :]]

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        return "padding 0 leaves one window, the image itself; expected more, or no crop" if self.padding == 0 else ""


class Affine(Technique):
    """The image rotated by up to `degrees`, moved by up to `translate` of its size, scaled and sheared; the rest is black.

    As torchvision's RandomAffine: rotation about the middle, shear along x in degrees, shifts of whole pixels. The matrix acts on
    pixels; applied to coordinates that run from -1 to 1 on both axes it would distort images that are not square.
    """

    name: Literal["affine"] = "affine"
    degrees: Annotated[float, Field(ge=0, le=180), CheckedDegrees] = 0.0
    translate: Shares = (0.0, 0.0)
    scale: Factors = (1.0, 1.0)
    shear: Annotated[float, Field(ge=0, lt=90), CheckedDegrees] = 0.0
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Angle and shear in degrees, shift as shares of the width and the height, scale."""
        # Five numbers per image whatever the settings: a setting at rest does not shift the draws of the others.
        angle_N, shear_N, x_N, y_N = (2 * torch.rand(4, num_images, generator=generator) - 1).unbind()
        low, high = self.scale
        return {
            "angle": self.degrees * angle_N,
            "shear": self.shear * shear_N,
            "translate": torch.stack([self.translate[0] * x_N, self.translate[1] * y_N], dim=1),
            "scale": low + (high - low) * torch.rand(num_images, generator=generator),
        }

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The transformed images."""
        height, width = images_BCHW.shape[2:]
        shift_x_B, shift_y_B = (draws["translate"][:, 0] * width).round(), (draws["translate"][:, 1] * height).round()
        matrix_B23 = source_matrices(draws["angle"], draws["shear"], shift_x_B, shift_y_B, draws["scale"])
        return warp(images_BCHW, matrix_B23, self.interpolation)

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        why = "degrees, translate and shear are 0 and scale is [1, 1], so every image stays; expected one of them, such as degrees: 15"
        return why if self.degrees == self.shear == 0 and self.translate == (0, 0) and self.scale == (1, 1) else ""


class ColorJitter(Technique):
    """Brightness, contrast and saturation multiplied by factors from 1 - x to 1 + x, but not below 0, one after the other in any order.

    As torchvision's ColorJitter, which has 0.4 of each in the usual ImageNet recipes: brightness is blended with black, contrast with
    the image's mean grey, saturation with its grey image. It computes with fractions, where 8-bit images are cut after every step.
    """

    name: Literal["color_jitter"] = "color_jitter"
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4
    works_on: ClassVar[str] = "pixels"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The three factors, and the order in which they act."""
        strength_3 = torch.tensor([self.brightness, self.contrast, self.saturation])
        low_3, high_3 = (1 - strength_3).clamp(min=0), 1 + strength_3
        factor_N3 = low_3 + (high_3 - low_3) * torch.rand(num_images, 3, generator=generator)
        return {"factor": factor_N3, "order": torch.rand(num_images, 3, generator=generator).argsort(1)}

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images in other light."""
        for adjustment_B in draws["order"].unbind(1):
            factor_B = draws["factor"].gather(1, adjustment_B[:, None])[:, 0]
            images_BCHW = adjust_colors(images_BCHW, adjustment_B[:, None, None, None], factor_B[:, None, None, None])
        return images_BCHW

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        why = "brightness, contrast and saturation are 0, so every image stays; expected one of them above 0"
        return why if self.brightness == self.contrast == self.saturation == 0 else ""


class Resize(Technique):
    """The image at the model's size, by an antialiased filter, and kept in [0, 1].

    The bicubic one overshoots at edges, which 8-bit images clip; with antialiasing torch uses Pillow's kernel (a = -0.5), without
    it another one (-0.75). `nearest` takes the pixel nearest to the centre, also as Pillow does. Images of folders, tables and lists
    have the model's size already, by Pillow's bicubic filter (`fit`), so that it is refused there.
    """

    name: Literal["resize"] = "resize"
    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    works_on: ClassVar[str] = "resize"

    def check(self, settings: Any) -> None:
        """Raises ConfigError for a second one, and for images that have the model's size before."""
        resizes = [technique for technique in settings.augment if isinstance(technique, Resize)]
        if len(resizes) > 1:
            raise ConfigError("", f"found {len(resizes)} of resize; expected one, since an image gets the model's size once")
        if hasattr(settings.data, "fit") and settings.data.name != "npz":  # whose images stay as they are, unless the model's are smaller
            problem = f"resize changes nothing: images of {settings.data.name} get the model's size when they are decoded"
            raise ConfigError("", f"{problem}; expected no resize, or another fit under data")

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Nothing: the size is the model's."""
        return {}

    def resize(self, images_BCHW: Tensor, size: int) -> Tensor:
        """The images with `size` rows and columns."""
        if images_BCHW.shape[2:] == (size, size):
            return images_BCHW
        if self.interpolation == "nearest":
            return functional.interpolate(images_BCHW, size=(size, size), mode="nearest-exact")
        return functional.interpolate(images_BCHW, size=(size, size), mode=self.interpolation, antialias=True).clamp(0, 1)


class Erase(Technique):
    """A box of the image replaced by normal noise, pixel by pixel, or by zeros, with a chance.

    Zhong et al., "Random Erasing Data Augmentation", AAAI 2020: `area` is the box's share of the image and `ratio` its height over
    its width, drawn on a log scale. It acts on the normalised input, where noise of mean 0 and deviation 1 looks like an image. A
    side that would be longer than the image's is cut to it, where torchvision draws again.
    """

    name: Literal["erase"] = "erase"
    probability: Probability = 0.25
    area: Areas = (0.02, 0.2)
    ratio: Factors = (0.3, 3.3)
    values: Literal["random", "zero"] = "random"
    works_on: ClassVar[str] = "input"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Which images lose a box, the box for a square of side 1, its place among those possible, and a seed for the noise."""
        chance_N, area_N, ratio_N, top_N, left_N = torch.rand(5, num_images, dtype=torch.float64, generator=generator).unbind()
        area_N = self.area[0] + (self.area[1] - self.area[0]) * area_N
        ratio_N = torch.exp(math.log(self.ratio[0]) + math.log(self.ratio[1] / self.ratio[0]) * ratio_N)
        return {
            "erased": chance_N < self.probability,
            "height": (area_N * ratio_N).sqrt(),
            "width": (area_N / ratio_N).sqrt(),
            "top": top_N,
            "left": left_N,
            "seed": torch.randint(-(2**31), 2**31, (num_images,), dtype=torch.int32, generator=generator),
        }

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images, some with a box replaced."""
        height, width = images_BCHW.shape[2:]
        side = math.sqrt(height * width)
        rows_BH = pixels_in_box(draws["height"] * side, draws["top"], height)
        columns_BW = pixels_in_box(draws["width"] * side, draws["left"], width)
        box_B1HW = (draws["erased"][:, None, None] & rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]
        if self.values == "zero":
            return images_BCHW.masked_fill(box_B1HW, 0.0)
        return fill_with_noise(images_BCHW, box_B1HW, draws["seed"])

    @property
    def why_neutral(self) -> str:
        """Where every image stays."""
        why = "probability or area 0 erases nothing; expected both above 0, or no erase"
        return why if self.probability == 0 or self.area[1] == 0 else ""


class Cutout(Technique):
    """A square of zeros with `size` pixels a side, its middle anywhere in the image and what lies outside cut off.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017: 16 for CIFAR-10, 8 for CIFAR-100.
    As in the authors' code it acts on the normalised input, in whose pixels `size` counts, and zero there is the mean colour. A square
    that had to lie within the image would spare its rim.
    """

    name: Literal["cutout"] = "cutout"
    size: Annotated[int, Field(ge=1)] = 16
    works_on: ClassVar[str] = "input"

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """The square's middle, as shares of the height and the width."""
        row_N, column_N = torch.rand(2, num_images, generator=generator).unbind()
        return {"row": row_N, "column": column_N}

    def __call__(self, images_BCHW: Tensor, draws: Draws) -> Tensor:
        """The images without their squares."""
        height, width = images_BCHW.shape[2:]
        rows_BH, columns_BW = pixels_around(draws["row"], self.size, height), pixels_around(draws["column"], self.size, width)
        return images_BCHW.masked_fill((rows_BH[:, :, None] & columns_BW[:, None, :])[:, None], 0.0)


def adjust_colors(images_BCHW: Tensor, adjustment_B111: Tensor, factor_B111: Tensor) -> Tensor:
    """The images in [0, 1] away from black, from their mean grey or from their grey image, as `adjustment` is 0, 1 or 2, by a factor."""
    red_BHW, green_BHW, blue_BHW = images_BCHW.unbind(1)
    grey_B1HW = (0.2989 * red_BHW + 0.587 * green_BHW + 0.114 * blue_BHW)[:, None]
    mean_B111 = grey_B1HW.mean((1, 2, 3), keepdim=True)
    base_B1HW = torch.where(adjustment_B111 == 2, grey_B1HW, mean_B111 * (adjustment_B111 == 1))
    return (images_BCHW * factor_B111 + base_B1HW * (1 - factor_B111)).clamp(0, 1)


def pixels_around(middle_B: Tensor, length: int, side: int) -> Tensor:
    """Which of an axis's pixels lie within that length about the pixel at that share of the axis, as bool B x side."""
    # float32 times a side may round up to the side itself.
    start_B = (middle_B * side).floor().clamp(max=side - 1) - length // 2
    positions = torch.arange(side, device=middle_B.device)
    return (positions >= start_B[:, None]) & (positions < start_B[:, None] + length)


def pixels_in_box(length_B: Tensor, place_B: Tensor, side: int) -> Tensor:
    """Which of an axis's pixels lie in the box of that length, at that fraction of the possible places, as bool B x side."""
    length_B = length_B.round().clamp(max=side)
    start_B = (place_B * (side - length_B + 1)).floor()
    positions = torch.arange(side, device=length_B.device)
    return (positions >= start_B[:, None]) & (positions < (start_B + length_B)[:, None])


def fill_with_noise(images_BCHW: Tensor, mask_B1HW: Tensor, seed_B: Tensor) -> Tensor:
    """The images with standard normal noise where the mask says so."""
    num_numbers = images_BCHW[0].numel()
    if images_BCHW.device.type != "cpu":
        positions = torch.arange(num_numbers, dtype=torch.int32, device=images_BCHW.device)
        noise = normal_noise(seed_B[:, None], positions).view(images_BCHW.shape)
        return torch.where(mask_B1HW, noise.to(images_BCHW.dtype), images_BCHW)
    # The same numbers, computed for the boxes only. A GPU would have to wait to learn how many these are; a CPU saves most of the work.
    indices = mask_B1HW.expand_as(images_BCHW).flatten().nonzero()[:, 0]
    noise = normal_noise(seed_B[indices // num_numbers], (indices % num_numbers).int())
    return images_BCHW.masked_scatter(mask_B1HW, noise.to(images_BCHW.dtype))


def normal_noise(seeds: Tensor, positions: Tensor) -> Tensor:
    """A standard normal number for each seed and position, in float32, depending on these two alone."""
    # A table of noise for an epoch would be as large as the data set, and a generator on the device is a state.
    bits = hash_bits(hash_bits(positions) ^ seeds)
    # 23 bits, so that the middle of each step is exact in float32 and never 0 or 1.
    uniform = ((bits >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)
    return uniform.mul_(2).sub_(1).erfinv_().mul_(2**0.5)  # the normal quantile; torch.special.ndtri is not there on every device


def hash_bits(bits: Tensor) -> Tensor:
    """A one-to-one hash of 32-bit numbers, Wellons's lowbias32, whose output bits depend evenly on all input bits."""
    # Products wrap around; the masks undo the sign that a shift to the right draws in.
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * 0x7FEB352D
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return bits ^ ((bits >> 16) & 0xFFFF)


TECHNIQUES: tuple[type[Technique], ...] = (
    HFlip,
    VFlip,
    Crop,
    Affine,
    AutoAugment,
    RandAugment,
    TrivialAugment,
    ColorJitter,
    Resize,
    Erase,
    Cutout,
)
