import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from ablation.data import arrays, open_dataset, prepare, split
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import found, opened, silent

SPEC = {"name": "npz", "file": "tiny.npz"}
LABELS = {"train": [0, 1, 2, 0, 1, 2, 0, 1], "val": [2, 1, 0], "test": [0, 1, 2, 1]}


def parts(shape=(12, 12), **changes):
    """The six arrays, images of random pixels; `changes` replace some, and None takes one away."""
    made = {}
    for seed, (part, labels) in enumerate(LABELS.items()):
        made[f"{part}_images"] = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        made[f"{part}_labels"] = np.array(labels, dtype=np.uint8)[:, None]
    return {name: array for name, array in (made | changes).items() if array is not None}


def write(folder, content, save=np.savez_compressed):
    save(folder / "tiny.npz", **content)
    return content


def stacked(content, what="images"):
    return np.concatenate([content[f"{part}_{what}"] for part in LABELS if f"{part}_{what}" in content])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1), (12, 12, 3)], ids=["grey", "one channel", "rgb"])
def test_the_arrays_are_the_images(tmp_path, shape, save):
    """Pixels, labels and splits are the file's, compressed or not; grey becomes RGB; small squares stay at their own size."""
    content = write(tmp_path, parts(shape), save)
    dataset = opened(SPEC, tmp_path, 224)
    pixels = stacked(content).reshape(15, 12, 12, -1)
    assert np.array_equal(dataset.images_NHWC, np.broadcast_to(pixels, (15, 12, 12, 3)))
    assert dataset.labels_N.tolist() == stacked(content, "labels")[:, 0].tolist()
    assert dataset.split_N.tolist() == [0] * 8 + [1] * 3 + [2] * 4
    assert dataset.classes == ("0", "1", "2")
    assert (dataset.names[0], dataset.names[9], dataset.names[-1]) == ("train_images[0]", "val_images[1]", "test_images[3]")
    assert not dataset.original_order


def test_val_arrays_validate(tmp_path):
    """The file's own val images are the validation images."""
    write(tmp_path, parts())
    split_of_seed = split(opened(SPEC, tmp_path), make("data", SPEC), 0)
    assert split_of_seed.counts_C.tolist() == [3, 3, 2]
    assert (split_of_seed.validation_N.tolist(), split_of_seed.test_N.tolist()) == ([8, 9, 10], [11, 12, 13, 14])


def test_without_test_arrays_a_fraction_is_the_test(tmp_path):
    """It is stratified and taken from the training images alone."""
    write(tmp_path, parts(test_images=None, test_labels=None, val_images=None, val_labels=None))
    dataset = opened({**SPEC, "test": 0.4}, tmp_path)
    assert np.bincount(dataset.labels_N[dataset.split_N == 2]).tolist() == [1, 1, 1]
    assert len(dataset.labels_N) == 8


@pytest.mark.parametrize("labels", [np.uint8, np.int64, np.uint64, bool])
@pytest.mark.parametrize("is_flat", [True, False])
def test_labels_have_several_shapes_and_types(tmp_path, labels, is_flat):
    """(N,) and (N, 1) of any whole numbers, and of two truth values, are the same labels."""
    content = {
        name: (array % 2).astype(labels).reshape(-1) if is_flat else (array % 2).astype(labels)
        for name, array in parts().items()
        if name.endswith("labels")
    }
    write(tmp_path, parts(**content))
    assert opened(SPEC, tmp_path).labels_N.tolist() == [one % 2 for labels in LABELS.values() for one in labels]


def test_class_names_are_settings(tmp_path):
    """They have the order of the numbers, and other names are other data."""
    write(tmp_path, parts())
    dataset = opened({**SPEC, "classes": ["zebra", " lion ", "ant"]}, tmp_path)
    assert dataset.classes == ("zebra", "lion", "ant")
    assert dataset.digest != opened(SPEC, tmp_path).digest


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(10, 20, 3), (40, 40, 3), (30, 10)], ids=["wide", "large", "tall"])
def test_other_shapes_are_fitted_to_the_models_size(tmp_path, fit, shape):
    """What is no square, or larger than the model needs, becomes what an image file of these pixels becomes."""
    content = write(tmp_path, parts(shape))
    dataset = opened({**SPEC, "fit": fit}, tmp_path, 16)
    assert dataset.images_NHWC.shape == (15, 16, 16, 3)
    for i, pixels in enumerate(stacked(content)):
        path = tmp_path / "files" / str(LABELS["train"][i % 3]) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    files = opened({"name": "folder", "root": "files", "fit": fit}, tmp_path, 16)
    order = [int(name.split("/")[1][:2]) for name in files.names]
    assert np.array_equal(files.images_NHWC, dataset.images_NHWC[order])


