"""The images that a job sees: a seed's split of a decoded data set, kept on the device for the next job."""

from functools import lru_cache
from pathlib import Path

import torch

from ablation.data import Dataset, Split, open_dataset, split
from ablation.techniques.technique import Technique
from ablation.training.pixels import Data, part_of


@lru_cache(maxsize=4)
def opened(folder: Path, source: Technique, seed: int) -> tuple[Dataset, Split]:
    """A decoded data set and its split for a seed, kept for the next job."""
    dataset = open_dataset(folder)
    return dataset, split(dataset, source, seed)


@lru_cache(maxsize=6)
def on_device(folder: Path, source: Technique, seed: int, part: str, device: torch.device) -> Data:
    """The images of one part of the split, kept for the next work."""
    dataset, parts = opened(folder, source, seed)
    return part_of(dataset, getattr(parts, f"{part}_N"), device)
