"""A frozen backbone runs once for all classifiers on it, and every classifier is the one that it would be alone. N images, B batch."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from ablation.training import frozen, loop
from ablation.training.frozen import FeatureCache
from ablation.training.settings import Stage
from ablation.training.step import Precision
from tests.tiny import CPU, Planned, write

FP32 = Precision("fp32")
FIRST = {"epochs": "1/2"}
HEAD = {"epochs": "1/2", "train": "head"}
LOSSES = ("cross_entropy", "focal", "balanced_softmax")


def heads(tmp_path, name, losses=LOSSES, base=(), **stage):
    """A study of one stage of training and a head for each loss, carried out."""
    ladder = {loss: {"stages": [FIRST, HEAD | {"loss": loss} | stage]} for loss in losses}
    planned = Planned(
        write(tmp_path, name, base={"epochs": 4, "schedule": "constant", **dict(base)}, ladder=ladder), tmp_path / f"in-{name}"
    )
    planned.carry_out()
    return planned


def predictions(planned, arm):
    return pd.read_parquet(planned.result(arm) / "predictions.parquet")


@pytest.fixture
def forwards(monkeypatch):
    """The number of images that went through a backbone to be trained or looked at with, a number for each forward pass."""
    found, seen = [], frozen.seen
    monkeypatch.setattr(
        frozen, "seen", lambda model, images_BCHW, *rest: (found.append(len(images_BCHW)), seen(model, images_BCHW, *rest))[1]
    )
    return found


@pytest.mark.parametrize("stage", [{}, {"mix": "mixup"}, {"sampler": "progressive"}, {"average": "none"}])
def test_a_head_on_features_is_the_head_on_images(tmp_path, monkeypatch, stage):
    """With random augmentation, training on the backbone's features gives the bits of training through the whole model."""
    on_features = heads(tmp_path, "features", ("focal",), **stage)
    monkeypatch.setattr(loop, "_frozen_backbone", lambda setup, model: None)
    through_model = heads(tmp_path, "model", ("focal",), **stage)
    pd.testing.assert_frame_equal(predictions(on_features, "focal"), predictions(through_model, "focal"), check_exact=True)
    kept = [load_file(one.last_stage("focal") / "final.safetensors") for one in (on_features, through_model)]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_without_random_augmentation_each_image_is_seen_once(tmp_path, monkeypatch, forwards):
    """Features that no epoch changes are made once in all, and the head is the one trained through the model, but for rounding."""
    once = heads(tmp_path, "once", ("focal",), base={"augment": []})
    num_train = sum(once.preparation.source(once.study.arms[0], 0).counts)
    assert sum(forwards) == num_train  # two epochs of the head; the test images are seen by the whole model
    monkeypatch.setattr(loop, "_frozen_backbone", lambda setup, model: None)
    through_model = heads(tmp_path, "model", ("focal",), base={"augment": []})
    columns = [f"logit/{c}" for c in range(10)]
    values = [predictions(one, "focal")[columns].to_numpy() for one in (once, through_model)]
    np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4)


def test_heads_share_one_backbone(tmp_path, forwards):
    """Three heads cost the forward passes of one, and each has the bits of a study that has nothing else."""
    together = heads(tmp_path, "together")
    shared = sum(forwards)
    forwards.clear()
    alone = heads(tmp_path, "alone", LOSSES[:1])
    own = sum(forwards)
    assert own > 0
    tested = sum(together.preparation.source(together.study.arms[0], 0).test_counts)
    assert shared == own + tested  # the test images, which a head alone sees through the whole model
    pd.testing.assert_frame_equal(predictions(together, LOSSES[0]), predictions(alone, LOSSES[0]), check_exact=True)
    assert len({tuple(predictions(together, loss)["logit/0"]) for loss in LOSSES}) == 3


def test_heads_that_see_other_images_share_nothing(tmp_path, forwards):
    """Another sampler, mixing or augmentation has features of its own, and a head that shares them with nobody keeps none."""
    changes = {"plain": {}, "cb": {"sampler": "class_balanced"}, "mixup": {"mix": "mixup"}, "flipped": {"augment": ["hflip"]}}
    ladder = {name: {"stages": [FIRST, HEAD | stage]} for name, stage in changes.items()}
    planned = Planned(write(tmp_path, "four", base={"epochs": 4, "schedule": "constant"}, ladder=ladder), tmp_path / "mlruns")
    planned.carry_out()
    assert not planned.workspace.features("four").exists()
    assert sum(forwards) == 4 * 2 * 192  # each head's epochs
    assert len({tuple(predictions(planned, name)["logit/0"]) for name in changes}) == 4


def test_features_go_when_the_last_head_has_had_them(tmp_path):
    """While heads are trained each epoch's features lie there once, and afterwards none do but those of the test images."""
    planned = heads(tmp_path, "gone")
    left = [load_file(path) for path in planned.workspace.features("gone").glob("*.safetensors")]
    assert left
    assert not any("targets" in one for one in left)


