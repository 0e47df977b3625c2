"""Tables, column by column and cell by cell."""

import os
import re

import numpy as np
import pytest

from ablation.data.naming import clean
from ablation.errors import DataError
from tests.data.image_sources import found, opened, picture, save


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


@pytest.mark.parametrize("odd", ["external", "train+val", ""])
def test_a_column_that_mostly_tells_splits_apart_must_be_said(tmp_path, odd):
    """One word that is none does not make the others mean nothing."""
    splits = ["train", "train", "val", "test", "test", odd]
    text = lines("image,label,cohort", *(f"images/{i}.png,{'ab'[i % 2]},{split}" for i, split in enumerate(splits)))
    with pytest.raises(DataError, match=rf"'cohort' holds the names of splits, and '{re.escape(odd)}'; expected"):
        opened(write_table(tmp_path, text), tmp_path)
    assert len(opened({**write_table(tmp_path, text), "split": "none"}, tmp_path).names) == 6


@pytest.mark.parametrize(("column", "train", "other"), [("cohort", "train", "holdout"), ("dataset", "Train", "External")])
def test_so_must_one_with_a_single_known_word(tmp_path, column, train, other):
    """Those whom the other word names may be the test images."""
    splits = [train, train, other, train, train, other]
    text = lines(f"image,label,{column}", *(f"images/{i}.png,{'ab'[i % 2]},{split}" for i, split in enumerate(splits)))
    with pytest.raises(DataError, match=rf"'{column}' holds the names of splits, and '{other}'; expected"):
        opened(write_table(tmp_path, text), tmp_path)


def test_a_word_that_happens_to_be_a_split_means_nothing(tmp_path):
    """A train is a vehicle."""
    text = lines("image,label,vehicle", *(f"images/{i}.png,{'ab'[i % 2]},{kind}" for i, kind in enumerate(["train", "car", "bus"] * 2)))
    assert len(opened(write_table(tmp_path, text), tmp_path).names) == 6


def test_a_quote_that_swallows_rows_is_told(tmp_path):
    """Rows between two stray quotes are no cell."""
    rows = [f"images/{i}.png,{'ab'[i % 2]},{note}" for i, note in enumerate(["fine", '"x', "fine", "fine", 'y"', "fine"])]
    with pytest.raises(DataError, match="the quote that begins in line 3 ends 3 lines below, and has rows of images within it"):
        opened(write_table(tmp_path, lines("image,label,note", *rows)), tmp_path)
    rows[1], rows[4] = 'images/1.png,b,"two\nlines, that is"', "images/4.png,a,fine"
    assert len(opened(write_table(tmp_path, lines("image,label,note", *rows)), tmp_path).names) == 6


def test_decimal_numbers_are_ordered_as_numbers(tmp_path):
    """As a table has them once a cell of the column was empty."""
    labels = ["10.0", "2.0", "1.0"] * 4
    text = lines("image,label", *(f"images/{i}.png,{label}" for i, label in enumerate(labels)))
    assert opened(write_table(tmp_path, text, 12), tmp_path).classes == ("1.0", "2.0", "10.0")


def test_a_missing_table_is_told(tmp_path):
    """The file's path is in the message."""
    with pytest.raises(DataError, match=r"found no file .*none\.csv"):
        opened({"name": "csv", "file": "none.csv"}, tmp_path)


