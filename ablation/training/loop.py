"""Training one stage: epochs of steps, averages and selections riding along. N images, B batch, C classes, F features."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ablation.config import Stage
from ablation.errors import ConfigError, DataError, TrainingError
from ablation.randomness import generator, key
from ablation.techniques.mixing import Classes, NoMix
from ablation.techniques.models import classifier_of
from ablation.techniques.tta import IDENTITY, View
from ablation.training.captured import CapturedStep, chosen
from ablation.training.images import Images, on_device, sliced
from ablation.training.step import PlainStep, Precision, set_lr


@dataclass(frozen=True)
class Tracked:
    """An average that rides on the training since epoch `since`, and the splits on which its best epoch is kept."""

    id: str
    technique: Any
    since: int
    best_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """The images of one split (uint8), on the device where they fit, and their labels, which are on the device."""

    pixels_NCHW: Tensor
    labels_N: Tensor

    def batch(self, chosen_B: Tensor | slice) -> Tensor:
        """The pixels of some images, on the device."""
        chosen = chosen_B if isinstance(chosen_B, slice) else chosen_B.to(self.pixels_NCHW.device)
        return self.pixels_NCHW[chosen].to(self.labels_N.device, non_blocking=True)


@dataclass(frozen=True)
class Setup:
    """All that does not change while a stage trains."""

    stage: Stage
    seed: int
    images: Images
    train: Data
    watched: Mapping[str, Data]  # validation, and test where its best epoch is asked for
    classes: Classes
    precision: Precision
    tracked: tuple[Tracked, ...]
    device: torch.device


@dataclass
class Best:
    """The weights of the epoch with the highest accuracy so far."""

    score: float
    epoch: int
    tensors: dict[str, Tensor]


@dataclass
class State:
    """All that changes while a stage trains."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: dict[str, Tensor] = field(default_factory=dict)  # what the loss carries from step to step
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    updates: dict[str, int] = field(default_factory=dict)
    best: dict[str, Best] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0  # finished epochs of this stage
    step: str = PlainStep.kind  # or "captured", or "plain: " and why it was not


def prepare(model: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """Freeze and set the modes that the stage asks for; the parameters that it trains."""
    model.train(stage.backbone == "train")
    classifier = classifier_of(model)
    classifier.train()
    for parameter in model.parameters():
        parameter.requires_grad_(stage.train == "all")
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def moving(model: nn.Module, stage: Stage) -> dict[str, Tensor]:
    """The tensors that an average has to follow: all of them, or of a frozen backbone only the buffers, and those in train mode only."""
    if stage.train == "all":
        return dict(model.state_dict())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()} if stage.backbone == "train" else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name in trained | buffers}


def train_epochs(setup: Setup, state: State, until: int, after_epoch: Callable[[State], None]) -> None:
    """Train from the state's epoch up to `until` (of this stage), calling `after_epoch` at each boundary.

    Raises TrainingError ("nan") where an epoch's mean loss is no finite number.
    """
    scout, step = Scout(setup, state.model), _step(setup, state, until)
    while state.epoch < until:
        began = time.time()
        loss, num_images = _train_epoch(setup, state, step)
        state.step = step.kind
        seconds = time.time() - began
        epoch = setup.stage.first_epoch + state.epoch
        if not math.isfinite(loss):
            raise TrainingError(
                "nan", f"the training loss became {loss} in epoch {epoch + 1}; a lower optimizer.lr or precision: fp32 may help"
            )
        state.epoch += 1
        row: dict[str, Any] = {
            "epoch": epoch,
            "loss": loss,
            "lr": _lr(setup.stage, state.epoch - 1),
            "images_per_second": num_images / max(seconds, 1e-9),
        }
        row |= scout.look(state, epoch)
        state.history.append(row | {"time": int(time.time() * 1000), "seconds": time.time() - began})
        after_epoch(state)


