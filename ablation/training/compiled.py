"""The training step with its model compiled by torch.compile. It runs other kernels, so its rounding differs. B batch, C classes."""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ablation.training.step import Batch, PlainStep

COMPILED = "compiled"

Compiler = Callable[[PlainStep], PlainStep]  # the step, its model compiled


class CompiledStep:
    """A compiled step for batches of one shape, that of the first batch: any other shape would be compiled anew."""

    def __init__(self, step: PlainStep, batch: Batch) -> None:
        self._step, self._shapes = step, [tensor.shape for tensor in batch]

    def fits(self, batch: Batch) -> bool:
        """Whether the batch has that shape."""
        return [tensor.shape for tensor in batch] == self._shapes

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """Update the weights once and return the batch's mean loss."""
        return self._step(images_BCHW, targets_BC, sampled_C)


def compile_model(plain: PlainStep) -> PlainStep:
    """The step with its model compiled for fixed shapes; it draws the same random numbers as the plain step."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it would report that there is no GPU
    torch.compiler.reset()  # else the models of earlier jobs count as recompilations of this one; after eight, nothing is compiled
    model: nn.Module = torch.compile(plain.model, dynamic=False, options={"fallback_random": True})  # type: ignore[assignment]
    return replace(plain, model=model)
