"""Verification of a captured or compiled step: two trial steps must do what two plain steps do. B batch, C classes."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablation.techniques.optimizer_state import group_options, set_group_options
from ablation.training.captured import CapturedStep
from ablation.training.compiled import COMPILED, CompiledStep
from ablation.training.step import Batch, PlainStep, set_lr


@dataclass(frozen=True)
class Tolerance:
    """How far a step may be from the one that it is held against, relative to that one."""

    loss: float
    changes: float  # the distance of the changes to the tensors
    size: float = 1.0  # the difference of their sizes


# By precision. A capture that reads stale values differs by more.
TOLERANCES = {"fp32": Tolerance(1e-3, 0.1), "bf16": Tolerance(2e-2, 0.3)}
# Compiled kernels round differently, and Adam takes full steps even where the gradient is only rounding. In bf16 two formats of memory
# alone, on a CPU, move the changes of EfficientNet-B0 apart by 0.6 of them, and their sizes by 0.06. A step that does not update is 1
# apart, and the second of two steps at twice its rate makes the sizes differ by 0.25 or more.
COMPILED_TOLERANCES = {"fp32": Tolerance(1e-3, 0.3), "bf16": Tolerance(5e-2, 0.9, 0.2)}
MAX_REASON_LENGTH = 300  # characters

Step = CapturedStep | CompiledStep
# Its name, and what prepares the step: after one that it is made of, if there is any, against which it is held, as that is against the
# plain one. Each is prepared once the one before has been tried, since all of them take memory.
Candidate = tuple[str, Callable[[PlainStep, Batch], Iterator[Step]]]


def first_verified(plain: PlainStep, candidates: Sequence[Candidate], batch: Batch) -> tuple[Step | None, str]:
    """The first candidate that does what the plain step does, and its name; or None and the reason why none does.

    In either case training continues as if nothing had happened. If earlier candidates failed, the name includes why.
    """
    snapshot, problems, problem = Snapshot(plain), "", ""
    expected: TrialResult | None = None
    for name, prepare in candidates:
        step = None  # freed before the next capture: a graph that is freed later takes workspaces of its stream with it
        try:
            expected = expected or run_trial(plain, batch, snapshot)
            step, problem = _tried(name, prepare(plain, batch), expected, batch, snapshot)
        except Exception as error:  # of any kind: the plain step either raises it too, or works without this candidate
            problem = f"{type(error).__name__}: {error}"
        if step is not None and not problem:
            return step, f"{name}{problems}"[:MAX_REASON_LENGTH]
        snapshot.undo()
        problem = " ".join(problem.split())
        problems += f" (not {name}: {problem})"
    return None, f"plain: {problem}"[:MAX_REASON_LENGTH]


def _tried(name: str, steps: Iterator[Step], expected: "TrialResult", batch: Batch, snapshot: "Snapshot") -> tuple[Step | None, str]:
    """The last of a candidate's steps, and what one of them does differently than it should; empty if nothing."""
    precision, than, last = snapshot.plain.precision.name, "the plain one", None
    tolerance = (COMPILED_TOLERANCES if name.startswith(COMPILED) else TOLERANCES)[precision]
    for step in steps:
        snapshot.restore()
        last, result = step, run_trial(step, batch, snapshot)
        if problem := difference(expected, result, tolerance, than):
            return None, problem
        expected, tolerance, than = result, TOLERANCES[precision], "the compiled one"
    return last, ""


