"""What is found before training that would stop a run, or make it another than the file says."""

import numpy as np
import pytest
import timm
from safetensors.torch import save_model

from ablation.errors import ConfigError, DataError
from tests.tiny import Planned, write

MODEL = {"name": "test_efficientnet", "image_size": 32}
THIRTY = {"name": "digits", "longtail": {"name": "linear", "largest": 3, "smallest": 3}}  # images of ten classes
SMALL = {"data": THIRTY, "model": MODEL, "epochs": 1, "average": "none", "batch_size": 8}


def preparation(folder, base=(), **layers):
    """The preparation of a tiny study, and its arms."""
    planned = Planned(write(folder, base={**SMALL, **dict(base)}, **layers), folder / "mlruns")
    return planned.preparation, planned.study.arms


@pytest.mark.parametrize(
    ("smoothing", "path"),
    [
        ({"epsilon": 0.9, "spread": "others"}, "epsilon"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"name": "label_aware", "head": 0.95, "spread": "others"}, "head"),
        ({"name": "label_aware", "tail": 1.0}, "tail"),
    ],
)
def test_a_smoothing_that_loses_the_label(tmp_path, smoothing, path):
    """Where its epsilon is too much for the number of classes."""
    prepared, arms = preparation(tmp_path, variants={"v": {"smoothing": smoothing}})
    with pytest.raises(ConfigError, match=r"which gives the labelled one of 10 classes .*; expected less than .* \(in 'v'\)") as error:
        prepared.check(arms, [0])
    assert error.value.path == f"smoothing.{path}"
    prepared, arms = preparation(tmp_path, variants={"v": {"smoothing": {"epsilon": 0.89, "spread": "others"}}})
    prepared.check(arms, [0])


LAST_OF_ONE = {"batch_size": 29, "drop_last": False}


@pytest.mark.parametrize(
    "layers",
    [
        {"base": LAST_OF_ONE},
        {"base": {"batch_size": 1}},
        {"base": LAST_OF_ONE, "variants": {"v": {"stages": [{"epochs": 1, "train": "head", "backbone": "train"}]}}},
    ],
)
def test_a_batch_of_one_image_is_found_before_training(tmp_path, layers):
    """Where a batch normalisation would see one value per channel."""
    prepared, arms = preparation(tmp_path, **layers)
    prepared.check(arms, [0])
    with pytest.raises(DataError, match="a batch is a single image, which batch normalisation cannot use; expected batch_size 2 or more"):
        prepared.check_starts(arms[-1:], 0)


@pytest.mark.parametrize(
    "base",
    [
        {"batch_size": 29},
        {"batch_size": 28, "drop_last": False},
        {**LAST_OF_ONE, "model": {"name": "test_vit", "image_size": 160}},
        {**LAST_OF_ONE, "model": {**MODEL, "image_size": 96}},
        {**LAST_OF_ONE, "stages": [{"epochs": 1, "train": "head"}]},
    ],
)
def test_batches_that_can_be_trained(tmp_path, base):
    """Of two images, of one without batch normalisation or with several pixels, and with a backbone in eval mode."""
    prepared, arms = preparation(tmp_path, base=base)
    prepared.check_starts(arms, 0)


def test_a_resize_of_arrays(tmp_path):
    """The images of an .npz file have a size of their own, and an arm may resize them otherwise, unless it is the model's."""
    for size in (8, 32):
        images_NHWC = np.random.default_rng(0).integers(0, 256, (30, size, size, 3), dtype=np.uint8)
        labels_N1 = np.arange(30)[:, None] % 3
        arrays = {
            f"{split}_{kind}": array for split in ("train", "test") for kind, array in (("images", images_NHWC), ("labels", labels_N1))
        }
        np.savez(tmp_path / f"{size}.npz", **arrays)
        layers = {"variants": {"v": {"augment": [{"name": "resize", "interpolation": "nearest"}]}}}
        prepared, arms = preparation(tmp_path, base={"data": {"name": "npz", "file": f"{size}.npz"}, "augment": []}, **layers)
        if size == 8:
            prepared.check(arms, [0])
        else:
            with pytest.raises(ConfigError, match=r"resize changes nothing in 'v': images of npz have the model's size, 32 x 32"):
                prepared.check(arms, [0])


def test_a_file_of_weights_is_told_with_its_normalisation(tmp_path):
    """The file does not say what its images were normalised by, and two tags of one name may differ in it."""
    weights = tmp_path / "w.safetensors"
    save_model(timm.create_model("test_vit", num_classes=10), str(weights))
    model = {"name": "test_vit", "image_size": 160, "weights": str(weights)}
    for name in ("test_vit", "test_vit.r160_in1k"):
        planned = Planned(write(tmp_path, base={**SMALL, "model": {**model, "name": name}}), tmp_path / "mlruns")
        (remark,) = planned.planner.remarks([job.work for job in planned.jobs()])
        mean, deviation = (", ".join(f"{value:.4g}" for value in values) for values in planned.study.arms[0].settings.model.normalisation)
        assert remark.startswith(
            f"model.weights: images are normalised by the mean {mean} and the deviation {deviation}, which timm has for {name}"
        )
        assert remark.endswith("as in vit_base_patch16_224.dino") == (name == "test_vit")
    assert Planned(write(tmp_path, base=SMALL), tmp_path / "mlruns").planner.remarks([]) == []


EMA = {"name": "ema", "decay": 0.9}
STAGES = [{"epochs": 1}, {"epochs": 1, "train": "head"}]
OF_FIRST = {"v": {"stages.0.average": EMA}}


def test_an_average_that_nobody_sees(tmp_path):
    """An arm of its own needs another number than its parent's."""
    layers = {"ladder": {"baseline": {"stages": STAGES}}, "variants": OF_FIRST}
    prepared, arms = preparation(tmp_path, **layers)
    words = r"variants\.v\.stages\.0\.average: is neither tested nor started from, so that 'v' is the same as 'baseline'; expected it in"
    with pytest.raises(ConfigError, match=words):
        prepared.check(arms, [0])
    prepared.check(arms[:1], [0])


@pytest.mark.parametrize(
    ("base", "layers"),
    [
        ({}, {"ladder": {"baseline": {"stages": STAGES}}, "variants": {"v": {"stages.1.average": EMA}}}),
        (
            {},
            {
                "ladder": {"b": {"stages": STAGES}},
                "variants": {"v": {"stages": [{**STAGES[0], "average": EMA}, {**STAGES[1], "start": "average"}]}},
            },
        ),
        ({"data": {**THIRTY, "validation": 0.34}}, {"ladder": {"baseline": {"stages": STAGES}}, "variants": OF_FIRST}),
        ({"average": EMA}, {"ladder": {"b": {"stages": [STAGES[0], {"epochs": 1}]}}, "variants": {"v": {"stages.0.average": "none"}}}),
        (
            {"average": EMA},
            {"ladder": {"b": {"stages": [STAGES[0], {**STAGES[1], "average": "none"}]}}, "conditions": {"c": {"average": "none"}}},
        ),
    ],
)
def test_an_average_that_counts(tmp_path, base, layers):
    """In the last stage, as the start of the next, in a validation curve, as the beginning of the last one, or in a condition."""
    prepared, arms = preparation(tmp_path, base, **layers)
    prepared.check(arms, [0])
