"""The place that images are read from changes nothing but the speed. Shapes: N images, B batch, H x W pixels, C channels."""

import os
import threading
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ablation.errors import DataError
from ablation.system.failures import failure
from ablation.tasks.images.schema import MEMORY_ADVICE
from ablation.training import loop, pixels, step
from ablation.training.datasets import images_on_device
from ablation.training.pixels import BATCHES_AHEAD, ImagesInFile, ImagesInMemory, copy_rows, images_of_rows
from tests.tiny import CPU, Planned, run_job, write
from tests.training.test_loop import differing, trained

SLICES = [slice(0, 8), slice(8, 16), slice(16, 20)]
NO_MEMORY = 0


@pytest.fixture
def images_NHWC():
    """Sixty random images."""
    return np.random.default_rng(0).integers(0, 256, (60, 5, 5, 3), dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path, images_NHWC):
    """The same as a memory map of a file, with a label for each."""
    np.save(tmp_path / "images.npy", images_NHWC)
    return SimpleNamespace(images_NHWC=np.load(tmp_path / "images.npy", mmap_mode="r"), labels_N=np.arange(60))


@pytest.fixture
def rows_N():
    """Twenty of their rows, neither sorted nor adjacent."""
    return np.random.default_rng(1).permutation(60)[:20]


def from_all_places(dataset, rows_N, monkeypatch):
    """The images of these rows from a memory map, from a copy and from their file."""
    mapped = images_of_rows(dataset, rows_N, CPU)
    copy = copy_rows(torch.from_numpy(np.array(dataset.images_NHWC)), torch.from_numpy(rows_N), CPU)
    monkeypatch.setattr(pixels, "memory_limit", lambda _device: NO_MEMORY)
    in_file = images_of_rows(dataset, rows_N, CPU)
    assert (type(mapped), type(in_file)) == (ImagesInMemory, ImagesInFile)
    return mapped, ImagesInMemory(copy.permute(0, 3, 1, 2), mapped.labels_N), in_file


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


def test_every_place_gives_the_same_pixels_in_the_same_layout(monkeypatch, dataset, images_NHWC, rows_N):
    """From a copy, a memory map or a file, in the images' own order or another: the rows' pixels, channels_last, and their labels."""
    monkeypatch.setattr(pixels, "IMAGES_PER_COPY", 7)
    order_N = torch.randint(20, (20,), generator=torch.Generator().manual_seed(2))
    for images in from_all_places(dataset, rows_N, monkeypatch):
        assert torch.equal(images.labels_N, torch.from_numpy(rows_N))
        for order, expected_N in ((None, rows_N), (order_N, rows_N[order_N.numpy()])):
            batches = list(images.batches(SLICES, order))
            assert [len(batch_BCHW) for batch_BCHW in batches] == [8, 8, 4]
            assert all(batch_BCHW.stride() == (75, 1, 15, 3) for batch_BCHW in batches)
            np.testing.assert_array_equal(torch.cat(batches).permute(0, 2, 3, 1).numpy(), images_NHWC[expected_N])


@pytest.mark.parametrize(
    "layers",
    [
        {"base": {"mix": {"name": "cmo", "off_first": 0, "off_last": 0}, "select": "best_on_test", "drop_last": False}},
        {"ladder": {"baseline": {"stages": [{"epochs": 1}, {"epochs": 1, "train": "head", "sampler": "class_balanced"}]}}},
    ],
)
def test_the_place_of_images_changes_no_bit(tmp_path, monkeypatch, layers):
    """A training whose images stay in their file ends with the tensors of one whose images are in memory."""
    in_memory = trained(tmp_path, "held", **layers)
    calls = count()
    monkeypatch.setattr(pixels, "memory_limit", lambda _device: next(calls) * NO_MEMORY)
    in_file = trained(tmp_path, "stored", **layers)
    assert next(calls) > 1
    assert differing(in_memory.tensors, in_file.tensors) == set()
    assert readers() == []


