"""Classifiers: the last layer, from features to logits."""

from typing import Literal

from torch import nn

from ablation.techniques.technique import Technique


class Linear(Technique):
    """The model's own linear layer: logits = W x + b."""

    name: Literal["linear"] = "linear"

    def __call__(self, model: nn.Module) -> nn.Module:
        """The model, its last layer being this classifier."""
        return model


TECHNIQUES: tuple[type[Technique], ...] = (Linear,)
