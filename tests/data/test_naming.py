"""Names: what is a split, what is one name in two spellings, what is none."""

import pytest

from ablation.data.naming import (
    alike,
    check_present,
    difference,
    is_passed_over,
    missing_names,
    name_key,
    split_of,
    split_word,
    unknown_groups,
)
from ablation.errors import DataError


@pytest.mark.parametrize(
    "name", ["bus", "trainer", "trains", "tests", "testament", "valley", "devil", "evaluate me", "seg_train", "train2", "", "set"]
)
def test_other_names_are_no_splits(name):
    """A word that begins like one is another word."""
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("name", "word"), [("Dev-Set", "dev"), ("valid", "val"), ("ＴＥＳＴ", "test"), ("eval", "eval"), ("train ", "train")]
)
def test_synonyms_have_one_word(name, word):
    """Where two words for one split meet, they may be two data sets."""
    assert split_word(name)[0] == word


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "b"),
        ("1", "2"),
        ("1", "-1"),
        ("0.1", "0.01"),
        ("1 2", "12"),
        ("1_2", "12"),
        ("A+", "A-"),
        ("C", "C#"),
        ("T1", "T-1"),
        ("x1", "x01"),
        ("100", "1e2"),
        ("Masse", "Maße"),
    ],
)
def test_other_names_are_other_names(first, second):
    """What differs in more than its spelling stays apart."""
    assert alike([first, second]) == []


def test_long_numbers_are_compared_as_text():
    """No digit of them is rounded away."""
    first, second = "1" * 40, "1" * 39 + "2"
    assert name_key(first) != name_key(second)
    assert alike([first, second]) == []


@pytest.mark.parametrize("number", ["9" * 24, ".5", "5.", "0"])
def test_any_number_has_a_key(number):
    """However large it is."""
    assert name_key(number) == name_key(f"+{number}".replace("+.", "+0."))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("1", "1.0", "how a number is written"),
        ("A", "a", "case"),
        ("a", "a\u200b", "letters that cannot be seen"),
        ("a b", "a_b", "case, blanks"),
    ],
)
def test_the_difference_is_said(first, second, words):
    """In a word or two."""
    assert difference(first, second).startswith(words)


def test_underscores_separate_the_names_of_groups():
    """But not words of classes."""
    assert alike(["ab_c", "a_bc"]) == [("ab_c", "a_bc")]
    assert alike(["ab_c", "a_bc"], separators=False) == []


@pytest.mark.parametrize("name", ["none", "no", "Na", "Nan Hua", "nano", "0", "unknown"])
def test_real_names_are_not_missing(name):
    """Sodium, a place and the class of WM-811K without a defect."""
    assert missing_names([name]) == set()


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["NA", "ZA", "DE"], set()),
        (["NA"], {"NA"}),
        (["NA", "cat"], {"NA"}),
        (["NA", "ZA", "nan"], {"NA", "nan"}),
        (["N/A", "ZA"], {"N/A"}),
    ],
)
def test_na_among_codes_is_a_code(names, missing):
    """Namibia has images."""
    assert missing_names(names) == missing


def test_groups_have_more_words_for_none_and_the_same_codes():
    """Namibia is a place where images were taken."""
    assert unknown_groups(["p0", "Unknown", "-", "n.a.", "p1"]) == {"Unknown", "-", "n.a."}
    assert unknown_groups(["NA", "ZA", "DE"]) == set()
    assert unknown_groups(["NA", "p0"]) == {"NA"}


@pytest.mark.parametrize("name", ["#NAME?", "#NUM!", "#DIV/0!", "#REF!"])
def test_excels_errors_are_no_names(name):
    """A cell that began with an equals sign or a minus."""
    assert missing_names([name, "cat"]) == {name}


def test_missing_names_are_told_with_their_places():
    """All spellings, and all places up to a few."""
    with pytest.raises(DataError) as error:
        check_present("FILE", "label", ["nan", "a", "NA", "nan"], ["line 2", "line 3", "line 4", "line 5"])
    assert str(error.value).startswith("FILE has the label 'nan', 'NA' in line 2, line 4, line 5, which")


@pytest.mark.parametrize(
    "name",
    ["__MACOSX/x", "a/__macosx", "@eaDir", "Thumbs.db", "a/desktop.ini", ".DS_Store", "lost+found", "$RECYCLE.BIN", "a/._x.jpg"],
)
def test_what_systems_leave_is_passed_over(name):
    """In any case, at any depth."""
    assert is_passed_over(name)
    assert not is_passed_over(f"{name.strip('.').rpartition('/')[2].strip('._@$')}x")
