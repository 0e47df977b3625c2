import os

import numpy as np
import pytest

from ablation.data.files import class_order
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import class_tree, found, opened, picture, save


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


@pytest.mark.parametrize(
    "tree", [("fold1/a", "fold1/b", "fold2/a", "fold2/b", "fold2/c"), ("ill/p1", "ill/p2", "ill/p3", "well/p2", "well/p3")]
)
def test_folders_that_recur_within_classes_are_not_classes_alone(tmp_path, tree):
    """Folds are no classes, and a patient of two classes must not be in two splits: both are refused until `group` says what they are."""
    for number, place in enumerate(tree):
        for i in range(4):
            save(tmp_path / "p" / place / f"{i}.png", picture(10 * number + i))
    with pytest.raises(DataError, match=r"more than one of the folders .* holds some of the folders .*group: '/\(\[\^/\]\+\)/'"):
        opened({"name": "folder", "root": "p"}, tmp_path)
    dataset = opened({"name": "folder", "root": "p", "group": "/([^/]+)/"}, tmp_path)
    splits = {}
    for name, part in zip(dataset.names, dataset.split_N.tolist(), strict=True):
        splits.setdefault(name.split("/")[1], set()).add(part)
    assert all(len(parts_of) == 1 for parts_of in splits.values())


def test_a_class_of_images_that_are_not_read_is_refused(tmp_path):
    """Few of them are told, a class that would shrink is not trained; and a class may be called as a system's folder was."""
    class_tree(tmp_path / "p", {"a": 5, "recycler": 5})
    (tmp_path / "p" / "a" / "x.heic").write_bytes(b"x")
    assert opened({"name": "folder", "root": "p"}, tmp_path).classes == ("a", "recycler")
    for i in range(6):
        (tmp_path / "p" / "a" / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"the folder 'a' has 7 images that cannot be read \('\.heic'\), 5 that can; expected JPEG"):
        opened({"name": "folder", "root": "p"}, tmp_path)


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


def test_the_digits_say_what_is_drawn(tmp_path):
    """They have no test set of their own."""
    assert found({"name": "digits", "test": 0.125}, tmp_path).split_origin == "drawn: 12.5 % of the images"


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


# --- forms


def tree(root, **counts):
    """Images in each folder; `a__b` is the folder a/b."""
    for seed, (folder, count) in enumerate(counts.items()):
        for i in range(count):
            save(root / folder.replace("__", "/") / f"{i}.png", picture(100 * seed + i))


def splits(root, *names):
    """Each named split with the classes a and b."""
    for name in names:
        tree(root / name, a=4, b=4)


def message(spec, folder):
    with pytest.raises(DataError) as error:
        opened(spec, folder)
    return str(error.value)


SPEC = {"name": "folder", "root": "p"}
TRAINING = ["train", "Train", "TRAINING", "trainset", "train_set", "Train-Set", "training data", "train_images"]
VALIDATING = ["val", "Valid", "VALIDATION", "dev", "devset", "val_set", "validation_images", "validate"]
TESTING = ["test", "Test", "TESTING", "testset", "test-set", "eval", "Evaluation", "test_data"]


@pytest.mark.parametrize(("train", "validation", "test"), list(zip(TRAINING, VALIDATING, TESTING, strict=True)))
def test_a_split_has_many_names(tmp_path, train, validation, test):
    """In any case, with its synonyms and suffixes, a folder is the split that it is called after."""
    splits(tmp_path / "p", train, validation, test)
    dataset = opened(SPEC, tmp_path)
    assert [{name.split("/")[0] for name in part} for part in parts(dataset)] == [{train}, {validation}, {test}]
    assert dataset.classes == ("a", "b")
    assert found(SPEC, tmp_path).split_origin == f"{train}/, {validation}/ and {test}/ folders"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train", "Training"], "'Training' and 'train', which both are names of the training split"),
        (["train", "val", "valid"], "'val' and 'valid', which both are names of the validation split"),
        (["train", "dev", "val"], "'dev' and 'val'"),
        (["train", "test", "eval"], "'eval' and 'test', which both are names of the test split"),
        (["train", "tset"], "has 'train' and beside it 'tset'; expected only folders called train, val and test"),
        (["trian", "test"], "has 'test' and beside it 'trian'"),
        (["train", "test", "holdout"], "has 'train' and 'test' and beside it 'holdout'"),
        (["train", "test1"], "beside it 'test1'"),
        (["test"], "has 'test' and no folder of training images"),
        (["val", "test"], "has 'val' and 'test' and no folder of training images"),
        (["seg_train", "seg_test"], "has the folders 'seg_test', 'seg_train', which look like splits"),
        (["train1", "test1"], "which look like splits"),
        (["trn", "tst"], "each of the folders 'trn', 'tst' in"),
        (["fold1", "fold2", "fold3"], "holds the folders 'a', 'b'; expected the folders of the classes there"),
        (["dataset"], "has no folder but 'dataset', which holds the folders 'a', 'b'; expected"),
        (["dataset/train", "dataset/test"], "/p/dataset"),
        (["zip/own/images"], "/p/zip/own/images"),
        (["train/train", "test/test"], "move the folders in 'test/test' up into 'test'"),
        (["train/images", "test/images"], "move the folders in 'test/images' up into 'test'"),
        (["data/train", "data/test", "other/a"], "the class folder 'data' in"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "expected train/CLASS/, not CLASS/train/"),
    ],
)
def test_a_form_that_is_only_partly_known_is_refused(tmp_path, names, words):
    """It does not become another form: the folders are named, and what is expected."""
    splits(tmp_path / "p", *names)
    assert words in message(SPEC, tmp_path)


