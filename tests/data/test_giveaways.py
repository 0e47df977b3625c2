"""What tells a class besides the content of its images is said, and what does not is passed over in silence."""

import numpy as np
import pytest
from PIL import Image

from ablation.data import split
from ablation.data.account import account_of
from ablation.techniques.technique import make
from tests.data.image_sources import opened, picture, save

FOLDER = {"name": "folder", "root": "p"}
KINDS = ("format of the files tells classes", "size as stored tells classes", "colour tells classes")


def told(tmp_path):
    """kind -> sentence, of these findings alone."""
    dataset, source = opened(FOLDER, tmp_path), make("data", FOLDER)
    account = account_of(dataset, split(dataset, source, 0), source, "", (), "folder p", 16)
    return {finding.kind: finding.sentence for finding in account.findings if finding.kind in KINDS}


def write(tmp_path, label, count, ending="png", size=20, is_grey=False, start=0):
    for i in range(start, start + count):
        width = size(i) if callable(size) else size
        image = picture(hash_of(label) + i, width, 16)
        save(tmp_path / "p" / label / f"{i}.{ending}", image.convert("L") if is_grey else image)


def hash_of(label):
    return sum(map(ord, label)) * 1000


def test_the_format_of_the_files_may_tell_every_class(tmp_path):
    """The ending of a name does not count, nor do other properties that all share."""
    write(tmp_path, "sick", 20, "png")
    write(tmp_path, "well", 20, "jpeg")
    assert told(tmp_path) == {
        KINDS[0]: "the format of the files alone tells every class ('sick': PNG, 'well': JPEG): "
        "a network may learn it instead of the content"
    }


def test_size_and_colour_may_tell_a_class(tmp_path):
    """One class of three came from elsewhere."""
    write(tmp_path, "flu", 20)
    write(tmp_path, "rare", 20, size=40, is_grey=True)
    write(tmp_path, "well", 20)
    assert told(tmp_path) == {
        KINDS[1]: "the size as stored alone tells 1 of 3 classes ('rare': 40 x 16): a network may learn it instead of the content",
        KINDS[2]: "the colour alone tells 1 of 3 classes ('rare': grey): a network may learn it instead of the content",
    }


def test_photographs_of_many_sizes_beside_equal_ones_are_told(tmp_path):
    """Sizes that few images have are one value."""
    write(tmp_path, "scan", 20, size=30)
    write(tmp_path, "photo", 20, size=lambda i: 40 + i)
    assert "('photo': rare sizes, 'scan': 30 x 16)" in told(tmp_path)[KINDS[1]]


def test_a_few_images_that_are_otherwise_change_nothing(tmp_path):
    """1 of 40 is another, and 4 of 40 are not."""
    write(tmp_path, "sick", 40)
    write(tmp_path, "well", 39, "bmp")
    write(tmp_path, "well", 1, "png", start=39)
    assert list(told(tmp_path)) == [KINDS[0]]
    write(tmp_path, "well", 4, "png", start=40)
    assert told(tmp_path) == {}


def test_a_rare_class_is_told_among_many_images(tmp_path):
    """The largest class is no measure."""
    write(tmp_path, "common", 200)
    write(tmp_path, "rare", 10, "bmp")
    assert list(told(tmp_path)) == [KINDS[0]]


@pytest.mark.parametrize("count", [4, 9])
def test_few_images_tell_nothing(tmp_path, count):
    """What so few have in common may be chance."""
    write(tmp_path, "sick", 30)
    write(tmp_path, "well", count, "bmp")
    assert told(tmp_path) == {}


def test_what_all_classes_share_tells_nothing(tmp_path):
    """Formats, sizes and grey images that are mixed in every class; or sizes that are all different."""
    for label in ("flu", "sick", "well"):
        write(tmp_path, label, 15, "png", size=lambda i: 20 + 2 * (i % 2))
        write(tmp_path, label, 15, "bmp", start=15, is_grey=True)
        write(tmp_path, label, 15, "png", size=lambda i: 30 + 3 * i, start=30)
    assert told(tmp_path) == {}


def test_pixels_that_come_without_files_may_be_grey(tmp_path):
    """Arrays have neither a format nor sizes of their own."""
    rng = np.random.default_rng(0)
    images_NHWC = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    images_NHWC[:30] = images_NHWC[:30, :, :, :1]
    np.savez(tmp_path / "d.npz", train_images=images_NHWC, train_labels=np.arange(60) // 30)
    source = make("data", {"name": "npz", "file": "d.npz"})
    dataset = opened({"name": "npz", "file": "d.npz"}, tmp_path)
    found = account_of(dataset, split(dataset, source, 0), source, "", (), "npz", 8).findings
    assert [finding.kind for finding in found] == [KINDS[2]]


def test_palettes_of_grey_are_grey(tmp_path):
    """However the pixels are stored."""
    write(tmp_path, "well", 20)
    for i in range(20):
        save(tmp_path / "p" / "sick" / f"{i}.png", picture(i).convert("L").convert("P", palette=Image.Palette.ADAPTIVE))
    assert list(told(tmp_path)) == [KINDS[2]]
