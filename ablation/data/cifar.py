"""CIFAR-10 and CIFAR-100 from Python batches, parquet shards or class folders, or downloaded."""

# N images, H height, W width, C channels

import hashlib
import io
import json
import pickle
import re
import socket
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from filelock import FileLock

from ablation.data.cifar_variants import CIFAR10, CIFAR100, Variant, check_no_near_miss, other_in
from ablation.data.decoding import ShardRows
from ablation.data.files import source_of_entries
from ablation.data.folders import find_tree, split_folder_names
from ablation.data.source import TEST, TRAIN, Contents, SourceFiles
from ablation.errors import DataError

SIZE = 32
ROWS_PER_TASK = 2500
NETWORK_TIMEOUT = 10.0  # seconds without an answer
IMAGE_COLUMNS = ("img", "image")
PUBLISHED = "published training and test sets"
__all__ = ["CIFAR10", "CIFAR100", "ArrayUnpickler", "Variant", "download", "find"]


def find(variant: Variant, root: Path) -> SourceFiles:
    """The files of this data set in `root`, the original Python batches first; downloaded if there are none."""
    for files in _find_local(variant, root):
        return files
    check_no_near_miss(variant, root)
    download(variant, root)
    return next(_find_local(variant, root))


def _find_local(variant: Variant, root: Path) -> Iterator[SourceFiles]:
    yield from _find_batches(variant, root)
    yield from _find_archive(variant, root)
    yield from _find_shards(variant, root)
    yield from _find_class_folders(variant, root)


# --- python batches


def _find_batches(variant: Variant, root: Path) -> Iterator[SourceFiles]:
    names = list(variant.batches)
    for folder in (root / variant.folder, root):
        files = {name: folder / name for name in names if (folder / name).is_file()}
        if files:
            _check_complete(folder, names, files)
            yield SourceFiles(SIZE, tuple(files.items()), partial(_read_batches, variant, partial(_read_files, files)), PUBLISHED)
            return


