"""How a stage begins, is resumed and is saved."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ablation.errors import DataError, TrainingError
from ablation.system.randomness import generator
from ablation.techniques.mixing import Classes
from ablation.techniques.models import classifier_names, initialise_classifier, put_classifier
from ablation.techniques.technique import Technique
from ablation.training import checkpoints
from ablation.training.datasets import on_device, opened
from ablation.training.devices import device_name, placed
from ablation.training.frozen import FeatureCache
from ablation.training.images import images_of
from ablation.training.loop import Best, Setup, State, copy_into, prepare
from ablation.training.step import resolve_precision
from ablation.training.work import TrainingWork, products


def make_setup(work: TrainingWork, device: torch.device) -> Setup:
    """All that does not change while the work is trained; its images are read onto the device."""
    stage = work.stage
    dataset, parts = opened(work.dataset, stage.settings.data, work.seed)
    best_on = {name for tracked in work.tracked for name in tracked.best_on}
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
        images=images_of(stage.settings),
        train=on_device(work.dataset, stage.settings.data, work.seed, "train", device),
        watched={name: on_device(work.dataset, stage.settings.data, work.seed, name, device) for name in watched},
        classes=Classes(torch.from_numpy(parts.counts_C).to(device, torch.float32), tail_C.to(device)),
        precision=resolve_precision(stage.settings.precision, device),
        tracked=work.tracked,
        device=device,
        features=FeatureCache(work.features, work.num_sharers),
        source=source_name(work),
    )


def source_name(work: TrainingWork) -> str:
    """Which images a work sees, as text."""
    return f"{work.dataset} {work.stage.settings.data.model_dump_json()} {work.seed}"


def begin(work: TrainingWork, setup: Setup) -> State:
    """The state before the work's first epoch."""
    num_classes, settings = len(setup.classes.counts_C), work.stage.settings
    if not work.parent:
        model = settings.model(num_classes, work.seed, work.weights_file, settings.classifier)
        return _started(work, setup, placed(model, setup.device), None)
    path = work.stages / work.parent / checkpoints.FINAL
    state = "damaged" if path.exists() else "gone"
    saved = checkpoints.sound(path)
    if saved is None:
        raise TrainingError("store", f"the stage {work.parent} that this one starts from is {state}; run again")
    if work.is_same_stage:
        return _restored(work, setup, saved)
    tensors = checkpoints.under(f"average/{work.parent_average}" if work.parent_average else "model", saved.tensors)
    return _started(work, setup, placed(_gone_on(work, num_classes, tensors), setup.device), saved)


def _gone_on(work: TrainingWork, num_classes: int, tensors: dict[str, Tensor]) -> nn.Module:
    """The model with the weights of the stage before; a classifier on top of a trained one takes it over, a new one is drawn."""
    settings, stage = work.stage.settings, work.stage
    if stage.head == "new":
        model = bare_model(work, num_classes, settings.classifier)
        own = classifier_names(model)
        copy_into(model, {name: tensor if name in own else tensors[name] for name, tensor in model.state_dict().items()})
        initialise_classifier(model, work.seed, f"init/{stage.first_epoch}")
        return model
    model = bare_model(work, num_classes, work.parent_classifier)
    copy_into(model, tensors)
    if settings.classifier != work.parent_classifier:
        put_classifier(model, settings.classifier)
    return model


def _started(work: TrainingWork, setup: Setup, model: nn.Module, saved: checkpoints.Saved | None) -> State:
    """The state at the beginning of a stage: what restarts is new, what does not goes on from the stage before."""
    stage = work.stage
    state = _fresh_state(setup, model)
    for tracked in setup.tracked:
        if tracked.technique.averages:
            begins = tracked.since == stage.first_epoch or saved is None
            source = model.state_dict() if begins else checkpoints.under(f"average/{tracked.id}", saved.tensors) if saved else {}
            state.averages[tracked.id] = _alike(model, source)
            state.updates[tracked.id] = 0 if begins or saved is None else saved.record["updates"][tracked.id]
    if saved is not None:
        state.history = list(saved.record["history"])
        if "optimizer" not in stage.restart:
            load_optimizer(state, saved)
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


