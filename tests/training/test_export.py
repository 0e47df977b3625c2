"""An exported model computes what was recorded, anywhere, and a damaged folder is an error with its reason."""

import json
import shutil
import struct
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ablation
from ablation.commands.export import export
from ablation.data import open_dataset, raster
from ablation.errors import AblateError
from ablation.techniques import technique
from ablation.tracking.store import Store
from ablation.training.export import write_model
from tests.recorded import ARMS, VALIDATED, record
from tests.tiny import write

TESTED = ["baseline", "same", "views", "tau", "adjusted", "means", "raw-means", "cold", "cosine", "scaled", "blocks", "tilt/best"]


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """The folder of a recorded study, which no test changes."""
    folder = tmp_path_factory.mktemp("exported")
    record(folder, empty_database, base=VALIDATED, seeds=[0, 1], **ARMS)
    return folder


@pytest.fixture
def ablate_in_study(study, ablate, monkeypatch):
    """`ablate`, run in that folder."""
    monkeypatch.chdir(study)
    return ablate


@pytest.fixture(scope="module")
def exported(study, tmp_path_factory):
    """The folder of the exported baseline, which no test changes."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        export("baseline", folder, None, None, None)
    return folder


def recorded_run(arm, seed=0):
    rows = Store.open().recorded("tiny").runs
    return rows[(rows["arm"] == arm) & (rows["seed"] == seed)].iloc[0]


def test_images(predictions):
    """The run's test images as the pipeline stores them."""
    (folder,) = (path.parent for path in (Store.open().root / "data").glob("digits-*/meta.json"))
    return np.asarray(open_dataset(folder).images_NHWC[predictions["index"].to_numpy()])


test_images.__test__ = False


@pytest.mark.parametrize("arm", TESTED)
def test_logits_are_those_that_were_recorded(ablate_in_study, tmp_path, arm):
    """On the run's own test images the exported model gives the recorded logits, bit for bit, and the recorded predictions."""
    result = ablate_in_study("export", arm, tmp_path / "model", "--seed", 1)
    assert result.status == 0, result.err
    run = recorded_run(arm, 1)
    assert run["run_id"] in result.err
    assert f"{100 * run['test/accuracy']:.2f} %" in result.err
    predictions = Store.open().recorded("tiny").predictions(run["run_id"])
    model = ablation.load(tmp_path / "model")
    images_NHWC = test_images(predictions)
    logits_NC = predictions[[f"logit/{name}" for name in model.classes]].to_numpy()
    np.testing.assert_array_equal(model.logits(images_NHWC).numpy(), logits_NC)
    assert model.predict(images_NHWC) == [model.classes[c] for c in predictions["predicted"]]
    torch.testing.assert_close(model.probabilities(images_NHWC).sum(1), torch.ones(len(images_NHWC)))


def test_the_techniques_have_an_effect(ablate_in_study, tmp_path):
    """Views, post-hoc techniques and classifiers give other logits than the baseline: none of them is left out."""
    logits = {}
    for arm in ("baseline", "views", "tau", "adjusted", "means", "cold", "cosine", "scaled", "blocks"):
        assert ablate_in_study("export", arm, tmp_path / arm).status == 0
        images_NHWC = test_images(Store.open().recorded("tiny").predictions(recorded_run(arm)["run_id"]))[:20]
        logits[arm] = ablation.load(tmp_path / arm).logits(images_NHWC).numpy()
    assert len({logits_NC.tobytes() for logits_NC in logits.values()}) == len(logits)
    counts = np.array(json.loads((tmp_path / "adjusted" / "model.json").read_text())["counts"], dtype=float)
    np.testing.assert_allclose(logits["adjusted"], logits["baseline"] - np.log(counts / counts.sum()), rtol=1e-5, atol=1e-5)
    temperature = recorded_run("cold")["posthoc/temperature"]
    np.testing.assert_allclose(logits["cold"], logits["baseline"] / temperature, rtol=1e-5, atol=1e-6)


