"""List files, as ImageNet-LT and others publish: each line names an image and the number of its class."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ablation.data.files import Entry, Found, file_name, first_places
from ablation.data.naming import alike, check_alike, check_numbers, difference, is_left_by_a_system, is_seen, passed_over_remark
from ablation.data.source import TRAIN, join_lines
from ablation.errors import DataError

LINE = re.compile(r"(.*\S)\s+(\d+)\s*", re.ASCII)  # the path may have spaces
NUMBER_FIRST = re.compile(r"(?P<number>\d+)[\s,;:]+(?P<name>.*\S)", re.ASCII)
NUMBER_LAST = re.compile(r"(?P<name>.*?)[\s,;:]+(?P<number>\d+)", re.ASCII)
VOCABULARY = 100  # classes, from which on words may differ in case: ImageNet has Cardigan, a dog, and cardigan, a garment
MAX_SHOWN_LENGTH = 80  # characters of a line that a message shows


@dataclass(frozen=True)
class ListFile:
    """A list file and the split of its images."""

    split: int
    path: Path

    @cached_property
    def name(self) -> str:
        """What messages call the file. Cached, as it is needed for every line and `Path.name` is slow."""
        return self.path.name


@dataclass(frozen=True)
class Line:
    """One line of a list file."""

    file: ListFile
    number: int
    name: str
    label: int

    @property
    def place(self) -> str:
        """File and line number, for messages."""
        return f"{self.file.name}, line {self.number}"


def class_names(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, class 0 first; or by the numbers beside them, where these are all from 0 on."""
    lines = [text.strip() for text in _read_text(file, "one class name in each line").rstrip().split("\n")]
    _check_from_one(file, lines)
    names = _by_number(lines, NUMBER_FIRST) or _by_number(lines, NUMBER_LAST) or tuple(lines)
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{str(file)!r} has no class name in line {number}; expected one in each line")
        if names.index(name) != number - 1:
            raise DataError(f"{str(file)!r} has the class name {name!r} in lines {names.index(name) + 1} and {number}; expected each once")
    places = first_places(names, (f"line {number}" for number in range(1, len(names) + 1)))
    checked = names if len(names) <= VOCABULARY else [name for pair in alike(names) if not is_seen(*pair) for name in pair]
    check_alike(repr(str(file)), "class", {name: places[name] for name in checked})
    return names


def _check_from_one(file: Path, lines: Sequence[str]) -> None:
    """Raise DataError if the names stand behind numbers from 1 on, in another order: then number and line say different things."""
    numbers = [int(match["number"]) for line in lines if (match := NUMBER_FIRST.fullmatch(line))]
    if len(lines) > 2 and sorted(numbers) == list(range(1, len(lines) + 1)) != numbers:
        problem = f"{str(file)!r} numbers its classes from 1, in another order than that of its lines"
        raise DataError(f"{problem}; expected numbers from 0, or the lines in their order, of which the first is class 0")


def _by_number(lines: Sequence[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The names in the order of the numbers beside them; none unless every line has a name and one of the numbers from 0 on, nor where all
    names are the same: `Grade 0`, `Grade 1` and so on are names.
    """
    found = [match for line in lines if (match := pattern.fullmatch(line))]
    names = {int(match["number"]): match["name"] for match in found}
    is_numbered = sorted(names) == list(range(len(lines))) and (len(lines) == 1 or len(set(names.values())) > 1)
    return tuple(names[number] for number in range(len(lines))) if is_numbered else ()


def find_lists(files: Sequence[ListFile], root: Path, strip: str, classes: tuple[str, ...]) -> tuple[Found, tuple[str, ...]]:
    """The images that the lists name, in their order, and the class names: `classes`, or the class numbers if it is empty."""
    listed = [replace(line, name=file_name(root, line.name)) for file in files for line in _read_lines(file, strip)]
    lines = [line for line in listed if not is_left_by_a_system(line.name)]
    train_labels = [line.label for line in lines if line.file.split == TRAIN]
    check_numbers(str(files[0].path), train_labels, len(classes))
    names = classes or tuple(map(str, range(max(train_labels) + 1)))
    _check_labels(lines, len(names))
    _check_unique_images(lines)
    entries = [Entry(line.name, root / line.name, names[line.label], line.file.split, line.name, f"{line.place}: ") for line in lines]
    passed_over = passed_over_remark({line.name for line in listed} - {line.name for line in lines})
    same = [f"the classes {first!r} and {second!r} differ only in {difference(first, second)}" for first, second in alike(classes)]
    return Found(repr(str(files[0].path)), entries, _origin(files), remarks=(*passed_over, *same)), names


def _origin(files: Sequence[ListFile]) -> str:
    names = [file.name for file in files]
    return f"lists {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""


def _read_lines(file: ListFile, strip: str) -> list[Line]:
    lines, problems = [], []
    for number, text in enumerate(_read_text(file.path, "a list of images").split("\n"), start=1):
        match = LINE.fullmatch(text)
        if match:
            lines.append(Line(file, number, _strip_prefix(match[1], strip), int(match[2])))
        elif text.strip():
            problems.append(f"line {number}: {text[:MAX_SHOWN_LENGTH]!r}")
    if problems:
        raise DataError(f"{str(file.path)!r} has lines that are not an image's path and the number of its class:\n  {join_lines(problems)}")
    if not lines:
        raise DataError(f"{str(file.path)!r} names no images; expected in each line an image's path and the number of its class")
    return lines


def _strip_prefix(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lstrip("/") if prefix and name.startswith(prefix) else name


def _read_text(file: Path, expected: str) -> str:
    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected {expected}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(file)!r} cannot be read as UTF-8: {error}") from None


def _check_labels(lines: Iterable[Line], num_classes: int) -> None:
    problems = [f"{line.place}: {line.label}" for line in lines if line.label >= num_classes]
    if problems:
        raise DataError(f"labels that no training image has; expected 0 to {num_classes - 1}:\n  {join_lines(problems)}")


def _check_unique_images(lines: Iterable[Line]) -> None:
    first_lines: dict[str, Line] = {}
    problems = []
    for line in lines:
        first_line = first_lines.setdefault(os.path.normpath(line.name), line)
        if first_line is not line:
            problems.append(f"{first_line.place}, and {line.place}: {line.name!r}")
    if problems:
        raise DataError(f"images that are named twice; expected each once, in one list:\n  {join_lines(problems)}")
