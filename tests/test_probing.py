"""How fast a stage trains here, and whether compiling pays."""

import json

import pytest
import torch

from ablation import preparation
from ablation.config import Stage
from ablation.errors import ConfigError
from ablation.matrix import load_study
from ablation.preparation import Preparation, Workspace
from ablation.probing import WORTH_ASKING, Compiling, compiling, measured, seconds_per_image
from ablation.training import captured
from tests.tiny import CPU, Planned, write
from tests.training.test_captured import not_compiled, through_a_wrapper

CUDA = torch.device("cuda", 0)


def first_stage(folder, **base) -> Stage:
    """The only stage of a tiny study."""
    return load_study(write(folder, base=base)).arms[0].stages[0]


def test_a_stage_is_timed(tmp_path):
    """Some time per image, with the threads of a worker, which are put back."""
    threads = torch.get_num_threads()
    assert 1e-6 < seconds_per_image(first_stage(tmp_path), CPU) < 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("found", "images", "expected"),
    [
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [10_000_000], True),
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000], False),  # 100 s saved, 110 spent
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000, 100_000], True),  # 200 saved, 120 spent
        (Compiling(plain=2e-3, compiled=1e-3, first=0, again=10), [9_000] * 100, False),  # each costs more than it saves
        (Compiling(plain=1e-3, compiled=1.1e-3, first=0, again=0), [10_000_000], False),
        (Compiling(plain=1e-3, compiled=1e-3, first=0, again=0), [], False),
    ],
)
def test_when_compiling_pays(found, images, expected):
    """What all trainings save must be more than what compiling costs, the first time and in each."""
    assert found.pays(images) == expected


def test_both_ways_are_measured(tmp_path, monkeypatch):
    """Seconds per image without and with it, and those of compiling; or why it cannot be had."""
    stage = first_stage(tmp_path)
    monkeypatch.setattr(captured, "compiled", through_a_wrapper)
    found = measured(stage, CPU, num_steps=2)
    assert isinstance(found, Compiling)
    assert min(found.plain, found.compiled, found.first, found.again) > 0
    monkeypatch.setattr(captured, "compiled", not_compiled)
    assert measured(stage, CPU, num_steps=2) == "plain: RuntimeError: no C compiler"


def test_measuring_takes_no_one_along(tmp_path):
    """An error there is told, and who takes too long is ended."""
    stage = first_stage(tmp_path)
    found = compiling(stage, torch.device("meta"))
    assert isinstance(found, str)
    assert "Error: " in found
    assert compiling(stage, CPU, patience=0.01) == "it was not compiled after 0 s"


# --- the choice --------------------------------------------------------------------------------------------------------------


class OnCuda(Preparation):
    """A preparation that says that it is for a CUDA device, on which an image takes a tenth of a second."""

    def seconds_per_image(self, stage):
        return 0.1


@pytest.fixture
def on_cuda(tmp_path, monkeypatch):
    """Makes a preparation for a CUDA device, and the list of the stages that were measured on it."""
    asked = []
    result = Compiling(plain=2e-3, compiled=1e-3, first=60, again=1)
    monkeypatch.setattr(preparation, "device_name", lambda device: "cuda Some GPU")
    monkeypatch.setattr(preparation, "compiling", lambda stage, device: asked.append(stage) or result)

    def make(**base):
        study = load_study(write(tmp_path, base={"precision": "fp32", "data.longtail.largest": 30, **base}, seeds=[0, 1, 2]))
        return OnCuda(study, Workspace(tmp_path / "mlruns"), CUDA, lambda *_: None)

    return make, asked


def decided(made):
    """Choose for the only arm's stages; what was told and what holds."""
    arm = made.study.arms[0]
    told = made.choose_compiled([arm], 0)
    return told, made.is_compiled(arm.stages[0])


def test_a_long_study_is_measured_once(on_cuda):
    """200 epochs of 200 images with three seeds are hours here: measured, told and kept for the next command."""
    make, asked = on_cuda
    told, holds = decided(make(epochs=200))
    assert holds
    expected = "torch.compile of test_efficientnet at 16 pixels is used: 2.00 times as fast; 60 s to compile, 1 s for each training after"
    assert told == [expected]
    assert decided(make(epochs=200)) == ([], True)
    assert len(asked) == 1


def test_a_short_study_is_not_measured(on_cuda):
    """Under half an hour the plain model stays, for good; another length is another question."""
    make, asked = on_cuda
    assert decided(make(epochs=2)) == ([], False)
    assert not asked
    assert list(json.loads((make().workspace.root / "compiled" / "tiny.json").read_text()).values()) == [False]
    assert decided(make(epochs=200))[1]
    assert decided(make(epochs=2)) == ([], False)
    assert 200 * 2 * 3 * 0.1 < WORTH_ASKING < 200 * 200 * 3 * 0.1


def test_the_choice_is_by_the_whole_study(on_cuda):
    """Whichever arms and seeds are trained now: trainings that arms share count once."""
    make, _ = on_cuda
    made = make(epochs=200)
    assert made._epochs_alike(made._compile_key(made.study.arms[0].stages[0])) == [200] * 3


@pytest.mark.parametrize(
    "change",
    [{"compile": False}, {"deterministic": True}, {"compile": True}, {"model.name": "test_byobnet"}],
    ids=str,
)
def test_what_is_asked(on_cuda, change):
    """Only `auto` is a question, and only where the step may be compiled."""
    make, asked = on_cuda
    _, holds = decided(make(epochs=200, **change))
    is_question = "model.name" in change
    assert (len(asked), holds) == (int(is_question), is_question or change == {"compile": True})


def test_what_does_not_pay_or_fails_is_not_used(on_cuda, monkeypatch):
    """The sentence says why."""
    make, _ = on_cuda
    monkeypatch.setattr(preparation, "compiling", lambda *_: "its process ended with -9")
    assert decided(make(epochs=200)) == (["torch.compile of test_efficientnet at 16 pixels is not used: its process ended with -9"], False)
    monkeypatch.setattr(preparation, "compiling", lambda *_: Compiling(1e-3, 0.99e-3, 60, 60))
    told, holds = decided(make(epochs=300))
    assert told[0].endswith("is not used: 1.01 times as fast; 60 s to compile, 60 s for each training after")
    assert not holds


def test_auto_compiles_nothing_on_the_cpu(tmp_path):
    """Nothing is gained there; nothing is measured or written."""
    planned = Planned(write(tmp_path, base={"epochs": 2000}), tmp_path / "mlruns")
    assert planned.preparation.choose_compiled(planned.study.arms, 0) == []
    assert not planned.preparation.is_compiled(planned.study.arms[0].stages[0])
    assert not (tmp_path / "mlruns" / "compiled").exists()


def test_equal_bits_and_a_compiled_step_exclude_each_other(tmp_path):
    """The file that asks for both is refused."""
    planned = Planned(write(tmp_path, base={"compile": True, "deterministic": True}), tmp_path / "mlruns")
    with pytest.raises(
        ConfigError, match="found true with deterministic: true in 'baseline', which keeps the plain step; expected auto or"
    ):
        planned.preparation.check(planned.study.arms, [0])
