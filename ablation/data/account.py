"""What was found in the data of one study: how they are split, and what a reader should know before trusting a result."""

# N images, C classes

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ablation.data.cache import Dataset
from ablation.data.drawing import has_groups
from ablation.data.drawn import drawn_share, held_groups, near_copies
from ablation.data.finding import Finding, finding_of, some
from ablation.data.giveaways import giveaways
from ablation.data.raster import FULL_RANGE, Range
from ablation.data.source import join_words
from ablation.data.splits import Split
from ablation.formatting import cluster_words, counted

NEARLY_BLACK = 15  # of 255: the greatest value of an image that hardly anything can be seen of
LEAST_USED = 0.5  # of the range from black to white, by 16-bit images, markers and hot pixels left out
ENLARGED = 2  # times: an image that is enlarged by more is told
MOST_LEFT_OUT = 2  # the ratio of its sides from which on cropping to a square leaves out more than half of an image


@dataclass(frozen=True)
class Account:
    """The data of one or more arms, for one seed."""

    data: str  # the source and where it lies
    split: str  # how training, validation and test images were told apart
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]  # split -> images per class
    num_groups: int  # of images that must stay in one split; 0 if there are none
    sizes: str
    findings: tuple[Finding, ...]
    clusters: Mapping[str, Any] = field(default_factory=dict)  # what images that stay in one split have in common, and how many there are

    def as_data(self, most_images: int | None = None) -> dict[str, Any]:
        """The account as plain data; of each finding at most so many images, and of their equals."""
        findings = [
            {**asdict(finding), "images": [list(names[:most_images]) for names in finding.images[:most_images]]}
            for finding in self.findings
        ]
        counts = {name: list(per_class) for name, per_class in self.counts.items()}
        about = {**asdict(self), "summary": self.summary, "classes": list(self.classes), "counts": counts, "findings": findings}
        return {name: value for name, value in about.items() if name != "clusters" or value}

    @property
    def summary(self) -> str:
        """The data in one line."""
        counts = ", ".join(f"{sum(per_class):,} {name}" for name, per_class in self.counts.items())
        groups = f" of {cluster_words(self.clusters)}" if self.clusters else ""
        return f"{self.data}: {counted(len(self.classes), 'class', 'classes')}; {counts} images{groups}; {self.split}; {self.sizes}"


def account_of(
    dataset: Dataset, split: Split, settings: Any, split_origin: str, remarks: Sequence[str], data: str, image_size: int
) -> Account:
    """The account of a decoded source with the settings `data` of a study, as the seed of the split and a model of that size see it."""
    parts = {"training": split.train_N, "validation": split.validation_N, "test": split.test_N}
    parts = {name: rows_N for name, rows_N in parts.items() if len(rows_N) or name != "validation"}
    used_N = np.concatenate(list(parts.values()))
    value_range: Range = getattr(settings, "range", FULL_RANGE)
    findings = [
        *_duplicates(dataset, parts),
        *near_copies(dataset, parts, settings),
        *_contradictions(dataset, used_N),
        *drawn_share(dataset),
        *held_groups(dataset),
        *_absent_classes(dataset, parts),
        *_odd_values(dataset, used_N, value_range),
        *_odd_sizes(dataset, used_N, getattr(settings, "fit", "exact")),
        *giveaways(dataset, used_N),
        *(Finding("remark", remark) for remark in remarks),
    ]
    counts = {name: tuple(np.bincount(dataset.labels_N[rows_N], minlength=len(dataset.classes)).tolist()) for name, rows_N in parts.items()}
    drawn = f"; validation drawn: {settings.validation:.0%} of the training images" if settings.validation else ""
    clusters = clusters_of(dataset, split, settings)
    return Account(
        data=data,
        split=split_origin + drawn,
        classes=dataset.classes,
        counts=counts,
        num_groups=clusters.get("all", 0),
        sizes=_sizes(dataset, used_N, image_size),
        findings=tuple(findings),
        clusters=clusters,
    )


def clusters_of(dataset: Dataset, split: Split, settings: Any) -> dict[str, Any]:
    """What images of one group have in common (`name`), the number of groups in each split, how many are in more than
    one, and how many there are in `all`.

    Empty where every image is a group of its own.
    """
    if not has_groups(dataset.group_N):
        return {}
    parts = [np.unique(dataset.group_N[rows_N]) for rows_N in (split.train_N, split.validation_N, split.test_N)]
    counts = dict(zip(("train", "validation", "test"), map(len, parts), strict=True))
    splits_of = np.bincount(np.concatenate(parts))  # in how many splits each group is
    numbers = {**counts, "shared": int((splits_of > 1).sum()), "all": int((splits_of > 0).sum())}
    return {"name": _group_name(str(getattr(settings, "group", "group"))), **numbers}


