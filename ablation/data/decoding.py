"""Decoding images to uint8 pixels on all cores, straight into one memory-mapped array."""

# N images, H height, W width, C channels. Nothing here imports torch: every decoding process would pay for it.

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import IO, TypeAlias, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from ablation.data.arrays import READ_ERRORS, read_rows
from ablation.data.raster import FULL_RANGE, INSPECTION, Encoded, Range, UnusableError, read_image
from ablation.errors import DataError

ENDINGS = re.compile(r"\.(jpe?g|jpe|jfif|a?png|gif|webp|bmp|dib|tiff?|p[pgbn]m|jp2|j2k|avif)", re.IGNORECASE)
MIN_FOR_PROCESSES = 200  # with fewer images, starting processes takes longer than it saves

Decoder: TypeAlias = "subprocess.Popen[str]"


@dataclass(frozen=True)
class Files:
    """Images that are files of their own."""

    start: int
    names: tuple[str, ...]
    paths: tuple[str, ...]
    size: int
    fit: str
    value_range: Range = FULL_RANGE

    def __len__(self) -> int:
        return len(self.names)

    def encoded(self) -> Iterator[tuple[str, Encoded]]:
        """Each file's name and path."""
        return zip(self.names, self.paths, strict=True)


@dataclass(frozen=True)
class ShardRows:
    """Rows of one row group of a parquet shard, whose image column is a struct with `bytes`."""

    start: int
    path: str
    row_group: int
    first: int
    count: int
    column: str
    size: int
    fit: str = "exact"

    def __len__(self) -> int:
        return self.count

    def encoded(self) -> Iterator[tuple[str, Encoded]]:
        """Each row's name and bytes; a missing image is empty bytes."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as shard:
            rows = shard.read_row_group(self.row_group, columns=[f"{self.column}.bytes"])
        for i, row in enumerate(rows.column(self.column).slice(self.first, self.count).to_pylist()):
            yield f"{Path(self.path).name}, row group {self.row_group}, row {self.first + i}", BytesIO((row or {}).get("bytes") or b"")


@dataclass(frozen=True)
class ArrayRows:
    """All rows of an array in an .npz file, each a grey or an RGB image."""

    start: int
    path: str
    array: str
    count: int
    size: int
    fit: str

    def __len__(self) -> int:
        return self.count

    def encoded(self) -> Iterator[tuple[str, Encoded]]:
        """Each row's name and pixels."""
        try:
            for i, row_HWC in enumerate(read_rows(Path(self.path), self.array)):
                yield f"{self.array}[{i}]", row_HWC[..., 0] if row_HWC.shape[2:] == (1,) else row_HWC
        except (*READ_ERRORS, OSError) as error:
            raise UnusableError(f"{self.array} in {self.path}: {error}") from None


Task: TypeAlias = Files | ShardRows | ArrayRows
TASKS: Mapping[str, type[Task]] = MappingProxyType({"Files": Files, "ShardRows": ShardRows, "ArrayRows": ArrayRows})


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Make Pillow's warning of decompression bombs an error, and ignore its other warnings, which concern only metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reason(error: Exception) -> str:
    match error:
        case UnusableError():
            return str(error)
        case UnidentifiedImageError():
            return "is not an image in a known format"
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return f"has more than {Image.MAX_IMAGE_PIXELS} pixels"
        case OSError(strerror=str(message)):
            return message
        case _:
            return str(error) or type(error).__name__


def make_targets(target: Path, num_images: int, size: int) -> None:
    """Make the two arrays that `decode` writes into."""
    np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(num_images, size, size, 3))
    np.lib.format.open_memmap(inspections(target), mode="w+", dtype=INSPECTION, shape=(num_images,))


def inspections(target: Path) -> Path:
    """The array of inspections that belongs to an array of images."""
    return target.with_name("inspections.npy")


