"""One stage's job: data in, training, predictions, events out."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from ablation import groups
from ablation.config import Settings, Stage
from ablation.data import Dataset, Split, open_dataset, split
from ablation.errors import AblateError, DataError, TrainingError
from ablation.randomness import key
from ablation.techniques.models import initialise_classifier
from ablation.techniques.technique import Technique
from ablation.training import checkpoints
from ablation.training.images import Images
from ablation.training.loop import Best, Data, Setup, State, Tracked, copy_into, predict, prepare, train_epochs
from ablation.training.step import resolve_precision

THREADS = 1  # per run on the CPU: it changes bits, so it is the same however many run at once
ON_DEVICE_SHARE = 0.4  # of a CUDA device's free memory
Emit = Callable[[dict[str, Any]], None]


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user asked to stop; the last epoch is saved."""


@dataclass(frozen=True)
class Evaluation:
    """One run's numbers: which weights of the stage are tested, and how."""

    key: str
    content: str
    settings: Settings
    average: str  # the id of what is tested
    groups: Any
    keep_weights: bool


@dataclass(frozen=True)
class Job:
    """A stretch of one stage to be trained (unless it is), and what is to be tested at its end."""

    key: str
    stage: Stage
    seed: int
    until: int  # epochs of the stage at its end
    parent: str  # the key whose state it starts from, or ""
    parent_average: str  # the id of the average that it starts from, or "" for the weights
    same_stage: bool  # whether the parent is an earlier part of the same stage
    tracked: tuple[Tracked, ...]
    keep_optimizer: bool  # whether a later stage carries on with it
    evaluations: tuple[Evaluation, ...]
    dataset: Path
    weights_file: Path | None
    tail: tuple[int, ...]
    stages: Path  # the folder of all stages
    results: Path  # the folder of all results


def products(tracked: tuple[Tracked, ...], *, keep_optimizer: bool) -> set[str]:
    """What a stage's file holds beside the weights."""
    found = {f"average:{one.id}" for one in tracked if one.technique.averages}
    found |= {f"best:{one.id}|{split_name}" for one in tracked for split_name in one.best_on}
    return found | ({"optimizer"} if keep_optimizer else set())


