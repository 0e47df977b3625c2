"""A stage's state: its beginning, its continuation from a checkpoint, and how it is saved."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ablation.errors import DataError, TrainingError
from ablation.system.randomness import generator
from ablation.techniques.mixing import Classes
from ablation.techniques.models import classifier_names, initialise_classifier, put_classifier
from ablation.techniques.optimizer_state import load_state, saved_state
from ablation.techniques.technique import Technique
from ablation.training import checkpoints
from ablation.training.datasets import dataset_and_split, images_on_device
from ablation.training.devices import cuda_build, device_name, to_device
from ablation.training.frozen import FeatureCache
from ablation.training.images import image_pipeline
from ablation.training.loop import BestEpoch, Setup, State, copy_into, prepare_model
from ablation.training.step import resolve_precision
from ablation.training.work import TrainingWork, products


def make_setup(work: TrainingWork, device: torch.device) -> Setup:
    """Everything that does not change during the training; the images are read onto the device."""
    stage = work.stage
    dataset, parts = dataset_and_split(work.dataset, stage.settings.data, work.seed)
    best_on = {split_name for tracked in work.tracked for split_name in tracked.best_on}
    watched = {"validation": parts.validation_N} if len(parts.validation_N) else {}
    if "validation" in best_on and not watched:
        raise DataError("select is best_on_validation, but data.validation is 0; expected a fraction such as 0.1")
    if "test" in best_on:
        watched["test"] = parts.test_N
    tail_C = torch.zeros(len(dataset.classes), dtype=torch.bool)
    tail_C[list(work.tail)] = True
    return Setup(
        stage=stage,
        seed=work.seed,
        pipeline=image_pipeline(stage.settings),
        train=images_on_device(work.dataset, stage.settings.data, work.seed, "train", device),
        watched={name: images_on_device(work.dataset, stage.settings.data, work.seed, name, device) for name in watched},
        classes=Classes(torch.from_numpy(parts.counts_C).to(device, torch.float32), tail_C.to(device)),
        precision=resolve_precision(stage.settings.precision, device),
        tracked=work.tracked,
        device=device,
        feature_cache=FeatureCache(work.features, work.num_sharers),
        data_name=data_name(work),
    )


def data_name(work: TrainingWork) -> str:
    """The data set, its settings and the seed, as text that identifies the images."""
    return f"{work.dataset} {work.stage.settings.data.model_dump_json()} {work.seed}"


def initial_state(work: TrainingWork, setup: Setup) -> State:
    """The state before the work's first epoch; raises TrainingError if that of its parent is gone or damaged."""
    num_classes, settings = len(setup.classes.counts_C), work.stage.settings
    if not work.parent:
        model = settings.model(num_classes, work.seed, work.weights_file, settings.classifier)
        return _state_of_new_stage(work, setup, to_device(model, setup.device), None)
    path = work.stages / work.parent / checkpoints.FINAL
    problem = "damaged" if path.exists() else "gone"
    saved = checkpoints.read_or_set_aside(path)
    if saved is None:
        raise TrainingError("store", f"the stage {work.parent} that this one starts from is {problem}; run again")
    lacking = _taken_over(work, setup) - set(saved.record["products"])
    if lacking:
        again = (
            f"the stage {work.parent} that this one starts from was trained anew, without {', '.join(sorted(lacking))}, by another study"
        )
        raise TrainingError("store", f"{again}; run again")
    if work.is_same_stage:
        return _restored_state(work, setup, saved)
    tensors = checkpoints.tensors_under(f"average/{work.parent_average}" if work.parent_average else "model", saved.tensors)
    return _state_of_new_stage(work, setup, to_device(_model_from_parent(work, num_classes, tensors), setup.device), saved)


def _taken_over(work: TrainingWork, setup: Setup) -> set[str]:
    """What the state of the parent must have beside its weights: see `products`."""
    if work.is_same_stage:
        return products(work.tracked, keep_optimizer=True)
    going_on = [tracked for tracked in setup.tracked if tracked.technique.averages and tracked.since < work.stage.first_epoch]
    names = {work.parent_average, *(tracked.id for tracked in going_on)} - {""}
    return {f"average:{name}" for name in names} | ({"optimizer"} if "optimizer" not in work.stage.restart else set())


def _model_from_parent(work: TrainingWork, num_classes: int, tensors: dict[str, Tensor]) -> nn.Module:
    """The model with the weights of the stage before. Its classifier is kept, taken over by a classifier on top of it, or drawn anew."""
    settings, stage = work.stage.settings, work.stage
    if stage.head == "new":
        model = untrained_model(work, num_classes, settings.classifier)
        of_classifier = classifier_names(model)
        copy_into(model, {name: tensor if name in of_classifier else tensors[name] for name, tensor in model.state_dict().items()})
        initialise_classifier(model, work.seed, f"init/{stage.first_epoch}")
        return model
    model = untrained_model(work, num_classes, work.parent_classifier)
    copy_into(model, tensors)
    if settings.classifier != work.parent_classifier:
        put_classifier(model, settings.classifier)
    return model