def test_the_folder_says_what_it_holds(ablate_in_study, tmp_path):
    """The description has the run, the choice, the preprocessing and the settings; the weights are a copy of the recorded ones."""
    result = ablate_in_study("export", "tilt/best", tmp_path / "model")
    run = recorded_run("tilt/best")
    assert f"({run['chosen']})" in result.err
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert [description[name] for name in ("study", "arm", "seed", "run")] == ["tiny", "tilt/best", 0, run["run_id"]]
    assert description["chosen"] == run["chosen"]
    assert description["posthoc"] == {"name": "logit_adjustment", "tau": float(run["chosen"].removeprefix("tilt/"))}
    assert description["metrics"]["test/accuracy"] == run["test/accuracy"]
    assert (description["precision"], description["auto"]) == ("auto", run["precision"])
    assert description["preprocessing"] | {"mean": None, "std": None} == {
        "fit": "crop", "range": [0, 65535], "stored_size": 8, "image_size": 16, "resize": {"name": "resize", "interpolation": "bicubic"},
        "mean": None, "std": None,
    }  # fmt: skip
    weights = tmp_path / "model" / "model.safetensors"
    original = Store.open().artifact(run["run_id"], "model.safetensors")
    assert weights.read_bytes() == original.read_bytes()
    assert weights.stat().st_ino != original.stat().st_ino
    readme = (tmp_path / "model" / "README.md").read_text()
    assert 'ablation.load("model")' in readme
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["README.md", "model.json", "model.safetensors"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_pictures_are_read_as_the_pipeline_reads_folders(exported, tmp_path, mode):
    """A file, a PIL image and an array of the same pixels give the same logits as the pipeline's own decoding."""
    model = ablation.load(str(exported))
    noise_HWC = np.random.default_rng(0).integers(0, 256, (23, 41, 3), dtype=np.uint8)
    image = Image.fromarray(noise_HWC).convert(mode)
    image.save(tmp_path / "image.png")
    stored_HWC = raster.pixels(tmp_path / "image.png", 8, "crop")
    expected = model.logits(stored_HWC[None])
    for images in (tmp_path / "image.png", str(tmp_path / "image.png"), [tmp_path / "image.png"], image, [image]):
        assert torch.equal(model.logits(images), expected)
    assert model.predict(image) == [model.classes[int(expected.argmax())]]
    if mode == "RGB":
        assert torch.equal(model.logits(noise_HWC[None]), expected)
    if mode == "L":
        assert torch.equal(model.logits(np.asarray(image)[None, ..., None]), expected)


def test_a_negative_is_read_as_the_pipeline_reads_it(exported, tmp_path):
    """A TIFF of 16 bits in which 0 is white, from its path or opened."""
    grey = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "negative.tif")
    stored = (tmp_path / "negative.tif").read_bytes()
    place = stored.index(struct.pack("<HHI", 262, 3, 1)) + 8
    (tmp_path / "negative.tif").write_bytes(stored[:place] + struct.pack("<H", 0) + stored[place + 2 :])
    model = ablation.load(exported)
    with Image.open(tmp_path / "negative.tif") as image:
        assert torch.equal(model.logits(image), model.logits(tmp_path / "negative.tif"))


def test_preprocess_is_the_networks_input(exported):
    """The network on preprocessed images gives the logits of an arm without views and post-hoc technique."""
    model = ablation.load(exported)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 30, 3), dtype=np.uint8))
    inputs_CHW = model.preprocess(image)
    assert inputs_CHW.shape == (3, 16, 16)
    assert not model.network.training
    with torch.no_grad():
        torch.testing.assert_close(model.network(inputs_CHW[None]), model.logits([image]))


