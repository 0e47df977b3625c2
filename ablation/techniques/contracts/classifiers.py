"""What classifiers promise. Shapes: B images, C classes, F features."""

import torch
from torch import nn

from ablation.techniques.contracts.contract import Spec, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, classifier_layer, inputs
from ablation.techniques.technique import make


@contract("classifiers")
def is_a_layer(family_name: str, spec: Spec) -> None:
    """The layer gives each image a finite score per class, from features of zeros too, and has something to learn."""
    technique, tensors = make(family_name, spec), inputs()
    layer = classifier_layer(technique)
    expect(isinstance(layer, nn.Module), f"found {layer!r}; expected a torch.nn.Module")
    expect(any(parameter.requires_grad for parameter in layer.parameters()), "it has no parameter that learns")
    for features_BF in (tensors["features_BF"], torch.zeros(6, 4)):
        scores_BC = layer(features_BF.requires_grad_())
        expect(scores_BC.shape == (6, NUM_CLASSES), f"the scores have the shape {tuple(scores_BC.shape)}")
        expect(scores_BC.isfinite().all(), "a score is no finite number")
        (gradient_BF,) = torch.autograd.grad(scores_BC.sum(), features_BF)
        expect(gradient_BF.isfinite().all(), "the gradient of the features is no finite number")


@contract("classifiers")
def is_drawn_by_the_seed(family_name: str, spec: Spec) -> None:
    """`reset_parameters` draws the same values under the same seed of torch, whatever was learnt before."""
    parameters_of_draws = []
    for learnt_value in (0.0, 1.0):
        layer = classifier_layer(make(family_name, spec))
        expect(hasattr(layer, "reset_parameters"), "the layer has no reset_parameters")
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(learnt_value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            layer.reset_parameters()  # type: ignore[operator]
        parameters_of_draws.append([parameter.detach() for parameter in layer.parameters()])
    are_equal = all(torch.equal(first, second) for first, second in zip(*parameters_of_draws, strict=True))
    expect(are_equal, "one seed drew two different layers")
