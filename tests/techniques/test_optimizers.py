"""Optimizers."""

import math

import pytest
import torch

from ablation.techniques.optimizers import SGD, Adam, AdamW

GRADIENTS = [0.5, -0.2, 0.3]


def plain_adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, *, decay, decoupled):
    """Three updates of Adam or AdamW in plain Python."""
    (beta1, beta2), weight, mean, square = betas, 1.0, 0.0, 0.0
    for step, slope in enumerate(GRADIENTS, 1):
        gradient = slope if decoupled else slope + decay * weight
        weight -= lr * decay * weight if decoupled else 0.0
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        weight -= lr * (mean / (1 - beta1**step)) / (math.sqrt(square / (1 - beta2**step)) + eps)
    return weight


def plain_sgd(momentum, nesterov, decay, lr=0.1):
    """Three updates of SGD in plain Python."""
    weight, velocity = 1.0, 0.0
    for slope in GRADIENTS:
        gradient = slope + decay * weight
        velocity = momentum * velocity + gradient
        weight -= lr * (gradient + momentum * velocity if nesterov else velocity)
    return weight


def trained(technique, weight=1.0):
    """The weight after three updates."""
    parameter = torch.nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    optimizer = technique([parameter])
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return parameter.item()


@pytest.mark.parametrize(
    ("technique", "expected"),
    [
        (AdamW(), plain_adam(decay=0.01, decoupled=True)),
        (AdamW(lr=0.1, betas=[0.8, 0.9], eps=1e-4, weight_decay=0.5), plain_adam(0.1, (0.8, 0.9), 1e-4, decay=0.5, decoupled=True)),
        (Adam(), plain_adam(decay=0.0, decoupled=False)),
        (Adam(lr=0.1, weight_decay=0.5), plain_adam(0.1, decay=0.5, decoupled=False)),
        (SGD(), plain_sgd(0.9, False, 0.0)),
        (SGD(nesterov=True, weight_decay=2e-4), plain_sgd(0.9, True, 2e-4)),
        (SGD(momentum=0.0), plain_sgd(0.0, False, 0.0)),
    ],
    ids=str,
)
def test_three_updates_by_hand(technique, expected):
    """The updates are those of the paper's formula."""
    assert trained(technique) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("technique", [AdamW(), Adam(), SGD()])
def test_decay_and_rate_reach_every_parameter(technique):
    """There is one group, fused, with all parameters and the settings' rate."""
    layer = torch.nn.Linear(3, 2)
    (group,) = technique(list(layer.parameters())).param_groups
    assert len(group["params"]) == 2
    assert group["lr"] == technique.lr
    assert group["weight_decay"] == technique.weight_decay
    assert group["fused"]
