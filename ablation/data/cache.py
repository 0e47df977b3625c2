"""The cache of decoded images on disk: written once, whole or not at all, and opened as memory maps."""

# N images, H height, W width, C channels

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast, overload

import numpy as np
from filelock import FileLock

from ablation.data.copies import join_equal_jpegs
from ablation.data.decoding import decode_all, inspections, make_targets
from ablation.data.drawing import joined_groups, take_test
from ablation.data.raster import inspect_array
from ablation.data.source import MAX_LISTED, Contents, Source, SourceFiles, join_lines, printable
from ablation.errors import DataError, os_words
from ablation.system.code import class_code
from ablation.system.files import sweep, to_disk
from ablation.system.identity import host
from ablation.techniques.technique import Technique, technique_name

FORMAT = 5
UNREADABLE = "unreadable.txt"  # beside the decoded data: the files or images that could not be read, where they were many
META = "meta.json"
DIGEST_CHUNK = 4096  # images hashed at a time
NOT_DECODING = {"validation", "longtail"}  # settings that change neither pixels nor labels; `Source.places` do not either
SAMPLED_FILES = 128  # whose content is looked at, at most
SAMPLED_BLOCKS = 384  # of all these files, at least three of each
BLOCK_BYTES = 4096
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
    """The whole decoded source; the pixels are memory-mapped. `inspections_N` has what was noticed of each image when it was decoded."""

    images_NHWC: np.ndarray
    inspections_N: np.ndarray
    labels_N: np.ndarray
    split_N: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    digest: str
    names: Sequence[str]
    original_order: bool = True
    drawn_test: float = 0.0  # the fraction of the training images that became the test images


def prepare(source: Technique, image_size: int, base: Path, cache: Path, progress: Progress) -> Path:
    """The folder under `cache` that holds the decoded source. One process decodes it now, unless that was done before."""
    return prepare_files(source, find_files(source, image_size, base), cache, progress)


def find_files(source: Technique, image_size: int, base: Path) -> SourceFiles:
    """The files of the source, not yet read."""
    try:
        return cast(Source, source)(base, image_size)
    except OSError as error:
        raise DataError(f"the data {technique_name(type(source))} cannot be read: {error}") from None


def prepare_files(source: Technique, source_files: SourceFiles, cache: Path, progress: Progress) -> Path:
    """The same as `prepare`, for files that were found before."""
    name = technique_name(type(source))
    try:
        states, problems = _file_states(source_files)
        folder = cache / f"{name}-{fingerprint(cast(Source, source), source_files, states)}"
        if _is_complete(folder):
            return folder
        if problems:  # before hours of decoding the other files
            raise _unreadable(problems, f"{len(source_files.files)} files", cache)
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_complete(folder):
                _build(source_files, folder, name, progress)
    except OSError as error:
        raise DataError(f"the data {name} cannot be read, or not be written to {str(cache)!r}: {os_words(error)}") from None
    return folder


def open_dataset(folder: Path) -> Dataset:
    """The decoded source in `folder`, as `prepare` wrote it."""
    if not _is_complete(folder):
        raise DataError(f"{folder} holds no complete decoded source; expected a folder that was just prepared")
    meta = _meta(folder)
    return Dataset(
        images_NHWC=np.load(folder / "images.npy", mmap_mode="r"),
        inspections_N=np.load(folder / "inspections.npy", mmap_mode="r"),
        labels_N=np.load(folder / "labels.npy"),
        split_N=np.load(folder / "split.npy"),
        group_N=np.load(folder / "group.npy"),
        classes=tuple(meta["classes"]),
        digest=meta["digest"],
        names=Names(np.load(folder / "names.npy", mmap_mode="r"), np.load(folder / "name_ends.npy", mmap_mode="r")),
        original_order=meta["original_order"],
        drawn_test=meta["drawn_test"],
    )


def fingerprint(source: Source, source_files: SourceFiles, states: Sequence[str]) -> str:
    """16 hex digits that change with any setting that decoding depends on, and with the files: their names, states, place and content.

    Of the content a sample is read: names, sizes and times of two data sets can be the same, as when both come out of an archive.
    """
    settings = source.model_dump(mode="json", exclude=NOT_DECODING | source.places)
    code = "" if type(source).__module__.startswith("ablation.") else class_code(type(source))
    versions = [version(name) for name in LIBRARIES]
    decoding = {"format": FORMAT, "size": source_files.size, "settings": settings, "libraries": versions, "code": code}
    sha256 = hashlib.sha256(json.dumps(decoding, sort_keys=True).encode())
    for (name, _), state in zip(source_files.files, states, strict=True):
        sha256.update(f"\0{name}\0{state}".encode(errors="surrogateescape"))
    sha256.update(source_files.listed.encode())
    paths = [path for _, path in source_files.files]
    for place in sorted({os.path.realpath(folder) for folder in {path.parent for path in paths}}):
        sha256.update(f"\0{place}".encode(errors="surrogateescape"))
    for block in _sample(paths):
        sha256.update(block)
    return sha256.hexdigest()[:16]


