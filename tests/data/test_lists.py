import os

import numpy as np
import pytest

from ablation.data import open_dataset, prepare, split
from ablation.data.lists import class_names
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import found, opened, picture, save, silent

COUNTS = {"airfield": 4, "bus station/in door": 3, "zoo": 2}  # a folder whose name has a space
SPEC = {
    "name": "lists",
    "root": "places",
    "train_list": "lists/train.txt",
    "validation_list": "lists/val.txt",
    "test_list": "lists/test.txt",
}


def write_list(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def places(tmp_path):
    """Three lists and their images, the classes numbered in the order of their folders."""
    for part, extra in (("train", 0), ("val", 1), ("test", 2)):
        lines = []
        for c, (name, count) in enumerate(COUNTS.items()):
            for i in range(count if part == "train" else 1):
                path = f"{part}/{name}/{i}.png"
                save(tmp_path / "places" / path, picture(100 * extra + 10 * c + i, 16, 16))
                lines.append(f"{path} {c}")
        write_list(tmp_path / "lists" / f"{part}.txt", lines)
    return tmp_path


def train_list(folder, *lines):
    write_list(folder / "lists" / "train.txt", lines)


def test_the_lists_are_the_splits(places):
    """Images, labels and splits are the lists', in their order, and the pixels belong to them; classes are called by their numbers."""
    dataset = opened(SPEC, places)
    assert dataset.labels_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2]
    assert dataset.split_N.tolist() == [0] * 9 + [1] * 3 + [2] * 3
    assert dataset.classes == ("0", "1", "2")
    assert dataset.names[4] == "train/bus station/in door/0.png"
    for place, seed in {0: 0, 4: 10, 8: 21, 10: 110, 14: 220}.items():
        assert np.array_equal(dataset.images_NHWC[place], np.asarray(picture(seed, 16, 16)))
    parts = split(dataset, make("data", SPEC), 0)
    assert (parts.counts_C.tolist(), len(parts.validation_N), len(parts.test_N)) == ([4, 3, 2], 3, 3)


def test_the_root_is_the_training_lists_folder_where_none_is_given(places):
    """Lists that lie with their images need no root."""
    (places / "lists" / "train.txt").rename(places / "places" / "train.txt")
    spec = {"name": "lists", "train_list": "places/train.txt", "test_list": "lists/test.txt"}
    assert opened(spec, places).split_N.tolist() == [0] * 9 + [2] * 3


def test_without_a_test_list_a_fraction_is_the_test(places):
    """It is stratified, and never taken from the validation list."""
    dataset = opened({**SPEC, "test_list": "none", "test": 0.34}, places)
    assert np.bincount(dataset.labels_N[dataset.split_N == 2]).tolist() == [1, 1, 1]
    assert (dataset.split_N == 1).sum() == 3


def test_a_prefix_is_taken_off(places):
    """Paths that begin with another machine's folder are found, with or without the slash in `strip`."""
    before = opened(SPEC, places)
    lines = (places / "lists" / "train.txt").read_text(encoding="utf-8").splitlines()
    train_list(places, *(f"data/vision/torralba/images256/{line}" for line in lines))
    for strip in ("data/vision/torralba/images256", "data/vision/torralba/images256/"):
        dataset = opened({**SPEC, "strip": strip}, places)
        assert list(dataset.names) == list(before.names)
        assert dataset.digest == before.digest


def test_class_names_come_from_a_file(places):
    """Class 0 is the first line, whatever the alphabet says."""
    write_list(places / "names.txt", ["zebra", "bus station", "airfield"])
    dataset = opened({**SPEC, "classes": "names.txt"}, places)
    assert dataset.classes == ("zebra", "bus station", "airfield")
    assert dataset.labels_N.tolist() == opened(SPEC, places).labels_N.tolist()


@pytest.mark.parametrize("lines", ["1 hen\n2 ox\n0 cat\n", "hen, 1\nox, 2\ncat, 0\n"])
def test_class_names_may_stand_beside_their_numbers(tmp_path, lines):
    """In any order; numbers that are no places stay part of the names."""
    (tmp_path / "names.txt").write_text(lines)
    assert class_names(tmp_path / "names.txt") == ("cat", "hen", "ox")
    (tmp_path / "names.txt").write_text("Boeing 737\nBoeing 747\n")
    assert class_names(tmp_path / "names.txt") == ("Boeing 737", "Boeing 747")
    (tmp_path / "names.txt").write_text("Grade 0\nGrade 1\nGrade 2\n")
    assert class_names(tmp_path / "names.txt") == ("Grade 0", "Grade 1", "Grade 2")
    (tmp_path / "names.txt").write_text("0 cat\n1 cat\n2 dog\n")
    with pytest.raises(DataError, match="has the class name 'cat' in lines 1 and 2; expected each once"):
        class_names(tmp_path / "names.txt")


