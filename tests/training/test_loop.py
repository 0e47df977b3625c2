"""The training of a stage. Shapes: N images, B batch, C classes or channels, H height, W width."""

import math
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3
from torch.nn import functional

from ablation.data import open_dataset, split
from ablation.errors import ConfigError, DataError, TrainingError
from ablation.system.randomness import generator, key
from ablation.techniques.augmentations import Erase, Resize
from ablation.techniques.models import classifier_of
from ablation.techniques.technique import Technique, family
from ablation.training import checkpoints
from ablation.training.images import ImagePipeline
from ablation.training.loop import batch_slices
from ablation.training.states import untrained_model
from ablation.training.step import Precision, resolve_precision
from tests.tiny import BASE, CPU, Planned, write

STILL = {"augment": [], "model": {"name": "test_efficientnet", "image_size": 8}}  # the digits' own size: nothing is resized
TIMM_WARMUP = {"use_warmup": True, "warmup_gamma": 1.0, "warmup_power": 2 / 3}
HEAD = {"epochs": 1, "train": "head"}


def trained(folder, name="tiny", arm="baseline", **layers):
    """The saved state of the arm's last stage."""
    planned = Planned(write(folder, name, **layers), folder / f"mlruns-{name}")
    planned.carry_out()
    return checkpoints.read(planned.last_stage(arm) / checkpoints.FINAL)


def model_of(saved):
    return checkpoints.tensors_under("model", saved.tensors)


def average_of(saved):
    name = next(name for name in saved.tensors if name.startswith("average/")).split("/")[1]
    return checkpoints.tensors_under(f"average/{name}", saved.tensors)


def differing(first, second):
    """The names of the tensors that are not equal to the bit."""
    assert set(first) == set(second)
    return {name for name in first if not torch.equal(first[name], second[name])}


def is_head(name):
    return name.startswith("classifier")


