"""A frozen backbone runs once for all classifiers on it, and each classifier is the same as if it was trained alone. N images, B batch."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score
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


class WithNormalisedHead(nn.Module):
    """A backbone and a classifier with batch norm of its own, as RepViT's."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        self.head = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))

    def get_classifier(self):
        return self.head

    def forward(self, features_BF):
        return self.head(self.backbone(features_BF))


@pytest.mark.parametrize("backbone", ["eval", "train"])
def test_an_average_follows_the_batch_norm_of_the_classifier(backbone):
    """It changes while the head alone is trained; the backbone's only where that is in train mode."""
    model, stage = WithNormalisedHead(), Stage(None, 1, 0, 0, 1, 1, train="head", backbone=backbone)
    loop.prepare_model(model, stage)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    followed = loop.tensors_to_average(model, stage)
    assert {"head.0.running_mean", "head.0.running_var"} <= changed == set(followed)
    assert all(tensor.data_ptr() == model.state_dict()[name].data_ptr() for name, tensor in followed.items())


def test_the_classifier_computes_in_float32_when_it_is_tested():
    """Two logits that are equal in bf16 are told apart, and the layer is as it was afterwards, also after an error."""
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [1.001]])
    with torch.no_grad(), Precision("bf16").autocast(CPU):
        assert len(set(layer(torch.ones(1, 1))[0].tolist())) == 1
        with frozen.in_float32(layer):
            logits_BC = layer(torch.ones(1, 1, dtype=torch.bfloat16))
            assert torch.is_autocast_enabled("cpu")
        assert (logits_BC.dtype, int(logits_BC.argmax())) == (torch.float32, 1)
        with pytest.raises(RuntimeError), frozen.in_float32(layer):
            layer(torch.ones(1, 5))
        assert layer(torch.ones(1, 1)).dtype == torch.bfloat16
        first, second = frozen.in_float32(layer), frozen.in_float32(layer)  # as of two threads
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert layer(torch.ones(1, 1)).dtype == torch.float32
        second.__exit__(None, None, None)
        assert layer(torch.ones(1, 1)).dtype == torch.bfloat16


def test_predictions_in_bf16_have_logits_in_float32(tmp_path):
    """Those of the model's own classifier and of one on features, to the bit."""
    planned = heads(tmp_path, "half", ("focal",), base={"precision": "bf16"})
    columns = predictions(planned, "focal").filter(like="logit/").to_numpy()
    assert (torch.from_numpy(columns).bfloat16().float().numpy() != columns).mean() > 0.9


def heads(tmp_path, name, losses=LOSSES, base=(), **stage):
    """A study with one stage of training and a head for each loss, carried out."""
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
    """The number of images in each forward pass through a backbone that computes features."""
    num_images, features_of_batch = [], frozen.features_of_batch

    def counting(model, images_BCHW, precision):
        num_images.append(len(images_BCHW))
        return features_of_batch(model, images_BCHW, precision)

    monkeypatch.setattr(frozen, "features_of_batch", counting)
    return num_images


@pytest.mark.parametrize("stage", [{}, {"mix": "mixup"}, {"sampler": "progressive"}, {"average": "none"}])
def test_a_head_on_features_is_the_head_on_images(tmp_path, monkeypatch, stage):
    """With random augmentation, training on the backbone's features gives the bits of training through the whole model."""
    on_features = heads(tmp_path, "features", ("focal",), **stage)
    monkeypatch.setattr(loop, "_frozen_backbone", lambda setup, model: None)
    through_model = heads(tmp_path, "model", ("focal",), **stage)
    pd.testing.assert_frame_equal(predictions(on_features, "focal"), predictions(through_model, "focal"), check_exact=True)
    first, second = (load_file(planned.last_stage("focal") / "final.safetensors") for planned in (on_features, through_model))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_random_augmentation_features_are_computed_once(tmp_path, monkeypatch, forwards):
    """Features that are the same in every epoch are computed once, and the head is the one trained through the model, but for rounding."""
    once = heads(tmp_path, "once", ("focal",), base={"augment": []})
    num_train = sum(once.preparation.source(once.study.arms[0], 0).counts)
    assert sum(forwards) == num_train  # for two epochs of the head; the test images go through the whole model
    monkeypatch.setattr(loop, "_frozen_backbone", lambda setup, model: None)
    through_model = heads(tmp_path, "model", ("focal",), base={"augment": []})
    columns = [f"logit/{c}" for c in range(10)]
    values = [predictions(planned, "focal")[columns].to_numpy() for planned in (once, through_model)]
    np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4)


