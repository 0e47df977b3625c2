"""CIFAR-10 and CIFAR-100 as they are found: python batches, parquet shards, class folders, or a download."""

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
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from filelock import FileLock

from ablation.data.decoding import ShardRows
from ablation.data.files import image_files, tree
from ablation.data.found import TEST, TRAIN, Contents, Found
from ablation.errors import DataError

SIZE = 32
ROWS_PER_TASK = 2500
NETWORK_TIMEOUT = 10.0  # seconds without an answer
IMAGE_COLUMNS = ("img", "image")

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar "
    "cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl "
    "hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom "
    "oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road "
    "rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclass(frozen=True)
class Kind:
    """What tells CIFAR-10 from CIFAR-100."""

    title: str
    name: str
    classes: tuple[str, ...]
    folder: str
    batches: Mapping[str, tuple[str, int]]  # the MD5 checksum and the split of each batch file, in the published order
    batch_labels: str
    shard_labels: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The file that the authors publish."""
        return f"{self.title.lower()}-python.tar.gz"


CIFAR10 = Kind(
    title="CIFAR-10",
    name="cifar10",
    classes=tuple(CIFAR10_CLASSES.split()),
    folder="cifar-10-batches-py",
    batches=MappingProxyType(
        {
            "data_batch_1": ("c99cafc152244af753f735de768cd75f", TRAIN),
            "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec", TRAIN),
            "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751", TRAIN),
            "data_batch_4": ("634d18415352ddfa80567beed471001a", TRAIN),
            "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb", TRAIN),
            "test_batch": ("40351d587109b95175f43aff81a1287e", TEST),
        }
    ),
    batch_labels="labels",
    shard_labels=("label",),
)
CIFAR100 = Kind(
    title="CIFAR-100",
    name="cifar100",
    classes=tuple(CIFAR100_CLASSES.split()),
    folder="cifar-100-python",
    batches=MappingProxyType(
        {"train": ("16019d7e3df5f24257cddd939b257f8d", TRAIN), "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", TEST)},
    ),
    batch_labels="fine_labels",
    shard_labels=("fine_label", "label"),
)


def find(kind: Kind, root: Path) -> Found:
    """What `root` has of this data set, the original python batches first; downloaded when there is nothing."""
    for found in _present(kind, root):
        return found
    download(kind, root)
    return next(_present(kind, root))


def _present(kind: Kind, root: Path) -> Iterator[Found]:
    yield from _batch_folder(kind, root)
    yield from _archive(kind, root)
    yield from _shards(kind, root)
    yield from _class_folders(kind, root)


# --- python batches


def _batch_folder(kind: Kind, root: Path) -> Iterator[Found]:
    names = list(kind.batches)
    for folder in (root / kind.folder, root):
        files = {name: folder / name for name in names if (folder / name).is_file()}
        if files:
            _all_there(folder, names, files)
            yield Found(SIZE, tuple(files.items()), partial(_read_batches, kind, partial(_bytes, files)))
            return


def _bytes(files: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


def _archive(kind: Kind, root: Path) -> Iterator[Found]:
    path = root / kind.archive
    if path.is_file():
        yield Found(SIZE, ((path.name, path),), partial(_read_batches, kind, partial(_unpacked, kind, path)))


def _unpacked(kind: Kind, path: Path) -> dict[str, bytes]:
    """The archive's batches, straight from it: nothing is extracted that could be left half-written."""
    try:
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            files = {name: cast(Any, archive.extractfile(members[name])).read() for name in kind.batches if name in members}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{str(path)!r} is damaged ({error}); delete it to have it downloaded again") from None
    _all_there(path, kind.batches, files)
    return files


def _all_there(place: Path, expected: Sequence[str] | Mapping[str, object], files: Mapping[str, object]) -> None:
    missing = [name for name in expected if name not in files]
    if missing:
        raise DataError(f"{str(place)!r} lacks {', '.join(missing)}; expected {', '.join(expected)}")


def _read_batches(kind: Kind, load: Callable[[], Mapping[str, bytes]]) -> Contents:
    files = load()
    parts = []
    for name, (checksum, split) in kind.batches.items():
        batch = _read_batch(name, files[name], checksum)
        parts.append((_pixels(batch["data"]), batch[kind.batch_labels], batch["filenames"], split))
    labels_N = np.concatenate([np.asarray(labels, dtype=np.int64) for _, labels, _, _ in parts])
    return Contents(
        images=np.concatenate([images_NHWC for images_NHWC, _, _, _ in parts]),
        labels_N=labels_N,
        split_N=np.concatenate([np.full(len(labels), split, dtype=np.int8) for _, labels, _, split in parts]),
        group_N=np.arange(len(labels_N)),
        classes=kind.classes,
        names=[str(name) for _, _, names, _ in parts for name in names],
    )


