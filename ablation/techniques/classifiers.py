"""Classifiers: the last layer, from features to logits. Shapes: B batch, F features, C classes."""

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.technique import Technique

# The losses that stay as they are where every logit gets the same number, focal in its softmax form. vs, which scales each class's
# logits by a factor of its own, does not.
SOFTMAX_LOSSES = ("cross_entropy", "balanced_softmax", "logit_adjusted", "equalization", "seesaw", "focal")


class Classifier(Technique):
    """What takes the place of a model's last layer."""

    on_trained: ClassVar[bool] = False  # whether it sits on a trained layer, whose weights stay as they are

    @abstractmethod
    def __call__(self, layer: nn.Module) -> nn.Module:
        """The layer for the place of `layer`; raises ConfigError where the technique needs a linear one."""


class Linear(Classifier):
    """The model's own layer, usually W x + b, its biases drawn by the model's rule or all equal.

    `uniform` starts every bias at -ln(C - 1), so that each sigmoid starts at 1 / C: without it a sigmoid loss begins with half of
    every class in every image, and its first gradients are those of the C - 1 negatives. Cui et al., "Class-Balanced Loss Based on
    Effective Number of Samples", CVPR 2019, train all sigmoid losses so, and without weight decay on that bias, which is not done
    here. A softmax does not see it.
    """

    name: Literal["linear"] = "linear"
    initial_bias: Literal["default", "uniform"] = "default"

    def __call__(self, layer: nn.Module) -> nn.Module:
        """The same layer, or one that is drawn as it is, but for the biases."""
        if self.initial_bias == "default":
            return layer
        linear = as_linear(layer, "initial_bias: uniform")
        if linear.bias is None:
            raise ConfigError("initial_bias", "found uniform, but the model's last layer has no bias; expected default")
        return UniformStart(linear)


def ignores_equal_biases(loss: Any) -> bool:
    """Whether a loss is known to be the same with equal biases as without; of a user's own it is not known."""
    return loss.name in SOFTMAX_LOSSES and getattr(loss, "form", "softmax") == "softmax"


class UniformStart(nn.Linear):
    """A linear layer whose biases start at -ln(C - 1) and whose weights as those of the layer that it replaces."""

    def __init__(self, layer: nn.Linear) -> None:
        self.template = (layer,)  # in a tuple, so that it is not registered as a part of the model
        super().__init__(layer.in_features, layer.out_features, device=layer.weight.device, dtype=layer.weight.dtype)

    def reset_parameters(self) -> None:
        """Draw the weights and set the biases."""
        assert self.out_features > 1, self.out_features
        (template,) = self.template
        template.reset_parameters()
        with torch.no_grad():
            self.weight.copy_(template.weight)
        nn.init.constant_(self.bias, -math.log(self.out_features - 1))


class Cosine(Classifier):
    """scale * cos(w_c, x), without a bias: every class has a vector of the same length, however many images it has.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019. The logits come out scaled:
    the paper's code leaves the scale to the loss, so that whatever else reads its logits, such as post-hoc adjustment, calibration
    or averaged views, sees bare cosines, which are too small to be logits.
    """

    name: Literal["cosine"] = "cosine"
    scale: Annotated[float, Field(gt=0)] = 30.0

    def __call__(self, layer: nn.Module) -> nn.Module:
        """A cosine layer of the same size."""
        return CosineLayer(as_linear(layer, "cosine"), self.scale)


class CosineLayer(nn.Module):
    """The scaled cosines between features and the classes' vectors."""

    def __init__(self, layer: nn.Linear, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty_like(layer.weight))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a direction for each class."""
        # A vector's length changes no logit, but the step that its direction takes: the gradient falls with the length. At length 1
        # the learning rate means the same for every class and every number of features.
        with torch.no_grad():
            self.weight.copy_(unit_vectors(self.weight.uniform_(-1, 1)))

    def forward(self, features_BF: Tensor) -> Tensor:
        """The logits, in float32 at least: a bfloat16 has three digits, and the scale enlarges what they leave out."""
        with torch.autocast(features_BF.device.type, enabled=False):
            return functional.linear(unit_vectors(features_BF), unit_vectors(self.weight)) * self.scale


class LearnableWeightScaling(Classifier):
    """scale_c * (w_c x + b_c), the scales being learnt on a trained layer that stays as it is.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020. The paper's formula scales w
    alone; its code, whose numbers are the published ones, the bias too.
    """

    name: Literal["lws"] = "lws"
    on_trained: ClassVar[bool] = True

    def __call__(self, layer: nn.Module) -> nn.Module:
        """The layer with one scale per class, all of them 1."""
        return ScaledLayer(as_linear(layer, "lws"))


class ScaledLayer(nn.Module):
    """A fixed linear layer, each of its logits times a learnt number."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.scale = nn.Parameter(self.weight.new_ones(len(self.weight)))

    def reset_parameters(self) -> None:
        """Set the scales to 1; the layer below stays."""
        nn.init.ones_(self.scale)

    def forward(self, features_BF: Tensor) -> Tensor:
        """The scaled logits."""
        return self.scale * functional.linear(features_BF, self.weight, self.bias)


def as_linear(layer: nn.Module, what: str) -> nn.Linear:
    """The same layer; raises ConfigError where it is not linear, which `what` needs."""
    if not isinstance(layer, nn.Linear):
        raise ConfigError("", f"found a {type(layer).__name__} as the model's last layer; expected a linear one, which {what} needs")
    return layer


def unit_vectors(vectors_BF: Tensor) -> Tensor:
    """Each row at length 1, in float32 at least; a row of zeros, which has no direction, stays and gets no gradient."""
    vectors_BF = precise(vectors_BF)
    lengths_B1: Tensor = torch.linalg.vector_norm(vectors_BF, dim=1, keepdim=True)
    # Dividing a row of zeros by a small number instead would multiply its gradient by that number's inverse.
    return vectors_BF / lengths_B1.masked_fill(lengths_B1 < 1e-12, math.inf)


def precise(vectors_BF: Tensor) -> Tensor:
    """The same vectors in float32 at least."""
    return vectors_BF.to(torch.promote_types(vectors_BF.dtype, torch.float32))


TECHNIQUES: tuple[type[Technique], ...] = (Linear, Cosine, LearnableWeightScaling)
