"""Images and labels as arrays in one .npz file, as MedMNIST publishes them."""

# N images, H height, W width, C = 3 channels

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ablation.data.arrays import Header, array_names, read_array, read_header
from ablation.data.decoding import ArrayRows
from ablation.data.source import TEST, TRAIN, VALIDATION, Contents, SourceFiles, check_label_numbers
from ablation.errors import DataError, nearest

PARTS = {"train": TRAIN, "val": VALIDATION, "test": TEST}


def find(file: Path, classes: tuple[str, ...], image_size: int, fit: str, test: float) -> SourceFiles:
    """The images of the file, unchanged if all are squares of one size up to `image_size`, else fitted to `image_size`."""
    available = array_names(file)
    parts = [part for part in PARTS if part == "train" or f"{part}_images" in available or f"{part}_labels" in available]
    shapes = [_checked_shape(file, part, available) for part in parts]
    height = shapes[0][1]
    is_kept = {shape[1:3] for shape in shapes} == {(height, height)} and height <= image_size
    size = height if is_kept else image_size
    counts = {part: shape[0] for part, shape in zip(parts, shapes, strict=True)}
    return SourceFiles(size, ((file.name, file),), partial(_read_contents, file, counts, classes, size, fit, test))


def _checked_shape(file: Path, part: str, available: Sequence[str]) -> tuple[int, ...]:
    """The shape of the images of a split; raises DataError if its arrays are missing or do not fit."""
    for name in (f"{part}_images", f"{part}_labels"):
        if name not in available:
            listed = ", ".join(map(repr, available)) or "none"
            raise DataError(f"{str(file)!r} has no array {name!r}; found {listed}.{nearest(name, available)}")
    images = read_header(file, f"{part}_images")
    _check_images(f"the array '{part}_images' in {str(file)!r}", images)
    _check_labels(f"the array '{part}_labels' in {str(file)!r}", read_header(file, f"{part}_labels"), images.shape[0])
    return images.shape


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


def _read_contents(file: Path, counts: Mapping[str, int], classes: tuple[str, ...], size: int, fit: str, test: float) -> Contents:
    labels = {part: read_array(file, f"{part}_labels").reshape(-1).astype(np.int64) for part in counts}
    labels_N = np.concatenate(list(labels.values()))
    split_N = np.concatenate([np.full(count, PARTS[part], dtype=np.int8) for part, count in counts.items()])
    group_N = np.arange(len(labels_N))
    check_label_numbers(str(file), labels["train"].tolist(), len(classes))
    return Contents(
        images=_tasks(file, counts, size, fit),
        labels_N=labels_N,
        split_N=split_N,
        group_N=group_N,
        classes=classes or tuple(map(str, range(int(labels["train"].max()) + 1))),
        names=[f"{part}_images[{i}]" for part, count in counts.items() for i in range(count)],
        original_order=False,
        test=0.0 if "test" in counts else test,
    )


def _tasks(file: Path, counts: Mapping[str, int], size: int, fit: str) -> tuple[ArrayRows, ...]:
    """One task per array: a compressed array can only be read from its beginning."""
    starts = np.cumsum([0, *counts.values()]).tolist()
    pairs = zip(starts, counts.items(), strict=False)
    return tuple(ArrayRows(start, str(file), f"{part}_images", count, size, fit) for start, (part, count) in pairs)
