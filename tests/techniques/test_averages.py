"""Averages of weights."""

import math

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from ablation.techniques.averages import Ema, NoAverage


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def trained_once(network, step):
    """The network after an update that depends on the step alone, its buffers moved by a forward pass."""
    network(torch.full((5, 4), float(step)) * torch.arange(20).view(5, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(math.sin(step))


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, False), (0.9999, False), (0.9, True), (0.9999, True), (0.0, False)])
def test_equals_timm(decay, warmup):
    """After each of 40 updates the average, buffers and counters included, is timm's; its step counts from 1."""
    network = model()
    theirs = ModelEmaV3(network, decay=decay, use_warmup=warmup)
    ours = [tensor.clone() for tensor in network.state_dict().values()]
    technique = Ema(decay=decay, warmup=warmup)
    for update in range(1, 41):
        trained_once(network, update)
        theirs.update(network, step=update if warmup else None)
        technique.update(ours, list(network.state_dict().values()), update)
        for mean, expected in zip(ours, theirs.module.state_dict().values(), strict=True):
            torch.testing.assert_close(mean, expected)


def test_one_update_by_hand():
    """decay 0.9 keeps nine tenths; whole numbers are copied."""
    averaged = [torch.tensor([1.0, 2.0]), torch.tensor(3)]
    Ema(decay=0.9).update(averaged, [torch.tensor([2.0, 0.0]), torch.tensor(7)], 1)
    torch.testing.assert_close(averaged[0], torch.tensor([1.1, 1.8]))
    assert averaged[1].item() == 7


def test_no_average_is_the_weights():
    """Without an average, what is tested is what is trained."""
    averaged, weights = [torch.zeros(3)], [nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))]
    NoAverage().update(averaged, weights, 5)
    assert torch.equal(averaged[0], weights[0])
    assert not NoAverage().averages
    assert Ema().averages


@pytest.mark.parametrize("num_updates", [0, 1, 50])
@pytest.mark.parametrize("technique", [Ema(decay=0.99), Ema(decay=0.99, warmup=True)], ids=str)
def test_what_remains_of_the_initial_weights(technique, num_updates):
    """The stated share is what an average that starts at 1 and follows 0 still has."""
    averaged = [torch.ones(1, dtype=torch.float64)]
    for update in range(1, num_updates + 1):
        technique.update(averaged, [torch.zeros(1, dtype=torch.float64)], update)
    assert technique.remaining(num_updates) == pytest.approx(averaged[0].item(), abs=1e-12)


def test_the_lag_of_the_course_reports():
    """0.9999 over 30 epochs of 214 updates leaves over half of the initial weights; warm-up leaves none."""
    assert Ema().remaining(30 * 214) == pytest.approx(0.526, abs=5e-4)
    assert Ema(warmup=True).remaining(30 * 214) == 0.0
    assert NoAverage().remaining(30 * 214) == 0.0
    assert Ema(warmup=True).decay_at(31_623) == pytest.approx(0.999, abs=1e-6)