def test_the_features_of_an_average_are_its_own(tmp_path):
    """An average that runs on has other statistics in its backbone than the weights have, and its head is looked at with these."""
    base = {"average": {"name": "ema", "decay": 0.99}, "select": "best_on_test", "epochs": 4, "schedule": "constant"}
    drifting = {"epochs": "1/4", "train": "head", "backbone": "train"}
    ladder = {"on": {"stages": [{"epochs": "1/4"}, drifting, HEAD]}}
    planned = Planned(write(tmp_path, "average", base=base, ladder=ladder), tmp_path / "mlruns")
    planned.carry_out()
    final = frozen.checkpoints.read(planned.last_stage("on") / "final.safetensors")
    (name,) = final.record["best"]
    kept = frozen.checkpoints.under(f"best/{name}", final.tensors)
    assert not torch.equal(final.tensors["model/bn1.running_mean"], kept["bn1.running_mean"])
    table = predictions(planned, "on")  # by the whole model
    assert (table["label"] == table["predicted"]).mean() == pytest.approx(final.record["best"][name][0])


def test_only_a_frozen_backbone_in_eval_mode_is_left_out():
    """A backbone whose normalisation goes on has other features each time."""
    stage = Stage(settings=None, epochs=1, first_epoch=0, schedule_epoch=0, schedule_span=1, span=1, train="head", backbone="eval")
    assert frozen.is_frozen(stage)
    assert not frozen.is_frozen(Stage(None, 1, 0, 0, 1, 1, train="head", backbone="train"))
    assert not frozen.is_frozen(Stage(None, 1, 0, 0, 1, 1, train="all", backbone="eval"))


class Doubled(nn.Module):
    """A model that does something behind its classifier."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_classifier(self):
        return self.inner.get_classifier()

    def forward(self, images_BCHW):
        return 2 * self.inner(images_BCHW)


def test_a_model_that_goes_on_behind_its_classifier_is_not_divided():
    """Such a model is told by its logits, and is trained as a whole."""
    model = timm.create_model("test_efficientnet", num_classes=3).eval()
    images_BCHW = torch.randn(2, 3, 16, 16)
    assert frozen.is_divisible(model, images_BCHW, FP32)
    assert not frozen.is_divisible(Doubled(model), images_BCHW, FP32)


def test_the_digest_is_the_backbone_s():
    """Another classifier leaves the digest as it is; another weight or statistic of the backbone does not."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=3)
    before = frozen.digest_of(model)
    with torch.no_grad():
        model.get_classifier().weight.add_(1)
    assert frozen.digest_of(model) == before
    model.bn1.running_mean.add_(1)
    assert frozen.digest_of(model) != before


def test_the_cache_makes_a_thing_once(tmp_path):
    """What lies on the cache is not made again, by whoever asks; without a folder everyone makes it."""
    made = []

    def make():
        made.append(1)
        return {"features": torch.arange(6.0).view(3, 2)}

    found = [frozen.cached(FeatureCache(folder), "one", lambda: make()["features"], CPU) for folder in (tmp_path / "x", tmp_path / "x", None)]
    assert len(made) == 2
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_full_disk_keeps_nothing_and_stops_nothing(tmp_path, monkeypatch):
    """Where the disk is nearly full, the features are used and not kept."""
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda path: type("Usage", (), {"free": frozen.SPARE_BYTES})())
    assert torch.equal(FeatureCache(tmp_path).get("one", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    assert not list(tmp_path.glob("*.safetensors"))


def test_many_heads_are_planned_on_few_trainings(tmp_path):
    """72 arms of 3 lengths x 3 rates x MixUp x TTA x average are 2 trainings and 18 heads for each seed."""
    lengths = {
        str(epochs): {"stages": [{"epochs": epochs, "average": "none"}, {"epochs": 2, "train": "head", "mix": "none"}]}
        for epochs in (4, 6, 8)
    }
    axes = {
        "length": lengths,
        "rate": {name: {"stages.1.optimizer.lr": rate} for name, rate in {"a": 1e-3, "b": 3e-3, "c": 1e-2}.items()},
        "mix": {"off": {}, "on": {"stages.0.mix": "mixup"}},
        "tta": {"off": {}, "hflip": {"tta": "hflip"}},
        "average": {"off": {"stages.1.average": "none"}, "on": {"stages.1.average": {"name": "ema", "decay": 0.9}}},
    }
    base = {"epochs": 10, "schedule": "constant", "average": "none"}
    planned = Planned(write(tmp_path, "many", base=base, sweeps={"decoupled": {"over": axes}}), tmp_path / "mlruns", seeds=[0, 1])
    arms = [arm.name for arm in planned.study.arms if arm.name.startswith("decoupled/")]
    assert len(arms) == 72
    only = Planned(tmp_path / "many.yaml", tmp_path / "mlruns", seeds=[0, 1], arms=arms)
    nodes = list(only.plan.nodes.values())
    heads = [node for node in nodes if node.job.work.stage.train == "head"]
    assert len(heads) == 2 * 18
    assert all(node.job.work.features for node in heads)
    trained = [node for node in nodes if node.job.work.stage.train == "all"]
    assert sum(node.epochs for node in trained) == 2 * 2 * 8
    assert len({node.job.parent for node in trained if not node.job.parent}) == 1
    assert sum(not node.job.parent for node in trained) == 2 * 2


def test_a_count_that_a_kill_has_cut_fails_no_training(tmp_path):
    """The cache is a help: where it cannot be read, the tensors are there and stay for a while."""
    cache = FeatureCache(tmp_path, 2)
    cache.get("epoch", lambda: {"features": torch.ones(2)})
    (tmp_path / "epoch.count").write_text("")
    cache.release("epoch")
    assert torch.equal(cache.get("epoch", dict)["features"], torch.ones(2))
    cache.release("epoch")
    assert not (tmp_path / "epoch.safetensors").exists()
