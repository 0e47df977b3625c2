"""What is saved, and that going on from it changes no bit."""

import contextlib
import errno
import os
import shutil

import pytest
import torch

from ablation.study.task import Interrupted
from ablation.techniques.technique import family
from ablation.training import checkpoints
from ablation.training.loop import State
from ablation.training.states import as_file, load_optimizer, make_setup
from ablation.training.step import Precision
from ablation.training.work import products
from tests.tiny import CPU, Planned, run_job, write

TENSORS = {"model/weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
RECORD = {"epoch": 2, "history": [{"loss": 0.1 + 0.2}], "products": ["optimizer"]}


def test_what_is_written_is_read(tmp_path):
    """Tensors with their types, and the record to the last digit; whatever memory format they had."""
    path = tmp_path / "new" / "file.safetensors"
    striped = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    checkpoints.write(path, TENSORS | {"striped": striped, "shared": TENSORS["count"]}, RECORD)
    saved = checkpoints.read(path)
    assert saved.record == checkpoints.record(path) == RECORD
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in (TENSORS | {"striped": striped}).items())
    assert os.listdir(path.parent) == ["file.safetensors"]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 50, 0.5, 0.99, -1])
def test_a_truncated_file_is_none(tmp_path, kept):
    """A file that lacks its end, however much of it, counts as not there."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert checkpoints.read(path) is None
    assert checkpoints.record(path) is None


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"\xff" * 64])
def test_what_is_no_checkpoint_is_none(tmp_path, content):
    """Another file, no file and a folder count as not there."""
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "folder").mkdir()
    assert [checkpoints.read(tmp_path / name) for name in ("file", "folder", "absent")] == [None] * 3


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("place", ["safe_open", "checksum"])
def test_what_cannot_be_read_just_now_is_not_damaged(tmp_path, monkeypatch, number, place):
    """Where memory, descriptors or the disk are lacking for a moment that is raised, and the file stays in its place."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)

    def refused(*_args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, place, refused)
        with pytest.raises(OSError, match=os.strerror(number)):
            checkpoints.sound(path)
    assert checkpoints.sound(path).record == RECORD


def test_a_write_that_fails_leaves_the_file(tmp_path, monkeypatch):
    """Where the disk is full while writing, what was saved before is still there, whole."""
    path = tmp_path / "file.safetensors"
    checkpoints.write(path, TENSORS, RECORD)

    def full(tensors, beside, metadata):
        beside.write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.write(path, TENSORS, RECORD | {"epoch": 3})
    assert checkpoints.record(path) == RECORD


def test_prefixes_come_and_go():
    """`prefixed` and `under` are each other's inverse, and a prefix ends at its slash."""
    assert checkpoints.under("a", checkpoints.prefixed("a", TENSORS) | {"ab/x": TENSORS["count"]}) == TENSORS


# --- going on ----------------------------------------------------------------------------------------------------------------


def interrupted(planned, epochs):
    """Carry the plan's jobs out, stopping once so many epochs were trained; how many epochs were trained."""
    trained = []
    for job in planned.jobs():
        run_job(job, CPU, lambda event: trained.append(event) if event["kind"] == "epoch" else None, lambda: len(trained) == epochs)
    return len(trained)


def finals(planned):
    """Every tensor that the plan's stages left, and every row of predictions."""
    saved = {key: checkpoints.read(planned.workspace.stages / key / checkpoints.FINAL) for key in planned.plan.nodes}
    tables = {run.key: (planned.workspace.results / run.key / "predictions.parquet").read_bytes() for run in planned.plan.runs}
    return saved, tables


def assert_equal_bits(one, other):
    assert one[0].keys() == other[0].keys()
    for key in one[0]:
        mine, theirs = one[0][key], other[0][key]
        assert mine.tensors.keys() == theirs.tensors.keys()
        assert all(torch.equal(mine.tensors[name], theirs.tensors[name]) for name in mine.tensors)
        assert [row["values"]["train/loss"] for row in mine.record["history"]] == [row["values"]["train/loss"] for row in theirs.record["history"]]
        assert mine.record["best"] == theirs.record["best"]
    assert one[1] == other[1]


