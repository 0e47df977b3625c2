"""Measures how fast a stage trains on this machine, with a few steps on random pixels."""

import contextlib
import time
from collections.abc import Iterator

import torch

from ablation.errors import AblateError
from ablation.system.child import ChildError, call_in_child, one_line
from ablation.system.randomness import generator
from ablation.training.devices import THREADS, set_up_process, to_device
from ablation.training.images import image_pipeline
from ablation.training.loop import prepare_model
from ablation.training.settings import Settings, Stage
from ablation.training.step import Batch, PlainStep, resolve_precision

PROBE_SECONDS = 3.0
PROBE_TIMEOUT = 300.0  # seconds after which the process that probes a CUDA device is given up
NUM_CLASSES = 10


def measured_speed(stage: Stage, device: torch.device) -> float | str:
    """Seconds per training image on one worker, or why they are unknown; what is measured on CUDA is measured in a process of its own.

    An error of CUDA stays with the process that met it, and so does the device's memory that a process takes to use it at all.
    """
    try:
        if device.type != "cuda":
            return seconds_per_image(stage, device)
        seconds: float = call_in_child(_probe, stage, device, timeout=PROBE_TIMEOUT)
        return seconds
    except AblateError:
        raise
    except ChildError as error:
        return str(error)
    except Exception as error:  # of any kind: the training tells of it, or does without
        return one_line(error)


def _probe(stage: Stage, device: torch.device) -> float:
    set_up_process(device)
    return seconds_per_image(stage, device)


def seconds_per_image(stage: Stage, device: torch.device) -> float:
    """Seconds per training image on one worker, with augmentation: the fastest of a few plain steps without the first."""
    settings = stage.settings
    with one_thread():
        num_images = _num_images(settings, device)
        step, pipeline = plain_step(stage, device), image_pipeline(settings)
        pixels_BCHW, targets_BC, sampled_C = batch_of(stage, num_images, device)
        times: list[float] = []
        while len(times) < 2 or (sum(times) < PROBE_SECONDS / 2 and len(times) < 6):
            began = time.perf_counter()
            draws = pipeline.draw(0, 0, num_images, device)
            inputs_BCHW = pipeline.training_inputs(pixels_BCHW, draws).contiguous(memory_format=torch.channels_last)
            float(step(inputs_BCHW, targets_BC, sampled_C))
            times.append(time.perf_counter() - began)
        return float(min(times[1:]) / num_images)


def _num_images(settings: Settings, device: torch.device) -> int:
    """How many images are timed: on a GPU a whole batch, since a step takes as long for a few; on a CPU a few, which take a moment."""
    few = max(2, min(settings.batch_size, 32, 200_000 // settings.model.image_size**2))
    return few if device.type == "cpu" else settings.batch_size


def plain_step(stage: Stage, device: torch.device) -> PlainStep:
    """A stage's plain step, with random weights."""
    settings = stage.settings
    architecture = settings.model.model_copy(update={"pretrained": False, "weights": "none"})
    model = to_device(architecture(NUM_CLASSES, 0, classifier=settings.classifier), device)
    precision = resolve_precision(settings.precision, device)
    state = {name: tensor.to(device) for name, tensor in settings.loss.state(NUM_CLASSES, generator(0, "probe")).items()}
    optimizer, counts_C = settings.optimizer(prepare_model(model, stage)), torch.ones(NUM_CLASSES, device=device)
    return PlainStep(model, optimizer, precision.scaler(device), precision, settings.loss, counts_C, state)


def batch_of(stage: Stage, num_images: int, device: torch.device) -> Batch:
    """Random pixels of the stage's size, targets, and the numbers of images that a sampler draws per class."""
    size = stage.settings.model.image_size
    pixels_BCHW = torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8, device=device)
    return pixels_BCHW, torch.full((num_images, NUM_CLASSES), 1 / NUM_CLASSES, device=device), torch.ones(NUM_CLASSES, device=device)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A context with the number of threads that a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
