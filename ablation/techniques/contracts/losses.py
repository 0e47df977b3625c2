"""What losses promise. Shapes: B images, C classes."""

from typing import Any

import torch
from torch import Tensor

from ablation.techniques.contracts.contract import ContractError, Spec, are_close, contract, expect
from ablation.techniques.contracts.inputs import NUM_CLASSES, inputs, seeded
from ablation.techniques.technique import make


@contract("losses")
def hard_labels_cost_what_losses_says(family_name: str, spec: Spec) -> None:
    """For one image with a hard label, the loss is `losses_BC` at that label."""
    technique, tensors = make(family_name, spec), inputs()
    losses_BC = technique.losses_BC(tensors["logits_BC"], tensors["counts_C"])
    expect(losses_BC.shape == (6, NUM_CLASSES), f"losses_BC has the shape {tuple(losses_BC.shape)}; expected one cost per image and class")
    for b in range(6):
        for c in range(NUM_CLASSES):
            loss = technique(tensors["logits_BC"][b : b + 1], torch.eye(NUM_CLASSES)[c : c + 1], tensors["counts_C"])
            expect(
                are_close(loss, losses_BC[b, c]),
                f"the loss of one image of class {c} is {loss:.6f}, and losses_BC has {losses_BC[b, c]:.6f}",
            )


@contract("losses")
def soft_targets_are_the_weighted_mean(family_name: str, spec: Spec) -> None:
    """Under soft targets the loss is the sum of target * weight * cost over the sum of target * weight."""
    technique, tensors = make(family_name, spec), inputs()
    targets_BC = torch.rand(6, NUM_CLASSES, generator=seeded())
    shares_BC = targets_BC * technique.weights(tensors["counts_C"])
    expected = (shares_BC * technique.losses_BC(tensors["logits_BC"], tensors["counts_C"])).sum() / shares_BC.sum()
    loss = technique(tensors["logits_BC"], targets_BC, tensors["counts_C"])
    expect(loss.shape == (), f"the loss has the shape {tuple(loss.shape)}; expected one number")
    expect(are_close(loss, expected), f"the loss is {loss:.6f}; expected {expected:.6f}")


@contract("losses")
def extreme_logits_stay_finite(family_name: str, spec: Spec) -> None:
    """Logits of 80 and -80 give a finite loss and a finite gradient."""
    technique, tensors = make(family_name, spec), inputs()
    for scale in (80.0, -80.0, 0.0):
        logits_BC = (scale * (2 * tensors["targets_BC"] - 1)).requires_grad_()
        loss = technique(logits_BC, tensors["targets_BC"].roll(1, 0) / 2 + tensors["targets_BC"] / 2, tensors["counts_C"])
        (gradient_BC,) = torch.autograd.grad(loss, logits_BC)
        expect(loss.isfinite(), f"the loss is {loss:g} for logits of {scale}")
        expect(gradient_BC.isfinite().all(), f"its gradient is no finite number for logits of {scale}")


class _HoldDetached(torch.overrides.TorchFunctionMode):
    """Gives what was detached in the first pass again in later ones: what a loss detaches is a constant of its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.detached: list[Tensor] = []
        self.next = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return result
        if self.next == len(self.detached):
            self.detached.append(result.clone())
        self.next += 1
        return self.detached[self.next - 1]


@contract("losses")
def has_the_gradient_of_its_value(family_name: str, spec: Spec) -> None:
    """The gradient agrees with finite differences in float64, what is detached being held fixed."""
    technique, tensors = make(family_name, spec), inputs()
    targets_BC = torch.rand(6, NUM_CLASSES, generator=seeded(), dtype=torch.float64)
    logits_BC = tensors["logits_BC"].double().requires_grad_()
    hold_detached = _HoldDetached()

    def loss_of(logits_BC: Tensor) -> Tensor:
        hold_detached.next = 0
        with hold_detached:
            loss: Tensor = technique(logits_BC, targets_BC, tensors["counts_C"])
        return loss

    loss_of(logits_BC)
    try:
        torch.autograd.gradcheck(loss_of, (logits_BC,))
    except RuntimeError as error:
        raise ContractError("its gradient is not that of its value; what is meant as a constant has to be detached") from error


@contract("losses")
def carries_a_state_of_fixed_shape(family_name: str, spec: Spec) -> None:
    """What a loss carries from step to step is made on the CPU and changed in place; None and {} stand for no step yet."""
    technique, tensors = make(family_name, spec), inputs()
    state = technique.state(NUM_CLASSES, seeded())
    expect(all(tensor.device.type == "cpu" for tensor in state.values()), "the state is not made on the CPU")
    state_before = dict(state)  # which keeps the tensors alive: a new one must not be taken for a freed one
    shapes_before = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
    for _ in range(2):
        technique.advance(state, tensors["targets_BC"])
    has_same_tensors = state.keys() == state_before.keys() and all(state[name] is tensor for name, tensor in state_before.items())
    expect(has_same_tensors, "advance puts other tensors into the state; expected the same ones with other values")
    shapes_after = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
    expect(shapes_before == shapes_after, f"advance changes the state's shapes or types from {shapes_before} to {shapes_after}")
    loss_of_none = technique(tensors["logits_BC"], tensors["targets_BC"], tensors["counts_C"], None, None)
    loss_of_empty = technique(tensors["logits_BC"], tensors["targets_BC"], tensors["counts_C"], None, {})
    expect(torch.equal(loss_of_none, loss_of_empty), f"no state gives {loss_of_none:.6f} and an empty one {loss_of_empty:.6f}")
