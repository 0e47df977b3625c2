"""Images and labels as arrays in one .npz file, as MedMNIST publishes them."""

# N images, H height, W width, C = 3 channels

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np

from ablation.data.arrays import Header, array_names, read_array, read_header
from ablation.data.decoding import ArrayRows
from ablation.data.files import drawn, drawn_remark, unused_remark
from ablation.data.naming import check_numbers, quoted, split_of
from ablation.data.source import TEST, TRAIN, Contents, SourceFiles
from ablation.errors import DataError, nearest

IMAGES, LABELS = "images", "labels"
KINDS = {"images": IMAGES, "imgs": IMAGES, "x": IMAGES, "labels": LABELS, "targets": LABELS, "y": LABELS}
FOREIGN_KINDS = re.compile(r"(groups?|patients?|subjects?)(ids?)?")  # what images have, and is not read


@dataclass(frozen=True)
class Part:
    """The arrays of a split."""

    split: int
    images: str
    labels: str
    shape: tuple[int, ...]


def find(file: Path, classes: tuple[str, ...], image_size: int, fit: str, test: float) -> SourceFiles:
    """The images of the file, unchanged if all are squares of one size up to `image_size`, else fitted to `image_size`."""
    available = array_names(file)
    arrays = _arrays(file, available)
    splits = sorted({TRAIN, *(split for split, _ in arrays)})
    parts = [_checked_part(file, split, arrays, available) for split in splits]
    _check_no_near_miss(file, set(available) - set(arrays.values()), parts)
    height = parts[0].shape[1]
    is_kept = {part.shape[1:3] for part in parts} == {(height, height)} and height <= image_size
    size = height if is_kept else image_size
    fraction = 0.0 if TEST in splits else test
    origin = "; ".join(filter(None, (_origin(parts), drawn(fraction, has_splits=len(parts) > 1))))
    read = partial(_read_contents, file, parts, classes, size, fit, fraction)
    remarks = (*_remarks(available), *drawn_remark(splits), *unused_remark(fraction, test))
    return SourceFiles(size, ((file.name, file),), read, origin, remarks)


def _arrays(file: Path, available: Sequence[str]) -> dict[tuple[int, str], str]:
    """The array of each split and kind: train_images, X_train, valid-labels ..."""
    arrays: dict[tuple[int, str], str] = {}
    for name in available:
        place = _meaning(name)
        first = arrays.setdefault(place, name) if place else name
        if first != name:
            raise DataError(f"{str(file)!r} has the arrays {first!r} and {name!r}, which mean the same; expected one of them")
    return arrays


def _meaning(name: str) -> tuple[int, str] | None:
    """The split and the kind that the name of an array has, in either order; None if it has not both."""
    letters = re.sub(r"[\W_]", "", name).casefold()
    for word, kind in KINDS.items():
        for rest in {letters.removesuffix(word), letters.removeprefix(word)} - {letters}:
            split = split_of(rest)
            if split is not None:
                return split, kind
    return None


def _check_no_near_miss(file: Path, unused: Iterable[str], parts: Sequence[Part]) -> None:
    """Raise DataError for an array of the form of images or labels, called nearly like one of a split or after a split without others."""
    splits = [part.split for part in parts]
    known = [f"{split}_{kind}" for split in ("train", "val", "test") for kind in (IMAGES, LABELS)]
    for name in sorted(unused):
        words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
        near = get_close_matches(name.casefold(), known, 1, cutoff=0.8)
        is_lost = any(split_of(word) not in (None, *splits) for word in words)
        if (near or is_lost or (len(words) == 2 and IMAGES in map(KINDS.get, words))) and _has_their_form(file, name, parts):
            raise DataError(
                f"{str(file)!r} has the array {name!r}, which is not read; expected train_images, val_images, test_images and "
                f"their labels, and no others of the kind.{f' Did you mean {near[0]!r}?' if near else ''}"
            )


