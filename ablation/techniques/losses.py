"""What a prediction costs. Shapes: B batch, C classes, L the labels of one chunk.

A loss answers one question, "what would it cost if the label were c?", as `losses_BC`; `average` weighs the answers by the soft
targets. Mixing and smoothing of targets therefore work with every loss.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ablation.errors import ConfigError
from ablation.techniques.augmentations import hash_bits
from ablation.techniques.class_weights import positive_counts
from ablation.techniques.technique import Nested, Technique

State = dict[str, Tensor]  # what a loss carries from step to step
CHUNK = 2**24  # the most numbers that the seesaw loss holds at once
MIN_LABEL_PROBABILITY = 0.01  # below which the seesaw loss compensates no further


def average(losses_BC: Tensor, targets_BC: Tensor, weights_C: Tensor) -> Tensor:
    """The batch's mean loss: sum of target * weight * loss, over the sum of target * weight.

    With class weights w and smoothed targets q, torch has two other answers. Index targets with `label_smoothing` give this same
    sum, but over the labels' weights alone, sum of w_y; probability targets divide it by B. Neither is a mean: where q moves
    weight to other classes, what divides no longer adds up what multiplies, so smoothing or mixing would scale the loss, and with
    it the learning rate. On n = 500, 100, 20, 5 with effective-number weights and epsilon = 0.1 (the example in the tests) torch
    has 1.225537 and 1.322135; this mean is 1.234557. With equal weights all three agree, with hard targets the first and this one.
    """
    shares_BC = targets_BC * weights_C
    return (losses_BC * shares_BC).sum() / shares_BC.sum()


class Loss(Technique):
    """What all losses share: class weights, the mean under soft targets, and what is carried from step to step."""

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ()  # the settings that make it the cross-entropy if all of them are 0
    weights: Annotated[Any, Nested("class_weights")] = "none"

    @property
    def why_neutral(self) -> str:
        """Where its settings make it the cross-entropy."""
        names = self._cross_entropy_at_0
        if not names or any(getattr(self, name) for name in names):
            return ""
        verb, more = ("is", "more") if len(names) == 1 else ("are", "one above 0")
        return f"{' and '.join(names)} 0 {verb} the cross-entropy; expected {more}, or loss: cross_entropy"

    def state(self, num_classes: int, generator: torch.Generator) -> State:
        """What the loss carries from step to step within a training, on the CPU; most carry nothing."""
        return {}

    def advance(self, state: State, targets_BC: Tensor) -> None:
        """Updates the state in place; called before each batch's loss with its targets, mixed but not smoothed."""

    def __call__(
        self, logits_BC: Tensor, targets_BC: Tensor, counts_C: Tensor, sampled_C: Tensor | None = None, state: State | None = None
    ) -> Tensor:
        """The batch's mean loss under its targets and the class weights.

        `counts_C` are the training set's images per class, `sampled_C` what the sampler draws of each class in an epoch.
        """
        losses_BC = self.losses_BC(logits_BC, self.prior_C(counts_C, sampled_C), state)
        return average(losses_BC, targets_BC, self.weights(counts_C))

    def prior_C(self, counts_C: Tensor, sampled_C: Tensor | None) -> Tensor:
        """The class counts that `losses_BC` is given: the training set's."""
        return counts_C

    @abstractmethod
    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """What each sample would cost if its label were c, for every c."""


class PriorLoss(Loss):
    """A loss that takes the class prior out of the logits.

    Under a sampler that balances classes the training counts would correct twice: `prior: sampled` takes what an epoch draws.
    """

    prior: Literal["training", "sampled"] = "training"

    def prior_C(self, counts_C: Tensor, sampled_C: Tensor | None) -> Tensor:
        """The training counts, or what the sampler draws."""
        return counts_C if self.prior == "training" or sampled_C is None else sampled_C


class CrossEntropy(Loss):
    """-ln p_c with p = softmax(z)."""

    name: Literal["cross_entropy"] = "cross_entropy"

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label."""
        return cross_entropies(precise(logits_BC))


class BalancedSoftmax(PriorLoss):
    """-ln p_c with p = softmax(z + ln n): the class prior is learnt by the added term, and so left out of the logits.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020. The term is for training only; the
    prediction is the plain argmax of z.
    """

    name: Literal["balanced_softmax"] = "balanced_softmax"

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, the log prior added to the logits."""
        logits_BC = precise(logits_BC)
        return cross_entropies(logits_BC + log_shares(prior_C).to(logits_BC.dtype))


