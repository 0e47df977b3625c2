"""Names as people write them: of splits, classes and groups; what is one name in two spellings, what is none, and what a system left."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType

from ablation.data.source import MAX_LISTED, TEST, TRAIN, VALIDATION, check_label_numbers, join_words
from ablation.errors import DataError

# Each word of a split, and the word whose synonym it is: `dev` and `val` both validate, but are two data sets where both occur.
SPLIT_WORDS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), ("train", TRAIN)),
        **dict.fromkeys(("val", "valid", "validate", "validation"), ("val", VALIDATION)),
        **dict.fromkeys(("dev", "development"), ("dev", VALIDATION)),
        **dict.fromkeys(("test", "testing"), ("test", TEST)),
        **dict.fromkeys(("eval", "evaluation"), ("eval", TEST)),
    }
)
PLAIN_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")  # what messages compare with
SUFFIX = re.compile(r"(data)?(sets?|split|images|imgs|data)")  # train_set, TestData, val-images
# pandas' list of what stands for no value, and the spellings of other tools; `none` is a class of real data sets (WM-811K).
MISSING = re.compile(r"#?N/A|#N/A N/A|#?NA|#(NULL|VALUE|REF|NUM|DIV/0)!|#NAME\?|-?(NaN|nan|NAN)|<(NA|na)>|NaT|None|NULL|Null|null|#?n/a")
SYSTEM = (
    r"__macosx|@eadir|@tmp|@recycle|@__thumb|#recycle|\$recycle\.bin|lost\+found|system volume information|"
    r"(?:eh)?thumbs\.db|desktop\.ini|icon\r|__pycache__|\.ipynb_checkpoints|\._[^/]*"
)
LEFT_BY_A_SYSTEM = re.compile(rf"(?:^|/)(?:{SYSTEM})(?:/|$)", re.IGNORECASE)
PASSED_OVER = re.compile(rf"(?:^|/)(?:{SYSTEM}|\.(?!\.?(?:/|$))[^/]*)(?:/|$)", re.IGNORECASE)
# What people write beside it where a group is not known; as a class it is one.
UNKNOWN = re.compile(r"[-–—?.]+|unknown|unk|missing|none|n\.a\.?|not (available|known)", re.IGNORECASE)
NUMBER = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+|\d+,\d{1,2})")
MAX_DIGITS = 25  # of a number that is compared as one; Decimal rounds longer ones
MIN_LETTER_PAIRS = 5  # from so many single letters in both cases on, they are an alphabet and not a slip


def clean(text: str) -> str:
    """The name without blanks around it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", text.strip())


@lru_cache(maxsize=1024)
def split_word(name: str) -> tuple[str, int] | None:
    """The plain word and the split that a name means, in any case and with its usual suffixes; None if it names no split."""
    letters = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name)).casefold()
    for word, meaning in sorted(SPLIT_WORDS.items(), key=lambda item: -len(item[0])):
        if letters.startswith(word) and (letters == word or SUFFIX.fullmatch(letters[len(word) :])):
            return meaning
    return None


def split_of(name: str) -> int | None:
    """The split that a name means, or None."""
    meaning = split_word(name)
    return meaning[1] if meaning else None


def is_unseen(name: str) -> bool:
    """Whether nothing of a name can be seen."""
    return not _visible(name)


def missing_names(names: Iterable[str]) -> set[str]:
    """Those that are how a tool writes that there is none; among codes of two capitals, such as ZA and DE, NA is a code (Namibia)."""
    known = set(names)
    codes = {"NA"} if all(re.fullmatch("[A-Z]{2}", name) for name in known) and len(known) > 1 else set()
    return {name for name in known - codes if is_unseen(name) or MISSING.fullmatch(_visible(name))}


def unknown_groups(names: Iterable[str]) -> set[str]:
    """Those by which a table says that a group is not known."""
    known = set(names)
    return missing_names(known) | {name for name in known if UNKNOWN.fullmatch(_visible(name))}


def is_left_by_a_system(name: str) -> bool:
    """Whether a path has a folder or a file that an operating system or a viewer made, such as `__MACOSX` or `._cat.jpg`."""
    return LEFT_BY_A_SYSTEM.search(name) is not None


def is_passed_over(name: str) -> bool:
    """Whether a path below the source's root has a hidden part or one that a system left."""
    return PASSED_OVER.search(name) is not None


