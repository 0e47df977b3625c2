"""A step of training recorded once as a CUDA graph and replayed, so that the host does not launch a thousand kernels each time.

B batch, C classes. It follows PyTorch's notes on whole-network capture; what cannot be captured is trained plainly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablation.training.step import Precision, train_step

WARM_UPS = 3  # steps before recording, in which libraries choose their kernels and the optimizer makes its moments
FEWEST_STEPS = 20  # of a stage: a shorter one is over before recording pays
AGREEMENT = 0.2  # the largest distance between the updates of a plain and a replayed step, as a part of the update


class Step(Protocol):
    """One update of the weights."""

    def __call__(self, inputs: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """The batch's mean loss, which stays on the device; it is overwritten by the next step."""


class Graph(Protocol):
    """Something that records what a function does to tensors, and does it again."""

    def record(self, function: Callable[[], Tensor], forget: Callable[[], None]) -> None:
        """Record it, after some calls that count for nothing; `forget` lets go of the gradients in between."""

    def replay(self) -> Tensor:
        """Do again what was recorded, with what the tensors hold now."""


@dataclass(frozen=True)
class PlainStep:
    """`train_step` with what does not change from batch to batch."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    loss: Any
    counts_C: Tensor
    loss_state: dict[str, Tensor]

    def __call__(self, inputs: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """See Step."""
        how = (self.net, self.optimizer, self.scaler, self.precision, self.loss)
        return train_step(*how, inputs, targets_BC, self.counts_C, sampled_C, self.loss_state)


class CudaGraph:
    """A CUDA graph of the current device."""

    def record(self, function: Callable[[], Tensor], forget: Callable[[], None]) -> None:
        """See Graph."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(side)
        forget()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function()

    def replay(self) -> Tensor:
        """See Graph."""
        self.graph.replay()
        return self.output


class CapturedStep:
    """A plain step, replayed for every batch of the recorded shape; a shorter last one is trained plainly."""

    def __init__(self, plain: PlainStep, graph: Graph, inputs: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> None:
        self.plain, self.graph = plain, graph
        self.inputs, self.targets_BC, self.sampled_C = inputs.clone(), targets_BC.clone(), sampled_C.clone()
        graph.record(lambda: plain(self.inputs, self.targets_BC, self.sampled_C), lambda: plain.optimizer.zero_grad(set_to_none=True))

    def __call__(self, inputs: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """See Step."""
        if inputs.shape != self.inputs.shape:
            return self.plain(inputs, targets_BC, sampled_C)
        self.inputs.copy_(inputs)
        self.targets_BC.copy_(targets_BC)
        self.sampled_C.copy_(sampled_C)
        return self.graph.replay()


def why_plain(plain: PlainStep, device: torch.device, num_steps: int, *, deterministic: bool) -> str:
    """Why a stage's step is not captured, or nothing where it can be."""
    if device.type != "cuda":
        return "on the CPU nothing is launched"
    if deterministic:
        return "deterministic: true keeps the step that is the reference"
    if plain.scaler.is_enabled():
        return "fp16 looks at its gradients after each step"
    if not all(group.get("fused") for group in plain.optimizer.param_groups):
        return "the optimizer is not fused"
    return f"{num_steps} steps are too few" if num_steps < FEWEST_STEPS else ""


def captured(plain: PlainStep, graph: Graph, inputs: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> tuple[Step, str]:
    """The captured step, and nothing; or, where capturing fails or its update is another than the plain one's, the plain step and why.

    Whatever comes of it, weights, moments and random numbers are as before.
    """
    rates = [group["lr"] for group in plain.optimizer.param_groups]
    before = _Snapshot(plain, inputs.device)
    batch = (inputs, targets_BC, sampled_C)
    try:
        for group in plain.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=inputs.device)
            group["capturable"] = True
        step = CapturedStep(plain, graph, *batch)
        updates = []
        for one in (plain, step):
            before.restore()
            one(*batch)
            updates.append(before.update())
        distance = float((updates[0] - updates[1]).norm() / updates[0].norm().clamp(min=1e-30))
        reason = "" if distance <= AGREEMENT else f"its update differed from the plain step's by {distance:.0%}"
    except Exception as error:  # whatever it is, the plain step does the work
        reason = f"capturing failed: {(str(error).splitlines() or [type(error).__name__])[0]}"
    before.restore()
    plain.optimizer.zero_grad(set_to_none=True)
    if not reason:
        return step, ""
    for group, rate in zip(plain.optimizer.param_groups, rates, strict=True):
        group |= {"lr": rate, "capturable": False}
    return plain, reason


class _Snapshot:
    """What a step changes, as it was: weights and buffers, moments, what the loss carries, and the random numbers."""

    def __init__(self, plain: PlainStep, device: torch.device) -> None:
        self.plain, self.device = plain, device
        self.weights = {name: tensor.clone() for name, tensor in plain.net.state_dict().items()}
        self.loss = {name: tensor.clone() for name, tensor in plain.loss_state.items()}
        self.moments = {(p, name): tensor.clone() for p, name, tensor in self._moments()}
        self.random = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _moments(self) -> list[tuple[Tensor, str, Tensor]]:
        state = self.plain.optimizer.state
        return [(p, name, value) for p, values in state.items() for name, value in values.items() if isinstance(value, Tensor)]

    @torch.no_grad()
    def restore(self) -> None:
        """Set everything back in place; moments that did not exist are zero, as they begin."""
        for name, tensor in self.plain.net.state_dict().items():
            tensor.copy_(self.weights[name])
        for name, tensor in self.plain.loss_state.items():
            tensor.copy_(self.loss[name])
        for p, name, tensor in self._moments():
            tensor.copy_(self.moments[p, name]) if (p, name) in self.moments else tensor.zero_()
        torch.cuda.set_rng_state(self.random, self.device) if self.device.type == "cuda" else torch.set_rng_state(self.random)

    def update(self) -> Tensor:
        """How far the weights have moved since, as one vector."""
        moved = [tensor.detach() - self.weights[name] for name, tensor in self.plain.net.named_parameters()]
        return torch.cat([one.double().flatten() for one in moved])
