"""The step that is recorded once and replayed, with a stand-in on the CPU that calls the step again. B batch, C classes."""

import json
import shutil
import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablation.errors import TrainingError
from ablation.study.task import Interrupted
from ablation.techniques.losses import TECHNIQUES, Equalization, Seesaw
from ablation.training import captured, checkpoints
from ablation.training.captured import CapturedStep, Snapshot, chosen, recorded_on_cuda, suits
from ablation.training.step import PlainStep, Precision, set_lr
from tests.tiny import CPU, Planned, run_job, write

LR = 2**-8  # as a float32 it is the same number, and so is its half, the cosine's second epoch
MODEL = {"name": "test_efficientnet", "image_size": 16, "drop": 0.1, "drop_path": 0.2}
ADAMW, SGD = {"name": "adamw", "lr": LR}, {"name": "sgd", "lr": LR}
FUSED_ADAM, FUSED_SGD = partial(torch.optim.AdamW, fused=True), partial(torch.optim.SGD, momentum=0.9, fused=True)


def again(step, optimizer):
    """Warms up as a recording does, which moves the weights, and then calls the step anew each time."""
    for _ in range(3):
        step()
    return step


def frozen_draws(step, optimizer):
    """A recording whose random draws are those of its first replay ever after."""
    state = torch.get_rng_state()

    def replay():
        torch.set_rng_state(state)
        return step()

    return replay


def frozen_lr(step, optimizer):
    """A recording that does not see another learning rate."""
    lr = float(optimizer.param_groups[0]["lr"])

    def replay():
        set_lr(optimizer, lr)
        return step()

    return replay


def stale_batch(step, optimizer):
    """A recording that has copies of its own of the first batch, whatever it is given later."""
    copies = step.__closure__[0].cell_contents
    kept = [tensor.clone() for tensor in copies]

    def replay():
        for copy, tensor in zip(copies, kept, strict=True):
            copy.copy_(tensor)
        return step()

    return replay


def still(step, optimizer):
    """A recording that computes the loss and puts every weight back."""

    def replay():
        kept = [parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]]
        loss = step()
        with torch.no_grad():
            for parameter, value in zip(optimizer.param_groups[0]["params"], kept, strict=True):
                parameter.copy_(value)
        return loss

    return replay


def refused(step, optimizer):
    """A recording that fails in its midst, with weights and generators moved."""
    step()
    raise RuntimeError("operation not permitted\n  when stream is capturing")


def plain_step(optimizer=FUSED_ADAM, loss=None, precision="fp32", device="cpu"):
    """A small network with drop-out and batch norm, ready to be trained."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)).to(device)
    loss, format_ = loss or Seesaw(), Precision(precision)
    state = {name: tensor.to(device) for name, tensor in loss.state(4, torch.Generator().manual_seed(3)).items()}
    counts_C = torch.tensor([9.0, 5.0, 2.0, 1.0], device=device)
    return PlainStep(model, optimizer(model.parameters(), lr=LR), format_.scaler(CPU), format_, loss, counts_C, state)


def batch_of(size=6, device="cpu"):
    """Images, targets and what the sampler draws."""
    source = torch.Generator().manual_seed(size)
    batch = torch.randn(size, 3, 2, 2, generator=source), torch.eye(4)[torch.arange(size) % 4], torch.full((4,), 7.0)
    return tuple(tensor.to(device) for tensor in batch)


def everything(plain):
    """All tensors that training moves, and the generator's state."""
    moments = [moment for values in plain.optimizer.state.values() for moment in values.values()]
    tensors = [*plain.model.state_dict().values(), *moments, *plain.loss_state.values(), torch.get_rng_state()]
    return [tensor.detach().clone() for tensor in tensors]


