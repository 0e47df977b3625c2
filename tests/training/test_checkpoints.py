"""What is saved, and that continuing from it changes no bit."""

import contextlib
import errno
import os
import shutil

import pytest
import timm.optim
import torch

from ablation.study.task import Interrupted
from ablation.techniques.technique import family
from ablation.training import checkpoints
from ablation.training.loop import State
from ablation.training.states import load_optimizer_state, make_setup, tensors_and_record
from ablation.training.step import Precision
from ablation.training.work import products
from tests.tiny import CPU, Planned, run_job, write

TENSORS = {"model/weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
RECORD = {"epoch": 2, "history": [{"loss": 0.1 + 0.2}], "products": ["optimizer"]}


def test_what_is_written_is_read(tmp_path):
    """Tensors with their types, in any memory format, and the record to the last digit."""
    path = tmp_path / "new" / "file.safetensors"
    channels_last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    checkpoints.write(path, TENSORS | {"striped": channels_last, "shared": TENSORS["count"]}, RECORD)
    saved = checkpoints.read(path)
    assert saved.record == checkpoints.read_record(path) == RECORD
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in (TENSORS | {"striped": channels_last}).items())
    assert os.listdir(path.parent) == ["file.safetensors"]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 50, 0.5, 0.99, -1])
def test_a_truncated_file_is_none(tmp_path, kept):
    """A file without its end counts as missing."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert checkpoints.read(path) is None
    assert checkpoints.read_record(path) is None


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"\xff" * 64])
def test_what_is_not_a_checkpoint_is_none(tmp_path, content):
    """Another file, no file and a folder count as missing."""
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "folder").mkdir()
    assert [checkpoints.read(tmp_path / name) for name in ("file", "folder", "absent")] == [None] * 3


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("function", ["safe_open", "checksum"])
def test_after_a_transient_error_a_file_is_not_damaged(tmp_path, monkeypatch, number, function):
    """If there is no memory or descriptor for a moment, or the disk fails, that is raised, and the file keeps its name."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)

    def refused(*_args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, function, refused)
        with pytest.raises(OSError, match=os.strerror(number)):
            checkpoints.read_or_set_aside(path)
    assert checkpoints.read_or_set_aside(path).record == RECORD


def test_a_write_that_fails_leaves_the_file(tmp_path, monkeypatch):
    """If the disk is full during a write, the file that was saved before is still complete."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)

    def fail_halfway(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", fail_halfway)
    with pytest.raises(OSError, match="no space"):
        checkpoints.write(path, TENSORS, RECORD | {"epoch": 3})
    assert checkpoints.read_record(path) == RECORD


def test_prefixes_are_added_and_removed():
    """`with_prefix` and `tensors_under` are each other's inverse, and a prefix ends at its slash."""
    assert checkpoints.tensors_under("a", checkpoints.with_prefix("a", TENSORS) | {"ab/x": TENSORS["count"]}) == TENSORS


# --- continuing --------------------------------------------------------------------------------------------------------------


def interrupted(planned, epochs):
    """Run the plan's jobs, but stop after that many epochs; returns the number of trained epochs."""
    epoch_events = []
    for job in planned.jobs():
        run_job(
            job, CPU, lambda event: epoch_events.append(event) if event["kind"] == "epoch" else None, lambda: len(epoch_events) == epochs
        )
    return len(epoch_events)


def finals(planned):
    """The saved states of the plan's stages, and the bytes of all predictions."""
    saved = {key: checkpoints.read(planned.workspace.stages / key / checkpoints.FINAL) for key in planned.plan.nodes}
    tables = {run.key: (planned.workspace.results / run.key / "predictions.parquet").read_bytes() for run in planned.plan.runs}
    return saved, tables


def assert_equal_bits(first, second):
    """Two results of `finals` are equal to the bit."""
    (first_states, first_predictions), (second_states, second_predictions) = first, second
    assert first_states.keys() == second_states.keys()
    for key in first_states:
        one, other = first_states[key], second_states[key]
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        losses = [[row["values"]["train/loss"] for row in saved.record["history"]] for saved in (one, other)]
        assert losses[0] == losses[1]
        assert one.record["best"] == other.record["best"]
    assert first_predictions == second_predictions


