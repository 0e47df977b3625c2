"""The environment of one's own training code."""

import pytest

from ablation.tasks.own.definition import Definition
from ablation.tasks.own.environment import device_tag, environment, visible

STORE = {"MLFLOW_TRACKING_URI": "sqlite:///scratch.db", "MLFLOW_REGISTRY_URI": "sqlite:///scratch.db"}


@pytest.mark.parametrize(
    ("device", "outer", "expected"),
    [
        ("cpu", None, ""),
        ("cpu", "3,5", ""),
        ("mps", None, ""),
        ("cuda", None, "0"),
        ("cuda:1", None, "1"),
        ("cuda:1", "3,5", "5"),
        ("cuda:0", "3, 5", "3"),
        ("cuda:1", " 3 , 5 ", "5"),
        ("cuda:0", "MIG-1f2e-3d", "MIG-1f2e-3d"),
        ("cuda:1", "GPU-aa,GPU-bb", "GPU-bb"),
        ("cuda:0", "", ""),
        ("cuda:2", "3,5", ""),
    ],
)
def test_a_run_sees_its_gpu_alone(device, outer, expected):
    """Device numbers are those of our process, which may see only some GPUs; names of GPUs and their parts stay as they are."""
    assert visible(device, outer) == expected


def test_the_environment_is_the_outer_one_with_what_repeats(tmp_path):
    outer = {
        "PATH": "/bin",
        "MLFLOW_RUN_ID": "ours",
        "MLFLOW_EXPERIMENT_NAME": "ours",
        "MLFLOW_EXPERIMENT_ID": "1",
        "MLFLOW_TRACKING_URI": "http://ours",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "64",
        "CUDA_VISIBLE_DEVICES": "3,5",
    }
    definition = Definition(folder=tmp_path, threads=2, env={"MODE": "a b", "MKL_NUM_THREADS": "7"})
    assert environment(definition, "cuda:1", STORE, outer) == {
        "PATH": "/bin",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "7",
        "OPENBLAS_NUM_THREADS": "2",
        "NUMEXPR_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "5",
        "MODE": "a b",
        **STORE,
    }


def test_a_run_without_gpus_sees_none(tmp_path):
    assert environment(Definition(folder=tmp_path, gpus=0), "cuda:1", STORE, {})["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("outer", "file", "expected"), [({}, {}, "0"), ({"PYTHONHASHSEED": "5"}, {}, "5"), ({}, {"PYTHONHASHSEED": "7"}, "7")]
)
def test_hashes_are_the_same_unless_others_are_asked_for(tmp_path, outer, file, expected):
    assert environment(Definition(folder=tmp_path, env=file), "cpu", STORE, outer)["PYTHONHASHSEED"] == expected


def test_a_device_has_the_name_of_its_gpu(tmp_path, monkeypatch):
    """As the driver tells it for what the run sees; the device itself where nothing does."""
    assert device_tag("cpu", "") == "cpu"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_tag("cuda:0", "5") == "cuda:0"
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$4" = 5 ] && echo "NVIDIA H200"\n')
    program.chmod(0o755)
    assert device_tag("cuda:1", "5") == "cuda:NVIDIA H200"