def _pixels(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _read_batch(name: str, content: bytes, checksum: str) -> dict[str, Any]:
    """A batch file unpickled, once it is known to be the published one."""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksum:
        raise DataError(f"{name} is not the published file (its MD5 checksum is not {checksum}); delete it to have it downloaded again")
    try:
        return cast(dict[str, Any], ArrayUnpickler(io.BytesIO(content), encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise DataError(f"{name} is not read: {error}") from None


def _dtype(kind: str, align: object = False, copy: object = False) -> np.dtype[Any]:
    """The dtype; the published files give the flags as numbers, which NumPy no longer takes."""
    return np.dtype(kind, align=bool(align), copy=bool(copy))


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that makes arrays, dtypes and plain values, and refuses everything else."""

    _reconstruct = staticmethod(np.empty(0).__reduce__()[0])  # type: ignore[arg-type]

    def find_class(self, module: str, name: str) -> Any:
        """The maker of arrays or dtypes, under the names that old and new NumPy give them."""
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return self._reconstruct
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is neither an array nor a plain value")


# --- parquet shards


def _shards(kind: Kind, root: Path) -> Iterator[Found]:
    for folder in (root, root / "data", root / "plain_text", root / kind.name):
        train, test = _shard_paths(folder, "train"), _shard_paths(folder, "test")
        if train or test:
            if not (train and test):
                raise DataError(f"{str(folder)!r} has {len(train)} training and {len(test)} test shards; expected some of both")
            shards = ((TRAIN, train), (TEST, test))
            yield Found(SIZE, tuple((path.name, path) for _, paths in shards for path in paths), partial(_read_shards, kind, shards))
            return


def _shard_paths(folder: Path, split: str) -> list[Path]:
    """The split's shards in their order, all of those that their names count."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    counted = [match for match in (re.fullmatch(rf"{split}-\d+-of-(\d+)(-\w+)?\.parquet", path.name) for path in paths) if match]
    if counted and len(paths) != int(counted[0][1]):
        found = ", ".join(path.name for path in paths)
        raise DataError(f"{str(folder)!r} has {len(paths)} {split} shards, {found}; expected {int(counted[0][1])}")
    return paths


@dataclass(frozen=True)
class Shard:
    """A shard's facts: all but its images."""

    path: Path
    split: int
    row_groups: tuple[int, ...]
    image_column: str
    labels_N: np.ndarray
    names: list[str]
    classes: tuple[str, ...]


def _read_shards(kind: Kind, shards: Sequence[tuple[int, Sequence[Path]]]) -> Contents:
    parts = [_read_shard(kind, path, split) for split, paths in shards for path in paths]
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
        original_order=False,  # the hub's shards follow the archive's order of files, others are shuffled; nothing in them tells
    )


def _read_shard(kind: Kind, path: Path, split: int) -> Shard:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as shard:
            columns = shard.schema_arrow.names
            image, label = _column(path, columns, IMAGE_COLUMNS), _column(path, columns, kind.shard_labels)
            facts = shard.read(columns=[f"{image}.path", label])
            row_groups = tuple(shard.metadata.row_group(g).num_rows for g in range(shard.num_row_groups))
            classes = _class_names(shard.schema_arrow.metadata or {}, label) or kind.classes
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is no whole parquet file: {error}") from None
    if len(classes) != len(kind.classes):
        raise DataError(f"{str(path)!r} has {len(classes)} classes; expected the {len(kind.classes)} of {kind.title}")
    labels_N = _shard_labels(path, label, facts.column(label).to_pylist())
    named = [(row or {}).get("path") for row in facts.column(image).to_pylist()] if image in facts.column_names else [None] * len(labels_N)
    names = [name or f"{path.name}, row {i}" for i, name in enumerate(named)]
    return Shard(path, split, row_groups, image, labels_N, names, classes)


def _column(path: Path, columns: Sequence[str], expected: Sequence[str]) -> str:
    for column in expected:
        if column in columns:
            return column
    raise DataError(f"{str(path)!r} has the columns {', '.join(columns)}; expected {' or '.join(expected)}")


def _shard_labels(path: Path, column: str, values: list[Any]) -> np.ndarray:
    wrong = [row for row, value in enumerate(values) if not isinstance(value, int)]
    if wrong:
        raise DataError(f"{str(path)!r} has {values[wrong[0]]!r} as {column} in row {wrong[0]}; expected a whole number")
    return np.array(values, dtype=np.int64)


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...]:
    """The class names that the hub writes into a shard's schema, or none."""
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


def _class_folders(kind: Kind, root: Path) -> Iterator[Found]:
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        return
    entries = tree(root, "none")
    classes = {entry.label for entry in entries}
    if classes != set(kind.classes):
        missing, unknown = sorted(set(kind.classes) - classes), sorted(classes - set(kind.classes))
        told = [f"lack {', '.join(missing)}"] * bool(missing) + [f"have the unknown {', '.join(unknown)}"] * bool(unknown)
        raise DataError(f"the class folders in {str(root)!r} {' and '.join(told)}; expected {kind.title}'s {len(kind.classes)} classes")
    yield image_files(entries, kind.classes, SIZE, "exact")


# --- download


def download(kind: Kind, root: Path) -> None:
    """Torchvision's download of the published archive, moved to its name once its checksum is right."""
    import torchvision.datasets  # seconds to import, and needed here only
    from torchvision.datasets.utils import download_url

    published = getattr(torchvision.datasets, kind.name.upper())
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{kind.name}.lock"), TemporaryDirectory(dir=root, prefix=".download-") as staging:
            if not (root / kind.archive).exists():  # else another process was faster
                download_url(published.url, staging, kind.archive, published.tgz_md5)
                (Path(staging) / kind.archive).replace(root / kind.archive)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(_ways_out(kind, root, published.url, str(error))) from None
    finally:
        socket.setdefaulttimeout(before)


def _ways_out(kind: Kind, root: Path, url: str, reason: str) -> str:
    return (
        f"found no {kind.title} in {str(root)!r}, and its archive could not be downloaded ({reason}). Expected there one of: "
        f"{kind.folder}/ or {kind.archive}, as its authors publish it ({url}); "
        f"parquet shards train-*.parquet and test-*.parquet, also in data/ or plain_text/; "
        f"class folders train/CLASS/ and test/CLASS/. A study whose quick profile uses the digits needs no data: --profile quick"
    )