def run(job: Job, device: torch.device, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Train what is not trained and test what is not tested; each result appears whole in its folder.

    Raises TrainingError, DataError or Interrupted; a second process with the same job waits for the first.
    """
    folder = job.stages / job.key
    folder.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(job.stage.settings.deterministic)
    with FileLock(folder / "lock"):
        saved = checkpoints.read(folder / checkpoints.FINAL)
        wanted = products(job.tracked, keep_optimizer=job.keep_optimizer)
        if saved is None or not wanted <= set(saved.record["products"]):
            _train(job, device, folder, emit, should_stop)
            saved = checkpoints.read(folder / checkpoints.FINAL)
        assert saved is not None, folder
        for one in job.evaluations:
            if not (job.results / one.key / "result.json").exists():
                _evaluate(job, one, saved, device)
            emit({"kind": "result", "run": one.key})
    for cached in (_view_logits, _tested_model):
        cached.cache_clear()  # they hold the stage's weights


# --- training ----------------------------------------------------------------------------------------------------------------


def _train(job: Job, device: torch.device, folder: Path, emit: Emit, should_stop: Callable[[], bool]) -> None:
    setup = _setup(job, device)
    state = _resumed(job, setup, folder) or _begun(job, setup)

    def after_epoch(state: State) -> None:
        is_last = state.epoch == job.until
        checkpoints.write(folder / (checkpoints.FINAL if is_last else checkpoints.CHECKPOINT), *_as_file(job, setup, state))
        emit({"kind": "epoch", "epoch": state.epoch, "row": state.history[-1]})
        if should_stop() and not is_last:
            raise Interrupted

    train_epochs(setup, state, job.until, after_epoch)
    for path in folder.glob("*.safetensors"):  # the last checkpoint, and tested weights of an earlier training
        if path.name != checkpoints.FINAL:
            path.unlink()


def _setup(job: Job, device: torch.device) -> Setup:
    stage = job.stage
    dataset, parts = _data(job.dataset, stage.settings.data, job.seed)
    best_on = {name for one in job.tracked for name in one.best_on}
    watched = {"validation": parts.validation_N} if len(parts.validation_N) else {}
    if "validation" in best_on and not watched:
        raise DataError("select is best_on_validation, but data.validation is 0; expected a fraction such as 0.1")
    if "test" in best_on:
        watched["test"] = parts.test_N
    tail_C = torch.zeros(len(dataset.classes), dtype=torch.bool)
    tail_C[list(job.tail)] = True
    return Setup(
        stage=stage,
        seed=job.seed,
        images=images_of(stage.settings),
        train=_on_device(job.dataset, stage.settings.data, job.seed, "train", device),
        watched={name: _on_device(job.dataset, stage.settings.data, job.seed, name, device) for name in watched},
        counts_C=torch.from_numpy(parts.counts_C).to(device, torch.float32),
        tail_C=tail_C.to(device),
        precision=resolve_precision(stage.settings.precision, device),
        tracked=job.tracked,
        device=device,
    )


def images_of(settings: Settings) -> Images:
    """The way from stored pixels to the model's input."""
    return Images(settings.augment, settings.model.image_size, *settings.model.normalisation)


def _begun(job: Job, setup: Setup) -> State:
    """The state before the job's first epoch."""
    if not job.parent:
        model = job.stage.settings.model(len(setup.counts_C), job.seed, job.weights_file)
        return _started(job, setup, placed(model, setup.device), None)
    saved = checkpoints.read(job.stages / job.parent / checkpoints.FINAL)
    if saved is None:
        raise TrainingError("store", f"the stage {job.parent} that this one starts from is gone; run again")
    if job.same_stage:
        return _restored(job, setup, saved)
    model = placed(_bare_model(job, len(setup.counts_C)), setup.device)
    copy_into(model, checkpoints.under(f"average/{job.parent_average}" if job.parent_average else "model", saved.tensors))
    return _started(job, setup, model, saved)


def _started(job: Job, setup: Setup, model: nn.Module, saved: checkpoints.Saved | None) -> State:
    """The state at the beginning of a stage: what restarts is new, what does not goes on from the stage before."""
    stage = job.stage
    if stage.head == "new":
        initialise_classifier(model, job.seed, f"init/{stage.first_epoch}")
    state = _fresh_state(setup, model)
    for one in setup.tracked:
        if one.technique.averages:
            begins = one.since == stage.first_epoch or saved is None
            source = model.state_dict() if begins else checkpoints.under(f"average/{one.id}", saved.tensors) if saved else {}
            state.averages[one.id] = {name: source[name].detach().to(setup.device).clone() for name in model.state_dict()}
            state.updates[one.id] = 0 if begins or saved is None else saved.record["updates"][one.id]
    if saved is not None:
        state.history = list(saved.record["history"])
        if "optimizer" not in stage.restart:
            _load_optimizer(state, saved)
    return state


def _fresh_state(setup: Setup, model: nn.Module) -> State:
    trained = prepare(model, setup.stage)
    return State(model, setup.stage.settings.optimizer(trained), setup.precision.scaler(setup.device))


def _bare_model(job: Job, num_classes: int) -> nn.Module:
    """The architecture; its weights are about to be overwritten, so none are fetched."""
    bare = job.stage.settings.model.model_copy(update={"pretrained": False})
    model: nn.Module = bare(num_classes, job.seed)
    return model


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, its images and filters in channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)


def _resumed(job: Job, setup: Setup, folder: Path) -> State | None:
    """The state of the last saved epoch, or nothing where none was saved or it lacks what is wanted now."""
    saved = checkpoints.read(folder / checkpoints.CHECKPOINT)
    wanted = products(job.tracked, keep_optimizer=False)
    if saved is None or not wanted <= set(saved.record["products"]) or "optimizer" not in saved.record["products"]:
        return None
    return _restored(job, setup, saved)


