"""One stage's job: data in, training, predictions, events out."""

import errno
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
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
from ablation.files import to_disk
from ablation.keys import code_of
from ablation.randomness import generator, key
from ablation.techniques.mixing import Classes
from ablation.techniques.models import classifier_names, classifier_of, digest_of_file, initialise_classifier, put_classifier
from ablation.techniques.technique import Technique
from ablation.techniques.tta import IDENTITY
from ablation.training import checkpoints, frozen
from ablation.training.frozen import Shelf
from ablation.training.images import Images
from ablation.training.loop import Best, Setup, State, Tracked, copy_into, features, predict, prepare, train_epochs
from ablation.training.pixels import Data, part_of
from ablation.training.step import Precision, resolve_precision

NO_MEMORY = re.compile(r"an't allocate memory|annot allocate memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED")  # in a RuntimeError
THREADS = 1  # per run on the CPU: it changes bits, so it is the same however many run at once
RESULT = "result.json"
Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Rhythm:
    """How often a training's checkpoint is written: after so many epochs, or so many seconds where these are given."""

    epochs: int = 1
    seconds: float = 0.0

    def is_due(self, epoch: int, since: float) -> bool:
        """Whether one is written after this epoch of the stage, the last having been `since` seconds ago."""
        return since >= self.seconds if self.seconds else epoch % self.epochs == 0


EVERY_EPOCH = Rhythm()


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user asked to stop; the last epoch is saved."""


class OtherCode(Exception):  # noqa: N818  it is no error
    """This process, which began after the study was planned, has other code than the keys say."""


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
    parent_classifier: Technique  # the classifier of that state
    same_stage: bool  # whether the parent is an earlier part of the same stage
    tracked: tuple[Tracked, ...]
    keep_optimizer: bool  # whether a later stage carries on with it
    evaluations: tuple[Evaluation, ...]
    dataset: Path
    weights_file: Path | None
    tail: tuple[int, ...]
    stages: Path  # the folder of all stages
    results: Path  # the folder of all results
    code: str  # what `keys.code_of` says of the settings above
    shelf: Path | None  # where features of a frozen backbone lie that several trainings share, or None
    sharers: int  # how many trainings do
    rhythm: Rhythm = EVERY_EPOCH


def products(tracked: tuple[Tracked, ...], *, keep_optimizer: bool) -> set[str]:
    """What a stage's file holds beside the weights."""
    found = {f"average:{one.id}" for one in tracked if one.technique.averages}
    found |= {f"best:{one.id}|{split_name}" for one in tracked for split_name in one.best_on}
    return found | ({"optimizer"} if keep_optimizer else set())


