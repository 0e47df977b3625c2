"""How the learning rate goes over the epochs. Epochs count from 0 at the schedule's beginning; its span is its length in epochs."""

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from ablation.techniques.technique import Technique


def checked_span(value: object) -> object:
    """The same value, which must be `stage` or a count of epochs."""
    if value == "stage" or (type(value) is int and value >= 1):
        return value
    raise ValueError("'stage' or a whole number of epochs above 0")


def checked_milestone(value: object) -> object:
    """The same value, which must be a count of epochs or a fraction of the span."""
    if type(value) is int and value >= 0:
        return value
    try:
        is_fraction = isinstance(value, float | str) and 0 <= exact_fraction(value) <= 1
    except (ValueError, ZeroDivisionError):
        is_fraction = False
    if not is_fraction:
        raise ValueError("a count of epochs such as 160, or a fraction of the span such as 0.8 or '4/5'")
    return value


def exact_fraction(fraction: float | str) -> Fraction:
    """The fraction as it is written: 0.8 is 4/5, and not the float beside it, which times 200 is more than 160."""
    return Fraction(str(fraction))


def checked_milestones(milestones: tuple[int | float | str, ...]) -> tuple[int | float | str, ...]:
    """The same milestones, none of which may be 0: no epoch comes before the first."""
    if any(exact_fraction(milestone) == 0 for milestone in milestones):
        raise ValueError("milestones above 0: one at 0 lowers the rate of every epoch, which is another lr of the optimizer")
    return milestones


Epochs = Annotated[int, Field(ge=0)]
Span = Annotated[Any, PlainValidator(checked_span, json_schema_input_type=Literal["stage"] | Annotated[int, Field(ge=1)])]
Milestone = Annotated[Any, PlainValidator(checked_milestone, json_schema_input_type=int | float | str)]


def warm_up_lr(epoch: int, num_epochs: int, lr: float) -> float:
    """The rate within a warm-up: the first epoch has lr / num_epochs, and the last one lr."""
    return lr * (epoch + 1) / num_epochs


class Constant(Technique):
    """lr, throughout."""

    name: Literal["constant"] = "constant"
    warmup_epochs: Epochs = 0
    epochs: Span = "stage"

    def __call__(self, epoch: int, span: int, lr: float) -> float:
        """The epoch's learning rate."""
        return warm_up_lr(epoch, self.warmup_epochs, lr) if epoch < self.warmup_epochs else lr


class Cosine(Technique):
    """final_lr + (lr - final_lr) * (1 + cos(pi * epoch / span)) / 2.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts. A warm-up takes the
    place of the curve's first epochs; it does not shift the rest.
    """

    name: Literal["cosine"] = "cosine"
    final_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup_epochs: Epochs = 0
    epochs: Span = "stage"

    def __call__(self, epoch: int, span: int, lr: float) -> float:
        """The epoch's learning rate."""
        if epoch < self.warmup_epochs:
            return warm_up_lr(epoch, self.warmup_epochs, lr)
        return self.final_lr + (lr - self.final_lr) * (1 + math.cos(math.pi * min(epoch, span) / span)) / 2


class Exponential(Technique):
    """lr * gamma ** epoch; a warm-up takes the place of the curve's first epochs."""

    name: Literal["exponential"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.95
    warmup_epochs: Epochs = 0
    epochs: Span = "stage"

    def __call__(self, epoch: int, span: int, lr: float) -> float:
        """The epoch's learning rate."""
        if epoch < self.warmup_epochs:
            return warm_up_lr(epoch, self.warmup_epochs, lr)
        return float(lr * self.gamma ** min(epoch, span))

    @property
    def why_neutral(self) -> str:
        """Where the rate stays."""
        return "gamma 1 never lowers the rate; expected less, or schedule: constant" if self.gamma == 1 else ""


class MultiStep(Technique):
    """lr * gamma ** (milestones that are reached): a milestone m acts from the epoch m on, counted from 0, as in torch.

    Milestones are counts of epochs or fractions of the span, so that a shorter profile keeps the shape. timm's own schedule drops
    one epoch earlier.
    """

    name: Literal["multi_step"] = "multi_step"
    milestones: Annotated[tuple[Milestone, ...], Field(strict=False), AfterValidator(checked_milestones)] = ("4/5", "9/10")
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: Epochs = 0
    epochs: Span = "stage"

    def __call__(self, epoch: int, span: int, lr: float) -> float:
        """The epoch's learning rate."""
        if epoch < self.warmup_epochs:
            return warm_up_lr(epoch, self.warmup_epochs, lr)
        starts = [m if isinstance(m, int) else exact_fraction(m) * span for m in self.milestones]
        return float(lr * self.gamma ** sum(start <= min(epoch, span) for start in starts))

    @property
    def why_neutral(self) -> str:
        """Where the rate stays."""
        why = "gamma 1 or no milestones never lower the rate; expected both, or schedule: constant"
        return why if self.gamma == 1 or not self.milestones else ""


TECHNIQUES: tuple[type[Technique], ...] = (Cosine, Exponential, MultiStep, Constant)