def test_parts_of_several_sizes_are_fitted(tmp_path):
    """One size for all is the model's."""
    write(tmp_path, parts(test_images=np.full((4, 9, 9), 7, dtype=np.uint8)))
    dataset = opened(SPEC, tmp_path, 16)
    assert dataset.images_NHWC.shape == (15, 16, 16, 3)
    assert (dataset.images_NHWC[11:] == 7).all()


def test_arrays_in_column_order_are_read(tmp_path):
    """A transposed array has the same images."""
    content = parts((12, 12, 3))
    write(tmp_path, {name: np.asfortranarray(array) for name, array in content.items()})
    assert np.array_equal(opened(SPEC, tmp_path).images_NHWC, stacked(content))


def test_large_arrays_are_read_in_blocks(tmp_path, monkeypatch):
    """However many rows a block has, they are the same rows."""
    content = write(tmp_path, parts((12, 12, 3)))
    for block in (1, 432, 1000, 10**9):
        monkeypatch.setattr(arrays, "BLOCK_BYTES", block)
        assert np.array_equal(np.stack(list(arrays.read_rows(tmp_path / "tiny.npz", "train_images"))), content["train_images"])


def test_many_images_are_decoded_by_other_processes(tmp_path):
    """Above some hundreds of images the arrays are read beside each other, to the same pixels."""
    images_NHW = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    write(tmp_path, parts((8, 8), train_images=images_NHW, train_labels=np.arange(300) % 3))
    dataset = opened(SPEC, tmp_path)
    assert np.array_equal(dataset.images_NHWC[:300, ..., 1], images_NHW)


def test_another_place_is_decoded_anew_and_found_equal(tmp_path):
    """Moving the file changes nothing that is trained on it."""
    write(tmp_path, parts())
    before = prepare(make("data", SPEC), 16, tmp_path, tmp_path / "cache", silent)
    (tmp_path / "far").mkdir()
    (tmp_path / "tiny.npz").rename(tmp_path / "far" / "tiny.npz")
    moved = prepare(make("data", {**SPEC, "file": "far/tiny.npz"}), 16, tmp_path, tmp_path / "cache", silent)
    assert moved != before
    assert open_dataset(moved).digest == open_dataset(before).digest


