import os

import numpy as np
import pytest

from ablation.data.files import class_order
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import class_tree, opened, picture, save


def parts(dataset):
    """The names in each split."""
    return [{dataset.names[i] for i in np.flatnonzero(dataset.split_N == part)} for part in range(3)]


def test_folders_by_split_are_used_as_they_are(tmp_path):
    """train, val and test folders become the three splits; pixels and names belong together."""
    root = tmp_path / "pictures"
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        class_tree(root / part, {"cat": count, "dog": count})
    dataset = opened({"name": "folder", "root": "pictures"}, tmp_path)
    train, validation, test = parts(dataset)
    assert train == {f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)}
    assert validation == {f"val/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)}
    assert test == {"test/cat/0.png", "test/dog/0.png"}
    assert dataset.classes == ("cat", "dog")
    assert [dataset.classes[c] for c in dataset.labels_N] == [name.split("/")[1] for name in dataset.names]


def test_a_square_of_the_right_size_is_stored_unchanged(tmp_path):
    """The cache holds the very pixels, at the image's own number."""
    for i in range(8):
        save(tmp_path / "p" / "ab"[i % 2] / f"{i}.png", picture(i, 16, 16))
    dataset = opened({"name": "folder", "root": "p"}, tmp_path)
    for i, name in enumerate(dataset.names):
        assert np.array_equal(dataset.images_NHWC[i], np.asarray(picture(int(name[2]), 16, 16)))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folders_have_three_names(tmp_path, name):
    """Each is the validation split; without a test folder the test is taken from the training images alone."""
    class_tree(tmp_path / "p" / "train", {"a": 10, "b": 10})
    class_tree(tmp_path / "p" / name, {"a": 3, "b": 3})
    assert [len(part) for part in parts(opened({"name": "folder", "root": "p"}, tmp_path))] == [16, 6, 4]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_test_fraction_is_stratified(tmp_path, fraction):
    """Every class gives the rounded fraction of its images, and at least one."""
    counts = {"a": 20, "b": 8, "c": 2}
    class_tree(tmp_path / "p", counts)
    dataset = opened({"name": "folder", "root": "p", "test": fraction}, tmp_path)
    taken = np.bincount(dataset.labels_N[dataset.split_N == 2]).tolist()
    assert taken == [max(1, int(fraction * n + 0.5)) for n in counts.values()]


def test_the_test_fraction_is_the_same_everywhere(tmp_path):
    """Two copies of the images have the same test images and the same digest."""
    first, second = (opened({"name": "folder", "root": "p"}, tmp_path / side) for side in map(made_copy(tmp_path), ("one", "two")))
    assert np.array_equal(first.split_N, second.split_N)
    assert first.digest == second.digest


def made_copy(tmp_path):
    def make_side(side):
        class_tree(tmp_path / side / "p", {"a": 9, "b": 9})
        return side

    return make_side


def test_groups_stay_together(tmp_path):
    """No patient is in training and test, and the fraction is near the one asked for."""
    for patient in range(12):
        for i in range(4):
            save(tmp_path / "p" / "ab"[patient % 2] / f"patient{patient}_{i}.png", picture(10 * patient + i))
    dataset = opened({"name": "folder", "root": "p", "group": r"(patient\d+)_", "test": 0.3}, tmp_path)
    patients = np.array([name.split("/")[1].split("_")[0] for name in dataset.names])
    train, test = (set(patients[dataset.split_N == part]) for part in (0, 2))
    assert not train & test
    assert len(set(dataset.group_N.tolist())) == 12
    assert 0.2 <= (dataset.split_N == 2).mean() <= 0.4


def test_groups_that_straddle_folders_are_told(tmp_path):
    """A patient in train/ and test/ is an error that names both images."""
    save(tmp_path / "p" / "train" / "a" / "p1_0.png")
    save(tmp_path / "p" / "test" / "a" / "p1_1.png")
    with pytest.raises(DataError) as error:
        opened({"name": "folder", "root": "p", "group": r"(p\d+)_"}, tmp_path)
    for words in ("group 'p1' straddles", "'train/a/p1_0.png' is a training image", "'test/a/p1_1.png' a test image"):
        assert words in str(error.value)


def test_an_image_without_a_group_is_told(tmp_path):
    """The pattern must find a group in every path."""
    class_tree(tmp_path / "p", {"a": 2})
    with pytest.raises(DataError, match=r"image 'a/0\.png' belongs to no group"):
        opened({"name": "folder", "root": "p", "group": r"(patient\d+)"}, tmp_path)


@pytest.mark.parametrize(("pattern", "words"), [("patient", "a group in parentheses"), ("(", "this one is broken")])
def test_a_pattern_must_have_a_group(pattern, words):
    """It is checked before any file is looked at."""
    with pytest.raises(ConfigError, match=words) as error:
        make("data", {"name": "folder", "root": "p", "group": pattern}, "data")
    assert error.value.path == "data.group"


def test_names_in_any_script_work(tmp_path):
    """Class and file names keep their letters, composed and decomposed accents being one class."""
    class_tree(tmp_path / "p" / "train", {"caf\u00e9": 2, "猫": 2})
    class_tree(tmp_path / "p" / "test", {"cafe\u0301": 1, "猫": 1}, pattern="ünïcode {i}.png")
    dataset = opened({"name": "folder", "root": "p"}, tmp_path)
    assert dataset.classes == ("caf\u00e9", "猫")
    assert "test/猫/ünïcode 0.png" in list(dataset.names)


@pytest.mark.parametrize(
    ("names", "expected"),
    [({"b", "a", "C"}, ("C", "a", "b")), ({"10", "9", "2"}, ("2", "9", "10")), ({"10", "9", "x"}, ("10", "9", "x"))],
)
def test_classes_are_sorted_as_numbers_where_all_are(names, expected):
    """2, 9, 10 and not 10, 2, 9."""
    assert class_order(names) == expected


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    """Nested folders count for their class; dot files and other endings do not count."""
    root = class_tree(tmp_path / "p", {"a": 5, "b": 5})
    save(root / "a" / "deep" / "er" / "x.PNG")
    save(root / "a" / ".hidden.png")
    save(root / ".cache" / "y.png")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "README.md").write_text("no class")
    dataset = opened({"name": "folder", "root": "p"}, tmp_path)
    assert len(dataset.labels_N) == 11
    assert "a/deep/er/x.PNG" in list(dataset.names)


