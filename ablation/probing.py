"""How fast a stage trains here, by a few steps on random pixels; and whether torch.compile pays, measured in a process of its own."""

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from ablation import signals
from ablation.config import Stage
from ablation.errors import TrainingError
from ablation.memory import keep_freed
from ablation.randomness import generator
from ablation.training.captured import COMPILED, FEWEST_STEPS, Batch, CapturedStep, chosen
from ablation.training.loop import prepare
from ablation.training.step import PlainStep, resolve_precision
from ablation.worker import THREADS, images_of, placed

PROBE_SECONDS = 3.0
NUM_CLASSES = 10
TIMED = 5.0  # seconds that a step is timed for
PATIENCE = 600.0  # seconds after which compiling is given up

Step = PlainStep | CapturedStep


@dataclass(frozen=True)
class Compiling:
    """What torch.compile does to a step: seconds per image without and with it, and to compile it the first time and once it is known."""

    plain: float
    compiled: float
    first: float
    again: float

    def saved(self, images: Sequence[int]) -> float:
        """The seconds that it saves in trainings of so many images each, every one of which compiles its own step."""
        return sum(number * (self.plain - self.compiled) - self.again for number in images) - self.first


def seconds_per_image(stage: Stage, device: torch.device) -> float:
    """Seconds per training image on one worker, augmentation included: the fastest of a few plain steps; the first is not counted."""
    settings = stage.settings
    with _one_thread():
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
def _one_thread() -> Iterator[None]:
    """As many threads as a worker has, for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- torch.compile -----------------------------------------------------------------------------------------------------------


def compiling(stage: Stage, device: torch.device, patience: float = PATIENCE) -> Compiling | str:
    """What torch.compile does to a stage's step here, or why that is not known; a compiler that hangs or crashes takes no one along."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, stage, device, os.getpid()), daemon=True)
    with signals.deaf():
        process.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            return f"it was not compiled after {patience:.0f} s"
        found: Compiling | str = ours.recv()
        process.join(30)  # the compiler tidies up
        return found
    except EOFError:
        process.join(5)
        return f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join(5)


def _measure(pipe: Connection, stage: Stage, device: torch.device, parent: int) -> None:
    signals.die_with_parent(parent)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        keep_freed()
        torch.set_num_threads(THREADS)
        pipe.send(measured(stage, device))
    except Exception as error:  # whatever it is, the plain step does
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())}")


def measured(stage: Stage, device: torch.device, seconds: float = TIMED) -> Compiling | str:
    """The same in this process; a stage's step as its training would take it: without, with, and without again, each the fastest."""
    plain, _ = _timed(_step_of(stage, device, is_compiled=False), stage, device, seconds)
    try:
        step = _step_of(stage, device, is_compiled=True)
        compiled, first = _timed(step, stage, device, seconds)
    except TrainingError as error:  # nothing else is left on a CPU
        return str(error)
    if not step.kind.startswith(COMPILED):
        return step.kind
    del step  # a graph of its own is about to be recorded
    _, again = _timed(_step_of(stage, device, is_compiled=True), stage, device, 0)
    afterwards, _ = _timed(_step_of(stage, device, is_compiled=False), stage, device, seconds)
    return Compiling(min(plain, afterwards), compiled, first, again)


def _step_of(stage: Stage, device: torch.device, *, is_compiled: bool) -> Step:
    return chosen(plain_step(stage, device), FEWEST_STEPS, deterministic=False, is_compiled=is_compiled)


def _timed(step: Step, stage: Stage, device: torch.device, seconds: float) -> tuple[float, float]:
    """Seconds per image of a step, in the fastest tenth of so many seconds, and those of its first call."""
    pixels_BCHW, *others = batch_of(stage, stage.settings.batch_size, device)
    inputs_BCHW = images_of(stage.settings).plain(pixels_BCHW).contiguous(memory_format=torch.channels_last)
    began = _now(device)
    step(inputs_BCHW, *others)
    first = _now(device) - began
    fastest, end = math.inf, _now(device) + seconds
    while True:
        began, num_steps = _now(device), 0
        while num_steps == 0 or time.perf_counter() < began + seconds / 10:
            step(inputs_BCHW, *others)
            num_steps += 1
        fastest = min(fastest, (_now(device) - began) / (num_steps * len(inputs_BCHW)))
        if time.perf_counter() >= end:
            return fastest, first


def _now(device: torch.device) -> float:
    """The time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
