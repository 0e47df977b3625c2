"""How certain the targets are. Shapes: B batch, C classes."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from ablation.techniques.technique import Technique


class NoSmoothing(Technique):
    """Targets as they are."""

    name: Literal["none"] = "none"

    def __call__(self, targets_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The same targets."""
        return targets_BC


class LabelSmoothing(Technique):
    """Targets with epsilon of their weight spread over the classes.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016. Two conventions share the name:
    `all` spreads over all classes, the true one included (true 1 - e + e / C, others e / C; torch and timm), `others` over the rest
    only (true 1 - e, others e / (C - 1)). Equal epsilons are unequal techniques: e of `others` is e * C / (C - 1) of `all`. Both
    are linear, so mixed targets are smoothed rightly too.
    """

    name: Literal["label_smoothing"] = "label_smoothing"
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.1
    spread: Literal["all", "others"] = "all"

    def __call__(self, targets_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The smoothed targets, whose rows sum to what they summed to."""
        num_classes = targets_BC.shape[1]
        if self.spread == "all":
            return targets_BC * (1 - self.epsilon) + self.epsilon / num_classes
        assert num_classes > 1, num_classes
        return targets_BC * (1 - self.epsilon) + (1 - targets_BC) * (self.epsilon / (num_classes - 1))


TECHNIQUES: tuple[type[Technique], ...] = (NoSmoothing, LabelSmoothing)
UNNAMED = "label_smoothing"
