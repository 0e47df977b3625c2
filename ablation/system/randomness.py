"""Random generators by (seed, purpose, epoch): every draw is a function of its key, never of earlier draws."""

import hashlib

import numpy as np
import torch


def key(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit number: the same for equal arguments on every machine, independent for different ones."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator for one purpose, for instance `generator(0, "order", epoch)`."""
    return torch.Generator().manual_seed(key(seed, purpose, *numbers))


def numpy_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(key(seed, purpose, *numbers))
