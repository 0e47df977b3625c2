"""The images of one split, from the fastest place that can hold them: the device, a memory map or the file. N images, B batch."""

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
from ablation.training.devices import num_sharers

MEMORY_SHARE = 0.4  # of a CUDA device's free memory, else of the machine's memory; larger splits are read from the file during training
BATCHES_AHEAD = 4  # that are being read, or are ready, while the device works on one
IMAGES_PER_COPY = 4096  # so that the host never holds all images that go to the device

PixelBatches = Generator[Tensor, None, None]


class SplitImages(Protocol):
    """The images of one split (uint8), and their labels, which are on the device."""

    @property
    def labels_N(self) -> Tensor:
        """The labels, on the device."""

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> PixelBatches:
        """The pixels of these slices of an order (by default the order of the split), B x 3 x H x W in channels_last, on the device.

        Close the generator if it is not exhausted: threads may be reading. Raises DataError if the images cannot be read.
        """


@dataclass(frozen=True)
class ImagesInMemory:
    """Images on the device or, as a memory map, on the host; `rows_N` are the split's rows, or None if all rows are."""

    pixels_NCHW: Tensor
    labels_N: Tensor
    rows_N: Tensor | None = None

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> PixelBatches:
        """See SplitImages."""
        rows_N = self.rows_N if order_N is None else order_N if self.rows_N is None else self.rows_N[order_N]
        pixels_NHWC = self.pixels_NCHW.permute(0, 2, 3, 1)
        for batch in slices:  # on the host index_select is nine times as fast as indexing
            pixels_BHWC = pixels_NHWC[batch] if rows_N is None else pixels_NHWC.index_select(0, rows_N[batch])
            yield pixels_BHWC.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ImagesInFile:
    """Images that stay in their file; `rows_N` are the split's rows. Threads read the next batches while the device works."""

    file: Path
    start: int  # of the first image, in bytes
    shape_HWC: tuple[int, ...]
    rows_N: np.ndarray
    labels_N: Tensor

    @property
    def num_bytes(self) -> int:
        """The size of the images."""
        return len(self.rows_N) * math.prod(self.shape_HWC)

    def batches(self, slices: Sequence[slice], order_N: Tensor | None = None) -> PixelBatches:
        """See SplitImages."""
        rows_N = self.rows_N if order_N is None else self.rows_N[order_N.cpu().numpy()]
        pending: deque[Future[Tensor]] = deque()
        try:
            with self.file.open("rb") as file, ThreadPoolExecutor(BATCHES_AHEAD, "pixels") as readers:
                for batch in slices:
                    pending.append(readers.submit(self._read, file.fileno(), rows_N[batch], self._buffer(len(rows_N[batch]))))
                    if len(pending) > BATCHES_AHEAD:
                        yield self._on_device(pending.popleft())
                while pending:
                    yield self._on_device(pending.popleft())
        except OSError as error:
            raise DataError(f"the decoded images cannot be read: {error}") from None

    def _buffer(self, num_images: int) -> Tensor:
        """Memory for a batch, from which a CUDA device can copy while it works."""
        return torch.empty((num_images, *self.shape_HWC), dtype=torch.uint8, pin_memory=self.labels_N.device.type == "cuda")

    def _on_device(self, batch: Future[Tensor]) -> Tensor:
        return batch.result().to(self.labels_N.device, non_blocking=True).permute(0, 3, 1, 2)

    def _read(self, file: int, rows_B: np.ndarray, buffer_BHWC: Tensor) -> Tensor:
        """The buffer, filled with the pixels of these rows; they are read in the file's order."""
        # Read with preadv and not through a memory map: if the file has become shorter, a map ends the process without a message.
        size, buffer = math.prod(self.shape_HWC), buffer_BHWC.numpy().data.cast("B")
        for i in np.argsort(rows_B, kind="stable").tolist():
            offset = self.start + int(rows_B[i]) * size
            if os.preadv(file, [buffer[i * size : (i + 1) * size]], offset) != size:
                raise DataError(f"{str(self.file)!r} ends before its image {int(rows_B[i])}; delete its folder and run again")
        return buffer_BHWC


def images_of_rows(dataset: Dataset, rows_N: np.ndarray, device: torch.device) -> SplitImages:
    """The images of these rows: if they fit into memory a copy on the device, or on the CPU the memory map; else the file.

    Processes share the part of the map and of the file that the operating system keeps in memory.
    """
    stored_NHWC = cast(np.memmap, dataset.images_NHWC)
    labels_N = torch.from_numpy(np.asarray(dataset.labels_N[rows_N])).long().to(device)
    if not fit_into_memory(dataset, rows_N, device):
        return ImagesInFile(Path(str(stored_NHWC.filename)), stored_NHWC.offset, stored_NHWC.shape[1:], rows_N, labels_N)
    images_NHWC = _as_tensor(stored_NHWC)
    if device.type == "cpu":  # measured: gathering from the map is as fast as from a copy
        return ImagesInMemory(images_NHWC.permute(0, 3, 1, 2), labels_N, torch.from_numpy(rows_N))
    return ImagesInMemory(copy_rows(images_NHWC, torch.from_numpy(rows_N), device).permute(0, 3, 1, 2), labels_N)


def fit_into_memory(dataset: Dataset, rows_N: np.ndarray, device: torch.device) -> bool:
    """Whether the images of these rows may be kept in the device's memory."""
    return len(rows_N) * math.prod(dataset.images_NHWC.shape[1:]) <= memory_limit(device)


def memory_limit(device: torch.device) -> float:
    """How many bytes of images are kept in memory: on a CUDA device this job's part of what is free, or what torch only keeps for later."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return MEMORY_SHARE * (torch.cuda.mem_get_info(device)[0] + unused) / num_sharers()
    return MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def copy_rows(images_NHWC: Tensor, rows_N: Tensor, device: torch.device) -> Tensor:
    """A copy of these rows on the device."""
    copy_NHWC = torch.empty((len(rows_N), *images_NHWC.shape[1:]), dtype=images_NHWC.dtype, device=device)
    for part_NHWC, rows_B in zip(torch.split(copy_NHWC, IMAGES_PER_COPY), torch.split(rows_N, IMAGES_PER_COPY), strict=True):
        part_NHWC.copy_(images_NHWC.index_select(0, rows_B))
    return copy_NHWC


def _as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing writes to it
        return torch.from_numpy(array)