class LogitAdjusted(PriorLoss):
    """-ln p_c with p = softmax(z + tau * ln pi), pi = n / sum of n: balanced softmax with a strength.

    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021. tau = 1 equals balanced softmax, tau = 0 cross-entropy.
    For training only: the same correction after training (`posthoc: logit_adjustment`) on top would correct twice.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("tau",)
    name: Literal["logit_adjusted"] = "logit_adjusted"
    tau: Annotated[float, Field(ge=0)] = 1.0

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, tau times the log prior added to the logits."""
        logits_BC = precise(logits_BC)
        return cross_entropies(logits_BC + self.tau * log_shares(prior_C).to(logits_BC.dtype))


class VectorScaling(PriorLoss):
    """-ln p_c with p = softmax((n / n_max) ** gamma * z + tau * ln pi): a class's factor on top of its added term.

    Kini et al., "Label-Imbalanced and Group-Sensitive Classification under Overparameterization", NeurIPS 2021. The added term
    acts early in training; once everything is fitted only the factor moves the margins. gamma = 0 is the logit-adjusted loss,
    tau = 0 the class-dependent temperatures of CDT. The defaults are those used with CIFAR-10 at imbalance 100; the authors' code
    has gamma = 0.3 and tau = 1 where nothing is given. For training only: the prediction is the plain argmax of z.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("gamma", "tau")
    name: Literal["vs"] = "vs"
    gamma: Annotated[float, Field(ge=0)] = 0.15
    tau: Annotated[float, Field(ge=0)] = 1.25

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, the logits scaled and shifted."""
        logits_BC = precise(logits_BC)
        log_shares_C = log_shares(prior_C)
        factors_C = (self.gamma * (log_shares_C - log_shares_C.max())).exp()
        return cross_entropies(logits_BC * factors_C.to(logits_BC.dtype) + self.tau * log_shares_C.to(logits_BC.dtype))


class LDAM(Loss):
    """-ln p_c with p = softmax(z - scale * m_c * e_c), e_c the unit vector of the label and m_c = max_margin * (n_min / n_c) ** (1/4).

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019. The margin is one between
    cosines: z are the logits of the cosine classifier, which multiplies by the same `scale` already. On a linear layer, whose
    logits have no scale, the margin means nothing, and the arm is refused. LDAM-DRW is this loss in two stages, the second with
    effective-number weights.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("max_margin",)
    name: Literal["ldam"] = "ldam"
    max_margin: Annotated[float, Field(ge=0)] = 0.5
    scale: Annotated[float, Field(gt=0)] = 30.0

    def check(self, settings: Any) -> None:
        """Raises ConfigError unless the classifier is the cosine one with this scale."""
        expected = f"expected classifier {{name: cosine, scale: {self.scale}}}, because the margins of ldam are between cosines"
        classifier = settings.classifier
        if classifier.name != "cosine":
            raise ConfigError("", f"found classifier {classifier.name!r}; {expected}")
        if classifier.scale != self.scale:
            raise ConfigError("scale", f"found {self.scale}, and {classifier.scale} in the classifier; {expected}")

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, that label's logit less its margin."""
        logits_BC = precise(logits_BC)
        counts_C = positive_counts(prior_C)
        margins_C = (self.max_margin * (counts_C.min() / counts_C) ** 0.25).to(logits_BC.dtype)
        return functional.softplus(log_sum_of_others(logits_BC) - logits_BC + self.scale * margins_C)


