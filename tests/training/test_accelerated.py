"""The accelerated step: when it is chosen, what it falls back on, and that a training with it has the bits of a plain one."""

import json
import weakref
from functools import partial

import pytest
import torch

from ablation.errors import TrainingError
from ablation.study.task import Interrupted
from ablation.training import accelerated, checkpoints, verified
from ablation.training.accelerated import AcceleratedStep, can_capture, choose_step, with_room
from ablation.training.step import PlainStep
from ablation.training.verified import COMPILED_TOLERANCES, TrialResult, difference
from tests.tiny import CPU, Planned, run_job, write
from tests.training.steps import (
    FUSED_SGD,
    LR,
    assert_equal_bits,
    batch_of,
    call_again,
    failing_capture,
    failing_compiler,
    plain_step,
    trained,
    wrapping_compiler,
    wrong_compiler,
)

MODEL = {"name": "test_efficientnet", "image_size": 16, "drop": 0.1, "drop_path": 0.2}
ADAMW, SGD = {"name": "adamw", "lr": LR}, {"name": "sgd", "lr": LR}


def final_state(folder, name, **base):
    """The saved state of a study's only stage."""
    planned = Planned(write(folder, name, base=base), folder / f"mlruns-{name}")
    planned.carry_out()
    return checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)


def differing(first, second):
    """The names of the tensors of which two saved states have other bits."""
    return [name for name in first.tensors if not torch.equal(first.tensors[name], second.tensors[name])]


@pytest.fixture
def capturing(monkeypatch):
    """Call it to have later trainings of the test use the captured step, with a stand-in for the capture."""
    return lambda: monkeypatch.setattr("ablation.training.loop.choose_step", lambda plain, *_, **__: AcceleratedStep(plain, call_again))


# --- trainings ---------------------------------------------------------------------------------------------------------------


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
    plain = final_state(tmp_path, "plain", **{"model": MODEL} | change)
    capturing()
    captured = final_state(tmp_path, "captured", **{"model": MODEL} | change)
    assert (plain.record["step"], captured.record["step"]) == ("plain", "captured")
    assert plain.tensors.keys() == captured.tensors.keys()
    assert differing(plain, captured) == []
    losses = [[row["values"]["train/loss"] for row in saved.record["history"]] for saved in (plain, captured)]
    assert losses[0] == losses[1]


def test_a_captured_training_continues_from_a_checkpoint(tmp_path, capturing):
    """Stopped after an epoch and captured again with the saved moments, it ends with the bits of an uninterrupted plain training."""
    settings = {"model": MODEL, "optimizer": ADAMW}
    plain = final_state(tmp_path, "plain", **settings)
    capturing()
    planned = Planned(write(tmp_path, "stopped", base=settings), tmp_path / "mlruns")
    with pytest.raises(Interrupted):
        run_job(planned.jobs()[0], CPU, lambda _: None, lambda: True)
    assert planned.carry_out() == 1
    captured = checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)
    assert captured.record["step"] == "captured"
    assert differing(plain, captured) == []


def test_a_captured_head_on_a_frozen_backbone_is_the_plain_one(tmp_path, capturing):
    """The step of a classifier that is trained on features is captured, to the same bits."""
    stages = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "mix": "none"}]
    layers = {"base": {"model": MODEL, "optimizer": ADAMW, "mix": "mixup", "schedule": "constant"}, "ladder": {"head": {"stages": stages}}}
    finals = []
    for name in ("plain", "captured"):
        planned = Planned(write(tmp_path, name, **layers), tmp_path / f"in-{name}")
        planned.carry_out()
        finals.append(checkpoints.read(planned.last_stage("head") / checkpoints.FINAL))
        capturing()
    plain, captured = finals
    assert (plain.record["step"], captured.record["step"]) == ("plain", "captured")
    assert differing(plain, captured) == []


