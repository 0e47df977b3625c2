"""Where images come from: the techniques of the family `data`."""

# N images, H height, W width

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from ablation.data import cifar, npz
from ablation.data.files import Found, class_order, drawn, source_with_test
from ablation.data.folders import find_tree
from ablation.data.lists import ListFile, class_names, find_lists
from ablation.data.naming import alike, difference
from ablation.data.raster import FULL_RANGE
from ablation.data.shared_names import Shared, group_remark
from ablation.data.source import DEFAULT_TEST, TEST, TRAIN, VALIDATION, Contents, Source, SourceFiles
from ablation.data.tables import NONE, Columns, find_table
from ablation.system.paths import user_path
from ablation.techniques.technique import Technique

TestFraction = Annotated[float, Field(gt=0, lt=1)]
Fit = Literal["crop", "pad", "squash"]


ClassName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("every class name once")
    for first, second in alike(names):
        raise ValueError(f"every class name once; {first!r} and {second!r} differ only in {difference(first, second)}")
    return names


def _check_range(value: object) -> tuple[int, int]:
    """The values of 16-bit images that are black and white."""
    match value:
        case [int(low), int(high)] if 0 <= low < high <= FULL_RANGE[1]:
            return low, high
    raise ValueError(f"two whole numbers from 0 to {FULL_RANGE[1]}, the smaller one first, such as [0, 4095]")


Range = Annotated[tuple[int, int], BeforeValidator(_check_range)]


def _check_group_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"a regular expression; this one is broken: {error}") from None
    if pattern != "none" and groups == 0:
        raise ValueError("none, or a regular expression with a group in parentheses, such as (patient\\d+)_")
    return pattern


class Digits(Source):
    """scikit-learn's handwritten digits, 1,797 grey images of 8 x 8 in ten classes, which need no download.

    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits. The fraction `test` is stratified and the same for every seed.
    """

    name: Literal["digits"] = "digits"
    test: TestFraction = DEFAULT_TEST

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """No files, and the digits at 8 x 8, whatever size the model asks for."""
        return SourceFiles(8, (), partial(_read_digits, self.test), drawn(self.test, has_splits=False))


def _read_digits(test: float) -> Contents:
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels_N = digits.target.astype(np.int64)
    group_N = np.arange(len(labels_N))
    grey_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    split_N = np.zeros(len(labels_N), dtype=np.int8)
    images_NHWC = np.repeat(grey_NHW[..., None], 3, axis=3)
    return Contents(
        images_NHWC, labels_N, split_N, group_N, tuple(map(str, digits.target_names)), [f"digit-{i}" for i in group_N], test=test
    )


class Cifar10(Source):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in ten classes (Krizhevsky 2009).

    Read from the python batches, parquet shards or class folders that `root` has, in this order, and else downloaded into it.
    """

    name: Literal["cifar10"] = "cifar10"
    root: str = "data"

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The files at 32 x 32, whatever size the model asks for."""
        return cifar.find(cifar.CIFAR10, _resolve(base, self.root))


class Cifar100(Source):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 in a hundred classes (Krizhevsky 2009); found as CIFAR-10 is."""

    name: Literal["cifar100"] = "cifar100"
    root: str = "data"

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The files at 32 x 32, whatever size the model asks for."""
        return cifar.find(cifar.CIFAR100, _resolve(base, self.root))


class Folder(Source):
    """Images in class folders: root/train/CLASS, root/val/CLASS and root/test/CLASS, or just root/CLASS.

    Split folders may have any case, and be called training, valid, validation, dev, testing or eval as well. Without one for the test the
    fraction `test` of the training images is the test, stratified and the same for every seed; one for validation is optional. Any other
    form is refused: a further folder with images beside them, images beside class folders, an archive's folder around them all. Classes are
    sorted, as numbers where all are numbers; two that differ only in case (but for alphabets), blanks, underscores or the way of writing a
    number are refused. `group` is a regular expression whose first group, found in a file's path below root, names its group: images of one
    group stay in one split. Hidden files, what operating systems leave (__MACOSX, @eaDir) and files whose ending no image has are passed
    over. Transparency is laid over white. `range` has the values of 16-bit grey images that are black and white: [0, 4095] for 12 bits.
    """

    name: Literal["folder"] = "folder"
    root: str
    test: TestFraction = DEFAULT_TEST
    group: Annotated[str, AfterValidator(_check_group_pattern)] = "none"
    fit: Fit = "crop"
    range: Range = FULL_RANGE

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The tree's image files, to be decoded at `image_size`."""
        found = find_tree(_resolve(base, self.root), self.group)
        if self.group == "none":
            found = _with_group_remark(self, found, _pattern_advice, with_folders=False)
        return source_with_test(found, class_order(entry.label for entry in found.entries), image_size, self.fit, self.range, self.test)