def test_the_root_that_is_meant_holds_the_splits(tmp_path):
    """However deep an archive put it, and if there is but one split."""
    splits(tmp_path / "p", "zip/own/train")
    assert message(SPEC, tmp_path).endswith(f"write root: {tmp_path / 'p' / 'zip' / 'own'}")


@pytest.mark.parametrize("word", ["test", "val", "Dev", "eval", "Testing"])
def test_a_class_called_like_a_split_is_refused(tmp_path, word):
    """It could be the test images of a data set whose training folder is missing."""
    tree(tmp_path / "p", cat=3, dog=3, **{word: 3})
    assert f"has {word!r} and beside it 'cat', 'dog'" in message(SPEC, tmp_path)


@pytest.mark.parametrize("loose", ["p/{}.png", "p/train/{}.png", "p/test/{}.png"])
def test_images_outside_of_class_folders_are_refused(tmp_path, loose):
    """They have no class, and would be left out without a word."""
    splits(tmp_path / "p", *(["train", "test"] if loose.count("/") > 1 else ["x"]))
    if loose.count("/") == 1:
        (tmp_path / "p" / "x").rename(tmp_path / "x")
        (tmp_path / "x" / "a").rename(tmp_path / "p" / "a")
    save(tmp_path / loose.format(7))
    assert "has images outside of class folders: '7.png'" in message(SPEC, tmp_path)


def test_a_split_that_is_empty_is_refused(tmp_path):
    """A test folder without classes is no reason to draw a test set."""
    splits(tmp_path / "p", "train")
    (tmp_path / "p" / "test").mkdir()
    assert "found no class folders in" in message(SPEC, tmp_path)
    (tmp_path / "p" / "test").rmdir()
    (tmp_path / "p" / "test.zip").write_bytes(b"PK")
    assert "has the archive 'test.zip' beside 'train'; expected a folder: unpack it" in message(SPEC, tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.zip", "is a file; expected a folder with train/CLASS/"),
        ("x.tar.gz", "unpack it"),
        ("x.csv", "such a file is read by data: {name: csv, file: x.csv}"),
        ("x.npz", "{name: npz, file: x.npz}"),
        ("x.png", "is a file; expected a folder"),
    ],
)
def test_a_root_that_is_a_file_is_refused(tmp_path, name, words):
    """The message says how such a file is read."""
    (tmp_path / name).write_bytes(b"x")
    assert words in message({**SPEC, "root": name}, tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("Cat", "cat", "differ only in case"),
        ("hot dog", "hot_dog", "case, blanks, underscores or hyphens"),
        ("x-ray", "x_ray", "case, blanks, underscores or hyphens"),
        ("1", "01", "how a number is written"),
        ("1", "1.0", "how a number is written"),
        ("cat", "ｃａｔ", "their Unicode form"),
        ("cat", "ca\u200bt", "letters that cannot be seen"),
    ],
)
@pytest.mark.parametrize("places", [("train", "train"), ("train", "test"), ("", "")])
def test_classes_that_are_one_in_two_spellings_are_refused(tmp_path, first, second, words, places):
    """Side by side, or one in training and one in the test."""
    root = tmp_path / "p"
    for place in set(places):
        tree(root / place, other=3)
    for name, place in zip((first, second), places, strict=True):
        save(root / place / name / "0.png", picture(len(name)))
    told = message(SPEC, tmp_path)
    assert "writes one class in two ways" in told
    assert words in told
    assert ascii(first) in ascii(told)


