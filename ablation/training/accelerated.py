"""The fastest training step that does what the plain one does: compiled, captured as a CUDA graph, or both. B batch, C classes."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from ablation.errors import TrainingError
from ablation.system.failures import lacks_memory
from ablation.training.captured import CAPTURED, Capture, CapturedStep, capture_on_cuda
from ablation.training.compiled import COMPILED, CompiledStep, Compiler, compile_model
from ablation.training.devices import forget_peak
from ablation.training.step import Batch, PlainStep
from ablation.training.verified import TOLERANCES, Candidate, Step, first_verified

T = TypeVar("T")
MIN_STEPS = 20  # in a stage with fewer steps a capture is not worth its seconds


def choose_step(plain: PlainStep, num_steps: int, *, deterministic: bool, is_compiled: bool = False) -> "PlainStep | AcceleratedStep":
    """A step that is captured if that is possible and worth it, and compiled if that is wanted; else the plain one, the reference."""
    capture = capture_on_cuda if can_capture(plain, num_steps, deterministic=deterministic) else None
    return AcceleratedStep(plain, capture, compile_model if is_compiled else None) if capture or is_compiled else plain


def can_capture(plain: PlainStep, num_steps: int, *, deterministic: bool) -> bool:
    """Whether the whole step runs on a CUDA device and there are enough steps; the scaler of fp16 reads values on the host."""
    on_device = plain.device.type == "cuda" and plain.precision.name in TOLERANCES
    # Other optimizers may count their steps on the host.
    has_capturable = type(plain.optimizer) in (AdamW, Adam, SGD) and all(group["fused"] for group in plain.optimizer.param_groups)
    return on_device and has_capturable and not deterministic and num_steps >= MIN_STEPS


class AcceleratedStep:
    """A step that is compiled, captured or both, and verified, at its first batch; if that fails, the plain step runs instead."""

    def __init__(self, plain: PlainStep, capture: Capture | None, compiler: Compiler | None = None) -> None:
        self.plain, self._candidates = plain, candidates(capture, compiler)
        self._is_required = capture is None and plain.device.type != "cuda"  # on CUDA the plain step's bits are as good
        self.kind = ""  # "captured", "compiled" or both, or "plain: " and the reason; known after the first batch
        self._step: Step | None = None

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """Update the weights once and return the batch's mean loss, which stays on the device, until the next step.

        Raises TrainingError if the step has to be compiled and cannot be: on a CPU the plain step would give other bits.
        """
        batch = (images_BCHW, targets_BC, sampled_C)
        if not self.kind:
            self._step, self.kind = first_verified(self.plain, self._candidates, batch)
            forget_peak(self.plain.device)  # the copies that the verification took
            if self._step is None and self._is_required:
                raise TrainingError("bug", f"compile is true, but the compiled step cannot be used ({self.kind}); expected compile: false")
        if self._step is None or not self._step.fits(batch):  # such as a shorter last batch
            return self.plain(*batch)
        return self._step(*batch)

    def release(self) -> bool:
        """Give up the captured or compiled step with its memory, and go on plainly; whether there was one."""
        if self._step is None:
            return False
        self.plain.optimizer.zero_grad(set_to_none=True)  # whose tensors lie in the graph's memory
        self._step, self.kind = None, f"plain: beside the {self.kind} step, memory did not suffice for tests"
        return True


def with_room(step: "PlainStep | AcceleratedStep", compute: Callable[[], T]) -> T:
    """What is computed between two steps; where memory does not suffice, once more without the graph, which holds a step's activations."""
    try:
        return compute()
    except RuntimeError as error:  # the libraries on CUDA have errors of their own for it
        if not lacks_memory(error) or not isinstance(step, AcceleratedStep) or not step.release():
            raise
    forget_peak(step.plain.device)
    return compute()


def candidates(capture: Capture | None, compiler: Compiler | None) -> list[Candidate]:
    """The ways to run the step, each with its name, the fastest first."""
    steps: list[Candidate] = []
    if compiler is not None and capture is not None:
        steps.append((f"{COMPILED}, {CAPTURED}", lambda plain, batch: _compiled_and_captured(compiler(plain), capture, batch)))
    elif compiler is not None:
        steps.append((COMPILED, lambda plain, batch: iter([CompiledStep(compiler(plain), batch)])))
    if capture is not None:
        steps.append((CAPTURED, lambda plain, batch: iter([CapturedStep(plain, capture, batch)])))
    return steps


def _compiled_and_captured(compiled: PlainStep, capture: Capture, batch: Batch) -> Iterator[Step]:
    """The compiled step by itself, which rounds differently, and then captured, which should give its numbers."""
    yield CompiledStep(compiled, batch)
    yield CapturedStep(compiled, capture, batch)
