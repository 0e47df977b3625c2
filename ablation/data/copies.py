"""JPEGs with equal pixels that are compressed in two ways, as tools that make files smaller without loss leave them."""

# N images

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ablation.data.decoding import Task, pillow_warnings
from ablation.data.raster import whole_digest


def join_equal_jpegs(tasks: Sequence[Task], inspections_N: np.ndarray) -> None:
    """Give JPEGs with equal pixels one digest, that of the first of them.

    Only those that are equal at the size at which they were decoded are decoded once more, in full: mostly none.
    """
    alike = _alike(inspections_N)
    first_of_picture: dict[bytes, int] = {}
    for row, picture in _whole_digests(tasks, sorted(alike)):
        first = first_of_picture.setdefault(picture, row)
        inspections_N["digest"][alike[row]] = inspections_N["digest"][first]


def _alike(inspections_N: np.ndarray) -> dict[int, list[int]]:
    """The first JPEG of each compressed form of a picture that has several, and all rows of this form."""
    is_jpeg_N = (inspections_N["digest"] != inspections_N["decoded"]) & ~inspections_N["is_blank"]
    rows_N = np.flatnonzero(is_jpeg_N)
    _, picture_N, counts = np.unique(inspections_N["decoded"][rows_N], return_inverse=True, return_counts=True)
    forms: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in np.flatnonzero(counts[picture_N] > 1).tolist():
        row = int(rows_N[i])
        forms[int(picture_N[i])][inspections_N["digest"][row].tobytes()].append(row)
    return {rows[0]: rows for by_form in forms.values() if len(by_form) > 1 for rows in by_form.values()}


def _whole_digests(tasks: Sequence[Task], rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The digest of all pixels of each of these images, in order."""
    wanted = set(rows)
    with pillow_warnings():
        for task in tasks:
            if wanted.isdisjoint(range(task.start, task.start + len(task))):
                continue
            for row, (_, encoded) in enumerate(task.encoded(), start=task.start):
                if row in wanted and not isinstance(encoded, np.ndarray):
                    yield row, whole_digest(encoded)
