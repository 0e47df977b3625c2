"""Names of files that tell which images are of one patient, and names that tell nothing."""

import re

import numpy as np
import pytest

from ablation.data.files import Entry, group_name
from ablation.data.shared_names import group_remark
from ablation.data.source import TRAIN
from tests.data.image_sources import found, opened, picture, save

FOLDER = {"name": "folder", "root": "p"}


def entries(names):
    """Images in class folders, as a source finds them; an image may have another label after a blank."""
    known = [name.rpartition(" = ")[::2] if " = " in name else (name, name.split("/")[0]) for name in names]
    return [Entry(name, None, label, TRAIN, name) for name, label in known]


def remarks(names, with_folders=False):
    return list(group_remark(entries(names), lambda shared: f"<{shared.key}> <{shared.pattern}>", with_folders=with_folders))


def pattern_in(names):
    """The pattern that is advised, which must find a group in every name."""
    (remark,) = remarks(names)
    return re.search("<([^>]*)>$", remark)[1]


def groups_of(names):
    """The groups that the pattern finds."""
    pattern = pattern_in(names)
    return {group_name(pattern, name) for name in names}


def patients(form, classes="ab", number=8, images=4):
    return [f"{c}/{form.format(c=c, p=p, i=i, side='LR'[i % 2])}.png" for c in classes for p in range(number) for i in range(images)]


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("{c}patient{p:02}_slice{i:02}", r"([^/]+)_slice\d+\."),
        ("{c}{p:03}-{i}", r"([^/]+)\-\d+\."),
        ("{c} {p} ({c}) {i}", None),
        ("{c}p{p}s{i}", r"([^/]+)s\d+\."),
        ("{c}{p}_20240101_{i:06}", None),
        ("{c}video{p}_frame_000{i}", r"([^/]+)_frame_\d+\."),
    ],
)
def test_the_pattern_finds_the_patients(form, pattern):
    """As it stands in the sentence, whatever the names are."""
    names = patients(form)
    advised = pattern_in(names)
    assert pattern in (None, advised)
    groups = {name: group_name(advised, name) for name in names}
    assert len(set(groups.values())) == 16
    assert {groups[name] for name in names[:4]} == {groups[names[0]]}


def test_the_coarsest_groups_count():
    """A patient with several visits is one."""
    names = [f"{c}/{c}p{p}_visit{v}_{i}.png" for c in "ab" for p in range(8) for v in range(2) for i in range(3)]
    assert groups_of(names) == {f"{c}p{p}" for c in "ab" for p in range(8)}


@pytest.mark.parametrize("sides", [("left", "right"), ("L", "R"), ("CC", "MLO")])
def test_a_word_at_the_end_is_no_part_of_the_group(sides):
    """Two eyes, or two views, of one patient."""
    names = [f"{c}/{c}{p:03}_{side}.jpg" for c in "ab" for p in range(8) for side in sides]
    assert groups_of(names) == {f"{c}{p:03}" for c in "ab" for p in range(8)}


def test_people_have_names():
    """Many in each class, each with a few images."""
    people = [f"Ann_{letter}" for letter in "ABCDEFGHIJKLMNOP"]
    names = [f"{'xy'[k % 2]}/{person}_{i:04}.jpg" for k, person in enumerate(people) for i in range(3)]
    assert groups_of(names) == set(people)


def test_numbers_that_begin_anew_in_each_folder_are_of_its_class():
    """As the tracks of traffic signs, of 30 images each."""
    names = [f"{c}/{track:05}_{i:05}.ppm" for c in "abc" for track in range(8) for i in range(30)]
    assert len(groups_of(names)) == 3 * 8


@pytest.mark.parametrize(
    "form",
    [
        "{n:04}",
        "img_{n:04}",
        "{c}.{n}",
        "{c}-{n}",
        "{c}_{n:05}",
        "n0144{c}76_{n}",
        "IMG_202401{day:02}_12{n:04}",
        "IMG-202401{day:02}-WA{n:04}",
        "PXL_202401{day:02}_12{n:07}",
        "2024-01-{day:02} 12.00.{n:02}",
        "Screenshot 2024-01-{day:02} at 12.{n:02}.00",
        "{day:02}-01-2024_{n}",
        "ISIC_00{n:05}",
        "DSC{n:05}",
        "img_{n:04}_224x224",
        "photo ({n})",
        "COCO_train2014_{n:012}",
        "{n}_{c}",
        "{n}-1",
    ],
)
def test_names_that_count_images_tell_nothing(form):
    """A number for each image, one word for a class or for all, or the day of a photograph."""
    numbers = {"a": range(60), "b": range(60)}
    names = [f"{c}/{form.format(c=c, n=n, day=1 + n % 20)}.jpg" for c, of in numbers.items() for n in of]
    assert remarks(names) == []
    assert remarks(names, with_folders=True) == []


