"""What image folders and tables really hold: every file is read as a viewer shows it, or is told in one line."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from ablation.data.source import join_lines, printable
from ablation.errors import DataError
from ablation.system.failures import failure
from ablation.tasks.images.schema import MEMORY_ADVICE
from tests.data.image_sources import class_tree, opened, picture, save
from tests.tiny import Planned, write


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def folder_with(tmp_path, name, content):
    """A source of two classes with four good images each, and one more file of that name and content."""
    class_tree(tmp_path / "root", {"a": 4, "b": 4})
    (tmp_path / "root" / "a" / name).write_bytes(content)
    return {"name": "folder", "root": "root", "test": 0.25}


GREY = Image.new("RGB", (24, 24), (90, 90, 90))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jpg", encoded(GREY.convert("CMYK"), "JPEG")),
        ("x.jpg", encoded(GREY.convert("L"), "JPEG")),
        ("x.png", encoded(GREY.quantize(), "PNG")),
        ("x.png", encoded(GREY.convert("RGBA"), "PNG")),
        ("x.png", encoded(GREY.convert("LA"), "PNG")),
        ("x.png", encoded(Image.fromarray(np.full((24, 24), 90 * 257, dtype=np.uint16)), "PNG")),
        ("x.gif", encoded(GREY, "GIF", save_all=True, append_images=[Image.new("RGB", (24, 24), "red")])),
        ("x.webp", encoded(GREY, "WEBP", save_all=True, append_images=[Image.new("RGB", (24, 24), "red")], lossless=True)),
        ("x.png", encoded(GREY, "PNG", save_all=True, append_images=[Image.new("RGB", (24, 24), "red")])),
        ("x.png", encoded(GREY, "JPEG")),
        ("x.JPG", encoded(GREY, "BMP")),
    ],
    ids=["cmyk", "grey", "palette", "alpha", "grey alpha", "16 bits", "gif", "webp", "apng", "jpeg named png", "bmp named jpg"],
)
def test_every_usual_kind_of_image_is_read(tmp_path, name, content):
    """An even grey is that grey in the cache, whatever kind of file it lies in: the first frame, and what the content says it is."""
    dataset = opened(folder_with(tmp_path, name, content), tmp_path)
    pixels_HWC = dataset.images_NHWC[list(dataset.names).index(f"a/{name}")].astype(int)
    assert np.abs(pixels_HWC - 90).max() <= 2


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_photographs_stand_upright(tmp_path, orientation, turns):
    """A JPEG that a camera stored lying comes out as a viewer shows it."""
    bands_HWC = np.zeros((16, 16, 3), dtype=np.uint8)
    bands_HWC[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(bands_HWC), "JPEG", quality=100, subsampling=0, exif=exif)
    dataset = opened(folder_with(tmp_path, "x.jpg", content), tmp_path)
    found_HWC = dataset.images_NHWC[list(dataset.names).index("a/x.jpg")].astype(int)
    assert np.abs(found_HWC - np.rot90(bands_HWC, turns)).max() <= 8


JPEG, PNG = encoded(picture(0, 64, 64), "JPEG"), encoded(picture(0, 64, 64), "PNG")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jpg", JPEG[: len(JPEG) // 2], "truncated"),
        ("x.png", PNG[: len(PNG) // 2], "truncated"),
        ("x.jpg", b"", "is not an image in a known format"),
        ("x.jpg", b"not an image at all\n", "is not an image in a known format"),
        ("x.png", encoded(Image.new("1", (15000, 15000)), "PNG"), "pixels"),
        ("x.tif", encoded(Image.fromarray(np.zeros((8, 8), dtype=np.float32)), "TIFF"), "floating-point"),
        ("x.jpg", JPEG[:20] + bytes(200), ""),
        ("x.gif", encoded(GREY, "GIF")[:30], ""),
        ("x.webp", encoded(GREY, "WEBP")[:30], ""),
    ],
    ids=["half a jpeg", "half a png", "empty", "text", "bomb", "floats", "jpeg of zeros", "half a gif", "half a webp"],
)
def test_a_bad_image_is_told_by_name(tmp_path, name, content, words):
    """Nothing is trained on half an image: it is named with the reason, in one line of its own."""
    with pytest.raises(DataError, match="1 of 9 images cannot be read:") as error:
        opened(folder_with(tmp_path, name, content), tmp_path)
    _, line = str(error.value).split("\n")
    assert line.startswith(f"  a/{name}: ")
    assert words in line
    assert len(line) > len(f"  a/{name}: ")


def test_an_image_that_may_not_be_read_is_told(tmp_path):
    """A file without permission is named with the system's reason."""
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    source = folder_with(tmp_path, "x.png", PNG)
    (tmp_path / "root" / "a" / "x.png").chmod(0)
    with pytest.raises(DataError, match=r"a/x\.png: Permission denied"):
        opened(source, tmp_path)


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path):
    """A link to itself is told as unreadable by the system's word; a folder linked to one above it is passed over."""
    source = folder_with(tmp_path, "x.png", PNG)
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root", target_is_directory=True)
    assert len(opened(source, tmp_path).labels_N) == 9
    (tmp_path / "root" / "b" / "self.png").symlink_to(tmp_path / "root" / "b" / "self.png")
    with pytest.raises(DataError, match=r"b/self\.png: .*symbolic links"):
        opened(source, tmp_path)


