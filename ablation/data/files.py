"""Images that are files of their own: how what was found in folders, tables and lists becomes a source."""

# N images

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np

from ablation.data.decoding import Files
from ablation.data.naming import check_alike, unknown_groups
from ablation.data.raster import FULL_RANGE, Range
from ablation.data.source import DEFAULT_TEST, SPLIT_NAMES, TEST, TRAIN, VALIDATION, Contents, SourceFiles, join_lines
from ablation.errors import DataError, nearest

FILES_PER_TASK = 64


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    `group` is the image's own name if there are no groups; `listed` is the place in a list file that names it.
    """

    name: str
    path: Path
    label: str
    split: int
    group: str
    listed: str = ""

    @property
    def display_name(self) -> str:
        """What messages call the image."""
        return self.listed + self.name


@dataclass(frozen=True)
class Found:
    """The images that were found in a place, and what told their splits and their groups apart, in words."""

    place: str
    entries: Sequence[Entry]
    split_origin: str = ""
    grouped_by: str = ""
    remarks: tuple[str, ...] = ()


def source_of_entries(found: Found, classes: tuple[str, ...], size: int, fit: str) -> SourceFiles:
    """The entries as a source with the test images that they already have."""
    check_entries(found)
    read = partial(_read_contents, found, classes, size, fit, FULL_RANGE, 0.0)
    return SourceFiles(size, _named_paths(found.entries), read, found.split_origin, found.remarks, _listed(found.entries, classes))


def source_with_test(
    found: Found,
    classes: tuple[str, ...],
    size: int,
    fit: str,
    value_range: Range,
    test: float,
    tables: tuple[tuple[str, Path], ...] = (),
) -> SourceFiles:
    """The entries as a source; if none of them is a test image, the fraction `test` of the training images becomes the test split.

    `value_range` is that of images of 16 bits, and `tables` are further files that decide what the source contains.
    """
    check_entries(found)
    fraction = 0.0 if any(entry.split == TEST for entry in found.entries) else test
    origin = "; ".join(part for part in (found.split_origin, drawn(fraction, bool(found.split_origin)), _groups(found)) if part)
    read = partial(_read_contents, found, classes, size, fit, value_range, fraction)
    files, remarks = (*tables, *_named_paths(found.entries)), (*found.remarks, *_remarks(found), *unused_remark(fraction, test))
    return SourceFiles(size, files, read, origin, remarks, _listed(found.entries, classes))


def _listed(entries: Sequence[Entry], classes: Sequence[str]) -> str:
    """A digest of what was read about the images, by which a table that is saved while its files are looked at is no other's."""
    sha256 = hashlib.sha256(json.dumps(classes).encode())
    for entry in entries:
        sha256.update(f"{entry.name}\0{entry.label}\0{entry.split}\0{entry.group}\0".encode(errors="surrogateescape"))
    return sha256.hexdigest()


def drawn(fraction: float, has_splits: bool) -> str:
    """In words, that this fraction of the training images becomes the test images; nothing if it is 0."""
    if not fraction:
        return ""
    return f"{'test images drawn' if has_splits else 'drawn'}: {100 * fraction:g} % of the {'training ' if has_splits else ''}images"


def unused_remark(fraction: float, test: float) -> Iterator[str]:
    """A sentence on a setting `test` that is not the default and draws nothing; or nothing."""
    if not fraction and test != DEFAULT_TEST:
        yield f"data.test, {test:g}, changes nothing: there are test images"


def drawn_remark(splits: Collection[int]) -> Iterator[str]:
    """A sentence on validation images that are given where no test images are: many call their test so; or nothing."""
    if VALIDATION in splits and TEST not in splits:
        yield "test images are drawn, though validation images are given: if these are the published test images, call them test"


def _groups(found: Found) -> str:
    return f"groups by {found.grouped_by}" if found.grouped_by else ""


def _remarks(found: Found) -> Iterator[str]:
    entries = found.entries
    yield from drawn_remark({entry.split for entry in entries})
    if found.grouped_by and len({entry.group for entry in entries}) == len(entries):
        yield f"every image is a group of its own by {found.grouped_by}, so that nothing is kept together"


def check_entries(found: Found) -> None:
    """Raise DataError unless every class has training images, every group one name, and every image one, too."""
    entries = found.entries
    trained = {entry.label for entry in entries if entry.split == TRAIN}
    if not trained:
        others = sorted({SPLIT_NAMES[entry.split] for entry in entries})
        raise DataError(f"{found.place} has no training images, only {' and '.join(others)} images; expected some of each class")
    for entry in entries:
        if entry.label not in trained:
            raise DataError(
                f"class {entry.label!r} is empty: it has no training images in {found.place}, only the {SPLIT_NAMES[entry.split]} image "
                f"{entry.name!r}; expected some of each class.{nearest(entry.label, trained)}"
            )
    if found.grouped_by:
        _check_group_names(found)
    check_same_files(found.place, entries)