def run(job: Job, device: torch.device, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Train what is not trained and test what is not tested; each result appears whole in its folder.

    A run that cannot be tested is told by an event of its own. Raises TrainingError, DataError, Interrupted or OtherCode; a second process
    with the same job waits for the first.
    """
    if job.code != code_of([job.stage.settings, *(one.settings for one in job.evaluations)]):  # a worker that began meanwhile has the new
        raise OtherCode
    folder = job.stages / job.key
    folder.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(job.stage.settings.deterministic)
    with FileLock(folder / "lock"):
        saved = _sound(folder / checkpoints.FINAL, emit)
        wanted = products(job.tracked, keep_optimizer=job.keep_optimizer)
        if saved is None or not wanted <= set(saved.record["products"]):
            _train(job, device, folder, emit, should_stop)
            saved = checkpoints.read(folder / checkpoints.FINAL)
        assert saved is not None, folder
        try:
            for one in job.evaluations:
                emit(_tested(job, one, saved, device, emit))
        finally:
            for cached in (_view_logits, _view_features, _tested_model):
                cached.cache_clear()  # they hold the stage's weights


def _tested(job: Job, one: Evaluation, saved: checkpoints.Saved, device: torch.device, emit: Emit) -> dict[str, Any]:
    """The event that tells of one run's test; what one post-hoc technique cannot do is no failure of the training or of other runs."""
    try:
        folder = job.results / one.key
        if not is_whole(folder):
            if folder.exists():
                emit({"kind": "damaged", "message": f"{folder} is damaged; its run is tested again"})
            _evaluate(job, one, saved, device)
    except Exception as error:  # whatever it is, the others go on
        return {"kind": "untested", "run": one.key} | failure(error)
    return {"kind": "result", "run": one.key}


def _sound(path: Path, emit: Emit) -> checkpoints.Saved | None:
    """What a file of this stage holds, or nothing; where it is there and damaged, that is told, since epochs are trained again for it."""
    is_there, saved = path.is_file(), checkpoints.sound(path)
    if is_there and saved is None:
        emit({"kind": "damaged", "message": f"{path} is damaged and was put aside; its stage is trained again"})
    return saved


# --- training ----------------------------------------------------------------------------------------------------------------


def _train(job: Job, device: torch.device, folder: Path, emit: Emit, should_stop: Callable[[], bool]) -> None:
    setup = _setup(job, device)
    state = _resumed(job, setup, _sound(folder / checkpoints.CHECKPOINT, emit)) or _begun(job, setup)

    saved_at = time.monotonic()

    def save(state: State, name: str) -> None:
        nonlocal saved_at
        checkpoints.write(folder / name, *_as_file(job, setup, state))
        saved_at = time.monotonic()

    def after_epoch(state: State) -> None:
        is_last = state.epoch == job.until
        is_saved = is_last or job.rhythm.is_due(state.epoch, time.monotonic() - saved_at)
        if is_saved:
            save(state, checkpoints.FINAL if is_last else checkpoints.CHECKPOINT)
        emit({"kind": "epoch", "epoch": state.epoch, "row": state.history[-1], **_memory(device)})
        if should_stop() and not is_last:
            if not is_saved:
                save(state, checkpoints.CHECKPOINT)
            raise Interrupted

    train_epochs(setup, state, job.until, after_epoch)
    for path in folder.glob("*.safetensors"):  # the last checkpoint, and tested weights of an earlier training
        if path.name != checkpoints.FINAL:
            path.unlink()


def _memory(device: torch.device) -> dict[str, dict[str, int]]:
    """The bytes that this process took at most of a CUDA device, and those that are free on it."""
    if device.type != "cuda":
        return {}
    return {"memory": {"taken": torch.cuda.max_memory_reserved(device), "free": torch.cuda.mem_get_info(device)[0]}}


def first_state(job: Job, device: torch.device) -> tuple[Setup, State]:
    """What a job trains with, and its state before its first epoch, whatever was saved."""
    setup = _setup(job, device)
    return setup, _begun(job, setup)


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
        classes=Classes(torch.from_numpy(parts.counts_C).to(device, torch.float32), tail_C.to(device)),
        precision=resolve_precision(stage.settings.precision, device),
        tracked=job.tracked,
        device=device,
        shelf=Shelf(job.shelf, job.sharers),
        source=_source(job),
    )


def _source(job: Job) -> str:
    """Which images a job sees, as text."""
    return f"{job.dataset} {job.stage.settings.data.model_dump_json()} {job.seed}"


def images_of(settings: Settings) -> Images:
    """The way from stored pixels to the model's input."""
    return Images(settings.augment, settings.model.image_size, *settings.model.normalisation)


def _begun(job: Job, setup: Setup) -> State:
    """The state before the job's first epoch."""
    num_classes, settings = len(setup.classes.counts_C), job.stage.settings
    if not job.parent:
        model = settings.model(num_classes, job.seed, job.weights_file, settings.classifier)
        return _started(job, setup, placed(model, setup.device), None)
    path = job.stages / job.parent / checkpoints.FINAL
    state = "damaged" if path.exists() else "gone"
    saved = checkpoints.sound(path)
    if saved is None:
        raise TrainingError("store", f"the stage {job.parent} that this one starts from is {state}; run again")
    if job.same_stage:
        return _restored(job, setup, saved)
    tensors = checkpoints.under(f"average/{job.parent_average}" if job.parent_average else "model", saved.tensors)
    return _started(job, setup, placed(_gone_on(job, num_classes, tensors), setup.device), saved)


def _gone_on(job: Job, num_classes: int, tensors: dict[str, Tensor]) -> nn.Module:
    """The model with the weights of the stage before; a classifier on top of a trained one takes it over, a new one is drawn."""
    settings, stage = job.stage.settings, job.stage
    if stage.head == "new":
        model = _bare_model(job, num_classes, settings.classifier)
        own = classifier_names(model)
        copy_into(model, {name: tensor if name in own else tensors[name] for name, tensor in model.state_dict().items()})
        initialise_classifier(model, job.seed, f"init/{stage.first_epoch}")
        return model
    model = _bare_model(job, num_classes, job.parent_classifier)
    copy_into(model, tensors)
    if settings.classifier != job.parent_classifier:
        put_classifier(model, settings.classifier)
    return model


