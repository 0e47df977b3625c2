"""The training step captured as a CUDA graph, which is replayed for each batch. B batch, C classes.

A captured step is one launch instead of a thousand. It repeats what the device did during the capture, and nothing of what Python did:
a number that lives on the host keeps the value it had then.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.optim import Optimizer

from ablation.training.step import Batch, PlainStep

CAPTURED = "captured"
NUM_WARM_UP_STEPS = 3  # before the capture; libraries choose their kernels and allocate their workspaces in these

Capture = Callable[[Callable[[], Tensor], Optimizer], Callable[[], Tensor]]  # (step, optimizer) -> replay


class CapturedStep:
    """A captured step with the memory that it reads: its own copies of the batch, the loss's state and the learning rate."""

    def __init__(self, plain: PlainStep, capture: Capture, batch: Batch) -> None:
        batch_copy = tuple(tensor.clone() for tensor in batch)
        for group in plain.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=plain.device)
        self._batch, self._loss_state, self._captured_state = batch_copy, plain.loss_state, dict(plain.loss_state)
        self._replay = capture(lambda: plain(*batch_copy), plain.optimizer)

    def fits(self, batch: Batch) -> bool:
        """Whether the batch has the shapes of the captured one."""
        return all(copy.shape == tensor.shape for copy, tensor in zip(self._batch, batch, strict=True))

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """Update the weights once and return the batch's mean loss, in memory that the next replay overwrites."""
        for copy, tensor in zip(self._batch, (images_BCHW, targets_BC, sampled_C), strict=True):
            copy.copy_(tensor)
        for name, tensor in self._captured_state.items():
            if self._loss_state[name] is not tensor:  # a user's own loss may replace its state instead of changing it
                self._loss_state[name] = tensor.copy_(self._loss_state[name])
        return self._replay()


def capture_on_cuda(step: Callable[[], Tensor], optimizer: Optimizer) -> Callable[[], Tensor]:
    """Warm the step up, capture it as torch documents it for whole networks, and return its replay; this moves the weights."""
    main_stream, side_stream = torch.cuda.current_stream(), _capture_stream(torch.cuda.current_device())
    side_stream.wait_stream(main_stream)
    try:
        with torch.cuda.stream(side_stream):
            step()
            with _synchronization_forbidden():
                for _ in range(NUM_WARM_UP_STEPS - 1):
                    step()
    finally:
        main_stream.wait_stream(side_stream)  # also after a failure: the weights are restored on the main stream
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)  # so that the gradients are allocated in the graph's own memory
    gc.collect()  # freeing memory or graphs during the capture would break it
    _set_capturable(optimizer, is_on=True)
    try:
        with torch.cuda.graph(graph, stream=side_stream):
            loss = step()
    finally:
        _set_capturable(optimizer, is_on=False)
        torch.cuda.set_stream(main_stream)  # torch 2.11 stays on the capture's stream if the capture fails

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


@contextmanager
def _synchronization_forbidden() -> Iterator[None]:
    """Raise for whatever waits for the device: it cannot be captured, and a failed capture breaks the generator of torch before 2.13."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@cache
def _capture_stream(index: int) -> torch.cuda.Stream:
    """The stream of all captures on a device: cuBLAS keeps 32 MiB for every stream that it was used on."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _set_capturable(optimizer: Optimizer, *, is_on: bool) -> None:
    """Set the optimizer's `capturable` option, which fused Adam requires during the capture and warns of at any other time."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = is_on
