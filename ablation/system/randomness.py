"""Generators by (seed, purpose, epoch): every draw is a function of its key, never of what was drawn before it."""

import hashlib

import numpy as np
import torch


def key(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit number that is the same for equal arguments on every machine and else independent."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator for one purpose, for instance `generator(0, "order", epoch)`."""
    return torch.Generator().manual_seed(key(seed, purpose, *numbers))


def numpy_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The same for NumPy."""
    return np.random.default_rng(key(seed, purpose, *numbers))