def trained(step, sizes=(6, 6, 6)):
    """The losses of some batches, the learning rate falling from one to the next, and all that they leave."""
    torch.manual_seed(11)
    plain, losses = getattr(step, "plain", step), []
    for number, size in enumerate(sizes):
        set_lr(plain.optimizer, LR / 2**number)
        images_BCHW, targets_BC, sampled_C = batch_of(size, plain.device)
        plain.loss.advance(plain.loss_state, targets_BC)
        losses.append(float(step(images_BCHW + number, targets_BC, sampled_C)))
    return losses, everything(plain)


def assert_equal_bits(one, other):
    """Two trainings have the same losses and left the same tensors."""
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one[1], other[1], strict=True))


def study(folder, name, **base):
    """What a study's only stage left: the tensors of its file and its record."""
    planned = Planned(write(folder, name, base=base), folder / f"mlruns-{name}")
    planned.carry_out()
    return checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)


@pytest.fixture
def capturing(monkeypatch):
    """Switches on that trainings of this test take the captured step, recorded by the stand-in."""
    return lambda: monkeypatch.setattr("ablation.training.loop.chosen", lambda plain, *_, **__: CapturedStep(plain, again))


# --- replaying ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": ADAMW},
        {"optimizer": SGD, "drop_last": False, "mix": "mixup"},
        {"optimizer": SGD | {"momentum": 0.0}, "loss": "equalization", "sampler": "class_balanced"},
        {"optimizer": ADAMW, "loss": "seesaw", "precision": "bf16", "model": MODEL | {"image_size": 32}},
    ],
)
def test_a_captured_training_gives_the_bits_of_the_plain_one(tmp_path, capturing, change):
    """Weights, buffers, averages and losses of two epochs, with drop path and a shorter last batch, are equal."""
    plain = study(tmp_path, "plain", **{"model": MODEL} | change)
    capturing()
    other = study(tmp_path, "captured", **{"model": MODEL} | change)
    assert (plain.record["step"], other.record["step"]) == ("plain", "captured")
    assert plain.tensors.keys() == other.tensors.keys()
    assert [name for name in plain.tensors if not torch.equal(plain.tensors[name], other.tensors[name])] == []
    assert [row["values"]["train/loss"] for row in plain.record["history"]] == [row["values"]["train/loss"] for row in other.record["history"]]


def test_a_captured_training_goes_on_from_a_checkpoint(tmp_path, capturing):
    """Stopped after an epoch and recorded anew with the saved moments, it ends with the bits of an unbroken plain training."""
    settings = {"model": MODEL, "optimizer": ADAMW}
    plain = study(tmp_path, "plain", **settings)
    capturing()
    planned = Planned(write(tmp_path, "stopped", base=settings), tmp_path / "mlruns")
    with pytest.raises(Interrupted):
        run_job(planned.jobs()[0], CPU, lambda _: None, lambda: True)
    assert planned.carry_out() == 1
    other = checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)
    assert other.record["step"] == "captured"
    assert [name for name in plain.tensors if not torch.equal(plain.tensors[name], other.tensors[name])] == []


def test_a_captured_head_on_a_frozen_backbone_is_the_plain_one(tmp_path, capturing):
    """A classifier that is trained on features is recorded by itself, to the same bits."""
    stages = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "mix": "none"}]
    layers = {"base": {"model": MODEL, "optimizer": ADAMW, "mix": "mixup", "schedule": "constant"}, "ladder": {"head": {"stages": stages}}}
    ends = []
    for name in ("plain", "captured"):
        planned = Planned(write(tmp_path, name, **layers), tmp_path / f"in-{name}")
        planned.carry_out()
        ends.append(checkpoints.read(planned.last_stage("head") / checkpoints.FINAL))
        capturing()
    plain, other = ends
    assert (plain.record["step"], other.record["step"]) == ("plain", "captured")
    assert [name for name in plain.tensors if not torch.equal(plain.tensors[name], other.tensors[name])] == []