def _sample(paths: Sequence[Path]) -> Iterator[bytes]:
    """Blocks from the beginning, the end and between, of files that are evenly spread over all of them."""
    sampled = paths[:: math.ceil(len(paths) / SAMPLED_FILES)] if paths else []
    for path in sampled:
        try:
            with path.open("rb") as file:
                yield from _blocks(file, os.fstat(file.fileno()).st_size, max(3, SAMPLED_BLOCKS // len(sampled)))
        except OSError as error:  # told elsewhere if the file is needed
            yield str(error.errno).encode()


def _blocks(file: IO[bytes], size: int, count: int) -> Iterator[bytes]:
    last = max(0, size - BLOCK_BYTES)
    for start in dict.fromkeys(last * i // (count - 1) for i in range(count)):
        file.seek(start)
        yield file.read(BLOCK_BYTES)


def _file_states(source_files: SourceFiles) -> tuple[list[str], list[str]]:
    """The size and times of each file, and the problems of those that cannot be found; calls `stat` once per file.

    The time of the last change of any kind (ctime) cannot be set, as that of the content (mtime) is by tools that unpack or copy.
    """
    states, problems = list[str](), list[str]()
    for name, path in source_files.files:
        try:
            state = os.stat(path)
            states.append(f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}")
        except OSError as error:
            states.append("missing")
            problems.append(f"{name}: {error.strerror}{'' if problems else _beside(path)}")
    return states, problems


def _beside(path: Path) -> str:
    """A file that is called like one that is not there, but for its ending or case; or nothing."""
    stem = path.name.casefold(), path.stem.casefold()
    try:
        alike = [one for one in os.listdir(path.parent) if one != path.name and os.path.splitext(one)[0].casefold() in stem]
    except OSError:
        return ""
    return f"; {min(alike)!r} is there: expected the name as the file has it" if alike else ""


def _unreadable(problems: Sequence[str], number: str, cache: Path) -> DataError:
    """What cannot be read, the first by name; of many, all are in a file."""
    listed, file = join_lines(problems), cache / UNREADABLE
    with contextlib.suppress(OSError):  # the first are named all the same
        file.unlink(missing_ok=True)
        if len(problems) > MAX_LISTED:
            cache.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([*map(printable, problems), ""]), encoding="utf-8")
            listed = f"{listed}; all of them are in {str(file)!r}"
    return DataError(f"{len(problems)} of {number} cannot be read:\n  {listed}")


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
    """Write the folder under another name and then rename it, so that a half-written one never has its name.

    The name is of this host, within which the lock keeps others off: where it does not between hosts, each decodes, and the first counts.
    """
    partial = folder.with_name(f"{folder.name}.{host()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    sweep(folder.parent, f"{folder.name}.*.partial")
    try:
        contents = source_files.read()
        _check_contents(contents)
        shape = (len(contents.labels_N), source_files.size, source_files.size, 3)
        _check_space(math.prod(shape), partial.parent)
        message = f"decoding {name} into {_format_bytes(math.prod(shape))}"
        progress(message, 0, len(contents.labels_N))  # says how much disk space it will take
        partial.mkdir()
        _write(contents, shape, partial, lambda done, total: progress(message, done, total))
        if not _is_complete(folder):
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
    if contents.test:
        group_N = joined_groups(contents.group_N, np.load(folder / "inspections.npy"))
        contents = replace(contents, split_N=take_test(contents.labels_N, contents.split_N, group_N, contents.test))
    for name, values in _small_arrays(contents):
        np.save(folder / f"{name}.npy", values)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    for name in files:
        to_disk(folder / name)
    meta = {"format": FORMAT, "classes": contents.classes, "original_order": contents.original_order, "drawn_test": contents.test}
    _write_meta(folder, {**meta, "files": files, "digest": _digest(contents, folder / "images.npy")})


def _small_arrays(contents: Contents) -> Iterator[tuple[str, np.ndarray]]:
    yield "labels", contents.labels_N.astype(np.int64)
    yield "split", contents.split_N.astype(np.int8)
    yield "group", contents.group_N.astype(np.int64)
    encoded = [name.encode(errors="surrogateescape") for name in contents.names]
    yield "names", np.frombuffer(b"".join(encoded), dtype=np.uint8)
    yield "name_ends", np.cumsum([len(name) for name in encoded], dtype=np.int64)


def _write_images(images: Any, shape: tuple[int, int, int, int], target: Path, progress: Callable[[int, int], None]) -> None:
    make_targets(target, *shape[:2])
    if isinstance(images, np.ndarray):
        np.load(target, mmap_mode="r+")[:] = images
        np.load(inspections(target), mmap_mode="r+")[:] = [inspect_array(image_HWC) for image_HWC in images]
        progress(len(images), len(images))
        return
    problems = decode_all(images, target, progress)
    if problems:
        raise _unreadable(problems, f"{shape[0]} images", target.parent.parent)
    join_equal_jpegs(images, np.load(inspections(target), mmap_mode="r+"))


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    partial = folder / f"{META}.partial"
    partial.write_text(json.dumps(meta), encoding="utf-8")
    to_disk(partial)
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