@pytest.mark.parametrize("pair", [("caf\u00e9", "cafe\u0301"), ("cat", "cat "), ("cat", " cat")])
def test_folders_of_one_class_are_told(tmp_path, pair):
    """Side by side they are a mistake; a blank or a composed accent is none where the other split has the class once."""
    tree(tmp_path / "p" / "train", other=3, **{pair[0]: 3})
    tree(tmp_path / "p" / "test", other=3, **{pair[1]: 3})
    assert len(opened(SPEC, tmp_path).classes) == 2
    tree(tmp_path / "p" / "train", **{pair[1]: 3})
    assert "differ only in blanks or in their Unicode form" in message(SPEC, tmp_path)


def test_letters_in_both_cases_are_an_alphabet(tmp_path):
    """Data sets of handwriting have a and A; two such folders alone are a slip."""
    tree(tmp_path / "p", **dict.fromkeys("abcdeABCDE", 2))
    assert len(opened(SPEC, tmp_path).classes) == 10
    tree(tmp_path / "q", a=2, A=2)
    assert "differ only in case" in message({**SPEC, "root": "q"}, tmp_path)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None"])
def test_a_folder_is_no_empty_cell(tmp_path, name):
    """Namibia beside ZA and DE, or a grandmother: somebody called the folder so."""
    tree(tmp_path / "p", ZA=3, DE=3, **{name: 3})
    assert name in opened(SPEC, tmp_path).classes


@pytest.mark.parametrize("name", ["\u200b", " "])
def test_a_class_whose_name_cannot_be_seen_is_refused(tmp_path, name):
    """It would be an empty row in every table."""
    tree(tmp_path / "p", cat=3, **{name: 3})
    assert f"has the class folder {name!a}, of whose name nothing is seen" in message(SPEC, tmp_path)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_without_training_images_is_told_with_the_nearest(tmp_path, part):
    """It is often a slip in a folder's name."""
    splits(tmp_path / "p", "train", part)
    tree(tmp_path / "p", **{"train__kitten": 3, f"{part}__kiten": 3})
    told = message(SPEC, tmp_path)
    assert told.startswith("class 'kiten' is empty: it has no training images in")
    assert told.endswith("Did you mean 'kitten'?")


def test_what_systems_leave_is_passed_over_and_counted(tmp_path):
    """Their folders are no classes, their files no images."""
    root = class_tree(tmp_path / "p", {"a": 5, "b": 5})
    for name in ("__MACOSX/a/._0.png", "@eaDir/a/0.png", "a/@eaDir/0.png/thumb.jpg", "a/._0.png", "$RECYCLE.BIN/0.png", "b/.1.png"):
        save(root / name)
    for name in ("lost+found/x", ".ipynb_checkpoints/a.png", "System Volume Information/x"):
        (root / name).parent.mkdir()
        (root / name).write_bytes(b"")
    for name in ("Thumbs.db", "a/desktop.ini", "a/.DS_Store"):
        (root / name).write_bytes(b"")
    dataset = opened(SPEC, tmp_path)
    assert dataset.classes == ("a", "b")
    assert len(dataset.labels_N) == 10
    assert [remark.partition(":")[0] for remark in found(SPEC, tmp_path).remarks] == ["passed over 9 hidden or system files and folders"]


def test_files_that_are_no_images_are_counted(tmp_path):
    """Half of the photographs may have an ending that is not read."""
    root = class_tree(tmp_path / "p", {"a": 5, "b": 5})
    for name in ("a/1.heic", "a/2.HEIC", "b/raw", "b/x.txt", "b/.hidden", "b/@eaDir/x.bin"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    assert found(SPEC, tmp_path).remarks[1:] == ("passed over 4 files in class folders, whose ending no image has: '', '.heic', '.txt'",)


def test_what_may_be_a_mistake_is_told(tmp_path):
    """What is not used is named, in the same words every time."""
    root = tmp_path / "p"
    splits(root, "train", "val")
    for name in ("annotations", "text"):
        (root / name).mkdir()
    save(root / "overview.png")
    save(root / "train" / "a" / "deep" / "x.png", picture(7))
    source = found(SPEC, tmp_path)
    assert source.split_origin == "train/ and val/ folders; test images drawn: 20 % of the training images"
    assert source.remarks == (
        "passed over images beside the split folders: 'overview.png'",
        "passed over the folder 'annotations', 'text', which has no images",
        "images in folders within a class folder count for its class: so in 'a'; if such a folder is one patient or scene, "
        "group: '/[^/]+/([^/]+)/' keeps it in one split",
        "test images are drawn, though validation images are given: if these are the published test images, call them test",
    )
    splits(root, "test")
    (remark,) = found({**SPEC, "root": "p/test"}, tmp_path).remarks
    assert remark == "root is the folder 'test', and 'train', 'val' beside it is not used: root can be the folder that holds them all"


def test_a_fraction_that_changes_nothing_is_told(tmp_path):
    """Test images that are given are not drawn from."""
    splits(tmp_path / "p", "train", "test")
    assert found({**SPEC, "test": 0.5}, tmp_path).remarks == ("data.test, 0.5, changes nothing: there are test images",)
    assert found(SPEC, tmp_path).remarks == ()


def test_masks_beside_the_images_are_told(tmp_path):
    """As in BUSI, where each image of a class has its lesion's mask beside it."""
    root = tmp_path / "p"
    splits(root, "train", "test")
    for name in ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "mask.png", "lone_mask.png"):
        save(root / "train" / "a" / name, picture(len(name)))
    (remark,) = found(SPEC, tmp_path).remarks
    assert remark == (
        "2 images are called like a mask of another, as 'train/a/benign (1)_mask.png' of 'train/a/benign (1).png', "
        "and counted as of the class: take masks away"
    )


