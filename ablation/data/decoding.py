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
from PIL import Image, ImageOps, UnidentifiedImageError

from ablation.data.arrays import READ_ERRORS, read_rows
from ablation.errors import DataError

# Only plain raster formats: Pillow's others run external programs (EPS) or are not photographs (PDF, MPEG).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
ENDINGS = re.compile(r"\.(jpe?g|jpe|jfif|a?png|gif|webp|bmp|dib|tiff?|p[pgbn]m|jp2|j2k|avif)", re.IGNORECASE)
MIN_FOR_PROCESSES = 200  # with fewer images, starting processes takes longer than it saves

Decoder: TypeAlias = "subprocess.Popen[str]"


Encoded: TypeAlias = str | Path | BytesIO | np.ndarray


class UnusableError(Exception):
    """An image that cannot be used, or a file of images that cannot be opened; the message says why."""


def crop(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized: the shorter side is kept whole, the longer one is cropped."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def pad(image: Image.Image, size: int) -> Image.Image:
    """The whole image with its longer side resized to `size`, centred on black."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (size, size))
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
    return square


def squash(image: Image.Image, size: int) -> Image.Image:
    """The whole image resized to a square, without keeping its proportions."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def exact(image: Image.Image, size: int) -> Image.Image:
    """The unchanged image; raises UnusableError if it has another size."""
    if image.size != (size, size):
        raise UnusableError(f"is {image.width} x {image.height} pixels; expected {size} x {size}")
    return image


FITS: Mapping[str, Callable[[Image.Image, int], Image.Image]] = MappingProxyType(
    {"crop": crop, "pad": pad, "squash": squash, "exact": exact}
)


def rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB: 16 bits scaled down, transparency over white, grey repeated in all channels.

    Pillow's own conversion clips 16-bit grey to white and shows the arbitrary colours of transparent pixels.
    """
    if image.mode == "F":
        raise UnusableError("has floating-point pixels; expected 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey_HW: np.ndarray) -> np.ndarray:
    levels_HW = grey_HW.astype(np.int64)
    if levels_HW.min() < 0 or levels_HW.max() > 65535:
        raise UnusableError("has grey values outside 0 ... 65535; expected 8 or 16 bits per channel")
    return ((levels_HW + 128) // 257).astype(np.uint8)


def pixels(encoded: Encoded, size: int, fit: str) -> np.ndarray:
    """The first frame of an image file, upright by its EXIF orientation, or an array of pixels, as size x size x 3 uint8."""
    if isinstance(encoded, np.ndarray):
        return np.asarray(FITS[fit](rgb(Image.fromarray(encoded)), size))
    with Image.open(encoded, formats=FORMATS) as image:
        # JPEG only: decode at a fraction of the size, but at no less than twice the size needed.
        image.draft(None, (2 * size, 2 * size))
        return np.asarray(FITS[fit](rgb(ImageOps.exif_transpose(image)), size))


@dataclass(frozen=True)
class Files:
    """Images that are files of their own."""

    start: int
    names: tuple[str, ...]
    paths: tuple[str, ...]
    size: int
    fit: str

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
def _pillow_warnings() -> Iterator[None]:
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


def decode(task: Task, target: Path) -> list[str]:
    """Decode the images of the task into the array at `target`; returns those that cannot be read, each with the reason."""
    images_NHWC = np.load(target, mmap_mode="r+")
    problems = []
    with _pillow_warnings():
        try:
            for i, (name, encoded) in enumerate(task.encoded(), start=task.start):
                try:
                    images_NHWC[i] = pixels(encoded, task.size, task.fit)
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
