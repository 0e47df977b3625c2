"""How many training images each class keeps, and which: long tails cut from a balanced source."""

# C classes

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ablation.errors import ConfigError
from ablation.system.randomness import numpy_generator
from ablation.techniques.technique import Technique

Indices = Literal["seeded", "historical"]


class LongTail(Protocol):
    """What a long tail offers: counts per class, and the name of the way in which the kept images are chosen."""

    @property
    def indices(self) -> Indices:
        """A key of RANKS."""

    def __call__(self, available_C: np.ndarray) -> np.ndarray:
        """The training counts, in class order."""


class Ranks(Protocol):
    """A way to choose which images of each class are kept."""

    def __call__(self, available_C: np.ndarray, counts_C: np.ndarray, seed: int) -> list[np.ndarray]:
        """For each class the places, within the class and in the source's order, of the images kept."""


def _check_count(value: object) -> object:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("a number of images from 1 on, or all")


Count = Annotated[int, Field(ge=1)]
CountOrAll = Annotated[
    int | Literal["all"],
    PlainValidator(_check_count),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all"}]}),
]
Imbalance = Annotated[float, Field(ge=1)]


class NoLongTail(Technique):
    """Every image that the source has: counts are those available."""

    name: Literal["none"] = "none"
    indices: ClassVar[Indices] = "seeded"

    def __call__(self, available_C: np.ndarray) -> np.ndarray:
        """The available counts."""
        return available_C.astype(np.int64)


class Linear(Technique):
    """Counts that fall by equal steps: n_i = largest + (smallest - largest) * i/(K-1), rounded; class 0 is the largest.

    On CIFAR-10, 5000 to 500 gives 5000, 4500, ..., 500: 27,500 images.
    """

    name: Literal["linear"] = "linear"
    largest: Count
    smallest: Count
    indices: Indices = "seeded"

    @model_validator(mode="after")
    def _check_order(self) -> "Linear":
        if self.smallest > self.largest:
            raise ConfigError("smallest", f"found {self.smallest}; expected at most largest, {self.largest}")
        return self

    def __call__(self, available_C: np.ndarray) -> np.ndarray:
        """The counts, halves rounded up."""
        steps_C = np.linspace(self.largest, self.smallest, len(available_C))
        return np.floor(steps_C + 0.5).astype(np.int64)


class Exponential(Technique):
    """Counts that fall by equal factors: n_i = int(n_max * f**(i/(K-1))) with f = 1/imbalance; class 0 is the largest.

    Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", cut as LDAM-DRW does. The power is written as a
    power: the equivalent exp(-ln(imbalance) * i/(K-1)) truncates the last class to 49 where the field's tables have 50.
    With `largest: all`, n_max is all that class 0 has. `indices: historical` keeps LDAM-DRW's own images, for every seed alike.
    """

    name: Literal["exponential"] = "exponential"
    imbalance: Imbalance = 100.0
    largest: CountOrAll = "all"
    indices: Indices = "seeded"

    def __call__(self, available_C: np.ndarray) -> np.ndarray:
        """The counts, truncated."""
        num_classes = len(available_C)
        factor = 1 / self.imbalance
        n_max = _largest(self.largest, available_C)
        return np.array([int(n_max * factor ** (i / max(num_classes - 1, 1))) for i in range(num_classes)], dtype=np.int64)


class Step(Technique):
    """Two sizes: the first K//2 classes keep n_max, the others int(n_max * (1/imbalance)).

    Buda et al. 2018, "A systematic study of the class imbalance problem"; cut as LDAM-DRW does, the factor being 1/imbalance.
    """

    name: Literal["step"] = "step"
    imbalance: Imbalance = 100.0
    largest: CountOrAll = "all"
    indices: Indices = "seeded"

    def __call__(self, available_C: np.ndarray) -> np.ndarray:
        """The counts, truncated."""
        num_large = len(available_C) // 2
        n_max = _largest(self.largest, available_C)
        small = int(n_max * (1 / self.imbalance))
        return np.array([n_max] * num_large + [small] * (len(available_C) - num_large), dtype=np.int64)


def _largest(largest: int | str, available_C: np.ndarray) -> int:
    return int(available_C[0]) if largest == "all" else int(largest)


def seeded_ranks(available_C: np.ndarray, counts_C: np.ndarray, seed: int) -> list[np.ndarray]:
    """The seed's own choice, drawn class by class; a smaller count keeps a part of what a larger one keeps."""
    pairs = enumerate(zip(available_C.tolist(), counts_C.tolist(), strict=True))
    return [numpy_generator(seed, "subset", c).permutation(available)[:count] for c, (available, count) in pairs]


def historical_ranks(available_C: np.ndarray, counts_C: np.ndarray, seed: int) -> list[np.ndarray]:
    """LDAM-DRW's choice, the same for every seed: NumPy's legacy generator seeded once with 0 shuffles each class in order."""
    legacy = np.random.RandomState(0)
    kept = []
    for available, count in zip(available_C.tolist(), counts_C.tolist(), strict=True):
        ranks = np.arange(available)
        legacy.shuffle(ranks)
        kept.append(ranks[:count])
    return kept


RANKS: Mapping[Indices, Ranks] = MappingProxyType({"seeded": seeded_ranks, "historical": historical_ranks})

TECHNIQUES: tuple[type[Technique], ...] = (NoLongTail, Linear, Exponential, Step)