def _restored(job: Job, setup: Setup, saved: checkpoints.Saved) -> State:
    model = placed(_bare_model(job, len(setup.counts_C)), setup.device)
    copy_into(model, checkpoints.under("model", saved.tensors))
    state = _fresh_state(setup, model)
    _load_optimizer(state, saved)
    state.scaler.load_state_dict(saved.record["scaler"])
    for one in setup.tracked:
        if one.technique.averages:
            state.averages[one.id] = _moved(checkpoints.under(f"average/{one.id}", saved.tensors), setup.device)
            state.updates[one.id] = saved.record["updates"][one.id]
        for split_name in one.best_on:
            name = f"{one.id}|{split_name}"
            score, epoch = saved.record["best"][name]
            state.best[name] = Best(score, epoch, _moved(checkpoints.under(f"best/{name}", saved.tensors), setup.device))
    state.history, state.epoch = list(saved.record["history"]), saved.record["epoch"]
    return state


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _load_optimizer(state: State, saved: checkpoints.Saved) -> None:
    """Give each parameter its moments back, in the parameter's own memory format."""
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for name, tensor in checkpoints.under("optimizer", saved.tensors).items():
        number, _, what = name.partition("/")
        parameter = parameters[int(number)]
        alike = tensor.shape == parameter.shape
        state.optimizer.state[parameter][what] = torch.empty_like(parameter).copy_(tensor) if alike else tensor.to(parameter.device)


def _as_file(job: Job, setup: Setup, state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as tensors by name and a record; the optimizer is left out of a finished stage that nobody carries on."""
    with_optimizer = job.keep_optimizer or state.epoch < job.until
    tensors = checkpoints.prefixed("model", state.model.state_dict())
    for name, average in state.averages.items():
        tensors |= checkpoints.prefixed(f"average/{name}", average)
    for name, best in state.best.items():
        tensors |= checkpoints.prefixed(f"best/{name}", best.tensors)
    if with_optimizer:
        for number, values in state.optimizer.state_dict()["state"].items():  # a parameter without a gradient has none
            tensors |= {f"optimizer/{number}/{what}": value for what, value in values.items() if isinstance(value, Tensor)}
    record = {
        "key": job.key,
        "epoch": state.epoch,
        "products": sorted(products(job.tracked, keep_optimizer=with_optimizer)),
        "updates": state.updates,
        "best": {name: [best.score, best.epoch] for name, best in state.best.items()},
        "scaler": state.scaler.state_dict(),
        "history": state.history,
        "precision": setup.precision.name,
        "device": device_name(setup.device),
    }
    return tensors, record


# --- data --------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _data(folder: Path, source: Technique, seed: int) -> tuple[Dataset, Split]:
    dataset = open_dataset(folder)
    return dataset, split(dataset, source, seed)


@lru_cache(maxsize=6)
def _on_device(folder: Path, source: Technique, seed: int, part: str, device: torch.device) -> Data:
    """The images of one part of the split, N x C x H x W in channels_last, kept for the next job; a part too large for a CUDA
    device stays in the host's memory.
    """
    dataset, parts = _data(folder, source, seed)
    chosen_N = getattr(parts, f"{part}_N")
    pixels_NHWC = torch.from_numpy(np.ascontiguousarray(dataset.images_NHWC[chosen_N]))
    labels_N = torch.from_numpy(np.ascontiguousarray(dataset.labels_N[chosen_N])).long().to(device)
    fits = device.type != "cuda" or pixels_NHWC.nbytes < ON_DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    pixels_NHWC = pixels_NHWC.to(device) if fits else pixels_NHWC.pin_memory()
    return Data(pixels_NHWC.permute(0, 3, 1, 2), labels_N)


def device_name(device: torch.device) -> str:
    """The class of device that bits depend on."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


# --- evaluation --------------------------------------------------------------------------------------------------------------


def _evaluate(job: Job, one: Evaluation, saved: checkpoints.Saved, device: torch.device) -> None:
    from ablation import evaluation  # with scikit-learn, which only workers need

    settings, began = one.settings, time.time()
    dataset, parts = _data(job.dataset, settings.data, job.seed)
    where = _weights_prefix(one)
    torch.manual_seed(key(job.seed, "evaluation"))
    logits_NC = _scores(job, settings, where, saved, device)
    logits_NC = settings.posthoc(logits_NC, torch.from_numpy(parts.counts_C).float().to(device)).cpu()
    if not bool(torch.isfinite(logits_NC).all()):
        raise TrainingError("nan", "the tested weights give logits that are no finite numbers; a lower optimizer.lr may help")
    labels_N = np.asarray(dataset.labels_N[parts.test_N])
    table = evaluation.predictions(parts.test_N, labels_N, logits_NC.numpy(), dataset.classes)
    predicted_N = table["predicted"].to_numpy()
    members = groups.resolve(one.groups, parts.counts_C.tolist(), dataset.classes)
    result = {
        "key": one.key,
        "content": one.content,
        "metrics": evaluation.metrics(labels_N, predicted_N, dataset.classes, members),
        "history": saved.record["history"],
        "average": one.average,
        "best": saved.record["best"].get(where.removeprefix("best/")),
        "classes": list(dataset.classes),
        "counts": parts.counts_C.tolist(),
        "test_counts": np.bincount(labels_N, minlength=len(dataset.classes)).tolist(),
        "validation": len(parts.validation_N),
        "digest": parts.digest,
        "precision": saved.record["precision"],
        "device": saved.record["device"],
        "finished": int(time.time() * 1000),
        "seconds": time.time() - began,
    }
    texts = {
        "classification_report.txt": evaluation.report_text(labels_N, predicted_N, dataset.classes),
        "confusion_matrix.csv": evaluation.confusion(labels_N, predicted_N, dataset.classes).to_csv(),
        "result.json": json.dumps(result),
    }
    table.to_parquet(_beside(job, one) / "predictions.parquet", index=False)
    _write_result(job, one, where, saved, texts)


def _weights_prefix(one: Evaluation) -> str:
    """Where in the stage's file the tested weights are."""
    if one.settings.select != "last":
        return f"best/{one.average}|{one.settings.select.removeprefix('best_on_')}"
    return f"average/{one.average}" if one.settings.average.averages else "model"


def _scores(job: Job, settings: Settings, where: str, saved: checkpoints.Saved, device: torch.device) -> Tensor:
    """The combined scores of the test images, each view of these weights computed once per worker."""
    views = settings.tta.views()
    logits = [_view_logits(_Weights(job, where, saved), view, device) for view in views]
    scores_NC: Tensor = settings.tta.combine(torch.stack(logits))
    return scores_NC


class _Weights:
    """One set of tested weights, told apart by the stage's key and its place in the stage's file."""

    def __init__(self, job: Job, where: str, saved: checkpoints.Saved) -> None:
        self.job, self.where, self.saved = job, where, saved

    def __hash__(self) -> int:
        return hash((self.job.key, self.where))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Weights) and (self.job.key, self.where) == (other.job.key, other.where)


