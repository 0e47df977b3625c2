"""Fonts for letters that matplotlib's own font lacks, such as Chinese ones: those of the system, or else the classes' numbers."""

import contextlib
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from matplotlib import font_manager

# Parts of the names of fonts that have many scripts, the first one found being the first one asked for a letter.
WIDE = (
    *("notosanscjk", "sourcehansans", "wqymicrohei", "wqyzenhei", "wenquanyi", "ipaexg", "ipag", "takaogothic", "droidsansfallback"),
    *(
        "pingfang",
        "hiragino",
        "heiti",
        "applegothic",
        "arialunicode",
        "msyh",
        "microsoftyahei",
        "simhei",
        "yugoth",
        "malgun",
        "nanumgothic",
    ),
    *("notosans", "freesans", "lohit", "mangal", "nirmala", "kohinoor", "unifont"),
)
EAST_ASIAN = ("\u2e80", "\ud7ff")  # the first and the last letter of the scripts that fonts-noto-cjk is for
MOST_SHOWN = 10


@cache
def fallbacks() -> tuple[str, ...]:
    """The families of the system's fonts with many scripts, those installed since matplotlib last looked included."""
    by_part: dict[str, list[str]] = {}
    for place in sorted(font_manager.findSystemFonts()):
        plain = Path(place).stem.lower().replace("-", "").replace("_", "").replace(" ", "")
        part = next((part for part in WIDE if part in plain), None)
        if part is not None:
            with contextlib.suppress(OSError, RuntimeError):  # a font that cannot be read
                font_manager.fontManager.addfont(place)
                by_part.setdefault(part, []).append(font_manager.get_font(place).family_name)
    return tuple(dict.fromkeys(family for part in WIDE for family in by_part.get(part, ())))


def wide_families() -> tuple[str, ...]:
    """The families beside matplotlib's own one to draw with: none as long as no class needed another."""
    return fallbacks() if fallbacks.cache_info().currsize else ()


def drawable(names: Sequence[str], what: str = "class") -> list[str]:
    """The names of classes, or of `what`; `class 3` for one with a letter that no font has, which is said once."""
    if not _lacking(names, ()):
        return list(names)
    lacking = _lacking(names, fallbacks())
    if lacking:
        _tell("".join(sorted(lacking)))
    return [f"{what} {number}" if lacking & set(name) else name for number, name in enumerate(names)]


def drawn_names(classes: Sequence[str]) -> dict[str, str]:
    """By the name of each class, the name that is drawn; what is told in words has its own."""
    return dict(zip(classes, drawable(classes), strict=True))


def _lacking(texts: Sequence[str], others: tuple[str, ...]) -> set[str]:
    """The letters that neither matplotlib's own font nor the other families have."""
    letters = {letter for text in texts for letter in text if letter > "\x7f" and letter.isprintable()}
    return {letter for letter in letters if not any(ord(letter) in _letters_of(family) for family in ("sans-serif", *others))}


@cache
def _letters_of(family: str) -> frozenset[int]:
    """The letters that the family's font has, by number."""
    return frozenset(font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family]))).get_charmap())


@cache
def _tell(letters: str) -> None:
    """Say once, if anybody listens, which letters of which scripts are lacking and what has them."""
    package = "fonts-noto-cjk" if any(EAST_ASIAN[0] <= letter <= EAST_ASIAN[1] for letter in letters) else "fonts-noto"
    shown = letters if len(letters) <= MOST_SHOWN else f"{letters[:MOST_SHOWN]}..."
    scripts = ", ".join(sorted({unicodedata.name(letter, "unnamed").split()[0].capitalize() for letter in letters}))
    words = f"no font here has the letters {shown} ({scripts}) of some names, so figures have numbers in their place"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be gone
        sys.stderr.write(f"note: {words}; a font such as that of the package {package} shows the names\n")
