"""One job of image classification: a stretch of a stage trained, unless it is, and what is asked of its end tested."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ablation.errors import DataError
from ablation.study.task import CheckpointInterval, CodeChanged, Emit, Interrupted
from ablation.system import sealed
from ablation.system.failures import failure
from ablation.tasks.images.keys import code_of
from ablation.training import checkpoints, testing
from ablation.training.loop import State, train_epochs
from ablation.training.states import as_file, begin, make_setup, resume
from ablation.training.work import TestRequest, TrainingWork, products


def run(work: TrainingWork, device: torch.device, emit: Emit, should_stop: Callable[[], bool], interval: CheckpointInterval) -> None:
    """Train what is not trained and test what is not tested; each result appears whole in its folder.

    A run that cannot be tested is told by an event of its own. Raises TrainingError, DataError, Interrupted or CodeChanged; a second
    process with the same work waits for the first.
    """
    if work.code != code_of([work.stage.settings, *(request.settings for request in work.requests)]):
        raise CodeChanged  # this process began after a file was edited
    folder = work.stages / work.key
    folder.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(work.stage.settings.deterministic)
    with FileLock(folder / "lock"):
        saved = _sound(folder / checkpoints.FINAL, emit)
        wanted = products(work.tracked, keep_optimizer=work.keep_optimizer)
        if saved is None or not wanted <= set(saved.record["products"]):
            _train(work, device, folder, emit, should_stop, interval)
            saved = checkpoints.read(folder / checkpoints.FINAL)
        assert saved is not None, folder
        try:
            for request in work.requests:
                emit(_test(work, request, saved, device, emit))
        finally:
            testing.forget_cached()  # it holds the stage's weights


def _test(work: TrainingWork, request: TestRequest, saved: checkpoints.Saved, device: torch.device, emit: Emit) -> dict[str, Any]:
    """The event that tells of one run's test; what one post-hoc technique cannot do is no failure of the training or of other runs."""
    try:
        folder = work.results / request.key
        if not sealed.is_whole(folder):
            if folder.exists():
                emit({"kind": "damaged", "message": f"{folder} is damaged; its run is tested again"})
            testing.write_result(work, request, saved, device)
    except Exception as error:  # whatever it is, the others go on
        return {"kind": "untested", "run": request.key} | failure(error)
    return {"kind": "result", "run": request.key}


def _sound(path: Path, emit: Emit) -> checkpoints.Saved | None:
    """What a file of this stage holds, or nothing; where it is there and damaged, that is told, since epochs are trained again for it."""
    is_there, saved = path.is_file(), checkpoints.sound(path)
    if is_there and saved is None:
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
    state = resume(work, setup, _sound(folder / checkpoints.CHECKPOINT, emit)) or begin(work, setup)
    saved_at = time.monotonic()

    def save(state: State, name: str) -> None:
        nonlocal saved_at
        checkpoints.write(folder / name, *as_file(work, setup, state))
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

    with _one_image_told():
        train_epochs(setup, state, work.end_epoch, after_epoch)
    for path in folder.glob("*.safetensors"):  # the last checkpoint, and tested weights of an earlier training
        if path.name != checkpoints.FINAL:
            path.unlink()


@contextlib.contextmanager
def _one_image_told() -> Iterator[None]:
    """What torch says of a batch of a single image, in our words."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        problem = "a batch is a single image, which batch normalisation cannot use; expected batch_size 2 or more, or drop_last: true"
        raise DataError(problem) from error


def _memory(device: torch.device) -> dict[str, dict[str, int]]:
    """The bytes that this process took at most of a CUDA device, and those that are free on it."""
    if device.type != "cuda":
        return {}
    return {"memory": {"taken": torch.cuda.max_memory_reserved(device), "free": torch.cuda.mem_get_info(device)[0]}}