@pytest.mark.parametrize("loss", [Seesaw(), Equalization(gamma=0.5, rarity=2.0)])
@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
def test_steps_of_any_size_equal_the_plain_ones(optimizer, loss):
    """Falling learning rates, a loss with a state and a shorter batch between whole ones leave what plain steps leave."""
    plain, step = plain_step(optimizer, loss), CapturedStep(plain_step(optimizer, loss), again)
    sizes = (6, 6, 4, 6)
    assert_equal_bits(trained(plain, sizes), trained(step, sizes))
    assert step.kind == "captured"


def test_only_whole_batches_are_replayed():
    """A batch of another size than the first takes the plain step."""
    calls = []

    def counted(step, optimizer):
        return lambda: calls.append(len(calls)) or step()

    step = CapturedStep(plain_step(), counted)
    trained(step, (6, 6, 4, 6))
    assert len(calls) == 2 + 3  # two to prove it


def test_a_replaced_state_of_the_loss_is_read():
    """A loss of one's own that puts a new tensor into its state, instead of changing the old one, trains as it does plainly."""

    class Replacing(Seesaw):
        def advance(self, state, targets_BC):
            state["seen"] = state["seen"] + targets_BC.sum(0)

    states = []

    def noted(step, optimizer):
        return lambda: states.append(plain.loss_state["seen"]) or step()

    plain = plain_step(loss=Replacing())
    step = CapturedStep(plain, noted)
    assert_equal_bits(trained(plain_step(loss=Replacing())), trained(step))
    assert len(states) == 2 + 3
    assert all(state is states[0] for state in states)  # the memory that a graph reads


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_stage_says_what_it_asks_for(tmp_path, monkeypatch, deterministic):
    """The choice is told the number of whole batches until the end, here two epochs of six, and whether equal bits are wanted."""
    asked = []
    monkeypatch.setattr("ablation.training.loop.chosen", lambda plain, *given, **named: asked.append((given, named)) or plain)
    study(tmp_path, "asked", deterministic=deterministic, drop_last=False)
    torch.use_deterministic_algorithms(False)
    assert asked == [((12,), {"deterministic": deterministic, "is_compiled": False})]


def test_a_result_says_how_it_was_trained(tmp_path, capturing):
    """It is read from the stage."""
    capturing()
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    planned.carry_out()
    assert json.loads((planned.result("baseline") / "result.json").read_text())["tags"]["step"] == "captured"


# --- proof and falling back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (refused, "plain: RuntimeError: operation not permitted when stream is capturing"),
        (frozen_draws, "plain: the step's loss is "),
        (stale_batch, "plain: the step's loss is "),
        (frozen_lr, "plain: the step moves the weights otherwise than the plain one, by "),
        (still, "plain: the step"),
    ],
)
def test_what_cannot_be_trusted_is_not_used(record, reason, optimizer):
    """A recording that fails or does otherwise leaves the reason and a training that is plain to the bit."""
    plain, step = plain_step(optimizer), CapturedStep(plain_step(optimizer), record)
    assert_equal_bits(trained(plain), trained(step))
    assert step.kind.startswith(reason)
    assert isinstance(step.plain.optimizer.param_groups[0]["lr"], float)


def test_a_loss_that_is_no_number_is_no_proof():
    """Where the plain loss is NaN, nothing can be compared, and the plain step stays to tell of it."""
    step = CapturedStep(plain_step(), again)
    images_BCHW, *others = batch_of()
    assert step(images_BCHW * torch.nan, *others).isnan()
    assert step.kind == "plain: the step's loss is nan, the plain one's nan"


def test_a_step_that_fails_plainly_tells_it_itself():
    """An error that is the model's own comes from the plain step, as it does without a recording."""
    step = CapturedStep(plain_step(), again)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        step(torch.zeros(6, 3, 3, 3), *batch_of()[1:])