def _group_name(setting: str) -> str:
    """What the images of one group have in common: the column, or the name of the pattern's first group, `(?P<patient>...)`.

    `patient_id` and `PatientID` are a patient.
    """
    try:
        pattern = re.compile(setting)
    except re.error:  # a column's name, and no pattern
        return setting
    name = setting if not pattern.groups else next((name for name, place in pattern.groupindex.items() if place == 1), "group")
    word = re.sub(r"[ _.-](id|ID|Id|no|nr|number)$|(?<=[a-z])I[Dd]$", "", name)
    return word.lower() if re.fullmatch(r"[A-Z]?[a-z]+", word) else word


# --- duplicates --------------------------------------------------------------------------------------------------------------


def _pictures(dataset: Dataset, rows_N: np.ndarray) -> np.ndarray:
    """A number for each image: the same for those whose pixels are equal."""
    numbers_N: np.ndarray = np.unique(dataset.inspections_N["digest"][rows_N], return_inverse=True)[1]
    return numbers_N


def _duplicates(dataset: Dataset, parts: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """The images that occur in two splits, and those that occur twice in one."""
    names, ends = list(parts), np.cumsum([0, *map(len, parts.values())])
    picture_N = _pictures(dataset, np.concatenate(list(parts.values())))
    pictures = {name: picture_N[ends[i] : ends[i + 1]] for i, name in enumerate(names)}
    for i, other in enumerate(names):
        for name in names[i + 1 :]:
            is_shared_N = np.isin(pictures[name], pictures[other])
            if is_shared_N.any():
                rows_N, number = parts[name][is_shared_N], int(is_shared_N.sum())
                first = dict(zip(pictures[other][::-1].tolist(), parts[other][::-1].tolist(), strict=True))
                pairs = [(row, first[picture]) for row, picture in zip(rows_N, pictures[name][is_shared_N].tolist(), strict=True)]
                share = "all" if number == len(parts[name]) else f"{number:,} of the"
                words = f"{share} {len(parts[name]):,} {name} images are {other} images too: duplicates with the same pixels"
                effect = ", so that what was memorised counts as recognised" if other == "training" else ""
                yield finding_of(f"duplicates in {other} and {name}", words + effect, dataset, pairs)
    for name in names:
        groups = _equal_rows(pictures[name], parts[name])
        if groups:
            number = sum(len(rows) - 1 for rows in groups)
            words = f"{number:,} of the {len(parts[name]):,} {name} images {'repeats' if number == 1 else 'repeat'} another one of them:"
            yield finding_of(f"duplicates in {name}", f"{words} duplicates with the same pixels", dataset, groups)


def _equal_rows(picture_N: np.ndarray, rows_N: np.ndarray) -> list[tuple[int, ...]]:
    """The rows whose pictures are equal, for each picture that occurs more than once."""
    order_N = np.argsort(picture_N, kind="stable")
    _, starts, counts = np.unique(picture_N[order_N], return_index=True, return_counts=True)
    return [tuple(rows_N[order_N[start : start + count]].tolist()) for start, count in zip(starts, counts, strict=True) if count > 1]


def _contradictions(dataset: Dataset, used_N: np.ndarray) -> Iterator[Finding]:
    """The pictures that have more than one label."""
    equal = _equal_rows(_pictures(dataset, used_N), used_N)
    groups = [rows for rows in equal if len({int(dataset.labels_N[row]) for row in rows}) > 1]
    if groups:
        first = groups[0]
        other = next(row for row in first if dataset.labels_N[row] != dataset.labels_N[first[0]])
        labels = " and ".join(repr(dataset.classes[dataset.labels_N[row]]) for row in (first[0], other))
        number = "1 picture has" if len(groups) == 1 else f"{len(groups):,} pictures have"
        words = f"{number} contradictory labels, as {labels} in the first case: equal pixels, two classes"
        yield finding_of("contradictory labels", words, dataset, groups)


def _absent_classes(dataset: Dataset, parts: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    for name, rows_N in parts.items():
        present = set(np.unique(dataset.labels_N[rows_N]).tolist())
        absent = [repr(label) for c, label in enumerate(dataset.classes) if c not in present]
        if absent:
            noun = "class has" if len(absent) == 1 else "classes have"
            words = f"{len(absent)} {noun} no {name} images: {join_words(absent, len(absent))}; means over classes leave them out"
            yield Finding(f"classes without {name} images", words)


# --- odd images --------------------------------------------------------------------------------------------------------------


def _odd_values(dataset: Dataset, used_N: np.ndarray, value_range: Range) -> Iterator[Finding]:
    seen_N = dataset.inspections_N[used_N]
    is_blank_N, is_wide_N = seen_N["is_blank"], seen_N["bits"] == 16
    if is_blank_N.any():
        yield some("blank images", is_blank_N, used_N, dataset, "of one colour throughout")
    is_dark_N = ~is_wide_N & ~is_blank_N & (seen_N["high"] <= NEARLY_BLACK)
    if is_dark_N.any():
        highest = int(seen_N["high"][is_dark_N].max())
        words = f"nearly black: no value above {highest} of 255; images that hold class numbers, or values from 0 to 1, look so"
        yield some("dark images", is_dark_N, used_N, dataset, words)
    if value_range != FULL_RANGE and not is_wide_N.any():
        yield Finding("range", f"data.range, {value_range[0]} to {value_range[1]}, changes nothing: no grey image has 16 bits")
    if is_wide_N.any():
        yield from _wide_values(dataset, used_N, is_wide_N, value_range)
    if seen_N["is_cut"].any():
        words = "cut off: a JPEG without an end, of which a part may be grey"
        yield some("cut images", seen_N["is_cut"], used_N, dataset, words)
    is_hollow_N = seen_N["is_hollow"] & ~seen_N["is_cut"]
    if is_hollow_N.any():
        words = "of one grey in the lower part, as a JPEG is whose data end too early"
        yield some("hollow images", is_hollow_N, used_N, dataset, words)
    if seen_N["is_reduced"].any():
        words = "in colour with 16 bits a channel, of which the upper 8 are used"
        yield some("reduced images", seen_N["is_reduced"], used_N, dataset, words)
    if seen_N["has_alpha"].any():
        words = "transparent in places, which are shown white; a fourth channel that holds something else, such as a mask, looks so"
        yield some("transparent images", seen_N["has_alpha"], used_N, dataset, words)
    if seen_N["has_frames"].any():
        yield some("images of several frames", seen_N["has_frames"], used_N, dataset, "of several frames or pages; only the first is used")


def _wide_values(dataset: Dataset, used_N: np.ndarray, is_wide_N: np.ndarray, value_range: Range) -> Iterator[Finding]:
    """Grey images of 16 bits that use little of `value_range`, or more than it."""
    seen_N, (low, high) = dataset.inspections_N[used_N], value_range
    is_clipped_N = is_wide_N & ((seen_N["dark"] < low) | (seen_N["bright"] > high))
    if is_clipped_N.any():
        words = f"partly outside data.range, {low} to {high}: what is below it is black, what is above it white"
        yield some("clipped images", is_clipped_N, used_N, dataset, words)
    darkest, brightest = int(seen_N["dark"][is_wide_N].min()), int(seen_N["bright"][is_wide_N].max())
    is_narrow_N = (brightest - darkest < LEAST_USED * (high - low)) | (seen_N["bright"] < low + (high - low) / 16)
    uses_little_N = is_wide_N & is_narrow_N & ~seen_N["is_blank"]
    if uses_little_N.any():
        darkest, brightest = int(seen_N["dark"][uses_little_N].min()), int(seen_N["bright"][uses_little_N].max())
        words = f"of 16 bits with values from {darkest:,} to {brightest:,}, where {low:,} to {high:,} is black to white"
        advice = f"so that little is left of them; {_range_advice(darkest, brightest)}"
        yield some("range of 16-bit images", uses_little_N, used_N, dataset, f"{words}, {advice}")


def _range_advice(darkest: int, brightest: int) -> str:
    """The setting that makes these values use all from black to white: so many bits, or their own interval if it begins far above 0."""
    bits = next(bits for bits in (8, 10, 12, 14, 15, 16) if brightest < 2**bits)
    if darkest > brightest / 4:
        return f"data.range: [{darkest}, {brightest}] takes these as black and white"
    return f"data.range: [0, {2**bits - 1}] takes them as images of {bits} bits"


def _odd_sizes(dataset: Dataset, used_N: np.ndarray, fit: str) -> Iterator[Finding]:
    seen_N, size = dataset.inspections_N[used_N], dataset.images_NHWC.shape[1]
    shorter_N, longer_N = np.minimum(seen_N["width"], seen_N["height"]), np.maximum(seen_N["width"], seen_N["height"])
    is_small_N = shorter_N * ENLARGED < size
    if is_small_N.any():
        yield some("small images", is_small_N, used_N, dataset, f"enlarged more than {ENLARGED} times, to {size} x {size} pixels")
    is_cropped_N = longer_N > MOST_LEFT_OUT * shorter_N
    if fit == "crop" and is_cropped_N.any():
        words = "more than twice as long as wide, so that the crop to a square leaves out over half; data.fit: pad keeps all"
        yield some("long images", is_cropped_N, used_N, dataset, words)


def _sizes(dataset: Dataset, used_N: np.ndarray, image_size: int) -> str:
    """`16 x 16 pixels`, or the smallest and the largest, and what becomes of them if the model sees another size."""
    seen_N = dataset.inspections_N[used_N]
    area_N = seen_N["width"].astype(np.int64) * seen_N["height"]
    smallest, largest = seen_N[area_N.argmin()], seen_N[area_N.argmax()]
    words = [f"{seen['width']} x {seen['height']}" for seen in (smallest, largest)]
    seen = f"{image_size} x {image_size}"
    resized = f", resized to {seen}" if set(words) != {seen} else ""
    return f"{' to '.join(dict.fromkeys(words))} pixels{resized}"
