"""The settings of an arm of image classification, the options of a stage, and a stage with its lengths resolved."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ablation.errors import ConfigError
from ablation.techniques.technique import Nested, Technique

Select = Literal["last", "best_on_validation", "best_on_test"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Restart = Literal["optimizer", "schedule", "average"]
RESTARTS: tuple[Restart, ...] = ("optimizer", "schedule", "average")


class Settings(Technique):
    """All settings of an arm; the file's `base`, a rung, a variant or a stage may set any of them."""

    data: Annotated[Any, Nested("data")]
    model: Annotated[Any, Nested("models")]
    classifier: Annotated[Any, Nested("classifiers")] = "linear"
    augment: Annotated[Any, Nested("augmentations", many=True)] = ()
    sampler: Annotated[Any, Nested("samplers")] = "shuffle"
    mix: Annotated[Any, Nested("mixing")] = "none"
    smoothing: Annotated[Any, Nested("smoothing")] = "none"
    loss: Annotated[Any, Nested("losses")] = "cross_entropy"
    optimizer: Annotated[Any, Nested("optimizers")] = "adamw"
    schedule: Annotated[Any, Nested("schedules")] = "cosine"
    average: Annotated[Any, Nested("averages")] = "none"
    select: Annotated[Select, Field(description="The epoch whose weights are tested.")] = "last"
    tta: Annotated[Any, Nested("tta")] = "none"
    posthoc: Annotated[Any, Nested("posthoc")] = "none"
    epochs: Annotated[int, Field(ge=1, description="The number of epochs, all stages together; a stage has one at least.")] = 30
    batch_size: Annotated[int, Field(ge=1, description="Images per update.")] = 128
    drop_last: Annotated[bool, Field(description="Whether an epoch leaves out a last batch that is not full.")] = True
    precision: Annotated[Precision, Field(description="The model's number format; auto is the fastest safe one of the device.")] = "auto"
    deterministic: Annotated[bool, Field(description="Whether equal runs give equal bits on CUDA too, at some cost in speed.")] = False
    compile: Annotated[
        bool, Field(description="Whether torch.compile compiles the training step; `ablate plan --compile` measures whether that pays.")
    ] = False


WATCHERS = ("average", "select", "tta", "posthoc")  # settings that do not change the training


def length(value: object) -> int | Fraction:
    """A count of epochs, or a fraction between 0 and 1 (written 2/3 or 0.5)."""
    problem = ConfigError("epochs", f"found {value!r}; expected a count of at least 1, or a fraction of the arm's epochs such as 2/3")
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise problem
    if isinstance(value, int):
        if value < 1:
            raise problem
        return value
    if isinstance(value, str) and "/" not in value:
        raise problem  # "1" could be one epoch, or all of them
    try:
        fraction = Fraction(value).limit_denominator(10_000)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise problem from None
    if not 0 < fraction <= 1:
        raise problem
    return fraction


def implied_restarts(*, is_new: bool, head: str) -> tuple[str, ...]:
    """What begins anew in a stage that does not say so: all where other weights are trained than before, or none were.

    With a new head the optimizer and the average do, which hold numbers of the one that is gone.
    """
    return RESTARTS if is_new else tuple(name for name in RESTARTS if head == "new" and name != "schedule")


class StageOptions(Technique):
    """The options of a stage, which it has besides settings."""

    epochs: Annotated[Any, Field(description="A count, or a fraction of the arm's epochs such as 2/3.")] = "all"
    train: Annotated[Literal["all", "head"], Field(description="What is trained: everything, or the classifier alone.")] = "all"
    head: Annotated[Literal["keep", "new"], Field(description="Whether the classifier is kept or initialised anew.")] = "keep"
    backbone: Annotated[
        Literal["auto", "eval", "train"],
        Field(description="Whether the backbone's batch normalisation and dropout are in eval mode; auto: if it is frozen."),
    ] = "auto"
    start: Annotated[Literal["weights", "average"], Field(description="Which weights of the stage before it starts from.")] = "weights"
    restart: Annotated[
        tuple[Restart, ...], Field(strict=False, description="What begins anew in this stage; everything does if `train` changes.")
    ] = ()

    @field_validator("epochs")
    @classmethod
    def _is_length(cls, epochs: object) -> object:
        return epochs if epochs == "all" else length(epochs)


@dataclass(frozen=True)
class Stage:
    """A part of an arm's training with one set of settings, its lengths resolved."""

    settings: Settings
    epochs: int
    first_epoch: int  # epochs of the arm before this stage
    schedule_epoch: int  # epochs from the beginning of the schedule to that of this stage
    schedule_span: int  # epochs of the whole schedule
    span: int  # epochs between the restarts around this stage, for samplers and mixings that depend on the length
    train: str = "all"
    head: str = "keep"
    backbone: str = "train"
    start: str = "weights"
    restart: tuple[str, ...] = ()
