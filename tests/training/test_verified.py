"""A step that does anything else than the plain one is not used, and verification leaves no trace. B batch, C classes."""

import pytest
import timm.optim
import torch

from ablation.training.accelerated import AcceleratedStep
from ablation.training.verified import MAX_REASON_LENGTH, Snapshot
from tests.training.steps import (
    FUSED_ADAM,
    FUSED_SGD,
    assert_equal_bits,
    batch_of,
    call_again,
    failing_capture,
    frozen_draws,
    frozen_lr,
    plain_step,
    stale_batch,
    trained,
    training_state,
    without_update,
)


class LateCounting(torch.optim.SGD):
    """Has its buffers at once, and counts from the first step on, by a number that begins at 1."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["sum"] = torch.zeros_like(parameter)

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            kept = self.state[parameter]
            kept["product"] = kept.get("product", 1.0) * 1.5
            kept["sum"] += parameter.grad
            parameter.data.sub_(kept["sum"], alpha=self.param_groups[0]["lr"] * kept["product"])


COUNTING = [LateCounting, timm.optim.AdamP, timm.optim.Adan]  # the numbers of steps of each parameter, and of the group


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (failing_capture, "plain: RuntimeError: operation not permitted when stream is capturing"),
        (frozen_draws, "plain: the step's loss is "),
        (stale_batch, "plain: the step's loss is "),
        (frozen_lr, "plain: the step changes the weights differently than the plain one, by "),
        (without_update, "plain: the step"),
    ],
)
def test_a_wrong_capture_is_not_used(capture, reason, optimizer):
    """If a capture fails or does something else, the reason is kept, and the training is plain to the bit."""
    plain, step = plain_step(optimizer), AcceleratedStep(plain_step(optimizer), capture)
    assert_equal_bits(trained(plain), trained(step))
    assert step.kind.startswith(reason)
    assert isinstance(step.plain.optimizer.param_groups[0]["lr"], float)


def test_a_loss_that_is_nan_verifies_nothing():
    """If the plain loss is NaN there is nothing to compare, and the plain step stays to report it."""
    step = AcceleratedStep(plain_step(), call_again)
    images_BCHW, targets_BC, sampled_C = batch_of()
    assert step(images_BCHW * torch.nan, targets_BC, sampled_C).isnan()
    assert step.kind == "plain: the step's loss is nan, that of the plain one nan"


def test_an_error_of_the_plain_step_is_raised():
    """An error of the model itself comes from the plain step, as it does without a capture."""
    step = AcceleratedStep(plain_step(), call_again)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        step(torch.zeros(6, 3, 3, 3), *batch_of()[1:])


@pytest.mark.parametrize("optimizer", COUNTING)
@pytest.mark.parametrize("capture", [failing_capture, frozen_draws, stale_batch])
def test_an_optimizer_that_counts_in_numbers_goes_on_as_if_nothing_had_happened(optimizer, capture):
    """Its counts after trials are those before."""
    plain, step = plain_step(optimizer), AcceleratedStep(plain_step(optimizer), capture)
    assert_equal_bits(trained(plain), trained(step))
    assert step.kind.startswith("plain: ")


def test_a_long_reason_is_cut():
    """A reason fits into a tag."""

    def verbose(step, optimizer):
        raise RuntimeError("x" * 9000)

    step = AcceleratedStep(plain_step(), verbose)
    trained(step, (6,))
    assert len(step.kind) == MAX_REASON_LENGTH


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD, *COUNTING])
@pytest.mark.parametrize("num_before", [0, 2])
def test_a_snapshot_restores_everything(optimizer, num_before):
    """After steps and `undo` every tensor, moment and draw is what it was, in the same memory, and there are no new moments."""
    plain = plain_step(optimizer)
    trained(plain, (6,) * num_before)
    memory = [tensor.data_ptr() for tensor in plain.model.state_dict().values()]
    torch.manual_seed(5)
    snapshot = Snapshot(plain)
    before = training_state(plain)
    trained(plain, (6, 4))
    snapshot.undo()
    assert_equal_bits(([], training_state(plain)), ([], before))
    assert [tensor.data_ptr() for tensor in plain.model.state_dict().values()] == memory
