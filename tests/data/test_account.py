"""What is said of people's data before they are trusted: counted here by hand, and against a count of the files themselves."""

import re
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ablation.data import prepare, split
from ablation.data.account import account_of, clusters_of
from ablation.formatting import cluster_words
from ablation.techniques.technique import make
from tests.data.image_sources import class_tree, opened, picture, save, silent

FOLDER = {"name": "folder", "root": "p"}


def account(tmp_path, size=16, seed=0, origin="train/ and test/ folders", remarks=(), **settings):
    spec = {**FOLDER, **settings}
    dataset, source = opened(spec, tmp_path, size), make("data", spec)
    return account_of(dataset, split(dataset, source, seed), source, origin, remarks, "folder p", size)


def findings(tmp_path, **settings):
    """kind -> sentence."""
    return {finding.kind: finding.sentence for finding in account(tmp_path, **settings).findings}


def trees(tmp_path, train, test, validation=None):
    """Pictures in split folders, no two of them equal."""
    for start, (part, counts) in enumerate({"train": train, "test": test, "val": validation or {}}.items()):
        for c, (label, count) in enumerate(counts.items()):
            for i in range(count):
                save(tmp_path / "p" / part / label / f"{i}.png", picture(10_000 * start + 1000 * c + i))
    return tmp_path / "p"


def test_clean_data_are_counted_and_nothing_is_said_of_them(tmp_path):
    """Counts per class and split, the sizes, and no finding."""
    trees(tmp_path, {"cat": 5, "dog": 7}, {"cat": 3, "dog": 2}, {"cat": 1, "dog": 1})
    found = account(tmp_path)
    assert found.counts == {"training": (5, 7), "validation": (1, 1), "test": (3, 2)}
    assert (found.classes, found.sizes, found.num_groups) == (("cat", "dog"), "20 x 16 pixels, resized to 16 x 16", 0)
    assert found.findings == ()
    counts = "2 classes; 12 training, 2 validation, 5 test images"
    assert found.summary == f"folder p: {counts}; train/ and test/ folders; 20 x 16 pixels, resized to 16 x 16"


def test_a_test_set_that_is_a_copy_is_told_as_such(tmp_path):
    """All of its images are training images."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {})
    shutil.copytree(root / "train", root / "test")
    sentence = findings(tmp_path)["duplicates in training and test"]
    assert sentence.startswith("all 8 test images are training images too: duplicates with the same pixels")
    assert "test/cat/0.png = train/cat/0.png" in sentence


@pytest.mark.parametrize("ending", ["bmp", "tif", "webp", "png"])
def test_copies_in_another_format_or_under_another_name_count(tmp_path, ending):
    """What is compared are pixels: neither names, nor bytes, nor sizes of files."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    options = {"lossless": True} if ending == "webp" else {}
    save(root / "test" / "cat" / f"renamed.{ending}", Image.open(root / "train" / "dog" / "2.png"), **options)
    found = findings(tmp_path)
    assert found["duplicates in training and test"].startswith("1 of the 7 test images are training images too")
    assert "test/cat/renamed" in found["duplicates in training and test"]
    assert found["contradictory labels"].startswith("1 picture has contradictory labels, as 'dog' and 'cat' in the first case")


def test_duplicates_within_a_split_are_counted_once_for_each_copy(tmp_path):
    """Three files of one picture are two repetitions."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    for name in ("x.png", "y.png"):
        shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "cat" / name)
    found = findings(tmp_path)
    assert list(found) == ["duplicates in training"]
    assert found["duplicates in training"].startswith("2 of the 10 training images repeat another one of them")


def test_every_pair_of_splits_is_compared(tmp_path):
    """Validation images that are training or test images mislead a choice as well."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3}, {"cat": 2, "dog": 2})
    shutil.copy(root / "train" / "cat" / "0.png", root / "val" / "cat" / "x.png")
    shutil.copy(root / "test" / "dog" / "1.png", root / "val" / "dog" / "y.png")
    assert set(findings(tmp_path)) == {"duplicates in training and validation", "duplicates in validation and test"}


