"""What is done with a trained model's scores, without training. Shapes: B batch, N images, F features, C classes."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PlainValidator
from torch import Tensor, nn

from ablation.errors import ConfigError, DataError, TrainingError
from ablation.techniques.class_weights import positive_counts
from ablation.techniques.classifiers import as_linear, precise, unit_vectors
from ablation.techniques.technique import Technique

TEMPERATURES = (1e-3, 1e3)  # the range in which a temperature is fitted


class Posthoc(Technique):
    """What works on what a trained model gives: on its scores, or on the layer that scores its features."""

    corrects_prior: ClassVar[bool] = False  # whether it takes the training counts out of the scores
    replaces_classifier: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False  # those of the training images, for `classifier`

    @property
    def needs_validation(self) -> bool:
        """Whether it has to be fitted to validation images first."""
        return False

    def classifier(self, layer: nn.Module, features_NF: Tensor | None, labels_N: Tensor | None, num_classes: int) -> nn.Module:
        """The layer that scores the test images' features, by default the model's own."""
        return layer

    def fitted(self, scores_NC: Tensor, labels_N: Tensor) -> "Posthoc":
        """The same technique with its number fitted to the validation images, by default without one."""
        return self

    def __call__(self, scores_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The scores that the prediction is made from, by default as they are."""
        return scores_BC


class NoPosthoc(Posthoc):
    """Scores as they are."""

    name: Literal["none"] = "none"