def bare_model(work: TrainingWork, num_classes: int, classifier: Technique) -> nn.Module:
    """The architecture; its weights are about to be overwritten, so none are fetched."""
    bare = work.stage.settings.model.model_copy(update={"pretrained": False})
    model: nn.Module = bare(num_classes, work.seed, classifier=classifier)
    return model


def resume(work: TrainingWork, setup: Setup, saved: checkpoints.Saved | None) -> State | None:
    """The state of the last saved epoch, or nothing where none was saved or it lacks what is wanted now."""
    wanted = products(work.tracked, keep_optimizer=False)
    if saved is None or not wanted <= set(saved.record["products"]) or "optimizer" not in saved.record["products"]:
        return None
    return _restored(work, setup, saved)


def _restored(work: TrainingWork, setup: Setup, saved: checkpoints.Saved) -> State:
    model = placed(bare_model(work, len(setup.classes.counts_C), work.stage.settings.classifier), setup.device)
    copy_into(model, checkpoints.under("model", saved.tensors))
    state = _fresh_state(setup, model)
    load_optimizer(state, saved)
    state.loss = _moved(checkpoints.under("loss", saved.tensors), setup.device)
    state.scaler.load_state_dict(saved.record["scaler"])
    for tracked in setup.tracked:
        if tracked.technique.averages:
            state.averages[tracked.id] = _alike(model, checkpoints.under(f"average/{tracked.id}", saved.tensors))
            state.updates[tracked.id] = saved.record["updates"][tracked.id]
        for split_name in tracked.best_on:
            name = f"{tracked.id}|{split_name}"
            score, epoch = saved.record["best"][name]
            state.best[name] = Best(score, epoch, _moved(checkpoints.under(f"best/{name}", saved.tensors), setup.device))
    state.history, state.epoch = list(saved.record["history"]), saved.record["epoch"]
    return state


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def load_optimizer(state: State, saved: checkpoints.Saved) -> None:
    """Give each parameter its moments back, in the parameter's own memory format."""
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for name, tensor in checkpoints.under("optimizer", saved.tensors).items():
        number, _, what = name.partition("/")
        parameter = parameters[int(number)]
        alike = tensor.shape == parameter.shape
        state.optimizer.state[parameter][what] = torch.empty_like(parameter).copy_(tensor) if alike else tensor.to(parameter.device)


def as_file(work: TrainingWork, setup: Setup, state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as tensors by name and a record; the optimizer is left out of a finished stage that nobody carries on."""
    with_optimizer = work.keep_optimizer or state.epoch < work.end_epoch
    tensors = checkpoints.prefixed("model", state.model.state_dict()) | checkpoints.prefixed("loss", state.loss)
    for name, average in state.averages.items():
        tensors |= checkpoints.prefixed(f"average/{name}", average)
    for name, best in state.best.items():
        tensors |= checkpoints.prefixed(f"best/{name}", best.tensors)
    if with_optimizer:
        for number, values in state.optimizer.state_dict()["state"].items():  # a parameter without a gradient has none
            tensors |= {f"optimizer/{number}/{what}": value for what, value in values.items() if isinstance(value, Tensor)}
    record = {
        "key": work.key,
        "epoch": state.epoch,
        "products": sorted(products(work.tracked, keep_optimizer=with_optimizer)),
        "updates": state.updates,
        "loss": work.stage.settings.loss.name,
        "best": {name: [best.score, best.epoch] for name, best in state.best.items()},
        "scaler": state.scaler.state_dict(),
        "history": state.history,
        "precision": setup.precision.name,
        "device": device_name(setup.device),
        "step": state.step,
    }
    return tensors, record
