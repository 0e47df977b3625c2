"""What an optimizer keeps from step to step, as it is saved: tensors, and beside them plain values, which JSON can hold.

torch's own optimizers keep tensors for each parameter and nothing else. Those of other libraries may count their steps as a number, for
each parameter or in the groups of parameters.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from ablation.errors import ConfigError, TrainingError

OURS = ("params", "lr", "capturable")  # of a group: what the training sets itself
GROUPS = "groups"  # in the names of tensors, where the number of a parameter stands otherwise

Options = list[dict[str, Any]]  # of each group of parameters
Values = dict[str, Any]  # plain: `state`, by the number of a parameter, and `groups`, one mapping each


def group_options(optimizer: Optimizer) -> Options:
    """What the groups of parameters hold that a step may change, copied where that can be saved."""
    return [{name: _copy(value) for name, value in group.items() if name not in OURS} for group in optimizer.param_groups]


def set_group_options(optimizer: Optimizer, options: Options) -> None:
    """Give the groups these options, and no others."""
    for group, kept in zip(optimizer.param_groups, options, strict=True):
        for name in [name for name in group if name not in OURS and name not in kept]:
            del group[name]
        group.update({name: _copy(value) for name, value in kept.items()})


def saved_state(optimizer: Optimizer, begun: Options) -> tuple[dict[str, Tensor], Values]:
    """The state as tensors by `NUMBER/NAME` and plain values; `begun` are the options of the groups when the optimizer was made.

    Of the groups only what has changed since is saved: the rest are settings. Raises TrainingError for what is neither.
    """
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]  # only of parameters that had a gradient
    changed = [
        {name: value for name, value in options.items() if name not in before or not _are_equal(value, before[name])}
        for options, before in zip(group_options(optimizer), begun, strict=True)
    ]
    by_place = {str(number): moments for number, moments in state.items()} | {f"{GROUPS}/{i}": held for i, held in enumerate(changed)}
    tensors = {f"{place}/{name}": value for place, held in by_place.items() for name, value in held.items() if isinstance(value, Tensor)}
    of_state = {str(number): plain for number, moments in state.items() if (plain := _plain(moments))}
    of_groups = [_plain(held) for held in changed]
    return tensors, {"state": of_state, GROUPS: of_groups} if of_state or any(of_groups) else {}


def load_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], values: Values) -> None:
    """Give each parameter its saved moments, in the parameter's memory format, and the groups what steps had changed in them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, tensor in tensors.items():
        number, _, name = place.partition("/")
        if number == GROUPS:
            group, _, name = name.partition("/")
            optimizer.param_groups[int(group)][name] = tensor.to(parameters[0].device)
            continue
        parameter = parameters[int(number)]
        has_same_shape = tensor.shape == parameter.shape
        optimizer.state[parameter][name] = (
            torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if has_same_shape else tensor.to(parameter.device, copy=True)
        )
    for number, numbers in values.get("state", {}).items():
        optimizer.state[parameters[int(number)]].update(numbers)
    for held, changed in zip(optimizer.param_groups, values.get(GROUPS, ()), strict=False):
        held.update({name: tuple(value) if isinstance(held.get(name), tuple) else value for name, value in changed.items()})
    taken = {f"{number}/{name}" for number, moments in optimizer.state_dict()["state"].items() for name in moments}
    given = {place for place in tensors if not place.startswith(f"{GROUPS}/")}
    given |= {f"{number}/{name}" for number, numbers in values.get("state", {}).items() for name in numbers}
    if lost := sorted(given - taken):
        raise TrainingError("data", f"the optimizer takes back none of {', '.join(lost[:3])}; expected its moments in its own state")


def check_saved(name: str, make: Callable[[list[Parameter]], Optimizer]) -> None:
    """Raise ConfigError if an optimizer would not go on from what is saved of it, tried with two small parameters."""
    first, second = ([Parameter(torch.ones(4, 3)), Parameter(torch.ones(4))] for _ in range(2))
    optimizer, other = make(first), make(second)
    begun = group_options(optimizer)
    try:
        for parameter in first:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    except Exception:  # parameters like these may be none for it: its first step in a training will tell
        return
    try:
        load_state(other, *saved_state(optimizer, begun))
    except TrainingError as error:
        raise ConfigError("optimizer", f"{name} cannot go on after a break: {error.message}") from None


def _copy(value: Any) -> Any:
    """A copy of a tensor or of plain values; anything else itself, which is a setting unless a step puts another in its place."""
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value) if _is_plain(value) else value


def _are_equal(value: object, other: object) -> bool:
    if isinstance(value, Tensor) and isinstance(other, Tensor):
        return value.dtype == other.dtype and torch.equal(value, other)
    return value is other or (_is_plain(value) and _is_plain(other) and value == other)


def _plain(held: Mapping[str, Any]) -> dict[str, Any]:
    """What is no tensor; raises TrainingError if JSON could not hold it."""
    values = {name: value for name, value in held.items() if not isinstance(value, Tensor)}
    for name, value in values.items():
        if not _is_plain(value):
            problem = f"the optimizer keeps {name} as {type(value).__name__}, which cannot be saved"
            raise TrainingError("data", f"{problem}; expected tensors, numbers and texts")
    return values


def _is_plain(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