class Csv(Source):
    """Images that a CSV file names, one a line, with their labels.

    Paths start at `root`, by default the file's own folder. The column `split` (train, val or test, or what such folders may be called)
    and the column `group` (images of one group stay in one split) are used where the file has them; `none` leaves one aside. Case and
    blanks around the columns' names do not matter. A column that must be meant, such as `subset` or `patient_id`, is refused until the
    study names it, as in `group: patient_id`, or says `group: none`. Labels and groups are stripped; two that differ only in case, blanks
    or the way of writing a number are refused, and so is nan. Without test images the fraction `test` of the training images is the test,
    stratified and the same for every seed. Semicolons and tabs may stand for the commas; letters are UTF-8, or UTF-16 with its mark.
    `range` has the values of 16-bit grey images that are black and white: [0, 4095] for 12 bits.
    """

    name: Literal["csv"] = "csv"
    file: str
    root: str = "."
    image: str = "image"
    label: str = "label"
    split: str = "split"
    group: str = "group"
    test: TestFraction = DEFAULT_TEST
    fit: Fit = "crop"
    range: Range = FULL_RANGE

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The files named, to be decoded at `image_size`."""
        file = _resolve(base, self.file, "file")
        root = file.parent if self.root == "." else _resolve(base, self.root)
        defaults = Columns(*(str(Csv.model_fields[name].default) for name in ("image", "label", "split", "group")))
        found = find_table(file, root, Columns(self.image, self.label, self.split, self.group), defaults)
        if not found.grouped_by and self.group != NONE:
            found = _with_group_remark(self, found, _column_advice, with_folders=True)
        classes = class_order(entry.label for entry in found.entries)
        return source_with_test(found, classes, image_size, self.fit, self.range, self.test, tables=((file.name, file),))


class Lists(Source):
    """Images that list files name, in each line a path and the number of its class: `train/airfield/00004851.jpg 0`.

    So are ImageNet-LT, Places-LT (Liu et al. 2019, Large-Scale Long-Tailed Recognition in an Open World) and iNaturalist 2018 handed
    on; the latter's validation list is what the field calls its test. Paths start at `root`, by default the training list's own
    folder, once `strip` is taken off where they begin with it. `classes` is a file with a class name in each line, class 0 first;
    with `none` classes are called by their numbers. Without a test list the fraction `test` of the training images is the test,
    stratified and the same for every seed. An image in two lists, by whatever path or symbolic link, is an error, not a leak.
    `range` has the values of 16-bit grey images that are black and white: [0, 4095] for 12 bits.
    """

    name: Literal["lists"] = "lists"
    root: str = "."
    train_list: str
    validation_list: str = "none"
    test_list: str = "none"
    classes: str = "none"
    strip: str = ""
    test: TestFraction = DEFAULT_TEST
    fit: Fit = "crop"
    range: Range = FULL_RANGE
    places: ClassVar[frozenset[str]] = frozenset({"root", "train_list", "validation_list", "test_list", "classes"})

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The files listed, to be decoded at `image_size`."""
        list_paths = {"train_list": self.train_list, "validation_list": self.validation_list, "test_list": self.test_list}
        files = {field: _resolve(base, name, field) for field, name in list_paths.items() if name != "none"}
        root = files["train_list"].parent if self.root == "." else _resolve(base, self.root)
        class_files = {} if self.classes == "none" else {"classes": _resolve(base, self.classes, "classes")}
        names = tuple(name for file in class_files.values() for name in class_names(file))
        lists = [ListFile(LIST_SPLITS[field], file) for field, file in files.items()]
        found, classes = find_lists(lists, root, self.strip, names)
        found = _with_group_remark(self, found, _table_advice, with_folders=True)
        tables = tuple((f"{field} {file.name}", file) for field, file in (files | class_files).items())
        return source_with_test(found, classes, image_size, self.fit, self.range, self.test, tables)


LIST_SPLITS = {"train_list": TRAIN, "validation_list": VALIDATION, "test_list": TEST}


class Npz(Source):
    """Images and labels as arrays in one .npz file: train_images, train_labels, val_images, ..., test_labels.

    So is MedMNIST published (Yang et al. 2023, MedMNIST v2); Keras' x_train and y_train, and other words for a split, do as well. Images
    are uint8, (N, H, W) or (N, H, W, 3), grey ones repeated; labels are whole numbers from 0, one for each image. Squares of one size that
    the model need not shrink stay as they are, others are fitted to its size. Without test arrays the fraction `test` of the training
    images is the test, stratified and the same for every seed; val arrays are optional. `classes` are the class names, class 0 first;
    without them classes are called by their numbers. Arrays of pickled objects are refused unread: to read one is to run it.
    """

    name: Literal["npz"] = "npz"
    file: str
    classes: Annotated[tuple[ClassName, ...], Field(strict=False), AfterValidator(_check_unique)] = ()
    test: TestFraction = DEFAULT_TEST
    fit: Fit = "crop"

    def __call__(self, base: Path, image_size: int) -> SourceFiles:
        """The arrays, at their own size or at `image_size`."""
        return npz.find(_resolve(base, self.file, "file"), self.classes, image_size, self.fit, self.test)


def _with_group_remark(source: Source, found: Found, advice: Callable[[Shared], str], *, with_folders: bool) -> Found:
    """What was found, and a sentence on names that images share, where a split is drawn that may divide these."""
    is_drawn = source.validation > 0 or all(entry.split != TEST for entry in found.entries)
    remarks = group_remark(found.entries, advice, with_folders=with_folders) if is_drawn else ()
    return replace(found, remarks=(*found.remarks, *remarks))


def _pattern_advice(shared: Shared) -> str:
    in_yaml = shared.pattern.replace("'", "''")
    return f"group: '{in_yaml}' keeps them in one split"


def _column_advice(shared: Shared) -> str:
    return f"a column group with what they share, as {shared.key!r}, keeps them in one split; group: none if not"


def _table_advice(shared: Shared) -> str:
    return f"lists cannot keep them in one split; a table (data: csv) with a column group can, as {shared.key!r} for these"


def _resolve(base: Path, path: str, field: str = "root") -> Path:
    """The path that a field of `data` names, which starts at `base`; raises ConfigError if nothing can be found under that name."""
    return user_path(path, f"data.{field}", base)


TECHNIQUES: tuple[type[Technique], ...] = (Digits, Cifar10, Cifar100, Folder, Csv, Lists, Npz)
