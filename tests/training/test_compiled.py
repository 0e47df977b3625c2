"""The step that torch.compile compiles on this machine's CPU, against the plain one."""

import shutil

import pytest
import torch
from torch import nn

from ablation.training.accelerated import AcceleratedStep
from ablation.training.compiled import compile_model
from tests.training.steps import FUSED_ADAM, FUSED_SGD, plain_step, trained


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize(("optimizer", "tolerance"), [(FUSED_ADAM, 0.3), (FUSED_SGD, 1e-4)])
def test_a_compiled_step_is_the_plain_one_but_for_rounding(optimizer, tolerance):
    """With drop-out, batch norm, falling rates and a shorter batch between full ones: equal draws, nearly equal losses and weights.

    The gradient of the bias before batch norm is only rounding, and Adam makes full steps of it.
    """
    plain, step = plain_step(optimizer), AcceleratedStep(plain_step(optimizer), None, compile_model)
    start = nn.utils.parameters_to_vector(plain.model.parameters()).detach().clone()
    (compiled_losses, compiled_state), (plain_losses, plain_state) = trained(step, (6, 6, 4, 6)), trained(plain, (6, 6, 4, 6))
    assert step.kind == "compiled"
    assert compiled_losses == pytest.approx(plain_losses, rel=1e-2 * tolerance + 1e-4)
    assert torch.equal(compiled_state[-1], plain_state[-1])  # the generator's state
    compiled_weights, plain_weights = (nn.utils.parameters_to_vector(each.model.parameters()).detach() for each in (step.plain, plain))
    assert float((compiled_weights - plain_weights).norm()) <= tolerance * float((plain_weights - start).norm())