def test_random_copies_are_counted_as_the_files_bytes_say(tmp_path):
    """Against an independent count: of files of one format, equal bytes are equal pixels."""
    rng = np.random.default_rng(0)
    root = trees(tmp_path, {"cat": 3, "dog": 3}, {"cat": 3, "dog": 3})
    originals = [picture(int(seed)) for seed in range(5)]
    for part in ("train", "test"):
        for i in range(25):
            save(root / part / str(rng.choice(["cat", "dog"])) / f"copy{i}.png", originals[rng.integers(5)])
    content = {part: [(path.parent.name, path.read_bytes()) for path in (root / part).rglob("*.png")] for part in ("train", "test")}
    in_train, in_test = ({data for _, data in content[part]} for part in ("train", "test"))
    labels = Counter(data for data, _ in {(data, label) for part in content.values() for label, data in part})
    by_kind = {finding.kind: finding for finding in account(tmp_path).findings}
    assert len(by_kind["duplicates in training and test"].images) == sum(data in in_train for _, data in content["test"])
    repeated = sum(len(images) - 1 for images in by_kind["duplicates in training"].images)
    assert repeated == len(content["train"]) - len(in_train)
    assert sum(len(images) - 1 for images in by_kind["duplicates in test"].images) == len(content["test"]) - len(in_test)
    assert len(by_kind["contradictory labels"].images) == sum(number > 1 for number in labels.values())


def test_only_images_that_are_used_are_compared(tmp_path):
    """A training image that the long tail leaves out is no duplicate of a test image."""
    root = trees(tmp_path, {"cat": 40, "dog": 40}, {"cat": 3, "dog": 3})
    for i in range(40):
        shutil.copy(root / "train" / "dog" / f"{i}.png", root / "test" / "dog" / f"copy{i}.png")
    tail = {"name": "exponential", "imbalance": 10}
    found = {finding.kind: finding for finding in account(tmp_path, longtail=tail).findings}
    assert len(found["duplicates in training and test"].images) == 4


def test_a_class_without_test_images_is_told(tmp_path):
    """It trains, and means leave it out."""
    trees(tmp_path, {"cat": 4, "dog": 4, "emu": 4}, {"cat": 3, "dog": 3}, {"cat": 2})
    found = findings(tmp_path)
    assert found["classes without test images"] == "1 class has no test images: 'emu'; means over classes leave them out"
    assert found["classes without validation images"].startswith("2 classes have no validation images: 'dog', 'emu'")


# --- odd images --------------------------------------------------------------------------------------------------------------


def grey_tree(tmp_path, top, dtype=np.uint16, count=6):
    """Grey images with values from 0 to `top`, no two of them equal; those of 16 bits have a marker of full brightness."""
    marker = 65535 if dtype == np.uint16 else top
    rng = np.random.default_rng(0)
    for c in "ab":
        for i in range(count):
            levels_HW = rng.integers(0, top + 1, (16, 16))
            levels_HW[0, :3] = 0, top, marker
            save(tmp_path / "p" / c / f"{i}.png", Image.fromarray(levels_HW.astype(dtype)))


@pytest.mark.parametrize(("top", "advice"), [(200, 255), (1023, 1023), (4000, 4095), (16383, 16383), (20000, 32767)])
def test_16_bit_files_that_hold_fewer_bits_are_told_with_the_setting(tmp_path, top, advice):
    """They would be all but black without a word; markers of full brightness in a corner do not hide it."""
    grey_tree(tmp_path, top)
    sentence = findings(tmp_path)["range of 16-bit images"]
    assert "12 of 12 images are of 16 bits with values from " in sentence
    assert f"data.range: [0, {advice}] takes them as images of {advice.bit_length()} bits" in sentence