def test_a_long_reason_is_cut():
    """A reason fits in a tag."""

    def verbose(step, optimizer):
        raise RuntimeError("x" * 9000)

    step = CapturedStep(plain_step(), verbose)
    trained(step, (6,))
    assert len(step.kind) == captured.LONGEST


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
@pytest.mark.parametrize("num_before", [0, 2])
def test_a_snapshot_puts_everything_back(optimizer, num_before):
    """After steps and `undo` every tensor, moment and draw is what it was, in the same memory; there are no new moments."""
    plain = plain_step(optimizer)
    trained(plain, (6,) * num_before)
    memory = [tensor.data_ptr() for tensor in plain.model.state_dict().values()]
    torch.manual_seed(5)
    snapshot = Snapshot(plain)
    before = everything(plain)
    trained(plain, (6, 4))
    snapshot.undo()
    assert_equal_bits(([], everything(plain)), ([], before))
    assert [tensor.data_ptr() for tensor in plain.model.state_dict().values()] == memory


# --- compiling ---------------------------------------------------------------------------------------------------------------


def compiled_badly(plain):
    """A step whose model the compiler got wrong."""
    return replace(plain, model=nn.Sequential(plain.model, nn.Threshold(0.1, 0.3)))


def not_compiled(plain):
    """A compiler that fails."""
    raise RuntimeError("no\nC compiler")


def through_a_wrapper(plain):
    """What stands for a compiled model: another module with the same weights."""
    return replace(plain, model=nn.Sequential(plain.model))


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize(("optimizer", "apart"), [(FUSED_ADAM, 0.3), (FUSED_SGD, 1e-4)])
def test_a_compiled_step_is_the_plain_one_but_for_rounding(optimizer, apart):
    """With drop-out, batch norm, falling rates and a shorter batch between whole ones: equal draws, nearly equal losses and weights.

    The bias before batch norm has no gradient but rounding, of which Adam makes whole steps.
    """
    plain, step = plain_step(optimizer), CapturedStep(plain_step(optimizer), None, captured.compiled)
    start = nn.utils.parameters_to_vector(plain.model.parameters()).detach().clone()
    ours, theirs = trained(step, (6, 6, 4, 6)), trained(plain, (6, 6, 4, 6))
    assert step.kind == "compiled"
    assert ours[0] == pytest.approx(theirs[0], rel=1e-2 * apart + 1e-4)
    assert torch.equal(ours[1][-1], theirs[1][-1])  # the generator's state
    here, there = (nn.utils.parameters_to_vector(one.model.parameters()).detach() for one in (step.plain, plain))
    assert float((here - there).norm()) <= apart * float((there - start).norm())


@pytest.mark.parametrize(
    ("record", "make", "kind"),
    [
        (None, through_a_wrapper, "compiled"),
        (again, through_a_wrapper, "compiled, captured"),
        (again, not_compiled, "captured (not compiled, captured: RuntimeError: no C compiler)"),
        (again, compiled_badly, "captured (not compiled, captured: the step's loss is "),
        (refused, not_compiled, "plain: RuntimeError: operation not permitted"),
    ],
)
def test_the_best_way_that_holds_is_taken(record, make, kind):
    """Compiled and captured, else one of them, else plain: with the bits of the plain step wherever the arithmetic is the same."""
    step = CapturedStep(plain_step(), record, make)
    assert_equal_bits(trained(plain_step()), trained(step))
    assert step.kind.startswith(kind)


@pytest.mark.parametrize(("make", "reason"), [(not_compiled, "RuntimeError: no C compiler"), (compiled_badly, "the step's loss is ")])
def test_what_has_to_be_compiled_is_not_trained_plainly(make, reason):
    """Where nothing is recorded, the plain step would give other bits under the compiled one's key: the training fails and says so."""
    step = CapturedStep(plain_step(), None, make)
    with pytest.raises(TrainingError, match=r"compile is true, but the compiled step cannot be used \(plain: .*; expected compile: false"):
        trained(step)
    assert step.kind.startswith(f"plain: {reason}")


