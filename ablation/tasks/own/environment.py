"""The environment variables of one's own training code: what the study sets, its threads, its GPU, and none of our settings."""

import os
import subprocess
from collections.abc import Mapping

from ablation.tasks.own.definition import Definition

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
VISIBLE = "CUDA_VISIBLE_DEVICES"
OURS = ("MLFLOW_RUN_ID", "PYTHONSAFEPATH")  # the second keeps our own processes from importing what lies in the working folder
OURS_BEGIN = "MLFLOW_EXPERIMENT_"


def environment(definition: Definition, device: str, store: Mapping[str, str], outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a run: the outer one, what repeatability asks for, the address of its MLflow store, and what the file sets."""
    kept = {name: value for name, value in outer.items() if name not in OURS and not name.startswith(OURS_BEGIN)}
    return {
        "PYTHONHASHSEED": "0",
        **kept,
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        **dict.fromkeys(THREADS, str(definition.threads)),
        **store,
        VISIBLE: visible(device if definition.gpus else "cpu", outer.get(VISIBLE)),
        **definition.env,
    }


def visible(device: str, outer: str | None) -> str:
    """The one GPU that a run sees, as the driver names it: `cuda:1` is the second of those that our process sees; "" for a CPU."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ""
    if outer is None:
        return number or "0"
    names = [name.strip() for name in outer.split(",")]
    return names[int(number or 0)] if int(number or 0) < len(names) else ""


def device_tag(device: str, gpu: str) -> str:
    """`cpu`, or `cuda:` and the name of the GPU that a run saw, as far as the driver tells it."""
    if not gpu:
        return "cpu"
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", gpu]
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return f"cuda:{done.stdout.strip().splitlines()[0]}"
    except (OSError, subprocess.SubprocessError, IndexError):
        return device
