"""How fast a stage trains here, and whether compiling pays."""

import multiprocessing

import pytest
import torch

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.tasks.images.compiling import Compiling, compiling_words, measure_compiling, measure_here
from ablation.tasks.images.probing import seconds_per_image
from ablation.training import captured
from ablation.training.settings import Stage
from tests.tiny import CPU, Planned, write
from tests.training.test_captured import again, not_compiled, refused, through_a_wrapper


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
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [10_000_000], 9_890),
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000], -10),  # 100 s saved, 110 spent
        (Compiling(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000, 100_000], 80),
        (Compiling(plain=2e-3, compiled=1e-3, first=0, again=10), [9_000] * 100, -100),  # each costs more than it saves
        (Compiling(plain=1e-3, compiled=1e-3, first=0, again=0), [], 0),
    ],
)
def test_what_compiling_saves(found, images, expected):
    """What all trainings save, less what compiling costs, the first time and in each."""
    assert found.saved(images) == pytest.approx(expected)


def test_both_ways_are_measured(tmp_path, monkeypatch):
    """Seconds per image without and with it, and those of compiling; or why it cannot be had."""
    stage = first_stage(tmp_path)
    monkeypatch.setattr(captured, "compiled", through_a_wrapper)
    found = measure_here(stage, CPU, seconds=0.05)
    assert isinstance(found, Compiling)
    assert min(found.plain, found.compiled, found.first, found.again) > 0
    monkeypatch.setattr(captured, "compiled", not_compiled)
    assert "RuntimeError: no C compiler" in measure_here(stage, CPU, seconds=0.05)


@pytest.mark.parametrize(("record", "kind"), [(again, "captured (not compiled"), (refused, "plain: RuntimeError: operation not permitted")])
def test_where_the_compiled_step_is_not_used_nothing_else_is_measured_for_it(tmp_path, monkeypatch, record, kind):
    """As on CUDA, where the captured step or the plain one takes its place: the reason comes back, and no times."""
    monkeypatch.setattr(captured, "compiled", not_compiled)
    monkeypatch.setattr(captured, "suits", lambda *_, **__: True)
    monkeypatch.setattr(captured, "recorded_on_cuda", record)
    found = measure_here(first_stage(tmp_path), CPU, seconds=0.05)
    assert isinstance(found, str)
    assert found.startswith(kind)


def test_measuring_takes_no_one_along(tmp_path):
    """An error there is told, and what takes too long is ended."""
    stage = first_stage(tmp_path)
    found = measure_compiling(stage, torch.device("meta"))
    assert isinstance(found, str)
    assert "Error: " in found
    assert measure_compiling(stage, CPU, patience=0.01) == "it was not compiled after 0 s"
    assert not multiprocessing.active_children()


def test_equal_bits_and_a_compiled_step_exclude_each_other(tmp_path):
    """The file that asks for both is refused."""
    planned = Planned(write(tmp_path, base={"compile": True, "deterministic": True}), tmp_path / "mlruns")
    with pytest.raises(ConfigError, match="found true with deterministic: true in 'baseline', which keeps the plain step; expected false"):
        planned.preparation.check(planned.study.arms, [0])


# --- ablate plan --compile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Compiling(2e-3, 1e-3, 60, 1), "2.00 times as fast, 60 s to compile, 1 s for each training after; `compile: true` would save "),
        (Compiling(1e-3, 2e-3, 60, 1), "0.50 times as fast, 60 s to compile, 1 s for each training after; `compile: true` would cost "),
        ("its process ended with -9", "cannot be compiled here: its process ended with -9"),
    ],
)
def test_what_compiling_would_do_in_words(tmp_path, found, expected):
    """For which model, how fast, and what it would save in all."""
    told = compiling_words(first_stage(tmp_path), found, [1_000_000, 1_000_000 - 1, 1])
    assert told.startswith(f"test_efficientnet at 16 pixels, batches of 32: {expected}")


def test_the_plan_measures_each_model_once(ablate, monkeypatch):
    """With --compile each model and batch size that is trained whole and not compiled yet is measured, with the images that are left."""
    asked = []

    def compiling(stage, device):
        asked.append((stage.settings.model.image_size, stage.settings.batch_size, str(device)))
        return Compiling(plain=2e-3, compiled=1e-3, first=0, again=0)

    monkeypatch.setattr("ablation.commands.plan.measure_compiling", compiling)
    layers = {
        "ladder": {
            "baseline": {},
            "cb": {"sampler": "class_balanced"},
            "head": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head"}]},
        },
        "variants": {"small": {"batch_size": 16}, "exact": {"deterministic": True}, "already": {"compile": True}},
    }
    result = ablate("plan", write(ablate.folder, **layers), "--compile", "--device", "cpu")
    assert result.status == 0
    assert asked == [(16, 32, "cpu"), (16, 16, "cpu")]
    assert result.err.count("would save") == 2
    assert not ablate("plan", ablate.folder / "tiny.yaml").err.count("would save")
    told = ablate("plan", ablate.folder / "tiny.yaml", "--compile", "--arm", "already", "--arm", "exact", "--device", "cpu").err
    assert "nothing to compile: no training of a whole model is left that could be compiled and is not" in told
