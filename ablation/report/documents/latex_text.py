"""Text, command names and numbers in LaTeX."""

import re
import unicodedata
from collections.abc import Iterable

from ablation.formatting import DASH

PREFIX = "Ablate"  # of all commands
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
    "→": r"\ensuremath{\to}",
    **{letter: f"{{{letter}}}" for letter in "[]*"},
}
LAST_KNOWN = "\u017f"  # of the Latin letters that every LaTeX prints; for those after it see LETTER
# a letter, or its code point where this LaTeX cannot print it: pdflatex knows the letters of the encodings that the paper loads
LETTER = (
    rf"\providecommand{{\{PREFIX}Letter}}[2]{{\ifdefined\Umathchar #1\else"
    r"\ifcsname u8:\detokenize{#1}\endcsname #1\else U+#2\fi\fi}"
)
SIGNS = {"+": "$+$", "-": "$-$", DASH: "--"}
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
ORDINALS = ("", "", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")
MOST_UNBROKEN = 16  # letters of a word after which a line may break


def comment(text: object) -> str:
    """The text on one line, for a comment."""
    return " ".join(_printable(str(text)).split())


def escaped(text: object) -> str:
    """The text on one line, escaped for LaTeX; long names may break after `/` and `_`, and anywhere if they have neither."""
    short = re.sub(rf"([^\W_]{{{MOST_UNBROKEN}}})(?=[^\W_])", "\\1\0", comment(text))
    line = "".join(map(_letter, short)).replace("\0", r"\allowbreak{}")
    return re.sub(r"-(?=-)", "-{}", line)  # two hyphens would become a dash


def _letter(letter: str) -> str:
    if letter in SPECIAL or letter <= LAST_KNOWN:
        return SPECIAL.get(letter, letter)
    return rf"\{PREFIX}Letter{{{letter}}}{{{ord(letter):04X}}}"


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