def _started(job: Job, setup: Setup, model: nn.Module, saved: checkpoints.Saved | None) -> State:
    """The state at the beginning of a stage: what restarts is new, what does not goes on from the stage before."""
    stage = job.stage
    state = _fresh_state(setup, model)
    for one in setup.tracked:
        if one.technique.averages:
            begins = one.since == stage.first_epoch or saved is None
            source = model.state_dict() if begins else checkpoints.under(f"average/{one.id}", saved.tensors) if saved else {}
            state.averages[one.id] = _alike(model, source)
            state.updates[one.id] = 0 if begins or saved is None else saved.record["updates"][one.id]
    if saved is not None:
        state.history = list(saved.record["history"])
        if "optimizer" not in stage.restart:
            _load_optimizer(state, saved)
            if saved.record["loss"] == stage.settings.loss.name:
                state.loss = _moved(checkpoints.under("loss", saved.tensors), setup.device)
    return state


def _fresh_state(setup: Setup, model: nn.Module) -> State:
    settings, trained = setup.stage.settings, prepare(model, setup.stage)
    loss = settings.loss.state(len(setup.classes.counts_C), generator(setup.seed, "loss", setup.stage.first_epoch))
    return State(model, settings.optimizer(trained), setup.precision.scaler(setup.device), _moved(loss, setup.device))


def _alike(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the memory format of the model's own: in another one an average's update takes a kernel for each tensor."""
    return {name: torch.empty_like(own).copy_(tensors[name].detach()) for name, own in model.state_dict().items()}


def _bare_model(job: Job, num_classes: int, classifier: Technique) -> nn.Module:
    """The architecture; its weights are about to be overwritten, so none are fetched."""
    bare = job.stage.settings.model.model_copy(update={"pretrained": False})
    model: nn.Module = bare(num_classes, job.seed, classifier=classifier)
    return model


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, its images and filters in channels_last."""
    return model.to(device).to(memory_format=torch.channels_last)


def _resumed(job: Job, setup: Setup, saved: checkpoints.Saved | None) -> State | None:
    """The state of the last saved epoch, or nothing where none was saved or it lacks what is wanted now."""
    wanted = products(job.tracked, keep_optimizer=False)
    if saved is None or not wanted <= set(saved.record["products"]) or "optimizer" not in saved.record["products"]:
        return None
    return _restored(job, setup, saved)


def _restored(job: Job, setup: Setup, saved: checkpoints.Saved) -> State:
    model = placed(_bare_model(job, len(setup.classes.counts_C), job.stage.settings.classifier), setup.device)
    copy_into(model, checkpoints.under("model", saved.tensors))
    state = _fresh_state(setup, model)
    _load_optimizer(state, saved)
    state.loss = _moved(checkpoints.under("loss", saved.tensors), setup.device)
    state.scaler.load_state_dict(saved.record["scaler"])
    for one in setup.tracked:
        if one.technique.averages:
            state.averages[one.id] = _alike(model, checkpoints.under(f"average/{one.id}", saved.tensors))
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
    tensors = checkpoints.prefixed("model", state.model.state_dict()) | checkpoints.prefixed("loss", state.loss)
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
        "loss": job.stage.settings.loss.name,
        "best": {name: [best.score, best.epoch] for name, best in state.best.items()},
        "scaler": state.scaler.state_dict(),
        "history": state.history,
        "precision": setup.precision.name,
        "device": device_name(setup.device),
        "step": state.step,
    }
    return tensors, record


# --- data --------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _data(folder: Path, source: Technique, seed: int) -> tuple[Dataset, Split]:
    dataset = open_dataset(folder)
    return dataset, split(dataset, source, seed)


