"""Arrays in an .npz file, known by their headers and read a few rows at a time; nothing is ever unpickled."""

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
# What zipfile and NumPy raise on foreign bytes; a header is read as Python's tokens.
DAMAGE = (
    *(BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ValueError, TypeError, NotImplementedError, RuntimeError, tokenize.TokenError),
)
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


def names(file: Path) -> list[str]:
    """The names of the file's arrays."""
    if not file.is_file():
        raise DataError(f"found no file {str(file)!r}; expected an .npz file with the arrays train_images and train_labels")
    try:
        with ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except DAMAGE as error:
        raise DataError(f"{str(file)!r} is no whole .npz file: {error}") from None


def header(file: Path, name: str) -> Header:
    """What the array is; one of Python objects, or with fewer values than it says, is told."""
    member = f"{name}.npy"
    try:
        with ZipFile(file) as archive, archive.open(member) as stream:
            found = _header(stream)
            size = archive.getinfo(member).file_size - stream.tell()
    except DAMAGE as error:
        raise DataError(f"the array {name!r} in {str(file)!r} cannot be read: {error}") from None
    if found.dtype.hasobject:
        raise DataError(f"the array {name!r} in {str(file)!r} holds pickled Python objects, which are never read; expected numbers")
    if size != math.prod(found.shape) * found.dtype.itemsize:
        raise DataError(f"the array {name!r} in {str(file)!r} does not have the length that it says")
    return found


def _header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"an array in version {version} of its format, which plain numbers never have")
    shape, is_fortran, dtype = HEADERS[version](stream)
    return Header(shape, dtype, is_fortran)


def values(file: Path, name: str) -> np.ndarray:
    """A whole array, for those that are small."""
    try:
        with ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False))
    except DAMAGE as error:
        raise DataError(f"the array {name!r} in {str(file)!r} cannot be read: {error}") from None


def rows(file: Path, name: str) -> Iterator[np.ndarray]:
    """The array's rows one by one, a few megabytes in memory at a time; the whole where columns come first."""
    with ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
        found = _header(stream)
        if found.is_fortran:
            yield from np.frombuffer(stream.read(), found.dtype).reshape(found.shape, order="F")
            return
        num_rows, *shape = found.shape
        bytes_per_row = math.prod(shape) * found.dtype.itemsize
        per_block = max(1, BLOCK_BYTES // bytes_per_row)
        for first in range(0, num_rows, per_block):
            block = stream.read(min(per_block, num_rows - first) * bytes_per_row)
            yield from np.frombuffer(block, found.dtype).reshape(-1, *shape)
