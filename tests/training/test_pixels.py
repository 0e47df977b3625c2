"""Where images are read from changes nothing but the speed. Shapes: N images, B batch, H x W pixels, C channels."""

import os
import threading
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ablation.errors import DataError
from ablation.system.failures import failure
from ablation.training import loop, pixels, step
from ablation.training.pixels import AHEAD, Held, Stored, copied, part_of
from tests.tiny import CPU, Planned, write
from tests.training.test_loop import differing, trained

SLICES = [slice(0, 8), slice(8, 16), slice(16, 20)]
NO_ROOM = 0


@pytest.fixture
def images_NHWC():
    """Sixty random images, no two alike."""
    return np.random.default_rng(0).integers(0, 256, (60, 5, 5, 3), dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path, images_NHWC):
    """The same as a memory map of a file, with a label for each."""
    np.save(tmp_path / "images.npy", images_NHWC)
    return SimpleNamespace(images_NHWC=np.load(tmp_path / "images.npy", mmap_mode="r"), labels_N=np.arange(60))


@pytest.fixture
def rows_N():
    """Twenty of their rows, neither sorted nor next to each other."""
    return np.random.default_rng(1).permutation(60)[:20]


def ways(dataset, rows_N, monkeypatch):
    """The images of these rows in each of the ways in which they can be read."""
    mapped = part_of(dataset, rows_N, CPU)
    copy = copied(torch.from_numpy(np.array(dataset.images_NHWC)), torch.from_numpy(rows_N), CPU)
    monkeypatch.setattr(pixels, "room", lambda _device: NO_ROOM)
    stored = part_of(dataset, rows_N, CPU)
    assert (type(mapped), type(stored)) == (Held, Stored)
    return mapped, Held(copy.permute(0, 3, 1, 2), mapped.labels_N), stored


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


def test_every_way_gives_the_same_pixels_in_the_same_layout(monkeypatch, dataset, images_NHWC, rows_N):
    """From a copy, a memory map or a file, in the images' own order or another: the rows' pixels, channels_last, and their labels."""
    monkeypatch.setattr(pixels, "COPIED_AT_ONCE", 7)
    order_N = torch.randint(20, (20,), generator=torch.Generator().manual_seed(2))
    for data in ways(dataset, rows_N, monkeypatch):
        assert torch.equal(data.labels_N, torch.from_numpy(rows_N))
        for order, expected_N in ((None, rows_N), (order_N, rows_N[order_N.numpy()])):
            found = list(data.batches(SLICES, order))
            assert [len(batch_BCHW) for batch_BCHW in found] == [8, 8, 4]
            assert all(batch_BCHW.stride() == (75, 1, 15, 3) for batch_BCHW in found)
            np.testing.assert_array_equal(torch.cat(found).permute(0, 2, 3, 1).numpy(), images_NHWC[expected_N])


@pytest.mark.parametrize(
    "layers",
    [
        {"base": {"mix": {"name": "cmo", "off_first": 0, "off_last": 0}, "select": "best_on_test", "drop_last": False}},
        {"ladder": {"baseline": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head", "sampler": "class_balanced"}]}}},
    ],
)
def test_where_images_are_read_from_changes_no_bit(tmp_path, monkeypatch, layers):
    """A training whose images stay in their file ends with the very tensors of one that holds them."""
    held = trained(tmp_path, "held", **layers)
    read = count()
    monkeypatch.setattr(pixels, "room", lambda _device: next(read) * NO_ROOM)
    stored = trained(tmp_path, "stored", **layers)
    assert next(read) > 1
    assert differing(held.tensors, stored.tensors) == set()
    assert readers() == []


def test_a_batch_is_read_in_the_order_of_the_file(monkeypatch, dataset, rows_N):
    """Each image of a batch is read once, those that lie first in the file first, and not before the batch is near."""
    *_, data = ways(dataset, rows_N, monkeypatch)
    monkeypatch.setattr(pixels, "AHEAD", 1)
    read, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, room, start: read.append((start - data.start) // 75) or preadv(file, room, start))
    monkeypatch.setattr(pixels, "ThreadPoolExecutor", lambda *_: OneThread())
    found = data.batches(SLICES)
    next(found)
    assert read == [*sorted(rows_N[:8]), *sorted(rows_N[8:16])]
    found.close()


class OneThread:
    """Does what it is asked to at once, so that the order of reading is certain."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, *arguments):
        """The result of the work, done."""
        done = work(*arguments)
        return SimpleNamespace(result=lambda: done)


def test_no_more_than_a_few_batches_are_read_ahead(monkeypatch, dataset):
    """Whoever asks for one batch of sixty has AHEAD more in memory, and none and no thread after closing."""
    *_, data = ways(dataset, np.arange(60), monkeypatch)
    made, empty = count(), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *arguments, **options: (next(made), empty(*arguments, **options))[1])
    found = data.batches([slice(i, i + 1) for i in range(60)])
    next(found)
    assert readers()
    found.close()
    assert next(made) == AHEAD + 1
    assert readers() == []


@pytest.mark.parametrize(("module", "where"), [(step, "train_step"), (loop, "on_device")])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_thread_is_left_where_an_epoch_ends_early(tmp_path, monkeypatch, error, module, where):
    """An interrupted or failed step leaves no reading thread behind, even while its error is still being handled."""
    planned = Planned(write(tmp_path, base={"batch_size": 8, "mix": {"name": "cmo", "off_first": 0, "off_last": 0}}), tmp_path / "mlruns")
    monkeypatch.setattr(pixels, "room", lambda _device: NO_ROOM)
    steps, real = count(), getattr(module, where)

    def failing(*arguments):
        if next(steps) == 1:
            raise error("now")
        return real(*arguments)

    monkeypatch.setattr(module, where, failing)
    with pytest.raises(error):
        planned.carry_out()
    assert readers() == []


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_file_is_told_in_a_sentence(monkeypatch, dataset, rows_N, damage):
    """Images that are cut off or deleted while a training reads them end it with one sentence that names the file."""
    *_, data = ways(dataset, rows_N, monkeypatch)
    if damage == "gone":
        data.file.unlink()
    else:
        os.truncate(data.file, data.start + 10 * 75)
    with pytest.raises(DataError, match=r"images\.npy' ends before its image \d+|cannot be read: .*images\.npy") as caught:
        list(data.batches(SLICES))
    told = failure(caught.value)
    assert told["failure"] == "data"
    assert "\n" not in told["message"]
    assert readers() == []
