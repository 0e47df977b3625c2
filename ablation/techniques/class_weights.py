"""How much a sample of each class counts in the loss. Shapes: C classes."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ablation.techniques.technique import Technique


class NoWeights(Technique):
    """Every class counts the same: w_c = 1."""

    name: Literal["none"] = "none"

    def __call__(self, counts_C: Tensor) -> Tensor:
        """Ones, in float32."""
        return torch.ones_like(counts_C, dtype=torch.float32)


class Inverse(Technique):
    """Weights proportional to 1 / n_c, scaled to sum to the number of classes.

    The counts are the training set's, not the batch's, in which a rare class would often be missing.
    """

    name: Literal["inverse"] = "inverse"

    def __call__(self, counts_C: Tensor) -> Tensor:
        """The weights in float32, their sum being C."""
        return scale_to_num_classes(1 / positive_counts(counts_C))


class EffectiveNumber(Technique):
    """Weights proportional to (1 - beta) / (1 - beta ** n_c), scaled to sum to the number of classes.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. beta = 0 gives ones, beta -> 1 the
    inverse counts. The sum over a batch is divided by that of its weights, as by torch and LDAM-DRW, not by the number of
    images, as by Cui et al. Computed by expm1 in float64: with beta near 1 and few samples, 1 - beta ** n loses its digits in
    float32.
    """

    name: Literal["effective_number"] = "effective_number"
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999

    def __call__(self, counts_C: Tensor) -> Tensor:
        """The weights in float32, their sum being C."""
        log_beta = math.log(self.beta) if self.beta else -math.inf
        return scale_to_num_classes(1 / -torch.expm1(positive_counts(counts_C) * log_beta))

    @property
    def why_neutral(self) -> str:
        """Where all weights are equal."""
        return "beta 0 weighs every class alike; expected more, or weights: none" if self.beta == 0 else ""


def positive_counts(counts_C: Tensor) -> Tensor:
    """The counts, which must all be above 0, in float64."""
    # Reading values of a tensor on a GPU would stall each step and prevent its capture; the caller has checked the data.
    assert counts_C.device.type != "cpu" or bool((counts_C > 0).all()), counts_C
    return counts_C.to(torch.float32 if counts_C.device.type == "mps" else torch.float64)  # which MPS does not have


def scale_to_num_classes(weights_C: Tensor) -> Tensor:
    """The weights in float32, scaled to sum to the number of classes."""
    return (weights_C * (len(weights_C) / weights_C.sum())).float()


TECHNIQUES: tuple[type[Technique], ...] = (NoWeights, Inverse, EffectiveNumber)