def test_a_graph_goes_before_the_next_is_recorded():
    """Of two ways only one lives at a time: a graph takes workspaces of its stream with it."""
    alive = []

    class Graph:
        def __init__(self, step):
            assert not any(one() is not None for one in alive)
            alive.append(weakref.ref(self))
            self.step = step

        def __call__(self):
            return self.step()

    step = CapturedStep(plain_step(), lambda step, _: Graph(step), compiled_badly)
    trained(step)
    assert step.kind.startswith("captured (not compiled")
    assert len(alive) == 2


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_stage_is_compiled_where_the_file_says_so(tmp_path, monkeypatch, is_compiled):
    """What is compiled has a key of its own, and goes on to the same bits after a stop."""
    monkeypatch.setattr(captured, "compiled", through_a_wrapper)
    planned = Planned(write(tmp_path, "once", base={"compile": is_compiled}), tmp_path / "mlruns")
    planned.carry_out()
    saved = checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)
    assert saved.record["step"] == ("compiled" if is_compiled else "plain")
    other = Planned(write(tmp_path, "plain"), tmp_path / "mlruns-plain")
    assert (planned.jobs()[0].key != other.jobs()[0].key) == is_compiled
    stopped = Planned(write(tmp_path, "stopped", base={"compile": is_compiled}), tmp_path / "mlruns-stopped")
    with pytest.raises(Interrupted):
        run_job(stopped.jobs()[0], CPU, lambda _: None, lambda: True)
    assert stopped.carry_out() == 1
    found = checkpoints.read(stopped.last_stage("baseline") / checkpoints.FINAL)
    assert [name for name in saved.tensors if not torch.equal(saved.tensors[name], found.tensors[name])] == []


def test_a_head_on_a_frozen_backbone_is_not_compiled(tmp_path, monkeypatch):
    """There is next to nothing to compile."""
    made = []
    monkeypatch.setattr(captured, "compiled", lambda plain: made.append(plain) or plain)
    stages = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]
    planned = Planned(write(tmp_path, base={"model": MODEL, "compile": True}, ladder={"head": {"stages": stages}}), tmp_path / "mlruns")
    planned.carry_out()
    assert checkpoints.read(planned.last_stage("head") / checkpoints.FINAL).record["step"] == "plain"
    assert len(made) == 1


# --- when ------------------------------------------------------------------------------------------------------------------


class OnCuda(PlainStep):
    """A step that says that its weights are on a CUDA device."""

    device = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("change", "num_steps", "deterministic", "expected"),
    [
        ({}, 20, False, True),
        ({"precision": "bf16"}, 20, False, True),
        ({"optimizer": FUSED_SGD}, 20, False, True),
        ({"optimizer": partial(torch.optim.Adam, fused=True)}, 20, False, True),
        ({"precision": "fp16"}, 20, False, False),
        ({}, 20, True, False),
        ({}, 19, False, False),
        ({"optimizer": partial(torch.optim.AdamW, fused=False)}, 20, False, False),
        ({"optimizer": torch.optim.SGD}, 20, False, False),
        ({"optimizer": torch.optim.RMSprop}, 20, False, False),
        ({"optimizer": type("Own", (torch.optim.AdamW,), {})}, 20, False, False),
    ],
)
def test_when_a_step_is_captured(change, num_steps, deterministic, expected):
    """On CUDA in fp32 and bf16, with torch's fused optimizers, enough steps and no wish for equal bits; never on the CPU."""
    plain = plain_step(**change)
    on_cuda = OnCuda(**vars(plain))
    assert suits(on_cuda, num_steps, deterministic=deterministic) == expected
    assert isinstance(chosen(on_cuda, num_steps, deterministic=deterministic), CapturedStep) == expected
    assert chosen(plain, num_steps, deterministic=deterministic) is plain


