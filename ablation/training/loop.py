"""Training one stage: epochs of steps, averages and selections riding along. N images, B batch, C classes, F features."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablation.errors import ConfigError, DataError, TrainingError
from ablation.system.randomness import generator, key
from ablation.techniques.mixing import Classes, NoMix
from ablation.techniques.models import classifier_of
from ablation.techniques.tta import IDENTITY, View
from ablation.training import frozen
from ablation.training.captured import CapturedStep, chosen
from ablation.training.frozen import Batches, FeatureCache
from ablation.training.images import Images, on_device, sliced
from ablation.training.pixels import Data
from ablation.training.settings import Stage
from ablation.training.step import PlainStep, Precision, set_lr
from ablation.training.work import Tracked

WATCHED = {"validation": "val", "test": "watched/test"}  # split -> where its curves are in the store


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
    features: FeatureCache
    source: str  # which images these are, by which cached features are told apart


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


def train_epochs(setup: Setup, state: State, end_epoch: int, after_epoch: Callable[[State], None]) -> None:
    """Train from the state's epoch up to `end_epoch` (of this stage), calling `after_epoch` at each boundary.

    Raises TrainingError ("nan") where an epoch's mean loss is no finite number.
    """
    backbone = _frozen_backbone(setup, state.model)
    evaluator, step = EpochEvaluator(setup, state.model, backbone), _step(setup, state, end_epoch, backbone)
    while state.epoch < end_epoch:
        began = time.time()
        loss, num_images = _train_epoch(setup, state, backbone, step)
        state.step = step.kind
        seconds = time.time() - began
        epoch = setup.stage.first_epoch + state.epoch
        if not math.isfinite(loss):
            raise TrainingError(
                "nan", f"the training loss became {loss} in epoch {epoch + 1}; a lower optimizer.lr or precision: fp32 may help"
            )
        state.epoch += 1
        images_per_second = num_images / max(seconds, 1e-9)
        values = {"train/loss": loss, "train/lr": _lr(setup.stage, state.epoch - 1), "time/images_per_second": images_per_second}
        values |= evaluator.evaluate(state, epoch)
        about = {"epoch": epoch, "rate": images_per_second, "values": values}
        state.history.append(about | {"time": int(time.time() * 1000), "seconds": time.time() - began})
        after_epoch(state)


def _step(setup: Setup, state: State, end_epoch: int, backbone: "Backbone | None") -> PlainStep | CapturedStep:
    """What trains on a batch until that epoch: the whole model, or the classifier on a frozen backbone's features."""
    settings, net = setup.stage.settings, backbone.classifier if backbone else state.model
    plain = PlainStep(net, state.optimizer, state.scaler, setup.precision, settings.loss, setup.classes.counts_C, state.loss)
    num_steps = (end_epoch - state.epoch) * (len(setup.train.labels_N) // settings.batch_size)
    return chosen(plain, num_steps, deterministic=settings.deterministic, is_compiled=settings.compile and backbone is None)


def _frozen_backbone(setup: Setup, model: nn.Module) -> "Backbone | None":
    """The backbone where it is frozen, and the model does nothing behind its classifier."""
    if not frozen.is_frozen(setup.stage):
        return None
    with closing(_looked_at(setup.train, setup.images, IDENTITY)) as looked_at:
        inputs_BCHW = next(looked_at)[:2]
    return Backbone(setup, model) if frozen.is_divisible(model, inputs_BCHW, setup.precision) else None


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


def _train_epoch(setup: Setup, state: State, backbone: "Backbone | None", step: PlainStep | CapturedStep) -> tuple[float, int]:
    """One epoch's mean loss and number of images; nothing waits for the device before its end."""
    stage, settings, device = setup.stage, setup.stage.settings, setup.device
    epoch, place = stage.first_epoch + state.epoch, stage.schedule_epoch + state.epoch
    set_lr(state.optimizer, _lr(stage, state.epoch))
    counts_C = setup.classes.counts_C
    probabilities_C = settings.sampler.probabilities_C(counts_C.cpu(), place, stage.span)
    sampled_C = (probabilities_C * len(setup.train.labels_N)).to(device, torch.float32)
    shown = _Epoch(setup, epoch, place)
    averages = [
        (one.technique, one.id, *_pairs(state.model, stage, state.averages[one.id])) for one in setup.tracked if one.technique.averages
    ]
    torch.manual_seed(key(setup.seed, "model", epoch))
    total = torch.zeros((), device=device)
    batches_fed = backbone.features(shown) if backbone else shown.batches()
    with closing(batches_fed):  # also where a step fails: threads may be reading ahead
        for inputs, targets_BC in batches_fed:
            settings.loss.advance(state.loss, targets_BC)  # with what was shown: smoothing shows nothing of other classes
            smooth_BC = settings.smoothing(targets_BC, counts_C)
            total += step(inputs, smooth_BC, sampled_C)
            for technique, name, averaged, weights in averages:
                state.updates[name] += 1
                technique.update(averaged, weights, state.updates[name])
    return float(total) / len(shown.slices), shown.slices[-1].stop


class _Epoch:
    """What an epoch shows: the images in their order, augmented and mixed, with their targets, batch by batch."""

    def __init__(self, setup: Setup, epoch: int, place: int) -> None:
        settings, span = setup.stage.settings, setup.stage.span
        self.setup, self.epoch, self.place = setup, epoch, place
        self.mix = settings.mix if settings.mix.is_on(place, span) else NoMix()
        self.first = _Shown(setup, settings.sampler, epoch, place, "")
        self.second = _Shown(setup, self.mix.second, epoch, place, "second/") if self.mix.second is not None else None
        self.slices = batches(len(self.first.order_N), settings.batch_size, drop_last=settings.drop_last)

    def batches(self) -> Batches:
        """The model's inputs, in channels_last, and the targets, before smoothing."""
        draws = _mixing_draws(self.setup, self.mix, self.epoch, self.slices)
        others = closing(self.second.batches(self.slices)) if self.second else nullcontext([None] * len(self.slices))
        with closing(self.first.batches(self.slices)) as first, others as second:
            for mixed, shown, other in zip(draws, first, second, strict=True):
                images_BCHW, targets_BC = self.mix(*shown, mixed, self.setup.classes, other)
                yield images_BCHW.contiguous(memory_format=torch.channels_last), targets_BC


class Backbone:
    """A frozen backbone, by what its classifier is trained and looked at with."""

    def __init__(self, setup: Setup, model: nn.Module) -> None:
        self.setup, self.model = setup, model
        self.classifier = classifier_of(model)
        self.digest = frozen.digest_of(model)
        self.width = 4 * int(getattr(model, "num_features", 0))  # bytes of an image's features
        self.is_random = not isinstance(setup.stage.settings.mix, NoMix) or not setup.images.is_plain
        self._plain: dict[tuple[str, str], Tensor] = {}

    def features(self, epoch: _Epoch) -> Batches:
        """An epoch's batches, with features in place of the images; those that no epoch changes are made once in all."""
        if not self.is_random:
            features_NF = self.plain("train", self.setup.train)
            return ((features_NF[epoch.first.order_N[batch]], epoch.first.targets(batch)) for batch in epoch.slices)
        settings, span = self.setup.stage.settings, self.setup.stage.span
        by_length = settings.sampler.depends_on_length or settings.mix.depends_on_length
        place = [epoch.place, span] if by_length else []
        name = frozen.name_of(self.digest, self.setup.source, frozen.before_backbone(settings), self.setup.seed, epoch.epoch, place)
        made = self._seen(epoch)
        if self.setup.features.folder is None or epoch.slices[-1].stop * self.width > frozen.MOST_BYTES:
            return made  # batch by batch
        return frozen.fed(self.setup.features, name, made, epoch.slices, self.setup.device)

    def _seen(self, epoch: _Epoch) -> Batches:
        with closing(epoch.batches()) as batches_shown:
            for images_BCHW, targets_BC in batches_shown:
                yield frozen.seen(self.model, images_BCHW, self.setup.precision), targets_BC

    def plain(self, split: str, data: Data, average: Mapping[str, Tensor] | None = None, average_id: str = "") -> Tensor:
        """The features of a split's images as they are, N x F, under the backbone of the weights or of an average."""
        if (split, average_id) not in self._plain:
            with swapped_weights(self.model, average):
                look = partial(features, self.model, data, self.setup.images, self.setup.precision, IDENTITY)
                name = frozen.plain_name(self.model, self.setup.source, self.setup.stage.settings, split, IDENTITY)
                self._plain[split, average_id] = frozen.cached(self.setup.features, name, look, self.setup.device)
        return self._plain[split, average_id]


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

    def batches(self, slices: Sequence[slice]) -> Batches:
        """The model's inputs and the targets of these batches."""
        with closing(self.setup.train.batches(slices, self.order_N)) as read:
            for batch, pixels_BCHW in zip(slices, read, strict=True):
                yield self.setup.images.train(pixels_BCHW, sliced(self.draws, batch)), self.targets(batch)

    def targets(self, batch: slice) -> Tensor:
        """The targets of a batch, B x C."""
        return self.targets_CC[self.setup.train.labels_N[self.order_N[batch]]]


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


class EpochEvaluator:
    """Looks at the watched splits after each epoch, with the weights of every average, and keeps the best."""

    def __init__(self, setup: Setup, model: nn.Module, backbone: Backbone | None) -> None:
        self.setup, self.model, self.backbone = setup, model, backbone

    def evaluate(self, state: State, epoch: int) -> dict[str, float]:
        """The epoch's numbers, each by its curve's name and the average that it is of: `val/accuracy|none`."""
        values: dict[str, float] = {}
        for tracked in self.setup.tracked:
            for split, data in self.setup.watched.items():
                if split != "validation" and split not in tracked.best_on:
                    continue
                average = state.averages.get(tracked.id)
                scores = accuracies(self._logits(split, data, tracked.id, average), data.labels_N)
                values |= {f"{WATCHED[split]}/{name}|{tracked.id}": score for name, score in scores.items()}
                if split in tracked.best_on:
                    self._keep_best(state, f"{tracked.id}|{split}", scores["accuracy"], epoch, average)
        return values

    def _logits(self, split: str, data: Data, average_id: str, average: Mapping[str, Tensor] | None) -> Tensor:
        """The logits of a split's images with the weights or an average of them."""
        images, precision = self.setup.images, self.setup.precision
        if self.backbone is None:
            with swapped_weights(self.model, average):
                return predict(self.model, data, images, precision, IDENTITY)
        features_NF = self.backbone.plain(split, data, average, average_id)
        with swapped_weights(self.model, average):
            return frozen.classified(self.backbone.classifier, features_NF, precision, images.at_once)

    def _keep_best(self, state: State, name: str, score: float, epoch: int, average: dict[str, Tensor] | None) -> None:
        best = state.best.get(name)
        if best is None or score > best.score:
            tensors = average or self.model.state_dict()
            state.best[name] = Best(score, epoch, {key: tensor.detach().clone() for key, tensor in tensors.items()})


class swapped_weights:  # noqa: N801  it reads as a context
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
    found = []
    with closing(_looked_at(data, images, view)) as looked_at:
        for inputs_BCHW in looked_at:
            with precision.autocast(inputs_BCHW.device):
                found.append(model(inputs_BCHW).float())
    return torch.cat(found)


def features(model: nn.Module, data: Data, images: Images, precision: Precision, view: View) -> Tensor:
    """What the classifier sees of every image in one view, in float32: N x F."""
    with closing(_looked_at(data, images, view)) as looked_at:
        return torch.cat([frozen.seen(model, inputs_BCHW, precision) for inputs_BCHW in looked_at])


def _looked_at(data: Data, images: Images, view: View) -> Generator[Tensor, None, None]:
    """The model's inputs for every image in one view, some at a time, in channels_last."""
    starts = range(0, len(data.labels_N), images.at_once)
    with closing(data.batches([slice(start, start + images.at_once) for start in starts])) as read:
        for pixels_BCHW in read:
            yield images.normalised(view(images.plain(pixels_BCHW))).contiguous(memory_format=torch.channels_last)


def accuracies(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy (over the classes that the split has) and mean cross-entropy of the plain view."""
    logits_NC, labels_N = logits_NC.cpu(), labels_N.cpu()
    right_N = (logits_NC.argmax(1) == labels_N).double()
    num_C = torch.bincount(labels_N, minlength=logits_NC.shape[1]).double()
    right_C = torch.zeros_like(num_C).index_add_(0, labels_N, right_N)
    loss = nn.functional.cross_entropy(logits_NC, labels_N)
    recalls = (right_C / num_C)[num_C > 0]
    return {"accuracy": float(right_N.mean()), "balanced_accuracy": float(recalls.mean()), "loss": float(loss)}