def test_logits_are_computed_in_eval_mode(exported):
    """A network that was put into training mode predicts as it was tested, and stays in that mode."""
    model = ablation.load(exported)
    image = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = model.logits(image)
    model.network.train()
    assert torch.equal(model.logits(image), expected)
    assert model.network.training


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.zeros((1, 8, 8, 3)), "float64"),
        (np.zeros((8, 8, 3), dtype=np.uint8), "(8, 8, 3)"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "(0, 8, 8, 3)"),
        (["nowhere.png"], "nowhere.png cannot be read"),
        ([], "no images"),
        ([3], "cannot be read"),
        ([np.zeros((8, 8), dtype=np.uint16)], "is an array of uint16; expected a path, a PIL image or a uint8 array"),
    ],
)
def test_anything_but_images_is_an_error(exported, images, problem):
    """Anything but a path, a PIL image or a uint8 array is an error of one sentence."""
    model = ablation.load(exported)
    with pytest.raises(AblateError) as error:
        model.logits(images)
    assert problem in str(error.value)


def without(name):
    return lambda folder: (folder / name).unlink()


def truncated(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def swapped(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors")


def pickled(folder):
    torch.save({}, folder / "model.safetensors")


def with_entries(**entries):
    def change(folder):
        description = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(description | entries))

    return change


def without_entry(removed):
    def change(folder):
        description = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({name: value for name, value in description.items() if name != removed}))

    return change


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (without("model.json"), "there is no file"),
        (without("model.safetensors"), "there is no file"),
        (truncated, "cannot be read"),
        (pickled, "cannot be read"),
        (swapped, "SHA-256"),
        (lambda folder: (folder / "model.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model.json").write_text("[]"), "not a description"),
        (with_entries(what="else"), "not a description"),
        (with_entries(format=2), "newer"),
        (with_entries(model={"name": "no_such_model"}), "no_such_model"),
        (with_entries(model={"name": "test_vit", "image_size": 16}), "does not fit"),
        (with_entries(classes=["a"]), "does not fit"),
        (with_entries(posthoc={"name": "magic"}), "magic"),
        (with_entries(preprocessing={}), "lacks"),
        (without_entry("tta"), "lacks"),
    ],
)
def test_a_damaged_folder_is_an_error(exported, tmp_path, damage, problem):
    """A file that is missing, cut off, exchanged or unknown is an error of one sentence, and is never loaded."""
    shutil.copytree(exported, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(AblateError) as error:
        ablation.load(tmp_path / "model")
    assert problem in str(error.value)


def test_loading_downloads_no_weights(exported, tmp_path, monkeypatch):
    """A model that was trained from the hub's weights is loaded without them."""
    shutil.copytree(exported, tmp_path / "model")
    with_entries(model={**json.loads((tmp_path / "model" / "model.json").read_text())["model"], "pretrained": True})(tmp_path / "model")
    import timm

    pretrained, create = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: pretrained.append(kwargs["pretrained"]) or create(*args, **kwargs))
    ablation.load(tmp_path / "model")
    assert pretrained == [False]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("basline", "out"), "'baseline'"),
        (("baseline", "out", "--seed", 7), "0, 1"),
        (("baseline", "tiny.yaml/out"), "is a file; expected a folder that can be written"),
    ],
)
def test_mistakes_end_in_one_message(ablate_in_study, arguments, problem):
    """An unknown arm or seed, and a folder that cannot be made, end with status 2 and one sentence."""
    result = ablate_in_study("export", *arguments)
    assert result.status == 2
    assert problem in result.err


def test_means_need_their_images(study, tmp_path, ablate, monkeypatch):
    """Without the decoded data class means cannot be computed, which is an error; the baseline needs no data."""
    shutil.copytree(study, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "mlruns" / "data")
    monkeypatch.chdir(tmp_path / "copy")
    result = ablate("export", "means", "out")
    assert result.status == 2
    assert "ncm takes the features of the training images" in result.err
    assert ablate("export", "baseline", "plain").status == 0
    assert json.loads((tmp_path / "copy" / "plain" / "model.json").read_text())["preprocessing"]["stored_size"] == 8


