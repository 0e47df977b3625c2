"""Images that lie as files: in class folders, or named by a table."""

# N images

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ablation.data.decoding import ENDINGS, Files
from ablation.data.found import SPLIT_NAMES, TEST, TRAIN, VALIDATION, Contents, Found, few_words
from ablation.data.splits import stratified
from ablation.errors import DataError, nearest
from ablation.system.randomness import numpy_generator

FILES_PER_TASK = 64
VALIDATION_FOLDERS = ("val", "valid", "validation")
SPLITS = {"train": TRAIN, **dict.fromkeys(VALIDATION_FOLDERS, VALIDATION), "test": TEST}
TABLE_SPLITS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": TEST}


@dataclass(frozen=True)
class Entry:
    """One image: its name in the source, its place, class and split, its group (its own name where there are no groups), and where
    a list names it.
    """

    name: str
    path: Path
    label: str
    split: int
    group: str
    listed: str = ""

    @property
    def told(self) -> str:
        """What messages call it."""
        return self.listed + self.name


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns."""

    image: str
    label: str
    split: str
    group: str


def image_files(entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str) -> Found:
    """The entries as a source that has its test images."""
    return Found(size, _places(entries), partial(_contents, entries, classes, size, fit, 0.0))


def image_files_to_split(
    entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str, test: float, tables: tuple[tuple[str, Path], ...] = ()
) -> Found:
    """The entries as a source; where none of them is a test image, the fraction `test` of the training images becomes the test.

    `tables` are further files that decide what is read.
    """
    fraction = 0.0 if any(entry.split == TEST for entry in entries) else test
    return Found(size, (*tables, *_places(entries)), partial(_contents, entries, classes, size, fit, fraction))


def _places(entries: Sequence[Entry]) -> tuple[tuple[str, Path], ...]:
    return tuple((entry.told, entry.path) for entry in entries)


def _contents(entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str, test: float) -> Contents:
    numbers = {name: number for number, name in enumerate(classes)}
    labels_N = np.array([numbers[entry.label] for entry in entries], dtype=np.int64)
    split_N = np.array([entry.split for entry in entries], dtype=np.int8)
    group_N = np.unique([entry.group for entry in entries], return_inverse=True)[1].astype(np.int64)
    if test:
        split_N = take_test(labels_N, split_N, group_N, test)
    _no_straddling(entries, split_N)
    names = [entry.name for entry in entries]
    return Contents(_tasks(entries, size, fit), labels_N, split_N, group_N, classes, names, original_order=False)


def _tasks(entries: Sequence[Entry], size: int, fit: str) -> tuple[Files, ...]:
    chunks = [(start, entries[start : start + FILES_PER_TASK]) for start in range(0, len(entries), FILES_PER_TASK)]
    return tuple(Files(start, tuple(e.told for e in chunk), tuple(str(e.path) for e in chunk), size, fit) for start, chunk in chunks)


def take_test(labels_N: np.ndarray, split_N: np.ndarray, group_N: np.ndarray, fraction: float) -> np.ndarray:
    """The splits with a stratified fraction of the training images made the test, the same for every seed."""
    train_N = np.flatnonzero(split_N == TRAIN)
    taken_N = stratified(labels_N[train_N], group_N[train_N], fraction, numpy_generator(0, "test"))
    with_test_N = split_N.copy()
    with_test_N[train_N[taken_N]] = TEST
    return with_test_N


def _no_straddling(entries: Sequence[Entry], split_N: np.ndarray) -> None:
    first: dict[str, tuple[int, str]] = {}
    for entry, part in zip(entries, split_N.tolist(), strict=True):
        seen, name = first.setdefault(entry.group, (part, entry.name))
        if seen != part:
            raise DataError(
                f"group {entry.group!r} straddles two splits: {name!r} is a {SPLIT_NAMES[seen]} image and "
                f"{entry.name!r} a {SPLIT_NAMES[part]} image; expected every group in one split"
            )


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The class names, each once, sorted: as numbers where all are numbers, else by code point."""
    names = set(names)
    if all(re.fullmatch(r"\d+", name, re.ASCII) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def tree(root: Path, group: str) -> list[Entry]:
    """The images of root/SPLIT/CLASS/..., or of root/CLASS/..., which then all count as training images."""
    if not root.is_dir():
        raise DataError(f"found no folder {str(root)!r}; expected one with train/CLASS/ and test/CLASS/, or with CLASS/ folders")
    own = [(split, root / name) for name, split in SPLITS.items() if _has_folders(root / name)]
    parts = own if _has_folders(root / "train") else [(TRAIN, root)]
    entries = [entry for split, folder in parts for entry in _class_folders(root, folder, split, group)]
    if not entries:
        raise DataError(f"found no class folders in {str(root)!r}; expected train/CLASS/ and test/CLASS/, or CLASS/ folders, with images")
    return entries


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(_folders(folder))


def _class_folders(root: Path, folder: Path, split: int, group: str) -> Iterator[Entry]:
    for class_folder in _folders(folder):
        paths = list(_images(class_folder, frozenset({_identity(root), _identity(folder)})))
        if not paths:
            raise DataError(f"class folder {class_folder.relative_to(root).as_posix()!r} in {str(root)!r} has no images")
        label = unicodedata.normalize("NFC", class_folder.name)
        for path in paths:
            name = path.relative_to(root).as_posix()
            yield Entry(name, path, label, split, group_name(group, name))


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _images(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The image files in a folder and below, sorted; a link back to a folder above is not followed again."""
    own = _identity(folder)
    if own in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images(path, above | {own})
        elif ENDINGS.fullmatch(path.suffix) and (path.is_file() or path.is_symlink()):  # a broken link is told as unreadable
            yield path


def group_name(pattern: str, name: str) -> str:
    """What the pattern's first group finds in an image's name; the name itself where the pattern is `none`."""
    if pattern == "none":
        return name
    match = re.search(pattern, name)
    if match is None or match[1] is None:
        raise DataError(f"image {name!r} belongs to no group: {pattern!r} finds nothing in it")
    return match[1]


def table(file: Path, root: Path, columns: Columns, defaults: Columns) -> list[Entry]:
    """The images that a CSV file names, in its order; optional columns are used where the file has them."""
    cells = _read_csv(file)
    for column in (columns.image, columns.label):
        _require(file, column, cells)
    for column, default in ((columns.split, defaults.split), (columns.group, defaults.group)):
        if column != default:  # a name that the study's file gives is meant to be there
            _require(file, column, cells)
    names = cells[columns.image]
    _no_gaps(file, columns.image, names)
    _no_gaps(file, columns.label, cells[columns.label])
    _no_repeats(file, names)
    splits = _table_splits(file, cells[columns.split]) if columns.split in cells else [TRAIN] * len(names)
    groups = cells.get(columns.group, names)
    _no_gaps(file, columns.group, groups)
    rows = zip(names, cells[columns.label], splits, groups, strict=True)
    return [Entry(name, root / name, unicodedata.normalize("NFC", label), split, group) for name, label, split, group in rows]


def _read_csv(file: Path) -> dict[str, list[str]]:
    """The columns of the file, every cell as its text."""
    import pandas as pd

    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected a CSV file with a column of images and one of labels")
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:  # UnicodeDecodeError and EmptyDataError are ValueErrors
        raise DataError(f"{str(file)!r} cannot be read as CSV in UTF-8: {str(error).strip()}") from None
    if frame.empty:
        raise DataError(f"{str(file)!r} has no rows; expected one per image")
    return {str(column): frame[column].tolist() for column in frame.columns}


def _require(file: Path, column: str, cells: dict[str, list[str]]) -> None:
    if column not in cells:
        raise DataError(f"{str(file)!r} has no column {column!r}; found {', '.join(map(repr, cells))}.{nearest(column, cells)}")


def _no_gaps(file: Path, column: str, values: list[str]) -> None:
    empty = [str(row) for row, value in enumerate(values, start=2) if not value.strip()]
    if empty:
        raise DataError(f"{str(file)!r} has no {column} in line {few_words(empty, len(empty))}; expected one for every image")


def _no_repeats(file: Path, names: list[str]) -> None:
    lines = defaultdict(list)
    for line, name in enumerate(names, start=2):
        lines[os.path.normpath(name)].append(str(line))
    for name, found in lines.items():
        if len(found) > 1:
            raise DataError(f"{str(file)!r} names the image {name!r} in lines {', '.join(found)}; expected every image once")


def _table_splits(file: Path, values: list[str]) -> list[int]:
    for line, value in enumerate(values, start=2):
        if value not in TABLE_SPLITS:
            raise DataError(f"{str(file)!r}, line {line}: found the split {value!r}; expected one of {', '.join(TABLE_SPLITS)}")
    return [TABLE_SPLITS[value] for value in values]