def test_a_table_in_another_encoding_is_told(tmp_path):
    """It is not guessed."""
    (tmp_path / "t.csv").write_bytes("image,label\na.png,Köln\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        opened({"name": "csv", "file": "t.csv"}, tmp_path)


# --- columns

TRUTH = [("train", "p0"), ("train", "p0"), ("train", "p1"), ("test", "p2"), ("test", "p2"), ("test", "p3")]


def table(*header, separator=","):
    """A table of six images with the classes a and b, three of them for the test, in four groups."""
    rows = [(f"images/{i}.png", "ab"[i % 2], *TRUTH[i]) for i in range(6)]
    return lines(*(separator.join(row) for row in (header, *rows)))


def message(spec, folder):
    with pytest.raises(DataError) as error:
        opened(spec, folder)
    return str(error.value)


@pytest.mark.parametrize(
    "header",
    [
        ("image", "label", "split", "group"),
        ("Image", "Label", "Split", "Group"),
        ("IMAGE", "LABEL", "SPLIT", "GROUP"),
        (" image", "label ", " split ", "\tgroup"),
        ("\ufeffimage", "label", "split", "group"),
        ("ｉｍａｇｅ", "label", "split", "group\u00a0"),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_case_blanks_and_separators_do_not_matter(tmp_path, header, separator):
    """The columns are those that they are called, whatever stands between them."""
    spec = write_table(tmp_path, table(*(name.replace("\t", "" if separator == "\t" else "\t") for name in header), separator=separator))
    dataset = opened(spec, tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.split_N.tolist() == [0, 0, 0, 2, 2, 2]
    assert np.bincount(dataset.group_N).tolist() == [2, 1, 2, 1]
    source = found(spec, tmp_path)
    assert source.split_origin == f"column {header[2].strip()!r}; groups by column {header[3].strip()!r}"
    assert source.remarks == ()


@pytest.mark.parametrize(
    "name",
    ["splits", "split_name", "Split Name", "spilt", "data_split", "train_test_split", "Subset", "partition", "set", "fold", "Usage", "v2"],
)
def test_a_column_nearly_called_split_must_be_said(tmp_path, name):
    """By its name or by its values it tells the splits apart: it is refused until the study says whether it does."""
    spec = write_table(tmp_path, table("image", "label", name, "group"))
    assert f"but {name!r}; expected to be told: write split: {name} under data if that is meant, or split: none if not" in message(
        spec, tmp_path
    )
    assert opened({**spec, "split": name}, tmp_path).split_N.tolist() == [0, 0, 0, 2, 2, 2]
    assert found({**spec, "split": "none"}, tmp_path).split_origin == "drawn: 20 % of the images; groups by column 'group'"


@pytest.mark.parametrize(
    "name", ["groups", "group_id", "Groop", "patient", "Patient ID", "patient_id", "subject", "case_id", "lesion_id", "PatientNo"]
)
def test_a_column_nearly_called_group_must_be_said(tmp_path, name):
    """A patient in training and test is a leak."""
    spec = write_table(tmp_path, table("image", "label", "split", name))
    assert f"has no column 'group', which keeps the images of one patient, place or scene in one split, but {name!r}" in message(
        spec, tmp_path
    )
    assert len(set(opened({**spec, "group": name}, tmp_path).group_N.tolist())) == 4
    assert len(set(opened({**spec, "group": "none"}, tmp_path).group_N.tolist())) == 6


@pytest.mark.parametrize("name", ["camera", "site", "Video", "scene_id"])
def test_a_column_that_may_be_a_group_is_told(tmp_path, name):
    """It may also be anything else."""
    spec = write_table(tmp_path, table("image", "label", "split", name))
    assert found(spec, tmp_path).remarks == (f"no column 'group' names a group; {name!r} may: write group: {name} if so, or group: none",)
    assert found({**spec, "group": "none"}, tmp_path).remarks == ()


@pytest.mark.parametrize(
    ("value", "is_told"), [("sea-{}", True), ("{}", False), ("one", False), ("sea-{0}-{1}", False)], ids=["few", "number", "one", "own"]
)
def test_a_column_whose_values_few_images_share_is_told(tmp_path, value, is_told):
    """Whatever it is called: eight beaches with three images each may be what must not straddle splits; numbers and one value may not."""
    text = lines("image,label,strand", *(f"images/{i}.png,{'ab'[i % 2]},{value.format(i // 3, i)}" for i in range(24)))
    remarks = found(write_table(tmp_path, text, 24), tmp_path).remarks
    assert any("the column 'strand' is that of a few images, which a drawn split divides" in remark for remark in remarks) == is_told
    assert not found({**write_table(tmp_path, text, 24), "group": "none"}, tmp_path).remarks


def test_paths_that_name_splits_are_told(tmp_path):
    """A table without a column for the splits draws the test from all of its images, wherever they lie."""
    spec = write_table(tmp_path, lines("image,label", *(f"{('train', 'test')[i > 3]}/{i}.png,{'ab'[i % 2]}" for i in range(6))))
    (remark,) = found(spec, tmp_path).remarks
    assert remark == "no column tells the splits apart, though paths begin with 'test', 'train'"
    assert found({**spec, "split": "none"}, tmp_path).remarks == ()


def test_folds_are_told_and_other_columns_are_not(tmp_path):
    """Numbers of folds are no splits to us; a note, or a patient who has one image alone, is not worth a word."""
    rows = [f"images/{i}.png,{'ab'[i % 2]},{i % 3},p{i},x" for i in range(6)]
    spec = write_table(tmp_path, lines("image,label,fold,patient,note", *rows))
    assert found(spec, tmp_path).remarks == (
        "no column 'split' tells the splits apart; 'fold' may: write split: fold if so, or split: none",
    )


@pytest.mark.parametrize(
    ("header", "extra", "words"),
    [
        (("image", "label", "split", "Split"), {}, "has 2 columns called 'split': 'split', 'Split'; expected one"),
        (("image", "label", "label", "x"), {}, "has 2 columns called 'label': 'label', 'label'; expected one"),
        (("image", "image ", "label", "x"), {}, "has 2 columns called 'image'"),
        (("image", "label", "group", "group"), {}, "has 2 columns called 'group'"),
        (("image", "label", "my", "my"), {"split": "my"}, "has 2 columns called 'my'"),
        (("filename", "label", "x", "y"), {}, "Did you mean 'filename'? Then write image: filename under data"),
        (("path", "label", "x", "y"), {}, "Then write image: path under data"),
        (("image", "class", "x", "z"), {}, "Did you mean 'class'? Then write label: class under data"),
        (("image", "target", "x", "z"), {}, "Then write label: target under data"),
        (("images/9.png", "a", "train", "p"), {}, "The first line looks like an image; expected the names of the columns there"),
    ],
)
def test_doubled_and_misnamed_columns_are_refused(tmp_path, header, extra, words):
    """Neither the first nor the nearest is taken."""
    assert words in message({**write_table(tmp_path, table(*header)), **extra}, tmp_path)


def test_a_column_may_be_chosen_by_its_very_case(tmp_path):
    """Where the study names one of two that differ in case, that one is meant."""
    spec = write_table(tmp_path, lines("image,label,Label", *(f"images/{i}.png,x,{'ab'[i % 2]}" for i in range(6))))
    assert opened({**spec, "label": "Label"}, tmp_path).classes == ("a", "b")


# --- the file


@pytest.mark.parametrize(
    ("header", "row", "end"),
    [
        ("image,label,\n", "{},{},\n", ""),
        ("image,label\n", "{},{},\n", ""),
        ("\nimage,label\n", "{},{}\n\n", "\n,\n\n"),
        ('"image", "label"\n', '"{}", "{}"\n', ""),
        (",image,label\n", "7,{},{}\n", ""),
        ("image,label\r\n", "{},{}\r\n", ""),
        ("image,label\r", "{},{}\r", ""),
        ("sep=;\nimage;label\n", "{};{}\n", ""),
        ("image;label;size\n", "{};{};0,5\n", ""),
        ("image,label,note\n", '{},{},"big" dog\n', ""),
        ("image,label,note\n", "{},{}\n", ""),
    ],
)
def test_tables_are_written_in_many_ways(tmp_path, header, row, end):
    """Separators at the ends of lines, empty lines, quotes, a column of numbers without a name, and a line for Excel."""
    rows = [row.format(f"images/{i}.png", "ab"[i % 2]) for i in range(6)]
    spec = write_table(tmp_path, "")
    (tmp_path / "t" / "labels.csv").write_bytes("".join((header, *rows, end)).encode())
    assert opened(spec, tmp_path).classes == ("a", "b")


def test_utf_16_with_its_mark_is_read(tmp_path):
    """Excel calls it Unicode text."""
    spec = write_table(tmp_path, "")
    text = lines("image\tlabel", *(f"images/{i}.png\t{'äö'[i % 2]}" for i in range(6)))
    (tmp_path / "t" / "labels.csv").write_bytes(text.encode("utf-16"))
    assert opened(spec, tmp_path).classes == ("ä", "ö")
    (tmp_path / "t" / "labels.csv").write_bytes(text.encode("utf-16-le"))
    assert "holds bytes that are 0; save it in UTF-8" in message(spec, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04", "is a workbook or an archive; expected a CSV file: save the sheet as CSV in UTF-8"),
        (b"image,label,split\nimages/0.png,a\n", "has no split in line 2"),
        (b"image,label\nimages/0.png,a,b\n", "cannot be read as CSV: line 2 has 3 cells; expected 2"),
        (b'image,label,note\nimages/0.png,a,"big\nimages/1.png,b,"small" dog\n', "cannot be read as CSV: ',' expected after '\"'"),
        (b'image,label\nimages/0.png,"a\n', "cannot be read as CSV: unexpected end of data"),
        (b"image,label\n\nimages/0.png,\n", "has no label in line 3"),
        (b'{"images": "' + b"x" * 140_000 + b'"}', "cannot be read as CSV: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    """Lines are counted as an editor counts them."""
    spec = write_table(tmp_path, "")
    (tmp_path / "t" / "labels.csv").write_bytes(content)
    assert words in message(spec, tmp_path)


def test_a_folder_is_no_table(tmp_path):
    """The message says how folders are read."""
    write_table(tmp_path, "")
    assert "is a folder; expected a CSV file: class folders are read by data: {name: folder, root: t}" in message(
        {"name": "csv", "file": "t"}, tmp_path
    )


# --- cells


def labelled(*labels, column="label"):
    """Six images with these labels in turn; with `column` they are the values of another column."""
    if column == "label":
        return lines("image,label", *(f'images/{i}.png,"{labels[i % len(labels)]}"' for i in range(6)))
    return lines(f"image,label,{column}", *(f'images/{i}.png,{"ab"[i % 2]},"{labels[i % len(labels)]}"' for i in range(6)))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("0", "1 ", "0 ", "1"), ("0", "1")),
        (("cat", "\u00a0dog", "cat\u3000"), ("cat", "dog")),
        (("caf\u00e9", "cafe\u0301", "b"), ("b", "caf\u00e9")),
        (("0.0", "1.0"), ("0.0", "1.0")),
        (("00", "01"), ("00", "01")),
        (("-1", "1"), ("-1", "1")),
        (("A+", "A-"), ("A+", "A-")),
        (("1 2", "12"), ("1 2", "12")),
        (("100", "1e2"), ("100", "1e2")),
        (("Masse", "Maße"), ("Masse", "Maße")),
        (("none", "some"), ("none", "some")),
        (("C", "C++", "C#"), ("C", "C#", "C++")),
    ],
)
def test_labels_are_stripped_and_composed_alone(tmp_path, labels, classes):
    """What is clearly the same is one class, and what is not stays apart."""
    assert opened(write_table(tmp_path, labelled(*labels)), tmp_path).classes == classes


SPELLINGS = [
    ("0", "0.0"), ("0", "00"), ("1", "01"), ("1", "+1"), ("1", "1,0"),
    ("0.5", "0,5"), ("0", "-0"), ("0.5", ".50"),
    ("Cat", "cat"), ("True", "TRUE"), ("hot dog", "hot  dog"), ("hot dog", "hotdog"), ("hot dog", "hot_dog"), ("hot dog", "hot\u00a0dog"),
    ("cat", "cat\u200b"), ("cat", "\ufeffcat"), ("cat", "ｃａｔ"), ("1", "１"), ("Straße", "straße"), ("file", "ﬁle"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
def test_a_label_in_two_spellings_is_refused(tmp_path, first, second):
    """Both spellings are named, each with its line."""
    told = message(write_table(tmp_path, labelled(first, "x", second)), tmp_path)
    assert "writes one label in two ways: " in told
    assert f"{clean(first)!r} (line 2) and {clean(second)!r} (line 4) differ only in" in told


@pytest.mark.parametrize("missing", ["nan", "NaN", "null", "NULL", "None", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT", " nan ", "\u200b"])
@pytest.mark.parametrize("column", ["label", "group"])
def test_a_missing_value_is_no_name(tmp_path, missing, column):
    """Its lines are named."""
    told = message(write_table(tmp_path, labelled(missing, "x", "y", column=column)), tmp_path)
    assert f"has the {column} {missing.strip()!r} in line 2, line 5, which is how tools write that there is none" in told


@pytest.mark.parametrize(("first", "second"), [("p0", "P0"), ("1", "01"), ("1", "1.0"), ("p 0", "p0"), ("p", "ｐ")])
def test_a_group_in_two_spellings_is_refused(tmp_path, first, second):
    """It would divide a patient."""
    assert "writes one group in two ways" in message(write_table(tmp_path, labelled(first, "x", second, column="group")), tmp_path)


def test_a_group_with_a_blank_is_the_same_group(tmp_path):
    """And other groups may be called alike but for an underscore."""
    dataset = opened(write_table(tmp_path, labelled("p0", "a_bc", "p0 ", "ab_c", column="group")), tmp_path)
    assert np.bincount(dataset.group_N).tolist() == [2, 1, 3]


def test_groups_too_large_for_a_test_are_told(tmp_path):
    """No group can be taken without taking most of the images."""
    told = message(write_table(tmp_path, labelled("p", "q", column="group")), tmp_path)
    assert told.startswith("the test split has no images: 20 % of 6 images, groups and equal images kept together; expected")


@pytest.mark.parametrize("unknown", ["unknown", "-", "n.a.", "Missing"])
def test_a_group_that_is_not_known_is_none(tmp_path, unknown):
    """All images without a known group would be those of one."""
    told = message(write_table(tmp_path, labelled("p0", unknown, "p1", column="group")), tmp_path)
    assert f"has the group {unknown!r} by column 'group' for the image" in told
    assert "images without a known group need one each" in told


def test_one_group_for_all_is_refused(tmp_path):
    """It cannot be divided."""
    assert "has only the group 'p' by column 'group'; expected several" in message(
        write_table(tmp_path, labelled("p", column="group")), tmp_path
    )


@pytest.mark.parametrize("values", [("Train", "TEST "), ("training", " Testing"), ("trainset", "eval"), ("TRAIN", "Evaluation")])
def test_split_values_have_many_names(tmp_path, values):
    """As folders do."""
    dataset = opened(write_table(tmp_path, labelled(values[0], values[0], values[1], column="split")), tmp_path)
    assert dataset.split_N.tolist() == [0, 0, 2, 0, 0, 2]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("0", "0", "1"), "line 2: found the split '0'; expected one of train, val, validation, test."),
        (("train", "train", "tset"), "line 4: found the split 'tset'; expected one of train, val, validation, test. Did you mean 'test'?"),
        (("train", "train", ""), "has no split in line 4"),
        (("train", "train", "dev", "val"), "has 'dev', 'val', names of one split"),
        (("train", "train", "eval", "test"), "has 'eval', 'test', names of one split"),
        (("test", "test"), "has no training images, only test images"),
    ],
)
def test_split_values_that_are_none_are_refused(tmp_path, values, words):
    """The line is named, and nothing is guessed."""
    assert words in message(write_table(tmp_path, labelled(*values, column="split")), tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("is_test", "01"), ("is_train", ("False", "True")), ("isTest", "01"), ("is_valid", ("no", "yes")), ("is_training_image", "01"),
        ("train_flag", "tf"), ("test_set", ("0.0", "1.0")), ("Train", "01"), ("test", "10"), ("evaluation_partition", "012"),
    ],
)  # fmt: skip
def test_flags_that_tell_splits_apart_are_refused(tmp_path, column, values):
    """CUB's and CelebA's way: numbers that nobody can read as words; `split: none` goes without."""
    spec = write_table(tmp_path, labelled(*values, column=column))
    assert f"{column!r} looks as if it told the splits apart by numbers" in message(spec, tmp_path)
    assert found({**spec, "split": "none"}, tmp_path).split_origin.startswith("drawn")


@pytest.mark.parametrize("column", ["cow_id", "mouse_id", "donor", "acquisition_id", "StudyInstanceUID", "donorId"])
def test_numbers_of_things_that_have_several_images_are_told(tmp_path, column):
    """They may be groups; `group: none` says that they are not."""
    spec = write_table(tmp_path, labelled("s0", "s1", "s2", "s3", column=column))
    assert any(f"{column!r} may" in remark for remark in found(spec, tmp_path).remarks)
    assert found({**spec, "group": "none"}, tmp_path).remarks == ()


@pytest.mark.parametrize("column", ["humid", "grid", "valid_until", "class_id", "age", "test_result"])
def test_words_that_only_end_alike_are_nothing(tmp_path, column):
    """Whatever else a table says of its images."""
    assert found(write_table(tmp_path, labelled("3", "4", "5", column=column)), tmp_path).remarks == ()


# --- paths


@pytest.mark.parametrize(
    "written", ["./images/1.png", "images//1.png", "images\\1.png", " images/1.png", "t/../images/1.png", "{}/images/1.png"]
)
def test_an_image_under_two_names_is_refused(tmp_path, written):
    """However its path is written."""
    text = lines("image,label", *(f"images/{i}.png,{'ab'[i % 2]}" for i in range(4)), f'"{written.format(tmp_path / "t")}",a')
    spec = write_table(tmp_path, text)
    (tmp_path / "t" / "t").mkdir()
    told = message(spec, tmp_path)
    assert "in lines 3, 6; expected every image once" in told or "has images under two names each" in told


@pytest.mark.parametrize("is_folder", [True, False])
def test_links_are_followed_before_images_are_compared(tmp_path, is_folder):
    """A link is another name of the same image; a copy under one inode, as tools that save space make, is told elsewhere."""
    name = "more/1.png" if is_folder else "images/l.png"
    spec = write_table(tmp_path, lines("image,label", *(f"images/{i}.png,{'ab'[i % 2]}" for i in range(4)), f"{name},a"))
    if is_folder:
        os.symlink(tmp_path / "t" / "images", tmp_path / "t" / "more")
    else:
        os.symlink(tmp_path / "t" / "images" / "1.png", tmp_path / "t" / "images" / "l.png")
    assert f"'images/1.png' and '{name}'" in message(spec, tmp_path)
    if not is_folder:
        (tmp_path / "t" / name).unlink()
        os.link(tmp_path / "t" / "images" / "1.png", tmp_path / "t" / name)
        assert len(opened(spec, tmp_path).labels_N) == 5


@pytest.mark.parametrize("written", ["images\\{}.png", ".\\images\\{}.png", '" images/{}.png "'])
def test_paths_of_other_systems_are_read(tmp_path, written):
    """Windows' strokes and blanks around a path are no part of it, unless the file is called so."""
    spec = write_table(tmp_path, lines("image,label", *(f"{written.format(i)},{'ab'[i % 2]}" for i in range(6))))
    assert len(opened(spec, tmp_path).labels_N) == 6


def test_rows_of_what_systems_leave_are_passed_over(tmp_path):
    """A table made by walking through folders lists them, too."""
    rows = [f"images/{i}.png,{'ab'[i % 2]}" for i in range(6)]
    spec = write_table(tmp_path, lines("image,label", *rows, "__MACOSX/images/._0.png,a", "images/@eaDir/0.png,b"))
    assert len(opened(spec, tmp_path).labels_N) == 6
    assert found(spec, tmp_path).remarks == (
        "passed over 2 hidden or system files and folders: '__MACOSX/images/._0.png', 'images/@eaDir/0.png'",
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("cat", "dog", "cat|dog"), "the label 'cat|dog' is a class beside the classes named in it: an image has one label here"),
        (("cat", "dog", "cat; dog", "dog;cat"), "the labels 'cat; dog', 'dog;cat' are classes beside the classes named in them: "),
        (("a", "b", "c", '"a, b,c"'), "the label 'a, b,c' is a class beside the classes named in it"),
    ],
)
def test_several_labels_in_a_cell_are_told(tmp_path, labels, words):
    """They make classes of their own, which nobody may have meant."""
    text = lines("image,label", *(f"images/{i}.png,{labels[i % len(labels)]}" for i in range(12)))
    (remark,) = found(write_table(tmp_path, text, 12), tmp_path).remarks
    assert words in remark


@pytest.mark.parametrize(
    "labels", [("cat", "dog", "cat|bird"), ("salt", "pepper, black", "pepper"), ("a|b", "c|d"), ("cat", "dog", "cat|")]
)
def test_a_sign_in_a_label_is_a_letter(tmp_path, labels):
    """Where its parts are no labels."""
    text = lines("image;label", *(f"images/{i}.png;{labels[i % len(labels)]}" for i in range(12)))
    assert found(write_table(tmp_path, text, 12), tmp_path).remarks == ()
