"""The cache of decoded images on disk: written once, whole or not at all, and opened as memory maps."""

# N images, H height, W width, C channels

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from filelock import FileLock

from ablation.data.decoding import decode_all
from ablation.data.source import Contents, Source, SourceFiles, join_lines, printable
from ablation.errors import DataError
from ablation.techniques.technique import Technique, technique_name

FORMAT = 1
META = "meta.json"
DIGEST_CHUNK = 4096  # images hashed at a time
NOT_DECODING = {"validation", "longtail"}  # settings that change neither pixels nor labels; `Source.places` do not either
LIBRARIES = ("pillow", "scikit-learn")  # whose versions can change the pixels
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Names(Sequence[str]):
    """The names of the images, decoded one at a time from a memory map."""

    text: np.ndarray
    ends_N: np.ndarray

    def __len__(self) -> int:
        return len(self.ends_N)

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> list[str]: ...

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        index = range(len(self))[i]
        start = int(self.ends_N[index - 1]) if index else 0
        return bytes(self.text[start : int(self.ends_N[index])]).decode(errors="surrogateescape")


@dataclass(frozen=True)
class Dataset:
    """The whole decoded source; the pixels are memory-mapped."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    split_N: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    digest: str
    names: Sequence[str]
    original_order: bool = True


def prepare(source: Technique, image_size: int, base: Path, cache: Path, progress: Progress) -> Path:
    """The folder under `cache` that holds the decoded source. One process decodes it now, unless that was done before."""
    name = technique_name(type(source))
    try:
        source_files = cast(Source, source)(base, image_size)
        states, problems = _file_states(source_files)
        folder = cache / f"{name}-{fingerprint(cast(Source, source), source_files, states)}"
        if _is_complete(folder):
            return folder
        if problems:  # before hours of decoding the other files
            raise DataError(f"{len(problems)} of {len(source_files.files)} files cannot be read:\n  {join_lines(problems)}")
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_complete(folder):
                _build(source_files, folder, name, progress)
    except OSError as error:
        raise DataError(f"the data {name} cannot be read, or not be written to {str(cache)!r}: {error}") from None
    return folder


def open_dataset(folder: Path) -> Dataset:
    """The decoded source in `folder`, as `prepare` wrote it."""
    if not _is_complete(folder):
        raise DataError(f"{folder} holds no complete decoded source; expected a folder that was just prepared")
    meta = _meta(folder)
    return Dataset(
        images_NHWC=np.load(folder / "images.npy", mmap_mode="r"),
        labels_N=np.load(folder / "labels.npy"),
        split_N=np.load(folder / "split.npy"),
        group_N=np.load(folder / "group.npy"),
        classes=tuple(meta["classes"]),
        digest=meta["digest"],
        names=Names(np.load(folder / "names.npy", mmap_mode="r"), np.load(folder / "name_ends.npy", mmap_mode="r")),
        original_order=meta["original_order"],
    )


def fingerprint(source: Source, source_files: SourceFiles, states: Sequence[str]) -> str:
    """16 hex digits that change with the name or state of any file, and with any setting that decoding depends on."""
    settings = source.model_dump(mode="json", exclude=NOT_DECODING | source.places)
    decoding = {"format": FORMAT, "size": source_files.size, "settings": settings, "libraries": [version(name) for name in LIBRARIES]}
    sha256 = hashlib.sha256(json.dumps(decoding, sort_keys=True).encode())
    for (name, _), state in zip(source_files.files, states, strict=True):
        sha256.update(f"\0{name}\0{state}".encode(errors="surrogateescape"))
    return sha256.hexdigest()[:16]


def _file_states(source_files: SourceFiles) -> tuple[list[str], list[str]]:
    """The size and time of each file, and the problems of those that cannot be found; calls `stat` once per file."""
    states, problems = [], []
    for name, path in source_files.files:
        try:
            state = os.stat(path)
            states.append(f"{state.st_size} {state.st_mtime_ns}")
        except OSError as error:
            states.append("missing")
            problems.append(f"{name}: {error.strerror}")
    return states, problems


def _meta(folder: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((folder / META).read_text(encoding="utf-8")))


def _is_complete(folder: Path) -> bool:
    """Whether the folder has the metadata, which is written last, in this format, and every other file at its full size."""
    try:
        meta = _meta(folder)
        return bool(meta["format"] == FORMAT and all((folder / name).stat().st_size == size for name, size in meta["files"].items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _build(source_files: SourceFiles, folder: Path, name: str, progress: Progress) -> None:
    """Write the folder under another name and then rename it, so that a half-written one never has its name."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        contents = source_files.read()
        _check_contents(contents)
        shape = (len(contents.labels_N), source_files.size, source_files.size, 3)
        _check_space(math.prod(shape), partial.parent)
        message = f"decoding {name} into {_format_bytes(math.prod(shape))}"
        progress(message, 0, len(contents.labels_N))  # says how much disk space it will take
        partial.mkdir()
        _write(contents, shape, partial, lambda done, total: progress(message, done, total))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_contents(contents: Contents) -> None:
    if len(contents.labels_N) == 0:
        raise DataError("the source has no images")
    for name in contents.classes:
        if printable(name) != name:
            raise DataError(f"found the class name '{printable(name)}'; expected text in UTF-8 that can be printed on one line")
    invalid = np.flatnonzero((contents.labels_N < 0) | (contents.labels_N >= len(contents.classes)))
    if len(invalid):
        i = int(invalid[0])
        raise DataError(
            f"image {contents.names[i]!r} has the label {contents.labels_N[i]}; expected 0 to {len(contents.classes) - 1}, "
            f"one of {len(contents.classes)} classes"
        )