def test_links_in_circles_do_not_hang(tmp_path):
    """A link to a folder above is not followed, and a link to images elsewhere is."""
    root = class_tree(tmp_path / "p", {"a": 4, "b": 4})
    os.symlink(root, root / "a" / "up")
    os.symlink(root / "b", root / "b" / "self")
    elsewhere = class_tree(tmp_path / "elsewhere", {"x": 2}) / "x"
    os.symlink(elsewhere, root / "a" / "more")
    assert sorted(np.bincount(opened({"name": "folder", "root": "p"}, tmp_path).labels_N).tolist()) == [4, 6]


def test_every_unreadable_image_is_named_at_once(tmp_path):
    """Broken files are all listed, before anything trains; broken links even before anything is decoded."""
    root = class_tree(tmp_path / "p", {"a": 4, "b": 4})
    (root / "a" / "1.png").write_bytes(b"broken")
    (root / "b" / "2.png").write_bytes(b"")
    os.symlink(tmp_path / "gone.png", root / "b" / "link.png")
    with pytest.raises(DataError) as error:
        opened({"name": "folder", "root": "p"}, tmp_path)
    assert str(error.value).splitlines() == ["1 of 9 files cannot be read:", "  b/link.png: No such file or directory"]
    (root / "b" / "link.png").unlink()
    with pytest.raises(DataError) as error:
        opened({"name": "folder", "root": "p"}, tmp_path)
    assert str(error.value).splitlines() == [
        "2 of 8 images cannot be read:",
        "  a/1.png: is not an image in a known format",
        "  b/2.png: is not an image in a known format",
    ]
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_an_empty_class_folder_is_named(tmp_path):
    """It is more likely a mistake than a wish."""
    class_tree(tmp_path / "p" / "train", {"a": 2}).joinpath("b").mkdir()
    with pytest.raises(DataError, match=r"class folder 'train/b' in .* has no images"):
        opened({"name": "folder", "root": "p"}, tmp_path)


@pytest.mark.parametrize(("present", "words"), [(False, "found no folder"), (True, "found no class folders")])
def test_a_missing_tree_is_told(tmp_path, present, words):
    """The message says what is expected instead."""
    if present:
        (tmp_path / "p").mkdir()
    with pytest.raises(DataError, match=words) as error:
        opened({"name": "folder", "root": "p"}, tmp_path)
    assert "train/CLASS/ and test/CLASS/" in str(error.value)


def test_a_class_called_train_is_a_class(tmp_path):
    """A folder train/ without folders in it is a class among others."""
    class_tree(tmp_path / "p", {"bus": 3, "train": 3})
    assert opened({"name": "folder", "root": "p"}, tmp_path).classes == ("bus", "train")


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_each_fit_gives_other_pixels(tmp_path, fit):
    """The fits differ on an image that is not square, and each has its own cache."""
    class_tree(tmp_path / "p", {"a": 3, "b": 3})
    others = [opened({"name": "folder", "root": "p", "fit": other}, tmp_path) for other in {"crop", "pad", "squash"} - {fit}]
    own = opened({"name": "folder", "root": "p", "fit": fit}, tmp_path)
    assert len({own.digest, *(other.digest for other in others)}) == 3


# --- tables


def write_table(tmp_path, text, num_images=6):
    for i in range(num_images):
        save(tmp_path / "t" / "images" / f"{i}.png", picture(i))
    (tmp_path / "t" / "labels.csv").write_text(text, encoding="utf-8")
    return {"name": "csv", "file": "t/labels.csv"}


def lines(*rows):
    return "\n".join(rows) + "\n"


