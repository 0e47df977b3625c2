"""The step that is captured once and replayed: with a stand-in on the CPU, and as a graph on a CUDA device. B batch, C classes."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablation.techniques.losses import TECHNIQUES, Equalization, Seesaw
from ablation.training import captured
from ablation.training.accelerated import AcceleratedStep
from ablation.training.captured import capture_on_cuda
from tests.training.steps import FUSED_ADAM, FUSED_SGD, LR, assert_equal_bits, call_again, plain_step, trained


@pytest.mark.parametrize("loss", [Seesaw(), Equalization(gamma=0.5, rarity=2.0)])
@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
def test_steps_of_any_size_equal_the_plain_ones(optimizer, loss):
    """Falling learning rates, a loss with a state and a shorter batch between full ones leave what plain steps leave."""
    plain, step = plain_step(optimizer, loss), AcceleratedStep(plain_step(optimizer, loss), call_again)
    sizes = (6, 6, 4, 6)
    assert_equal_bits(trained(plain, sizes), trained(step, sizes))
    assert step.kind == "captured"


def test_only_full_batches_are_replayed():
    """A batch of another size than the first takes the plain step."""
    replays = []

    def counting(step, optimizer):
        return lambda: replays.append(len(replays)) or step()

    step = AcceleratedStep(plain_step(), counting)
    trained(step, (6, 6, 4, 6))
    assert len(replays) == 2 + 3  # two for the verification


def test_a_replaced_state_of_the_loss_is_read():
    """A user's loss that replaces the tensor in its state, instead of changing it, trains as it does with plain steps."""

    class Replacing(Seesaw):
        def advance(self, state, targets_BC):
            state["seen"] = state["seen"] + targets_BC.sum(0)

    states = []

    def noting(step, optimizer):
        return lambda: states.append(plain.loss_state["seen"]) or step()

    plain = plain_step(loss=Replacing())
    step = AcceleratedStep(plain, noting)
    assert_equal_bits(trained(plain_step(loss=Replacing())), trained(step))
    assert len(states) == 2 + 3
    assert all(state is states[0] for state in states)  # the memory that a graph reads


# --- the order of calls of torch.cuda ----------------------------------------------------------------------------------------


@pytest.fixture
def events(monkeypatch):
    """The calls of torch.cuda in their order, recorded by stand-ins that do nothing."""
    calls = []

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_stream(self, stream):
            calls.append(f"{self.name} waits for {stream.name}")

    @contextmanager
    def context(name):
        calls.append(f"enter {name}")
        try:
            yield
        finally:
            calls.append(f"leave {name}")

    main, graph = Stream("main"), SimpleNamespace(replay=lambda: calls.append("replay"))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: calls.append(f"back to {stream.name}"))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: calls.append(f"waiting is {mode}"))
    monkeypatch.setattr(captured, "_capture_stream", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: context(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda argument, stream: context(f"capture on {stream.name}") if argument is graph else None)
    return calls


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
def test_a_capture_keeps_to_the_documented_order(events, optimizer):
    """Three steps on a side stream, one captured there with gradients of None and capturable, then replays that return its loss."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = optimizer([weight], lr=LR)

    def step():
        flags = [group.get("capturable") for group in optimizer.param_groups]
        events.append(f"step with {'no' if weight.grad is None else 'a'} gradient, capturable {flags}")
        weight.grad = torch.ones(2)
        return weight.sum().detach()

    replay = capture_on_cuda(step, optimizer)
    off, on = ("False", "True") if isinstance(optimizer, torch.optim.AdamW) else ("None", "None")
    first, later = (f"step with {article} gradient, capturable [{off}]" for article in ("no", "a"))
    warm_up = [first, "waiting is error", later, later, "waiting is default"]
    capture = ["enter capture on side", f"step with no gradient, capturable [{on}]", "leave capture on side", "back to main"]
    assert events == ["side waits for main", "enter side", *warm_up, "leave side", "main waits for side", *capture]
    assert replay() is replay()
    assert events[-2:] == ["replay", "replay"]
    assert optimizer.param_groups[0].get("capturable") == {"False": False, "None": None}[off]


def test_a_failed_capture_leaves_the_optimizer_as_it_was(events):
    """If a step fails during the capture, `capturable` is off again, of which torch would warn in each plain step."""
    optimizer = FUSED_ADAM([nn.Parameter(torch.ones(2))], lr=LR)

    def step():
        if "enter capture on side" in events:
            raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        capture_on_cuda(step, optimizer)
    assert events[-1] == "back to main"
    assert optimizer.param_groups[0]["capturable"] is False


def test_after_a_failed_warm_up_the_main_stream_waits(events):
    """If a step of the warm-up fails, what it began on the side stream ends before the main one restores the weights."""
    for num_steps in range(3):
        events.clear()

        def step(last=num_steps):
            if events.count("step") == last:
                raise RuntimeError("no")
            events.append("step")

        with pytest.raises(RuntimeError, match="no"):
            capture_on_cuda(step, FUSED_ADAM([nn.Parameter(torch.ones(2))], lr=LR))
        assert events[-2:] == ["leave side", "main waits for side"]


# --- on a CUDA device --------------------------------------------------------------------------------------------------------


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_trains_as_the_plain_step_does(optimizer, precision):
    """Captured as a CUDA graph, with drop-out, falling learning rates and a shorter batch, losses stay close to the plain ones."""
    plain, step = (plain_step(optimizer, precision=precision, device="cuda") for _ in range(2))
    step = AcceleratedStep(step, capture_on_cuda)
    sizes = (6, 6, 4, 6, 6)
    assert trained(step, sizes)[0] == pytest.approx(trained(plain, sizes)[0], rel=2e-2 if precision == "bf16" else 1e-3)
    assert step.kind == "captured"
    for tensor, expected in zip(step.plain.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-3 if precision == "fp32" else 2e-2)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("loss", TECHNIQUES)
def test_every_loss_can_be_captured(loss):
    """No loss reads a value on the host or keeps a number there."""
    step = AcceleratedStep(plain_step(loss=loss(weights={"name": "inverse"}), device="cuda"), capture_on_cuda)
    trained(step)
    assert step.kind == "captured"


@pytest.mark.gpu
@needs_cuda
def test_a_failed_capture_leaves_a_plain_training():
    """A loss that reads a value on the host makes the capture fail; the training continues as if nothing had happened."""

    class ReadingOnHost(Seesaw):
        def losses_BC(self, logits_BC, prior_C, state=None):
            assert float(logits_BC.detach().sum()) < 1e9
            return super().losses_BC(logits_BC, prior_C, state)

    plain, step = (plain_step(loss=ReadingOnHost(), device="cuda") for _ in range(2))
    step = AcceleratedStep(step, capture_on_cuda)
    assert trained(step)[0] == pytest.approx(trained(plain)[0], rel=1e-3)
    assert step.kind.startswith("plain: ")
