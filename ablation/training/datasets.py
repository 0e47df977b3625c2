"""The images that a job uses: a decoded data set, split by the seed, kept on the device for the next job."""

from functools import lru_cache
from pathlib import Path

import torch

from ablation.data import Dataset, Split, open_dataset, split
from ablation.techniques.technique import Technique
from ablation.training.pixels import SplitImages, fit_into_memory, images_of_rows


@lru_cache(maxsize=4)
def dataset_and_split(folder: Path, source: Technique, seed: int) -> tuple[Dataset, Split]:
    """A decoded data set and its split by a seed; cached for the next job."""
    dataset = open_dataset(folder)
    return dataset, split(dataset, source, seed)


@lru_cache(maxsize=6)
def images_on_device(folder: Path, source: Technique, seed: int, split_name: str, device: torch.device) -> SplitImages:
    """The images of `train`, `validation` or `test` on the device; cached for the next job."""
    dataset, parts = dataset_and_split(folder, source, seed)
    rows_N = getattr(parts, f"{split_name}_N")
    if device.type == "cuda" and not fit_into_memory(dataset, rows_N, device):
        images_on_device.cache_clear()  # those of earlier jobs make room
    return images_of_rows(dataset, rows_N, device)