@pytest.mark.parametrize(
    ("base", "ema"),
    [
        ({"average": {"name": "ema", "decay": 0.9}}, {"decay": 0.9}),
        ({"average": {"name": "ema", "decay": 0.9, "warmup": True}, "drop_last": False}, {"decay": 0.9, **TIMM_WARMUP}),
        ({"sampler": "class_balanced", "model": STILL["model"] | {"drop": 0.2, "drop_path": 0.2}}, {"decay": 0.9}),
    ],
)  # fmt: skip
def test_a_training_equals_a_plain_loop(tmp_path, base, ema):
    """Two epochs give the weights and averages of a loop that is written out in torch and timm."""
    file = write(tmp_path, base=STILL | base)
    planned = Planned(file, tmp_path / "mlruns")
    planned.carry_out()
    saved = checkpoints.read(planned.last_stage("baseline") / checkpoints.FINAL)
    settings, source = planned.study.arms[0].settings, planned.preparation.source(planned.study.arms[0], 0)
    dataset = open_dataset(source.dataset)
    parts = split(dataset, settings.data, 0)
    labels_N = torch.from_numpy(dataset.labels_N[parts.train_N])
    images_NCHW = torch.from_numpy(np.ascontiguousarray(dataset.images_NHWC[parts.train_N])).permute(0, 3, 1, 2)

    model = settings.model(10, 0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)
    average, losses = ModelEmaV3(model, **ema), []
    mean_C, std_C = (torch.tensor(values).view(3, 1, 1) for values in (model.pretrained_cfg["mean"], model.pretrained_cfg["std"]))
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 + math.cos(math.pi * epoch / 2)) / 2
        order_generator = generator(0, "order", epoch)
        if "sampler" in base:
            probabilities_N = (1 / torch.bincount(labels_N).double())[labels_N]
            order_N = torch.multinomial(probabilities_N, len(labels_N), replacement=True, generator=order_generator)
        else:
            order_N = torch.randperm(len(labels_N), generator=order_generator)
        if "drop_last" not in base:
            order_N = order_N[: len(order_N) // 32 * 32]
        torch.manual_seed(key(0, "model", epoch))
        for step, rows_B in enumerate(order_N.split(32), 1):
            model.train()
            optimizer.zero_grad()
            images_BCHW = (images_NCHW[rows_B].float() / 255 - mean_C) / std_C
            loss = functional.cross_entropy(model(images_BCHW.contiguous(memory_format=torch.channels_last)), labels_N[rows_B])
            loss.backward()
            optimizer.step()
            # timm uses the step for the warm-up only, and copies the weights at the first one that it gets
            average.update(model, step=step + epoch * len(order_N.split(32)) if "use_warmup" in ema else None)
            losses.append(loss.item())

    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(model_of(saved)[name], tensor, rtol=0, atol=1e-6)
    for name, tensor in average.module.state_dict().items():
        torch.testing.assert_close(average_of(saved)[name], tensor, rtol=0, atol=1e-6)
    means = np.array(losses).reshape(2, -1).mean(axis=1)
    np.testing.assert_allclose([row["values"]["train/loss"] for row in saved.record["history"]], means, atol=1e-5)
    np.testing.assert_allclose([row["values"]["train/lr"] for row in saved.record["history"]], [3e-3, 1.5e-3])


@pytest.mark.parametrize(
    "watcher", [{"average": "none"}, {"tta": "vflip"}, {"select": "best_on_test"}, {"average": {"name": "ema", "decay": 0.5}}]
)
def test_watchers_change_no_weight(tmp_path, watcher):
    """With and without an average, views or a selection the trained weights are equal to the bit."""
    plain, watched = trained(tmp_path, "plain"), trained(tmp_path, "watched", base=watcher)
    assert differing(model_of(plain), model_of(watched)) == set()


def test_mixing_does_not_change_order_and_augmentation(tmp_path):
    """MixUp with the fixed weight 1, which mixes nothing, gives the bits of no mixing; with another weight it acts."""
    plain = model_of(trained(tmp_path, "plain"))
    mixed = {"base": {"mix": {"name": "mixup", "lambda": 0.5}}, "variants": {"one": {"mix.lambda": 1.0}}}
    assert differing(plain, model_of(trained(tmp_path, "mixed", "one", **mixed))) == set()
    assert differing(plain, model_of(trained(tmp_path, "mixed", **mixed)))


@pytest.mark.parametrize(
    "change", [{"augment": []}, {"loss": "focal"}, {"smoothing": {"epsilon": 0.2}}, {"sampler": "class_balanced"}, {"deterministic": True}]
)
def test_settings_of_the_training_change_weights(tmp_path, change):
    """Every setting of the training changes the weights, except `deterministic`, which changes no bit on the CPU."""
    changed = differing(model_of(trained(tmp_path, "plain")), model_of(trained(tmp_path, "changed", base=change)))
    assert bool(changed) != ("deterministic" in change)
    torch.use_deterministic_algorithms(False)


# --- stages ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backbone", "has_moving_buffers"), [("auto", False), ("eval", False), ("train", True)])
def test_a_stage_of_the_head_leaves_the_backbone(tmp_path, backbone, has_moving_buffers):
    """Training the head alone changes no parameter of the backbone, and its batch norm's buffers in train mode only."""
    stages = [{"epochs": 1}, HEAD | {"backbone": backbone}]
    before = model_of(trained(tmp_path, "one", base={"epochs": 1}))
    after = trained(tmp_path, "two", ladder={"baseline": {"stages": stages}})
    changed = differing(before, model_of(after))
    assert {"classifier.weight", "classifier.bias"} <= changed
    of_backbone = {name for name in changed if not is_head(name)}
    buffers = {name for name in before if "running" in name or "num_batches" in name}
    assert of_backbone == (buffers if has_moving_buffers else set())
    assert {name for name in differing(average_of(after), model_of(after)) if not is_head(name)} <= of_backbone


@pytest.mark.parametrize("head", ["keep", "new"])
def test_a_head_is_kept_or_initialised_anew(tmp_path, head):
    """A stage begins with the head it has or with a new one by the seed; with a learning rate of zero it also ends with it."""
    stages = [{"epochs": 1}, HEAD | {"head": head, "optimizer.lr": 0.0}]
    before = model_of(trained(tmp_path, "one", base={"epochs": 1}))
    after = model_of(trained(tmp_path, "two", ladder={"baseline": {"stages": stages}}))
    assert differing(before, after) == (set() if head == "keep" else {"classifier.weight", "classifier.bias"})
    bound = 1 / math.sqrt(after["classifier.weight"].shape[1])
    if head == "new":
        assert after["classifier.weight"].abs().max() <= bound
        assert after["classifier.weight"].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        first = model_of(trained(tmp_path, "untrained", base={"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.0}}))
        assert not torch.equal(first["classifier.weight"], after["classifier.weight"])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_stages_without_a_restart_are_one_training(tmp_path, schedule):
    """Two stages of one epoch give the bits of one of two epochs: weights, average, rates and order continue."""
    base = {"schedule": schedule}
    whole = trained(tmp_path, "whole", base=base)
    parts = trained(tmp_path, "parts", base=base, ladder={"baseline": {"stages": [{"epochs": 1}, {"epochs": 1}]}})
    assert differing(whole.tensors, parts.tensors) == set()
    assert [row["values"]["train/lr"] for row in parts.record["history"]] == [row["values"]["train/lr"] for row in whole.record["history"]]
    assert parts.record["updates"] == whole.record["updates"]


@pytest.mark.parametrize(("restart", "acts_on"), [("optimizer", "model"), ("schedule", "model"), ("average", "average")])
def test_each_restart_acts(tmp_path, restart, acts_on):
    """A restart of the optimizer or the schedule changes the weights, a restart of the average only the average."""
    stages = [{"epochs": 1}, {"epochs": 1}]
    continued = trained(tmp_path, "on", ladder={"baseline": {"stages": stages}})
    restarted = trained(tmp_path, "anew", ladder={"baseline": {"stages": [stages[0], stages[1] | {"restart": [restart]}]}})
    assert bool(differing(model_of(continued), model_of(restarted))) == (acts_on == "model")
    assert differing(average_of(continued), average_of(restarted))
    rates = [row["values"]["train/lr"] for row in restarted.record["history"]]
    assert rates == pytest.approx([3e-3, 3e-3] if restart == "schedule" else [3e-3, 1.5e-3])


def test_a_new_head_begins_its_average_and_its_optimizer_anew(tmp_path):
    """Both hold numbers of the head that is gone, though the same is trained as before; the schedule goes on."""
    stages = [{"epochs": 1}, {"epochs": 1, "head": "new"}]
    implied = trained(tmp_path, "implied", ladder={"baseline": {"stages": stages}})
    written = trained(tmp_path, "written", ladder={"baseline": {"stages": [stages[0], stages[1] | {"restart": ["optimizer", "average"]}]}})
    assert differing(implied.tensors, written.tensors) == set()
    assert list(implied.record["updates"].values()) == [6]
    assert [row["values"]["train/lr"] for row in implied.record["history"]] == pytest.approx([3e-3, 1.5e-3])


def test_the_scale_of_fp16_continues_with_the_optimizer(tmp_path, monkeypatch):
    """A stage that restarts nothing goes on with the scale of the gradients, too."""
    monkeypatch.setattr(Precision, "scaler", lambda self, device: torch.amp.GradScaler(device.type, init_scale=2.0))
    stages = [{"epochs": 1}, {"epochs": 1}]
    for name, restart, steps in (("on", [], 12), ("anew", ["optimizer"], 6)):
        saved = trained(tmp_path, name, ladder={"baseline": {"stages": [stages[0], stages[1] | {"restart": restart}]}})
        assert saved.record["scaler"]["_growth_tracker"] == steps


def test_a_restarted_average_begins_with_the_weights(tmp_path):
    """An average that restarts in a stage which trains nothing is the weights themselves, and counts that stage's updates only."""
    stages = [{"epochs": 1}, {"epochs": 1, "optimizer.lr": 0.0, "restart": ["average"], "backbone": "eval"}]
    saved = trained(tmp_path, ladder={"baseline": {"stages": stages}})
    assert differing(average_of(saved), model_of(saved)) == set()
    assert list(saved.record["updates"].values()) == [6]


def test_an_average_that_continues_follows_constant_buffers(tmp_path):
    """With the backbone in eval mode the buffers of an average still approach the model's, as timm's do."""
    stages = [{"epochs": 1}, {"epochs": 1, "optimizer.lr": 0.0, "backbone": "eval"}]
    one, two = (
        trained(tmp_path, name, base={"epochs": 1}, ladder={"baseline": {"stages": stages[:n]}}) for name, n in (("one", 1), ("two", 2))
    )
    expected = {}
    for name, weight in model_of(one).items():
        mean = average_of(one)[name]
        expected[name] = weight + 0.9**6 * (mean - weight) if mean.is_floating_point() else weight
    for name, tensor in average_of(two).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_a_stage_may_start_from_the_average(tmp_path):
    """With `start: average` the next stage begins with the averaged weights."""
    one = trained(tmp_path, "one", base={"epochs": 1})
    stages = [{"epochs": 1}, {"epochs": 1, "optimizer.lr": 0.0, "start": "average", "backbone": "eval"}]
    two = trained(tmp_path, "two", ladder={"baseline": {"stages": stages}})
    assert differing(model_of(two), average_of(one)) == set()
    assert differing(model_of(two), model_of(one))


# --- batches, precision, failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_images", "drop_last", "sizes"),
    [(10, True, [4, 4]), (10, False, [4, 4, 2]), (8, False, [4, 4]), (3, False, [3]), (4, True, [4]), (1, False, [1])],
)
def test_batches_cover_the_epoch(num_images, drop_last, sizes):
    """Full batches, and with drop_last: false the rest as a shorter one."""
    assert [len(range(num_images)[batch]) for batch in batch_slices(num_images, 4, drop_last=drop_last)] == sizes


def test_no_batch_is_an_error():
    """If there are fewer images than one batch has and all are dropped, the error has both numbers."""
    with pytest.raises(DataError, match="batch_size is 4, but there are 3"):
        batch_slices(3, 4, drop_last=True)


@pytest.mark.parametrize(("drop_last", "updates"), [(True, 12), (False, 14)])
def test_a_short_batch_is_an_update(tmp_path, drop_last, updates):
    """200 images in batches of 32 are six updates an epoch, and seven with the short one, also with mixed images."""
    saved = trained(tmp_path, base={"drop_last": drop_last, "mix": "mixup"})
    assert list(saved.record["updates"].values()) == [updates]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """A learning rate of 1e30 ends in a TrainingError of the kind nan that names the epoch and a way out."""
    planned = Planned(write(tmp_path, base={"optimizer": {"name": "sgd", "lr": 1e30}}), tmp_path / "mlruns")
    with pytest.raises(TrainingError, match=r"the training loss became (nan|inf) in epoch 1; .*optimizer.lr") as caught:
        planned.carry_out()
    assert caught.value.kind == "nan"
    assert not list((tmp_path / "mlruns").rglob("final.safetensors"))


def test_bf16_trains_on_the_cpu(tmp_path):
    """bf16 gives other weights than fp32, both finite and saved in float32, and the record has the precision."""
    model = {"name": "test_efficientnet", "image_size": 32}  # with smaller images, some taps of a depthwise filter only get padding
    plain, half = (trained(tmp_path, name, base={"model": model, "precision": name}) for name in ("fp32", "bf16"))
    assert differing(model_of(plain), model_of(half))
    assert all(tensor.isfinite().all() for tensor in model_of(half).values())
    assert {tensor.dtype for tensor in model_of(half).values()} == {torch.float32, torch.int64}
    assert (plain.record["precision"], half.record["precision"]) == ("fp32", "bf16")


def test_fp16_is_refused_on_the_cpu():
    """fp16 without CUDA is an error that names the setting; auto is fp32 there."""
    with pytest.raises(ConfigError, match="precision: found fp16, which needs a CUDA device"):
        resolve_precision("fp16", CPU)
    assert resolve_precision("auto", CPU).name == "fp32"


@pytest.mark.parametrize("name", family("optimizers").names)
def test_every_optimizer_trains(tmp_path, name):
    """Each optimizer changes the weights, and a schedule acts on it."""
    base = {"optimizer": {"name": name, "lr": 1e-2}, "epochs": 1}
    changed = model_of(trained(tmp_path, "moved", base=base))
    unchanged = model_of(trained(tmp_path, "still", base=base | {"schedule": {"name": "constant"}, "optimizer": {"name": name, "lr": 0.0}}))
    assert {"conv_stem.weight", "classifier.weight"} <= differing(changed, unchanged)


def test_the_classifier_is_the_models_last_layer(tmp_path):
    """`train: head` trains what timm calls the classifier."""
    planned = Planned(write(tmp_path), tmp_path / "mlruns")
    job = planned.jobs()[0]
    model = untrained_model(job.work, 10, job.work.stage.settings.classifier)
    assert classifier_of(model) is model.classifier
    assert model.classifier.out_features == 10


# --- images ------------------------------------------------------------------------------------------------------------------


def test_images_reach_the_model_normalised():
    """Pixels without augmentation are scaled to [0, 1], resized and normalised by the model's mean and deviation."""
    pipeline = ImagePipeline((), 16, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    pixels_BCHW = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean_C, std_C = np.array([0.5, 0.4, 0.3])[:, None, None], np.array([0.1, 0.2, 0.3])[:, None, None]
    expected_BCHW = (pixels_BCHW.numpy() / 255 - mean_C) / std_C
    np.testing.assert_allclose(pipeline.training_inputs(pixels_BCHW, []).numpy(), expected_BCHW, atol=1e-5)
    np.testing.assert_allclose(pipeline.normalised(pipeline.resized(pixels_BCHW)).numpy(), expected_BCHW, atol=1e-5)
    small_BCHW = pixels_BCHW[:, :, :8, :8]
    assert pipeline.training_inputs(small_BCHW, []).shape == pipeline.resized(small_BCHW).shape == (2, 3, 16, 16)


class Black(Technique):
    """An augmentation of one's own that makes the image black where it gets the model's size."""

    name: Literal["black"] = "black"
    works_on: ClassVar[str] = "resize"

    def draw(self, generator, num_images):
        return {}

    def resize(self, images_BCHW, size):
        return images_BCHW.new_zeros(*images_BCHW.shape[:2], size, size)


@pytest.mark.parametrize("before", [(), (Erase(probability=0),)], ids=["alone", "after erase"])
@pytest.mark.parametrize("resize", [Resize(interpolation="nearest"), Black()], ids=["nearest", "own"])
def test_images_are_resized_alike_for_training_and_for_testing(before, resize):
    """By the augmentation that resizes, wherever it stands and whoever wrote it."""
    pipeline = ImagePipeline((*before, resize), 24, (0.0,) * 3, (1.0,) * 3)
    pixels_BCHW = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = pipeline.draw(0, 0, 2, CPU)
    expected_BCHW = resize.resize(pixels_BCHW / 255, 24)
    for images_BCHW in (pipeline.training_inputs(pixels_BCHW, draws), pipeline.resized(pixels_BCHW)):
        torch.testing.assert_close(images_BCHW, expected_BCHW, rtol=0, atol=0)
    assert not torch.equal(expected_BCHW, Resize().resize(pixels_BCHW / 255, 24))


@pytest.mark.parametrize(("size", "batch_size"), [(32, 1024), (64, 1024), (65, 256), (224, 256), (448, 64), (1024, 12), (8000, 1)])
def test_batches_of_large_images_are_smaller_in_tests(size, batch_size):
    """So that they take no more memory than 256 images of 224 pixels."""
    assert ImagePipeline((), size, (0,), (1,)).eval_batch_size == batch_size


def test_augmentations_are_drawn_by_position_and_name(tmp_path):
    """Another augmentation after it does not change an augmentation's draws; another epoch or seed does."""
    one = Planned(write(tmp_path), tmp_path / "mlruns").study.arms[0].settings
    two = Planned(write(tmp_path, base={"augment": [*BASE["augment"], "hflip"]}), tmp_path / "mlruns").study.arms[0].settings
    draws = [
        ImagePipeline(settings.augment, 16, (0,), (1,)).draw(*seed_and_epoch, 5, CPU)[0]
        for settings, seed_and_epoch in ((one, (0, 0)), (two, (0, 0)), (one, (0, 1)), (one, (1, 0)))
    ]
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])
    assert all(any(not torch.equal(draws[0][name], other[name]) for name in other) for other in draws[2:])