DEMANDING_STUDY = {
    "base": {
        "model": {"name": "test_efficientnet", "image_size": 16, "drop": 0.2, "drop_path": 0.2},
        "mix": "cutmix",
        "sampler": "class_balanced",
        "epochs": 3,
        "select": "best_on_test",
        "drop_last": False,
    },
    "ladder": {"baseline": {}, "decoupled": {"stages": [{"epochs": 2}, {"epochs": 2, "train": "head", "head": "new"}]}},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The results of that study, trained without an interruption."""
    folder = tmp_path_factory.mktemp("straight")
    planned = Planned(write(folder, **DEMANDING_STUDY), folder / "mlruns")
    assert planned.carry_out() == 7
    return finals(planned)


@pytest.mark.parametrize("boundary", [1, 2, 3, 4, 5, 6])
def test_training_continues_after_every_epoch(tmp_path, uninterrupted, boundary):
    """After an interruption at any epoch weights, averages, moments, best epochs and predictions end up equal to the bit."""
    file = write(tmp_path, **DEMANDING_STUDY)
    stopped = Planned(file, tmp_path / "stopped")
    ends_a_stage = boundary in (3, 5)
    with contextlib.nullcontext() if ends_a_stage else pytest.raises(Interrupted):
        interrupted(stopped, boundary)
    again = Planned(file, tmp_path / "stopped")
    assert again.carry_out() == (0 if ends_a_stage else 7 - boundary)
    assert_equal_bits(uninterrupted, finals(again))
    assert not list((tmp_path / "stopped").rglob("checkpoint.safetensors"))


@pytest.mark.parametrize(
    "settings", [*({"name": name} for name in family("optimizers").names), {"name": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": True}]
)
def test_every_optimizer_continues(tmp_path, settings):
    """Each optimizer's whole state is restored: two epochs with an interruption between them give the bits of two without."""
    file = write(tmp_path, base={"optimizer": settings})
    straight, stopped = Planned(file, tmp_path / "straight"), Planned(file, tmp_path / "stopped")
    straight.carry_out()
    with pytest.raises(Interrupted):
        interrupted(stopped, 1)
    assert stopped.carry_out() == 1
    assert_equal_bits(finals(straight), finals(stopped))


@pytest.mark.parametrize("name", [checkpoints.CHECKPOINT, checkpoints.FINAL])
def test_a_truncated_state_is_trained_again(tmp_path, name):
    """A checkpoint or final state without its end is not used; the training begins again, to the same bits."""
    file = write(tmp_path)
    straight, broken = Planned(file, tmp_path / "straight"), Planned(file, tmp_path / "broken")
    straight.carry_out()
    if name == checkpoints.CHECKPOINT:
        with pytest.raises(Interrupted):
            interrupted(broken, 1)
    else:
        broken.carry_out()
    shutil.rmtree(tmp_path / "broken" / "results", ignore_errors=True)  # else nothing would read the state
    (path,) = (tmp_path / "broken").rglob(name)
    path.write_bytes(path.read_bytes()[:-10])
    again = Planned(file, tmp_path / "broken")
    assert {node.state for node in again.plan.nodes.values()} <= {"missing"}
    assert again.carry_out() == 2
    assert_equal_bits(finals(straight), finals(again))


def test_a_checkpoint_without_a_needed_average_is_not_used(tmp_path):
    """An average that another arm needs later was not saved, so the training begins again; the weights stay the same."""
    one = Planned(write(tmp_path), tmp_path / "mlruns")
    with pytest.raises(Interrupted):
        interrupted(one, 1)
    two = Planned(
        write(tmp_path, variants={"no-average": {"average": "none"}, "other": {"average": {"name": "ema", "decay": 0.5}}}),
        tmp_path / "mlruns",
    )
    assert len(two.plan.nodes) == 1
    assert two.carry_out() == 2
    needed = products(two.jobs()[0].work.tracked, keep_optimizer=False)
    assert needed <= set(checkpoints.read_record(two.last_stage("other") / checkpoints.FINAL)["products"])


def test_a_parameter_without_a_gradient_has_no_moments(tmp_path):
    """A model may have weights without gradients: the moments of the others still get back to their own parameters."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    job = planned.jobs()[0]
    setup = make_setup(job.work, CPU)

    def state_of(model):
        return State(model, torch.optim.AdamW(model.parameters(), lr=0.1), Precision("fp32").scaler(CPU))

    state = state_of(torch.nn.ModuleDict({"idle": torch.nn.Linear(2, 3), "used": torch.nn.Linear(2, 3)}))
    state.model["used"](torch.ones(1, 2)).sum().backward()
    state.optimizer.step()
    checkpoints.write(tmp_path / "file.safetensors", *tensors_and_record(job.work, setup, state))
    again = state_of(state.model)
    load_optimizer_state(again, checkpoints.read(tmp_path / "file.safetensors"))
    before, after = state.optimizer.state_dict()["state"], again.optimizer.state_dict()["state"]
    assert before.keys() == after.keys() == {2, 3}
    assert all(torch.equal(before[i][moment], after[i][moment]) for i in before for moment in before[i])


@pytest.mark.parametrize("optimizer", [timm.optim.AdamP, timm.optim.Adan])
def test_what_an_optimizer_counts_is_in_the_checkpoint(tmp_path, optimizer):
    """As a number for each parameter, or in the group."""
    job = Planned(write(tmp_path), tmp_path / "mlruns").jobs()[0]
    setup, model = make_setup(job.work, CPU), torch.nn.Linear(2, 3)
    states = [State(model, optimizer(model.parameters(), lr=0.1), Precision("fp32").scaler(CPU)) for _ in range(2)]
    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
        states[0].optimizer.step()
    checkpoints.write(tmp_path / "file.safetensors", *tensors_and_record(job.work, setup, states[0]))
    load_optimizer_state(states[1], checkpoints.read(tmp_path / "file.safetensors"))
    before, after = (state.optimizer.state_dict() for state in states)
    assert before["param_groups"] == after["param_groups"]
    assert [value for moments in after["state"].values() for name, value in moments.items() if name == "step"] in ([], [2, 2])
    assert all(
        torch.equal(torch.as_tensor(before["state"][i][name]), torch.as_tensor(after["state"][i][name]))
        for i in (0, 1)
        for name in before["state"][i]
    )