def test_weights_that_were_not_kept_are_told(ablate):
    """`keep` is of runs that are tested from then on: the others say so, and how they get theirs."""
    assert ablate("run", write(ablate.folder, keep="none", base={"epochs": 1})).status == 0
    file = write(ablate.folder, keep="final", base={"epochs": 1})
    words = "note: 1 of 1 tested run has no weights, which were not to be kept then; --rerun force runs it again"
    for command in ("plan", "run"):
        result = ablate(command, file)
        assert " ".join(result.err.split()).count(words) == 1, result.err
    assert ablate("run", file, "--rerun", "force").status == 0
    assert ablate("export", "baseline", "out").status == 0
    assert "no weights" not in ablate("plan", file).err


def test_a_study_without_weights_exports_none(ablate):
    """With `keep: none` there is nothing to export, and the message says so."""
    file = write(ablate.folder, keep="none", base={"epochs": 1})
    assert ablate("run", file).status == 0
    result = ablate("export", "baseline", "out")
    assert result.status == 2
    assert "keep: none" in result.err


HALF = '''
"""A technique of a test."""

from typing import Literal

from ablation.techniques.posthoc import Posthoc


class Half(Posthoc):
    """Half of the scores."""

    name: Literal["half"] = "half"

    def __call__(self, scores_BC, counts_C):
        """Half of them."""
        return scores_BC / 2
'''


def test_a_technique_of_ones_own_needs_permission(ablate, monkeypatch):
    """To be exported, and to be loaded; then the model has it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(technique, "_PERMISSION", technique._Permission())
    (ablate.folder / "half_of_a_test.py").write_text(HALF)
    half = {"posthoc": "half_of_a_test:Half"}
    write(ablate.folder, base={"epochs": 1}, ladder={"baseline": {}}, variants={"half": half})
    assert ablate("run", "tiny.yaml", "--allow-code").status == 0
    technique._PERMISSION.is_given = False
    refused = ablate("export", "half", "out")
    assert (refused.status, "--allow-code" in refused.err) == (2, True)
    assert ablate("export", "half", "out", "--allow-code").status == 0
    assert ablate("export", "baseline", "plain").status == 0
    technique._PERMISSION.is_given = False
    with pytest.raises(AblateError, match="names code"):
        ablation.load("out")
    images_NHWC = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    half, plain = ablation.load("out", allow_code=True), ablation.load("plain")
    torch.testing.assert_close(half.logits(images_NHWC), plain.logits(images_NHWC) / 2)


def test_images_of_a_folder_are_fitted_as_they_were(ablate):
    """A model trained on a folder of images reads such files at its own size, by the study's `fit`."""
    generator = np.random.default_rng(0)
    for label in ("left", "right"):
        for part, count in (("train", 12), ("test", 4)):
            folder = ablate.folder / "images" / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 256, (20, 34, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    data = {"name": "folder", "root": "images", "fit": "pad"}
    file = write(ablate.folder, base={"data": data, "epochs": 1, "batch_size": 8})
    assert ablate("run", file).status == 0
    assert ablate("export", "baseline", "out").status == 0
    model = ablation.load("out")
    assert model.classes == ("left", "right")
    paths = [ablate.folder / "images" / "test" / label / f"{i}.png" for label in model.classes for i in range(4)]
    predictions = pd.read_parquet(Store.open().artifact(recorded_run("baseline")["run_id"], "predictions.parquet"))
    np.testing.assert_array_equal(model.logits(paths).numpy(), predictions[["logit/left", "logit/right"]].to_numpy())


def test_nothing_is_overwritten(tmp_path):
    """A folder with a file of one of these names is an error, and does not change."""
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(AblateError, match=r"found README\.md in .*; expected a folder without them"):
        write_model(None, tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"