@lru_cache(maxsize=16)
def _view_logits(weights: _Weights, view: Any, device: torch.device) -> Tensor:
    job = weights.job
    test = _on_device(job.dataset, job.stage.settings.data, job.seed, "test", device)
    precision = resolve_precision(job.stage.settings.precision, device)
    return predict(_tested_model(weights, device), test, images_of(job.stage.settings), precision, (view,))[0]


@lru_cache(maxsize=1)
def _tested_model(weights: _Weights, device: torch.device) -> nn.Module:
    job = weights.job
    num_classes = len(_data(job.dataset, job.stage.settings.data, job.seed)[0].classes)
    model = placed(_bare_model(job, num_classes), device)
    copy_into(model, checkpoints.under(weights.where, weights.saved.tensors))
    model.eval()
    return model


def _beside(job: Job, one: Evaluation) -> Path:
    """The folder that becomes the result's when it is whole."""
    folder = job.results / f"{one.key}.{os.getpid()}.part"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_result(job: Job, one: Evaluation, where: str, saved: checkpoints.Saved, texts: Mapping[str, str]) -> None:
    """Complete the result's folder and rename it; its weights are one file shared by all results of the same weights."""
    folder, beside = job.results / one.key, _beside(job, one)
    for name, text in texts.items():
        (beside / name).write_text(text, encoding="utf-8")
    if one.keep_weights:
        shared = job.stages / job.key / f"{where.replace('/', '-').replace('|', '-')}.safetensors"
        if not shared.exists():
            checkpoints.write(shared, checkpoints.under(where, saved.tensors), {"key": one.key})
        link(shared, beside / "model.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def failure(error: Exception) -> tuple[str, str]:
    """The kind of a failure in one word, and what the user is told."""
    if isinstance(error, TrainingError):
        return error.kind, str(error)
    if isinstance(error, AblateError):
        return "data", str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory", "out of memory; fewer --jobs, or a smaller batch_size or model.image_size, may help"
    if isinstance(error, OSError):
        return "store", f"a file could not be read or written: {error}"
    return "bug", f"{type(error).__name__}: {error}"
