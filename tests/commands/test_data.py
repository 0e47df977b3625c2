"""`ablate data`, and the same account in the plan, before a run and in the report."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ablation.tracking.store import Store
from tests.data.image_sources import class_tree, save
from tests.tiny import write

COPIES = "all 8 test images are training images too: duplicates with the same pixels"


@pytest.fixture
def copied(ablate):
    """A study whose test images are its training images."""
    class_tree(ablate.folder / "images" / "train", {"cat": 4, "dog": 4})
    shutil.copytree(ablate.folder / "images" / "train", ablate.folder / "images" / "test")
    return write(ablate.folder, base={"data": {"name": "folder", "root": "images"}, "batch_size": 4, "epochs": 1})


def test_data_are_shown_without_training(ablate, copied):
    """Classes with counts per split, how the split was found, and what is odd."""
    result = ablate("data", copied)
    assert (result.status, result.epochs) == (0, 0)
    assert result.out.startswith("folder images: 2 classes; 8 training, 8 test images; ")
    assert "| cat   |        4 |    4 |" in result.out
    assert COPIES in result.out
    assert Store.open().runs_of("tiny") == []


def test_what_was_compared_is_said_where_nothing_is_odd(ablate):
    """A JPEG and a PNG of one picture do not have equal pixels, so that nobody should read that there are no copies."""
    class_tree(ablate.folder / "images", {"cat": 8, "dog": 8})
    out = ablate("data", write(ablate.folder, base={"data": {"name": "folder", "root": "images"}})).out
    assert "nothing odd: no two images with equal pixels (a JPEG is compared with other JPEGs alone), " in out


def test_data_as_json_name_every_image(ablate, copied):
    """For scripts: counts as numbers, and all images of a finding."""
    (account,) = json.loads(ablate("data", copied, "--json").out)["data"]
    assert account["counts"] == {"training": [4, 4], "test": [4, 4]}
    assert account["classes"] == ["cat", "dog"]
    (finding,) = account["findings"]
    assert finding["kind"] == "duplicates in training and test"
    assert len(finding["images"]) == 8
    assert finding["images"][0] == ["test/cat/0.png", "train/cat/0.png"]


def test_the_plan_a_run_and_its_report_say_the_same(ablate, copied):
    """Nobody who looks at any of them can miss it."""
    assert COPIES in ablate("plan", copied).out
    assert json.loads(ablate("plan", copied, "--json").out)["data"][0]["findings"][0]["sentence"].startswith(COPIES)
    result = ablate("run", copied)
    assert COPIES in result.err
    assert result.err.index(COPIES) < result.err.index("full report")
    for kind in ("markdown", "html", "json"):
        assert COPIES in ablate("report", "--format", kind).out


def test_each_data_set_of_a_study_is_shown_with_its_arms(ablate):
    """An arm may have other data than the rest."""
    for root, seed in (("raw", 0), ("denoised", 100)):
        class_tree(ablate.folder / root, {"cat": 8 + seed // 50, "dog": 8})
    data = {"name": "folder", "root": "raw"}
    file = write(ablate.folder, base={"data": data, "batch_size": 4}, variants={"denoised": {"data.root": "denoised"}})
    out = ablate("data", file).out
    assert out.index("of baseline") < out.index("folder raw") < out.index("of denoised") < out.index("folder denoised")
    assert ablate("data", file, "--arm", "denoised").out.startswith("folder denoised")


def test_a_range_makes_dark_images_bright(ablate):
    """Told first; with the setting that is named, the images use all of the range and nothing is said any more."""
    rng = np.random.default_rng(0)
    for c in "ab":
        for i in range(8):
            save(ablate.folder / "images" / c / f"{i}.png", Image.fromarray(rng.integers(0, 4096, (16, 16)).astype(np.uint16)))
    data = {"name": "folder", "root": "images"}
    assert "data.range: [0, 4095] takes them" in ablate("data", write(ablate.folder, base={"data": data})).out
    file = write(ablate.folder, base={"data": data | {"range": [0, 4095]}})
    assert "note:" not in ablate("data", file).out
    stored = {int(np.load(path, mmap_mode="r").max()) for path in (ablate.folder / "mlruns" / "data").glob("*/images.npy")}
    assert min(stored) < 20
    assert max(stored) > 250


@pytest.mark.parametrize("value", [[0], [0, 70000], [5, 5], [-1, 100], [100, 0], "12 bits", 4095, [0, 1, 2], [0.0, 1.0]])
def test_a_wrong_range_is_refused(ablate, value):
    """One sentence says what is expected."""
    class_tree(ablate.folder / "images", {"cat": 8, "dog": 8})
    result = ablate("data", write(ablate.folder, base={"data": {"name": "folder", "root": "images", "range": value}}))
    assert result.status == 2
    assert "base.data.range: found" in result.err
    assert "expected two whole numbers from 0 to 65535, the smaller one first, such as [0, 4095]" in result.err


def test_a_range_without_effect_is_refused(ablate):
    """It would be an arm of its own that trains the same."""
    class_tree(ablate.folder / "images", {"cat": 8, "dog": 8})
    data = {"name": "folder", "root": "images"}
    result = ablate("plan", write(ablate.folder, base={"data": data, "batch_size": 4}, variants={"dark": {"data.range": [0, 4095]}}))
    assert result.status == 2
    assert "data.range: found [0, 4095], but no grey image has 16 bits, so that it changes nothing" in result.err


def test_wrong_data_are_told_in_a_sentence(ablate):
    """As by every command."""
    result = ablate("data", write(ablate.folder, base={"data": {"name": "folder", "root": "nowhere"}}))
    assert result.status == 2
    assert "found no folder" in result.err
    assert result.err.count("\n") == 1
