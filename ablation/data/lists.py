"""The field's list files: in each line an image and the number of its class."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablation.data.files import Entry
from ablation.data.found import TRAIN, few, label_numbers_without_gaps
from ablation.errors import DataError

LINE = re.compile(r"(.*\S)\s+(\d+)\s*", re.ASCII)  # the path may have spaces
MOST_SHOWN = 80  # characters of a line


@dataclass(frozen=True)
class ListFile:
    """A list file and the split that its images form."""

    split: int
    path: Path

    @cached_property
    def name(self) -> str:
        """What messages call it; asked for every line, and a path takes its time."""
        return self.path.name


@dataclass(frozen=True)
class Line:
    """What a line says, and where it stands."""

    file: ListFile
    number: int
    name: str
    label: int

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.file.name}, line {self.number}"


def class_names(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, class 0 first."""
    names = tuple(text.strip() for text in _text(file, "one class name in each line").rstrip().split("\n"))
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{str(file)!r} has no class name in line {number}; expected one in each line")
        if names.index(name) != number - 1:
            raise DataError(f"{str(file)!r} has the class name {name!r} in lines {names.index(name) + 1} and {number}; expected each once")
    return names


def listed(files: Sequence[ListFile], root: Path, strip: str, classes: tuple[str, ...]) -> tuple[list[Entry], tuple[str, ...]]:
    """The images that the lists name, in their order, and the class names: `classes`, or the numbers where it is empty."""
    lines = [line for file in files for line in _lines(file, strip)]
    train = [line.label for line in lines if line.file.split == TRAIN]
    label_numbers_without_gaps(str(files[0].path), train, len(classes))
    names = classes or tuple(map(str, range(max(train) + 1)))
    _no_foreign_labels(lines, len(names))
    _no_repeats(lines)
    return [Entry(one.name, root / one.name, names[one.label], one.file.split, one.name, f"{one.place}: ") for one in lines], names


def _lines(file: ListFile, strip: str) -> list[Line]:
    lines, problems = [], []
    for number, text in enumerate(_text(file.path, "a list of images").split("\n"), start=1):
        match = LINE.fullmatch(text)
        if match:
            lines.append(Line(file, number, _stripped(match[1], strip), int(match[2])))
        elif text.strip():
            problems.append(f"line {number}: {text[:MOST_SHOWN]!r}")
    if problems:
        raise DataError(f"{str(file.path)!r} has lines that are not an image's path and the number of its class:\n  {few(problems)}")
    if not lines:
        raise DataError(f"{str(file.path)!r} names no images; expected in each line an image's path and the number of its class")
    return lines


def _stripped(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lstrip("/") if prefix and name.startswith(prefix) else name


def _text(file: Path, expected: str) -> str:
    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected {expected}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(file)!r} cannot be read as UTF-8: {error}") from None


def _no_foreign_labels(lines: Iterable[Line], num_classes: int) -> None:
    problems = [f"{line.place}: {line.label}" for line in lines if line.label >= num_classes]
    if problems:
        raise DataError(f"labels that no training image has; expected 0 to {num_classes - 1}:\n  {few(problems)}")


def _no_repeats(lines: Iterable[Line]) -> None:
    first: dict[str, Line] = {}
    problems = []
    for line in lines:
        seen = first.setdefault(os.path.normpath(line.name), line)
        if seen is not line:
            problems.append(f"{seen.place}, and {line.place}: {line.name!r}")
    if problems:
        raise DataError(f"images that are named twice; expected each once, in one list:\n  {few(problems)}")
