"""What is set in a process that trains, and what of a device is in the record."""

import subprocess
import sys

import pytest
import torch

from ablation.errors import ConfigError
from ablation.tasks.images import run
from ablation.training import accelerated, devices, planned_device
from ablation.training.datasets import images_on_device
from ablation.training.devices import cuda_build, num_sharers, set_up_process
from ablation.training.pixels import MEMORY_SHARE, ImagesInFile, ImagesInMemory, memory_limit
from ablation.training.step import resolve_precision
from tests.tiny import CPU, Planned, run_job, write

CUDA = torch.device("cuda", 1)


@pytest.fixture
def settings_of_process(monkeypatch):
    """What a test sets of the process is put back."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    yield monkeypatch
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value
    set_up_process(CPU)


@pytest.mark.parametrize("was", [(True, True), (False, False), (False, True)])
def test_fp32_means_fp32(settings_of_process, was):
    """However torch's two settings stood, products and convolutions of fp32 are both without TF32 in a process for CUDA."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = was
    chosen = []
    settings_of_process.setattr(torch.cuda, "set_device", chosen.append)
    set_up_process(CUDA, 3)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)
    assert (chosen, num_sharers()) == ([CUDA], 3)
    assert cuda_build().endswith("TF32 off in fp32")


def test_a_process_for_the_cpu_leaves_torchs_settings(settings_of_process):
    """On the CPU nothing of CUDA is set."""
    torch.backends.cudnn.allow_tf32 = True
    set_up_process(CPU)
    assert torch.backends.cudnn.allow_tf32


def test_the_build_names_cuda_and_cudnn(monkeypatch):
    """Another CUDA or cuDNN is another build."""
    builds = {cuda_build()}
    monkeypatch.setattr(torch.version, "cuda", "1.0")
    builds.add(cuda_build())
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 1)
    builds.add(cuda_build())
    monkeypatch.setattr(devices, "TF32", True)
    builds.add(cuda_build())
    assert len(builds) == 4
    assert "CUDA 1.0, cuDNN 1, TF32 on in fp32" in builds


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 1), "bf16")])
def test_auto_asks_the_device_that_is_meant(monkeypatch, capability, expected):
    """Its precision is by that device's capability, not by that of the first one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability if device == CUDA else (0, 0))
    assert resolve_precision("auto", CUDA).name == expected


def test_bf16_needs_a_gpu_that_computes_it(monkeypatch):
    """Autocast would begin on any; neither here nor where it is planned for another machine."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(
        ConfigError, match=r"precision: found bf16, which cuda:1, of compute capability 7\.5, does not compute; expected auto"
    ):
        resolve_precision("bf16", CUDA)
    device = planned_device.plan_for("cuda NVIDIA T4", "7.5")
    with pytest.raises(ConfigError, match="found bf16, which cuda NVIDIA T4, of compute capability"):
        planned_device.planned_precision("bf16", device)
    planned_device.plan_for("cuda NVIDIA H100", "9.0")
    assert [planned_device.planned_precision(name, device).name for name in ("auto", "bf16", "fp16", "fp32")] == [
        "bf16",
        "bf16",
        "fp16",
        "fp32",
    ]


# --- how much of a device images may take --------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch, settings_of_process):
    """The memory of a simulated device: free, kept by torch, and used of what it keeps."""
    numbers = {"free": 1000, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (numbers["free"], 2000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: numbers["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: numbers["allocated"])
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    return numbers


def test_what_torch_keeps_without_using_it_is_free(memory):
    """Freed blocks that torch keeps for later count as free memory; those in use do not."""
    assert memory_limit(CUDA) == MEMORY_SHARE * 1000
    memory.update(free=300, reserved=700, allocated=100)
    assert memory_limit(CUDA) == MEMORY_SHARE * 900


@pytest.mark.parametrize("num_jobs", [1, 2, 5])
def test_jobs_on_one_device_do_not_claim_the_same_memory(memory, num_jobs):
    """All that look at once claim together no more than one would."""
    set_up_process(CUDA, num_jobs)
    assert num_jobs * memory_limit(CUDA) == pytest.approx(MEMORY_SHARE * 1000)


def test_images_of_earlier_seeds_make_room(tmp_path, monkeypatch):
    """Where the next seed's images do not fit beside those of earlier ones, these go before any is read from the disk."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns", seeds=[0, 1])
    works = [job.work for job in planned.jobs()]
    held = []

    def limit(_device):
        return 0 if images_on_device.cache_info().currsize else 10**9

    images_on_device.cache_clear()
    monkeypatch.setattr("ablation.training.pixels.memory_limit", limit)
    monkeypatch.setattr("ablation.training.pixels.copy_rows", lambda images_NHWC, rows_N, _device: images_NHWC[rows_N])
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_args, **_options: tensor)
    for work in works:
        held.append(images_on_device(work.dataset, work.stage.settings.data, work.seed, "train", CUDA))
    assert [type(images) for images in held] == [ImagesInMemory, ImagesInMemory]
    monkeypatch.setattr("ablation.training.pixels.memory_limit", lambda _device: 0)
    assert isinstance(images_on_device(works[0].dataset, works[0].stage.settings.data, 0, "train", CUDA), ImagesInFile)
    images_on_device.cache_clear()


# --- the peak that packing goes by -----------------------------------------------------------------------------------------------


@pytest.fixture
def peaks(monkeypatch):
    """The calls of torch.cuda with which a peak is forgotten, on a simulated device."""
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(str(device)))
    return calls


def test_a_peak_is_measured_anew(peaks):
    """What torch keeps is given back first, or it would be the peak again; on the CPU there is nothing to forget."""
    devices.forget_peak(CPU)
    assert peaks == []
    devices.forget_peak(CUDA)
    assert peaks == ["empty", "cuda:1"]


SET = {
    "older names": "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True",
    "newer names": "torch.backends.fp32_precision = 'tf32'; torch.backends.cudnn.conv.fp32_precision = 'ieee'",
}


@pytest.mark.parametrize("how", SET)
def test_a_loaded_model_computes_without_tf32(how):
    """As runs are tested, whatever the process has set and by which names, which it has again afterwards."""
    lines = [
        "import torch",
        "from ablation.training.devices import as_in_tests",
        SET[how],
        "kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv",
        "before = [kind.fp32_precision for kind in kinds]",
        "with as_in_tests(torch.device('cuda')): print([kind.fp32_precision for kind in kinds])",
        "print([kind.fp32_precision for kind in kinds] == before)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['ieee', 'ieee']", "True"]


def test_the_peak_leaves_out_verification_and_earlier_jobs(tmp_path, monkeypatch):
    """It is forgotten when a job begins, and once the step has been verified, whose copies are gone by then."""
    told = []

    def first_verified(*_):
        told.append("verified")
        return None, "plain: no"

    monkeypatch.setattr(accelerated, "can_capture", lambda *_, **__: True)
    monkeypatch.setattr(accelerated, "first_verified", first_verified)
    monkeypatch.setattr(accelerated, "forget_peak", lambda _device: told.append("forgotten after"))
    monkeypatch.setattr(run, "forget_peak", lambda _device: told.append("forgotten before"))
    for job in Planned(write(tmp_path, seeds=[0, 1]), tmp_path / "mlruns").jobs():
        run_job(job, CPU, lambda _event: None, lambda: False)
    assert told == ["forgotten before", "verified", "forgotten after"] * 2
