"""Measures, in a separate process, whether torch.compile would save time in a study's trainings."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ablation.errors import TrainingError
from ablation.formatting import duration
from ablation.system.child import ChildError, call_in_child
from ablation.system.memory import keep_freed_memory
from ablation.tasks.images.probing import batch_of, plain_step
from ablation.training.accelerated import MIN_STEPS, AcceleratedStep, choose_step
from ablation.training.compiled import COMPILED
from ablation.training.devices import set_up_process
from ablation.training.images import image_pipeline
from ablation.training.settings import Stage
from ablation.training.step import PlainStep, resolve_precision
from ablation.training.work import TrainingWork

TIMED_SECONDS = 5.0  # for which a step is timed
TIMEOUT = 600.0  # seconds after which compiling is given up

Step = PlainStep | AcceleratedStep


@dataclass(frozen=True)
class CompileTiming:
    """The seconds of a step without and with torch.compile, and of compiling."""

    plain: float  # per image, without
    compiled: float  # per image, with
    first: float  # to compile the step
    again: float  # to compile it once more, with what torch has cached

    def saved(self, images: Sequence[int]) -> float:
        """The seconds that compiling saves in trainings of these numbers of images, each of which compiles its own step."""
        return sum(num_images * (self.plain - self.compiled) - self.again for num_images in images) - self.first


def compilable_models(remaining: Iterable[tuple[TrainingWork, int]], device: torch.device) -> list[tuple[Stage, list[int]]]:
    """The models that could be compiled and are not yet, each with the numbers of images of its remaining trainings.

    `remaining` has each training with the number of images that it still has to train on.
    """
    by_model: dict[object, tuple[Stage, list[int]]] = {}
    for work, num_images in remaining:
        settings = work.stage.settings
        is_candidate = num_images and work.stage.train == "all" and not (settings.compile or settings.deterministic)
        if is_candidate and resolve_precision(settings.precision, device).name != "fp16":
            model = (settings.model, settings.batch_size, settings.precision)
            by_model.setdefault(model, (work.stage, []))[1].append(num_images)
    return list(by_model.values())


def describe_compiling(stage: Stage, timing: CompileTiming | str, images: Sequence[int]) -> str:
    """What torch.compile would do in trainings of these numbers of images, in a sentence."""
    model = stage.settings.model
    subject = f"{model.name} at {model.image_size} pixels, batches of {stage.settings.batch_size}"
    if isinstance(timing, str):
        return f"{subject}: cannot be compiled here: {timing}"
    saved, total = timing.saved(images), sum(images) * timing.plain
    speed = f"{timing.plain / timing.compiled:.2f} times as fast"
    speed += f", {timing.first:.0f} s to compile, {timing.again:.0f} s for each training after"
    verdict = f"`compile: true` would save {duration(saved)}" if saved > 0 else f"`compile: true` would cost {duration(-saved)} more"
    return f"{subject}: {speed}; {verdict} of {duration(total)} of steps"


def measure_compiling(stage: Stage, device: torch.device, timeout: float = TIMEOUT) -> CompileTiming | str:
    """The timing of a stage's step on this machine, or why there is none; a compiler that hangs or crashes ends only its own process."""
    try:
        timing: CompileTiming | str = call_in_child(_measure, stage, device, timeout=timeout)
        return timing
    except ChildError as error:
        return str(error)


def _measure(stage: Stage, device: torch.device) -> CompileTiming | str:
    keep_freed_memory()
    set_up_process(device)
    return measure_here(stage, device)


def measure_here(stage: Stage, device: torch.device, seconds: float = TIMED_SECONDS) -> CompileTiming | str:
    """The same, measured in this process with the stage's own step: without compiling, with it, and without it again."""
    plain, _ = _time_step(_make_step(stage, device, is_compiled=False), stage, device, seconds)
    try:
        step = _make_step(stage, device, is_compiled=True)
        compiled, first = _time_step(step, stage, device, seconds)
    except TrainingError as error:  # on a CPU, where there is no captured step to fall back on
        return str(error)
    if not step.kind.startswith(COMPILED):
        return step.kind
    del step  # its graph must be freed before the next capture
    _, again = _time_step(_make_step(stage, device, is_compiled=True), stage, device, 0)
    plain_again, _ = _time_step(_make_step(stage, device, is_compiled=False), stage, device, seconds)
    return CompileTiming(min(plain, plain_again), compiled, first, again)


def _make_step(stage: Stage, device: torch.device, *, is_compiled: bool) -> Step:
    return choose_step(plain_step(stage, device), MIN_STEPS, deterministic=False, is_compiled=is_compiled)


def _time_step(step: Step, stage: Stage, device: torch.device, seconds: float) -> tuple[float, float]:
    """Seconds per image of a step, in the fastest tenth of a measurement of `seconds`; and the seconds of its first call."""
    pixels_BCHW, targets_BC, sampled_C = batch_of(stage, stage.settings.batch_size, device)
    inputs_BCHW = image_pipeline(stage.settings).resized(pixels_BCHW).contiguous(memory_format=torch.channels_last)
    began = _synchronized_time(device)
    step(inputs_BCHW, targets_BC, sampled_C)
    first = _synchronized_time(device) - began
    fastest, end = math.inf, _synchronized_time(device) + seconds
    while True:
        began, num_steps = _synchronized_time(device), 0
        while num_steps == 0 or time.perf_counter() < began + seconds / 10:
            step(inputs_BCHW, targets_BC, sampled_C)
            num_steps += 1
        fastest = min(fastest, (_synchronized_time(device) - began) / (num_steps * len(inputs_BCHW)))
        if time.perf_counter() >= end:
            return fastest, first


def _synchronized_time(device: torch.device) -> float:
    """The time once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
