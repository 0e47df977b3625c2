"""What post-hoc techniques promise. Shapes: N or B images, C classes, F features."""

import copy

import torch
from torch import nn

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, fitted, inputs
from ablation.techniques.technique import make


@contract("posthoc")
def gives_finite_scores(family_name: str, spec: Spec) -> None:
    """Every image has a finite score per class, also for scores of 80 and -80."""
    technique, tensors = make(family_name, spec), inputs()
    for scores_BC in (tensors["logits_BC"], 80 * tensors["targets_BC"], -80 * tensors["targets_BC"]):
        adjusted_BC = fitted(technique)(scores_BC, tensors["counts_C"])
        expect(adjusted_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(adjusted_BC.shape)}")
        expect(adjusted_BC.isfinite().all(), "a score is no finite number")


@contract("posthoc")
def replaces_the_classifier_rightly(family_name: str, spec: Spec) -> None:
    """Where it replaces the classifier, its layer gives each image a finite score per class and leaves the old layer alone."""
    technique, tensors = make(family_name, spec), inputs()
    if not technique.replaces_classifier:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        old_layer = nn.Linear(4, NUM_CLASSES)
    state_before = copy.deepcopy(old_layer.state_dict())
    training_set = (tensors["features_NF"], tensors["labels_N"]) if technique.needs_features else (None, None)
    scores_BC = technique.classifier(old_layer, *training_set, NUM_CLASSES)(tensors["features_BF"])
    expect(scores_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
    expect(scores_BC.isfinite().all(), "a score is no finite number")
    is_unchanged = all(torch.equal(old_layer.state_dict()[name], tensor) for name, tensor in state_before.items())
    expect(is_unchanged, "the old layer was changed")


@contract("posthoc")
def is_fitted_once(family_name: str, spec: Spec) -> None:
    """What has to be fitted needs no validation images afterwards, and is of the same class."""
    technique = make(family_name, spec)
    fitted_technique = fitted(technique)
    expect(
        type(fitted_technique) is type(technique),
        f"fitted gives a {type(fitted_technique).__name__}; expected a {type(technique).__name__}",
    )
    expect(not fitted_technique.needs_validation, "it still needs validation images once it is fitted")
