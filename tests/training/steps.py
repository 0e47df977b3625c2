"""A small network's training step, and stand-ins on the CPU for captures and compilers, good and bad ones. B batch, C classes."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ablation.techniques.losses import Seesaw
from ablation.techniques.optimizer_state import group_options
from ablation.training.step import PlainStep, Precision, set_lr
from tests.tiny import CPU

LR = 2**-8  # exact in float32, and so is its half, the rate of the second epoch under a cosine
FUSED_ADAM, FUSED_SGD = partial(torch.optim.AdamW, fused=True), partial(torch.optim.SGD, momentum=0.9, fused=True)

# --- captures ----------------------------------------------------------------------------------------------------------------


def call_again(step, optimizer):
    """Warm up as a capture does, which moves the weights, and then call the step for each replay."""
    for _ in range(3):
        step()
    return step


def frozen_draws(step, optimizer):
    """A capture that repeats the random draws of its first replay in each later one."""
    state = torch.get_rng_state()

    def replay():
        torch.set_rng_state(state)
        return step()

    return replay


def frozen_lr(step, optimizer):
    """A capture that ignores a change of the learning rate."""
    lr = float(optimizer.param_groups[0]["lr"])

    def replay():
        set_lr(optimizer, lr)
        return step()

    return replay


def stale_batch(step, optimizer):
    """A capture that trains on the first batch in each replay."""
    batch_copy = step.__closure__[0].cell_contents
    first_batch = [tensor.clone() for tensor in batch_copy]

    def replay():
        for copy, tensor in zip(batch_copy, first_batch, strict=True):
            copy.copy_(tensor)
        return step()

    return replay


def without_update(step, optimizer):
    """A capture that computes the loss but leaves every weight as it was."""

    def replay():
        weights = [parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]]
        loss = step()
        with torch.no_grad():
            for parameter, weight in zip(optimizer.param_groups[0]["params"], weights, strict=True):
                parameter.copy_(weight)
        return loss

    return replay


def failing_capture(step, optimizer):
    """A capture that fails halfway, when weights and generators have already changed."""
    step()
    raise RuntimeError("operation not permitted\n  when stream is capturing")


# --- compilers ---------------------------------------------------------------------------------------------------------------


def wrapping_compiler(plain):
    """A compiler that returns another module with the same weights."""
    return replace(plain, model=nn.Sequential(plain.model))


def wrong_compiler(plain):
    """A compiler whose model computes something else."""
    return replace(plain, model=nn.Sequential(plain.model, nn.Threshold(0.1, 0.3)))


def failing_compiler(plain):
    """A compiler that fails."""
    raise RuntimeError("no\nC compiler")


# --- steps -------------------------------------------------------------------------------------------------------------------


def plain_step(optimizer=FUSED_ADAM, loss=None, precision="fp32", device="cpu"):
    """The plain step of a small network with drop-out and batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)).to(device)
    loss, format_ = loss or Seesaw(), Precision(precision)
    loss_state = {name: tensor.to(device) for name, tensor in loss.state(4, torch.Generator().manual_seed(3)).items()}
    counts_C = torch.tensor([9.0, 5.0, 2.0, 1.0], device=device)
    return PlainStep(model, optimizer(model.parameters(), lr=LR), format_.scaler(CPU), format_, loss, counts_C, loss_state)


def batch_of(size=6, device="cpu"):
    """Images, targets, and how many images of each class the sampler draws."""
    source = torch.Generator().manual_seed(size)
    batch = torch.randn(size, 3, 2, 2, generator=source), torch.eye(4)[torch.arange(size) % 4], torch.full((4,), 7.0)
    return tuple(tensor.to(device) for tensor in batch)


def training_state(plain):
    """Copies of all tensors and numbers that training changes, and the generator's state."""
    kept = [*plain.optimizer.state.values(), *group_options(plain.optimizer)]
    moments = [torch.as_tensor(value) for values in kept for value in values.values() if isinstance(value, torch.Tensor | int | float)]
    tensors = [*plain.model.state_dict().values(), *moments, *plain.loss_state.values(), torch.get_rng_state()]
    return [tensor.detach().clone() for tensor in tensors]


def trained(step, sizes=(6, 6, 6)):
    """The losses of batches of these sizes, under a learning rate that is halved after each, and the final training state."""
    torch.manual_seed(11)
    plain, losses = getattr(step, "plain", step), []
    for number, size in enumerate(sizes):
        set_lr(plain.optimizer, LR / 2**number)
        images_BCHW, targets_BC, sampled_C = batch_of(size, plain.device)
        plain.loss.advance(plain.loss_state, targets_BC)
        losses.append(float(step(images_BCHW + number, targets_BC, sampled_C)))
    return losses, training_state(plain)


def assert_equal_bits(first, second):
    """Two results of `trained` have the same losses and the same tensors."""
    assert first[0] == second[0]
    assert len(first[1]) == len(second[1])
    assert all(torch.equal(one, other) for one, other in zip(first[1], second[1], strict=True))