ROUGH = {
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
def undisturbed(tmp_path_factory):
    """What the rough study leaves when nothing stops it."""
    folder = tmp_path_factory.mktemp("straight")
    planned = Planned(write(folder, **ROUGH), folder / "mlruns")
    assert planned.carry_out() == 7
    return finals(planned)


@pytest.mark.parametrize("boundary", [1, 2, 3, 4, 5, 6])
def test_training_goes_on_from_every_epoch(tmp_path, undisturbed, boundary):
    """Stopped after any epoch and begun again, weights, averages, moments, best epochs and predictions are equal to the bit."""
    file = write(tmp_path, **ROUGH)
    stopped = Planned(file, tmp_path / "stopped")
    ends_a_stage = boundary in (3, 5)
    with contextlib.nullcontext() if ends_a_stage else pytest.raises(Interrupted):
        interrupted(stopped, boundary)
    again = Planned(file, tmp_path / "stopped")
    assert again.carry_out() == (0 if ends_a_stage else 7 - boundary)
    assert_equal_bits(undisturbed, finals(again))
    assert not list((tmp_path / "stopped").rglob("checkpoint.safetensors"))


@pytest.mark.parametrize(
    "settings", [*({"name": name} for name in family("optimizers").names), {"name": "sgd", "lr": 0.01, "momentum": 0.9, "nesterov": True}]
)
def test_every_optimizer_goes_on(tmp_path, settings):
    """Each optimizer's state comes back whole: two epochs with a stop between them give the bits of two without."""
    file = write(tmp_path, base={"optimizer": settings})
    straight, stopped = Planned(file, tmp_path / "straight"), Planned(file, tmp_path / "stopped")
    straight.carry_out()
    with pytest.raises(Interrupted):
        interrupted(stopped, 1)
    assert stopped.carry_out() == 1
    assert_equal_bits(finals(straight), finals(stopped))


@pytest.mark.parametrize("name", [checkpoints.CHECKPOINT, checkpoints.FINAL])
def test_a_truncated_state_is_trained_again(tmp_path, name):
    """A checkpoint or final state that lost its end is not gone on from; the training begins anew, to the same bits."""
    file = write(tmp_path)
    straight, broken = Planned(file, tmp_path / "straight"), Planned(file, tmp_path / "broken")
    straight.carry_out()
    if name == checkpoints.CHECKPOINT:
        with pytest.raises(Interrupted):
            interrupted(broken, 1)
    else:
        broken.carry_out()
    shutil.rmtree(tmp_path / "broken" / "results", ignore_errors=True)  # else nothing would look at the state
    (path,) = (tmp_path / "broken").rglob(name)
    path.write_bytes(path.read_bytes()[:-10])
    again = Planned(file, tmp_path / "broken")
    assert {node.state for node in again.plan.nodes.values()} <= {"missing"}
    assert again.carry_out() == 2
    assert_equal_bits(finals(straight), finals(again))


def test_a_checkpoint_that_lacks_what_is_wanted_is_not_used(tmp_path):
    """An average that another arm asks for later was not kept, so the training begins anew; the weights stay the same."""
    one = Planned(write(tmp_path), tmp_path / "mlruns")
    with pytest.raises(Interrupted):
        interrupted(one, 1)
    two = Planned(
        write(tmp_path, variants={"no-average": {"average": "none"}, "other": {"average": {"name": "ema", "decay": 0.5}}}),
        tmp_path / "mlruns",
    )
    assert len(two.plan.nodes) == 1
    assert two.carry_out() == 2
    wanted = products(two.jobs()[0].tracked, keep_optimizer=False) if two.jobs() else set()
    assert wanted <= set(checkpoints.record(two.last_stage("other") / checkpoints.FINAL)["products"])


def test_a_parameter_without_a_gradient_has_no_moments(tmp_path):
    """A model may have weights that no gradient reaches: the moments of the others still come back to their own parameters."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    job = planned.jobs()[0]
    setup = make_setup(job.work, CPU)

    def state_of(model):
        return State(model, torch.optim.AdamW(model.parameters(), lr=0.1), Precision("fp32").scaler(CPU))

    state = state_of(torch.nn.ModuleDict({"idle": torch.nn.Linear(2, 3), "used": torch.nn.Linear(2, 3)}))
    state.model["used"](torch.ones(1, 2)).sum().backward()
    state.optimizer.step()
    checkpoints.write(tmp_path / "file.safetensors", *as_file(job.work, setup, state))
    again = state_of(state.model)
    load_optimizer(again, checkpoints.read(tmp_path / "file.safetensors"))
    before, after = state.optimizer.state_dict()["state"], again.optimizer.state_dict()["state"]
    assert before.keys() == after.keys() == {2, 3}
    assert all(torch.equal(before[i][what], after[i][what]) for i in before for what in before[i])
