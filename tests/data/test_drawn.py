"""What a drawn split could not avoid is said: copies in another format on both sides, and groups that are never tested."""

import pytest
from PIL import Image

from ablation.data import split
from ablation.data.account import account_of
from ablation.techniques.technique import make
from tests.data.image_sources import opened, picture, save

FOLDER = {"name": "folder", "root": "p"}
NEAR, HELD = "near copies in training and test", "groups held together"


def findings(tmp_path, size=16, **settings):
    """kind -> finding."""
    spec = {**FOLDER, **settings}
    dataset, source = opened(spec, tmp_path, size), make("data", spec)
    account = account_of(dataset, split(dataset, source, 0), source, "", (), "folder p", size)
    return {finding.kind: finding for finding in account.findings}


def in_two_formats(root, second, number=20):
    """Pictures of two classes as PNG, and what `second` makes of each as JPEG."""
    for c in "ab":
        for i in range(number):
            image = smooth(ord(c) * 100 + i)
            save(root / c / f"{i}.png", image)
            save(root / c / f"{i}.jpg", second(image, i), quality=85)


def smooth(seed):
    return picture(seed, 5, 5).resize((40, 40), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "second",
    [lambda image, i: image, lambda image, i: image.resize((30, 30)), lambda image, i: image.point(lambda value: value * 0.9)],
    ids=["as it is", "smaller", "darker"],
)
def test_a_picture_in_two_formats_is_told_where_both_splits_have_it(tmp_path, second):
    """The pattern in the sentence keeps it in one, and then nothing is said."""
    in_two_formats(tmp_path / "p", second)
    finding = findings(tmp_path)[NEAR]
    number = len(finding.images)
    assert 0 < number <= 16
    assert finding.sentence.startswith(f"{number} of the 16 test images are training images too, in another file: called alike but ")
    assert "; group: '(.+)[.]' keeps them in one split (" in finding.sentence
    assert all(first.rpartition(".")[0] == second.rpartition(".")[0] for first, second in finding.images)
    assert NEAR not in findings(tmp_path, group="(.+)[.]")


@pytest.mark.parametrize("endings", [("jpg", "png"), ("jpg", "jpeg"), ("png", "PNG")])
def test_so_is_one_in_splits_that_are_given(tmp_path, endings):
    """Called alike below the folders of the splits; no pattern keeps them in one split."""
    for c in "ab":
        for i in range(6):
            for split_folder, ending, size in (("train", endings[0], 40), ("test", endings[1], 30)):
                save(tmp_path / "p" / split_folder / c / f"{i}.{ending}", smooth(ord(c) * 100 + i).resize((size, size)))
    finding = findings(tmp_path)[NEAR]
    assert finding.sentence.startswith("12 of the 12 test images are training images too, in another file: called alike but for the ending")
    assert "group:" not in finding.sentence


def test_one_format_with_two_endings_is_compared(tmp_path):
    """A smaller copy beside its picture, both JPEG."""
    for c in "ab":
        for i in range(20):
            save(tmp_path / "p" / c / f"{i}.jpg", smooth(ord(c) * 100 + i), quality=95)
            save(tmp_path / "p" / c / f"{i}.jpeg", smooth(ord(c) * 100 + i).resize((30, 30)), quality=70)
    assert "; group: '(.+)[.]' keeps them in one split (" in findings(tmp_path)[NEAR].sentence


def test_splits_that_number_their_images_alike_are_not_compared(tmp_path):
    """A camera that stands still makes nearly equal images; with one ending they are one set, numbered anew in each split."""
    for split_folder in ("train", "test"):
        for c in "ab":
            for i in range(4):
                image = smooth(ord(c)).point(lambda value, i=i, more=split_folder == "test": value + i + 4 * more)
                save(tmp_path / "p" / split_folder / c / f"{i}.png", image)
    assert NEAR not in findings(tmp_path)


def test_a_validation_split_is_compared_too(tmp_path):
    """It is drawn from the training images."""
    in_two_formats(tmp_path / "p", lambda image, i: image)
    found = findings(tmp_path, validation=0.3)
    assert {"near copies in training and validation", NEAR} <= set(found)


def test_other_pictures_of_the_same_name_are_none(tmp_path):
    """Two collections in one folder count their images alike."""
    in_two_formats(tmp_path / "p", lambda image, i: smooth(90_000 + i))
    assert NEAR not in findings(tmp_path)


# --- groups ------------------------------------------------------------------------------------------------------------------


def patients(root, placeholders, number=10):
    """Ten patients of each class with four images each, the first of which is a placeholder for some."""
    for c in "ab":
        for k in range(number):
            for i in range(4):
                is_placeholder = i == 0 and k < placeholders
                save(root / c / f"{c}{k:02}" / f"{i}.png", picture(9999 if is_placeholder else ord(c) * 1000 + 10 * k + i))


def test_groups_that_make_another_share_are_told(tmp_path):
    """Two large groups can only be halved; many small ones give what was asked for."""
    for c in "ab":
        for k in range(2):
            for i in range(6):
                save(tmp_path / "p" / c / f"g{k}_{i}.png", picture(ord(c) * 1000 + 10 * k + i))
    told = "12 of 24 images, 50 %, are test images, and not 20 %: groups are kept whole, and these have no other shares"
    assert findings(tmp_path, group="/(g[0-9])")["drawn share"].sentence == told
    patients(tmp_path / "q", 0)
    assert "drawn share" not in findings(tmp_path, root="q", group="/([^/]+)/")


def test_groups_that_a_placeholder_joins_are_told(tmp_path):
    """They are too many for the test, in which none of them is."""
    patients(tmp_path / "p", 7)
    finding = findings(tmp_path, group="/([^/]+)/")[HELD]
    assert finding.sentence.startswith(
        "14 of 20 groups are kept together since they share pictures, and none of them is tested: leave out the one that most of them "
        "have if it shows nothing (a/a00/0.png = a/a01/0.png = a/a02/0.png)"
    )
    assert len(finding.images[0]) == 14


@pytest.mark.parametrize(("placeholders", "group"), [(0, "/([^/]+)/"), (1, "/([^/]+)/"), (7, "none")])
def test_groups_that_can_be_tested_are_not(tmp_path, placeholders, group):
    """Nothing is shared, or two patients have a picture in common, or there are no groups: then the copies are told as such."""
    patients(tmp_path / "p", placeholders)
    assert HELD not in findings(tmp_path, group=group)


def test_groups_in_splits_that_are_given_are_not(tmp_path):
    """Nothing is drawn."""
    patients(tmp_path / "p" / "train", 7)
    for c in "ab":
        save(tmp_path / "p" / "test" / c / f"{c}99" / "0.png", picture(ord(c) + 5000))
    assert HELD not in findings(tmp_path, group="/[^/]+/([^/]+)/")