def test_random_names_tell_nothing():
    """Whatever letters and digits they are of."""
    rng = np.random.default_rng(0)
    for length in (4, 6, 8, 12, 32):
        words = {"".join(rng.choice(list("0123456789abcdef"), length)) for _ in range(400)}
        assert remarks([f"{'ab'[k % 2]}/{word}.jpg" for k, word in enumerate(sorted(words))]) == []
    uuids = ["-".join("".join(rng.choice(list("0123456789abcdef"), n)) for n in (8, 4, 4, 4, 12)) for _ in range(400)]
    assert remarks([f"{'ab'[k % 2]}/{word}.jpg" for k, word in enumerate(uuids)]) == []


def test_a_word_for_each_of_many_classes_is_the_class():
    """As in ImageNet, in whose names the class is written too."""
    assert remarks([f"n{c:08}/n{c:08}_{i}.JPEG" for c in range(40) for i in range(20)]) == []
    assert remarks([f"k{c}/kind{c}-{i}.png" for c in range(40) for i in range(20)], with_folders=True) == []


def test_numbers_that_begin_anew_in_each_class_are_no_patients():
    """12_cat and 12_dog have nothing in common, nor have the 12th images of two folders."""
    classes = [f"kind{letter}" for letter in "ABCDEF"]
    assert remarks([f"{c}/{i:03}_{c}.png" for c in classes for i in range(40)]) == []
    assert remarks([f"{c}/{i}.png" for c in classes for i in range(40)]) == []


def test_few_images_and_large_groups_tell_nothing():
    """What few share must be told from chance, and what many share is a site or a day."""
    assert remarks(patients("{c}{p}_{i}", number=3)) == []
    assert remarks(patients("{c}{p}_{i}", images=60)) == []
    assert remarks(patients("{c}{p}_{i}", images=1)) == []


def test_a_stray_name_ends_the_search():
    """A pattern that finds no group in it would be refused."""
    assert remarks([*patients("{c}{p}_{i}"), "a/cover.png"]) == []


# --- by source ---------------------------------------------------------------------------------------------------------------


def patients_on_disk(tmp_path, form="{c}patient{p:02}_slice{i:02}"):
    names = patients(form, images=2)
    for seed, name in enumerate(names):
        save(tmp_path / "p" / name, picture(seed, 8, 8))
    return names


def test_folders_are_advised_a_pattern_that_is_taken(tmp_path):
    """The sentence's own words, written under `data`, keep patients in one split, and nothing more is said."""
    patients_on_disk(tmp_path)
    (remark,) = found(FOLDER, tmp_path).remarks
    assert remark == (
        "nearly every image is called like a few others, as 'a/apatient00_slice00.png' and 'a/apatient00_slice01.png', which a drawn "
        r"split divides: if these are of one patient or scene, group: '([^/]+)_slice\d+\.' keeps them in one split"
    )
    grouped = {**FOLDER, "group": re.search("group: '(.*)' keeps", remark)[1]}
    assert found(grouped, tmp_path).remarks == ()
    assert len(set(opened(grouped, tmp_path, 8).group_N.tolist())) == 16


def test_nothing_is_said_where_nothing_is_drawn(tmp_path):
    """Splits that are given are the user's own; a validation split that is drawn from them is not."""
    names = patients_on_disk(tmp_path)
    for part in ("train", "test"):
        for seed, name in enumerate(names):
            save(tmp_path / "p" / part / name, picture(seed, 8, 8))
    for c in "ab":
        for path in (tmp_path / "p" / c).iterdir():
            path.unlink()
        (tmp_path / "p" / c).rmdir()
    assert found(FOLDER, tmp_path).remarks == ()
    (remark,) = found({**FOLDER, "validation": 0.2}, tmp_path).remarks
    assert "which a drawn split divides" in remark


def test_tables_are_advised_a_column(tmp_path):
    """A table's groups are a column; `group: none` says that there are none."""
    names = patients_on_disk(tmp_path)
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *(f"{name},{name[0]}" for name in names)]))
    table = {"name": "csv", "file": "t.csv", "root": "p"}
    (remark,) = found(table, tmp_path).remarks
    assert remark.endswith("a column group with what they share, as 'apatient00', keeps them in one split; group: none if not")
    assert found({**table, "group": "none"}, tmp_path).remarks == ()
    rows = ["image,label,group", *(f"{name},{name[0]},{name.split('_')[0]}" for name in names)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert found(table, tmp_path).remarks == ()


def test_folders_in_a_list_may_be_patients(tmp_path):
    """A folder for each patient, and a number for each image in it."""
    names = patients_on_disk(tmp_path, "p{p:02}/f{i}")
    (tmp_path / "train.txt").write_text("\n".join(f"{name} {'ab'.index(name[0])}" for name in names))
    (remark,) = found({"name": "lists", "train_list": "train.txt", "root": "p"}, tmp_path).remarks
    assert "as 'a/p00/f0.png' and 'a/p00/f1.png'" in remark
    assert remark.endswith("lists cannot keep them in one split; a table (data: csv) with a column group can, as 'a/p00' for these")