@pytest.mark.parametrize(
    "name", ["ünï 猫.png", "e\u0301.png", "two\nlines.png", "\udcff.png", "'quoted' \"twice\".png", "-rf *.png", "a,b.png"]
)
def test_names_of_any_letters(tmp_path, name):
    """Whatever a file is called, it is read under that name, and told on one line that any terminal can show where it is broken."""
    source = folder_with(tmp_path, name, PNG)
    assert f"a/{name}" in opened(source, tmp_path).names
    (tmp_path / "root" / "a" / name).write_bytes(b"")
    with pytest.raises(DataError) as error:
        opened(source, tmp_path)
    head, line = str(error.value).split("\n")
    assert "1 of 9 images" in head
    assert line.encode().decode() == f"  a/{printable(name)}: is not an image in a known format"


@pytest.mark.parametrize("name", ["\udcff", "two\nlines", "bell\x07"])
def test_a_class_that_cannot_be_printed_is_refused(tmp_path, name):
    """Tables, figures and MLflow show class names, so one that nobody can print is told before anything is decoded."""
    class_tree(tmp_path / "root", {"a": 4, name: 4})
    with pytest.raises(DataError, match="expected text in UTF-8 that can be printed on one line") as error:
        opened({"name": "folder", "root": "root", "test": 0.25}, tmp_path)
    assert error.value.args[0].isprintable()


def test_a_table_may_name_images_outside_but_nothing_else(tmp_path):
    """A CSV's paths are the user's own; a folder, a device or a missing file in it is told by name."""
    save(tmp_path / "elsewhere" / "y.png")
    class_tree(tmp_path / "root", {"a": 2, "b": 2})
    rows = ["image,label", *(f"{c}/{i}.png,{c}" for c in "ab" for i in range(2)), "../elsewhere/y.png,a"]
    (tmp_path / "root" / "list.csv").write_text("\n".join(rows))
    source = {"name": "csv", "file": "root/list.csv", "test": 0.4}
    assert len(opened(source, tmp_path).labels_N) == 5
    for wrong in ("a", "/dev/null", "none.png"):
        (tmp_path / "root" / "list.csv").write_text("\n".join([*rows, f"{wrong},a"]))
        with pytest.raises(DataError, match=rf"{wrong}: \w"):
            opened(source, tmp_path)


def test_few_problems_are_lines():
    """Each problem has one line; what has no shape is an escape."""
    assert join_lines(["a\nb: x", "\udcff: y", "\u202egnp: z"]) == "a\\nb: x\n  \\udcff: y\n  \\u202egnp: z"


# --- labels and counts -------------------------------------------------------------------------------------------------------


def planned(tmp_path, counts, **base):
    """A study of seconds on such a folder, checked as a command checks it."""
    for part, classes in counts.items():
        class_tree(tmp_path / "root" / part, classes)
    plan = Planned(write(tmp_path, base={"data": {"name": "folder", "root": "root"}, "batch_size": 4, **base}), tmp_path / "mlruns")
    plan.preparation.check(plan.study.arms, [0])
    return plan


@pytest.mark.parametrize(
    ("counts", "base", "words"),
    [
        ({"": {"a": 9}}, {}, "found one class, 'a'; expected at least two"),
        ({"": {"a": 1, "b": 1}}, {}, "the test split has no images"),
        ({"train": {"a": 3, "b": 3}, "test": {"a": 2, "b": 2, "c": 2}}, {}, "class 'c' is empty: it has no training images"),
        ({"train": {"a": 3, "b": 3}, "test": {"a": 2}}, {"batch_size": 7}, "there are 6 training images; expected a smaller batch_size"),
        ({"train": {"a": 3}, "val": {"b": 3}, "test": {"a": 3}}, {}, "class 'b' is empty: it has no training images"),
    ],
    ids=["one class", "no test", "class without training images", "fewer than a batch", "class in validation only"],
)
def test_data_that_cannot_train_are_told_before_training(tmp_path, counts, base, words):
    """Too few classes or images end in one sentence that says what is lacking."""
    with pytest.raises(DataError, match=words):
        planned(tmp_path, counts, **base)


@pytest.mark.parametrize("num_images", [1, 3])
def test_few_images_are_enough(tmp_path, num_images):
    """A class without test images has no recall and counts in no mean of recalls; fewer images than a batch train without drop_last."""
    counts = {"train": {"a": 2, "b": num_images, "c": 2}, "test": {"a": 3, "b": 3}}
    study = planned(tmp_path, counts, batch_size=32, drop_last=False)
    assert study.carry_out() == 2
    metrics = json.loads((study.result("baseline") / "result.json").read_text())["metrics"]
    assert "test/recall/c" not in metrics
    assert metrics["test/balanced_accuracy"] == pytest.approx((metrics["test/recall/a"] + metrics["test/recall/b"]) / 2)


def test_a_batch_of_one_image_is_told(tmp_path):
    """Batch normalisation has nothing to compare a single image with; the failure says what to set."""
    study = planned(tmp_path, {"train": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}}, batch_size=1)
    with pytest.raises(DataError, match="a batch is a single image") as error:
        study.carry_out()
    event = failure(error.value, MEMORY_ADVICE)
    assert (event["failure"], event["log"]) == ("data", "")
    assert "expected batch_size 2 or more" in event["message"]
