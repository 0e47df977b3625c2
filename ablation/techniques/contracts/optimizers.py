"""What optimizers promise."""

import json

import torch
from torch import nn

from ablation.errors import TrainingError
from ablation.techniques.contracts.contract import ContractError, Spec, contract, expect
from ablation.techniques.optimizer_state import group_options, load_state, saved_state
from ablation.techniques.technique import make


@contract("optimizers")
def follows_the_rate_of_its_groups(family_name: str, spec: Spec) -> None:
    """A step goes down the gradient at the rate that its groups are given, and nowhere at the rate 0."""
    for rate in (0.0, 1e-3):
        parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = make(family_name, spec)([parameter])
        for group in optimizer.param_groups:
            group["lr"] = rate
        _step(optimizer, parameter)
        moved_by = (parameter.detach() - torch.tensor([1.0, -2.0])) * torch.tensor([1.0, -1.0])
        expect(
            bool((moved_by < 0).all() if rate else (moved_by == 0).all()), f"at the rate {rate} the weights moved by {moved_by.tolist()}"
        )


@contract("optimizers")
def goes_on_from_its_state(family_name: str, spec: Spec) -> None:
    """What is saved of its state, tensors and plain values, goes on as if there had been no break."""
    technique = make(family_name, spec)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = technique([parameter])
    begun = group_options(optimizer)
    _step(optimizer, parameter)
    resumed_parameter = nn.Parameter(parameter.detach().clone())
    resumed_optimizer = technique([resumed_parameter])
    try:
        tensors, values = saved_state(optimizer, begun)
    except TrainingError as error:
        raise ContractError(error.message) from None
    load_state(resumed_optimizer, tensors, json.loads(json.dumps(values)))
    _step(optimizer, parameter)
    _step(resumed_optimizer, resumed_parameter)
    expect(
        torch.equal(parameter, resumed_parameter),
        f"with a break the weights are {resumed_parameter.tolist()}, and without one {parameter.tolist()}",
    )


def _step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    optimizer.zero_grad()
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