@pytest.mark.parametrize("written", ["{}\t{}", "{}   {}  ", "{} {}\r", "\ufeff{} {}", "{} 0{}", "{} {}\n\n"])
def test_lines_may_be_written_otherwise(places, written):
    """Tabs, several blanks, Windows line ends, a byte order mark, leading zeros and empty lines are no trouble."""
    names = [f"train/airfield/{i}.png" for i in range(3)] + ["train/zoo/0.png"]
    text = "\n".join(written.format(name, c).replace("\ufeff", "") for c, name in enumerate(names))
    (places / "lists" / "train.txt").write_bytes(("\ufeff" * written.startswith("\ufeff") + text).encode())
    dataset = opened({**SPEC, "validation_list": "none", "test": 0.5}, places)
    assert list(dataset.names[:4]) == names
    assert dataset.labels_N[:4].tolist() == [0, 1, 2, 3]


def test_what_a_list_is_used_for_counts(places):
    """The same two files as validation or as test are two decoded sources. Another place is decoded anew, and found equal."""
    first = {**SPEC, "test_list": "none"}
    second = {**SPEC, "validation_list": "none", "test_list": "lists/val.txt"}
    folders = [prepare(make("data", spec), 16, places, places / "cache", silent) for spec in (first, second, first)]
    assert folders[0] == folders[2] != folders[1]
    (places / "lists").rename(places / "elsewhere")
    moved = {**first, "train_list": "elsewhere/train.txt", "validation_list": str(places / "elsewhere" / "val.txt")}
    elsewhere = prepare(make("data", moved), 16, places, places / "cache", silent)
    assert elsewhere not in folders
    assert open_dataset(elsewhere).digest == open_dataset(folders[0]).digest


def test_class_names_that_are_numbered_from_one_are_in_order(tmp_path):
    """Else line and number say different things; in order they are names as they stand, and so are two that end in numbers."""
    file = tmp_path / "names.txt"
    file.write_text("2 cat\n1 dog\n3 owl\n")
    with pytest.raises(DataError, match="numbers its classes from 1, in another order than that of its lines; expected numbers from 0"):
        class_names(file)
    file.write_text("1 dog\n2 cat\n3 owl\n")
    assert class_names(file) == ("1 dog", "2 cat", "3 owl")
    file.write_text("Boeing 2\nAirbus 1\nFokker 3\n")
    assert class_names(file) == ("Boeing 2", "Airbus 1", "Fokker 3")