class LogitAdjustment(Posthoc):
    """z_c - tau * ln pi_c, pi being the classes' shares of the training images.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021. With tau = 1 and calibrated scores the argmax is that of the
    mean of the per-class accuracies. It is for models trained with the data's own prior: on top of a balancing sampler, class
    weights or a loss that adds the prior, it corrects twice. Choose tau on validation images, never on the test set.
    """

    name: Literal["logit_adjustment"] = "logit_adjustment"
    tau: Annotated[float, Field(ge=0)] = 1.0
    corrects_prior: ClassVar[bool] = True

    def __call__(self, scores_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The scores without the log prior, in float32 at least."""
        counts_C = positive_counts(counts_C)
        log_prior_C = (counts_C / counts_C.sum()).log()
        return scores_BC - self.tau * log_prior_C.to(torch.promote_types(scores_BC.dtype, torch.float32))

    @property
    def why_neutral(self) -> str:
        """Where the scores stay."""
        return "tau 0 adjusts nothing; expected more, or posthoc: none" if self.tau == 0 else ""


class TauNorm(Posthoc):
    """w_c / ||w_c|| ** tau instead of w_c, and no bias: the frequent classes' longer vectors lose their advantage.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020. tau = 0 leaves the vectors as
    they are and tau = 1 gives all the same length. The bias, which holds much of the prior, is dropped, as in the paper.
    """

    name: Literal["tau_norm"] = "tau_norm"
    tau: Annotated[float, Field(ge=0)] = 1.0
    replaces_classifier: ClassVar[bool] = True

    def check(self, settings: Any) -> None:
        """Raises ConfigError where the classifier's vectors have no length of their own to correct."""
        reasons = {"cosine": "its vectors have one length already", "lws": "its scales correct the lengths already"}
        name = settings.classifier.name
        if name in reasons:
            raise ConfigError("", f"found tau_norm with the classifier {name}; expected the classifier linear, because {reasons[name]}")

    def classifier(self, layer: nn.Module, features_NF: Tensor | None, labels_N: Tensor | None, num_classes: int) -> nn.Module:
        """A linear layer with the normalised vectors; one of zeros stays."""
        weight_CF = as_linear(layer, "tau_norm").weight.detach()
        lengths_C1 = torch.linalg.vector_norm(weight_CF, dim=1, keepdim=True)
        normalised = nn.Linear(weight_CF.shape[1], num_classes, bias=False, device="meta")  # where nothing is drawn
        normalised.weight = nn.Parameter(weight_CF / lengths_C1.masked_fill(lengths_C1 == 0, 1) ** self.tau, requires_grad=False)
        return normalised


class NearestClassMean(Posthoc):
    """Minus the squared distance from the image's features to the mean features of each class's training images.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020. `centred`, the default of their
    code, subtracts the mean of all training images and scales each image's features to length 1; `normalised` only scales, and
    `raw` does neither. The class means are not scaled again: a mean shorter than 1 belongs to a class that spreads.
    """

    name: Literal["ncm"] = "ncm"
    features: Literal["centred", "normalised", "raw"] = "centred"
    replaces_classifier: ClassVar[bool] = True
    needs_features: ClassVar[bool] = True

    def classifier(self, layer: nn.Module, features_NF: Tensor | None, labels_N: Tensor | None, num_classes: int) -> nn.Module:
        """The layer that measures the distances; raises DataError where a class has no training images."""
        assert features_NF is not None, "ncm was given no features"
        assert labels_N is not None, "ncm was given no labels"
        features_NF = precise(features_NF)
        centre_F = features_NF.mean(0) if self.features == "centred" else torch.zeros_like(features_NF[0])
        return NearestMean(features_NF, labels_N, num_classes, centre_F, normalised=self.features != "raw")


class NearestMean(nn.Module):
    """Minus the squared distances to the class means."""

    centre_F: Tensor
    means_CF: Tensor

    def __init__(self, features_NF: Tensor, labels_N: Tensor, num_classes: int, centre_F: Tensor, *, normalised: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.register_buffer("centre_F", centre_F)
        self.register_buffer("means_CF", class_means(self.centre_and_scale(features_NF), labels_N, num_classes))

    def centre_and_scale(self, features_BF: Tensor) -> Tensor:
        """The features in the space in which distances are measured."""
        centred_BF = precise(features_BF) - self.centre_F
        return unit_vectors(centred_BF) if self.normalised else centred_BF

    def forward(self, features_BF: Tensor) -> Tensor:
        """The scores, in float32 at least."""
        with torch.autocast(features_BF.device.type, enabled=False):
            # By differences: |x|^2 - 2xm + |m|^2 loses the digits of a small distance between long vectors.
            return -torch.cdist(self.centre_and_scale(features_BF), self.means_CF, compute_mode="donot_use_mm_for_euclid_dist").square()


def class_means(features_NF: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    """The mean features of each class; raises DataError where one has none."""
    counts = torch.bincount(labels_N, minlength=num_classes).tolist()
    if 0 in counts:
        raise DataError(f"posthoc ncm: class number {counts.index(0)} (from 0) has no training images; expected one of each class at least")
    # Sorted and split: adding up by index is done in another order each time on a GPU.
    in_classes = torch.split(features_NF[labels_N.argsort(stable=True)], counts)
    return torch.stack([features_MF.mean(0) for features_MF in in_classes])


def checked_temperature(value: object) -> object:
    """The same value, which must be `fitted` or a number above 0."""
    if value == "fitted":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError("'fitted' or a number above 0")


TemperatureOrFitted = Annotated[
    Any, PlainValidator(checked_temperature, json_schema_input_type=Literal["fitted"] | Annotated[float, Field(gt=0)])
]


class Temperature(Posthoc):
    """z / T: the predictions stay, and the probabilities become more or less certain.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. `fitted` takes the T with the lowest cross-entropy on the
    validation images, looked for from 0.001 to 1000. On the test images it would make the calibration that is then reported.
    """

    name: Literal["temperature"] = "temperature"
    temperature: TemperatureOrFitted = "fitted"

    @property
    def needs_validation(self) -> bool:
        """Whether the number is still to be fitted."""
        return bool(self.temperature == "fitted")

    def fitted(self, scores_NC: Tensor, labels_N: Tensor) -> "Temperature":
        """The same with its number."""
        return Temperature(temperature=fit_temperature(scores_NC, labels_N))

    def __call__(self, scores_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The scores over the temperature."""
        assert isinstance(self.temperature, float), self.temperature
        return scores_BC / self.temperature

    @property
    def why_neutral(self) -> str:
        """Where the scores stay."""
        return "temperature 1 leaves every score; expected another, or posthoc: none" if self.temperature == 1 else ""


def fit_temperature(scores_NC: Tensor, labels_N: Tensor) -> float:
    """The temperature with the lowest mean cross-entropy; raises DataError where there is none, as where no image is misclassified."""
    from scipy.optimize import brentq

    scores_NC = scores_NC.detach().cpu().double()
    if not bool(scores_NC.isfinite().all()):
        raise TrainingError("nan", "the validation images' scores are not finite numbers; a lower optimizer.lr may help")
    gaps_NC = scores_NC - scores_NC.gather(1, labels_N.cpu()[:, None])

    # The cross-entropy is convex in 1 / T: its one minimum is where this slope is zero. The cross-entropy itself loses its digits
    # where nearly every image is classified correctly.
    def slope(log_t: float) -> float:
        return float(((gaps_NC / math.exp(log_t)).softmax(1) * gaps_NC).sum(1).mean())

    lowest, highest = (math.log(t) for t in TEMPERATURES)
    if slope(lowest) <= 0:
        raise _no_temperature("nearly every validation image is classified correctly, so that no score is too certain")
    if slope(highest) >= 0:
        raise _no_temperature("the scores say nothing of the validation images' labels")
    return math.exp(brentq(slope, lowest, highest, xtol=1e-12))


def _no_temperature(reason: str) -> DataError:
    lowest, highest = TEMPERATURES
    return DataError(
        f"posthoc.temperature: found no best temperature from {lowest:g} to {highest:g}, because {reason}; "
        "expected more validation images, or a number instead of 'fitted'"
    )


TECHNIQUES: tuple[type[Technique], ...] = (NoPosthoc, LogitAdjustment, TauNorm, NearestClassMean, Temperature)
