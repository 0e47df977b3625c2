"""The training step compiled, recorded once as a CUDA graph and replayed for each batch, or both. B batch, C classes.

A recorded step is one launch in place of a thousand; it repeats what the device did, and nothing of what Python did: a number kept on
the host stays what it was. A compiled one computes with other kernels. So either is trusted only once it has done what the plain step does.
"""

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ablation.errors import TrainingError
from ablation.training.step import PlainStep, set_lr

FEWEST_STEPS = 20  # of a stage for which recording is worth its seconds
WARM_UPS = 3  # steps before recording, in which libraries choose kernels and take their workspaces
TOLERANCES = {"fp32": (1e-3, 0.1), "bf16": (2e-2, 0.3)}  # relative, of the loss and of what is moved; what is stale moves otherwise
OTHER_KERNELS = 0.3  # what is moved, where a compiler rounds otherwise: Adam makes whole steps of gradients that are nothing but rounding
CAPTURED, COMPILED = "captured", "compiled"
LONGEST = 300  # characters of a reason

Batch = tuple[Tensor, Tensor, Tensor]  # images_BCHW, targets_BC, sampled_C
Record = Callable[[Callable[[], Tensor], Optimizer], Callable[[], Tensor]]
Make = Callable[[PlainStep], PlainStep]
Way = tuple[str, Callable[[PlainStep, Batch], "Recorded | Compiled"]]  # its name, and what prepares the step


def chosen(plain: PlainStep, num_steps: int, *, deterministic: bool, is_compiled: bool = False) -> "PlainStep | CapturedStep":
    """The captured step where it can be recorded and is worth it, compiled where that is wished; else the plain one, the reference."""
    record = recorded_on_cuda if suits(plain, num_steps, deterministic=deterministic) else None
    return CapturedStep(plain, record, compiled if is_compiled else None) if record or is_compiled else plain


def suits(plain: PlainStep, num_steps: int, *, deterministic: bool) -> bool:
    """Whether the step keeps everything on a CUDA device and there are enough steps; the scaler of fp16 looks at the host."""
    on_device = plain.device.type == "cuda" and plain.precision.name in TOLERANCES
    # Other optimizers may count their steps on the host.
    has_capturable = type(plain.optimizer) in (AdamW, Adam, SGD) and all(group["fused"] for group in plain.optimizer.param_groups)
    return on_device and has_capturable and not deterministic and num_steps >= FEWEST_STEPS


class CapturedStep:
    """A step that is compiled, recorded or both and verified at its first batch, then used; where that fails, the plain one."""

    def __init__(self, plain: PlainStep, record: Record | None, make: Make | None = None) -> None:
        self.plain, self._ways, self._is_a_must = plain, ways(record, make), record is None
        self.kind = ""  # "captured", "compiled" or both, or "plain: " and why; known after the first batch
        self._used: Recorded | Compiled | None = None

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """The batch's mean loss, after one update of the weights; it stays on the device, until the next step.

        Raises TrainingError where the step had to be compiled and cannot be: on a CPU the plain one would give other bits.
        """
        batch = (images_BCHW, targets_BC, sampled_C)
        if not self.kind:
            self._used, self.kind = verified(self.plain, self._ways, batch)
            if self._used is None and self._is_a_must:
                raise TrainingError("bug", f"compile is true, but the compiled step cannot be used ({self.kind}); expected compile: false")
        if self._used is None or not self._used.fits(batch):  # as a shorter last batch
            return self.plain(*batch)
        return self._used(*batch)


class Compiled:
    """A compiled step, for batches of the shapes of the first one: others would be compiled anew."""

    def __init__(self, step: PlainStep, batch: Batch) -> None:
        self._step, self._shapes = step, [tensor.shape for tensor in batch]

    def fits(self, batch: Batch) -> bool:
        """Whether the batch has those shapes."""
        return [tensor.shape for tensor in batch] == self._shapes

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """The batch's mean loss, after one update of the weights."""
        return self._step(images_BCHW, targets_BC, sampled_C)