def _state_of_new_stage(work: TrainingWork, setup: Setup, model: nn.Module, saved: checkpoints.SavedState | None) -> State:
    """The state at the beginning of a stage: what restarts is new, everything else continues from the stage before."""
    stage = work.stage
    state = _fresh_state(setup, model)
    for tracked in setup.tracked:
        if tracked.technique.averages:
            is_new = tracked.since == stage.first_epoch or saved is None
            tensors = model.state_dict() if is_new else checkpoints.tensors_under(f"average/{tracked.id}", saved.tensors) if saved else {}
            state.averages[tracked.id] = _copies_like(model, tensors)
            state.updates[tracked.id] = 0 if is_new or saved is None else saved.record["updates"][tracked.id]
    if saved is not None:
        state.history = list(saved.record["history"])
        if "optimizer" not in stage.restart:
            load_optimizer_state(state, saved)
            state.scaler.load_state_dict(saved.record["scaler"])
            if saved.record["loss"] == stage.settings.loss.name:
                state.loss = _on_device(checkpoints.tensors_under("loss", saved.tensors), setup.device)
    return state


def _fresh_state(setup: Setup, model: nn.Module) -> State:
    settings, parameters = setup.stage.settings, prepare_model(model, setup.stage)
    loss = settings.loss.state(len(setup.classes.counts_C), generator(setup.seed, "loss", setup.stage.first_epoch))
    return State(model, settings.optimizer(parameters), setup.precision.scaler(setup.device), _on_device(loss, setup.device))


def _copies_like(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the memory format of the model's tensors: with any other, updating an average takes one kernel for each tensor."""
    return {name: torch.empty_like(tensor).copy_(tensors[name].detach()) for name, tensor in model.state_dict().items()}


def untrained_model(work: TrainingWork, num_classes: int, classifier: Technique) -> nn.Module:
    """The model without trained weights: they are about to be overwritten, so none are downloaded."""
    architecture = work.stage.settings.model.model_copy(update={"pretrained": False})
    model: nn.Module = architecture(num_classes, work.seed, classifier=classifier)
    return model


def resumed_state(work: TrainingWork, setup: Setup, saved: checkpoints.SavedState | None) -> State | None:
    """The state of the last saved epoch, or None if no epoch was saved or an average that is needed now was not."""
    needed = products(work.tracked, keep_optimizer=False)
    if saved is None or not needed <= set(saved.record["products"]) or "optimizer" not in saved.record["products"]:
        return None
    return _restored_state(work, setup, saved)


def _restored_state(work: TrainingWork, setup: Setup, saved: checkpoints.SavedState) -> State:
    model = to_device(untrained_model(work, len(setup.classes.counts_C), work.stage.settings.classifier), setup.device)
    copy_into(model, checkpoints.tensors_under("model", saved.tensors))
    state = _fresh_state(setup, model)
    load_optimizer_state(state, saved)
    state.loss = _on_device(checkpoints.tensors_under("loss", saved.tensors), setup.device)
    state.scaler.load_state_dict(saved.record["scaler"])
    for tracked in setup.tracked:
        if tracked.technique.averages:
            state.averages[tracked.id] = _copies_like(model, checkpoints.tensors_under(f"average/{tracked.id}", saved.tensors))
            state.updates[tracked.id] = saved.record["updates"][tracked.id]
        for split_name in tracked.best_on:
            name = f"{tracked.id}|{split_name}"
            balanced_accuracy, epoch = saved.record["best"][name]
            tensors = checkpoints.tensors_under(f"best/{name}", saved.tensors)
            state.best[name] = BestEpoch(balanced_accuracy, epoch, _on_device(tensors, setup.device))
    state.history, state.epoch = list(saved.record["history"]), saved.record["epoch"]
    return state


def _on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def load_optimizer_state(state: State, saved: checkpoints.SavedState) -> None:
    """Give the optimizer what it had kept when the state was saved."""
    load_state(state.optimizer, checkpoints.tensors_under("optimizer", saved.tensors), saved.record.get("optimizer", {}))


def tensors_and_record(work: TrainingWork, setup: Setup, state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as it is saved; without the optimizer, if the stage is finished and no later one continues with it."""
    with_optimizer, values = work.keep_optimizer or state.epoch < work.end_epoch, dict[str, Any]()
    tensors = checkpoints.with_prefix("model", state.model.state_dict()) | checkpoints.with_prefix("loss", state.loss)
    for average_id, average in state.averages.items():
        tensors |= checkpoints.with_prefix(f"average/{average_id}", average)
    for name, best in state.best.items():
        tensors |= checkpoints.with_prefix(f"best/{name}", best.tensors)
    if with_optimizer:
        moments, values = saved_state(state.optimizer, state.begun)
        tensors |= checkpoints.with_prefix("optimizer", moments)
    record = {
        "key": work.key,
        "epoch": state.epoch,
        "products": sorted(products(work.tracked, keep_optimizer=with_optimizer)),
        "updates": state.updates,
        "loss": work.stage.settings.loss.name,
        "best": {name: [best.balanced_accuracy, best.epoch] for name, best in state.best.items()},
        "scaler": state.scaler.state_dict(),
        "history": state.history,
        "precision": setup.precision.name,
        "device": device_name(setup.device),
        **({"build": cuda_build()} if setup.device.type == "cuda" else {}),
        "step": state.step,
        **({"optimizer": values} if values else {}),
    }
    return tensors, record
