"""The images of one split, from where they are read fastest: the device, a memory map, or ahead from a file. N images, B batch."""

import math
import os
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from ablation.data import Dataset
from ablation.errors import DataError

SHARE = 0.4  # of a CUDA device's free memory, else of the machine's: what is larger is read from the file while training goes on
AHEAD = 4  # batches that are being read, or wait, while the device works on one
COPIED_AT_ONCE = 4096  # images, so that the host needs no room for all that goes to the device

Pixels = Generator[Tensor, None, None]


class Data(Protocol):
    """The images of one split (uint8), and their labels, which are on the device."""

    @property
    def labels_N(self) -> Tensor:
        """The labels, on the device."""

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> Pixels:
        """The pixels of these parts of an order (without one, as the images lie), B x 3 x H x W in channels_last, on the device.

        Close it where it is not exhausted: threads may be reading. Raises DataError where the images cannot be read.
        """


@dataclass(frozen=True)
class Held:
    """Images in memory, on the device or, as a memory map, on the host; of these `rows_N` are the split's, or all are."""

    pixels_NCHW: Tensor
    labels_N: Tensor
    rows_N: Tensor | None = None

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> Pixels:
        """See Data."""
        chosen_N = self.rows_N if order_N is None else order_N if self.rows_N is None else self.rows_N[order_N]
        pixels_NHWC = self.pixels_NCHW.permute(0, 2, 3, 1)
        for batch in slices:  # on the host index_select is nine times as fast as indexing
            pixels_BHWC = pixels_NHWC[batch] if chosen_N is None else pixels_NHWC.index_select(0, chosen_N[batch])
            yield pixels_BHWC.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Stored:
    """Images that stay in their file, of which `rows_N` are the split's: threads read the next batches while the device works."""

    file: Path
    start: int  # of the first image, in bytes
    shape_HWC: tuple[int, ...]
    rows_N: np.ndarray
    labels_N: Tensor

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> Pixels:
        """See Data."""
        rows_N = self.rows_N if order_N is None else self.rows_N[order_N.cpu().numpy()]
        waiting: deque[Future[Tensor]] = deque()
        try:
            with self.file.open("rb") as file, ThreadPoolExecutor(AHEAD, "pixels") as readers:
                for batch in slices:
                    waiting.append(readers.submit(self._read, file.fileno(), rows_N[batch], self._buffer(len(rows_N[batch]))))
                    if len(waiting) > AHEAD:
                        yield self._placed(waiting.popleft())
                while waiting:
                    yield self._placed(waiting.popleft())
        except OSError as error:
            raise DataError(f"the decoded images cannot be read: {error}") from None

    def _buffer(self, num_images: int) -> Tensor:
        """Room for a batch, from which a CUDA device can copy while it works."""
        return torch.empty((num_images, *self.shape_HWC), dtype=torch.uint8, pin_memory=self.labels_N.device.type == "cuda")

    def _placed(self, read: Future[Tensor]) -> Tensor:
        return read.result().to(self.labels_N.device, non_blocking=True).permute(0, 3, 1, 2)

    def _read(self, file: int, rows_B: np.ndarray, buffer_BHWC: Tensor) -> Tensor:
        """The buffer with the pixels of these rows, each at its place; read in the file's order."""
        # By read and not through a map, in which a file that has become shorter ends the process without a word.
        size, places = math.prod(self.shape_HWC), buffer_BHWC.numpy().data.cast("B")
        for place in np.argsort(rows_B, kind="stable").tolist():
            where = self.start + int(rows_B[place]) * size
            if os.preadv(file, [places[place * size : (place + 1) * size]], where) != size:
                raise DataError(f"{str(self.file)!r} ends before its image {int(rows_B[place])}; delete its folder and run again")
        return buffer_BHWC


def part_of(dataset: Dataset, rows_N: np.ndarray, device: torch.device) -> Data:
    """The images of these rows: a copy on the device where they fit, on the CPU the memory map, else the file.

    Two processes share what the machine keeps in memory of the map and the file.
    """
    stored_NHWC = cast(np.memmap, dataset.images_NHWC)
    labels_N = torch.from_numpy(np.asarray(dataset.labels_N[rows_N])).long().to(device)
    if len(rows_N) * math.prod(stored_NHWC.shape[1:]) > room(device):
        return Stored(Path(str(stored_NHWC.filename)), stored_NHWC.offset, stored_NHWC.shape[1:], rows_N, labels_N)
    images_NHWC = _as_tensor(stored_NHWC)
    if device.type == "cpu":  # gathering from the map was measured as fast as from a copy
        return Held(images_NHWC.permute(0, 3, 1, 2), labels_N, torch.from_numpy(rows_N))
    return Held(copied(images_NHWC, torch.from_numpy(rows_N), device).permute(0, 3, 1, 2), labels_N)


def room(device: torch.device) -> float:
    """How many bytes of images are kept in memory."""
    if device.type == "cuda":
        return SHARE * torch.cuda.mem_get_info(device)[0]
    return SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def copied(images_NHWC: Tensor, rows_N: Tensor, device: torch.device) -> Tensor:
    """These rows on the device."""
    found_NHWC = torch.empty((len(rows_N), *images_NHWC.shape[1:]), dtype=images_NHWC.dtype, device=device)
    for part_NHWC, rows_B in zip(torch.split(found_NHWC, COPIED_AT_ONCE), torch.split(rows_N, COPIED_AT_ONCE), strict=True):
        part_NHWC.copy_(images_NHWC.index_select(0, rows_B))
    return found_NHWC


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of the same memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing writes to it
        return torch.from_numpy(array)
