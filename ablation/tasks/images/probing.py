"""How fast a stage trains here, by a few steps on random pixels."""

import contextlib
import time
from collections.abc import Iterator

import torch

from ablation.system.randomness import generator
from ablation.training.captured import Batch
from ablation.training.devices import THREADS, placed
from ablation.training.images import images_of
from ablation.training.loop import prepare
from ablation.training.settings import Stage
from ablation.training.step import PlainStep, resolve_precision

PROBE_SECONDS = 3.0
NUM_CLASSES = 10


def seconds_per_image(stage: Stage, device: torch.device) -> float:
    """Seconds per training image on one worker, augmentation included: the fastest of a few plain steps; the first is not counted."""
    settings = stage.settings
    with one_thread():
        num_images = max(2, min(settings.batch_size, 32, 200_000 // settings.model.image_size**2))
        step, images = plain_step(stage, device), images_of(settings)
        pixels_BCHW, *others = batch_of(stage, num_images, device)
        times: list[float] = []
        while len(times) < 2 or (sum(times) < PROBE_SECONDS / 2 and len(times) < 6):
            began = time.perf_counter()
            inputs_BCHW = images.train(pixels_BCHW, images.draw(0, 0, num_images, device)).contiguous(memory_format=torch.channels_last)
            float(step(inputs_BCHW, others[0], others[1]))
            times.append(time.perf_counter() - began)
        return float(min(times[1:]) / num_images)


def plain_step(stage: Stage, device: torch.device) -> PlainStep:
    """A stage's step with random weights."""
    settings = stage.settings
    bare = settings.model.model_copy(update={"pretrained": False, "weights": "none"})
    model = placed(bare(NUM_CLASSES, 0, classifier=settings.classifier), device)
    precision = resolve_precision(settings.precision, device)
    state = {name: tensor.to(device) for name, tensor in settings.loss.state(NUM_CLASSES, generator(0, "probe")).items()}
    optimizer, counts_C = settings.optimizer(prepare(model, stage)), torch.ones(NUM_CLASSES, device=device)
    return PlainStep(model, optimizer, precision.scaler(device), precision, settings.loss, counts_C, state)


def batch_of(stage: Stage, num_images: int, device: torch.device) -> Batch:
    """Random pixels of the stage's size, targets, and what the sampler draws."""
    size = stage.settings.model.image_size
    pixels_BCHW = torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8, device=device)
    return pixels_BCHW, torch.full((num_images, NUM_CLASSES), 1 / NUM_CLASSES, device=device), torch.ones(NUM_CLASSES, device=device)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As many threads as a worker has, for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
