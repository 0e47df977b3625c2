"""The contracts tell what is wrong with a technique that breaks them. Shapes: B batch, C classes, N images."""

import itertools
from typing import Any, Literal

import pytest
import torch
from torch import nn

from ablation.errors import ConfigError
from ablation.techniques import technique as registry
from ablation.techniques.augmentations import HFlip
from ablation.techniques.averages import Ema
from ablation.techniques.class_weights import Inverse
from ablation.techniques.classifiers import Classifier
from ablation.techniques.contracts import check, checks, report
from ablation.techniques.longtail import Step
from ablation.techniques.losses import CrossEntropy
from ablation.techniques.mixing import MixUp
from ablation.techniques.optimizers import SGD
from ablation.techniques.posthoc import LogitAdjustment, NearestClassMean, Temperature
from ablation.techniques.samplers import Shuffle
from ablation.techniques.schedules import Cosine
from ablation.techniques.smoothing import LabelSmoothing
from ablation.techniques.tta import Flips


class OtherDump(CrossEntropy):
    name: Literal["own"] = "own"
    sign: int = 1

    def model_post_init(self, context: Any) -> None:
        object.__setattr__(self, "sign", -self.sign)


class Unfrozen(CrossEntropy, frozen=False):
    name: Literal["own"] = "own"


class Lenient(CrossEntropy, extra="ignore"):
    name: Literal["own"] = "own"


class Unpicklable(CrossEntropy):
    name: Literal["own"] = "own"

    def __reduce__(self):
        return CrossEntropy, ()


class Unnamed(CrossEntropy):
    name: str = "own"


