"""How several views of a test image make one prediction. Shapes: V views, B batch, C classes or channels, H height, W width."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from ablation.techniques.geometry import CheckedDegrees, source_matrices, warp
from ablation.techniques.technique import Technique

Average = Literal["logits", "probabilities", "vote"]


@dataclass(frozen=True)
class View:
    """One way to look at an image; equal views of two techniques need to be computed only once.

    `amount` is the angle of a rotation, clockwise in degrees, or the factor of a scaling, and 0 for the rest.
    """

    kind: Literal["identity", "hflip", "vflip", "both", "rotate", "scale"]
    amount: float = 0.0

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """The images, which are pixels before the normalisation, seen this way; what lies outside is black."""
        flipped = {"identity": [], "hflip": [3], "vflip": [2], "both": [2, 3]}
        if self.kind in flipped:
            return images_BCHW.flip(flipped[self.kind]) if flipped[self.kind] else images_BCHW
        angle, factor = (self.amount, 1.0) if self.kind == "rotate" else (0.0, self.amount)
        zeros_B = torch.zeros(len(images_BCHW), device=images_BCHW.device)
        matrix_B23 = source_matrices(zeros_B + angle, zeros_B, zeros_B, zeros_B, zeros_B + factor)
        return warp(images_BCHW, matrix_B23, "bilinear")


IDENTITY = View("identity")


class NoTTA(Technique):
    """The image as it is."""

    name: Literal["none"] = "none"

    def views(self) -> tuple[View, ...]:
        """The image alone."""
        return (IDENTITY,)

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """The one view's logits, unchanged."""
        return logits_VBC[0]


class HFlip(Technique):
    """The image and its mirror image; `average` says what is averaged, for the mean of logits is not that of probabilities."""

    name: Literal["hflip"] = "hflip"
    average: Average = "logits"

    def views(self) -> tuple[View, ...]:
        """The image and its mirror image."""
        return IDENTITY, View("hflip")

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """One row of scores per image."""
        return combined(logits_VBC, self.average)


class VFlip(Technique):
    """The image and itself upside down."""

    name: Literal["vflip"] = "vflip"
    average: Average = "logits"

    def views(self) -> tuple[View, ...]:
        """The image and itself upside down."""
        return IDENTITY, View("vflip")

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """One row of scores per image."""
        return combined(logits_VBC, self.average)


class Flips(Technique):
    """The image, its two flips, and both at once."""

    name: Literal["flips"] = "flips"
    average: Average = "logits"

    def views(self) -> tuple[View, ...]:
        """The image, mirrored, upside down, and both."""
        return IDENTITY, View("hflip"), View("vflip"), View("both")

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """One row of scores per image."""
        return combined(logits_VBC, self.average)


class Rotate(Technique):
    """The image, and it rotated by `degrees` both ways, bilinearly, with black corners."""

    name: Literal["rotate"] = "rotate"
    degrees: Annotated[float, Field(gt=0, le=180), CheckedDegrees] = 15.0
    average: Average = "logits"

    def views(self) -> tuple[View, ...]:
        """The image and its two rotations."""
        return IDENTITY, View("rotate", -self.degrees), View("rotate", self.degrees)

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """One row of scores per image."""
        return combined(logits_VBC, self.average)


def checked_factors(factors: tuple[float, ...]) -> tuple[float, ...]:
    """The same factors, which must be above 0, different, and other than 1."""
    if not factors or not 0 < min(factors) <= max(factors) <= 10 or 1 in factors or len(set(factors)) < len(factors):
        raise ValueError("different factors above 0 and up to 10 without 1, since the image itself always takes part")
    return factors


class Scale(Technique):
    """The image, and it scaled about its middle by each factor, bilinearly: above 1 cuts the rim, below 1 adds a black one."""

    name: Literal["scale"] = "scale"
    factors: Annotated[tuple[float, ...], Field(strict=False), AfterValidator(checked_factors)] = (0.9, 1.1)
    average: Average = "logits"

    def views(self) -> tuple[View, ...]:
        """The image and its scalings."""
        return IDENTITY, *(View("scale", factor) for factor in self.factors)

    def combine(self, logits_VBC: Tensor) -> Tensor:
        """One row of scores per image."""
        return combined(logits_VBC, self.average)


def combined(logits_VBC: Tensor, average: Average) -> Tensor:
    """The scores BC, in float32 at least, whose argmax is the decision and whose softmax are the combined probabilities."""
    logits_VBC = logits_VBC.to(torch.promote_types(logits_VBC.dtype, torch.float32))
    return {"logits": mean_logits, "probabilities": mean_probabilities, "vote": votes}[average](logits_VBC)


def mean_logits(logits_VBC: Tensor) -> Tensor:
    """The mean of the views' logits, which is the normalised geometric mean of their probabilities."""
    return logits_VBC.mean(0)


def mean_probabilities(logits_VBC: Tensor) -> Tensor:
    """The logarithm of the mean of the views' probabilities."""
    return functional.log_softmax(logits_VBC, dim=2).logsumexp(0) - math.log(len(logits_VBC))


def votes(logits_VBC: Tensor) -> Tensor:
    """The logarithm of each class's share of the views' votes, ties broken by the mean probability.

    To break ties, and to keep the logarithm finite, a hundredth of one view's vote is cast by the mean probability; the scores'
    softmax is the vote share up to that.
    """
    tie_weight = 0.01 / len(logits_VBC)
    shares_BC = functional.one_hot(logits_VBC.argmax(2), logits_VBC.shape[2]).to(logits_VBC.dtype).mean(0)
    log_mean_BC = mean_probabilities(logits_VBC)
    return torch.logaddexp(shares_BC.log(), log_mean_BC + math.log(tie_weight)) - math.log1p(tie_weight)


TECHNIQUES: tuple[type[Technique], ...] = (NoTTA, HFlip, VFlip, Flips, Rotate, Scale)