@lru_cache(maxsize=6)
def _on_device(folder: Path, source: Technique, seed: int, part: str, device: torch.device) -> Data:
    """The images of one part of the split, kept for the next job."""
    dataset, parts = _data(folder, source, seed)
    return part_of(dataset, getattr(parts, f"{part}_N"), device)


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
    scores, fitted = _scores(job, settings, _Weights(job, where, saved), device)
    labels_N = np.asarray(dataset.labels_N[parts.test_N])
    table = evaluation.predictions(parts.test_N, labels_N, scores["test"].numpy(), dataset.classes)
    predicted_N = table["predicted"].to_numpy()
    members = groups.resolve(one.groups, parts.counts_C.tolist(), dataset.classes)
    metrics = evaluation.metrics(labels_N, scores["test"].numpy(), dataset.classes, members) | fitted
    if "validation" in scores:
        watched_N = np.asarray(dataset.labels_N[parts.validation_N])
        found = evaluation.metrics(watched_N, scores["validation"].numpy(), dataset.classes, members, "validation")
        metrics |= {name: value for name, value in found.items() if name.count("/") == 1} | {"validation/images": len(watched_N)}
    result = {
        "key": one.key,
        "content": one.content,
        "metrics": metrics,
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
        "step": saved.record["step"],
        "finished": int(time.time() * 1000),
        "seconds": time.time() - began,
    }
    texts = {
        "classification_report.txt": evaluation.report_text(labels_N, predicted_N, dataset.classes),
        "confusion_matrix.csv": evaluation.confusion(labels_N, predicted_N, dataset.classes).to_csv(),
    }
    shutil.rmtree(_beside(job, one), ignore_errors=True)  # what a process left that had our number and was killed
    table.to_parquet(_beside(job, one) / "predictions.parquet", index=False, write_page_checksum=True)
    _write_result(job, one, where, saved, texts, result)


def _weights_prefix(one: Evaluation) -> str:
    """Where in the stage's file the tested weights are."""
    if one.settings.select != "last":
        return f"best/{one.average}|{one.settings.select.removeprefix('best_on_')}"
    return f"average/{one.average}" if one.settings.average.averages else "model"


class _Weights:
    """One set of tested weights, told apart by the stage's key and its place in the stage's file."""

    def __init__(self, job: Job, where: str, saved: checkpoints.Saved) -> None:
        self.job, self.where, self.saved = job, where, saved

    def __hash__(self) -> int:
        return hash((self.job.key, self.where))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Weights) and (self.job.key, self.where) == (other.job.key, other.where)


def _scores(job: Job, settings: Settings, weights: _Weights, device: torch.device) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The final scores of the test images, and of the validation images where there are any; and what was fitted to the latter."""
    dataset, parts = _data(job.dataset, settings.data, job.seed)
    layer = _posthoc_layer(settings.posthoc, weights, device) if settings.posthoc.replaces_classifier else None
    splits = ["validation", "test"] if len(parts.validation_N) else ["test"]
    scores = {split: _combined(settings, weights, split, layer, device) for split in splits}
    posthoc, fitted = settings.posthoc, {}
    if posthoc.needs_validation:
        if "validation" not in scores:
            raise DataError(f"posthoc: {posthoc.name} is fitted on validation images, but there are none; expected data.validation above 0")
        labels_N = torch.from_numpy(np.asarray(dataset.labels_N[parts.validation_N])).to(device)
        posthoc = posthoc.fitted(scores["validation"], labels_N)
        written = settings.posthoc.model_dump()
        fitted = {f"posthoc/{name}": value for name, value in posthoc.model_dump().items() if value != written[name]}
    counts_C = torch.from_numpy(parts.counts_C).float().to(device)
    final = {split: posthoc(scores_NC, counts_C).cpu() for split, scores_NC in scores.items()}
    if not all(bool(torch.isfinite(scores_NC).all()) for scores_NC in final.values()):
        raise TrainingError("nan", "the tested weights give logits that are no finite numbers; a lower optimizer.lr may help")
    return final, fitted


def _combined(settings: Settings, weights: _Weights, split: str, layer: nn.Module | None, device: torch.device) -> Tensor:
    """The scores of one split's images, their views combined; `layer` scores their features in the classifier's place."""
    views = settings.tta.views()
    if layer is None:
        logits = [_view_logits(weights, split, view, device) for view in views]
    else:
        with torch.no_grad():
            logits = [layer(_view_features(weights, split, view, device)) for view in views]
    scores_NC: Tensor = settings.tta.combine(torch.stack(logits))
    return scores_NC


def _posthoc_layer(posthoc: Any, weights: _Weights, device: torch.device) -> nn.Module:
    """The layer that a post-hoc technique puts in the classifier's place."""
    job = weights.job
    classifier = classifier_of(_tested_model(weights, device))
    dataset, _ = _data(job.dataset, job.stage.settings.data, job.seed)
    features_NF = labels_N = None
    if posthoc.needs_features:
        features_NF = _view_features(weights, "train", IDENTITY, device)
        labels_N = _on_device(job.dataset, job.stage.settings.data, job.seed, "train", device).labels_N
    layer: nn.Module = posthoc.classifier(classifier, features_NF, labels_N, len(dataset.classes))
    return layer.to(device)


