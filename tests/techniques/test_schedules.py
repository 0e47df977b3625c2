"""Schedules."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from ablation.errors import ConfigError
from ablation.techniques.schedules import Constant, Cosine, Exponential, MultiStep
from ablation.techniques.technique import make


def torch_rates(build, span, lr=0.1):
    """The rates of a torch scheduler that is stepped once per epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = build(optimizer)
    rates = []
    for _ in range(span):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(schedule, span, lr=0.1):
    return [schedule(epoch, span, lr) for epoch in range(span)]


@pytest.mark.parametrize("span", [1, 7, 30])
def test_equals_torch(span):
    """Each curve is torch's scheduler of the same settings."""
    torch_lr = torch.optim.lr_scheduler
    pairs = [
        (Cosine(final_lr=1e-3), lambda o: torch_lr.CosineAnnealingLR(o, span, eta_min=1e-3)),
        (Exponential(gamma=0.9), lambda o: torch_lr.ExponentialLR(o, 0.9)),
        (MultiStep(milestones=[3, 20], gamma=0.2), lambda o: torch_lr.MultiStepLR(o, [3, 20], 0.2)),
        (Constant(), lambda o: torch_lr.ConstantLR(o, factor=1.0)),
    ]
    for schedule, build in pairs:
        assert rates(schedule, span) == pytest.approx(torch_rates(build, span), rel=1e-9), schedule


def test_cosine_equals_timm():
    """timm's cosine of the same settings has the same rates."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    scheduler = CosineLRScheduler(optimizer, t_initial=30, lr_min=1e-6)
    expected = []
    for epoch in range(33):
        scheduler.step(epoch)
        expected.append(optimizer.param_groups[0]["lr"])
    assert [Cosine(final_lr=1e-6)(epoch, 30, 1e-4) for epoch in range(33)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("milestones", [[160, 180], [0.8, 0.9], ["4/5", "9/10"]], ids=str)
def test_the_long_tailed_recipe(milestones):
    """The field's recipe: five epochs of warm-up, and drops by 100 at 160 and 180 of 200, in counts or fractions."""
    schedule = MultiStep(milestones=milestones, gamma=0.01, warmup_epochs=5)
    result = [schedule(epoch, 200, 0.1) for epoch in (0, 4, 159, 160, 179, 180)]
    assert result == pytest.approx([0.02, 0.1, 0.1, 0.001, 0.001, 0.00001])


def test_a_fraction_between_two_epochs_acts_from_the_later():
    """Two thirds of ten epochs are reached by epoch 7."""
    schedule = MultiStep(milestones=["2/3"])
    assert [schedule(epoch, 10, 1.0) for epoch in (6, 7)] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("kind", [Cosine, Exponential, MultiStep, Constant])
def test_warm_up_replaces_the_first_epochs_only(kind):
    """The warm-up rises linearly to the full rate, and the curve is not shifted by it."""
    plain, warmed = rates(kind(), 20), rates(kind(warmup_epochs=4), 20)
    assert warmed[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert warmed[4:] == plain[4:]


@pytest.mark.parametrize("schedule", [Cosine(final_lr=1e-5), Exponential(), MultiStep(milestones=[5, 12]), Constant()])
def test_beyond_the_span_the_rate_stays(schedule):
    """What is trained after the end has the end's rate."""
    assert schedule(10, 10, 0.1) == schedule(11, 10, 0.1) == schedule(500, 10, 0.1)


def test_each_schedule_acts():
    """All but the constant change the rate."""
    assert [len(set(rates(schedule, 20))) > 1 for schedule in (Cosine(), Exponential(), MultiStep(), Constant())] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("milestones", [[0], [0, 5], [0.0], ["0/5"]])
def test_a_milestone_at_0_is_refused(milestones):
    """No epoch comes before it."""
    with pytest.raises(ConfigError, match="milestones above 0"):
        make("schedules", {"name": "multi_step", "milestones": milestones})