class Malicious:
    """A pickle of this runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["train_images", "train_labels", "val_labels"])
def test_pickled_objects_are_refused_unread(tmp_path, name):
    """The command in an array of objects does not run."""
    mark = tmp_path / "ran"
    write(tmp_path, parts(**{name: np.array([Malicious(f"touch {mark}")] * 8, dtype=object)}))
    with pytest.raises(DataError, match=rf"the array '{name}' in .* holds pickled Python objects, which are never read"):
        opened(SPEC, tmp_path)
    assert not mark.exists()


def test_arrays_that_are_not_used_do_not_matter(tmp_path):
    """A note among the arrays, even a pickled one, is passed over unread."""
    write(tmp_path, parts(info=np.array([{"a": 1}], dtype=object)))
    assert len(opened(SPEC, tmp_path).labels_N) == 15


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": None}, "has no array 'train_images'; found 'train_labels', 'val_images'"),
        ({"train_labels": None}, "has no array 'train_labels'"),
        ({"val_labels": None}, "has no array 'val_labels'"),
        ({"test_images": None}, "has no array 'test_images'"),
        ({"train_images": None, "train_image": np.zeros(3)}, "Did you mean 'train_image'?"),
        ({"train_images": np.zeros((8, 12, 12))}, "'train_images' in FILE has values of type float64; expected uint8, 0 to 255"),
        ({"test_images": np.zeros((4, 12, 12), dtype=np.int32)}, "'test_images' in FILE has values of type int32; expected uint8"),
        ({"train_images": np.zeros((8, 12, 12, 12), dtype=np.uint8)}, "has the shape (8, 12, 12, 12); expected (N, H, W) or (N, H, W, 3)"),
        ({"train_images": np.zeros((8, 12, 12, 4), dtype=np.uint8)}, "has the shape (8, 12, 12, 4)"),
        ({"train_images": np.zeros((8, 0, 12), dtype=np.uint8)}, "has the shape (8, 0, 12)"),
        ({"train_images": np.zeros(8, dtype=np.uint8)}, "has the shape (8,)"),
        ({"train_labels": np.zeros((8, 14), dtype=np.uint8)}, "'train_labels' in FILE has 14 labels for each image; expected one"),
        ({"train_labels": np.zeros(8)}, "'train_labels' in FILE has values of type float64; expected whole numbers"),
        ({"train_labels": np.array(list("abcabcab"))}, "has values of type <U1; expected whole numbers"),
        ({"train_labels": np.zeros(7, dtype=int)}, "has the shape (7,); expected one label for each of 8 images"),
        ({"train_labels": np.zeros((), dtype=int)}, "has the shape (); expected one label for each of 8 images"),
        ({"train_labels": np.array([1, 2] * 4)}, "has no training image with the label 0; expected every number from 0 to 2"),
        ({"train_labels": np.array([0, 4] * 4)}, "has no training image with the label 1, 2, 3; expected every number from 0 to 4"),
        ({"train_labels": np.array([0, -1] * 4)}, "has the label -1; expected 0 to 0"),
        ({"test_labels": np.array([0, 1, 2, 3])}, "image 'test_images[3]' has the label 3; expected 0 to 2, one of 3 classes"),
        (
            {"train_images": np.zeros((0, 12, 12), dtype=np.uint8), "train_labels": np.zeros(0, dtype=int)},
            "has no training images",
        ),
    ],
)
def test_what_is_wrong_with_arrays_is_told(tmp_path, changes, words):
    """The array, what it has and what is expected are named; nothing is converted by a guess."""
    write(tmp_path, parts(**changes))
    with pytest.raises(DataError) as error:
        opened(SPEC, tmp_path)
    assert words.replace("FILE", repr(str(tmp_path / "tiny.npz"))) in str(error.value)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["a", "b"], "has the label 2; expected 0 to 1, one of 2 classes"),
        (["a", "b", "c", "d"], "has no training image with the label 3"),
    ],
)
def test_class_names_that_do_not_fit_are_told(tmp_path, classes, words):
    """There is one name for each class that trains."""
    write(tmp_path, parts())
    with pytest.raises(DataError) as error:
        opened({**SPEC, "classes": classes}, tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["a", "a"], "expected every class name once"), (["a", 1], "expected text"), (["a", " "], "at least 1 character")],
)
def test_wrong_class_names_are_told(classes, words):
    """They are checked before any file is looked at."""
    with pytest.raises(ConfigError, match=words) as error:
        make("data", {**SPEC, "classes": classes}, "data")
    assert error.value.path.startswith("data.classes")


def damaged(path, how):
    match how:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("no zip")
        case "cut":
            path.write_bytes(path.read_bytes()[:-200])
        case "npy":
            np.save(path.with_suffix(".npy"), np.zeros(3))
            path.with_suffix(".npy").replace(path)
        case "short":
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            members["val_images.npy"] = members["val_images.npy"][:-5]
            rewrite(path, members)
        case "foreign":
            with zipfile.ZipFile(path) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            members["train_images.npy"] = b"no array"
            rewrite(path, members)


def rewrite(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", r"found no file '.*tiny\.npz'; expected an \.npz file"),
        ("text", r"is not a complete \.npz file"),
        ("cut", r"is not a complete \.npz file"),
        ("npy", r"is not a complete \.npz file"),
        ("short", r"the array 'val_images' in .* does not have the length that it says"),
        ("foreign", r"the array 'train_images' in .* cannot be read"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, how, words):
    """Missing, foreign and cut files are one message each."""
    write(tmp_path, parts())
    damaged(tmp_path / "tiny.npz", how)
    with pytest.raises(DataError, match=words):
        opened(SPEC, tmp_path)


@pytest.mark.parametrize("num_images", [8, 300])
def test_damage_within_an_array_is_told(tmp_path, num_images):
    """A flipped byte in the pixels fails the checksum, in this process or in another."""
    write(
        tmp_path,
        parts(train_images=np.full((num_images, 12, 12), 7, dtype=np.uint8), train_labels=np.arange(num_images) % 3),
        save=np.savez,
    )
    path = tmp_path / "tiny.npz"
    content = bytearray(path.read_bytes())
    content[content.index(bytes([7] * 100)) + 50] = 8
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train_images.* in .*tiny\.npz.*: Bad CRC"):
        opened(SPEC, tmp_path)


def test_a_header_with_a_flipped_bit_is_told(tmp_path):
    """NumPy reads a header by Python's own tokens, whose errors are of no usual kind."""
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 4, 4), dtype=np.uint8))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole.replace(b"(2, 4, 4)", b"(2, 4, 4("))
    with pytest.raises(DataError, match="cannot be read"):
        arrays.read_header(tmp_path / "a.npz", "train_images")


# --- names


def renamed(folder, **names):
    """The file with its arrays under other names."""
    content = parts()
    return write(folder, {names.get(name, name): array for name, array in content.items() if names.get(name, name)})