class Recorded:
    """A recorded step with the memory that it reads: its own copies of the batch, the loss's state and the learning rate."""

    def __init__(self, plain: PlainStep, record: Record, batch: Batch) -> None:
        copies = tuple(tensor.clone() for tensor in batch)
        for group in plain.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=plain.device)
        self._batch, self._states, self._loss_state = copies, plain.loss_state, dict(plain.loss_state)
        self._replay = record(lambda: plain(*copies), plain.optimizer)

    def fits(self, batch: Batch) -> bool:
        """Whether the batch has the shapes of the recorded one."""
        return all(copy.shape == tensor.shape for copy, tensor in zip(self._batch, batch, strict=True))

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """The batch's mean loss, after one update of the weights, in memory that the next replay overwrites."""
        for copy, tensor in zip(self._batch, (images_BCHW, targets_BC, sampled_C), strict=True):
            copy.copy_(tensor)
        for name, tensor in self._loss_state.items():
            if self._states[name] is not tensor:  # a loss of one's own may replace its state instead of changing it
                self._states[name] = tensor.copy_(self._states[name])
        return self._replay()


def compiled(plain: PlainStep) -> PlainStep:
    """The step with the model compiled for these shapes alone; it draws the numbers that the plain one draws."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it says that there is no GPU
    torch.compiler.reset()  # else the models of the jobs before count as changes of this one, and after eight nothing is compiled
    model: nn.Module = torch.compile(plain.model, dynamic=False, options={"fallback_random": True})  # type: ignore[assignment]
    return replace(plain, model=model)


def recorded_on_cuda(step: Callable[[], Tensor], optimizer: Optimizer) -> Callable[[], Tensor]:
    """What replays the step, which was warmed up and recorded as torch documents it for whole networks; weights have moved."""
    before, side = torch.cuda.current_stream(), _side(torch.cuda.current_device())
    side.wait_stream(before)
    with torch.cuda.stream(side):
        step()
        with _waiting_forbidden():
            for _ in range(WARM_UPS - 1):
                step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)  # so that the gradients get memory of the graph's own
    gc.collect()  # memory or graphs freed in the middle of a recording would break it
    _mark_capturable(optimizer, is_on=True)
    try:
        with torch.cuda.graph(graph, stream=side):
            loss = step()
    finally:
        _mark_capturable(optimizer, is_on=False)
        torch.cuda.set_stream(before)  # torch 2.11 stays on the recording's where that fails

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """What waits for the device raises here: it cannot be recorded, and a recording that fails spoils torch's generator before 2.13."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@cache
def _side(index: int) -> torch.cuda.Stream:
    """The stream of all recordings on a device: cuBLAS keeps 32 MiB for every one that it has seen."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _mark_capturable(optimizer: Optimizer, *, is_on: bool) -> None:
    """Fused Adam counts its steps on the device anyway, but lets itself be recorded only with this, and warns of it elsewhere."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = is_on


# --- proof -------------------------------------------------------------------------------------------------------------------


def ways(record: Record | None, make: Make | None) -> list[Way]:
    """How a step may be done, each with its name, the best first."""
    found: list[Way] = []
    if make is not None and record is not None:
        found.append((f"{COMPILED}, {CAPTURED}", lambda plain, batch: Recorded(make(plain), record, batch)))
    elif make is not None:
        found.append((COMPILED, lambda plain, batch: Compiled(make(plain), batch)))
    if record is not None:
        found.append((CAPTURED, lambda plain, batch: Recorded(plain, record, batch)))
    return found


def verified(plain: PlainStep, possible: list[Way], batch: Batch) -> tuple[Recorded | Compiled | None, str]:
    """The first way that does what the plain step does, and its name; or nothing and why the plain one stays.

    Either way training goes on as if nothing had been. Where the first way failed and another did not, the name says why.
    """
    snapshot, problems, problem = Snapshot(plain), "", ""
    expected: TrialResult | None = None
    of_loss, of_moves = TOLERANCES[plain.precision.name]
    for name, prepare in possible:
        step = None  # before the next is recorded: a graph that goes later takes workspaces of its stream with it
        try:
            expected = expected or trial_steps(plain, batch, snapshot)
            step = prepare(plain, batch)
            snapshot.restore()
            problem = difference(expected, trial_steps(step, batch, snapshot), of_loss, of_moves if name == CAPTURED else OTHER_KERNELS)
        except Exception as error:  # whatever it is, the plain step either meets it too or can do without
            problem = f"{type(error).__name__}: {error}"
        if step is not None and not problem:
            return step, f"{name}{problems}"[:LONGEST]
        snapshot.undo()
        problem = " ".join(problem.split())
        problems += f" (not {name}: {problem})"
    return None, f"plain: {problem}"[:LONGEST]