class InPlace(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return super().losses_BC(logits_BC.detach().mul_(2) if not logits_BC.requires_grad else logits_BC, prior_C, state)


class AsksTheDevice(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return super().losses_BC(logits_BC / max(1.0, float(logits_BC.detach().max())), prior_C, state)


class OwnMean(CrossEntropy):
    name: Literal["own"] = "own"

    def __call__(self, logits_BC, targets_BC, counts_C, sampled_C=None, state=None):
        return (self.losses_BC(logits_BC, counts_C) * targets_BC).sum() / len(logits_BC)


class OtherAnswer(CrossEntropy):
    name: Literal["own"] = "own"

    def __call__(self, logits_BC, targets_BC, counts_C, sampled_C=None, state=None):
        return 2 * super().__call__(logits_BC, targets_BC, counts_C)


class Overflows(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return -(logits_BC.exp() / logits_BC.exp().sum(1, keepdim=True)).log()


class HalfAGradient(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        with torch.no_grad():
            fixed_BC = super().losses_BC(logits_BC, prior_C)
        return (fixed_BC + super().losses_BC(logits_BC, prior_C)) / 2


class DetachedFactor(CrossEntropy):
    """Cross-entropy times a constant that depends on the logits, which is within the contract."""

    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return logits_BC.softmax(1).detach() * super().losses_BC(logits_BC, prior_C)


class NewState(CrossEntropy):
    name: Literal["own"] = "own"

    def state(self, num_classes, generator):
        return {"seen": torch.zeros(num_classes)}

    def advance(self, state, targets_BC):
        state["seen"] = state["seen"] + targets_BC.sum(0)


class NegativeWeights(Inverse):
    name: Literal["own"] = "own"

    def __call__(self, counts_C):
        return 1 - super().__call__(counts_C)


class Leaks(LabelSmoothing):
    name: Literal["own"] = "own"

    def __call__(self, targets_BC, counts_C):
        return 0.9 * targets_BC


class GlobalOrder(Shuffle):
    name: Literal["own"] = "own"

    def __call__(self, labels_N, num_classes, epoch, num_epochs, generator):
        return torch.randperm(len(labels_N))


class Longer(Shuffle):
    name: Literal["own"] = "own"

    def __call__(self, labels_N, num_classes, epoch, num_epochs, generator):
        return torch.randperm(2 * len(labels_N), generator=generator) // 2


class Unnormalised(Shuffle):
    name: Literal["own"] = "own"

    def probabilities_C(self, counts_C, epoch, num_epochs):
        return counts_C.double()


class TellsOtherwise(Shuffle):
    name: Literal["own"] = "own"

    def probabilities_C(self, counts_C, epoch, num_epochs):
        return (counts_C > 0).double() / (counts_C > 0).sum()


class ByTheLength(Shuffle):
    name: Literal["own"] = "own"

    def __call__(self, labels_N, num_classes, epoch, num_epochs, generator):
        return torch.randperm(len(labels_N), generator=generator).roll(epoch * 10 // num_epochs)


class LateOnly(MixUp):
    name: Literal["own"] = "own"

    def is_on(self, epoch, num_epochs):
        return epoch >= num_epochs / 2


class TargetsTwice(MixUp):
    name: Literal["own"] = "own"

    def __call__(self, images_BCHW, targets_BC, draws, classes, second=None):
        return images_BCHW, targets_BC + targets_BC[draws["partner"]]


class OneTable(MixUp):
    name: Literal["own"] = "own"

    def draw(self, generator, num_batches, batch_size):
        return super().draw(generator, num_batches + 1, batch_size)


class OneRow(HFlip):
    name: Literal["own"] = "own"

    def draw(self, generator, num_images):
        return super().draw(generator, 1)


class TooBright(HFlip):
    name: Literal["own"] = "own"

    def __call__(self, images_BCHW, draws):
        return super().__call__(images_BCHW, draws) + 0.5


class BatchMean(HFlip):
    name: Literal["own"] = "own"

    def __call__(self, images_BCHW, draws):
        return (images_BCHW + images_BCHW.mean()) / 2


class OwnRate(SGD):
    name: Literal["own"] = "own"

    def __call__(self, parameters):
        optimizer = super().__call__(parameters)
        optimizer.register_step_pre_hook(lambda optimizer, *_: [group.update(lr=0.1) for group in optimizer.param_groups] and None)
        return optimizer


class Forgets(SGD):
    name: Literal["own"] = "own"

    def __call__(self, parameters):
        optimizer = super().__call__(parameters)
        plain_step, numbers = optimizer.step, itertools.count(1)
        optimizer.step = lambda: [plain_step() for _ in range(next(numbers))]  # a number that it keeps to itself
        return optimizer


class Endless(Cosine):
    name: Literal["own"] = "own"

    def __call__(self, epoch, span, lr):
        return lr / (epoch + 1)


class Grows(Ema):
    name: Literal["own"] = "own"

    def remaining(self, num_updates):
        return 1 - self.decay**num_updates


class MovesTwice(Ema):
    name: Literal["own"] = "own"
    decay: float = 0.5

    def update(self, averaged, weights, update):
        for _ in range(2):
            super().update(averaged, weights, update)


class Zero(Classifier):
    name: Literal["own"] = "own"

    def __call__(self, layer):
        return nn.Sequential(layer, nn.Softmax(1), nn.Linear(3, 2))


class Continues(Classifier):
    name: Literal["own"] = "own"

    def __call__(self, layer):
        layer.reset_parameters = lambda: layer.weight.data.add_(torch.rand(()))
        return layer


class Infinite(LogitAdjustment):
    name: Literal["own"] = "own"

    def __call__(self, scores_BC, counts_C):
        return scores_BC.exp().square()


class ChangesTheLayer(NearestClassMean):
    name: Literal["own"] = "own"

    def classifier(self, layer, features_NF, labels_N, num_classes):
        layer.weight.data.zero_()
        return layer


class NeverFitted(Temperature):
    name: Literal["own"] = "own"

    def fitted(self, scores_NC, labels_N):
        return self

    def __call__(self, scores_BC, counts_C):
        return scores_BC


class Worst(Flips):
    name: Literal["own"] = "own"

    def combine(self, logits_VBC):
        return -logits_VBC.mean(0)


class SameTwice(Flips):
    name: Literal["own"] = "own"

    def views(self):
        return super().views() * 2


class Halves(Step):
    name: Literal["own"] = "own"

    def __call__(self, available_C):
        return available_C / 2


BROKEN = [
    ("losses", OtherDump, "The dumped settings, tuples as lists too, make an equal technique", "make another technique"),
    ("losses", Unfrozen, "A technique cannot be changed, and equal ones are one key", "its settings can be changed"),
    ("losses", Lenient, "A misspelt field is told with its dotted path", "it takes a field that it does not have"),
    ("losses", Unpicklable, "A technique goes through pickle, by which worker processes get it", "what comes out of pickle differs"),
    ("losses", Unnamed, "The settings can be described as JSON schema, by the name of the class", "its name is"),
    ("losses", InPlace, "No input tensor is changed", "logits_BC was changed"),
    ("losses", AsksTheDevice, "The whole computation runs on a device", "RuntimeError"),
    ("losses", OtherAnswer, "For one image with a hard label, the loss is `losses_BC` at that label", "and losses_BC has"),
    ("losses", OwnMean, "Under soft targets the loss is the sum of target * weight * cost", "expected"),
    ("losses", Overflows, "Logits of 80 and -80 give a finite loss and a finite gradient", "for logits of 80"),
    ("losses", HalfAGradient, "The gradient agrees with finite differences", "has to be detached"),
    ("losses", NewState, "What a loss carries from step to step", "advance puts other tensors into the state"),
    ("class_weights", NegativeWeights, "Each class has a positive, finite weight in float32", "expected numbers above 0"),
    ("smoothing", Leaks, "Each row of targets keeps its sum", "expected 1"),
    ("samplers", GlobalOrder, "Equal generators give equal results", "equal generators gave different results"),
    ("samplers", Longer, "An epoch has as many positions as there are training images", "found (10,) positions of 5 images"),
    ("samplers", Unnormalised, "`probabilities_C` are float64 chances that sum to 1", "for [300, 20, 1] images"),
    ("samplers", TellsOtherwise, "The classes' shares of an epoch are `probabilities_C`", "and probabilities_C says"),
    ("samplers", ByTheLength, "A sampler whose epochs differ by how many there are", "is another one of 20 epochs than of 10"),
    ("mixing", LateOnly, "A mixing that is on or off by how many epochs there are", "is_on depends on how many epochs there are"),
    ("mixing", TargetsTwice, "Images keep their shape, and each row of targets its sum", "expected 1"),
    ("mixing", OneTable, "Every table of a mixing has a row for each batch of the epoch", "the tables for 5 batches have"),
    ("augmentations", OneRow, "Every table of an augmentation has a row for each image", "the tables for 7 images have"),
    ("augmentations", TooBright, "Images keep their shape", "expected 0 to 1"),
    ("augmentations", BatchMean, "What becomes of an image depends on its own rows", "an image alone becomes another than in a batch"),
    ("optimizers", OwnRate, "A step goes down the gradient at the rate that its groups are given", "at the rate 0.0 the weights moved"),
    (
        "optimizers",
        Forgets,
        "What is saved of its state, tensors and plain values, goes on as if there had been no break",
        "with a break the weights are",
    ),
    ("schedules", Endless, "Every epoch's rate is finite and not below 0", "after its span of 1 the rates are"),
    ("averages", Grows, "The initial weights' share is between 0 and 1 and never grows", "grow"),
    ("averages", MovesTwice, "An update makes, in place, decay * average", "the average is"),
    ("classifiers", Zero, "The layer gives each image a finite score per class", "the scores have the shape (6, 2)"),
    ("classifiers", Continues, "`reset_parameters` draws the same values", "one seed drew two different layers"),
    ("posthoc", Infinite, "Every image has a finite score per class", "a score is no finite number"),
    ("posthoc", ChangesTheLayer, "Where it replaces the classifier", "the old layer was changed"),
    ("posthoc", NeverFitted, "What has to be fitted needs no validation images afterwards", "it still needs validation images"),
    ("tta", Worst, "Where all views agree, the combined decision is theirs", "equal views are decided otherwise together"),
    ("tta", SameTwice, "Every view is an image of the same shape", "two of its views are equal"),
    ("longtail", Halves, "Each class has a whole number of images", "expected four whole numbers"),
]


@pytest.fixture(autouse=True)
def _code_is_allowed(monkeypatch):
    monkeypatch.setattr(registry._PERMISSION, "is_given", True)


@pytest.mark.parametrize(("kind", "broken", "promise", "reason"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_promise_is_told(kind, broken, promise, reason):
    """A technique that breaks one promise is told which, and why."""
    results = [result for result in check(kind, f"{__name__}:{broken.__name__}") if not result.passed]
    expected_results = [result for result in results if result.name.startswith(promise)]
    assert len(expected_results) == 1, results
    assert reason in expected_results[0].message


def test_the_gradient_holds_what_is_detached():
    """A factor that is detached on purpose is no broken gradient."""
    results = {result.name: result for result in check("losses", f"{__name__}:DetachedFactor")}
    assert next(result for name, result in results.items() if name.startswith("The gradient agrees")).passed


def test_the_report_has_a_line_for_each_promise():
    """The report says of each promise whether it is kept, and of a broken one why."""
    lines = report(check("losses", f"{__name__}:OwnMean")).splitlines()
    assert len(lines) == len(checks("losses"))
    assert {line.split()[0] for line in lines} == {"passed", "BROKEN"}
    assert all(": " in line for line in lines if line.startswith("BROKEN"))


def test_an_error_in_a_technique_has_its_place():
    """An exception out of a technique's own code is told with the file and the line, and no traceback."""
    results = [result for result in check("losses", f"{__name__}:Stumbles") if not result.passed]
    assert results
    assert all("ZeroDivisionError" in result.message and "(test_contracts.py, line " in result.message for result in results)


class Stumbles(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return logits_BC / (0 // 0)


def test_an_unknown_technique_is_an_error():
    """What cannot be made at all is told as in a study's file."""
    with pytest.raises(ConfigError, match="unknown loss 'focl'"):
        list(check("losses", "focl"))
