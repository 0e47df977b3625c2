"""A captured step is the plain one, or the plain one is taken. What a CUDA graph does is done here by a stand-in. B batch, C classes."""

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file

import ablation
from ablation.training import captured as capturing
from ablation.training import loop
from ablation.training.captured import CudaGraph, PlainStep, captured, why_plain
from ablation.training.step import Precision, set_rate
from tests.tiny import CPU, Planned, write


class StandIn:
    """Records by doing the thing a few times, as warming up does, and replays by doing it again."""

    recorded = 0

    def record(self, function, forget):
        for _ in range(capturing.WARM_UPS):
            function()
        forget()
        self.function, self.output = function, function()
        StandIn.recorded += 1

    def replay(self):
        return self.output.copy_(self.function())


class Stale(StandIn):
    """One that replays nothing."""

    def replay(self):
        return self.output


class Failing(StandIn):
    """One that takes some steps and then cannot record."""

    def record(self, function, forget):
        super().record(function, forget)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def made(loss="cross_entropy", optimizer="adamw"):
    torch.manual_seed(0)
    net = timm.create_model("test_efficientnet", num_classes=10, drop_path_rate=0.2).train()
    loss = ablation.make("losses", loss)
    counts_C = torch.arange(10.0, 0, -1)
    state = loss.state(10, torch.Generator().manual_seed(0))
    how = ablation.make("optimizers", optimizer)(list(net.parameters()))
    return PlainStep(net, how, torch.amp.GradScaler("cpu", enabled=False), Precision("fp32"), loss, counts_C, state)


def batch(size=8, seed=1):
    source = torch.Generator().manual_seed(seed)
    targets_BC = torch.eye(10)[torch.randint(0, 10, (size,), generator=source)]
    return torch.randn(size, 3, 16, 16, generator=source), targets_BC, torch.ones(10)


def states(plain):
    """Copies of everything that a step changes."""
    moments = [value.clone() for values in plain.optimizer.state.values() for value in values.values()]
    return [*(t.clone() for t in plain.net.state_dict().values()), *moments, *(t.clone() for t in plain.loss_state.values())]


def trained(plain, step, num_steps=4):
    torch.manual_seed(3)
    losses = []
    for i in range(num_steps):
        set_rate(plain.optimizer, 2.0 ** -(7 + i))  # which a tensor in float32 holds to the bit
        losses.append(float(step(*batch(5 if i == 3 else 8, seed=i))))
    return losses


@pytest.mark.parametrize("loss", ["cross_entropy", "equalization", {"name": "seesaw"}])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_captured_steps_are_plain_steps(loss, optimizer):
    """Losses, weights, statistics and moments come out to the bit, drop path and a shorter last batch included, whatever the rate."""
    plain, other = made(loss, optimizer), made(loss, optimizer)
    step, why = captured(other, StandIn(), *batch())
    assert (why, type(step).__name__) == ("", "CapturedStep")
    assert trained(plain, plain) == trained(other, step)
    assert all(torch.equal(one, two) for one, two in zip(states(plain), states(other), strict=True))


def test_capturing_changes_nothing():
    """Weights, statistics, moments and random numbers are after recording what they were before, in the middle of a training too."""
    plain = made()
    trained(plain, plain)
    before, random = states(plain), torch.get_rng_state()
    captured(plain, StandIn(), *batch())
    assert all(torch.equal(one, two) for one, two in zip(before, states(plain), strict=True))
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in plain.net.parameters())


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (Failing, "capturing failed: operation not permitted when stream is capturing"),
        (Stale, "its update differed from the plain step's by 100%"),
    ],
)
def test_what_cannot_be_captured_is_trained_plainly(graph, why):
    """An error while recording, or a replay that does something else, leaves the plain step, the state untouched, and says why."""
    plain, other = made(), made()
    step, reason = captured(other, graph(), *batch())
    assert (step, reason) == (other, why)
    assert all(group["lr"] == pytest.approx(1e-3) and not isinstance(group["lr"], torch.Tensor) for group in other.optimizer.param_groups)
    assert trained(plain, plain) == trained(other, step)


def test_when_a_step_is_captured():
    """On CUDA, where it is not the reference, needs no look at the gradients, and lasts."""
    cuda, plain = torch.device("cuda"), made()
    assert why_plain(plain, cuda, 100, deterministic=False) == ""
    assert "CPU" in why_plain(plain, CPU, 100, deterministic=False)
    assert "deterministic" in why_plain(plain, cuda, 100, deterministic=True)
    assert "too few" in why_plain(plain, cuda, 5, deterministic=False)
    plain.optimizer.param_groups[0]["fused"] = False
    assert "fused" in why_plain(plain, cuda, 100, deterministic=False)


def test_a_study_trained_by_captured_steps_has_the_plain_one_s_bits(tmp_path, monkeypatch):
    """Stages, heads, averages and stopping included; each run says how it was trained."""
    ladder = {"plain": {"mix": "mixup"}, "head": {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "mix": "none"}]}}
    file = write(tmp_path, "tiny", base={"epochs": 4, "schedule": "constant", "optimizer": {"name": "adamw", "lr": 2.0**-8}}, ladder=ladder)
    plainly = Planned(file, tmp_path / "plain")
    plainly.carry_out()
    monkeypatch.setattr(loop, "why_plain", lambda *_, **__: "")
    monkeypatch.setattr(loop, "CudaGraph", StandIn)
    before = StandIn.recorded
    quickly = Planned(file, tmp_path / "captured")
    quickly.carry_out()
    assert StandIn.recorded > before
    for arm in ladder:
        tables = [pd.read_parquet(one.result(arm) / "predictions.parquet") for one in (plainly, quickly)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
        tensors = [load_file(one.last_stage(arm) / "final.safetensors") for one in (plainly, quickly)]
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        said = [(one.result(arm) / "result.json").read_text() for one in (plainly, quickly)]
        assert '"step": "plain: on the CPU' in said[0]
        assert '"step": "captured"' in said[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda_replayed_steps_follow_plain_ones(precision):
    """Twenty steps recorded as a CUDA graph end near those trained plainly, and really were recorded."""
    device = torch.device("cuda")
    ends = []
    for is_captured in (False, True):
        torch.manual_seed(0)
        net = timm.create_model("test_efficientnet", num_classes=10).to(device).to(memory_format=torch.channels_last).train()
        how = ablation.make("optimizers", "adamw")(list(net.parameters()))
        scaler, loss = torch.amp.GradScaler("cuda", enabled=False), ablation.make("losses", "cross_entropy")
        plain = PlainStep(net, how, scaler, Precision(precision), loss, torch.ones(10, device=device), {})
        batches = [tuple(one.to(device) for one in batch(32, seed=i)) for i in range(20)]
        step, why = captured(plain, CudaGraph(), *batches[0]) if is_captured else (plain, "")
        assert why == ""
        ends.append([float(step(*one)) for one in batches])
    torch.testing.assert_close(torch.tensor(ends[1]), torch.tensor(ends[0]), rtol=0.05, atol=0.02)