def test_nothing_is_remarked_on_plain_folders(tmp_path):
    """Words are for what may be wrong."""
    splits(tmp_path / "p", "train", "test")
    assert found(SPEC, tmp_path).remarks == ()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(zz)", "belongs to no group"),
        (r"/(\d*)x?[a-z]", "belongs to no group"),
        (r"(png)", "has only the group 'png' by the pattern '(png)'; expected several"),
        (r"/([pP]\d)", "writes one group in two ways: 'P1' (a/P1_0.png) and 'p1' (a/p1_1.png) differ only in case"),
    ],
)
def test_patterns_that_group_nothing_are_told(tmp_path, pattern, words):
    """Nothing found, everything in one group, or one group in two spellings."""
    for name in ("a/P1_0", "a/p1_1", "a/p2_0", "b/p3_0", "b/p4_0"):
        save(tmp_path / "p" / f"{name}.png", picture(len(name)))
    assert words in message({**SPEC, "group": pattern}, tmp_path)


def test_a_group_for_each_image_is_remarked(tmp_path):
    """It keeps nothing together; the origin names what groups."""
    class_tree(tmp_path / "p", {"a": 5, "b": 5})
    source = found({**SPEC, "group": "(.+)"}, tmp_path)
    assert source.split_origin == "drawn: 20 % of the images; groups by the pattern '(.+)'"
    assert source.remarks == ("every image is a group of its own by the pattern '(.+)', so that nothing is kept together",)


def test_folders_within_classes_may_be_groups(tmp_path):
    """The same patients in every class are no classes where the study says what they group."""
    for c in "ab":
        for patient in range(6):
            for i in range(2):
                save(tmp_path / "p" / c / f"site{patient}" / "x" / f"{i}.png", picture(ord(c) * 100 + 2 * patient + i))
    assert "say what they group" in message(SPEC, tmp_path)
    assert found({**SPEC, "group": "(site.)"}, tmp_path).remarks == ()
    assert opened({**SPEC, "group": "(site.)"}, tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("is_folder", [True, False])
def test_one_file_under_two_names_is_refused(tmp_path, is_folder):
    """A link to an image of the training set is no test image."""
    splits(tmp_path / "p", "train", "test")
    if is_folder:
        os.symlink(tmp_path / "p" / "train" / "a", tmp_path / "p" / "test" / "a" / "more")
    else:
        os.symlink(tmp_path / "p" / "train" / "a" / "0.png", tmp_path / "p" / "test" / "a" / "9.png")
    assert "has images under two names each; expected every image once:\n  'train/a/0.png' and 'test/a/" in message(SPEC, tmp_path)


def test_links_into_a_store_by_content_are_images(tmp_path):
    """git-annex, DVC and a Hugging Face cache keep one file for equal images: within a class they are counted, in two they are refused."""
    stored = save(tmp_path / "objects" / "ab12", picture(9), format="PNG")
    root = class_tree(tmp_path / "p" / "train", {"a": 3, "b": 3})
    class_tree(tmp_path / "p" / "test", {"a": 2, "b": 2})
    for name in ("a/x.png", "a/y.png"):
        os.symlink(stored, root / name)
    assert len(opened(SPEC, tmp_path).labels_N) == 12
    os.symlink(stored, root / "b" / "z.png")
    assert message(SPEC, tmp_path).endswith("expected every image once:\n  'train/a/x.png' and 'train/b/z.png'")