def test_a_result_says_how_it_was_trained(tmp_path, capturing):
    """The kind of the step is a tag of the result."""
    capturing()
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    planned.carry_out()
    assert json.loads((planned.result("baseline") / "result.json").read_text())["tags"]["step"] == "captured"


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_stage_is_compiled_if_the_file_says_so(tmp_path, monkeypatch, is_compiled):
    """A compiled training has a key of its own, and ends with the same bits after an interruption."""
    monkeypatch.setattr(accelerated, "compile_model", wrapping_compiler)
    planned = Planned(write(tmp_path, "once", base={"compile": is_compiled}), tmp_path / "mlruns")
    planned.carry_out()
    uninterrupted = checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)
    assert uninterrupted.record["step"] == ("compiled" if is_compiled else "plain")
    plain = Planned(write(tmp_path, "plain"), tmp_path / "mlruns-plain")
    assert (planned.jobs()[0].key != plain.jobs()[0].key) == is_compiled
    stopped = Planned(write(tmp_path, "stopped", base={"compile": is_compiled}), tmp_path / "mlruns-stopped")
    with pytest.raises(Interrupted):
        run_job(stopped.jobs()[0], CPU, lambda _: None, lambda: True)
    assert stopped.carry_out() == 1
    assert differing(uninterrupted, checkpoints.read(stopped.last_stage("baseline") / checkpoints.FINAL)) == []


def test_a_head_on_a_frozen_backbone_is_not_compiled(tmp_path, monkeypatch):
    """A classifier alone has next to nothing to compile."""
    compiled = []
    monkeypatch.setattr(accelerated, "compile_model", lambda plain: compiled.append(plain) or plain)
    stages = [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]
    planned = Planned(write(tmp_path, base={"model": MODEL, "compile": True}, ladder={"head": {"stages": stages}}), tmp_path / "mlruns")
    planned.carry_out()
    assert checkpoints.read(planned.last_stage("head") / checkpoints.FINAL).record["step"] == "plain"
    assert len(compiled) == 1


# --- choosing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_choice_depends_on_the_stage(tmp_path, monkeypatch, deterministic):
    """It gets the number of full batches until the end, here of two epochs of six, and whether equal bits are required."""
    calls = []
    monkeypatch.setattr("ablation.training.loop.choose_step", lambda plain, *args, **kwargs: calls.append((args, kwargs)) or plain)
    final_state(tmp_path, "choosing", deterministic=deterministic, drop_last=False)
    torch.use_deterministic_algorithms(False)
    assert calls == [((12,), {"deterministic": deterministic, "is_compiled": False})]


class OnCuda(PlainStep):
    """A step that claims that its weights are on a CUDA device."""

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
    """On CUDA in fp32 and bf16, with torch's fused optimizers and enough steps, unless equal bits are required; never on the CPU."""
    plain = plain_step(**change)
    on_cuda = OnCuda(**vars(plain))
    assert can_capture(on_cuda, num_steps, deterministic=deterministic) == expected
    assert isinstance(choose_step(on_cuda, num_steps, deterministic=deterministic), AcceleratedStep) == expected
    assert choose_step(plain, num_steps, deterministic=deterministic) is plain


# --- falling back ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "compiler", "kind"),
    [
        (None, wrapping_compiler, "compiled"),
        (call_again, wrapping_compiler, "compiled, captured"),
        (call_again, failing_compiler, "captured (not compiled, captured: RuntimeError: no C compiler)"),
        (call_again, wrong_compiler, "captured (not compiled, captured: the step's loss is "),
        (failing_capture, failing_compiler, "plain: RuntimeError: operation not permitted"),
    ],
)
def test_the_first_candidate_that_is_verified_is_used(capture, compiler, kind):
    """Compiled and captured, else one of them, else plain: with the bits of the plain step wherever the arithmetic is the same."""
    step = AcceleratedStep(plain_step(), capture, compiler)
    assert_equal_bits(trained(plain_step()), trained(step))
    assert step.kind.startswith(kind)


@pytest.mark.parametrize(
    ("compiler", "reason"), [(failing_compiler, "RuntimeError: no C compiler"), (wrong_compiler, "the step's loss is ")]
)
def test_a_step_that_must_be_compiled_is_not_trained_plainly(compiler, reason):
    """Without a capture the plain step would give other bits under the compiled one's key: the training fails with a message."""
    step = AcceleratedStep(plain_step(), None, compiler)
    with pytest.raises(TrainingError, match=r"compile is true, but the compiled step cannot be used \(plain: .*; expected compile: false"):
        trained(step)
    assert step.kind.startswith(f"plain: {reason}")