def test_other_class_names_are_other_data(places):
    """A changed names file is read again."""
    write_list(places / "names.txt", ["a", "b", "c"])
    before = opened({**SPEC, "classes": "names.txt"}, places)
    write_list(places / "names.txt", ["a", "b", "dd"])
    after = opened({**SPEC, "classes": "names.txt"}, places)
    assert (before.classes, after.classes) == (("a", "b", "c"), ("a", "b", "dd"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a.png 0", "b.png cat"], "has lines that are not an image's path and the number of its class:\n  line 2: 'b.png cat'"),
        (["a.png"], "line 1: 'a.png'"),
        (["7"], "line 1: '7'"),
        (["a.png -1"], "line 1: 'a.png -1'"),
        (["a.png 1.5"], "line 1: 'a.png 1.5'"),
        (["a.png,0"], "line 1: 'a.png,0'"),
        ([f"{'x' * 100} y"], f"line 1: '{'x' * 80}'"),
        (["x"] * 30, "line 10: 'x'\n  ... and 20 more"),
        (["a.png 1", "b.png 2"], "has no training image with the label 0; expected every number from 0 to 2"),
        (["a.png 0", "b.png 3"], "has no training image with the label 1, 2; expected every number from 0 to 3"),
        (["a.png 0", "b.png 999999999999"], "label 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 999,999,999,988 more; expected"),
        ([" ", ""], "names no images"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(places, lines, words):
    """The file and the line are named, a long list of them is cut, and no image is looked at."""
    train_list(places, *lines)
    with pytest.raises(DataError) as error:
        opened(SPEC, places)
    assert f"{str(places / 'lists' / 'train.txt')!r} " in str(error.value)
    assert words in str(error.value)


def test_a_label_that_no_training_image_has_is_told(places):
    """A test image of an unknown class is named with its line."""
    write_list(places / "lists" / "test.txt", ["test/zoo/0.png 2", "test/airfield/0.png 3"])
    with pytest.raises(DataError) as error:
        opened(SPEC, places)
    assert str(error.value) == "labels that no training image has; expected 0 to 2:\n  test.txt, line 2: 3"


def test_an_image_in_two_lists_is_told(places):
    """A test image that trains is a leak, however its path is written; both lines are named."""
    write_list(places / "lists" / "test.txt", ["test/zoo/0.png 2", "train/./airfield/1.png 0"])
    train_list(places, *(f"train/airfield/{i}.png {i}" for i in range(3)), "train/airfield/2.png 1")
    with pytest.raises(DataError) as error:
        opened(SPEC, places)
    assert str(error.value).splitlines() == [
        "images that are named twice; expected each once, in one list:",
        "  train.txt, line 3, and train.txt, line 4: 'train/airfield/2.png'",
        "  train.txt, line 2, and test.txt, line 2: 'train/./airfield/1.png'",
    ]


def test_a_list_used_twice_is_told(places):
    """Validating on the test images is choosing on them."""
    with pytest.raises(DataError, match=r"images that are named twice"):
        opened({**SPEC, "validation_list": "lists/test.txt"}, places)


def test_missing_images_are_named_with_their_lines(places):
    """The list and the line come before the image."""
    (places / "places" / "train" / "zoo" / "1.png").unlink()
    (places / "places" / "test" / "zoo" / "0.png").unlink()
    with pytest.raises(DataError) as error:
        opened(SPEC, places)
    assert str(error.value).splitlines() == [
        "2 of 18 files cannot be read:",
        "  train.txt, line 9: train/zoo/1.png: No such file or directory",
        "  test.txt, line 3: test/zoo/0.png: No such file or directory",
    ]


def test_broken_images_are_named_with_their_lines(places):
    """So are files that are there and are no images."""
    (places / "places" / "val" / "zoo" / "0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1 of 15 images cannot be read:\n  val\.txt, line 3: val/zoo/0\.png: is not an image"):
        opened(SPEC, places)


@pytest.mark.parametrize("field", ["train_list", "validation_list", "test_list", "classes"])
def test_a_missing_file_is_told(places, field):
    """Its path is in the message."""
    with pytest.raises(DataError, match=r"found no file '.*nowhere\.txt'; expected"):
        opened({**SPEC, field: "lists/nowhere.txt"}, places)


def test_a_list_in_another_encoding_is_told(places):
    """It is not guessed."""
    (places / "lists" / "train.txt").write_bytes("Köln.png 0\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt' cannot be read as UTF-8"):
        opened(SPEC, places)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "b"], "train.txt' has the label 2; expected 0 to 1, one of 2 classes"),
        (["a", "b", "c", "d"], "has no training image with the label 3; expected every number from 0 to 3"),
        (["a", "b", "a"], "has the class name 'a' in lines 1 and 3; expected each once"),
        (["a", "", "c"], "has no class name in line 2"),
        ([], "has no class name in line 1"),
    ],
)
def test_class_names_that_do_not_fit_are_told(places, names, words):
    """Too few, too many, repeated or empty names are errors."""
    write_list(places / "names.txt", names)
    with pytest.raises(DataError) as error:
        opened({**SPEC, "classes": "names.txt"}, places)
    assert words in str(error.value)


def test_own_validation_images_and_a_fraction_contradict(places):
    """As with every source, one of them is too many."""
    spec = {**SPEC, "validation": 0.2}
    with pytest.raises(ConfigError, match="validation images of its own"):
        split(opened(spec, places), make("data", spec), 0)


def test_the_training_list_is_needed():
    """The place in the file is named."""
    with pytest.raises(ConfigError, match="is missing") as error:
        make("data", {"name": "lists", "root": "p"}, "data")
    assert error.value.path == "data.train_list"


def test_a_long_tail_can_be_cut_from_lists(places):
    """The lists' images are a source like any other, in an order that no published index list refers to."""
    tail = {"name": "linear", "largest": 3, "smallest": 1}
    dataset = open_dataset(prepare(make("data", {**SPEC, "longtail": tail}), 16, places, places / "cache", silent))
    assert split(dataset, make("data", {**SPEC, "longtail": tail}), 0).counts_C.tolist() == [3, 2, 1]
    assert not dataset.original_order


def message(spec, folder):
    with pytest.raises(DataError) as error:
        opened(spec, folder)
    return str(error.value)


