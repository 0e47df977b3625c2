"""One job of image classification: train some epochs of a stage, unless that is done, and test the weights at their end."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ablation.errors import DataError
from ablation.study.task import CheckpointInterval, CodeChanged, Emit, Interrupted
from ablation.system import sealed
from ablation.system.failures import failure
from ablation.tasks.images.keys import code_of
from ablation.tasks.images.schema import MEMORY_ADVICE
from ablation.training import checkpoints, testing
from ablation.training.devices import forget_peak
from ablation.training.loop import State, train_epochs
from ablation.training.pixels import ImagesInFile, SplitImages
from ablation.training.states import initial_state, make_setup, resumed_state, tensors_and_record
from ablation.training.work import TestRequest, TrainingWork, products


def run(work: TrainingWork, device: torch.device, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
    """Do whatever of the training and the tests is not done yet; the folder of each result appears only when it is complete.

    A run that cannot be tested is reported by an event of its own. Raises TrainingError, DataError, Interrupted or CodeChanged, and Fenced
    where another process takes over. A second process with the same work waits for the first: `task.py` sees to it that it waits for no
    earlier attempt that was given up.
    """
    if work.code != code_of([work.stage.settings, *(request.settings for request in work.requests)]):
        raise CodeChanged  # a file was edited between the plan and the start of this process
    folder = work.stages / work.key
    folder.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(work.stage.settings.deterministic)
    forget_peak(device)  # that of earlier jobs
    with FileLock(folder / "lock"):
        saved = _read_or_report(folder / checkpoints.FINAL, emit)
        needed = products(work.tracked, keep_optimizer=work.keep_optimizer)
        if saved is None or not needed <= set(saved.record["products"]):
            keep_optimizer = work.keep_optimizer or (saved is not None and "optimizer" in saved.record["products"])
            _train(replace(work, keep_optimizer=keep_optimizer), device, folder, emit, should_stop, interval)
            saved = checkpoints.read(folder / checkpoints.FINAL)
        assert saved is not None, folder
        try:
            for request in work.requests:
                emit(_test(work, request, saved, device, emit))
        finally:
            testing.clear_caches()  # which hold the stage's weights


def _test(work: TrainingWork, request: TestRequest, saved: checkpoints.SavedState, device: torch.device, emit: Emit) -> dict[str, Any]:
    """Test one run and return the event that reports it; an error in a test fails neither the training nor other runs."""
    try:
        folder = work.results / request.key
        if not sealed.is_whole(folder):
            if folder.exists():
                emit({"kind": "damaged", "message": f"{folder} is damaged; its run is tested again"})
            testing.write_result(work, request, saved, device)
    except Exception as error:  # of any kind: the other tests continue
        return {"kind": "untested", "run": request.key} | failure(error, MEMORY_ADVICE)
    return {"kind": "result", "run": request.key}


def _read_or_report(path: Path, emit: Emit) -> checkpoints.SavedState | None:
    """The contents of a file of this stage, or None; a damaged file is reported, since its epochs are trained again."""
    exists, saved = path.is_file(), checkpoints.read_or_set_aside(path)
    if exists and saved is None:
        emit({"kind": "damaged", "message": f"{path} is damaged and was put aside; its stage is trained again"})
    return saved


def _train(
    work: TrainingWork,
    device: torch.device,
    folder: Path,
    emit: Emit,
    should_stop: Callable[[], bool],
    interval: CheckpointInterval,
) -> None:
    setup = make_setup(work, device)
    for message in _read_from_disk({"training": setup.train, **setup.watched}, device):
        emit({"kind": "told", "message": message})
    state = resumed_state(work, setup, _read_or_report(folder / checkpoints.CHECKPOINT, emit)) or initial_state(work, setup)
    saved_at = time.monotonic()

    def save(state: State, name: str) -> None:
        nonlocal saved_at
        checkpoints.write(folder / name, *tensors_and_record(work, setup, state))
        saved_at = time.monotonic()

    def after_epoch(state: State) -> None:
        is_last = state.epoch == work.end_epoch
        is_saved = is_last or interval.is_due(state.epoch, time.monotonic() - saved_at)
        if is_saved:
            save(state, checkpoints.FINAL if is_last else checkpoints.CHECKPOINT)
        emit({"kind": "epoch", "epoch": state.epoch, "row": state.history[-1], **_memory(device)})
        if should_stop() and not is_last:
            if not is_saved:
                save(state, checkpoints.CHECKPOINT)
            raise Interrupted

    with explained_single_image():
        train_epochs(setup, state, work.end_epoch, after_epoch)
    for path in folder.glob("*.safetensors"):  # the last checkpoint, and the tested weights of an earlier training
        if path.name != checkpoints.FINAL:
            path.unlink()


def _read_from_disk(splits: Mapping[str, SplitImages], device: torch.device) -> list[str]:
    """A sentence for each split whose images do not fit into memory."""
    return [
        f"the {name} images ({images.num_bytes / 1e9:.1f} GB) are read from the disk in each epoch: they do not fit into the part of "
        f"{device}'s free memory that they may take; the numbers are the same, perhaps later"
        for name, images in splits.items()
        if isinstance(images, ImagesInFile)
    ]


@contextlib.contextmanager
def explained_single_image() -> Iterator[None]:
    """A context that replaces torch's error for a batch of a single image by one that says what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        problem = "a batch is a single image, which batch normalisation cannot use; expected batch_size 2 or more, or drop_last: true"
        raise DataError(problem) from error


def _memory(device: torch.device) -> dict[str, dict[str, int]]:
    """The peak of the CUDA memory that this process reserved for the job, without verification, and the device's free memory, in bytes."""
    if device.type != "cuda":
        return {}
    return {"memory": {"taken": torch.cuda.max_memory_reserved(device), "free": torch.cuda.mem_get_info(device)[0]}}