def test_heads_share_one_backbone(tmp_path, forwards):
    """Three heads cost the forward passes of one, and each has the bits of a study that has no other."""
    together = heads(tmp_path, "together")
    shared = sum(forwards)
    forwards.clear()
    alone = heads(tmp_path, "alone", LOSSES[:1])
    num_alone = sum(forwards)
    assert num_alone > 0
    tested = sum(together.preparation.source(together.study.arms[0], 0).test_counts)
    assert shared == num_alone + tested  # a head alone is tested through the whole model
    pd.testing.assert_frame_equal(predictions(together, LOSSES[0]), predictions(alone, LOSSES[0]), check_exact=True)
    assert len({tuple(predictions(together, loss)["logit/0"]) for loss in LOSSES}) == 3


def test_heads_with_other_inputs_share_nothing(tmp_path, forwards):
    """Another sampler, mixing or augmentation needs other features, and features that no head shares are not saved."""
    changes = {"plain": {}, "cb": {"sampler": "class_balanced"}, "mixup": {"mix": "mixup"}, "flipped": {"augment": ["hflip"]}}
    ladder = {name: {"stages": [FIRST, HEAD | stage]} for name, stage in changes.items()}
    planned = Planned(write(tmp_path, "four", base={"epochs": 4, "schedule": "constant"}, ladder=ladder), tmp_path / "mlruns")
    planned.carry_out()
    assert not planned.workspace.features("four").exists()
    assert sum(forwards) == 4 * 2 * 192  # each head's epochs
    assert len({tuple(predictions(planned, name)["logit/0"]) for name in changes}) == 4


def test_features_are_deleted_after_the_last_head(tmp_path):
    """During the training of heads each epoch's features are saved; at the end only those of the test images are left."""
    planned = heads(tmp_path, "gone")
    remaining = [load_file(path) for path in planned.workspace.features("gone").glob("*.safetensors")]
    assert remaining
    assert not any("targets" in tensors for tensors in remaining)


def test_an_average_has_features_of_its_own(tmp_path):
    """An average that continues has other statistics in its backbone than the weights have, and its head is evaluated with these."""
    base = {"average": {"name": "ema", "decay": 0.99}, "select": "best_on_test", "epochs": 4, "schedule": "constant"}
    drifting = {"epochs": "1/4", "train": "head", "backbone": "train"}
    ladder = {"on": {"stages": [{"epochs": "1/4"}, drifting, HEAD]}}
    planned = Planned(write(tmp_path, "average", base=base, ladder=ladder), tmp_path / "mlruns")
    planned.carry_out()
    final = frozen.checkpoints.read(planned.last_stage("on") / "final.safetensors")
    (name,) = final.record["best"]
    best = frozen.checkpoints.tensors_under(f"best/{name}", final.tensors)
    assert not torch.equal(final.tensors["model/bn1.running_mean"], best["bn1.running_mean"])
    table = predictions(planned, "on")  # computed by the whole model
    assert balanced_accuracy_score(table["label"], table["predicted"]) == pytest.approx(final.record["best"][name][0])