def _check_space(needed: int, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:  # writing to a memory map on a full disk kills the process without a message
        raise DataError(f"the decoded images need {_format_bytes(needed)}; {cache} has {_format_bytes(free)} left")


def _format_bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{math.ceil(size / 2**20)} MiB"


def _write(contents: Contents, shape: tuple[int, int, int, int], folder: Path, progress: Callable[[int, int], None]) -> None:
    _write_images(contents.images, shape, folder / "images.npy", progress)
    for name, values in _small_arrays(contents):
        np.save(folder / f"{name}.npy", values)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    for name in files:
        _sync_to_disk(folder / name)
    meta = {"format": FORMAT, "classes": contents.classes, "original_order": contents.original_order, "files": files}
    _write_meta(folder, {**meta, "digest": _digest(contents, folder / "images.npy")})


def _small_arrays(contents: Contents) -> Iterator[tuple[str, np.ndarray]]:
    yield "labels", contents.labels_N.astype(np.int64)
    yield "split", contents.split_N.astype(np.int8)
    yield "group", contents.group_N.astype(np.int64)
    encoded = [name.encode(errors="surrogateescape") for name in contents.names]
    yield "names", np.frombuffer(b"".join(encoded), dtype=np.uint8)
    yield "name_ends", np.cumsum([len(name) for name in encoded], dtype=np.int64)


def _write_images(images: Any, shape: tuple[int, int, int, int], target: Path, progress: Callable[[int, int], None]) -> None:
    images_NHWC = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    if isinstance(images, np.ndarray):
        images_NHWC[:] = images
        progress(len(images), len(images))
        return
    problems = decode_all(images, target, progress)
    if problems:
        raise DataError(f"{len(problems)} of {len(images_NHWC)} images cannot be read:\n  {join_lines(problems)}")


def _sync_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    partial = folder / f"{META}.partial"
    partial.write_text(json.dumps(meta), encoding="utf-8")
    _sync_to_disk(partial)
    partial.replace(folder / META)


def _digest(contents: Contents, images: Path) -> str:
    """The sha256 of pixels, labels, splits, groups and class names."""
    images_NHWC = np.load(images, mmap_mode="r")
    sha256 = hashlib.sha256(json.dumps([images_NHWC.shape, contents.classes]).encode())
    for values, dtype in ((contents.labels_N, "<i8"), (contents.split_N, "<i1"), (contents.group_N, "<i8")):
        sha256.update(values.astype(dtype).tobytes())
    for start in range(0, len(images_NHWC), DIGEST_CHUNK):
        sha256.update(images_NHWC[start : start + DIGEST_CHUNK].tobytes())
    return sha256.hexdigest()
