"""The plain script trains what the arms of the study train, and the benchmarks' tables say what was measured."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ablation
from ablation.study.resolving import load_study
from benchmarks import faults, gpu, plain_script, run

TINY = ["--data", "digits", "--model", "test_efficientnet", "--image-size", "16", "--epochs", "2", "--batch-size", "32", "--workers", "0"]
TINY += ["--largest", "30", "--smallest", "10", "--ema", "0.9", "--threads", "1", "--device", "cpu"]
ARMS = {
    "mixup": ["--mix", "mixup", "--sampler", "class_balanced", "--smoothing", "0.2", "--tta", "flips"],
    "cutmix": ["--mix", "cutmix", "--mix-only-tail", "--tta", "rotate", "--ema-warmup"],
    "decoupled": [
        "--head-epochs",
        "1",
        "--head-loss",
        "class_balanced_focal",
        "--head-sampler",
        "class_balanced",
        "--select",
        "best_on_test",
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_the_plain_script_trains_an_arm(arm, capsys):
    """Its last line tells a finite loss for each epoch, accuracy and speed."""
    plain_script.main([*TINY, *ARMS[arm]])
    output = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(output["history"]) == 2
    assert all(0 < row["loss"] < 20 for row in output["history"])
    assert 0 <= output["balanced_accuracy"] <= 1
    assert output["images_per_second"] > 0


def test_both_sides_test_the_same_images(tmp_path, capsys):
    """The images that `ablate` splits, in a file, are what the plain script trains and tests on."""
    study = load_study(run.STUDY, "quick")
    file = run._images(study, tmp_path)
    with np.load(file) as options:
        sizes = {name: len(options[name]) for name in options}
        assert options["train_images"].dtype == np.uint8
    assert sizes["test_images"] == sizes["test_labels"] == 359
    assert sizes["train_images"] == sizes["train_labels"] == 1797 - 359
    plain_script.main([*TINY, "--data", "npz", "--root", str(file)])
    right = 359 * json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"]
    assert right == pytest.approx(round(right), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("cross_entropy", "cross_entropy"),
        ("weighted_cross_entropy", "weighted_cross_entropy"),
        ("balanced_softmax", "balanced_softmax"),
        ("focal", "focal"),
        ("class_balanced", {"name": "class_balanced", "beta": 0.9999}),
        ("class_balanced_focal", {"name": "class_balanced_focal", "beta": 0.9999}),
    ],
)
def test_its_losses_are_those_of_the_study(name, spec):
    """Under soft targets, to the digits of float32."""
    torch.manual_seed(0)
    logits_BC, targets_BC = torch.randn(16, 10), torch.rand(16, 10).softmax(1)
    counts_C = torch.linspace(500, 50, 10).round()
    ours = ablation.make("losses", spec)(logits_BC, targets_BC, counts_C)
    torch.testing.assert_close(plain_script.loss_of(name, logits_BC, targets_BC, counts_C), ours, rtol=1e-4, atol=1e-5)


def test_its_smoothing_is_the_study_s():
    """In both conventions."""
    targets_BC = torch.eye(10)
    for spread in ("others", "all"):
        ours = ablation.make("smoothing", {"epsilon": 0.2, "spread": spread})(targets_BC, torch.ones(10))
        torch.testing.assert_close(plain_script.smoothed(targets_BC, 0.2, spread), ours)


@pytest.mark.parametrize("profile", [None, "quick", "laptop"])
def test_every_arm_has_its_flags(profile):
    """The script understands them, and arms that differ get different ones, but for what only the tables tell apart."""
    written = load_study(run.STUDY, profile)
    found = {arm.name: tuple(run.flags(written, arm, run.HERE)) for arm in written.arms}
    for options in found.values():
        plain_script.parser().parse_args(list(options))
    assert found["mixup"] != found["cb"]
    assert found["ls"] != found["mixup"]
    assert found["cb"] == found["reweight"]
    distinct = {arm.name for arm in written.arms if not arm.same_as}
    assert len(set(found.values())) == len(distinct)
    by_hand = plain_script.parser().parse_args(list(found["decoupling"]))
    assert (by_hand.head_epochs * 3, by_hand.mix, by_hand.smoothing, by_hand.tta) == (by_hand.epochs, "mixup", 0.2, "hflip")


def test_the_table_and_the_file_hold_what_was_measured(tmp_path, monkeypatch, capsys):
    """Each row with its unit; ratios where there are two sides."""
    rows = [{"what": "a (b)", "ablate": 10.0, "plain": 40.0, "ratio": 4.0, "unit": "s"}, {"what": "c", "ablate": 1.5, "unit": "s"}]
    monkeypatch.setitem(run.PARTS, "scaling", lambda root, quick: [dict(row) for row in rows])
    run.main(["--only", "scaling", "--output", str(tmp_path)])
    assert "| a (b) | 10 s | 40 s | 4.0 |\n| c | 1.5 s |  |  |" in capsys.readouterr().out
    (file,) = tmp_path.glob("run-*.json")
    kept = json.loads(file.read_text())
    assert [row["ablate"] for row in kept["rows"]] == [10.0, 1.5]
    assert kept["hardware"]
    assert file.with_suffix(".png").stat().st_size > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_injected_faults_come_at_every_write(monkeypatch):
    """The tests that inject them are run, told to leave none out; their status is the command's."""
    asked = []

    def ran(command, *, env, **_):
        asked.append((command[-1], env["ABLATE_FAULTS"]))
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(faults, "subprocess", SimpleNamespace(run=ran))
    assert faults.main(["--injected"]) == 3
    ((tests, which),) = asked
    assert (Path(tests).name, Path(tests).is_file(), which) == ("test_faults.py", True, "all")


def test_without_a_gpu_its_benchmark_says_so(tmp_path, capsys):
    """One sentence, and the status of a command that is wrong."""
    assert gpu.main(["--data-root", str(tmp_path)]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    assert str(gpu.HERE.parent) in sys.path