class Snapshot:
    """All that a step moves, as it was: weights, buffers, the optimizer's and the loss's state, the generators, the learning rate."""

    def __init__(self, plain: PlainStep) -> None:
        self.plain, self.lr = plain, float(plain.optimizer.param_groups[0]["lr"])
        self._copies = {tensor: tensor.detach().clone() for tensors in self._living().values() for tensor in tensors}
        self._generators = [torch.default_generator]
        if plain.device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[plain.device.index])
        self._states = [generator.get_state() for generator in self._generators]

    def _living(self) -> dict[str, list[Tensor]]:
        """The tensors that a step may move, by kind."""
        model, states = self.plain.model, self.plain.loss_state
        found: dict[str, list[Tensor]] = {"weights": list(model.parameters()), "buffers": list(model.buffers())}
        found["state of the loss"] = list(states.values())
        for moments in self.plain.optimizer.state.values():
            for name, moment in moments.items():
                found.setdefault(f"{name} of the optimizer", []).append(moment)
        return found

    @torch.no_grad()
    def moved(self) -> dict[str, Tensor]:
        """By how much the tensors of each kind that has any differ from what they were, in one vector; new ones were zero."""
        found = {}
        for kind, tensors in self._living().items():
            moves = [(tensor - self._copies.get(tensor, 0)).flatten() for tensor in tensors if tensor.is_floating_point()]
            if moves:
                found[kind] = torch.cat(moves)
        return found

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back in place; moments that there were not yet become zero, from which every update begins."""
        for tensors in self._living().values():
            for tensor in tensors:
                if tensor in self._copies:
                    tensor.copy_(self._copies[tensor])
                else:
                    tensor.zero_()
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        set_lr(self.plain.optimizer, self.lr)

    def undo(self) -> None:
        """Put everything back, and leave no moment and no learning rate on the device that there was not before."""
        self.restore()
        if self.plain.device.type == "cuda":  # a recording that failed leaves the generator of torch before 2.13 recording for ever
            fresh = torch.Generator(self.plain.device)
            fresh.set_state(self._states[1])
            self._generators[1].graphsafe_set_state(fresh)
        moments = self.plain.optimizer.state
        for parameter in list(moments):
            if not all(moment in self._copies for moment in moments[parameter].values()):
                del moments[parameter]
        for group in self.plain.optimizer.param_groups:
            group["lr"] = self.lr


@dataclass(frozen=True)
class TrialResult:
    """What two steps came to."""

    losses: list[float]
    moved: dict[str, Tensor]


def trial_steps(step: PlainStep | Recorded | Compiled, batch: Batch, snapshot: Snapshot) -> TrialResult:
    """What two steps come to, the second with images in another order and half the learning rate; all of it is put back.

    One step would not show what a recording froze: draws, learning rate, images, the number of the step.
    """
    images_BCHW, targets_BC, sampled_C = batch
    losses = [float(step(images_BCHW, targets_BC, sampled_C))]
    set_lr(snapshot.plain.optimizer, snapshot.lr / 2)
    losses.append(float(step(images_BCHW.flip(0), targets_BC, sampled_C)))
    trial = TrialResult(losses, snapshot.moved())
    snapshot.restore()
    return trial


def difference(expected: TrialResult, found: TrialResult, of_loss: float, of_moves: float) -> str:
    """In what the two trials differ by more than the tolerances, or nothing."""
    for one, other in zip(expected.losses, found.losses, strict=True):
        if not abs(one - other) <= of_loss * abs(one):
            return f"the step's loss is {other:.6g}, the plain one's {one:.6g}"
    for kind, moves in expected.moved.items():
        apart, size = float((found.moved[kind] - moves).norm()), float(moves.norm())
        if not apart <= of_moves * size:
            return f"the step moves the {kind} otherwise than the plain one, by {apart:.3g} of {size:.3g}"
    return ""
