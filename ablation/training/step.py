"""One training step, run by PyTorch as usual. B batch, C classes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ablation.errors import ConfigError

BF16 = (8, 0)  # the compute capability from which a GPU computes in bf16
Batch = tuple[Tensor, Tensor, Tensor]  # images_BCHW, targets_BC, sampled_C


@dataclass(frozen=True)
class Precision:
    """The number format of the forward pass: fp32, or bf16 or fp16 where autocast uses them."""

    name: str

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which a forward pass runs."""
        if self.name == "fp32":
            return nullcontext()
        # A CUDA graph would read the weights that were cast before its capture. Each weight is cast only once in a forward pass anyway.
        has_cache = device.type != "cuda"
        return torch.autocast(device.type, torch.bfloat16 if self.name == "bf16" else torch.float16, cache_enabled=has_cache)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """The gradient scaler, which is enabled for fp16 only."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "fp16")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name, or for `auto` the fastest safe one; raises ConfigError if the device does not support it."""
    if device.type == "cuda":  # no context is made on it
        return cuda_precision(name, torch.cuda.get_device_capability(device), str(device))
    if name == "fp16":
        raise ConfigError("precision", f"found fp16, which needs a CUDA device (this is {device.type}); expected auto, fp32 or bf16")
    return Precision("fp32" if name == "auto" else name)


def cuda_precision(name: str, capability: tuple[int, int], gpu: str) -> Precision:
    """The same of a GPU with that compute capability; autocast would take bf16 on any, and fail or crawl at the first convolution."""
    has_bf16 = capability >= BF16
    if name == "bf16" and not has_bf16:
        which = f"{gpu}, of compute capability {'.'.join(map(str, capability))}, does not compute"
        raise ConfigError("precision", f"found bf16, which {which}; expected auto, fp32 or fp16")
    return Precision(("bf16" if has_bf16 else "fp16") if name == "auto" else name)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: Precision,
    loss: Any,
    images_BCHW: Tensor,
    targets_BC: Tensor,
    counts_C: Tensor,
    sampled_C: Tensor,
    loss_state: dict[str, Tensor],
) -> Tensor:
    """Update the weights once and return the batch's mean loss, which stays on the device."""
    optimizer.zero_grad(set_to_none=True)
    with precision.autocast(images_BCHW.device):
        logits_BC = model(images_BCHW)
    batch_loss: Tensor = loss(logits_BC.float(), targets_BC, counts_C, sampled_C, loss_state)
    scaler.scale(batch_loss).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    return batch_loss.detach()


@dataclass(frozen=True)
class PlainStep:
    """`train_step` with everything that stays the same from batch to batch."""

    kind: ClassVar[str] = "plain"
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    loss: Any
    counts_C: Tensor
    loss_state: dict[str, Tensor]

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.model.parameters()).device

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, sampled_C: Tensor) -> Tensor:
        """Update the weights once and return the batch's mean loss, which stays on the device."""
        training, batch = (self.model, self.optimizer, self.scaler, self.precision, self.loss), (images_BCHW, targets_BC)
        return train_step(*training, *batch, self.counts_C, sampled_C, self.loss_state)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate; a tensor is changed in place, because a captured step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