def _check_group_names(found: Found) -> None:
    first_image: dict[str, str] = {}
    unknown = unknown_groups(entry.group for entry in found.entries)
    for entry in found.entries:
        if entry.group in unknown:
            raise DataError(
                f"{found.place} has the group {entry.group!r} by {found.grouped_by} for the image {entry.name!r}; "
                f"expected a name: images without a known group need one each"
            )
        first_image.setdefault(entry.group, entry.name)
    if len(first_image) == 1 and len(found.entries) > 1 and len({entry.split for entry in found.entries}) == 1:
        raise DataError(
            f"{found.place} has only the group {found.entries[0].group!r} by {found.grouped_by}; expected several, "
            f"since a group is never divided"
        )
    check_alike(found.place, "group", first_image, separators=False)


def check_same_files(place: str, entries: Sequence[Entry]) -> None:
    """Raise DataError if one file is named in two spellings (./a.png, A.png, by a linked folder), or is in two splits or classes by links.

    Links to one file within a split and a class are equal images: stores by content keep one file for those, and the account counts them.
    Each folder is read once, and no file is asked for its state: on a network that would take minutes.
    """
    folders: dict[str, tuple[str, frozenset[str]]] = {}
    first_of_path: dict[str, Entry] = {}
    first_of_file: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        folder, name = os.path.split(entry.path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder), _links(folder)
        real_folder, links = folders[folder]
        path = os.path.join(real_folder, name)
        file = os.path.realpath(path) if name in links else path
        first, linked = first_of_path.setdefault(path.casefold(), entry), first_of_file.setdefault(file.casefold(), entry)
        if first is entry and (linked.split, linked.label) != (entry.split, entry.label):
            first = linked
        if first is not entry and _is_same_file(first.path, entry.path):
            problems.append(f"{first.display_name!r} and {entry.display_name!r}")
    if problems:
        raise DataError(f"{place} has images under two names each; expected every image once:\n  {join_lines(problems)}")


def _links(folder: str) -> frozenset[str]:
    """The names of the links in a folder; none if it cannot be read, which is told with the files that cannot be."""
    try:
        with os.scandir(folder) as children:
            return frozenset(child.name for child in children if child.is_symlink())
    except OSError:
        return frozenset()


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _named_paths(entries: Sequence[Entry]) -> tuple[tuple[str, Path], ...]:
    return tuple((entry.display_name, entry.path) for entry in entries)


def _read_contents(found: Found, classes: tuple[str, ...], size: int, fit: str, value_range: Range, test: float) -> Contents:
    entries = found.entries
    numbers = {name: number for number, name in enumerate(classes)}
    labels_N = np.array([numbers[entry.label] for entry in entries], dtype=np.int64)
    split_N = np.array([entry.split for entry in entries], dtype=np.int8)
    group_N = np.unique([entry.group for entry in entries], return_inverse=True)[1].astype(np.int64)
    _check_groups(entries, split_N)
    names = [entry.name for entry in entries]
    tasks = _tasks(entries, size, fit, value_range)
    return Contents(tasks, labels_N, split_N, group_N, classes, names, original_order=False, test=test)


def _tasks(entries: Sequence[Entry], size: int, fit: str, value_range: Range) -> tuple[Files, ...]:
    chunks = [(start, entries[start : start + FILES_PER_TASK]) for start in range(0, len(entries), FILES_PER_TASK)]
    return tuple(
        Files(start, tuple(entry.display_name for entry in chunk), tuple(str(entry.path) for entry in chunk), size, fit, value_range)
        for start, chunk in chunks
    )


def _check_groups(entries: Sequence[Entry], split_N: np.ndarray) -> None:
    first_of_group: dict[str, tuple[int, str]] = {}
    for entry, split in zip(entries, split_N.tolist(), strict=True):
        first_split, first_name = first_of_group.setdefault(entry.group, (split, entry.name))
        if first_split != split:
            raise DataError(
                f"group {entry.group!r} straddles two splits: {first_name!r} is a {SPLIT_NAMES[first_split]} image and "
                f"{entry.name!r} a {SPLIT_NAMES[split]} image; expected every group in one split"
            )


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The unique class names, sorted as numbers if all are numbers, else by code point."""
    names = set(names)
    if all(re.fullmatch(r"\d+(\.\d+)?", name, re.ASCII) for name in names):
        return tuple(sorted(names, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(names))


def group_name(pattern: str, name: str) -> str:
    """The text that the pattern's first group matches in an image's name; the name itself if the pattern is `none`."""
    if pattern == "none":
        return name
    match = re.search(pattern, name)
    if match is None or not (match[1] or "").strip():
        raise DataError(f"image {name!r} belongs to no group: {pattern!r} finds nothing in it")
    return match[1].strip()


def first_places(names: Iterable[str], places: Iterable[str]) -> Mapping[str, str]:
    """Where each name occurs first."""
    first: dict[str, str] = {}
    for name, place in zip(names, places, strict=True):
        first.setdefault(name, place)
    return first


def file_name(root: Path, written: str) -> str:
    """The path as written if it is there; else without blanks around it, with Windows' strokes turned, or in another Unicode form."""
    trimmed = written.strip()
    turned = trimmed.replace("\\", "/")
    forms = (written, trimmed, turned, *(unicodedata.normalize(form, turned) for form in ("NFC", "NFD")))
    if written == turned and written.isascii():
        return written
    return next((form for form in forms if os.path.lexists(root / form)), turned)