def _has_their_form(file: Path, name: str, parts: Sequence[Part]) -> bool:
    """Whether an array has as many dimensions as the images, unlike a mean, or one value for each image of a split."""
    try:
        shape = read_header(file, name).shape
    except DataError:  # of objects, or damaged: no image is lost
        return False
    is_images = len(shape) == len(parts[0].shape) and shape[0] != 1
    return is_images or any(shape in ((part.shape[0],), (part.shape[0], 1)) for part in parts)


def _origin(parts: Sequence[Part]) -> str:
    names = [part.images for part in parts]
    return f"arrays {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""


def _remarks(available: Sequence[str]) -> Iterator[str]:
    names = [name for name in available if any(FOREIGN_KINDS.fullmatch(word) for word in re.split(r"[\W\d]+|_", name.casefold()))]
    if names:
        yield f"the array {quoted(sorted(names))} is not read: a split that is drawn here may divide groups"


def _checked_part(file: Path, split: int, arrays: Mapping[tuple[int, str], str], available: Sequence[str]) -> Part:
    """The arrays of a split; raises DataError if they are missing or do not fit."""
    images, labels = (_array(file, split, kind, arrays, available) for kind in (IMAGES, LABELS))
    header = read_header(file, images)
    _check_images(f"the array {images!r} in {str(file)!r}", header)
    _check_labels(f"the array {labels!r} in {str(file)!r}", read_header(file, labels), header.shape[0])
    return Part(split, images, labels, header.shape)


def _array(file: Path, split: int, kind: str, arrays: Mapping[tuple[int, str], str], available: Sequence[str]) -> str:
    if (split, kind) in arrays:
        return arrays[split, kind]
    name = f"{('train', 'val', 'test')[split]}_{kind}"
    listed = ", ".join(map(repr, available)) or "none"
    raise DataError(f"{str(file)!r} has no array {name!r}; found {listed}.{nearest(name, set(available) - set(arrays.values()))}")


def _check_images(place: str, header: Header) -> None:
    if header.dtype != np.uint8:
        raise DataError(f"{place} has values of type {header.dtype}; expected uint8, 0 to 255")
    is_grey, is_rgb = len(header.shape) == 3, len(header.shape) == 4 and header.shape[3] in (1, 3)
    if not (is_grey or is_rgb) or not all(header.shape[1:]):
        raise DataError(f"{place} has the shape {header.shape}; expected (N, H, W) or (N, H, W, 3)")


def _check_labels(place: str, header: Header, num_images: int) -> None:
    if header.dtype.kind not in "iub":
        raise DataError(f"{place} has values of type {header.dtype}; expected whole numbers")
    if len(header.shape) == 2 and header.shape[1] > 1:
        raise DataError(f"{place} has {header.shape[1]} labels for each image; expected one")
    if header.shape not in ((num_images,), (num_images, 1)):
        raise DataError(f"{place} has the shape {header.shape}; expected one label for each of {num_images} images")


def _read_contents(file: Path, parts: Sequence[Part], classes: tuple[str, ...], size: int, fit: str, test: float) -> Contents:
    labels = {part.split: read_array(file, part.labels).reshape(-1).astype(np.int64) for part in parts}
    labels_N = np.concatenate(list(labels.values()))
    split_N = np.concatenate([np.full(len(of_split), split, dtype=np.int8) for split, of_split in labels.items()])
    group_N = np.arange(len(labels_N))
    check_numbers(str(file), labels[TRAIN].tolist(), len(classes))
    names = classes or tuple(map(str, range(int(labels[TRAIN].max()) + 1)))
    return Contents(
        images=_tasks(file, parts, size, fit),
        labels_N=labels_N,
        split_N=split_N,
        group_N=group_N,
        classes=names,
        names=[f"{part.images}[{i}]" for part in parts for i in range(part.shape[0])],
        original_order=False,
        test=test,
    )


def _tasks(file: Path, parts: Sequence[Part], size: int, fit: str) -> tuple[ArrayRows, ...]:
    """One task per array: a compressed array can only be read from its beginning."""
    starts = np.cumsum([0, *(part.shape[0] for part in parts)]).tolist()
    return tuple(ArrayRows(start, str(file), part.images, part.shape[0], size, fit) for start, part in zip(starts, parts, strict=False))
