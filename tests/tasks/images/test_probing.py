"""The measurement of a stage's speed, and of what compiling saves."""

import multiprocessing
from types import SimpleNamespace

import pytest
import torch

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.system.child import ChildError
from ablation.tasks.images import probing
from ablation.tasks.images.compiling import CompileTiming, describe_compiling, measure_compiling, measure_here
from ablation.tasks.images.probing import measured_speed, seconds_per_image
from ablation.training import accelerated
from ablation.training.settings import Stage
from tests.tiny import CPU, Planned, write
from tests.training.steps import call_again, failing_capture, failing_compiler, wrapping_compiler


def first_stage(folder, **base) -> Stage:
    """The only stage of a tiny study."""
    return load_study(write(folder, base=base)).arms[0].stages[0]


def test_a_stage_is_timed(tmp_path):
    """The time per image is plausible, and the number of threads is restored."""
    threads = torch.get_num_threads()
    assert 1e-6 < seconds_per_image(first_stage(tmp_path), CPU) < 1
    assert torch.get_num_threads() == threads


def test_what_cannot_be_timed_is_unknown(tmp_path, monkeypatch):
    """An error while a stage is timed is a reason in words, a mistake of the user's is raised, and the plan goes on without a time."""
    planned, failing = Planned(write(tmp_path), tmp_path / "mlruns"), [RuntimeError("no\nkernel"), ConfigError("model", "found nothing")]
    (step,) = planned.planner.steps(planned.study.arms[0], 0)
    monkeypatch.setattr(probing, "seconds_per_image", lambda *_: (_ for _ in ()).throw(failing.pop(0)))
    assert planned.preparation.seconds_per_item(step) == planned.preparation.seconds_per_item(step) == 0
    remarks = planned.planner.remarks([])
    assert remarks == ["the speed of 1 of its kinds of training is unknown, as measuring it failed: RuntimeError: no kernel"]
    with pytest.raises(ConfigError):
        measured_speed(step.stage, CPU)


def test_a_cuda_device_is_timed_elsewhere(tmp_path, monkeypatch):
    """This process makes nothing on the device; that of the probe tells what went wrong with it."""
    asked = []

    def failing(function, *arguments, timeout):
        asked.append((function, arguments))
        raise ChildError("AcceleratorError: CUDA error: out of memory")

    monkeypatch.setattr(probing, "call_in_child", failing)
    stage, device = first_stage(tmp_path), torch.device("cuda", 0)
    assert measured_speed(stage, device) == "AcceleratorError: CUDA error: out of memory"
    assert asked == [(probing._probe, (stage, device))]


@pytest.mark.parametrize(
    ("timing", "images", "expected"),
    [
        (CompileTiming(plain=2e-3, compiled=1e-3, first=100, again=10), [10_000_000], 9_890),
        (CompileTiming(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000], -10),  # 100 s saved, 110 spent
        (CompileTiming(plain=2e-3, compiled=1e-3, first=100, again=10), [100_000, 100_000], 80),
        (CompileTiming(plain=2e-3, compiled=1e-3, first=0, again=10), [9_000] * 100, -100),  # each training costs more than it saves
        (CompileTiming(plain=1e-3, compiled=1e-3, first=0, again=0), [], 0),
    ],
)
def test_what_compiling_saves(timing, images, expected):
    """The seconds that all trainings save, minus those to compile, the first time and in each training."""
    assert timing.saved(images) == pytest.approx(expected)


def test_both_steps_are_measured(tmp_path, monkeypatch):
    """Seconds per image without and with compiling, and the seconds to compile; or why the step cannot be compiled."""
    stage = first_stage(tmp_path)
    monkeypatch.setattr(accelerated, "compile_model", wrapping_compiler)
    timing = measure_here(stage, CPU, seconds=0.05)
    assert isinstance(timing, CompileTiming)
    assert min(timing.plain, timing.compiled, timing.first, timing.again) > 0
    monkeypatch.setattr(accelerated, "compile_model", failing_compiler)
    assert "RuntimeError: no C compiler" in measure_here(stage, CPU, seconds=0.05)