def test_on_cuda_a_step_that_cannot_be_compiled_is_plain(monkeypatch):
    """Its bits are as good as those of any other there, also in a stage that is too short to be captured."""
    monkeypatch.setattr(accelerated, "first_verified", lambda *_: (None, "plain: no"))
    monkeypatch.setattr(accelerated, "forget_peak", lambda _device: None)
    batch = batch_of()
    torch.manual_seed(11)
    expected = plain_step()(*batch)
    torch.manual_seed(11)
    step = AcceleratedStep(OnCuda(**vars(plain_step())), None, failing_compiler)
    assert torch.equal(step(*batch), expected)
    assert step.kind == "plain: no"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")])
def test_tests_beside_a_captured_step_that_lack_memory_are_tried_without_it(monkeypatch, error):
    """The graph is given up, once; without one, or where that does not help either, it is the failure that it was."""
    monkeypatch.setattr(accelerated, "forget_peak", lambda _device: None)
    step, tries = AcceleratedStep(plain_step(), call_again), []

    def lacking(times):
        tries.append(step.kind)
        if len(tries) <= times:
            raise error
        return "tested"

    step(*batch_of())
    assert with_room(step, partial(lacking, 1)) == "tested"
    assert tries == ["captured", "plain: beside the captured step, memory did not suffice for tests"]
    assert torch.isfinite(step(*batch_of()))
    for plain in (step, plain_step()):
        tries.clear()
        with pytest.raises(type(error)):
            with_room(plain, partial(lacking, 9))
        assert len(tries) == 1


def changed(*changes):
    """A trial with a loss of 1 and these changes to the weights."""
    return TrialResult([1.0, 1.0], {"weights": torch.tensor(changes)})


@pytest.mark.parametrize(
    ("precision", "actual", "problem"),
    [
        ("bf16", changed(1.4, 0.2), ""),  # 0.6 of the changes apart, and as large
        ("fp32", changed(1.4, 0.2), "differently than the plain one, by 0.894 of 1.41"),
        ("bf16", changed(0.0, 0.0), "differently than the plain one, by 1.41 of 1.41"),
        ("bf16", changed(1.3, 1.3), "by 1.84, the plain one by 1.41"),
        ("bf16", changed(1.0, float("nan")), "differently than the plain one, by nan"),
    ],
)
def test_a_compiled_step_may_round_in_bf16(precision, actual, problem):
    """But it must update, at the rate that it is given."""
    found = difference(changed(1.0, 1.0), actual, COMPILED_TOLERANCES[precision])
    assert problem in found
    assert bool(problem) == bool(found)


@pytest.mark.parametrize(("captured", "problem"), [(changed(1.0, 0.4), ""), (changed(1.0, -0.4), "differently than the compiled one")])
def test_a_captured_step_is_held_against_the_compiled_one_that_it_is_made_of(monkeypatch, captured, problem):
    """Which rounds differently than the plain one, and from which it should not differ."""
    trials = iter([changed(1.0, -0.4), changed(1.0, 0.4), captured])
    monkeypatch.setattr(verified, "run_trial", lambda *_: next(trials))
    plain = plain_step(precision="bf16")
    candidates = [("compiled, captured", lambda plain, batch: iter(["the compiled one", "the captured one"]))]
    step, kind = verified.first_verified(plain, candidates, None)
    assert (step, kind.partition(" ")[0]) == (None if problem else "the captured one", "plain:" if problem else "compiled,")
    assert problem in kind


def test_a_graph_is_freed_before_the_next_capture():
    """Only one candidate exists at a time: a graph that is freed later takes workspaces of its stream with it."""
    graphs = []

    class Graph:
        def __init__(self, step):
            assert not any(graph() is not None for graph in graphs)
            graphs.append(weakref.ref(self))
            self.step, self.number = step, len(graphs)

        def __call__(self):
            if self.number == 1:
                raise RuntimeError("the first graph does not run")
            return self.step()

    step = AcceleratedStep(plain_step(), lambda step, _: Graph(step), wrapping_compiler)
    trained(step)
    assert step.kind.startswith("captured (not compiled")
    assert len(graphs) == 2