def decode(task: Task, target: Path) -> list[str]:
    """Decode the images of the task into the array at `target`, and what was noticed of them into the one of `inspections` beside it.

    Returns the images that cannot be read, each with the reason.
    """
    images_NHWC, inspections_N = np.load(target, mmap_mode="r+"), np.load(inspections(target), mmap_mode="r+")
    value_range = getattr(task, "value_range", FULL_RANGE)
    problems = []
    with pillow_warnings():
        try:
            for i, (name, encoded) in enumerate(task.encoded(), start=task.start):
                try:
                    images_NHWC[i], inspections_N[i] = read_image(encoded, task.size, task.fit, value_range)
                except Exception as error:  # Pillow's parsers raise almost anything on a broken file
                    problems.append(f"{name}: {_reason(error)}")
        except UnusableError as error:
            problems.append(str(error))
        except Exception as error:  # from Arrow or zipfile, about the whole file and not one image
            problems.append(f"{Path(getattr(task, 'path', '') or getattr(task, 'file', '')).name or 'a file'}: {_reason(error)}")
    return problems


def decode_all(tasks: Sequence[Task], target: Path, progress: Callable[[int, int], None]) -> list[str]:
    """Decode all tasks; returns every unreadable image, in order. `progress` receives the number of images done and the total."""
    total = sum(len(task) for task in tasks)
    if total < MIN_FOR_PROCESSES:
        problems = [problem for task in tasks for problem in decode(task, target)]
        progress(total, total)
        return problems
    return _decode_on_all_cores(tasks, target, progress, total)


def _decode_on_all_cores(tasks: Sequence[Task], target: Path, progress: Callable[[int, int], None], total: int) -> list[str]:
    decoders = [_start_decoder() for _ in range(min(num_cores(), len(tasks)))]
    idle_decoders: SimpleQueue[Decoder] = SimpleQueue()
    for decoder in decoders:
        idle_decoders.put(decoder)
    pool = ThreadPoolExecutor(len(decoders))
    try:
        futures = {pool.submit(_decode_in_process, idle_decoders, task, target): len(task) for task in tasks}
        done = 0
        for future in as_completed(futures):
            future.result()
            done += futures[future]
            progress(done, total)
        return [problem for future in futures for problem in future.result()]
    finally:
        for decoder in decoders:
            decoder.kill()
        pool.shutdown(cancel_futures=True)
        for decoder in decoders:
            _close_decoder(decoder)


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_decoder() -> Decoder:
    """A process that runs `serve`.

    Multiprocessing would not do: forked children of a process with threads can hang, and spawned ones import the user's script
    again. This process ends when its pipe closes, so with its parent, however that ends. In its own session it receives no Ctrl-C.
    """
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-c", "from ablation.data.decoding import serve; serve()"]
    environment = {**os.environ, "PYTHONPATH": paths}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True, text=True, encoding="ascii")


def _close_decoder(decoder: Decoder) -> None:
    decoder.wait()
    cast(IO[str], decoder.stdout).close()
    with suppress(BrokenPipeError):  # a task that it never read
        cast(IO[str], decoder.stdin).close()


def serve() -> None:
    """Decode the tasks from standard input, one a line, until it closes; the answer to each is a line with its problems."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        message = json.loads(line)
        problems = decode(TASKS[message["kind"]](**message["task"]), Path(message["target"]))
        print(json.dumps(problems), file=answers, flush=True)


def _decode_in_process(idle_decoders: SimpleQueue[Decoder], task: Task, target: Path) -> list[str]:
    """Send the task to an idle decoder; returns the images that it could not read."""
    decoder = idle_decoders.get()
    try:
        message = {"kind": type(task).__name__, "task": asdict(task), "target": str(target)}
        print(json.dumps(message), file=decoder.stdin, flush=True)
        return cast(list[str], json.loads(cast(IO[str], decoder.stdout).readline()))
    except (ValueError, OSError):  # an incomplete answer, or a closed pipe
        last = task.start + len(task) - 1
        raise DataError(
            f"the process that decoded images {task.start} to {last} was ended from outside, often because memory ran out"
        ) from None
    finally:
        idle_decoders.put(decoder)