@lru_cache(maxsize=16)
def _view_logits(weights: _Weights, split: str, view: Any, device: torch.device) -> Tensor:
    """The logits of one split's images in one view, computed once per worker."""
    model, (data, images, precision) = _tested_model(weights, device), _looked_at(weights, split, device)
    job = weights.job
    if job.shelf is None or not frozen.is_frozen(job.stage):
        return predict(model, data, images, precision, view)
    name = frozen.plain_name(model, _source(job), job.stage.settings, split, view)
    features_NF = frozen.taken(Shelf(job.shelf), name, partial(features, model, data, images, precision, view), device)
    return frozen.classified(classifier_of(model), features_NF, precision, images.at_once)


@lru_cache(maxsize=16)
def _view_features(weights: _Weights, split: str, view: Any, device: torch.device) -> Tensor:
    """What the classifier sees of one split's images in one view, computed once per worker."""
    return features(_tested_model(weights, device), *_looked_at(weights, split, device), view)


def _looked_at(weights: _Weights, split: str, device: torch.device) -> tuple[Data, Images, Precision]:
    job, settings = weights.job, weights.job.stage.settings
    return (
        _on_device(job.dataset, settings.data, job.seed, split, device),
        images_of(settings),
        resolve_precision(settings.precision, device),
    )


@lru_cache(maxsize=1)
def _tested_model(weights: _Weights, device: torch.device) -> nn.Module:
    job = weights.job
    num_classes = len(_data(job.dataset, job.stage.settings.data, job.seed)[0].classes)
    model = placed(_bare_model(job, num_classes, job.stage.settings.classifier), device)
    copy_into(model, checkpoints.under(weights.where, weights.saved.tensors))
    model.eval()
    return model


def _beside(job: Job, one: Evaluation) -> Path:
    """The folder that becomes the result's when it is whole."""
    folder = job.results / f"{one.key}.{os.getpid()}.part"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_result(
    job: Job, one: Evaluation, where: str, saved: checkpoints.Saved, texts: Mapping[str, str], result: Mapping[str, Any]
) -> None:
    """Complete the result's folder and rename it; its weights are one file shared by all results of the same weights."""
    folder, beside = job.results / one.key, _beside(job, one)
    for name, text in texts.items():
        (beside / name).write_text(text, encoding="utf-8")
    files = {path.name: digest_of_file(path) for path in sorted(beside.iterdir())}
    (beside / RESULT).write_text(checkpoints.sealed({**result, "files": files}), encoding="utf-8")
    if one.keep_weights:
        shared = job.stages / job.key / f"{where.replace('/', '-').replace('|', '-')}.safetensors"
        if checkpoints.sound(shared) is None:
            checkpoints.write(shared, checkpoints.under(where, saved.tensors), {"key": one.key})
        link(shared, beside / "model.safetensors")
    for path in (*beside.iterdir(), beside):
        to_disk(path)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    to_disk(job.results)


def is_whole(folder: Path) -> bool:
    """Whether a result lies in the folder as it was written; its weights, which have a checksum of their own, are not looked at."""
    try:
        about = checkpoints.unsealed((folder / RESULT).read_text(encoding="utf-8"))
        return about is not None and all(digest_of_file(folder / name) == one for name, one in about["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def failure(error: Exception) -> dict[str, str]:
    """A failure for an event: its kind in one word, what the user is told, and the traceback of a bug."""
    kind, message = _kind_of(error)
    return {"failure": kind, "message": message, "log": "".join(traceback.format_exception(error)) if kind == "bug" else ""}


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether memory was lacking, also behind what a model's maker made of it."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def _kind_of(error: Exception) -> tuple[str, str]:
    if _lacks_memory(error):
        return "memory", "out of memory; fewer --jobs, or a smaller batch_size or model.image_size, may help"
    if isinstance(error, TrainingError):
        return error.kind, str(error)
    if isinstance(error, AblateError):
        return "data", str(error)
    if isinstance(error, OSError):
        return "store", f"a file could not be read or written: {error}"
    if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):  # what torch says of it
        return "data", "a batch is a single image, which batch normalisation cannot use; expected batch_size 2 or more, or drop_last: true"
    return "bug", f"{type(error).__name__}: {error}"
