"""Whether torch.compile would save time for a study's trainings, measured in a process of its own."""

import math
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from ablation.errors import TrainingError
from ablation.formatting import duration
from ablation.system import signals
from ablation.system.memory import keep_freed_memory
from ablation.tasks.images.probing import batch_of, plain_step
from ablation.training.captured import COMPILED, FEWEST_STEPS, CapturedStep, chosen
from ablation.training.devices import THREADS
from ablation.training.images import images_of
from ablation.training.settings import Stage
from ablation.training.step import PlainStep, resolve_precision
from ablation.training.work import TrainingWork

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


def compilable(left: Iterable[tuple[TrainingWork, int]], device: torch.device) -> list[tuple[Stage, list[int]]]:
    """The models that could be compiled and are not yet, each with the images of all trainings that are left.

    `left` has each training with the images that it has still to see.
    """
    by_model: dict[object, tuple[Stage, list[int]]] = {}
    for work, images in left:
        settings = work.stage.settings
        is_open = images and work.stage.train == "all" and not (settings.compile or settings.deterministic)
        if is_open and resolve_precision(settings.precision, device).name != "fp16":
            alike = (settings.model, settings.batch_size, settings.precision)
            by_model.setdefault(alike, (work.stage, []))[1].append(images)
    return list(by_model.values())


def compiling_words(stage: Stage, measured: Compiling | str, images: Sequence[int]) -> str:
    """What torch.compile would do to trainings of so many images each, in a sentence."""
    model = stage.settings.model
    what = f"{model.name} at {model.image_size} pixels, batches of {stage.settings.batch_size}"
    if isinstance(measured, str):
        return f"{what}: cannot be compiled here: {measured}"
    saved, spent = measured.saved(images), sum(images) * measured.plain
    speed = f"{measured.plain / measured.compiled:.2f} times as fast"
    speed += f", {measured.first:.0f} s to compile, {measured.again:.0f} s for each training after"
    sense = f"`compile: true` would save {duration(saved)}" if saved > 0 else f"`compile: true` would cost {duration(-saved)} more"
    return f"{what}: {speed}; {sense} of {duration(spent)} of steps"


def measure_compiling(stage: Stage, device: torch.device, patience: float = PATIENCE) -> Compiling | str:
    """What torch.compile does to a stage's step here, or why that is not known; a compiler that hangs or crashes takes no one along."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, stage, device, os.getpid()), daemon=True)
    with signals.blocked():
        process.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            return f"it was not compiled after {patience:.0f} s"
        measured: Compiling | str = ours.recv()
        process.join(30)  # the compiler tidies up
        return measured
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
        keep_freed_memory()
        torch.set_num_threads(THREADS)
        pipe.send(measure_here(stage, device))
    except Exception as error:  # whatever it is, the plain step does
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())}")


def measure_here(stage: Stage, device: torch.device, seconds: float = TIMED) -> Compiling | str:
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
