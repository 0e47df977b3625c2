"""What CIFAR-10 and CIFAR-100 are called by those who publish them, and what is nearly called so."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ablation.data.naming import quoted, split_of
from ablation.data.source import TEST, TRAIN
from ablation.errors import DataError

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
class Variant:
    """What differs between CIFAR-10 and CIFAR-100."""

    title: str
    name: str
    classes: tuple[str, ...]
    folder: str
    batches: Mapping[str, tuple[str, int]]  # the MD5 checksum and the split of each batch file, in the published order
    batch_labels: str
    shard_labels: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The name of the archive that the authors publish."""
        return f"{self.title.lower()}-python.tar.gz"


CIFAR10 = Variant(
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
CIFAR100 = Variant(
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


def check_no_near_miss(variant: Variant, root: Path) -> None:
    """Raise DataError if the data set seems to be here, but in another form or another place, so that none is downloaded beside it."""
    if root.is_file():
        raise DataError(f"{str(root)!r} is a file; expected a folder: write root: {root.parent} if {variant.title} lies there")
    if not root.is_dir():
        return
    other = CIFAR100 if variant.name == CIFAR10.name else CIFAR10
    if all((root / name).is_file() for name in other.batches):
        raise DataError(f"{str(root)!r} holds {other.title}, not {variant.title}; expected data: {{name: {other.name}}}, or another root")
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if _holds(variant, folder):
            raise DataError(f"found {variant.title} in {str(folder)!r}, one folder too low; write root: {folder}")
    names = sorted(_nearly_named(variant, root))
    if names:
        raise DataError(
            f"found {quoted(names)} in {str(root)!r}, which is nearly {variant.title}; expected {variant.folder}/ or {variant.archive}, as "
            f"its authors publish it for Python, shards train-*.parquet and test-*.parquet, or class folders train/CLASS/ and test/CLASS/"
        )


def _holds(variant: Variant, folder: Path) -> bool:
    batches = all((folder / name).is_file() for name in variant.batches)
    return batches or (folder / variant.folder).is_dir() or (folder / variant.archive).is_file()


def _nearly_named(variant: Variant, root: Path) -> Iterator[str]:
    start = variant.title.lower().replace("-", "")
    other = "100" if variant.name == CIFAR10.name else "10"
    for path in root.iterdir():
        letters = re.sub(r"[\W_]", "", path.name.casefold())
        words = re.split(r"[\W_\d]+", path.stem)
        is_shard = path.suffix.casefold() == ".parquet" and any(split_of(word) is not None for word in words if word)
        is_meant = re.search(rf"cifar(?![\W_]?{other}(?!\d))", path.name, re.IGNORECASE) is not None
        if (is_shard and is_meant) or (letters.startswith(tuple(start + word for word in ("python", "batches", "binary", "matlab")))):
            yield path.name


def other_in(variant: Variant, root: Path) -> str:
    """A sentence that the other of the two lies there, or nothing."""
    other = CIFAR100 if variant.name == CIFAR10.name else CIFAR10
    return f" {other.title} is there, which data: {other.name} reads." if _holds(other, root) else ""