@pytest.mark.parametrize(
    ("capture", "kind"),
    [(call_again, "captured (not compiled"), (failing_capture, "plain: RuntimeError: operation not permitted")],
)
def test_no_other_step_is_measured_instead_of_the_compiled_one(tmp_path, monkeypatch, capture, kind):
    """On CUDA the captured step or the plain one may be used instead: the result is the reason, without times."""
    monkeypatch.setattr(accelerated, "compile_model", failing_compiler)
    monkeypatch.setattr(accelerated, "can_capture", lambda *_, **__: True)
    monkeypatch.setattr(accelerated, "capture_on_cuda", capture)
    reason = measure_here(first_stage(tmp_path), CPU, seconds=0.05)
    assert isinstance(reason, str)
    assert reason.startswith(kind)


def test_a_failed_measurement_is_a_message(tmp_path):
    """An error in the measuring process is returned, and a process that takes too long is ended."""
    stage = first_stage(tmp_path)
    message = measure_compiling(stage, torch.device("meta"))
    assert isinstance(message, str)
    assert "Error: " in message
    assert measure_compiling(stage, CPU, timeout=0.01) == "it was not done after 0 s"
    assert not multiprocessing.active_children()


def test_equal_bits_and_a_compiled_step_exclude_each_other(tmp_path):
    """A file with both is an error."""
    planned = Planned(write(tmp_path, base={"compile": True, "deterministic": True}), tmp_path / "mlruns")
    with pytest.raises(ConfigError, match="found true with deterministic: true in 'baseline', which keeps the plain step; expected false"):
        planned.preparation.check(planned.study.arms, [0])


# --- ablate plan --compile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (CompileTiming(2e-3, 1e-3, 60, 1), "2.00 times as fast, 60 s to compile, 1 s for each training after; `compile: true` would save "),
        (CompileTiming(1e-3, 2e-3, 60, 1), "0.50 times as fast, 60 s to compile, 1 s for each training after; `compile: true` would cost "),
        ("its process ended with -9", "cannot be compiled here: its process ended with -9"),
    ],
)
def test_the_timing_in_words(tmp_path, timing, expected):
    """The sentence has the model, the speed, and what compiling would save in total."""
    sentence = describe_compiling(first_stage(tmp_path), timing, [1_000_000, 1_000_000 - 1, 1])
    assert sentence.startswith(f"test_efficientnet at 16 pixels, batches of 32: {expected}")


def test_the_plan_measures_each_model_once(ablate, monkeypatch):
    """With --compile each model and batch size that is trained as a whole and not compiled yet is measured once."""
    measured = []

    def measure(stage, device):
        measured.append((stage.settings.model.image_size, stage.settings.batch_size, str(device)))
        return CompileTiming(plain=2e-3, compiled=1e-3, first=0, again=0)

    monkeypatch.setattr("ablation.commands.plan.measure_compiling", measure)
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
    assert measured == [(16, 32, "cpu"), (16, 16, "cpu")]
    assert result.err.count("would save") == 2
    assert not ablate("plan", ablate.folder / "tiny.yaml").err.count("would save")
    message = ablate("plan", ablate.folder / "tiny.yaml", "--compile", "--arm", "already", "--arm", "exact", "--device", "cpu").err
    assert "nothing to compile: no training of a whole model is left that could be compiled and is not" in message


@pytest.mark.parametrize(("device", "size", "batch_size", "expected"), [
    ("cuda", 224, 128, 128),
    ("cuda", 8, 512, 512),
    ("cpu", 8, 128, 32),
    ("cpu", 224, 128, 3),
    ("cpu", 1000, 128, 2),
])  # fmt: skip
def test_a_gpu_is_timed_with_a_whole_batch(device, size, batch_size, expected):
    """Where a few images take as long; on a CPU a few are enough."""
    settings = SimpleNamespace(batch_size=batch_size, model=SimpleNamespace(image_size=size))
    assert probing._num_images(settings, torch.device(device)) == expected
