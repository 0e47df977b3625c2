"""JPEGs with equal pixels are one picture, however they are compressed."""

import io

import numpy as np
import pytest
from PIL import Image

from ablation.data import copies
from ablation.data.source import TEST
from tests.data.image_sources import opened, picture, save

FOLDER = {"name": "folder", "root": "p", "test": 0.3}
NUM_PICTURES = 12


def two_forms(root, **second):
    """Pictures of two classes, each as a JPEG and again with the options `second`."""
    for c in "ab":
        for i in range(NUM_PICTURES):
            image = smooth(ord(c) * 100 + i)
            save(root / c / f"first{i}.jpg", image, quality=90)
            save(root / c / f"second{i}.jpg", image, **{"quality": 90, **second})


def smooth(seed):
    """A picture of a photograph's size and without noise."""
    return picture(seed, 6, 6).resize((96, 96), Image.Resampling.BICUBIC)


def digests(dataset, start):
    """Of the images whose names begin so, in order."""
    seen = zip(dataset.names, dataset.inspections_N["digest"].tolist(), strict=True)
    return [digest for name, digest in seen if name.split("/")[1].startswith(start)]


@pytest.mark.parametrize("second", [{"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("size", [16, 64], ids=["decoded at a part of its size", "decoded in full"])
def test_jpegs_that_are_compressed_otherwise_are_equal(tmp_path, second, size):
    """Tools that make files smaller without loss change every byte and no pixel, and a drawn split does not part the two."""
    two_forms(tmp_path / "p", **second)
    dataset = opened(FOLDER, tmp_path, size)
    first, other = digests(dataset, "first"), digests(dataset, "second")
    assert first == other
    assert len(set(first)) == 2 * NUM_PICTURES
    tested = sorted(dataset.names[row].split("/")[1] for row in np.flatnonzero(dataset.split_N == TEST))
    assert tested.count("first0.jpg") == tested.count("second0.jpg")
    assert sum(name.startswith("first") for name in tested) == sum(name.startswith("second") for name in tested) > 0


def test_the_size_asked_for_draws_no_other_test_images(tmp_path):
    """What is equal is known of all pixels, not of those that are decoded."""
    two_forms(tmp_path / "p", optimize=True)
    assert opened(FOLDER, tmp_path, 16).split_N.tolist() == opened(FOLDER, tmp_path, 96).split_N.tolist()


def test_jpegs_that_are_equal_only_when_shrunk_are_two_pictures(tmp_path):
    """They are decoded at an eighth of their size, at which a change within a block is not seen."""
    for c in "ab":
        for i in range(4):
            save(tmp_path / "p" / c / f"{i}.png", picture(ord(c) + i))
    fine_HW = np.indices((128, 128)).sum(axis=0) % 2 * 100 + 100
    for name, levels_HW in (("x", fine_HW), ("y", 300 - fine_HW)):
        levels_HW[:64] = 20  # so that neither is of one colour
        save(tmp_path / "p" / "a" / f"{name}.jpg", Image.fromarray(levels_HW.astype(np.uint8)), quality=95)
    dataset = opened(FOLDER, tmp_path, 4)
    x, y = (list(dataset.names).index(f"a/{name}.jpg") for name in "xy")
    seen = dataset.inspections_N
    assert seen["decoded"][x] == seen["decoded"][y]
    assert seen["digest"][x] != seen["digest"][y]


def test_images_that_are_all_different_are_decoded_once(tmp_path, monkeypatch):
    """So that nobody waits longer."""
    two_forms(tmp_path / "p", quality=70)
    monkeypatch.setattr(copies, "whole_digest", lambda encoded: pytest.fail("an image was decoded again"))
    assert len(set(digests(opened(FOLDER, tmp_path), "first"))) == NUM_PICTURES * 2


def test_the_whole_digest_is_that_of_the_picture_upright():
    """A camera stores a picture lying that a tool has turned in another file."""
    turned = Image.Exif()
    turned[0x0112] = 3
    streams = io.BytesIO(), io.BytesIO()
    smooth(1).save(streams[0], "PNG")
    smooth(1).transpose(Image.Transpose.ROTATE_180).save(streams[1], "PNG", exif=turned)
    assert copies.whole_digest(streams[0]) == copies.whole_digest(streams[1])
