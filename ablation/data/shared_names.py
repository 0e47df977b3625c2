"""Names that tell which images belong together: `patient07_slice03.png` is of a patient who has other images too."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ablation.data.files import Entry, group_name
from ablation.data.source import printable
from ablation.errors import DataError

MANY, FEW_IMAGES, NEARLY_ALL = 8, 50, 0.9  # groups, images of each, and the share of images in groups: see `are_shared_by_few`
MOST_TAILS = 8  # ways in which names go on after what they share: _left and _right, say, but no random letters
SAMPLED = 64  # names that are looked at first: mostly one of them shows that there is nothing
DATE = re.compile(r"(?<!\d)(?:(?:19|20)\d\d([-_. ]?)[01]\d\1[0-3]\d|[0-3]\d([-_.])[01]\d\2(?:19|20)\d\d)(?!\d)")


@dataclass(frozen=True)
class Form:
    """A form of names: what some of them share, and the tail that each has of its own.

    `head` and `tail` are the generic pattern of a `group`, which is looked for in a path; `per_class` is how many groups a class has at
    least: with one for each, the name is the class.
    """

    stem: re.Pattern[str]
    head: str
    tail: str
    per_class: int = 2


def _with_numbers(count: int) -> Form:
    times = f"(?:[^/\\d]+\\d+){{{count}}}" if count > 1 else "[^/\\d]+\\d+"
    return Form(re.compile(rf"(.*\d)((?:\D+\d+){{{count}}})"), r"[^/]*\d", times)


# The coarsest first: where patients have several visits of several images, it is the patient that counts.
FORMS = (
    *(_with_numbers(count) for count in (3, 2, 1)),
    Form(re.compile(r"(.*\d)([\W_]*[^\W\d_]+)"), r"[^/]*\d", r"[^/\d]+"),
    Form(re.compile(r"(\D*[^\W\d_])([\W_]*\d+)"), r"[^/\d]*[^\W\d_]", r"[\W_]*\d+", MANY),
)


@dataclass(frozen=True)
class Shared:
    """What nearly all images share with a few others: two of these images, what they share, and the pattern of a `group` that finds it."""

    first: str
    second: str
    key: str
    pattern: str = ""


def group_remark(entries: Sequence[Entry], advice: Callable[[Shared], str], *, with_folders: bool) -> Iterator[str]:
    """A sentence on images that nearly all share a part of their names with a few others, where a split is drawn; or nothing.

    `advice` says what keeps them together. Folders count only where no other sentence is about them.
    """
    shared = (_by_folders(entries) if with_folders else None) or _by_names(entries)
    if shared:
        examples = " and ".join(repr(printable(name)) for name in (shared.first, shared.second))
        yield (
            f"nearly every image is called like a few others, as {examples}, which a drawn split divides: if these are of one patient "
            f"or scene, {advice(shared)}"
        )


def are_shared_by_few(values: Iterable[Hashable]) -> bool:
    """Whether there are many values, of which nearly each is that of several images and none of many."""
    counts = Counter(values)
    shared = [number for number in counts.values() if number > 1]
    return len(counts) >= MANY and max(counts.values()) <= FEW_IMAGES and sum(shared) >= NEARLY_ALL * sum(counts.values())


def _by_folders(entries: Sequence[Entry]) -> Shared | None:
    """By the folder that an image lies in, or by one above it."""
    names = [entry.name for entry in entries]
    folders = [os.path.dirname(name).split("/") for name in names]
    for depth in range(1, max(map(len, folders), default=0) + 1):
        keys = ["/".join(parts[:depth]) for parts in folders]
        if _are_groups(entries, names, keys, per_class=2):
            return _example(entries, keys)
    return None


def _by_names(entries: Sequence[Entry]) -> Shared | None:
    """By the beginning of the file's name, or of its whole path where names begin anew in each folder."""
    sampled = [_stem(entry.name) for entry in entries[:: max(1, len(entries) // SAMPLED)]]
    forms = [form for form in FORMS if all(map(form.stem.fullmatch, sampled))]
    paths = [os.path.splitext(entry.name)[0] for entry in entries] if forms else []
    stems = [path.rpartition("/")[2] for path in paths]
    for form in forms:
        matches = [match for match in map(form.stem.fullmatch, stems) if match]
        if len(matches) < len(stems) or _are_dates(matches):
            continue
        tails = [re.sub(r"\d+", "#", match[2]) for match in matches]
        if len(set(tails)) > MOST_TAILS:
            continue
        within = [path[: len(path) - len(match[2])] for path, match in zip(paths, matches, strict=True)]
        for names, keys, is_path in ((stems, [match[1] for match in matches], False), (paths, within, True)):
            pattern = _pattern(entries, keys, tails, form, is_path) if _are_groups(entries, names, keys, form.per_class, tails) else ""
            if pattern:
                return _example(entries, keys, pattern)
    return None


def _stem(name: str) -> str:
    return os.path.splitext(name.rpartition("/")[2])[0]


def _are_dates(matches: Sequence[re.Match[str]]) -> bool:
    """Whether what names share is mostly a day, as in IMG_20240101_120000."""
    sampled = matches[:: max(1, len(matches) // SAMPLED)]
    found = [DATE.search(match.string) for match in sampled]
    return 2 * sum(date is not None and match.end(1) > date.start() for match, date in zip(sampled, found, strict=True)) >= len(sampled)


def _are_groups(entries: Sequence[Entry], names: Sequence[str], keys: Sequence[str], per_class: int, tails: Sequence[str] = ()) -> bool:
    """Whether keys are shared by few images each, and are no classes.

    Names that are equal in two folders count once, for there are numbers that begin anew in each. So do 12_cat and 12_dog, whose tails
    are classes.
    """
    labels_of = defaultdict(set)
    for entry, tail in zip(entries, tails, strict=False):
        labels_of[tail].add(entry.label)
    is_class = len(labels_of) > 1 and all(len(labels) == 1 for labels in labels_of.values())
    value_of = dict(zip(names, zip(keys, tails, strict=True) if is_class else keys, strict=True))
    is_small = max(Counter(keys).values()) <= FEW_IMAGES
    return is_small and are_shared_by_few(value_of.values()) and len(set(keys)) >= per_class * len({entry.label for entry in entries})


def _pattern(entries: Sequence[Entry], keys: Sequence[str], tails: Sequence[str], form: Form, is_path: bool) -> str:
    """The pattern of a `group` that finds these keys: with the very words of the names if they all have the same, else a general one."""
    beginning, general = ("(.+)", f"(.*{form.head.removeprefix('[^/]*')})") if is_path else ("([^/]+)", f"({form.head})")
    own = r"\d+".join(map(re.escape, tails[0].split("#")))
    for pattern in (*([rf"{beginning}{own}\."] if len(set(tails)) == 1 else []), rf"{general}{form.tail}\.[^/.]+$"):
        if _finds(pattern, entries, keys):
            return pattern
    return ""


def _finds(pattern: str, entries: Sequence[Entry], keys: Sequence[str]) -> bool:
    """Whether a pattern finds a group in every name, and divides them as the keys do."""
    try:
        groups = [group_name(pattern, entry.name) for entry in entries]
    except DataError:
        return False
    return len(set(zip(groups, keys, strict=True))) == len(set(groups)) == len(set(keys))


def _example(entries: Sequence[Entry], keys: Sequence[str], pattern: str = "") -> Shared:
    """Two images that share a key; there are some."""
    first_of_key: dict[str, str] = {}
    for entry, key in zip(entries, keys, strict=True):
        first = first_of_key.setdefault(key, entry.name)
        if first != entry.name:
            return Shared(first, entry.name, key, pattern)
    raise AssertionError("no two images share a key")
