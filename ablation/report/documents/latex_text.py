"""Text, command names and numbers in LaTeX."""

import re
import unicodedata
from collections.abc import Iterable

from ablation.formatting import DASH

# `[` and `*` would be arguments of the `\\` before them; `"` is a command where babel says so
SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#{}"},
    "_": r"\_\allowbreak{}",
    "/": r"/\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\symbol{34}",
    **{letter: f"{{{letter}}}" for letter in "[]*"},
}
SIGNS = {"+": "$+$", "-": "$-$", DASH: "--"}
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
ORDINALS = ("", "", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")


def comment(text: object) -> str:
    """The text on one line, for a comment."""
    return " ".join(_printable(str(text)).split())


def escaped(text: object) -> str:
    """The text on one line, escaped for LaTeX; long names may break after `/` and `_`."""
    line = "".join(SPECIAL.get(letter, letter) for letter in comment(text))
    return re.sub(r"-(?=-)", "-{}", line)  # two hyphens would become a dash


def _printable(text: str) -> str:
    """The text without control characters, which TeX refuses; white space stays."""
    return "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter) != "Cc")


def camel(text: str) -> str:
    """The text as part of a command's name, in ASCII letters only: `epsilon/0.05` is EpsilonZeroPointZeroFive."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    spelt = re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", re.sub(r"(?<=\d)\.(?=\d)", " Point ", plain))
    return "".join(word[0].upper() + word[1:] for word in re.findall("[A-Za-z]+", spelt))


def unique(names: Iterable[str]) -> list[str]:
    """The names, with Second, Third and so on after repeated ones."""
    taken: dict[str, None] = {}
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = name + (ORDINALS[count] if count < len(ORDINALS) else f"Number{camel(str(count))}")
        taken[candidate] = None
    return list(taken)


def number(text: str) -> str:
    """A number in a table, with signs as in a formula."""
    return "".join(SIGNS.get(letter, letter) for letter in text)


def signed(text: str) -> str:
    """A number whose sign is right both in text and in a formula."""
    return re.sub("^[-+<]", lambda sign: f"\\ensuremath{{{sign[0]}}}", text)
