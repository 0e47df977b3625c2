"""What a prediction costs. Shapes: B batch, C classes.

A loss answers one question, "what would it cost if the label were c?", as `losses_BC`; `average` weighs the answers by the soft
targets. Mixing and smoothing of targets therefore work with every loss.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.class_weights import filled
from ablation.techniques.technique import Nested, Technique


def average(losses_BC: Tensor, targets_BC: Tensor, weights_C: Tensor) -> Tensor:
    """The batch's mean loss: sum of target * weight * loss, over the sum of target * weight.

    torch divides by that sum for index targets but by B for probabilities, so that with class weights the same loss would have
    another learning rate once the targets are soft.
    """
    shares_BC = targets_BC * weights_C
    return (losses_BC * shares_BC).sum() / shares_BC.sum()


class CrossEntropy(Technique):
    """-ln p_c with p = softmax(z)."""

    name: Literal["cross_entropy"] = "cross_entropy"
    weights: Annotated[Any, Nested("class_weights")] = "none"

    def __call__(self, logits_BC: Tensor, targets_BC: Tensor, counts_C: Tensor, sampled_C: Tensor | None = None) -> Tensor:
        """The batch's mean loss under its targets and the class weights."""
        return average(self.losses_BC(logits_BC, counts_C), targets_BC, self.weights(counts_C))

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor) -> Tensor:
        """The cross-entropy of each sample for each label."""
        return -functional.log_softmax(precise(logits_BC), dim=1)


class BalancedSoftmax(Technique):
    """-ln p_c with p = softmax(z + ln n): the class prior is learnt by the added term, and so left out of the logits.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020. The term is for training only; the
    prediction is the plain argmax of z. Under a sampler that balances classes the training counts would correct twice:
    `prior: sampled` takes n from what an epoch draws.
    """

    name: Literal["balanced_softmax"] = "balanced_softmax"
    prior: Literal["training", "sampled"] = "training"
    weights: Annotated[Any, Nested("class_weights")] = "none"

    def __call__(self, logits_BC: Tensor, targets_BC: Tensor, counts_C: Tensor, sampled_C: Tensor | None = None) -> Tensor:
        """The batch's mean loss under its targets and the class weights."""
        prior_C = counts_C if self.prior == "training" or sampled_C is None else sampled_C
        return average(self.losses_BC(logits_BC, prior_C), targets_BC, self.weights(counts_C))

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor) -> Tensor:
        """The cross-entropy of each sample for each label, the log prior added to the logits."""
        logits_BC = precise(logits_BC)
        return -functional.log_softmax(logits_BC + filled(prior_C).log().to(logits_BC.dtype), dim=1)


class Focal(Technique):
    """-(1 - p_c) ** gamma * ln p_c, which lowers the cost of what is already predicted well.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. `softmax` takes p from the softmax. `sigmoid`, the form of
    the class-balanced loss paper, takes one sigmoid per class and sums over the classes, the others being negatives; its
    published runs also start the last layer's biases at -ln(C - 1), which a loss cannot do. Class weights multiply the cost and
    stay outside of p; p = exp(-weight * cross-entropy), found in several code bases, is no probability.
    """

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    form: Literal["softmax", "sigmoid"] = "softmax"
    weights: Annotated[Any, Nested("class_weights")] = "none"

    def __call__(self, logits_BC: Tensor, targets_BC: Tensor, counts_C: Tensor, sampled_C: Tensor | None = None) -> Tensor:
        """The batch's mean loss under its targets and the class weights."""
        return average(self.losses_BC(logits_BC, counts_C), targets_BC, self.weights(counts_C))

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor) -> Tensor:
        """The focal loss of each sample for each label."""
        form = {"softmax": softmax_focal, "sigmoid": sigmoid_focal}[self.form]
        return form(precise(logits_BC), self.gamma)


def softmax_focal(logits_BC: Tensor, gamma: float) -> Tensor:
    """-(1 - p_c) ** gamma * ln p_c of the softmax."""
    log_p_BC = functional.log_softmax(logits_BC, dim=1)
    # expm1 keeps the digits of 1 - p at p near 1. At p = 1 the slope of a power below 1 is infinite and its product with the zero
    # loss no number, so the base stays above 0.
    others_BC = (-torch.expm1(log_p_BC)).clamp(min=torch.finfo(log_p_BC.dtype).tiny)
    return -(others_BC**gamma) * log_p_BC


def sigmoid_focal(logits_BC: Tensor, gamma: float) -> Tensor:
    """For each label, the binary focal losses of all classes, the label being the one positive, summed."""
    costs_if_true_BC = functional.softplus(-logits_BC) * torch.exp(-gamma * functional.softplus(logits_BC))
    costs_if_false_BC = functional.softplus(logits_BC) * torch.exp(-gamma * functional.softplus(-logits_BC))
    return costs_if_false_BC.sum(1, keepdim=True) - costs_if_false_BC + costs_if_true_BC


def precise(logits_BC: Tensor) -> Tensor:
    """The logits in float32 at least."""
    return logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))


def weighted_cross_entropy(fields: dict[str, Any]) -> dict[str, Any]:
    """Cross-entropy with inverse class weights."""
    return {**without_weights(fields), "name": "cross_entropy", "weights": "inverse"}


def class_balanced(fields: dict[str, Any]) -> dict[str, Any]:
    """Cross-entropy with effective-number weights, the short form's `beta` being theirs."""
    return {**effective_number(fields), "name": "cross_entropy"}


def class_balanced_focal(fields: dict[str, Any]) -> dict[str, Any]:
    """Focal loss with effective-number weights, the short form's `beta` being theirs."""
    return {**effective_number(fields), "name": "focal"}


def effective_number(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with their `beta` moved into the weights."""
    others = {name: value for name, value in without_weights(fields).items() if name != "beta"}
    beta = {"beta": fields["beta"]} if "beta" in fields else {}
    return {**others, "weights": {"name": "effective_number", **beta}}


def without_weights(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields, which must not have weights of their own."""
    if "weights" in fields:
        raise ConfigError(
            "weights",
            f"found {fields['weights']!r}; expected no weights, because {fields['name']} sets them; name the loss itself to choose",
        )
    return fields


TECHNIQUES: tuple[type[Technique], ...] = (CrossEntropy, BalancedSoftmax, Focal)
SHORT_FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "weighted_cross_entropy": weighted_cross_entropy,
    "class_balanced": class_balanced,
    "class_balanced_focal": class_balanced_focal,
}