class Equalization(Loss):
    """-ln of exp(z_c) / sum over k of w_k * exp(z_k), w_k = 1 - beta_k * T(f_k) * (1 - [k = c]): rare classes are not pushed down.

    Tan et al., "Equalization Loss for Long-Tailed Object Recognition", CVPR 2020, its softmax form. beta is 1 with probability
    gamma, drawn for each sample and class; T(f) is 1 where the class's share f of the training images is below lambda. Here lambda
    is `rarity` / C, because one number does not fit sets with 10 and with 1,000 classes: the default, half of an equal share, gives
    the 0.05 that the code of "Bag of Tricks for Long-Tailed Visual Recognition" has for CIFAR-10 and its 0.005 for CIFAR-100, with
    the same gamma. The draws are a function of the training's seed, step, sample and class, so that no generator on the device has
    a state.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("gamma",)
    name: Literal["equalization"] = "equalization"
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    rarity: Annotated[float, Field(gt=0)] = 0.5

    def state(self, num_classes: int, generator: torch.Generator) -> State:
        """The seed of the draws, and the number of batches seen."""
        seed = torch.randint(-(2**31), 2**31, (), dtype=torch.int32, generator=generator)
        return {"seed": seed, "step": torch.zeros((), dtype=torch.int32)}

    def advance(self, state: State, targets_BC: Tensor) -> None:
        """Counts the batch, so that it has draws of its own."""
        state["step"].add_(1)

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, rare classes other than the label mostly left out."""
        logits_BC = precise(logits_BC)
        counts_C = positive_counts(prior_C)
        is_rare_C = counts_C * len(counts_C) < self.rarity * counts_C.sum()
        is_left_out_BC = is_rare_C & self.drawn_BC(logits_BC, state)
        # Not -inf, whose gradient is no number where everything is left out.
        kept_BC = logits_BC.masked_fill(is_left_out_BC, torch.finfo(logits_BC.dtype).min)
        gaps_BC = kept_BC.logsumexp(1, keepdim=True) - logits_BC
        # A label that is itself left out joins the sum of those kept.
        return torch.where(is_left_out_BC, functional.softplus(gaps_BC), gaps_BC)

    def drawn_BC(self, logits_BC: Tensor, state: State | None) -> Tensor:
        """Where beta is 1: a boolean for each sample and class; without a state, as at step 0 of seed 0."""
        positions_BC = torch.arange(logits_BC.numel(), dtype=torch.int32, device=logits_BC.device).view(logits_BC.shape)
        seed = hash_bits(hash_bits(state["step"]) ^ state["seed"]) if state else torch.zeros_like(positions_BC[0, 0])
        return ((hash_bits(hash_bits(positions_BC) ^ seed) >> 9) & 0x7FFFFF) < round(self.gamma * 2**23)


class Seesaw(Loss):
    """-ln p_i with p = exp(z_i) / (exp(z_i) + sum over j other than i of M_ij * C_ij * exp(z_j)): rare classes are pushed down less.

    Wang et al., "Seesaw Loss for Long-Tailed Instance Segmentation", CVPR 2021. Mitigation M_ij = min(1, (N_j / N_i) ** p), N
    being the images of each class seen since the optimizer began or this loss did, at least 1 (or the training counts where
    nothing is carried along); compensation C_ij = max(1, (s_j / s_i) ** q), s being the softmax of z, without gradient and s_i
    at least 0.01, as in the authors' code. Their normalised layer and objectness branch belong to detection and are left out.
    Costs B * C * C in time, for its factors depend on sample, label and other class; in memory 2 ** 24 numbers at a time,
    computed again for the gradient.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("p", "q")
    name: Literal["seesaw"] = "seesaw"
    p: Annotated[float, Field(ge=0)] = 0.8
    q: Annotated[float, Field(ge=0)] = 2.0

    def state(self, num_classes: int, generator: torch.Generator) -> State:
        """How many images of each class were seen: none."""
        return {"seen": torch.zeros(num_classes)}

    def advance(self, state: State, targets_BC: Tensor) -> None:
        """Adds the batch to what was seen."""
        state["seen"].add_(targets_BC.sum(0))

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The cross-entropy of each sample for each label, the other classes weighed against that label."""
        logits_BC = precise(logits_BC)
        seen_C = positive_counts(state["seen"].clamp(min=1) if state else prior_C)
        arguments = (logits_BC, functional.log_softmax(logits_BC.detach(), dim=1), seen_C.log().to(logits_BC.dtype))
        num_classes, size = logits_BC.shape[1], max(1, CHUNK // logits_BC.numel())
        chunks = [slice(first, first + size) for first in range(0, num_classes, size)]
        # Without checkpoints the chunks would all be kept for the gradient.
        costs = [checkpoint(self.costs_BL, *arguments, labels, use_reentrant=False, preserve_rng_state=False) for labels in chunks]
        return torch.cat(costs, dim=1)

    def costs_BL(self, logits_BC: Tensor, log_p_BC: Tensor, log_seen_C: Tensor, labels: slice) -> Tensor:
        """The columns of `losses_BC` for some labels."""
        mitigation_LC = self.p * (log_seen_C - log_seen_C[labels, None]).clamp(max=0)
        label_log_p_BL = log_p_BC[:, labels].clamp(min=math.log(MIN_LABEL_PROBABILITY))
        compensation_BLC = self.q * (log_p_BC[:, None, :] - label_log_p_BL[:, :, None]).clamp(min=0)
        # Both are 0 for the label itself.
        return (logits_BC[:, None, :] + mitigation_LC + compensation_BLC).logsumexp(2) - logits_BC[:, labels]


class Focal(Loss):
    """-(1 - p_c) ** gamma * ln p_c, which lowers the cost of what is already predicted well.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. `softmax` takes p from the softmax. `sigmoid`, the form of
    the class-balanced loss paper, takes one sigmoid per class and sums over the classes, the others being negatives; its
    published runs also start the last layer's biases at -ln(C - 1), which the linear classifier's `initial_bias` does. Class
    weights multiply the cost and stay outside of p; p = exp(-weight * cross-entropy), found in several code bases, is no
    probability. As with every loss here the sum over a batch is divided by that of its weights; the class-balanced loss' own
    code divides by the number of images, so that its gradients, and with SGD its steps, are smaller where frequent classes
    weigh little.
    """

    _cross_entropy_at_0: ClassVar[tuple[str, ...]] = ("gamma",)
    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0)] = 2.0
    form: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def why_neutral(self) -> str:
        """As of every loss, but for the sigmoid form, which gamma 0 leaves another loss."""
        return super().why_neutral if self.form == "softmax" else ""

    def losses_BC(self, logits_BC: Tensor, prior_C: Tensor, state: State | None = None) -> Tensor:
        """The focal loss of each sample for each label."""
        form = {"softmax": softmax_focal, "sigmoid": sigmoid_focal}[self.form]
        return form(precise(logits_BC), self.gamma)


