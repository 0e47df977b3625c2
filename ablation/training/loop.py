"""Training one stage: epochs of steps, averages of the weights, evaluation after each epoch. N images, B batch, C classes, F features."""

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
from ablation.techniques.optimizer_state import group_options
from ablation.techniques.tta import IDENTITY, View
from ablation.training import frozen
from ablation.training.accelerated import AcceleratedStep, choose_step, with_room
from ablation.training.frozen import Batches, FeatureCache
from ablation.training.images import ImagePipeline, draws_of_batch, draws_on_device
from ablation.training.pixels import SplitImages
from ablation.training.settings import Stage
from ablation.training.step import PlainStep, Precision, set_lr
from ablation.training.work import TrackedAverage

ROUNDING = 1e-9  # by which means of recalls may differ that are equal
CURVE_PREFIXES = {"validation": "val", "test": "watched/test"}  # split -> the prefix of its curves' names in the store


@dataclass(frozen=True)
class Setup:
    """Everything that does not change while a stage trains."""

    stage: Stage
    seed: int
    pipeline: ImagePipeline
    train: SplitImages
    watched: Mapping[str, SplitImages]  # evaluated after each epoch: validation, and test if its best epoch is selected
    classes: Classes
    precision: Precision
    tracked: tuple[TrackedAverage, ...]
    device: torch.device
    feature_cache: FeatureCache
    data_name: str  # identifies the images in the names of cached features


@dataclass
class BestEpoch:
    """The epoch with the highest balanced accuracy so far, and its weights."""

    balanced_accuracy: float
    epoch: int
    tensors: dict[str, Tensor]


@dataclass
class State:
    """Everything that changes while a stage trains."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: dict[str, Tensor] = field(default_factory=dict)  # what the loss keeps from step to step
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    updates: dict[str, int] = field(default_factory=dict)
    best: dict[str, BestEpoch] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0  # finished epochs of this stage
    step: str = PlainStep.kind  # or "captured", "compiled" or both, or "plain: " and the reason

    def __post_init__(self) -> None:
        self.begun = group_options(self.optimizer)  # as its settings made them


def prepare_model(model: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """Freeze parameters and set the modules' modes as the stage says; return the parameters that it trains."""
    model.train(stage.backbone == "train")
    classifier = classifier_of(model)
    classifier.train()
    for parameter in model.parameters():
        parameter.requires_grad_(stage.train == "all")
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def tensors_to_average(model: nn.Module, stage: Stage) -> dict[str, Tensor]:
    """The tensors that an average follows: all of them, or those that change, which are not the weights of a frozen backbone.

    Its buffers change only in train mode; the classifier is always in that mode, and its batch norm, if it has any, with it.
    """
    if stage.train == "all":
        return dict(model.state_dict())
    in_train_mode = model if stage.backbone == "train" else classifier_of(model)
    changing = {id(tensor) for tensor in (*filter(lambda parameter: parameter.requires_grad, model.parameters()), *in_train_mode.buffers())}
    names = [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in changing]
    tensors = model.state_dict()
    return {name: tensors[name] for name in names}


def train_epochs(setup: Setup, state: State, end_epoch: int, after_epoch: Callable[[State], None]) -> None:
    """Train from the state's epoch up to `end_epoch` (of this stage), and call `after_epoch` after each epoch.

    Raises TrainingError ("nan") if an epoch's mean loss is not finite.
    """
    backbone = _frozen_backbone(setup, state.model)
    evaluator, step = EpochEvaluator(setup, state.model, backbone), _make_step(setup, state, end_epoch, backbone)
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
        values = {"train/loss": loss, "train/lr": _learning_rate(setup.stage, state.epoch - 1), "time/images_per_second": images_per_second}
        values |= with_room(step, partial(evaluator.evaluate, state, epoch))
        row = {"epoch": epoch, "rate": images_per_second, "values": values}
        state.history.append(row | {"time": int(time.time() * 1000), "seconds": time.time() - began})
        after_epoch(state)