def test_only_a_frozen_backbone_in_eval_mode_has_constant_features():
    """A backbone whose batch normalisation is in train mode has other features each time."""
    stage = Stage(settings=None, epochs=1, first_epoch=0, schedule_epoch=0, schedule_span=1, span=1, train="head", backbone="eval")
    assert frozen.has_frozen_backbone(stage)
    assert not frozen.has_frozen_backbone(Stage(None, 1, 0, 0, 1, 1, train="head", backbone="train"))
    assert not frozen.has_frozen_backbone(Stage(None, 1, 0, 0, 1, 1, train="all", backbone="eval"))


class Doubled(nn.Module):
    """A model that does something after its classifier."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def get_classifier(self):
        return self.inner.get_classifier()

    def forward(self, images_BCHW):
        return 2 * self.inner(images_BCHW)


def test_a_model_that_does_not_end_with_its_classifier_is_recognised():
    """Its logits differ from the output of its classifier."""
    model = timm.create_model("test_efficientnet", num_classes=3).eval()
    images_BCHW = torch.randn(2, 3, 16, 16)
    assert frozen.ends_with_classifier(model, images_BCHW, FP32)
    assert not frozen.ends_with_classifier(Doubled(model), images_BCHW, FP32)


def test_such_a_model_is_tested_as_a_whole_too(tmp_path, monkeypatch):
    """Heads that share a backbone are tested by its features only if their scores are made of these alone."""
    monkeypatch.setattr(frozen, "ends_with_classifier", lambda *_: False)
    monkeypatch.setattr(frozen, "logits_of_features", lambda *_: pytest.fail("tested by features"))
    assert len(predictions(heads(tmp_path, "whole", LOSSES[:2]), LOSSES[0])) > 0


def test_the_digest_is_the_backbone_s():
    """Another classifier does not change the digest; another weight or statistic of the backbone does."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=3)
    before = frozen.backbone_digest(model)
    with torch.no_grad():
        model.get_classifier().weight.add_(1)
    assert frozen.backbone_digest(model) == before
    model.bn1.running_mean.add_(1)
    assert frozen.backbone_digest(model) != before


def test_the_cache_computes_features_once(tmp_path):
    """Cached features are not computed again, by any training; without a folder each training computes them."""
    calls = []

    def compute():
        calls.append(1)
        return torch.arange(6.0).view(3, 2)

    caches = [FeatureCache(folder) for folder in (tmp_path / "x", tmp_path / "x", None)]
    features = [frozen.cached_features(cache, "one", compute, CPU) for cache in caches]
    assert len(calls) == 2
    assert all(torch.equal(features_NF, features[0]) for features_NF in features)


def test_on_a_full_disk_nothing_is_cached(tmp_path, monkeypatch):
    """If the disk is nearly full, the features are used but not saved."""
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda path: type("Usage", (), {"free": frozen.MIN_FREE_BYTES})())
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
    selected = Planned(tmp_path / "many.yaml", tmp_path / "mlruns", seeds=[0, 1], arms=arms)
    nodes = list(selected.plan.nodes.values())
    heads = [node for node in nodes if node.job.work.stage.train == "head"]
    assert len(heads) == 2 * 18
    assert all(node.job.work.features for node in heads)
    stages = [node for node in nodes if node.job.work.stage.train == "all"]
    assert sum(node.epochs for node in stages) == 2 * 2 * 8
    assert len({node.job.parent for node in stages if not node.job.parent}) == 1
    assert sum(not node.job.parent for node in stages) == 2 * 2


def test_a_count_that_is_cut_off_fails_no_training(tmp_path):
    """If the count cannot be read, the tensors can be, and stay longer than necessary."""
    cache = FeatureCache(tmp_path, 2)
    cache.get("epoch", lambda: {"features": torch.ones(2)})
    (tmp_path / "epoch.count").write_text("")
    cache.release("epoch")
    assert torch.equal(cache.get("epoch", dict)["features"], torch.ones(2))
    cache.release("epoch")
    assert not (tmp_path / "epoch.safetensors").exists()
