"""Draws are functions of their key."""

import hashlib

import numpy as np
import pytest
import torch

from ablation.system.randomness import generator, key, numpy_generator


def test_keys_are_hashes_of_their_parts():
    """A key is the first eight bytes of BLAKE2b of seed/purpose/numbers, its sign bit dropped, on every machine."""
    digest = hashlib.blake2b(b"3/order/7", digest_size=8).digest()
    assert key(3, "order", 7) == int.from_bytes(digest, "little") // 2
    assert 0 <= key(0, "") < 2**63


def test_equal_keys_draw_alike():
    """The same key gives the same numbers, whatever was drawn before or globally."""
    torch.manual_seed(1)
    first = torch.randperm(50, generator=generator(0, "order", 3))
    torch.rand(7)
    assert torch.equal(first, torch.randperm(50, generator=generator(0, "order", 3)))
    assert np.array_equal(numpy_generator(0, "split").permutation(9), numpy_generator(0, "split").permutation(9))


def test_drawing_leaves_the_global_state():
    """Making and using a generator changes neither torch's nor NumPy's global numbers."""
    state = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "mix"))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("other", [(1, "order", 3), (0, "mix", 3), (0, "order", 4), (0, "order"), (0, "order/3"), (0, "order", 3, 0)])
def test_other_keys_draw_otherwise(other):
    """Another seed, purpose or epoch gives another permutation; only a purpose that is written like the epoch is the same."""
    same = torch.equal(torch.randperm(50, generator=generator(0, "order", 3)), torch.randperm(50, generator=generator(*other)))
    assert same == (other == (0, "order/3"))


def test_neighbouring_epochs_are_independent():
    """The means of many generators' first numbers spread as those of independent draws do."""
    firsts = torch.stack([torch.rand(100, generator=generator(0, "order", epoch), dtype=torch.float64) for epoch in range(400)])
    assert abs(firsts.mean().item() - 0.5) < 4 / (12 * 40_000) ** 0.5
    assert firsts[1:].sub(0.5).mul(firsts[:-1].sub(0.5)).mean().abs().item() < 4 / 12 / 40_000**0.5
