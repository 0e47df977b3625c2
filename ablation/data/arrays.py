"""Reading arrays from an .npz file: names, headers, and values a few rows at a time. Nothing is ever unpickled."""

import lzma
import math
import tokenize
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

from ablation.errors import DataError

BLOCK_BYTES = 2**22
# What zipfile and NumPy raise on files that are damaged or in another format. NumPy parses a header with tokenize.
READ_ERRORS = (
    *(BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ValueError, TypeError, NotImplementedError, RuntimeError, tokenize.TokenError),
)
HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """Everything about an array but its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


def array_names(file: Path) -> list[str]:
    """The names of the arrays in the file, without what a Mac's archiver adds."""
    if file.is_dir():
        raise DataError(f"{str(file)!r} is a folder; expected an .npz file with the arrays train_images and train_labels")
    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected an .npz file with the arrays train_images and train_labels")
    try:
        with ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy") and "__MACOSX" not in name]
    except READ_ERRORS as error:
        raise DataError(f"{str(file)!r} is not a complete .npz file: {error}") from None


def read_header(file: Path, name: str) -> Header:
    """The header of an array; raises DataError if the array holds Python objects, or more or fewer bytes than the header says."""
    member = f"{name}.npy"
    try:
        with ZipFile(file) as archive, archive.open(member) as stream:
            header = _parse_header(stream)
            size = archive.getinfo(member).file_size - stream.tell()
    except READ_ERRORS as error:
        raise DataError(f"the array {name!r} in {str(file)!r} cannot be read: {error}") from None
    if header.dtype.hasobject:
        raise DataError(f"the array {name!r} in {str(file)!r} holds pickled Python objects, which are never read; expected numbers")
    if size != math.prod(header.shape) * header.dtype.itemsize:
        raise DataError(f"the array {name!r} in {str(file)!r} does not have the length that it says")
    return header


def _parse_header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    if version not in HEADER_READERS:
        raise ValueError(f"an array in version {version} of its format, which plain numbers never have")
    shape, is_fortran, dtype = HEADER_READERS[version](stream)
    return Header(shape, dtype, is_fortran)


def read_array(file: Path, name: str) -> np.ndarray:
    """A whole array; for small ones."""
    try:
        with ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
    except READ_ERRORS as error:
        raise DataError(f"the array {name!r} in {str(file)!r} cannot be read: {error}") from None


def read_rows(file: Path, name: str) -> Iterator[np.ndarray]:
    """The rows of an array one by one, a few megabytes in memory at a time; all of it if it is stored in Fortran order."""
    with ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
        header = _parse_header(stream)
        if header.is_fortran:
            yield from np.frombuffer(stream.read(), header.dtype).reshape(header.shape, order="F")
            return
        num_rows, *shape = header.shape
        bytes_per_row = math.prod(shape) * header.dtype.itemsize
        per_block = max(1, BLOCK_BYTES // bytes_per_row)
        for first in range(0, num_rows, per_block):
            block = stream.read(min(per_block, num_rows - first) * bytes_per_row)
            yield from np.frombuffer(block, header.dtype).reshape(-1, *shape)
