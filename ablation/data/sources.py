"""Where images come from: the techniques of the family `data`."""

# N images, H height, W width

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from ablation.data import cifar
from ablation.data.files import Columns, image_files_to_split, table, take_test, tree
from ablation.data.found import Contents, Found, Source
from ablation.techniques.technique import Technique

TestFraction = Annotated[float, Field(gt=0, lt=1)]
Fit = Literal["crop", "pad", "squash"]


def _with_a_group(pattern: str) -> str:
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
    test: TestFraction = 0.2

    def __call__(self, base: Path, image_size: int) -> Found:
        """No files, and the digits at 8 x 8, whatever size the model asks for."""
        return Found(8, (), partial(_read_digits, self.test))


def _read_digits(test: float) -> Contents:
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels_N = digits.target.astype(np.int64)
    group_N = np.arange(len(labels_N))
    grey_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    split_N = take_test(labels_N, np.zeros(len(labels_N), dtype=np.int8), group_N, test)
    images_NHWC = np.repeat(grey_NHW[..., None], 3, axis=3)
    return Contents(images_NHWC, labels_N, split_N, group_N, tuple(map(str, digits.target_names)), [f"digit-{i}" for i in group_N])


class Cifar10(Source):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in ten classes (Krizhevsky 2009).

    Read from the python batches, parquet shards or class folders that `root` has, in this order, and else downloaded into it.
    """

    name: Literal["cifar10"] = "cifar10"
    root: str = "data"

    def __call__(self, base: Path, image_size: int) -> Found:
        """The files at 32 x 32, whatever size the model asks for."""
        return cifar.find(cifar.CIFAR10, _place(base, self.root))


class Cifar100(Source):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 in a hundred classes (Krizhevsky 2009); found as CIFAR-10 is."""

    name: Literal["cifar100"] = "cifar100"
    root: str = "data"

    def __call__(self, base: Path, image_size: int) -> Found:
        """The files at 32 x 32, whatever size the model asks for."""
        return cifar.find(cifar.CIFAR100, _place(base, self.root))


class Folder(Source):
    """Images in class folders: root/train/CLASS, root/val/CLASS and root/test/CLASS, or just root/CLASS.

    Without test folders the fraction `test` of the training images is the test, stratified and the same for every seed; a val folder
    is optional. Classes are sorted, as numbers where all are numbers. `group` is a regular expression whose first group, found in a
    file's path below root, names its group: images of one group stay in one split. Hidden files, and files whose ending no
    image has, are passed over. Transparency is laid over white.
    """

    name: Literal["folder"] = "folder"
    root: str
    test: TestFraction = 0.2
    group: Annotated[str, AfterValidator(_with_a_group)] = "none"
    fit: Fit = "crop"

    def __call__(self, base: Path, image_size: int) -> Found:
        """The tree's image files, to be decoded at `image_size`."""
        return image_files_to_split(tree(_place(base, self.root), self.group), image_size, self.fit, self.test)


class Csv(Source):
    """Images that a CSV file names, one a line, with their labels.

    Paths start at `root`, by default the file's own folder. The column `split` (train, val, validation or test) and the column `group`
    (images of one group stay in one split) are used where the file has them. Without test images the fraction `test` of the training
    images is the test, stratified and the same for every seed.
    """

    name: Literal["csv"] = "csv"
    file: str
    root: str = "."
    image: str = "image"
    label: str = "label"
    split: str = "split"
    group: str = "group"
    test: TestFraction = 0.2
    fit: Fit = "crop"

    def __call__(self, base: Path, image_size: int) -> Found:
        """The files named, to be decoded at `image_size`."""
        file = _place(base, self.file)
        root = file.parent if self.root == "." else _place(base, self.root)
        defaults = Columns(*(str(Csv.model_fields[name].default) for name in ("image", "label", "split", "group")))
        entries = table(file, root, Columns(self.image, self.label, self.split, self.group), defaults)
        return image_files_to_split(entries, image_size, self.fit, self.test, tables=((file.name, file),))


def _place(base: Path, written: str) -> Path:
    return base / Path(written).expanduser()


TECHNIQUES: tuple[type[Technique], ...] = (Digits, Cifar10, Cifar100, Folder, Csv)