def cross_entropies(logits_BC: Tensor) -> Tensor:
    """-ln of the softmax."""
    return -functional.log_softmax(logits_BC, dim=1)


def log_shares(prior_C: Tensor) -> Tensor:
    """ln pi, each class's share of the counts, in float64."""
    counts_C = positive_counts(prior_C)
    return (counts_C / counts_C.sum()).log()


def log_sum_of_others(logits_BC: Tensor) -> Tensor:
    """For each label, ln of the sum of exp(z) over the other labels."""
    # ln(1 - p) + ln of the whole sum has no digits left where p is near 1, which only the largest logit's can be; the others'
    # are at most 1/2. So the largest is masked, and its others are summed without it.
    is_largest_BC = logits_BC.argmax(1, keepdim=True) == torch.arange(logits_BC.shape[1], device=logits_BC.device)
    p_BC = logits_BC.softmax(1).masked_fill(is_largest_BC, 0)
    masked_BC = logits_BC.masked_fill(is_largest_BC, torch.finfo(logits_BC.dtype).min)
    return torch.where(is_largest_BC, masked_BC.logsumexp(1, keepdim=True), logits_BC.logsumexp(1, keepdim=True) + torch.log1p(-p_BC))


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
    return {**reject_fields(fields, "weights"), "name": "cross_entropy", "weights": "inverse"}


def class_balanced(fields: dict[str, Any]) -> dict[str, Any]:
    """Cross-entropy with effective-number weights, the short form's `beta` being theirs."""
    return {**with_effective_number(fields), "name": "cross_entropy"}


def class_balanced_focal(fields: dict[str, Any]) -> dict[str, Any]:
    """Focal loss with effective-number weights, the short form's `beta` being theirs."""
    return {**with_effective_number(fields), "name": "focal"}


def class_balanced_sigmoid(fields: dict[str, Any]) -> dict[str, Any]:
    """Sigmoid cross-entropy, the sigmoid focal loss with gamma 0, with effective-number weights."""
    return {**with_effective_number(reject_fields(fields, "form", "gamma")), "name": "focal", "form": "sigmoid", "gamma": 0.0}


def with_effective_number(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with their `beta` moved into the weights."""
    others = {name: value for name, value in reject_fields(fields, "weights").items() if name != "beta"}
    beta = {"beta": fields["beta"]} if "beta" in fields else {}
    return {**others, "weights": {"name": "effective_number", **beta}}


def reject_fields(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same fields, which must not have those that the short form sets."""
    for name in names:
        if name in fields:
            problem = f"expected no {name}, because {fields['name']} sets its own; name the loss itself to choose"
            raise ConfigError(name, f"found {fields[name]!r}; {problem}")
    return fields


TECHNIQUES: tuple[type[Technique], ...] = (
    CrossEntropy,
    BalancedSoftmax,
    LogitAdjusted,
    VectorScaling,
    LDAM,
    Equalization,
    Seesaw,
    Focal,
)
SHORT_FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "weighted_cross_entropy": weighted_cross_entropy,
    "class_balanced": class_balanced,
    "class_balanced_focal": class_balanced_focal,
    "class_balanced_sigmoid": class_balanced_sigmoid,
}