FORMS = ["{}_images {}_labels", "X_{} y_{}", "{}_x {}_y", "images_{} labels_{}", "{}-imgs {}-targets", "{}IMAGES {}LABELS"]
SPLITS = [("train", "val", "test"), ("training", "valid", "testing"), ("TRAIN", "VALIDATION", "TEST"), ("Train", "dev", "Eval")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("words", SPLITS)
def test_arrays_have_many_names(tmp_path, form, words):
    """Keras' x_train and whatever else names a split and images or labels, in either order and any case."""
    images, labels = form.split()
    names = {}
    for part, word in zip(LABELS, words, strict=True):
        names |= {f"{part}_images": images.format(word), f"{part}_labels": labels.format(word)}
    renamed(tmp_path, **names)
    dataset = opened(SPEC, tmp_path)
    assert dataset.split_N.tolist() == [0] * 8 + [1] * 3 + [2] * 4
    assert dataset.names[0] == f"{images.format(words[0])}[0]"
    first, second, third = (images.format(word) for word in words)
    assert found(SPEC, tmp_path).split_origin == f"arrays {first}, {second} and {third}"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"test_images": "tset_images", "test_labels": "tset_labels"}, "has the array 'tset_images', which is not read"),
        ({"val_images": "val_image", "val_labels": "val_label"}, "Did you mean 'val_images'?"),
        ({"test_images": "test_data", "test_labels": "test_classes"}, "has the array 'test_data', which is not read"),
        ({"test_images": "holdout_images", "test_labels": "holdout_labels"}, "has the array 'holdout_images', which is not read"),
        ({"test_images": "x_holdout", "test_labels": "y_holdout"}, "has the array 'x_holdout', which is not read"),
        ({"val_images": "x_train", "val_labels": "y_train"}, "has the arrays 'train_images' and 'x_train', which mean the same"),
        ({"val_images": "eval_images", "val_labels": "eval_labels"}, "has the arrays 'eval_images' and 'test_images', which mean the same"),
        ({"train_images": "images", "train_labels": "labels"}, "has no array 'train_images'; found 'images'"),
    ],
)
def test_arrays_nearly_called_like_a_split_are_refused(tmp_path, names, words):
    """They would be left out without a word."""
    renamed(tmp_path, **names)
    with pytest.raises(DataError) as error:
        opened(SPEC, tmp_path)
    assert words in str(error.value)


def test_labels_nearly_called_like_those_of_a_split_are_refused(tmp_path):
    """They have one value for each image."""
    write(tmp_path, parts(train_label=np.zeros((8, 1), dtype=int)))
    with pytest.raises(DataError, match="has the array 'train_label', which is not read"):
        opened(SPEC, tmp_path)


def test_arrays_of_another_form_are_no_near_misses(tmp_path):
    """Means, times, notes and weights lie beside the training arrays, whatever split they are called after."""
    others = {
        **dict.fromkeys(("x_mean", "x_center", "images_std"), np.zeros(3)),
        **{"images_mean": np.zeros((12, 12, 3)), "x_scale": np.ones((1, 1, 1, 3)), "test_time": np.float64(7.0)},
        **{"eval_date": np.array("today"), "dev_notes": np.array([{"a": 1}], dtype=object), "y_valid_weights": np.ones(3)},
    }
    write(tmp_path, parts((12, 12, 3), **dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels")), **others))
    assert len(opened(SPEC, tmp_path).labels_N) == 8


def test_groups_are_told(tmp_path):
    """They are not read, so that a split that is drawn may divide them; the origin says what is drawn."""
    write(tmp_path, parts(test_images=None, test_labels=None, train_patient_id=np.zeros(8, dtype=int)))
    source = found({**SPEC, "test": 0.3}, tmp_path)
    assert source.split_origin == "arrays train_images and val_images; test images drawn: 30 % of the training images"
    assert source.remarks == (
        "the array 'train_patient_id' is not read: a split that is drawn here may divide groups",
        "test images are drawn, though validation images are given: if these are the published test images, call them test",
    )


def test_labels_counted_from_1_are_told(tmp_path):
    """As MATLAB writes them."""
    write(tmp_path, parts(train_labels=np.array([1, 2, 3, 1, 2, 3, 1, 2])))
    with pytest.raises(DataError, match="They look counted from 1; expected from 0: take 1 off each label"):
        opened(SPEC, tmp_path)


def test_what_a_macs_archiver_adds_is_passed_over(tmp_path):
    """It is no array."""
    write(tmp_path, parts())
    with zipfile.ZipFile(tmp_path / "tiny.npz", "a") as archive:
        archive.writestr("__MACOSX/._test_images.npy", b"x")
    assert len(opened(SPEC, tmp_path).labels_N) == 15


@pytest.mark.parametrize("classes", [["Cat", "cat", "dog"], ["a b", "a_b", "c"], ["1", "01", "2"], ["caf\u00e9", "cafe\u0301", "x"]])
def test_class_names_that_are_one_in_two_spellings_are_told(classes):
    """Before any file is looked at."""
    with pytest.raises(ConfigError, match=r"expected every class name once; .* differ only in"):
        make("data", {**SPEC, "classes": classes}, "data")