def test_the_origin_names_the_lists(places):
    """Where there is no test list, it says that the test is drawn."""
    assert found(SPEC, places).split_origin == "lists train.txt, val.txt and test.txt"
    assert found(SPEC, places).remarks == ()
    drawn = found({**SPEC, "test_list": "none", "test": 0.25}, places)
    assert drawn.split_origin == "lists train.txt and val.txt; test images drawn: 25 % of the training images"
    (remark,) = drawn.remarks
    assert remark.startswith("test images are drawn, though validation images are given: if these are the published test images")
    assert found({**SPEC, "validation_list": "none", "test_list": "none"}, places).split_origin == "drawn: 20 % of the images"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Zoo", "zoo", "bus"], "'Zoo' (line 1) and 'zoo' (line 2) differ only in case"),
        (["bus stop", "zoo", "bus_stop"], "'bus stop' (line 1) and 'bus_stop' (line 3) differ only in"),
        (["caf\u00e9", "cafe\u0301", "bus"], "differ only in their Unicode form"),
        (["zoo", "zoo\u200b", "bus"], "differ only in letters that cannot be seen"),
        (["1", "1.0", "2"], "differ only in how a number is written"),
    ],
)
def test_class_names_that_are_one_in_two_spellings_are_told(places, names, words):
    """They would be two classes that look alike in every table."""
    write_list(places / "names.txt", names)
    told = message({**SPEC, "classes": "names.txt"}, places)
    assert "writes one class in two ways" in told
    assert words in told


def test_a_large_vocabulary_may_have_words_that_differ_in_case(places):
    """ImageNet has Cardigan, a dog, and cardigan, a garment; what cannot be seen is refused there, too."""
    names = [f"word {i}" for i in range(150)]
    train_list(places, *(f"train/airfield/{i}.png {i}" for i in range(152)))
    spec = {"name": "lists", "root": "places", "train_list": "lists/train.txt", "classes": "names.txt"}
    write_list(places / "names.txt", [*names, "Cardigan", "cardigan"])
    assert found(spec, places).remarks == ("the classes 'Cardigan' and 'cardigan' differ only in case",)
    write_list(places / "names.txt", [*names, "caf\u00e9", "cafe\u0301"])
    assert "differ only in their Unicode form" in message(spec, places)


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_labels_counted_from_1_are_told(places, names):
    """With class names or without."""
    for part in ("train", "val", "test"):
        lines = (places / "lists" / f"{part}.txt").read_text(encoding="utf-8").splitlines()
        write_list(places / "lists" / f"{part}.txt", [f"{line[:-1]}{int(line[-1]) + 1}" for line in lines])
    write_list(places / "names.txt", names or [])
    spec = {**SPEC, "classes": "names.txt"} if names else SPEC
    assert message(spec, places).endswith("They look counted from 1; expected from 0: take 1 off each label")


@pytest.mark.parametrize("written", ["train\\airfield\\0.png 0", "  train/airfield/0.png 0", "./train/airfield/0.png 0"])
def test_paths_of_other_systems_are_the_same_paths(places, written):
    """An image that is named again so is named twice."""
    train_list(places, *(f"train/airfield/{i}.png {i % 3}" for i in range(1, 4)), written)
    assert len(opened({**SPEC, "validation_list": "none", "test_list": "none", "test": 0.3}, places).labels_N) == 4
    train_list(places, *(f"train/airfield/{i}.png {i % 3}" for i in range(4)), written)
    assert "images that are named twice" in message(SPEC, places)


def test_a_link_to_an_image_is_no_other_image(places):
    """A test list that leads to training images by links leaks."""
    os.symlink(places / "places" / "train", places / "places" / "eval")
    write_list(places / "lists" / "test.txt", ["eval/zoo/0.png 2", "test/airfield/0.png 0"])
    assert "'train.txt, line 8: train/zoo/0.png' and 'test.txt, line 1: eval/zoo/0.png'" in message(SPEC, places)


def test_lines_of_what_systems_leave_are_passed_over(places):
    """A list made by walking through folders has them, too."""
    lines = (places / "lists" / "train.txt").read_text(encoding="utf-8").splitlines()
    train_list(places, *lines, "train/airfield/._0.png 0", "__MACOSX/train/zoo/._1.png 2")
    assert len(opened(SPEC, places).labels_N) == 15
    assert found(SPEC, places).remarks == (
        "passed over 2 hidden or system files and folders: '__MACOSX/train/zoo/._1.png', 'train/airfield/._0.png'",
    )
