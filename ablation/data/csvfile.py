"""Reading a CSV file as text: its letters, its separator, its header and its rows, each with its line."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.data.decoding import ENDINGS
from ablation.errors import DataError

SEPARATORS = ",;\t|"
EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """The columns' names and the rows of a file; `lines` are the places of the rows in it."""

    file: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_table(file: Path, columns: Sequence[str]) -> Table:
    """The file's rows, separated by commas, or else by what its header has between `columns`."""
    text = _text(file)
    first = re.match(r"\s*sep=(.)\r?\n", text)  # which Excel writes before the header
    try:
        separator = first[1] if first else _separator(text, columns)
        rows = [(line, row) for line, row in _rows(text, separator) if any(cell.strip() for cell in row)][1 if first else 0 :]
    except csv.Error as error:
        raise DataError(f"{str(file)!r} cannot be read as CSV: {error}") from None
    if not rows:
        raise DataError(f"{str(file)!r} cannot be read as CSV: it is empty; expected a line with the names of the columns")
    if len(rows) == 1:
        raise DataError(f"{str(file)!r} has no rows; expected one per image")
    header = _without_empty_end(rows[0][1])
    cells = tuple(_cells(file, line, row, len(header)) for line, row in rows[1:])
    return Table(file, header, cells, tuple(line for line, _ in rows[1:]))


def _text(file: Path) -> str:
    if file.is_dir():
        raise DataError(
            f"{str(file)!r} is a folder; expected a CSV file: class folders are read by data: {{name: folder, root: {file.name}}}"
        )
    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected a CSV file with a column of images and one of labels")
    content = file.read_bytes()
    if content.startswith(EXCEL):
        raise DataError(f"{str(file)!r} is a workbook or an archive; expected a CSV file: save the sheet as CSV in UTF-8")
    if b"\0" in content and not content.startswith(UTF_16):
        raise DataError(f"{str(file)!r} cannot be read as CSV in UTF-8: it holds bytes that are 0; save it in UTF-8")
    try:
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(file)!r} cannot be read as CSV in UTF-8: {error}; save it in UTF-8") from None


def _separator(text: str, columns: Sequence[str]) -> str:
    """The comma, unless the header has all of the columns between others, or has others and no comma."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    expected = {name.strip().casefold() for name in columns}
    for separator in SEPARATORS:
        names = {name.strip().casefold() for name in next(csv.reader([header], delimiter=separator))}
        if expected <= names:
            return separator
    return max(SEPARATORS, key=header.count) if "," not in header else ","


def _rows(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Each row with the line in which it begins; quotes within a cell, as in `"big" dog`, are read where no row is swallowed by one.

    Raises csv.Error where a cell in quotes holds what looks like rows: a line with as many separators as the header and an image's name.
    """
    try:
        rows = list(_parsed(text, separator, strict=True))
    except csv.Error:
        rows = list(_parsed(text, separator, strict=False))
        if any("\n" in cell or "\r" in cell for _, row in rows for cell in row):
            raise
        return rows
    for line, row in rows:
        inner = [part for cell in row for part in cell.splitlines()[1:]]
        if any(part.count(separator) >= len(rows[0][1]) - 1 and ENDINGS.search(part) for part in inner):
            raise csv.Error(f"the quote that begins in line {line} ends {len(inner)} lines below, and has rows of images within it")
    return rows


def _parsed(text: str, separator: str, *, strict: bool) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=strict)
    begin = 1
    for row in reader:
        yield begin, row
        begin = reader.line_num + 1


def _without_empty_end(header: Sequence[str]) -> tuple[str, ...]:
    """The header without unnamed columns at its end, which a separator at the end of every line makes."""
    names = list(header)
    while names and not names[-1].strip():
        names.pop()
    return tuple(names)


def _cells(file: Path, line: int, row: Sequence[str], num_columns: int) -> tuple[str, ...]:
    """The row's cells, empty ones for those that it lacks at its end: a column that is used says so itself."""
    if any(cell.strip() for cell in row[num_columns:]):
        raise DataError(f"{str(file)!r} cannot be read as CSV: line {line} has {len(row)} cells; expected {num_columns}")
    return (*row[:num_columns], *[""] * (num_columns - len(row)))
