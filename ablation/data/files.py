"""Images that are files, in class folders or listed in a CSV table."""

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
from ablation.data.source import SPLIT_NAMES, TEST, TRAIN, VALIDATION, Contents, SourceFiles, join_words
from ablation.errors import DataError, nearest

FILES_PER_TASK = 64
VALIDATION_FOLDERS = ("val", "valid", "validation")
SPLITS = {"train": TRAIN, **dict.fromkeys(VALIDATION_FOLDERS, VALIDATION), "test": TEST}
TABLE_SPLITS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": TEST}


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
class Columns:
    """The names of a table's columns."""

    image: str
    label: str
    split: str
    group: str


def source_of_entries(entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str) -> SourceFiles:
    """The entries as a source with the test images that they already have."""
    return SourceFiles(size, _named_paths(entries), partial(_read_contents, entries, classes, size, fit, 0.0))


def source_with_test(
    entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str, test: float, tables: tuple[tuple[str, Path], ...] = ()
) -> SourceFiles:
    """The entries as a source; if none of them is a test image, the fraction `test` of the training images becomes the test split.

    `tables` are further files that decide what the source contains.
    """
    fraction = 0.0 if any(entry.split == TEST for entry in entries) else test
    return SourceFiles(size, (*tables, *_named_paths(entries)), partial(_read_contents, entries, classes, size, fit, fraction))


def _named_paths(entries: Sequence[Entry]) -> tuple[tuple[str, Path], ...]:
    return tuple((entry.display_name, entry.path) for entry in entries)


def _read_contents(entries: Sequence[Entry], classes: tuple[str, ...], size: int, fit: str, test: float) -> Contents:
    numbers = {name: number for number, name in enumerate(classes)}
    labels_N = np.array([numbers[entry.label] for entry in entries], dtype=np.int64)
    split_N = np.array([entry.split for entry in entries], dtype=np.int8)
    group_N = np.unique([entry.group for entry in entries], return_inverse=True)[1].astype(np.int64)
    _check_groups(entries, split_N)
    names = [entry.name for entry in entries]
    return Contents(_tasks(entries, size, fit), labels_N, split_N, group_N, classes, names, original_order=False, test=test)


def _tasks(entries: Sequence[Entry], size: int, fit: str) -> tuple[Files, ...]:
    chunks = [(start, entries[start : start + FILES_PER_TASK]) for start in range(0, len(entries), FILES_PER_TASK)]
    return tuple(
        Files(start, tuple(entry.display_name for entry in chunk), tuple(str(entry.path) for entry in chunk), size, fit)
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
    if all(re.fullmatch(r"\d+", name, re.ASCII) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def tree_entries(root: Path, group: str) -> list[Entry]:
    """The images in root/SPLIT/CLASS/..., or in root/CLASS/..., which are then all training images."""
    if not root.is_dir():
        raise DataError(f"found no folder {str(root)!r}; expected one with train/CLASS/ and test/CLASS/, or with CLASS/ folders")
    split_folders = [(split, root / name) for name, split in SPLITS.items() if _has_folders(root / name)]
    folders = split_folders if _has_folders(root / "train") else [(TRAIN, root)]
    entries = [entry for split, folder in folders for entry in _class_folders(root, folder, split, group)]
    if not entries:
        raise DataError(f"found no class folders in {str(root)!r}; expected train/CLASS/ and test/CLASS/, or CLASS/ folders, with images")
    return entries


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(_folders(folder))


def _class_folders(root: Path, folder: Path, split: int, group: str) -> Iterator[Entry]:
    for class_folder in _folders(folder):
        paths = list(_images(class_folder, frozenset({_file_identity(root), _file_identity(folder)})))
        if not paths:
            raise DataError(f"class folder {class_folder.relative_to(root).as_posix()!r} in {str(root)!r} has no images")
        label = unicodedata.normalize("NFC", class_folder.name)
        for path in paths:
            name = path.relative_to(root).as_posix()
            yield Entry(name, path, label, split, group_name(group, name))


def _file_identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _images(folder: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The image files in a folder and below, sorted; links to a folder above are not followed."""
    identity = _file_identity(folder)
    if identity in ancestors:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images(path, ancestors | {identity})
        elif ENDINGS.fullmatch(path.suffix) and (path.is_file() or path.is_symlink()):  # a broken link is reported as unreadable
            yield path


def group_name(pattern: str, name: str) -> str:
    """The text that the pattern's first group matches in an image's name; the name itself if the pattern is `none`."""
    if pattern == "none":
        return name
    match = re.search(pattern, name)
    if match is None or match[1] is None:
        raise DataError(f"image {name!r} belongs to no group: {pattern!r} finds nothing in it")
    return match[1]


def table_entries(file: Path, root: Path, columns: Columns, defaults: Columns) -> list[Entry]:
    """The images that a CSV file lists, in its order; optional columns are used if the file has them."""
    cells = _read_csv(file)
    for column in (columns.image, columns.label):
        _check_column(file, column, cells)
    for column, default in ((columns.split, defaults.split), (columns.group, defaults.group)):
        if column != default:  # the study's file names this column, so it must be there
            _check_column(file, column, cells)
    names = cells[columns.image]
    _check_no_empty_cells(file, columns.image, names)
    _check_no_empty_cells(file, columns.label, cells[columns.label])
    _check_unique_images(file, names)
    splits = _table_splits(file, cells[columns.split]) if columns.split in cells else [TRAIN] * len(names)
    groups = cells.get(columns.group, names)
    _check_no_empty_cells(file, columns.group, groups)
    rows = zip(names, cells[columns.label], splits, groups, strict=True)
    return [Entry(name, root / name, unicodedata.normalize("NFC", label), split, group) for name, label, split, group in rows]


def _read_csv(file: Path) -> dict[str, list[str]]:
    """The columns of the file, every cell as text."""
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


def _check_column(file: Path, column: str, cells: dict[str, list[str]]) -> None:
    if column not in cells:
        raise DataError(f"{str(file)!r} has no column {column!r}; found {', '.join(map(repr, cells))}.{nearest(column, cells)}")


def _check_no_empty_cells(file: Path, column: str, values: list[str]) -> None:
    empty = [str(row) for row, value in enumerate(values, start=2) if not value.strip()]
    if empty:
        raise DataError(f"{str(file)!r} has no {column} in line {join_words(empty, len(empty))}; expected one for every image")


def _check_unique_images(file: Path, names: list[str]) -> None:
    lines_of_image = defaultdict(list)
    for line, name in enumerate(names, start=2):
        lines_of_image[os.path.normpath(name)].append(str(line))
    for name, line_numbers in lines_of_image.items():
        if len(line_numbers) > 1:
            raise DataError(f"{str(file)!r} names the image {name!r} in lines {', '.join(line_numbers)}; expected every image once")


def _table_splits(file: Path, values: list[str]) -> list[int]:
    for line, value in enumerate(values, start=2):
        if value not in TABLE_SPLITS:
            raise DataError(f"{str(file)!r}, line {line}: found the split {value!r}; expected one of {', '.join(TABLE_SPLITS)}")
    return [TABLE_SPLITS[value] for value in values]
