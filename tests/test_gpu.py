"""What only a CUDA device can show; skipped without one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ablation.data import open_dataset
from ablation.tracking.store import Store
from ablation.training import pixels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

STUDY = """
study: gpu
seeds: [0]
base:
  data: {name: digits, longtail: {name: linear, largest: 60, smallest: 20}}
  model: {name: test_efficientnet, image_size: 32}
  augment: [hflip, {name: affine, degrees: 10}, {name: erase, probability: 0.5}]
  optimizer: {name: adamw, lr: 3e-3}
  average: {name: ema, decay: 0.9}
  mix: {name: mixup, alpha: 0.4}
  epochs: 4
  batch_size: 32
"""


def _predictions(folder: Path, *options: str) -> pd.DataFrame:
    """The predictions of a fresh run in that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.yaml").write_text(STUDY)
    subprocess.run([sys.executable, "-m", "ablation", "run", "gpu.yaml", *options], cwd=folder, check=True, capture_output=True)
    recorded = Store.open(folder / "mlruns").recorded("gpu")
    return recorded.predictions(recorded.runs.iloc[0]["run_id"])


def test_training_on_cuda_comes_out_as_on_the_cpu(tmp_path: Path) -> None:
    """In fp32 the logits of both devices lie close after a short training, and the decisions mostly agree."""
    cpu = _predictions(tmp_path / "cpu", "--device", "cpu", "--set", "epochs=1")
    cuda = _predictions(tmp_path / "cuda", "--device", "cuda", "--set", "epochs=1", "--set", "precision=fp32")
    logits = [column for column in cpu if column.startswith("logit/")]
    assert (cpu[logits] - cuda[logits]).abs().to_numpy().mean() < 0.05
    assert (cpu["predicted"] == cuda["predicted"]).mean() > 0.9


def test_deterministic_training_on_cuda_gives_equal_bits(tmp_path: Path) -> None:
    """Two runs with `deterministic: true` agree to the bit."""
    options = ("--device", "cuda", "--set", "deterministic=true")
    pd.testing.assert_frame_equal(_predictions(tmp_path / "a", *options), _predictions(tmp_path / "b", *options))


@pytest.mark.parametrize(("precision", "step"), [("fp32", "captured"), ("bf16", "captured"), ("fp16", "plain")])
def test_a_captured_training_comes_out_as_a_plain_one(tmp_path: Path, precision: str, step: str) -> None:
    """A training with drop path says that it was captured, and decides mostly as the plain one, which `deterministic: true` keeps."""
    options = ("--device", "cuda", "--set", f"precision={precision}", "--set", "model.drop_path=0.1", "--set", "epochs=8")
    found, plain = _predictions(tmp_path / "a", *options), _predictions(tmp_path / "b", *options, "--set", "deterministic=true")
    steps = [json.loads(next((tmp_path / name).rglob("result.json")).read_text())["step"] for name in ("a", "b")]
    assert steps == [step, "plain"]
    assert (found["predicted"] == plain["predicted"]).mean() > 0.8


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns(tmp_path: Path, precision: str) -> None:
    """Mixed precision reaches what chance never does."""
    found = _predictions(tmp_path, "--device", "cuda", "--set", f"precision={precision}", "--set", "epochs=8")
    assert (found["label"] == found["predicted"]).mean() > 0.5


def test_images_that_do_not_fit_arrive_on_the_device_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied to the device beforehand or read ahead from the file, an epoch's batches are the same."""
    _predictions(tmp_path, "--device", "cuda", "--set", "epochs=1")
    dataset = open_dataset(next((tmp_path / "mlruns" / "data").glob("*/meta.json")).parent)
    rows_N, device = np.arange(len(dataset.labels_N))[::2], torch.device("cuda", 0)
    order_N = torch.randperm(len(rows_N), device=device)
    slices = [slice(start, start + 32) for start in range(0, len(rows_N), 32)]
    held = pixels.part_of(dataset, rows_N, device)
    monkeypatch.setattr(pixels, "room", lambda _device: 0)
    stored = pixels.part_of(dataset, rows_N, device)
    assert (type(held), type(stored)) == (pixels.Held, pixels.Stored)
    for one, other in zip(held.batches(slices, order_N), stored.batches(slices, order_N), strict=True):
        assert (one.device, one.stride()) == (other.device, other.stride())
        assert torch.equal(one, other)