def passed_over_remark(names: Iterable[str]) -> tuple[str, ...]:
    """One sentence on what was passed over, or nothing."""
    known = sorted(names)
    return (f"passed over {len(known):,} hidden or system files and folders: {quoted(known)}",) if known else ()


def quoted(names: Iterable[str]) -> str:
    """The names in quotes on one line, at most a few."""
    known = list(names)
    return join_words(map(repr, known), len(known))


def check_present(where: str, what: str, names: Iterable[str], places: Iterable[str]) -> None:
    """Raise DataError if a name is how a tool writes a missing value; `places` are where each name is."""
    named = list(zip(names, places, strict=True))
    none = missing_names(name for name, _ in named)
    missing = [(name, place) for name, place in named if name in none]
    if missing:
        found = ", ".join(dict.fromkeys(repr(name) for name, _ in missing))
        raise DataError(
            f"{where} has the {what} {found} in {join_words((place for _, place in missing), len(missing))}, which is how tools write "
            f"that there is none; expected a name for every image: fill it in, leave the image out, or call it otherwise, such as 'missing'"
        )


def check_alike(where: str, what: str, places: Mapping[str, str], *, separators: bool = True) -> None:
    """Raise DataError if two names are one name in two spellings; `places` are where each name occurs."""
    pairs = alike(places, separators=separators)
    if pairs:
        shown = "; ".join(
            f"{first!r} ({places[first]}) and {second!r} ({places[second]}) differ only in {difference(first, second)}"
            for first, second in pairs[:MAX_LISTED]
        )
        raise DataError(f"{where} writes one {what} in two ways: {shown}; expected one spelling of each")


def alike(names: Iterable[str], *, separators: bool = True) -> list[tuple[str, str]]:
    """Pairs of names that are one name in two spellings; the letters of an alphabet in both cases are not."""
    first_of_key: dict[str, str] = {}
    pairs = []
    for name in names:
        first = first_of_key.setdefault(name_key(name, separators=separators), name)
        if first != name:
            pairs.append((first, name))
    letters = [pair for pair in pairs if all(len(name) == 1 and name.isalpha() for name in pair)]
    return [pair for pair in pairs if pair not in letters] if len(letters) >= MIN_LETTER_PAIRS else pairs


def name_key(name: str, *, separators: bool = True) -> str:
    """What is equal for all spellings of one name: whatever its case, blanks, Unicode form and way of writing a number.

    With `separators`, blanks and underscores between words do not count either, nor hyphens between letters.
    """
    key = _visible(unicodedata.normalize("NFKC", name)).lower()
    key = re.sub(r"\s+", " ", key.strip())
    number = NUMBER.fullmatch(key.replace("\u2212", "-"))
    if number and len(key) <= MAX_DIGITS:
        sign, digits = number.groups()
        return f"number {Decimal(sign + digits.replace(',', '.')).normalize() + 0}"
    if not separators:
        return _without_inner_blanks(key)
    return re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", "", _without_inner_blanks(key.replace("_", " ")))


def _without_inner_blanks(key: str) -> str:
    """The key without blanks, but for those between digits: `1 2` is not `12`."""
    return re.sub(r"(?<!\d) | (?!\d)", "", key)


def _visible(text: str) -> str:
    """The text without blanks around it and without letters that cannot be seen, such as zero-width spaces."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf").strip()


def is_seen(first: str, second: str) -> bool:
    """Whether what two spellings of one name differ in can be seen: it is case, a blank, an underscore or a hyphen."""
    return difference(first, second).startswith("case")


def difference(first: str, second: str) -> str:
    """What two spellings of one name differ in, in a word or two."""
    if NUMBER.fullmatch(_visible(first)) and NUMBER.fullmatch(_visible(second)):
        return "how a number is written"
    for words, change in (
        ("case", str.lower),
        ("letters that cannot be seen", _visible),
        ("their Unicode form", lambda text: unicodedata.normalize("NFKC", text)),
    ):
        if change(first) == change(second):
            return words
    return "case, blanks, underscores or hyphens"


def check_numbers(place: str, labels: Sequence[int], num_class_names: int) -> None:
    """Raise DataError unless the training labels are all the numbers of the classes; it says so if they are counted from 1."""
    try:
        check_label_numbers(place, labels, num_class_names)
    except DataError as error:
        present = set(labels)
        if present and min(present) == 1 and max(present) == len(present):
            raise DataError(f"{error}. They look counted from 1; expected from 0: take 1 off each label") from None
        raise