def _read_files(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


def _find_archive(variant: Variant, root: Path) -> Iterator[SourceFiles]:
    path = root / variant.archive
    if path.is_file():
        yield SourceFiles(SIZE, ((path.name, path),), partial(_read_batches, variant, partial(_read_archive, variant, path)), PUBLISHED)


def _read_archive(variant: Variant, path: Path) -> dict[str, bytes]:
    """The batches, read from the archive in memory: an extracted file could be left half-written."""
    try:
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            files = {name: cast(Any, archive.extractfile(members[name])).read() for name in variant.batches if name in members}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{str(path)!r} is damaged ({error}); delete it to have it downloaded again") from None
    _check_complete(path, variant.batches, files)
    return files


def _check_complete(path: Path, expected: Sequence[str] | Mapping[str, object], files: Mapping[str, object]) -> None:
    missing = [name for name in expected if name not in files]
    if missing:
        raise DataError(f"{str(path)!r} lacks {', '.join(missing)}; expected {', '.join(expected)}")


def _read_batches(variant: Variant, load: Callable[[], Mapping[str, bytes]]) -> Contents:
    files = load()
    parts = []
    for name, (checksum, split) in variant.batches.items():
        batch = _read_batch(name, files[name], checksum)
        parts.append((_pixels(batch["data"]), batch[variant.batch_labels], batch["filenames"], split))
    labels_N = np.concatenate([np.asarray(labels, dtype=np.int64) for _, labels, _, _ in parts])
    return Contents(
        images=np.concatenate([images_NHWC for images_NHWC, _, _, _ in parts]),
        labels_N=labels_N,
        split_N=np.concatenate([np.full(len(labels), split, dtype=np.int8) for _, labels, _, split in parts]),
        group_N=np.arange(len(labels_N)),
        classes=variant.classes,
        names=[str(name) for _, _, names, _ in parts for name in names],
    )


def _pixels(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _read_batch(name: str, content: bytes, checksum: str) -> dict[str, Any]:
    """The content of a batch file, unpickled only if its checksum is that of the published file."""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
        raise DataError(f"{name} is not the published file (its MD5 checksum is not {checksum}); delete it to have it downloaded again")
    try:
        return cast(dict[str, Any], ArrayUnpickler(io.BytesIO(content), encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise DataError(f"{name} is not read: {error}") from None


def _dtype(code: str, align: object = False, copy: object = False) -> np.dtype[Any]:
    """The dtype. The published files give the flags as numbers, which NumPy no longer takes."""
    return np.dtype(code, align=bool(align), copy=bool(copy))


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that builds arrays, dtypes and plain values, and refuses everything else."""

    _reconstruct = staticmethod(np.empty(0).__reduce__()[0])  # type: ignore[arg-type]

    def find_class(self, module: str, name: str) -> Any:
        """The function that builds an array or a dtype, under its name in old and new NumPy."""
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return self._reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither an array nor a plain value")


# --- parquet shards


def _find_shards(variant: Variant, root: Path) -> Iterator[SourceFiles]:
    for folder in (root, root / "data", root / "plain_text", root / variant.name):
        train, test = _shard_paths(folder, "train"), _shard_paths(folder, "test")
        if train or test:
            if not (train and test):
                raise DataError(f"{str(folder)!r} has {len(train)} training and {len(test)} test shards; expected some of both")
            shards = ((TRAIN, train), (TEST, test))
            files = tuple((path.name, path) for _, paths in shards for path in paths)
            yield SourceFiles(SIZE, files, partial(_read_shards, variant, shards), PUBLISHED)
            return


def _shard_paths(folder: Path, split: str) -> list[Path]:
    """The split's shards in order; raises DataError if there are not as many as their names say."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    numbered = [match for match in (re.fullmatch(rf"{split}-\d+-of-(\d+)(-\w+)?\.parquet", path.name) for path in paths) if match]
    if numbered and len(paths) != int(numbered[0][1]):
        names = ", ".join(path.name for path in paths)
        raise DataError(f"{str(folder)!r} has {len(paths)} {split} shards, {names}; expected {int(numbered[0][1])}")
    return paths


@dataclass(frozen=True)
class Shard:
    """Everything in a shard but its images."""

    path: Path
    split: int
    row_groups: tuple[int, ...]
    image_column: str
    labels_N: np.ndarray
    names: list[str]
    classes: tuple[str, ...]


def _read_shards(variant: Variant, shards: Sequence[tuple[int, Sequence[Path]]]) -> Contents:
    parts = [_read_shard(variant, path, split) for split, paths in shards for path in paths]
    for part in parts:
        if part.classes != parts[0].classes:
            raise DataError(f"{part.path.name} and {parts[0].path.name} name different classes; expected the same in every shard")
    labels_N = np.concatenate([part.labels_N for part in parts])
    return Contents(
        images=tuple(_shard_tasks(parts)),
        labels_N=labels_N,
        split_N=np.concatenate([np.full(len(part.labels_N), part.split, dtype=np.int8) for part in parts]),
        group_N=np.arange(len(labels_N)),
        classes=parts[0].classes,
        names=[name for part in parts for name in part.names],
        original_order=False,  # the hub's shards keep the order of the archive, others are shuffled, and nothing in them says which
    )


def _read_shard(variant: Variant, path: Path, split: int) -> Shard:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as shard:
            columns = shard.schema_arrow.names
            image, label = _find_column(path, columns, IMAGE_COLUMNS), _find_column(path, columns, variant.shard_labels)
            table = shard.read(columns=[f"{image}.path", label])
            row_groups = tuple(shard.metadata.row_group(g).num_rows for g in range(shard.num_row_groups))
            hub_classes = _hub_class_names(shard.schema_arrow.metadata or {}, label)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is not a complete parquet file: {error}") from None
    classes = hub_classes or variant.classes
    if len(classes) != len(variant.classes):
        raise DataError(f"{str(path)!r} has {len(classes)} classes; expected the {len(variant.classes)} of {variant.title}")
    if {*classes} != {*variant.classes}:
        odd = next(name for name in classes if name not in variant.classes)
        raise DataError(
            f"{str(path)!r} has the class {odd!r}; expected the classes of {variant.title}: {', '.join(variant.classes[:3])} ..."
        )
    labels_N = _shard_labels(path, label, table.column(label).to_pylist())
    paths = [(row or {}).get("path") for row in table.column(image).to_pylist()] if image in table.column_names else [None] * len(labels_N)
    names = [name or f"{path.name}, row {i}" for i, name in enumerate(paths)]
    return Shard(path, split, row_groups, image, labels_N, names, classes)


def _find_column(path: Path, columns: Sequence[str], expected: Sequence[str]) -> str:
    for column in expected:
        if column in columns:
            return column
    raise DataError(f"{str(path)!r} has the columns {', '.join(columns)}; expected {' or '.join(expected)}")


def _shard_labels(path: Path, column: str, values: list[Any]) -> np.ndarray:
    invalid = [row for row, value in enumerate(values) if not isinstance(value, int)]
    if invalid:
        raise DataError(f"{str(path)!r} has {values[invalid[0]]!r} as {column} in row {invalid[0]}; expected a whole number")
    return np.array(values, dtype=np.int64)


def _hub_class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...]:
    """The class names that the Hugging Face hub writes into a shard's schema; empty if there are none."""
    try:
        return tuple(json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _shard_tasks(shards: Sequence[Shard]) -> Iterator[ShardRows]:
    start = 0
    for shard in shards:
        for row_group, num_rows in enumerate(shard.row_groups):
            for first in range(0, num_rows, ROWS_PER_TASK):
                count = min(ROWS_PER_TASK, num_rows - first)
                yield ShardRows(start, str(shard.path), row_group, first, count, shard.image_column, SIZE)
                start += count


# --- class folders


def _find_class_folders(variant: Variant, root: Path) -> Iterator[SourceFiles]:
    names = split_folder_names(root)
    if 2 * len(set(variant.classes) & {name for inner in names.values() for name in inner}) < len(variant.classes):
        return  # another data set's
    found = find_tree(root, "none")
    classes = {entry.label for entry in found.entries}
    if classes != set(variant.classes):
        missing, unknown = sorted(set(variant.classes) - classes), sorted(classes - set(variant.classes))
        problems = [f"lack {', '.join(missing)}"] * bool(missing) + [f"have the unknown {', '.join(unknown)}"] * bool(unknown)
        raise DataError(
            f"the class folders in {str(root)!r} {' and '.join(problems)}; expected {variant.title}'s {len(variant.classes)} classes"
        )
    if not any(entry.split == TEST for entry in found.entries):
        raise DataError(f"{str(root)!r} has {' and '.join(names)} and no folder of test images; expected test/CLASS/ beside it")
    yield source_of_entries(found, variant.classes, SIZE, "exact")


# --- download


def download(variant: Variant, root: Path) -> None:
    """Download the published archive with torchvision; it gets its name only after its checksum was verified."""
    import torchvision.datasets  # takes seconds to import, and is needed only here
    from torchvision.datasets.utils import download_url

    dataset_class = getattr(torchvision.datasets, variant.name.upper())
    old_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Where the lock keeps nobody off, two download the same, each in a folder of its own.
        with FileLock(root / f".{variant.name}.lock"), TemporaryDirectory(dir=root, prefix=".download-") as staging:
            if not (root / variant.archive).exists():  # otherwise another process was faster
                download_url(dataset_class.url, staging, variant.archive, dataset_class.tgz_md5)
                (Path(staging) / variant.archive).replace(root / variant.archive)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(_download_failure(variant, root, dataset_class.url, str(error))) from None
    finally:
        socket.setdefaulttimeout(old_timeout)


def _download_failure(variant: Variant, root: Path, url: str, reason: str) -> str:
    return (
        f"found no {variant.title} in {str(root)!r}, and its archive could not be downloaded ({reason})."
        f"{other_in(variant, root)} Expected there one of: "
        f"{variant.folder}/ or {variant.archive}, as its authors publish it ({url}); "
        f"parquet shards train-*.parquet and test-*.parquet, also in data/ or plain_text/; "
        f"class folders train/CLASS/ and test/CLASS/. A study whose quick profile uses the digits needs no data: --profile quick"
    )
