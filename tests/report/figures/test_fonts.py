"""Letters that matplotlib's own font lacks are drawn with a font of the system, or the class is called by its number."""

import shutil
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from ablation.report.figures import fonts, style
from ablation.report.figures.page import arms_shown
from tests.report.figures.test_families import pages_of

OWN = Path(mpl.get_data_path()) / "fonts" / "ttf"


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A system with the fonts that are copied into a folder, and nothing looked up yet."""
    for function in (fonts.fallbacks, fonts._letters_of, fonts._tell):
        function.cache_clear()
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: [str(path) for path in tmp_path.iterdir()])
    yield tmp_path
    for function in (fonts.fallbacks, fonts._letters_of, fonts._tell):
        function.cache_clear()


@pytest.mark.parametrize("names", [["cat", "dog"], ["chat à l'œuf", "кот", "γάτα", "قط"], [], ["$a_b$", "a\nb"]])
def test_what_the_own_font_has_stays(system, names, capsys):
    """Nothing is looked for and nothing is said."""
    assert fonts.drawable(names) == names
    assert fonts.wide_families() == ()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "package"), [("猫", "fonts-noto-cjk"), ("ねこ", "fonts-noto-cjk"), ("고양이", "fonts-noto-cjk"), ("แมว", "fonts-noto;")]
)
def test_what_no_font_has_is_a_number(system, name, package, capsys):
    """Said once, with the package that would show the names."""
    for _ in range(2):
        assert fonts.drawable(["dog", name, f"dog {name}"]) == ["dog", "class 1", "class 2"]
    told = capsys.readouterr().err
    assert told.count("note: no font here has the letters") == 1
    assert package.rstrip(";") in told


def test_a_font_of_the_system_is_used(system, capsys):
    """One that was installed since matplotlib last looked is found by the name of its file; a broken one is passed over."""
    shutil.copy(OWN / "STIXSizOneSymReg.ttf", system / "NotoSans-Regular.ttf")
    (system / "NotoSansCJK-Broken.ttf").write_bytes(b"no font")
    letter = next(
        chr(c)
        for c in sorted(fonts.font_manager.get_font(OWN / "STIXSizOneSymReg.ttf").get_charmap())
        if c not in fonts._letters_of("sans-serif")
    )
    assert fonts.drawable([letter, "dog"]) == [letter, "dog"]
    assert fonts.wide_families() == ("STIXSizeOneSym",)
    with style.styled():
        assert mpl.rcParams["font.family"] == ["sans-serif", "STIXSizeOneSym"]
    assert capsys.readouterr().err == ""


def test_nobody_need_listen(system, monkeypatch):
    """A stderr that is gone stops no picture."""
    monkeypatch.setattr("sys.stderr", None)
    assert fonts.drawable(["猫"]) == ["class 0"]


def test_an_arm_without_a_font_has_a_number(system, capsys):
    """As a class has; arms whose letters can be drawn keep their names."""
    arms = pd.DataFrame({"arm": ["baseline", "猫"], "n": 1, "same_as": "", "kind": "ladder", "baseline": "baseline"})
    assert dict(arms_shown(arms).names) == {"baseline": "baseline", "猫": "arm 1"}
    assert "note: no font here has the letters" in capsys.readouterr().err


def test_words_name_the_classes_that_no_font_has(system):
    """Only what is drawn has a number in the name's place: words need no font."""
    pages, _ = pages_of(classes=("plane", "猫", "ねこ", "고양이"), images=8)
    told = {name: shown.alt for name, shown in pages.items() if any(letter in shown.alt for letter in "猫ね고")}
    assert {"roc", "precision-recall", "recall-cb", "slopes-1", "confusion/cb"} <= set(told)
    assert not any("class 1" in shown.alt or "class 3" in shown.alt for shown in pages.values())
    for shown in pages.values():
        figure = shown.draw()
        words = [text.get_text() for text in figure.findobj(mpl.text.Text)]
        words += [drawn.get_label() for drawn in figure.findobj(mpl.collections.PathCollection)]
        assert not any(letter in word for word in words for letter in "猫ね고"), shown.name
    drawn = [label.get_text() for label in pages["recall-cb"].draw().axes[0].get_yticklabels()]
    assert drawn == ["plane", "class 1", "class 2", "class 3"]
    bars = pages["classes-1"].draw().axes[-1]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["plane", "class 1", "class 2", "class 3"]
    assert len({bar.get_facecolor() for bar in bars.patches}) == 2  # the groups are those of the classes