def test_a_table_names_images_labels_splits_and_groups(tmp_path):
    """Paths start at the table's folder; every split name is understood; the order is the table's."""
    text = lines(
        "image,label,split,group",
        "images/3.png,Katze,train,x",
        "images/1.png,Hund,train,y",
        "images/0.png,Katze,val,z",
        "images/2.png,Hund,validation,z",
        "images/5.png,Katze,test,w",
        "images/4.png,Hund,test,v",
    )
    dataset = opened(write_table(tmp_path, text), tmp_path, 8)
    assert list(dataset.names) == [f"images/{i}.png" for i in (3, 1, 0, 2, 5, 4)]
    assert dataset.classes == ("Hund", "Katze")
    assert dataset.labels_N.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.split_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.group_N[2] == dataset.group_N[3]
    assert len(set(dataset.group_N.tolist())) == 5
    assert dataset.images_NHWC.shape == (6, 8, 8, 3)


def test_a_table_has_its_own_columns_root_and_no_split(tmp_path):
    """Other column names and another root are settings; without a split column the test is a fraction."""
    text = lines("id,path", *(f"{i % 2},{i}.png" for i in range(6)))
    spec = {**write_table(tmp_path, text), "root": "t/images", "image": "path", "label": "id", "test": 0.34}
    dataset = opened(spec, tmp_path)
    assert dataset.classes == ("0", "1")
    assert np.bincount(dataset.split_N).tolist() == [4, 0, 2]


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    """A byte order mark, quotes and a comma in a class name are no trouble."""
    text = "\ufeff" + lines('"image","label"', *(f'"images/{i}.png","{("none", "a, b")[i % 2]}"' for i in range(6)))
    assert opened(write_table(tmp_path, text), tmp_path).classes == ("a, b", "none")


@pytest.mark.parametrize(
    ("text", "extra", "words"),
    [
        ("picture,label\nimages/0.png,a\n", {}, "has no column 'image'; found 'picture', 'label'."),
        ("image,lable\nimages/0.png,a\n", {}, "has no column 'label'; found 'image', 'lable'. Did you mean 'lable'?"),
        ("picture;label\nimages/0.png;a\n", {}, "has no column 'image'; found 'picture', 'label'."),
        ("image,label\nimages/0.png,a\n", {"split": "fold"}, "has no column 'fold'"),
        ("image,label\nimages/0.png,a\n", {"group": "patient"}, "has no column 'patient'"),
        ("image,label\nimages/0.png,\n", {}, "has no label in line 2"),
        ("image,label\n" + "images/0.png,\n" * 15, {}, "has no label in line 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more; expected one"),
        ("image,label,group\nimages/0.png,a,\n", {}, "has no group in line 2"),
        ("image,label\nimages/0.png,a\nimages/./0.png,b\n", {}, "names the image 'images/0.png' in lines 2, 3"),
        ("image,label,split\nimages/0.png,a,Trian\n", {}, "line 2: found the split 'Trian'; expected one of train, val, validation, test"),
        ("image,label\n", {}, "has no rows"),
        ("", {}, "cannot be read as CSV"),
        ("image,label\nimages/0.png,a,b,c\nx,y,z,1,2,3\n", {}, "cannot be read as CSV"),
        ("image,label\nimages/0.png,a\nimages/9.png,a\nimages/8.png,a\n", {}, "images/9.png: No such file or directory\n  images/8.png"),
        ("image,label,split,group\nimages/0.png,a,train,g\nimages/1.png,a,test,g\n", {}, "group 'g' straddles two splits"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, text, extra, words):
    """The message names the column, the line or the image."""
    spec = {**write_table(tmp_path, text), **extra}
    with pytest.raises(DataError) as error:
        opened(spec, tmp_path)
    assert words in str(error.value)


def test_a_missing_table_is_told(tmp_path):
    """The file's path is in the message."""
    with pytest.raises(DataError, match=r"found no file .*none\.csv"):
        opened({"name": "csv", "file": "none.csv"}, tmp_path)


def test_a_table_in_another_encoding_is_told(tmp_path):
    """It is not guessed."""
    (tmp_path / "t.csv").write_bytes("image,label\na.png,Köln\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        opened({"name": "csv", "file": "t.csv"}, tmp_path)


def test_sources_have_a_schema_and_survive_a_round_trip():
    """Every source's settings, its long tail included, can be written down and made again."""
    tail = {"name": "step", "imbalance": 10, "largest": 40}
    for spec in (
        {"name": "folder", "root": "p"},
        {"name": "csv", "file": "f"},
        {"name": "lists", "train_list": "t", "validation_list": "v"},
        {"name": "npz", "file": "f", "classes": ["a", "b"]},
        {"name": "digits"},
        {"name": "cifar10"},
        {"name": "cifar100"},
    ):
        source = make("data", {**spec, "longtail": tail, "validation": 0.1})
        assert make("data", source.model_dump()) == source
        assert "longtail" in type(source).model_json_schema()["properties"]
