"""How certain the targets are. Shapes: B batch, C classes."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ablation.errors import ConfigError
from ablation.techniques.technique import Technique

Epsilon = Annotated[float, Field(ge=0, le=1)]


class NoSmoothing(Technique):
    """Targets as they are."""

    name: Literal["none"] = "none"

    def __call__(self, targets_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The same targets."""
        return targets_BC


class LabelSmoothing(Technique):
    """Targets with epsilon of their weight spread over the classes.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016. Three conventions share the name:
    `all` spreads over all classes, the true one included (true 1 - e + e / C, others e / C; torch and timm), `others` over the rest
    only (true 1 - e, others e / (C - 1)), and `classy` adds e / C to every class and scales back ((target + e / C) / (1 + e);
    ClassyVision). Equal epsilons are unequal techniques: e of `others` is e * C / (C - 1) of `all`, and e of `classy` is e / (1 + e)
    of `all`. All are linear, so mixed targets are smoothed rightly too.
    """

    name: Literal["label_smoothing"] = "label_smoothing"
    epsilon: Epsilon = 0.1
    spread: Literal["all", "others", "classy"] = "all"

    def __call__(self, targets_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The smoothed targets, whose rows sum to what they summed to."""
        num_classes = targets_BC.shape[1]
        if self.spread == "all":
            return targets_BC * (1 - self.epsilon) + self.epsilon / num_classes
        if self.spread == "classy":
            return (targets_BC + self.epsilon / num_classes) / (1 + self.epsilon)
        assert num_classes > 1, num_classes
        return targets_BC * (1 - self.epsilon) + (1 - targets_BC) * (self.epsilon / (num_classes - 1))

    @property
    def why_neutral(self) -> str:
        """Where the targets stay."""
        return "epsilon 0 smooths nothing; expected more, or smoothing: none" if self.epsilon == 0 else ""


class LabelAware(Technique):
    """Targets smoothed the more, the more images their class has: e_c = tail + (head - tail) * rise((n_c - n_min) / (n_max - n_min)).

    Zhong et al., "Improving Calibration for Long-Tailed Recognition", CVPR 2021 (MiSLAS). rise(x) is sin(pi * x / 2) of the shape
    `concave`, x of `linear`, 1 - cos(pi * x / 2) of `convex`; 0.3 and 0.0 are theirs for CIFAR-10 at the imbalance 100. Their formula
    divides by zero where all classes have equally many images; here the largest count always has `head`, and so all have. e_c is
    spread over all classes, as in their code, or over the others. A mixed target's shares are smoothed each by its own e_c.
    """

    name: Literal["label_aware"] = "label_aware"
    head: Epsilon = 0.3
    tail: Epsilon = 0.0
    shape: Literal["concave", "linear", "convex"] = "concave"
    spread: Literal["all", "others"] = "all"

    def __call__(self, targets_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The smoothed targets, whose rows sum to what they summed to."""
        num_classes = targets_BC.shape[1]
        taken_BC = targets_BC * self.epsilons_C(counts_C).to(targets_BC.dtype)
        taken_B1 = taken_BC.sum(1, keepdim=True)
        if self.spread == "all":
            return targets_BC - taken_BC + taken_B1 / num_classes
        assert num_classes > 1, num_classes
        return targets_BC - taken_BC + (taken_B1 - taken_BC) / (num_classes - 1)

    def epsilons_C(self, counts_C: Tensor) -> Tensor:
        """Each class's epsilon, in float32."""
        below_C, between = (counts_C.max() - counts_C).float(), (counts_C.max() - counts_C.min()).float()
        angles_C = (1 - below_C / between.clamp(min=1)) * (math.pi / 2)
        rise_C = {"concave": angles_C.sin(), "linear": angles_C / (math.pi / 2), "convex": 1 - angles_C.cos()}[self.shape]
        return torch.lerp(torch.full_like(rise_C, self.tail), torch.full_like(rise_C, self.head), rise_C)

    @property
    def why_neutral(self) -> str:
        """Where the targets stay."""
        is_neutral = self.head == self.tail == 0
        return "head and tail 0 smooth nothing; expected one above 0, or smoothing: none" if is_neutral else ""


def check_strength(smoothing: Technique, num_classes: int) -> None:
    """Raise ConfigError for an epsilon with which the labelled class of so many has no larger target than the others."""
    names = {LabelSmoothing: ("epsilon",), LabelAware: ("head", "tail")}.get(type(smoothing), ())
    spread = getattr(smoothing, "spread", "all")
    limit = {"all": 1.0, "others": (num_classes - 1) / num_classes}.get(spread, math.inf)  # classy only ever adds alike
    for name in names:
        epsilon = getattr(smoothing, name)
        if epsilon >= limit:
            own, other = (1 - epsilon, epsilon / (num_classes - 1)) if spread == "others" else (1 / num_classes, 1 / num_classes)
            targets = f"the labelled one of {num_classes} classes {own:.3g} and each other one {other:.3g}"
            raise ConfigError(name, f"found {epsilon:g} with spread: {spread}, which gives {targets}; expected less than {limit:.6g}")


TECHNIQUES: tuple[type[Technique], ...] = (NoSmoothing, LabelSmoothing, LabelAware)
UNNAMED = "label_smoothing"