# --- recording ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def events(monkeypatch):
    """What is asked of torch.cuda, in order, by stand-ins that do nothing."""
    found = []

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_stream(self, other):
            found.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def within(what):
        found.append(f"enter {what}")
        try:
            yield
        finally:
            found.append(f"leave {what}")

    main, graph = Stream("main"), SimpleNamespace(replay=lambda: found.append("replay"))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: found.append(f"back to {stream.name}"))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: found.append(f"waiting is {mode}"))
    monkeypatch.setattr(captured, "_side", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: within(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda given, stream: within(f"recording on {stream.name}") if given is graph else None)
    return found


@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
def test_recording_keeps_to_the_documented_order(events, optimizer):
    """Three steps on a side stream, one recorded there from gradients of None and capturable, then replays that give its loss."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = optimizer([weight], lr=LR)

    def step():
        flags = [group.get("capturable") for group in optimizer.param_groups]
        events.append(f"step with {'no' if weight.grad is None else 'a'} gradient, capturable {flags}")
        weight.grad = torch.ones(2)
        return weight.sum().detach()

    replay = recorded_on_cuda(step, optimizer)
    was, on = ("False", "True") if isinstance(optimizer, torch.optim.AdamW) else ("None", "None")
    first, later = (f"step with {before} gradient, capturable [{was}]" for before in ("no", "a"))
    warm_up = [first, "waiting is error", later, later, "waiting is default"]
    recording = ["enter recording on side", f"step with no gradient, capturable [{on}]", "leave recording on side", "back to main"]
    assert events == ["side waits for main", "enter side", *warm_up, "leave side", "main waits for side", *recording]
    assert replay() is replay()
    assert events[-2:] == ["replay", "replay"]
    assert optimizer.param_groups[0].get("capturable") == {"False": False, "None": None}[was]


def test_a_broken_recording_leaves_the_optimizer_as_it_was(events):
    """A step that fails while it is recorded leaves no mark that makes torch warn of each plain step."""
    optimizer = FUSED_ADAM([nn.Parameter(torch.ones(2))], lr=LR)

    def step():
        if "enter recording on side" in events:
            raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        recorded_on_cuda(step, optimizer)
    assert events[-1] == "back to main"
    assert optimizer.param_groups[0]["capturable"] is False


# --- on a CUDA device --------------------------------------------------------------------------------------------------------


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", [FUSED_ADAM, FUSED_SGD])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_trains_as_the_plain_step_does(optimizer, precision):
    """Recorded as a CUDA graph, drop-out, falling learning rates and a shorter batch included, losses stay close to the plain ones."""
    plain, step = (plain_step(optimizer, precision=precision, device="cuda") for _ in range(2))
    step = CapturedStep(step, recorded_on_cuda)
    sizes = (6, 6, 4, 6, 6)
    assert trained(step, sizes)[0] == pytest.approx(trained(plain, sizes)[0], rel=2e-2 if precision == "bf16" else 1e-3)
    assert step.kind == "captured"
    for found, expected in zip(step.plain.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 if precision == "fp32" else 2e-2)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("loss", TECHNIQUES)
def test_every_loss_can_be_recorded(loss):
    """No loss looks at the host or keeps a number there."""
    step = CapturedStep(plain_step(loss=loss(weights={"name": "inverse"}), device="cuda"), recorded_on_cuda)
    trained(step)
    assert step.kind == "captured"


@pytest.mark.gpu
@needs_cuda
def test_a_failed_recording_leaves_a_plain_training():
    """A loss that looks at the host breaks the recording; training goes on from where it was."""

    class Looking(Seesaw):
        def losses_BC(self, logits_BC, prior_C, state=None):
            assert float(logits_BC.sum()) < 1e9
            return super().losses_BC(logits_BC, prior_C, state)

    plain, step = (plain_step(loss=Looking(), device="cuda") for _ in range(2))
    step = CapturedStep(step, recorded_on_cuda)
    assert trained(step)[0] == pytest.approx(trained(plain)[0], rel=1e-3)
    assert step.kind.startswith("plain: ")
