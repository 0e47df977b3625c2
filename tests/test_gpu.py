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
from ablation.techniques.optimizers import SGD
from ablation.tracking.store import Store
from ablation.training import pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("empty_database"),  # whose first use warns
]

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
    predicted, plain = _predictions(tmp_path / "a", *options), _predictions(tmp_path / "b", *options, "--set", "deterministic=true")
    steps = [json.loads(next((tmp_path / name).rglob("result.json")).read_text())["tags"]["step"] for name in ("a", "b")]
    assert steps == [step, "plain"]
    assert (predicted["predicted"] == plain["predicted"]).mean() > 0.8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_training_comes_out_as_a_plain_one(tmp_path: Path, precision: str) -> None:
    """Compiled and captured with the same draws of drop path, it decides mostly as the plain one."""
    options = ("--device", "cuda", "--set", f"precision={precision}", "--set", "model.drop_path=0.1", "--set", "epochs=8")
    predicted = _predictions(tmp_path / "a", *options, "--set", "compile=true")
    plain = _predictions(tmp_path / "b", *options, "--set", "deterministic=true")
    assert json.loads(next((tmp_path / "a").rglob("result.json")).read_text())["tags"]["step"] == "compiled, captured"
    assert (predicted["predicted"] == plain["predicted"]).mean() > 0.8


WAITING = """
from ablation.techniques.losses import CrossEntropy


class Waiting(CrossEntropy):
    def __call__(self, logits_BC, targets_BC, *others):
        loss = super().__call__(logits_BC, targets_BC, *others)
        return loss * (loss.item() / float(loss.detach()))
"""


def test_what_cannot_be_recorded_trains_plainly_and_spoils_nothing(tmp_path: Path) -> None:
    """A loss that looks at the host ends as `plain: ...`; the next job of that worker is captured as if nothing had been."""
    (tmp_path / "own.py").write_text(WAITING)
    (tmp_path / "gpu.yaml").write_text(f"{STUDY}variants:\n  waiting: {{loss: 'own:Waiting'}}\n  after: {{epochs: 5}}\n")
    command = [sys.executable, "-m", "ablation", "run", "gpu.yaml", "--device", "cuda", "--jobs", "1", "--allow-code"]
    subprocess.run([*command, "--arm", "waiting", "--arm", "after"], cwd=tmp_path, check=True, capture_output=True)
    runs = Store.open(tmp_path / "mlruns").recorded("gpu").runs
    steps = {arm: Path(tmp_path / "mlruns" / "results" / key / "result.json") for arm, key in zip(runs["arm"], runs["key"], strict=True)}
    predicted = {arm: json.loads(path.read_text())["tags"]["step"] for arm, path in steps.items()}
    assert predicted["waiting"].startswith("plain: ")
    assert predicted["after"] == "captured"


def test_jobs_are_added_by_measurement(tmp_path: Path) -> None:
    """Without --jobs a second job joins after a few epochs, and the numbers are those of one job at a time."""
    (tmp_path / "gpu.yaml").write_text(STUDY.replace("seeds: [0]", "seeds: [0, 1, 2, 3]").replace("epochs: 4", "epochs: 12"))
    command = [sys.executable, "-m", "ablation", "run", "gpu.yaml", "--device", "cuda:0", "--set", "deterministic=true"]
    errors = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    assert "2 at once on cuda:0 from now on: one took " in errors
    by_one = tmp_path / "by-one"
    by_one.mkdir()
    (by_one / "gpu.yaml").write_text((tmp_path / "gpu.yaml").read_text())
    subprocess.run([*command, "--jobs", "1"], cwd=by_one, check=True, capture_output=True)
    accuracies = [Store.open(folder / "mlruns").recorded("gpu").runs.set_index("seed")["test/accuracy"] for folder in (tmp_path, by_one)]
    pd.testing.assert_series_equal(accuracies[0].sort_index(), accuracies[1].sort_index())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns(tmp_path: Path, precision: str) -> None:
    """Mixed precision reaches what chance never does."""
    predicted = _predictions(tmp_path, "--device", "cuda", "--set", f"precision={precision}", "--set", "epochs=8")
    assert (predicted["label"] == predicted["predicted"]).mean() > 0.5


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_first_step_that_overflows_leaves_nothing(momentum: float) -> None:
    """The scaler of fp16 skips infinite gradients on the device itself: what comes after is as if they had never been."""
    weights = {}
    for scales in ([float("inf"), 1.0, 1.0], [1.0, 1.0]):
        parameter = torch.nn.Parameter(torch.ones(1000, device="cuda"))
        optimizer, scaler = SGD(momentum=momentum)([parameter]), torch.amp.GradScaler("cuda")
        for scale in scales:
            optimizer.zero_grad()
            scaler.scale((parameter * scale).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        weights[len(scales)] = parameter.detach()
    torch.testing.assert_close(weights[3], weights[2])


def test_images_that_do_not_fit_arrive_on_the_device_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied to the device beforehand or read ahead from the file, an epoch's batches are the same."""
    _predictions(tmp_path, "--device", "cuda", "--set", "epochs=1")
    dataset = open_dataset(next((tmp_path / "mlruns" / "data").glob("*/meta.json")).parent)
    rows_N, device = np.arange(len(dataset.labels_N))[::2], torch.device("cuda", 0)
    order_N = torch.randperm(len(rows_N), device=device)
    slices = [slice(start, start + 32) for start in range(0, len(rows_N), 32)]
    held = pixels.images_of_rows(dataset, rows_N, device)
    monkeypatch.setattr(pixels, "memory_limit", lambda _device: 0)
    stored = pixels.images_of_rows(dataset, rows_N, device)
    assert (type(held), type(stored)) == (pixels.ImagesInMemory, pixels.ImagesInFile)
    for one, other in zip(held.batches(slices, order_N), stored.batches(slices, order_N), strict=True):
        assert (one.device, one.stride()) == (other.device, other.stride())
        assert torch.equal(one, other)


OWN = """
study: own
task: {{function: "device:look", gpus: {gpus}}}
metrics: {{gpus: {{better: higher}}, total: {{better: higher}}}}
seeds: [0]
base: {{}}
"""
LOOK = """
import torch

def look(run, *, size: int = 1000):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"gpus": torch.cuda.device_count(), "total": torch.ones(size, device=device).sum().item()}
"""


@pytest.mark.parametrize("gpus", [1, 0])
def test_a_run_of_ones_own_code_sees_one_gpu_or_none(tmp_path: Path, gpus: int) -> None:
    """It sees the device of its slot alone, as cuda:0, and computes there; with `gpus: 0` it sees none. The record names the device."""
    (tmp_path / "device.py").write_text(LOOK)
    (tmp_path / "own.yaml").write_text(OWN.format(gpus=gpus))
    last = torch.cuda.device_count() - 1
    command = [sys.executable, "-m", "ablation", "run", "own.yaml", "--allow-code", "--device", f"cuda:{last}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    row = Store.open(tmp_path / "mlruns").recorded("own").runs.iloc[0]
    assert (row["test/gpus"], row["test/total"]) == (gpus, 1000)
    assert row["device"].startswith("cuda" if gpus else "cpu")
