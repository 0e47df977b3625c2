"""How a change of settings reads in a document."""

import pytest

from ablation.study.task import load_task
from ablation.study.wording import change_words

SCHEMA = load_task("images").schema


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampler.name": ["shuffle", "class_balanced"]}, ["sampler class_balanced"]),
        ({"tta": ["none", "hflip"]}, ["tta hflip"]),
        ({"mix.alpha": [None, 0.4], "mix.name": ["none", "mixup"]}, ["mix mixup (alpha 0.4)"]),
        ({"mix.alpha": [0.4, None], "mix.name": ["mixup", "none"]}, ["mix none"]),
        ({"loss.weights.beta": [0.9, None], "loss.name": ["focal", "ldam"]}, ["loss ldam"]),
        ({"longer.name": ["a", "b"], "long.x": [1, None]}, ["longer b", "no long.x"]),
        ({"average.warmup": [False, True], "optimizer.lr": [0.1, 1e-4]}, ["average.warmup true", "optimizer.lr 0.0001"]),
        ({"augment": [[], ["hflip", "crop"]]}, ['augment ["hflip", "crop"]']),
        ({"posthoc.tau": [None, "the best of 0.5, 1.0 by val/nll"]}, ["posthoc.tau: the best of 0.5, 1.0 by val/nll"]),
        ({"mix.name": ["none", "the best of mixup, remix by val/nll"]}, ["mix: the best of mixup, remix by val/nll"]),
        ({}, []),
        # fields at their defaults are not told, those of techniques within either
        ({"mix.name": ["none", "cutmix"], "mix.alpha": [None, 1.0], "mix.only": [None, "all"]}, ["mix cutmix"]),
        ({"mix.name": ["none", "cutmix"], "mix.alpha": [None, 1.0], "mix.only": [None, "tail"]}, ["mix cutmix (only tail)"]),
        ({"tta.name": ["none", "scale"], "tta.factors": [None, [0.9, 1.1]], "tta.average": [None, "logits"]}, ["tta scale"]),
        ({"loss.name": ["cross_entropy", "focal"], "loss.gamma": [None, 2.0], "loss.form": [None, "softmax"]}, ["loss focal"]),
        (
            {"loss.name": ["cross_entropy", "focal"], "loss.gamma": [None, 1.0], "loss.weights.name": ["none", "effective_number"],
             "loss.weights.beta": [None, 0.9999]},
            ["loss focal (gamma 1, weights effective_number)"],
        ),
        ({"loss.weights.name": ["none", "effective_number"], "loss.weights.beta": [None, 0.9]},
         ["loss.weights effective_number (beta 0.9)"]),
        ({"loss.name": ["cross_entropy", "mine:Loss"], "loss.scale": [None, 2.0]}, ["loss mine:Loss (scale 2)"]),
        # stages: each in one piece, its own options first
        (
            {"stages.0.epochs": [6, 4], "stages.1.epochs": [None, 2], "stages.1.sampler.name": ["shuffle", "class_balanced"],
             "stages.1.train": ["all", "head"], "stages.1.head": ["keep", "new"], "stages.1.backbone": ["train", "eval"]},
            ["stages.0: epochs 4", "stages.1: epochs 2, train head, head new, sampler class_balanced"],
        ),
        ({"stages.1.backbone": ["train", "eval"]}, ["stages.1: backbone eval"]),
        ({"stages.10.epochs": [None, 1], "stages.9.epochs": [None, 1]}, ["stages.9: epochs 1", "stages.10: epochs 1"]),
        # a list of techniques: from what to what
        ({"augment": [[], None], "augment.0.name": [None, "hflip"]}, ["augment: none → hflip"]),
        ({"augment": [None, []], "augment.0.name": ["hflip", None], "augment.1.name": ["vflip", None]}, ["augment: hflip, vflip → none"]),
        (
            {"augment.1.name": ["affine", "erase"], "augment.1.degrees": [10.0, None], "augment.1.probability": [None, 0.1]},
            ["augment: …, affine (degrees 10) → …, erase (probability 0.1)"],
        ),
        ({"augment.1.degrees": [10.0, 20.0]}, ["augment.1.degrees 20"]),
    ],
)  # fmt: skip
def test_a_change_is_told_shortly(change, expected):
    """A technique by its name, a field by its path; fields that left with their technique are not told."""
    assert change_words(change, SCHEMA) == expected