class Snapshot:
    """A copy of everything that a step changes: weights, buffers, state of optimizer and loss, random generators, learning rate."""

    def __init__(self, plain: PlainStep) -> None:
        self.plain, self.lr = plain, float(plain.optimizer.param_groups[0]["lr"])
        self._copies = {tensor: tensor.detach().clone() for tensors in self._tensors_by_kind().values() for tensor in tensors}
        self._groups = group_options(plain.optimizer)
        self._values = {parameter: _values(moments) for parameter, moments in plain.optimizer.state.items()}
        self._names = {parameter: frozenset(moments) for parameter, moments in plain.optimizer.state.items()}
        self._generators = [torch.default_generator]
        if plain.device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[plain.device.index])
        self._generator_states = [generator.get_state() for generator in self._generators]

    def _tensors_by_kind(self) -> dict[str, list[Tensor]]:
        """The tensors that a step may change."""
        model, loss_state = self.plain.model, self.plain.loss_state
        tensors: dict[str, list[Tensor]] = {"weights": list(model.parameters()), "buffers": list(model.buffers())}
        tensors["state of the loss"] = list(loss_state.values())
        for moments in self.plain.optimizer.state.values():
            for name, moment in moments.items():
                if isinstance(moment, Tensor):
                    tensors.setdefault(f"{name} of the optimizer", []).append(moment)
        return tensors

    @torch.no_grad()
    def changes(self) -> dict[str, Tensor]:
        """The changes since the snapshot, one vector for each kind that has tensors; a tensor that is new counts as zero before."""
        changes_by_kind = {}
        for kind, tensors in self._tensors_by_kind().items():
            changes = [(tensor - self._copies.get(tensor, 0)).flatten() for tensor in tensors if tensor.is_floating_point()]
            if changes:
                changes_by_kind[kind] = torch.cat(changes)
        return changes_by_kind

    @torch.no_grad()
    def restore(self) -> None:
        """Restore every tensor in place; moments that are new become zero, which is what an optimizer starts with."""
        for tensors in self._tensors_by_kind().values():
            for tensor in tensors:
                if tensor in self._copies:
                    tensor.copy_(self._copies[tensor])
                else:
                    tensor.zero_()
        self._restore_values()
        set_group_options(self.plain.optimizer, self._groups)
        for generator, state in zip(self._generators, self._generator_states, strict=True):
            generator.set_state(state)
        set_lr(self.plain.optimizer, self.lr)

    def _restore_values(self) -> None:
        """Restore what an optimizer keeps beside tensors; of parameters that are new to one which keeps such values, nothing is left."""
        state = self.plain.optimizer.state
        for parameter in list(state):
            if parameter not in self._names:
                if _values(state[parameter]):
                    del state[parameter]
                continue
            for name in state[parameter].keys() - self._names[parameter]:
                del state[parameter][name]
            state[parameter].update(copy.deepcopy(self._values[parameter]))

    def undo(self) -> None:
        """Restore everything, and also remove moments that are new and a learning rate that is a tensor."""
        self.restore()
        if self.plain.device.type == "cuda":  # after a failed capture the generator of torch before 2.13 stays in capture mode forever
            generator = torch.Generator(self.plain.device)
            generator.set_state(self._generator_states[1])
            self._generators[1].graphsafe_set_state(generator)
        moments = self.plain.optimizer.state
        for parameter in [parameter for parameter in moments if parameter not in self._names]:
            del moments[parameter]
        for group in self.plain.optimizer.param_groups:
            group["lr"] = self.lr


def _values(moments: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer keeps beside tensors."""
    return {name: value for name, value in moments.items() if not isinstance(value, Tensor)}


@dataclass(frozen=True)
class TrialResult:
    """What two trial steps computed."""

    losses: list[float]
    changes: dict[str, Tensor]


def run_trial(step: PlainStep | Step, batch: Batch, snapshot: Snapshot) -> TrialResult:
    """The result of two steps, the second with the images in reverse order and half the learning rate; both are undone.

    A single step would not reveal what a capture froze: random draws, learning rate, images, the number of the step.
    """
    images_BCHW, targets_BC, sampled_C = batch
    losses = [float(step(images_BCHW, targets_BC, sampled_C))]
    set_lr(snapshot.plain.optimizer, snapshot.lr / 2)
    losses.append(float(step(images_BCHW.flip(0), targets_BC, sampled_C)))
    result = TrialResult(losses, snapshot.changes())
    snapshot.restore()
    return result


def difference(expected: TrialResult, actual: TrialResult, tolerance: Tolerance, than: str = "the plain one") -> str:
    """How the two results differ by more than the tolerance, in words; empty if they do not. `than` is the step with the expected ones."""
    for expected_loss, loss in zip(expected.losses, actual.losses, strict=True):
        if not abs(expected_loss - loss) <= tolerance.loss * abs(expected_loss):
            return f"the step's loss is {loss:.6g}, that of {than} {expected_loss:.6g}"
    for kind, expected_changes in expected.changes.items():
        distance, size = float((actual.changes[kind] - expected_changes).norm()), float(expected_changes.norm())
        if not distance <= tolerance.changes * size:
            return f"the step changes the {kind} differently than {than}, by {distance:.3g} of {size:.3g}"
        if not abs(float(actual.changes[kind].norm()) - size) <= tolerance.size * size:
            return f"the step changes the {kind} by {float(actual.changes[kind].norm()):.3g}, {than} by {size:.3g}"
    return ""
