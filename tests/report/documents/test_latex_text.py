"""Words and names in LaTeX."""

import pytest

from ablation.report.documents import latex_text
from tests.report.documents.papers import NASTY


@pytest.mark.parametrize(
    ("text", "name"),
    [("cb", "Cb"), ("class_balanced-focal", "ClassBalancedFocal"), ("no-lag/epsilon/0.05", "NoLagEpsilonZeroPointZeroFive"),
     ("macro_f1", "MacroFOne"), ("LDAM-DRW", "LDAMDRW"), ("größe", "Groe"), ("1e-3", "OneEThree"), ("%", ""), ("層", "")],
)  # fmt: skip
def test_names_are_of_letters_alone(text, name):
    """Digits are spelt, and a point between digits is too, so that 0.5 and 05 differ."""
    assert latex_text.camel(text) == name


def test_names_that_collide_are_counted():
    """Second, Third, and beyond the words in digits."""
    assert latex_text.unique(["A", "B", "A", "A", "ASecond", "ASecond"]) == ["A", "B", "ASecond", "AThird", "ASecondSecond", "ASecondThird"]
    assert latex_text.unique(["A"] * 11)[-2:] == ["ATenth", "ANumberOneOne"]


def test_what_users_named_is_no_command():
    """Every special character is escaped, and text stays on one line; a letter that some LaTeX lacks stands with its code point."""
    text = latex_text.escaped(" ".join(NASTY))
    assert "\n" not in text
    assert "\x07" not in text
    rest = text
    letters = {r"\AblateLetter{層}{5C64}", r"\AblateLetter{ε}{03B5}"}
    assert all(letter in text for letter in letters)
    for escape in sorted({*latex_text.SPECIAL.values(), "-{}-", *letters}, key=len, reverse=True):
        rest = rest.replace(escape, "")
    assert not set(rest) & set('&%$#_{}~^\\[]*"<>|`\t')
    assert latex_text.escaped("größe 層") == r"größe \AblateLetter{層}{5C64}"


def test_long_words_may_break():
    """After 16 letters that no hyphen, space or underscore divides."""
    assert latex_text.escaped("a" * 16) == "a" * 16
    assert latex_text.escaped("a" * 33) == r"\allowbreak{}".join(["a" * 16, "a" * 16, "a"])
    assert latex_text.escaped("a_b") == r"a\_\allowbreak{}b"