def _make_step(setup: Setup, state: State, end_epoch: int, backbone: "FrozenBackbone | None") -> PlainStep | AcceleratedStep:
    """The training step until that epoch: of the whole model, or of the classifier on a frozen backbone's features."""
    settings, trained_module = setup.stage.settings, backbone.classifier if backbone else state.model
    plain = PlainStep(trained_module, state.optimizer, state.scaler, setup.precision, settings.loss, setup.classes.counts_C, state.loss)
    num_steps = (end_epoch - state.epoch) * (len(setup.train.labels_N) // settings.batch_size)
    return choose_step(plain, num_steps, deterministic=settings.deterministic, is_compiled=settings.compile and backbone is None)


def _frozen_backbone(setup: Setup, model: nn.Module) -> "FrozenBackbone | None":
    """The backbone, if it is frozen and the classifier is the model's last layer."""
    if not frozen.has_frozen_backbone(setup.stage):
        return None
    is_last = ends_with_classifier(model, setup.train, setup.pipeline, setup.precision)
    return FrozenBackbone(setup, model) if is_last else None


def ends_with_classifier(model: nn.Module, images: SplitImages, pipeline: ImagePipeline, precision: Precision) -> bool:
    """Whether the model's logits are its classifier's, so that they can be computed from the classifier's input; tried on two images."""
    with closing(_input_batches(images, pipeline, IDENTITY)) as input_batches, swapped_weights(model, None):
        return frozen.ends_with_classifier(model, next(input_batches)[:2], precision)


def _learning_rate(stage: Stage, epoch: int) -> float:
    settings = stage.settings
    return float(settings.schedule(stage.schedule_epoch + epoch, stage.schedule_span, settings.optimizer.lr))


def batch_slices(num_images: int, batch_size: int, *, drop_last: bool) -> list[slice]:
    """The slice of each batch of an epoch; raises DataError if there is none."""
    num_full = num_images // batch_size
    slices = [slice(i * batch_size, (i + 1) * batch_size) for i in range(num_full)]
    if not drop_last and num_images % batch_size:
        slices.append(slice(num_full * batch_size, num_images))
    if not slices:
        raise DataError(
            f"batch_size is {batch_size}, but there are {num_images} training images; expected a smaller batch_size, or drop_last: false"
        )
    return slices


def _train_epoch(setup: Setup, state: State, backbone: "FrozenBackbone | None", step: PlainStep | AcceleratedStep) -> tuple[float, int]:
    """Train one epoch and return its mean loss and number of images; the host waits for the device only at the end."""
    stage, settings, device = setup.stage, setup.stage.settings, setup.device
    epoch, schedule_epoch = stage.first_epoch + state.epoch, stage.schedule_epoch + state.epoch
    set_lr(state.optimizer, _learning_rate(stage, state.epoch))
    counts_C = setup.classes.counts_C
    probabilities_C = settings.sampler.probabilities_C(counts_C.cpu(), schedule_epoch, stage.span)
    sampled_C = (probabilities_C * len(setup.train.labels_N)).to(device, torch.float32)
    epoch_data = _EpochData(setup, epoch, schedule_epoch)
    averages = [
        (tracked.technique, tracked.id, *_averages_and_weights(state.model, stage, state.averages[tracked.id]))
        for tracked in setup.tracked
        if tracked.technique.averages
    ]
    torch.manual_seed(key(setup.seed, "model", epoch))
    total_loss = torch.zeros((), device=device)
    epoch_batches = backbone.batches(epoch_data) if backbone else epoch_data.batches()
    with closing(epoch_batches):  # also if a step fails: threads may be reading ahead
        for inputs, targets_BC in epoch_batches:
            settings.loss.advance(state.loss, targets_BC)  # before smoothing, which adds classes that no image of the batch has
            smoothed_BC = settings.smoothing(targets_BC, counts_C)
            total_loss += step(inputs, smoothed_BC, sampled_C)
            for technique, average_id, averaged, weights in averages:
                state.updates[average_id] += 1
                technique.update(averaged, weights, state.updates[average_id])
    return float(total_loss) / len(epoch_data.slices), epoch_data.slices[-1].stop


class _EpochData:
    """The data of an epoch, batch by batch: the images in their order, augmented and mixed, with their targets."""

    def __init__(self, setup: Setup, epoch: int, schedule_epoch: int) -> None:
        settings, span = setup.stage.settings, setup.stage.span
        self.setup, self.epoch, self.schedule_epoch = setup, epoch, schedule_epoch
        self.mix = settings.mix if settings.mix.is_on(schedule_epoch, span) else NoMix()
        self.first = _SampledImages(setup, settings.sampler, epoch, schedule_epoch, "")
        second = self.mix.second
        self.second = _SampledImages(setup, second, epoch, schedule_epoch, "second/") if second is not None else None
        self.slices = batch_slices(len(self.first.order_N), settings.batch_size, drop_last=settings.drop_last)

    def batches(self) -> Batches:
        """The model's inputs, in channels_last, and the targets, before smoothing."""
        draws = _mixing_draws(self.setup, self.mix, self.epoch, self.slices)
        second_context = closing(self.second.batches(self.slices)) if self.second else nullcontext([None] * len(self.slices))
        with closing(self.first.batches(self.slices)) as first, second_context as second:
            for mix_draws, batch, second_batch in zip(draws, first, second, strict=True):
                images_BCHW, targets_BC = self.mix(*batch, mix_draws, self.setup.classes, second_batch)
                yield images_BCHW.contiguous(memory_format=torch.channels_last), targets_BC


class FrozenBackbone:
    """A frozen backbone, whose features its classifier is trained and evaluated on."""

    def __init__(self, setup: Setup, model: nn.Module) -> None:
        self.setup, self.model = setup, model
        self.classifier = classifier_of(model)
        self.digest = frozen.backbone_digest(model)
        self.bytes_per_image = 4 * int(getattr(model, "num_features", 0))  # of its features
        self.has_random_inputs = not isinstance(setup.stage.settings.mix, NoMix) or not setup.pipeline.is_fixed
        self._split_features: dict[tuple[str, str], Tensor] = {}

    def batches(self, epoch: _EpochData) -> Batches:
        """An epoch's batches, with features instead of images; if these are the same in every epoch, they are computed only once."""
        if not self.has_random_inputs:
            features_NF = self.split_features("train", self.setup.train)
            return ((features_NF[epoch.first.order_N[batch]], epoch.first.targets(batch)) for batch in epoch.slices)
        settings, span = self.setup.stage.settings, self.setup.stage.span
        depends_on_length = settings.sampler.depends_on_length or settings.mix.depends_on_length
        place = [epoch.schedule_epoch, span] if depends_on_length else []
        before_backbone = frozen.settings_before_backbone(settings)
        name = frozen.cache_name(self.digest, self.setup.data_name, before_backbone, self.setup.seed, epoch.epoch, place)
        computed = self._computed_batches(epoch)
        if self.setup.feature_cache.folder is None or epoch.slices[-1].stop * self.bytes_per_image > frozen.MAX_EPOCH_BYTES:
            return computed  # batch by batch
        return frozen.cached_batches(self.setup.feature_cache, name, computed, epoch.slices, self.setup.device)

    def _computed_batches(self, epoch: _EpochData) -> Batches:
        with closing(epoch.batches()) as image_batches:
            for images_BCHW, targets_BC in image_batches:
                yield frozen.features_of_batch(self.model, images_BCHW, self.setup.precision), targets_BC

    def split_features(self, split: str, images: SplitImages, average: Mapping[str, Tensor] | None = None, average_id: str = "") -> Tensor:
        """The features of a split's images without augmentation, N x F, by the backbone of the current weights or of an average."""
        if (split, average_id) not in self._split_features:
            with swapped_weights(self.model, average):
                compute = partial(extract_features, self.model, images, self.setup.pipeline, self.setup.precision, IDENTITY)
                name = frozen.split_cache_name(self.model, self.setup.data_name, self.setup.stage.settings, split, IDENTITY)
                features_NF = frozen.cached_features(self.setup.feature_cache, name, compute, self.setup.device)
                self._split_features[split, average_id] = features_NF
        return self._split_features[split, average_id]


class _SampledImages:
    """The images that one sampler draws in an epoch, augmented, with their one-hot targets."""

    def __init__(self, setup: Setup, sampler: Any, epoch: int, schedule_epoch: int, purpose: str) -> None:
        self.setup, labels_N, num_classes = setup, setup.train.labels_N, len(setup.classes.counts_C)
        source = generator(setup.seed, f"{purpose}order", epoch)
        self.targets_CC = torch.eye(num_classes, device=setup.device)
        self.order_N = sampler(labels_N.cpu(), num_classes, schedule_epoch, setup.stage.span, source).to(setup.device)
        if len(self.order_N) != len(labels_N):  # else the arm would train for another number of updates than the plan says
            problem = f"{sampler.name} draws {len(self.order_N)} images an epoch; expected {len(labels_N)}, as many as there are"
            raise ConfigError("sampler", problem)
        self.draws = setup.pipeline.draw(setup.seed, epoch, len(self.order_N), setup.device, f"{purpose}augment")

    def batches(self, slices: Sequence[slice]) -> Batches:
        """The model's inputs and the targets of these batches."""
        with closing(self.setup.train.batches(slices, self.order_N)) as pixel_batches:
            for batch, pixels_BCHW in zip(slices, pixel_batches, strict=True):
                yield self.setup.pipeline.training_inputs(pixels_BCHW, draws_of_batch(self.draws, batch)), self.targets(batch)

    def targets(self, batch: slice) -> Tensor:
        """The targets of a batch, B x C."""
        return self.targets_CC[self.setup.train.labels_N[self.order_N[batch]]]


def _mixing_draws(setup: Setup, mix: Any, epoch: int, slices: list[slice]) -> list[dict[str, Tensor]]:
    """The random parameters of each batch's mixing; a shorter last batch is drawn separately."""
    draws = []
    sizes = [batch.stop - batch.start for batch in slices]
    for number, size in enumerate(dict.fromkeys(sizes)):
        parameters = mix.draw(generator(setup.seed, "mix", epoch, number), sizes.count(size), size)
        parameters = draws_on_device(parameters, setup.device)
        draws += [{name: values[i] for name, values in parameters.items()} for i in range(sizes.count(size))]
    return draws


def _averages_and_weights(model: nn.Module, stage: Stage, average: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    weights = tensors_to_average(model, stage)
    return [average[name] for name in weights], list(weights.values())


class EpochEvaluator:
    """Evaluates the watched splits after each epoch, with the weights of every average, and keeps the best epochs."""

    def __init__(self, setup: Setup, model: nn.Module, backbone: FrozenBackbone | None) -> None:
        self.setup, self.model, self.backbone = setup, model, backbone

    def evaluate(self, state: State, epoch: int) -> dict[str, float]:
        """The epoch's metrics, each by the name of its curve and the average it belongs to: `val/accuracy|none`."""
        values: dict[str, float] = {}
        for tracked in self.setup.tracked:
            for split, images in self.setup.watched.items():
                if split != "validation" and split not in tracked.best_on:
                    continue
                average = state.averages.get(tracked.id)
                metrics = epoch_metrics(self._logits(split, images, tracked.id, average), images.labels_N)
                values |= {f"{CURVE_PREFIXES[split]}/{name}|{tracked.id}": value for name, value in metrics.items()}
                if split in tracked.best_on:
                    self._keep_best(state, f"{tracked.id}|{split}", metrics["balanced_accuracy"], epoch, average)
        return values

    def _logits(self, split: str, images: SplitImages, average_id: str, average: Mapping[str, Tensor] | None) -> Tensor:
        """The logits of a split's images, computed with the current weights or an average of them."""
        pipeline, precision = self.setup.pipeline, self.setup.precision
        if self.backbone is None:
            with swapped_weights(self.model, average):
                return predict(self.model, images, pipeline, precision, IDENTITY)
        features_NF = self.backbone.split_features(split, images, average, average_id)
        with swapped_weights(self.model, average):
            return frozen.logits_of_features(self.backbone.classifier, features_NF, pipeline.eval_batch_size)

    def _keep_best(self, state: State, name: str, balanced_accuracy: float, epoch: int, average: dict[str, Tensor] | None) -> None:
        best = state.best.get(name)
        if best is None or balanced_accuracy > best.balanced_accuracy + ROUNDING:
            tensors = average or self.model.state_dict()
            state.best[name] = BestEpoch(balanced_accuracy, epoch, {key: tensor.detach().clone() for key, tensor in tensors.items()})


class swapped_weights:  # noqa: N801  it is used like a function
    """A context in which the model has other weights, if there are any, and is in eval mode."""

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor] | None) -> None:
        self.model, self.tensors = model, tensors

    def __enter__(self) -> None:
        self.modes = {module: module.training for module in self.model.modules()}
        self.saved = {name: tensor.clone() for name, tensor in self.model.state_dict().items()} if self.tensors is not None else None
        if self.tensors is not None:
            copy_into(self.model, self.tensors)
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        if self.saved is not None:
            copy_into(self.model, self.saved)
        for module, mode in self.modes.items():
            module.training = mode


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the model's tensors in place, so that everything that refers to them gets the new values."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(tensors[name])


