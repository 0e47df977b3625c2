"""What an optimizer keeps is saved whole: a step after a break is the step without one, for whatever optimizer."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import timm.optim
import torch
from torch import nn

from ablation.errors import ConfigError, TrainingError
from ablation.techniques.contracts import optimizers as promises
from ablation.techniques.contracts.contract import ContractError
from ablation.techniques.optimizer_state import check_saved, group_options, load_state, saved_state, set_group_options
from ablation.techniques.optimizers import SGD, Adam, AdamW

IMAGES = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


class Counting(torch.optim.Optimizer):
    """Its rate depends on a number, a text and a tensor that steps change."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "factors": (1.0, 2.0), "phase": "first", "total": torch.zeros(())})

    def step(self, closure=None):
        for group in self.param_groups:
            group["total"] = group["total"] + 1
            factor = float(group["total"]) * (1 if group["phase"] == "first" else 10) * group["factors"][0]
            group["phase"], group["factors"] = "later", (group["factors"][0] + 1, 2.0)
            for parameter in group["params"]:
                self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
                parameter.data.sub_(parameter.grad, alpha=group["lr"] * factor / self.state[parameter]["steps"])


class Holding(torch.optim.SGD):
    """Its groups hold settings that are no plain values, and that no step touches; `changes` puts others in their place."""

    def __init__(self, parameters, changes=False):
        super().__init__(parameters, lr=0.1)
        self.param_groups[0] |= {"scale": np.ones(2), "draws": torch.Generator(), "reference": [torch.ones(2)]}
        self.changes = changes

    def step(self, closure=None):
        if self.changes:
            self.param_groups[0]["reference"] = [torch.zeros(2)]
        return super().step(closure)


OPTIMIZERS = {
    "adamw": AdamW(),
    "adam": Adam(),
    "sgd": SGD(),
    "adamp": lambda parameters: timm.optim.AdamP(parameters, lr=1e-2),  # counts its steps as a number for each parameter
    "adan": lambda parameters: timm.optim.Adan(parameters, lr=1e-2),  # in the group, and keeps a gradient there
    "lamb": lambda parameters: timm.optim.Lamb(parameters, lr=1e-2),
    "counting": Counting,
    "holding": Holding,
    "adafactor": lambda parameters: timm.optim.AdafactorBigVision(parameters, lr=1e-2),  # keeps moments in bfloat16
}


class Listing(torch.optim.SGD):
    """Keeps a list of tensors."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["history"] = [parameter.grad.clone()]
        return super().step(closure)


def made(name):
    """A model with an optimizer, and the options with which that began."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    return SimpleNamespace(model=model, optimizer=optimizer, begun=group_options(optimizer))


def step(one):
    one.optimizer.zero_grad()
    one.model(IMAGES).square().mean().backward()
    one.optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_after_a_break_is_that_without_one(name):
    """Also after a second break, by way of JSON."""
    whole, broken = made(name), made(name)
    for _ in range(3):
        step(whole)
        step(broken)
        tensors, values = saved_state(broken.optimizer, broken.begun)
        again = made(name)
        again.model.load_state_dict(broken.model.state_dict())
        load_state(again.optimizer, {place: tensor.clone() for place, tensor in tensors.items()}, json.loads(json.dumps(values)))
        broken = again
    for mine, other in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_torch_s_own_optimizers_keep_tensors_alone(name):
    """Nothing but them is written, so that files are as they were."""
    one = made(name)
    step(one)
    tensors, values = saved_state(one.optimizer, one.begun)
    assert values == {}
    state = one.optimizer.state_dict()["state"]
    assert tensors.keys() == {f"{number}/{moment}" for number, moments in state.items() for moment in moments}


def test_settings_of_a_later_stage_are_its_own():
    """Of the groups only what steps have changed goes on: not a decay that the next stage has otherwise."""
    one = made("adan")
    step(one)
    tensors, values = saved_state(one.optimizer, one.begun)
    assert values["groups"] == [{"step": 1}]
    later = timm.optim.Adan(list(made("adan").model.parameters()), lr=1e-2, weight_decay=0.5)
    load_state(later, tensors, values)
    assert (later.param_groups[0]["weight_decay"], later.param_groups[0]["step"]) == (0.5, 1)


def test_options_of_groups_are_restored():
    """Those that a step added are gone, those that it changed are as before; the rate stays."""
    one = made("counting")
    step(one)
    one.optimizer.param_groups[0] |= {"lr": 0.5, "new": 1}
    set_group_options(one.optimizer, one.begun)
    group = one.optimizer.param_groups[0]
    assert (group["lr"], group["phase"], group["factors"], float(group["total"])) == (0.5, "first", (1.0, 2.0), 0.0)
    assert "new" not in group


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda parameters: Listing(parameters, lr=0.1), "listing cannot go on after a break: the optimizer keeps history as list"),
        (lambda parameters: Holding(parameters, changes=True), "the optimizer keeps reference as list, which cannot be saved"),
        (lambda parameters: timm.optim.Lookahead(torch.optim.AdamW(parameters)), "the optimizer takes back none of "),
    ],
)
def test_one_that_cannot_go_on_is_refused_before_anything_is_trained(optimizer, message):
    """Tried with two small parameters."""
    with pytest.raises(ConfigError, match=f"optimizer: .*{message}"):
        check_saved("listing", optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_that_goes_on_is_not_refused(name):
    """Nor is one that cannot be tried so."""
    check_saved(name, OPTIMIZERS[name])

    def fails(parameters):
        made = torch.optim.SGD(parameters, lr=0.1)
        made.step = lambda: 1 / 0
        return made

    check_saved("fails", fails)


def test_what_cannot_be_saved_is_told(monkeypatch):
    """In one sentence, also by the contract."""
    model = nn.Linear(3, 2)
    one = SimpleNamespace(model=model, optimizer=Listing(model.parameters(), lr=0.1))
    begun = group_options(one.optimizer)
    step(one)
    with pytest.raises(
        TrainingError, match="the optimizer keeps history as list, which cannot be saved; expected tensors, numbers and texts"
    ):
        saved_state(one.optimizer, begun)
    monkeypatch.setattr(promises, "make", lambda *_: lambda parameters: Listing(parameters, lr=0.1))
    with pytest.raises(ContractError, match="the optimizer keeps history as list"):
        promises.goes_on_from_its_state("optimizers", "listing")