def test_reading_from_the_disk_is_told(tmp_path, monkeypatch):
    """A training whose images do not fit into memory says so, in a sentence for each split, and one whose images fit says nothing."""
    planned = Planned(write(tmp_path, base={"select": "best_on_test"}, seeds=[0, 1]), tmp_path / "mlruns")
    told = []
    for job, limit in zip(planned.jobs(), (10**9, NO_MEMORY), strict=True):
        monkeypatch.setattr(pixels, "memory_limit", lambda _device, limit=limit: limit)
        images_on_device.cache_clear()
        run_job(job, CPU, lambda event: told.append(event) if event["kind"] == "told" else None, lambda: False)
        assert len(told) == (2 if limit == NO_MEMORY else 0)
    images_on_device.cache_clear()
    sentences = [event["message"] for event in told]
    assert [sentence.partition(" (")[0] for sentence in sentences] == ["the training images", "the test images"]
    assert "(0.0 GB) are read from the disk in each epoch: they do not fit into the part of cpu's free memory" in sentences[0]


def test_a_batch_is_read_in_the_order_of_the_file(monkeypatch, dataset, rows_N):
    """Each image of a batch is read once, in the order of the file, and not long before the batch is needed."""
    *_, images = from_all_places(dataset, rows_N, monkeypatch)
    monkeypatch.setattr(pixels, "BATCHES_AHEAD", 1)
    rows, preadv = [], os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda file, buffers, offset: rows.append((offset - images.start) // 75) or preadv(file, buffers, offset)
    )
    monkeypatch.setattr(pixels, "ThreadPoolExecutor", lambda *_: OneThread())
    batches = images.batches(SLICES)
    next(batches)
    assert rows == [*sorted(rows_N[:8]), *sorted(rows_N[8:16])]
    batches.close()


class OneThread:
    """An executor that runs its work at once, so that the order of reading is certain."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, *arguments):
        """Run the work and return its result like a future."""
        result = work(*arguments)
        return SimpleNamespace(result=lambda: result)


def test_no_more_than_a_few_batches_are_read_ahead(monkeypatch, dataset):
    """After the first of sixty batches BATCHES_AHEAD more are in memory, and after closing there are no threads."""
    *_, images = from_all_places(dataset, np.arange(60), monkeypatch)
    buffers, empty = count(), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *arguments, **options: (next(buffers), empty(*arguments, **options))[1])
    batches = images.batches([slice(i, i + 1) for i in range(60)])
    next(batches)
    assert readers()
    batches.close()
    assert next(buffers) == BATCHES_AHEAD + 1
    assert readers() == []


@pytest.mark.parametrize(("module", "name"), [(step, "train_step"), (loop, "draws_on_device")])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_thread_is_left_if_an_epoch_ends_early(tmp_path, monkeypatch, error, module, name):
    """An interrupted or failed step leaves no reading thread behind, even while its error is still being handled."""
    planned = Planned(write(tmp_path, base={"batch_size": 8, "mix": {"name": "cmo", "off_first": 0, "off_last": 0}}), tmp_path / "mlruns")
    monkeypatch.setattr(pixels, "memory_limit", lambda _device: NO_MEMORY)
    calls, function = count(), getattr(module, name)

    def failing(*arguments):
        if next(calls) == 1:
            raise error("now")
        return function(*arguments)

    monkeypatch.setattr(module, name, failing)
    with pytest.raises(error):
        planned.carry_out()
    assert readers() == []


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_damaged_file_is_an_error_with_its_name(monkeypatch, dataset, rows_N, damage):
    """If images are cut off or deleted while a training reads them, it fails with one sentence that names the file."""
    *_, images = from_all_places(dataset, rows_N, monkeypatch)
    if damage == "gone":
        images.file.unlink()
    else:
        os.truncate(images.file, images.start + 10 * 75)
    with pytest.raises(DataError, match=r"images\.npy' ends before its image \d+|cannot be read: .*images\.npy") as caught:
        list(images.batches(SLICES))
    event = failure(caught.value, MEMORY_ADVICE)
    assert event["failure"] == "data"
    assert "\n" not in event["message"]
    assert readers() == []