@torch.no_grad()
def predict(model: nn.Module, images: SplitImages, pipeline: ImagePipeline, precision: Precision, view: View) -> Tensor:
    """The logits of every image in one view: N x C in float32, in which the classifier computes them whatever the precision."""
    logits = []
    with closing(_input_batches(images, pipeline, view)) as input_batches, frozen.in_float32(classifier_of(model)):
        for inputs_BCHW in input_batches:
            with precision.autocast(inputs_BCHW.device):
                logits.append(model(inputs_BCHW).float())
    return torch.cat(logits)


def extract_features(model: nn.Module, images: SplitImages, pipeline: ImagePipeline, precision: Precision, view: View) -> Tensor:
    """The classifier's input for every image in one view, in float32: N x F."""
    with closing(_input_batches(images, pipeline, view)) as input_batches:
        return torch.cat([frozen.features_of_batch(model, inputs_BCHW, precision) for inputs_BCHW in input_batches])


def _input_batches(images: SplitImages, pipeline: ImagePipeline, view: View) -> Generator[Tensor, None, None]:
    """The model's inputs for every image in one view, batch by batch, in channels_last."""
    starts = range(0, len(images.labels_N), pipeline.eval_batch_size)
    with closing(images.batches([slice(start, start + pipeline.eval_batch_size) for start in starts])) as pixel_batches:
        for pixels_BCHW in pixel_batches:
            yield pipeline.normalised(view(pipeline.resized(pixels_BCHW))).contiguous(memory_format=torch.channels_last)


def epoch_metrics(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy (over the classes that the split has) and mean cross-entropy."""
    logits_NC, labels_N = logits_NC.cpu(), labels_N.cpu()
    is_correct_N = (logits_NC.argmax(1) == labels_N).double()
    num_C = torch.bincount(labels_N, minlength=logits_NC.shape[1]).double()
    num_correct_C = torch.zeros_like(num_C).index_add_(0, labels_N, is_correct_N)
    loss = nn.functional.cross_entropy(logits_NC, labels_N)
    recalls = (num_correct_C / num_C)[num_C > 0]
    return {"accuracy": float(is_correct_N.mean()), "balanced_accuracy": float(recalls.mean()), "loss": float(loss)}