def test_a_narrow_band_far_from_black_is_told_with_its_ends(tmp_path):
    """As a scanner with an offset writes it: three grey values would be left."""
    rng = np.random.default_rng(0)
    for c in "ab":
        for i in range(6):
            levels_HW = rng.integers(40_000, 40_701, (16, 16))
            levels_HW[0, :4] = 40_000, 40_000, 40_700, 40_700
            save(tmp_path / "p" / c / f"{i}.png", Image.fromarray(levels_HW.astype(np.uint16)))
    sentence = findings(tmp_path)["range of 16-bit images"]
    low, high = (int(word) for word in re.search(r"data\.range: \[(\d+), (\d+)\] takes these", sentence).groups())
    assert 40_000 <= low < 40_030
    assert 40_670 < high <= 40_700
    assert "range of 16-bit images" not in findings(tmp_path, range=[low, high])


def test_a_few_dark_files_of_16_bits_among_full_ones_are_told(tmp_path):
    """One scanner wrote 12 bits, the other 16."""
    grey_tree(tmp_path, 65535)
    rng = np.random.default_rng(1)
    save(tmp_path / "p" / "a" / "dark.png", Image.fromarray(rng.integers(0, 4096, (16, 16)).astype(np.uint16)))
    assert findings(tmp_path)["range of 16-bit images"].startswith("1 of 13 images is of 16 bits with values from ")


def test_a_range_that_acts_on_no_image_is_told(tmp_path):
    """A study with it is refused before it trains."""
    trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    assert findings(tmp_path, range=[0, 4095]) == {"range": "data.range, 0 to 4095, changes nothing: no grey image has 16 bits"}


def test_full_16_bit_images_need_no_word(tmp_path):
    """The usual case."""
    grey_tree(tmp_path, 65535)
    assert findings(tmp_path) == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_of_class_numbers_are_told(tmp_path, dtype):
    """Masks, and images scaled to 0 ... 1 before they were saved."""
    grey_tree(tmp_path, 5, dtype)
    assert {np.uint8: "dark images", np.uint16: "range of 16-bit images"}[dtype] in findings(tmp_path)


def test_blank_images_are_told(tmp_path):
    """A scan that failed, and a stand-in for a picture that is missing."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    save(root / "train" / "cat" / "black.png", Image.new("RGB", (16, 16)))
    save(root / "test" / "dog" / "white.png", Image.new("RGB", (16, 16), "white"))
    save(root / "test" / "dog" / "blue.png", Image.new("RGB", (16, 16), (10, 60, 200)))
    assert findings(tmp_path)["blank images"].startswith("3 of 17 images are of one colour throughout (train/cat/black.png")


def test_jpegs_without_an_end_are_told(tmp_path):
    """What is missing of them is grey."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    whole = save(root / "train" / "cat" / "whole.jpg", picture(70, 60, 60)).read_bytes()
    (root / "train" / "cat" / "part.jpg").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    assert findings(tmp_path)["cut images"].startswith("1 of 16 images is cut off: a JPEG without an end")


def test_jpegs_whose_data_end_too_early_are_told(tmp_path):
    """A tool that closed the file gave it an end."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    whole = save(root / "train" / "cat" / "whole.jpg", picture(70, 60, 60)).read_bytes()
    (root / "train" / "cat" / "part.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    found = findings(tmp_path)
    words = "1 of 16 images is of one grey in the lower part, as a JPEG is whose data end too early (train/cat/part.jpg)"
    assert found["hollow images"] == words
    assert "cut images" not in found


def test_stacks_of_pages_are_told(tmp_path):
    """Only the first page is used."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    save(root / "train" / "cat" / "stack.tif", picture(70), save_all=True, append_images=[picture(71)])
    assert findings(tmp_path)["images of several frames"].startswith("1 of 15 images is of several frames or pages; only the first")