def _step(setup: Setup, state: State, until: int) -> PlainStep | CapturedStep:
    """What trains on a batch until that epoch."""
    settings, counts_C = setup.stage.settings, setup.classes.counts_C
    plain = PlainStep(state.model, state.optimizer, state.scaler, setup.precision, settings.loss, counts_C, state.loss)
    num_steps = (until - state.epoch) * (len(setup.train.labels_N) // settings.batch_size)
    return chosen(plain, num_steps, deterministic=settings.deterministic)


def _lr(stage: Stage, epoch: int) -> float:
    settings = stage.settings
    return float(settings.schedule(stage.schedule_epoch + epoch, stage.schedule_span, settings.optimizer.lr))


def batches(num_images: int, batch_size: int, *, drop_last: bool) -> list[slice]:
    """The batches of an epoch; raises DataError where there is none."""
    whole = num_images // batch_size
    found = [slice(i * batch_size, (i + 1) * batch_size) for i in range(whole)]
    if not drop_last and num_images % batch_size:
        found.append(slice(whole * batch_size, num_images))
    if not found:
        raise DataError(
            f"batch_size is {batch_size}, but there are {num_images} training images; expected a smaller batch_size, or drop_last: false"
        )
    return found


def _train_epoch(setup: Setup, state: State, step: PlainStep | CapturedStep) -> tuple[float, int]:
    """One epoch's mean loss and number of images; nothing waits for the device before its end."""
    stage, settings, model, device = setup.stage, setup.stage.settings, state.model, setup.device
    epoch, place = stage.first_epoch + state.epoch, stage.schedule_epoch + state.epoch
    set_lr(state.optimizer, _lr(stage, state.epoch))
    counts_C = setup.classes.counts_C
    probabilities_C = settings.sampler.probabilities_C(counts_C.cpu(), place, stage.span)
    sampled_C = (probabilities_C * len(setup.train.labels_N)).to(device, torch.float32)
    mix = settings.mix if settings.mix.is_on(place, stage.span) else NoMix()
    shown = _Shown(setup, settings.sampler, epoch, place, "")
    second = _Shown(setup, mix.second, epoch, place, "second/") if mix.second is not None else None
    slices = batches(len(shown.order_N), settings.batch_size, drop_last=settings.drop_last)
    mixing = _mixing_draws(setup, mix, epoch, slices)
    averages = [(one.technique, one.id, *_pairs(model, stage, state.averages[one.id])) for one in setup.tracked if one.technique.averages]
    torch.manual_seed(key(setup.seed, "model", epoch))
    total = torch.zeros((), device=device)
    for batch, mixed in zip(slices, mixing, strict=True):
        images_BCHW, targets_BC = shown.batch(batch)
        images_BCHW, targets_BC = mix(images_BCHW, targets_BC, mixed, setup.classes, second.batch(batch) if second else None)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        settings.loss.advance(state.loss, targets_BC)  # with what was shown: smoothing shows nothing of other classes
        smooth_BC = settings.smoothing(targets_BC, counts_C)
        total += step(images_BCHW, smooth_BC, sampled_C)
        for technique, name, averaged, weights in averages:
            state.updates[name] += 1
            technique.update(averaged, weights, state.updates[name])
    return float(total) / len(slices), slices[-1].stop


class _Shown:
    """The images that one sampler shows in an epoch, augmented, with their hard targets."""

    def __init__(self, setup: Setup, sampler: Any, epoch: int, place: int, purpose: str) -> None:
        self.setup, labels_N, num_classes = setup, setup.train.labels_N, len(setup.classes.counts_C)
        source = generator(setup.seed, f"{purpose}order", epoch)
        self.targets_CC = torch.eye(num_classes, device=setup.device)
        self.order_N = sampler(labels_N.cpu(), num_classes, place, setup.stage.span, source).to(setup.device)
        if len(self.order_N) != len(labels_N):  # else the arm would train for another number of updates than is said
            problem = f"{sampler.name} draws {len(self.order_N)} images an epoch; expected {len(labels_N)}, as many as there are"
            raise ConfigError("sampler", problem)
        self.draws = setup.images.draw(setup.seed, epoch, len(self.order_N), setup.device, f"{purpose}augment")

    def batch(self, batch: slice) -> tuple[Tensor, Tensor]:
        """The model's inputs and the targets of a batch."""
        chosen_B = self.order_N[batch]
        images_BCHW = self.setup.images.train(self.setup.train.batch(chosen_B), sliced(self.draws, batch))
        return images_BCHW, self.targets_CC[self.setup.train.labels_N[chosen_B]]


def _mixing_draws(setup: Setup, mix: Any, epoch: int, slices: list[slice]) -> list[dict[str, Tensor]]:
    """The parameters of each batch's mixing; a shorter last batch has a draw of its own."""
    found = []
    sizes = [batch.stop - batch.start for batch in slices]
    for number, size in enumerate(dict.fromkeys(sizes)):
        table = mix.draw(generator(setup.seed, "mix", epoch, number), sizes.count(size), size)
        table = on_device(table, setup.device)
        found += [{name: values[i] for name, values in table.items()} for i in range(sizes.count(size))]
    return found


def _pairs(model: nn.Module, stage: Stage, average: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    changing = moving(model, stage)
    return [average[name] for name in changing], list(changing.values())


class Scout:
    """Looks at the watched splits after each epoch, with the weights of every average, and keeps the best."""

    def __init__(self, setup: Setup, model: nn.Module) -> None:
        self.setup = setup
        self.model = model

    def look(self, state: State, epoch: int) -> dict[str, Any]:
        """The epoch's accuracies by split and average, to be added to its row."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for one in self.setup.tracked:
            for split, data in self.setup.watched.items():
                if split != "validation" and split not in one.best_on:
                    continue
                with borrowed(self.model, state.averages.get(one.id)):
                    values = accuracies(self.model, data, self.setup)
                found.setdefault(split, {})[one.id] = values
                if split in one.best_on:
                    self._keep_best(state, f"{one.id}|{split}", values["accuracy"], epoch, state.averages.get(one.id))
        return found

    def _keep_best(self, state: State, name: str, score: float, epoch: int, average: dict[str, Tensor] | None) -> None:
        best = state.best.get(name)
        if best is None or score > best.score:
            tensors = average or self.model.state_dict()
            state.best[name] = Best(score, epoch, {key: tensor.detach().clone() for key, tensor in tensors.items()})


class borrowed:  # noqa: N801  it reads as a context
    """The model with other weights and in eval mode, for a while."""

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor] | None) -> None:
        self.model, self.tensors = model, tensors

    def __enter__(self) -> None:
        self.modes = {module: module.training for module in self.model.modules()}
        self.own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()} if self.tensors is not None else None
        if self.tensors is not None:
            copy_into(self.model, self.tensors)
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        if self.own is not None:
            copy_into(self.model, self.own)
        for module, mode in self.modes.items():
            module.training = mode


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the model's tensors in place, so that whoever holds them sees the new values."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(tensors[name])


@torch.no_grad()
def predict(model: nn.Module, data: Data, images: Images, precision: Precision, view: View) -> Tensor:
    """The logits of every image in one view, in float32: N x C."""
    size = 256 if images.image_size > 64 else 1024
    found = []
    for start in range(0, len(data.pixels_NCHW), size):
        inputs_BCHW = images.normalised(view(images.plain(data.batch(slice(start, start + size)))))
        with precision.autocast(inputs_BCHW.device):
            found.append(model(inputs_BCHW.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(found)


def features(model: nn.Module, data: Data, images: Images, precision: Precision, view: View) -> Tensor:
    """What the classifier sees of every image in one view, in float32: N x F."""
    found: list[Tensor] = []
    hook = classifier_of(model).register_forward_pre_hook(lambda _layer, inputs: found.append(inputs[0].float()))
    try:
        predict(model, data, images, precision, view)
    finally:
        hook.remove()
    return torch.cat(found)


def accuracies(model: nn.Module, data: Data, setup: Setup) -> dict[str, float]:
    """Accuracy, balanced accuracy (over the classes that the split has) and mean cross-entropy of the plain view."""
    logits_NC = predict(model, data, setup.images, setup.precision, IDENTITY).cpu()
    labels_N = data.labels_N.cpu()
    right_N = (logits_NC.argmax(1) == labels_N).double()
    num_C = torch.bincount(labels_N, minlength=logits_NC.shape[1]).double()
    right_C = torch.zeros_like(num_C).index_add_(0, labels_N, right_N)
    loss = nn.functional.cross_entropy(logits_NC, labels_N)
    recalls = (right_C / num_C)[num_C > 0]
    return {"accuracy": float(right_N.mean()), "balanced_accuracy": float(recalls.mean()), "loss": float(loss)}