def test_small_and_long_images_are_told(tmp_path):
    """Enlarged icons, and panoramas of which the crop leaves the middle."""
    root = trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    save(root / "train" / "cat" / "icon.png", picture(70, 7, 7))
    save(root / "train" / "cat" / "panorama.png", picture(71, 60, 20))
    found = findings(tmp_path)
    assert found["small images"].startswith("1 of 16 images is enlarged more than 2 times, to 16 x 16 pixels (train/cat/icon.png)")
    assert found["long images"].startswith("1 of 16 images is more than twice as long as wide")
    assert "long images" not in findings(tmp_path, fit="pad")
    assert account(tmp_path).sizes == "7 x 7 to 60 x 20 pixels, resized to 16 x 16"


def test_remarks_of_the_source_are_findings(tmp_path):
    """What was noticed while the files were found."""
    trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    assert findings(tmp_path, remarks=("passed over 3 files in __MACOSX",)) == {"remark": "passed over 3 files in __MACOSX"}


def test_groups_are_counted(tmp_path):
    """As many as patients, not as images."""
    class_tree(tmp_path / "p", {"a": 12, "b": 12}, "p{i:02}.png")
    found = account(tmp_path, group=r"(p\d)", test=0.5)
    assert found.num_groups == 2
    assert found.clusters == {"name": "group", "train": 1, "validation": 0, "test": 1, "shared": 0, "all": 2}
    assert " test images of 2 groups, none in two splits; " in found.summary
    assert found.as_data()["clusters"] == found.clusters


@pytest.mark.parametrize(
    ("pattern", "name"),
    [(r"(?P<patient>p\d)", "patient"), (r"(p\d)", "group"), (r"(?P<PatientID>p\d)", "patient"), (r"(?P<FOV>p\d)", "FOV")],
)
def test_groups_are_called_as_the_pattern_calls_them(tmp_path, pattern, name):
    """By the name of its group, without what says that it is a number."""
    class_tree(tmp_path / "p", {"a": 12, "b": 12}, "p{i:02}.png")
    assert account(tmp_path, group=pattern, test=0.5).clusters["name"] == name


def test_images_that_are_groups_of_their_own_are_no_clusters(tmp_path):
    """Nothing is said of groups then."""
    trees(tmp_path, {"cat": 4, "dog": 4}, {"cat": 3, "dog": 3})
    found = account(tmp_path)
    assert (found.clusters, found.num_groups) == ({}, 0)
    assert "clusters" not in found.as_data()


def test_digits_have_nothing_odd(tmp_path):
    """The data of the quick start."""
    source = make("data", "digits")
    prepare(source, 32, tmp_path, tmp_path / "cache", silent)
    dataset = opened("digits", tmp_path, 32)
    found = account_of(dataset, split(dataset, source, 0), source, "drawn: 20 %", (), "digits", 8)
    assert (found.findings, found.sizes) == ((), "8 x 8 pixels")


def test_an_account_as_data_lists_at_most_so_many_images(tmp_path):
    """For the recorded plan; `ablate data --json` lists all."""
    root = trees(tmp_path, {"cat": 20, "dog": 4}, {})
    shutil.copytree(root / "train", root / "test")
    found = account(tmp_path)
    assert [len(found.as_data(most)["findings"][0]["images"]) for most in (5, None)] == [5, 24]


def test_a_group_in_three_splits_is_one():
    """All groups are counted once, however many splits they are in."""
    dataset = SimpleNamespace(group_N=np.array([0, 0, 0, 1, 1, 2]))
    parts = SimpleNamespace(train_N=np.array([0, 3, 4]), validation_N=np.array([1]), test_N=np.array([2, 5]))
    found = clusters_of(dataset, parts, SimpleNamespace(group="patient_id"))
    assert found == {"name": "patient", "train": 2, "validation": 1, "test": 2, "shared": 1, "all": 3}
    assert cluster_words(found) == "3 patients, 1 in two splits"
