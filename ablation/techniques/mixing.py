"""How two images become one. Shapes: B batch, C classes or channels, H height, W width."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from ablation.errors import ConfigError
from ablation.techniques.samplers import Power, Sampler
from ablation.techniques.schedules import Milestone, exact_fraction
from ablation.techniques.technique import Nested, Technique

Draws = Mapping[str, Tensor]  # one batch's slices of what `draw` returned
Batch = tuple[Tensor, Tensor]  # images_BCHW and targets_BC


class Classes(NamedTuple):
    """What a mixing may ask about the classes."""

    counts_C: Tensor  # training images, as floats
    tail_C: Tensor  # which are the tail, as bools


class Mixing(Technique):
    """What every mixing answers."""

    @property
    def needs_tail(self) -> bool:
        """Whether it matters which classes are the tail."""
        return False

    @property
    def second(self) -> Sampler | None:
        """What draws the second batch that it mixes in; None where it needs no other batch than its own."""
        return None

    @property
    def depends_on_length(self) -> bool:
        """Whether an epoch's mixing depends on how many epochs there are."""
        return False

    def is_on(self, epoch: int, num_epochs: int) -> bool:
        """Whether it mixes in this epoch."""
        return True

    @abstractmethod
    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """What is random, with a row for each batch."""

    @abstractmethod
    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The mixed images and targets."""


class NoMix(Mixing):
    """Images and targets as they are."""

    name: Literal["none"] = "none"

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The same images and targets."""
        return images_BCHW, targets_BC


class MixUp(Mixing):
    """x = m * x1 + (1 - m) * x2, and the targets likewise, with m ~ Beta(alpha, alpha) once per batch, or m = `lambda`.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. A fixed `lambda` replaces the distribution, so `alpha` is
    then null. Partners come from a random permutation of the batch: pairing by a shift or a reversal, as some libraries do, mixes
    within a class when batches are sorted by class.
    """

    name: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(gt=0)] | None = 1.0
    fixed_lambda: Annotated[float, Field(ge=0, le=1)] | None = Field(None, alias="lambda")

    @model_validator(mode="before")
    @classmethod
    def fixed_or_drawn(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields without alpha where lambda is fixed."""
        is_fixed = fields.get("lambda", fields.get("fixed_lambda")) is not None
        if not is_fixed and fields.get("alpha", 1.0) is None:
            raise ValueError("a number for alpha, or for lambda to fix it")
        return {**fields, "alpha": None} if is_fixed else fields

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight and a permutation for each batch."""
        return {"lambda": self.weights(generator, num_batches), "partner": permutations(num_batches, batch_size, generator)}

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The mixed images and targets."""
        partner_B = partners(draws["partner"], len(images_BCHW))
        weight = draws["lambda"]
        images_BCHW = weight * images_BCHW + (1 - weight) * images_BCHW[partner_B]
        return images_BCHW, weight * targets_BC + (1 - weight) * targets_BC[partner_B]

    def weights(self, generator: Generator, num_batches: int) -> Tensor:
        """The first image's weight in each batch."""
        if self.fixed_lambda is not None:
            return torch.full((num_batches,), self.fixed_lambda, dtype=torch.float64)
        assert self.alpha is not None
        return beta_draws(self.alpha, num_batches, generator)

    @property
    def why_neutral(self) -> str:
        """Where it mixes nothing."""
        return "lambda 0 or 1 leaves every image whole; expected a lambda between them, or mix: none" if self.fixed_lambda in (0, 1) else ""


class Remix(Mixing):
    """MixUp whose targets lean towards the rarer class: x = m * x1 + (1 - m) * x2, y = l * y1 + (1 - l) * y2.

    Chou et al., "Remix: Rebalanced Mixup", ECCV 2020 workshops. With n1 and n2 the training images of the two classes, l = 0 where
    n1 / n2 >= kappa and m < tau, l = 1 where n1 / n2 <= 1 / kappa and 1 - m < tau, else l = m. m ~ Beta(alpha, alpha) once per batch,
    but l is of each pair: weighing two losses that were averaged over the batch before, as some code does, leaves only the mean l.
    """

    name: Literal["remix"] = "remix"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    kappa: Annotated[float, Field(ge=1)] = 3.0
    tau: Annotated[float, Field(ge=0, le=1)] = 0.5

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight and a permutation for each batch."""
        return {
            "lambda": beta_draws(self.alpha, num_batches, generator),
            "partner": permutations(num_batches, batch_size, generator),
        }

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The mixed images, and the targets by the weights of each pair."""
        partner_B = partners(draws["partner"], len(images_BCHW))
        weight, counts_B = draws["lambda"], classes.counts_C[targets_BC.argmax(1)]
        weight_B1 = self.label_weights(weight, counts_B, counts_B[partner_B]).to(targets_BC.dtype)[:, None]
        images_BCHW = weight * images_BCHW + (1 - weight) * images_BCHW[partner_B]
        return images_BCHW, weight_B1 * targets_BC + (1 - weight_B1) * targets_BC[partner_B]

    def label_weights(self, weight: Tensor, counts_B: Tensor, partner_counts_B: Tensor) -> Tensor:
        """The first target's weight in each pair."""
        is_common_B = (counts_B >= self.kappa * partner_counts_B) & (weight < self.tau)
        is_rare_B = (self.kappa * counts_B <= partner_counts_B) & (1 - weight < self.tau)
        return torch.where(is_common_B, torch.zeros_like(weight), torch.where(is_rare_B, torch.ones_like(weight), weight))


class CutMix(MixUp):
    """A box of the partner pasted into each image; the targets are mixed by the share of the area that is left.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, with the box of
    its official code: side = int(size * sqrt(1 - lambda)) about a uniform centre, clipped at the border. lambda is then computed
    anew from the clipped box; without this, boxes near a border give the partner's label more than its pixels. A fixed `lambda`
    replaces the distribution, as in MixUp. `only: tail` mixes a pair only where at least one of its two images is of a tail class
    (few by the study's `groups` and the arm's own training images), and leaves the others as they are.
    """

    name: Literal["cutmix"] = "cutmix"  # type: ignore[assignment]
    only: Literal["all", "tail"] = "all"

    @property
    def needs_tail(self) -> bool:
        """Whether the tail classes matter."""
        return self.only == "tail"

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight, a box centre as a fraction of height and width, and a permutation for each batch."""
        return {
            "lambda": self.weights(generator, num_batches),
            "center": torch.rand(num_batches, 2, dtype=torch.float64, generator=generator),
            "partner": permutations(num_batches, batch_size, generator),
        }

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The images with their partners' boxes, and the targets by area."""
        partner_B = partners(draws["partner"], len(images_BCHW))
        box_HW = box_mask(draws["lambda"], draws["center"], images_BCHW)
        mixed_B = self.mixed_pairs(targets_BC, partner_B, classes.tail_C)
        return paste_box((images_BCHW, targets_BC), (images_BCHW[partner_B], targets_BC[partner_B]), box_HW, mixed_B)

    def mixed_pairs(self, targets_BC: Tensor, partner_B: Tensor, tail_C: Tensor) -> Tensor:
        """Which images take part, as bool B."""
        if self.only == "all":
            return torch.ones_like(partner_B, dtype=torch.bool)
        is_tail_B = tail_C[targets_BC.argmax(1)]
        return is_tail_B | is_tail_B[partner_B]

    @property
    def why_neutral(self) -> str:
        """Where it mixes nothing; a box of the whole size is clipped at the border, so that lambda 0 mixes."""
        return "lambda 1 leaves every image whole; expected a smaller lambda, or mix: none" if self.fixed_lambda == 1 else ""


class CMO(Mixing):
    """A box of an image of a rarer class pasted into each image; the targets are mixed by area.

    Park et al., "The Majority Can Help the Minority: Context-Rich Minority Oversampling for Long-Tailed Classification", CVPR 2022.
    The batch is the background. The foregrounds are a batch of their own, in which an image weighs 1 / n ** alpha of its class:
    pairing within the batch, as CutMix does, would paste common classes into common ones. The box is CutMix's with Beta(1, 1), and a
    batch is mixed with `probability`. Of the epochs between two restarts of the schedule the first and the last ones mix nothing:
    `off_first` and `off_last` are counts or fractions of them. The defaults are those of the official code, whose
    `start_data_aug: 3` leaves out four epochs.
    """

    name: Literal["cmo"] = "cmo"
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    off_first: Milestone = 4
    off_last: Milestone = 3

    @property
    def second(self) -> Sampler:
        """What draws the foregrounds."""
        return Power(power=1 - self.alpha)

    @property
    def depends_on_length(self) -> bool:
        """Whether an epoch's mixing depends on how many epochs there are: the last ones mix nothing."""
        return True

    def is_on(self, epoch: int, num_epochs: int) -> bool:
        """Whether the epoch is neither of the first ones nor of the last ones."""
        first, last = (off if isinstance(off, int) else exact_fraction(off) * num_epochs for off in (self.off_first, self.off_last))
        return bool(first <= epoch <= num_epochs - 1 - last)

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight, a box centre as a fraction of height and width, and whether to mix, for each batch."""
        return {
            "lambda": beta_draws(1.0, num_batches, generator),
            "center": torch.rand(num_batches, 2, dtype=torch.float64, generator=generator),
            "mixed": torch.rand(num_batches, dtype=torch.float64, generator=generator) < self.probability,
        }

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The images with the boxes of the second batch, and the targets by area."""
        assert second is not None, "the second batch"
        box_HW = box_mask(draws["lambda"], draws["center"], images_BCHW)
        return paste_box((images_BCHW, targets_BC), second, box_HW, draws["mixed"].expand(len(images_BCHW)))

    @property
    def why_neutral(self) -> str:
        """Where it mixes nothing."""
        return "probability 0 mixes nothing; expected more, or mix: none" if self.probability == 0 else ""


class Switch(Mixing):
    """One of two mixings for each batch: `other` with its probability, else `one`.

    As timm switches between MixUp and CutMix. An epoch in which either is off mixes nothing, and only one may draw images of its own.
    """

    name: Literal["switch"] = "switch"
    one: Annotated[Any, Nested("mixing", without="switch")] = "mixup"
    other: Annotated[Any, Nested("mixing", without="switch")] = "cutmix"
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def one_second_batch(self) -> "Switch":
        """The same settings, of which at most one mixing draws images of its own."""
        if self.one.second is not None and self.other.second is not None:
            raise ConfigError(
                "other", f"found {self.other.name!r} beside {self.one.name!r}; expected at most one that draws a second batch"
            )
        return self

    @property
    def needs_tail(self) -> bool:
        """Whether it matters to either which classes are the tail."""
        return bool(self.one.needs_tail or self.other.needs_tail)

    @property
    def second(self) -> Sampler | None:
        """What draws the second batch of the one that needs it."""
        sampler: Sampler | None = self.one.second or self.other.second
        return sampler

    @property
    def depends_on_length(self) -> bool:
        """Whether an epoch's mixing depends on how many epochs there are."""
        return bool(self.one.depends_on_length or self.other.depends_on_length)

    def is_on(self, epoch: int, num_epochs: int) -> bool:
        """Whether both mix in this epoch."""
        return bool(self.one.is_on(epoch, num_epochs) and self.other.is_on(epoch, num_epochs))

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """Which of the two is taken, and what is random in both, for each batch."""
        drawn = {"other": torch.rand(num_batches, dtype=torch.float64, generator=generator) < self.probability}
        for field in ("one", "other"):
            tables = getattr(self, field).draw(generator, num_batches, batch_size)
            drawn |= {f"{field}.{name}": table for name, table in tables.items()}
        return drawn

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, classes: Classes, second: Batch | None = None) -> Batch:
        """The images and targets as the one that is taken mixes them."""
        # Both are computed, as looking at the draw would make the device wait for the host.
        mixed: list[Batch] = []
        for field in ("one", "other"):
            member_draws = {name.removeprefix(f"{field}."): row for name, row in draws.items() if name.startswith(f"{field}.")}
            mixing = getattr(self, field)
            mixed.append(mixing(images_BCHW, targets_BC, member_draws, classes, second if mixing.second is not None else None))
        (one_BCHW, one_BC), (other_BCHW, other_BC) = mixed
        return torch.where(draws["other"], other_BCHW, one_BCHW), torch.where(draws["other"], other_BC, one_BC)

    @property
    def why_neutral(self) -> str:
        """Where one of its mixings is always taken."""
        why = "one of its two mixings is always taken; expected two that differ and a probability between 0 and 1, or that mixing alone"
        return why if self.probability in (0, 1) or self.one == self.other else ""


def paste_box(background: Batch, foreground: Batch, box_HW: Tensor, mixed_B: Tensor) -> Batch:
    """The background with the foreground's box where `mixed_B`, and the targets by the share of the area that is left."""
    (images_BCHW, targets_BC), (pasted_BCHW, pasted_BC) = background, foreground
    share_B1 = (mixed_B * box_HW.to(targets_BC.dtype).mean())[:, None]
    images_BCHW = torch.where(mixed_B[:, None, None, None] & box_HW, pasted_BCHW, images_BCHW)
    return images_BCHW, (1 - share_B1) * targets_BC + share_B1 * pasted_BC


def beta_draws(alpha: float, num_draws: int, generator: Generator) -> Tensor:
    """Draws of Beta(alpha, alpha) in float64, from two gamma variables a and b as a / (a + b)."""
    # By logarithms, and with Gamma(alpha) = Gamma(alpha + 1) * U ** (1 / alpha): for a small alpha both variables underflow to 0.
    gammas = torch._standard_gamma(torch.full((num_draws, 2), alpha + 1, dtype=torch.float64), generator=generator)
    uniforms = torch.rand(num_draws, 2, dtype=torch.float64, generator=generator)
    logs = gammas.log() + uniforms.log() / alpha
    return torch.sigmoid(logs[:, 0] - logs[:, 1])


def permutations(num_batches: int, batch_size: int, generator: Generator) -> Tensor:
    """A random permutation of the batch's positions for each batch."""
    return torch.rand(num_batches, batch_size, dtype=torch.float64, generator=generator).argsort(dim=1)


def partners(partner_B: Tensor, num_images: int) -> Tensor:
    """The permutation for a batch of that many images, which may be a short last one."""
    # The ranks of some of a permutation's entries are a permutation, as random as the whole.
    return partner_B if num_images == len(partner_B) else partner_B[:num_images].argsort()


def box_mask(weight: Tensor, center_2: Tensor, images_BCHW: Tensor) -> Tensor:
    """Which pixels lie in the box, as bool HW."""
    inside: list[Tensor] = []
    for side, center in zip(images_BCHW.shape[-2:], center_2, strict=True):
        half = (side * (1 - weight).sqrt()).long() // 2
        middle = (side * center).long()
        positions = torch.arange(side, device=images_BCHW.device)
        inside.append((positions >= middle - half) & (positions < middle + half))
    rows_H, columns_W = inside
    return rows_H[:, None] & columns_W


TECHNIQUES: tuple[type[Technique], ...] = (NoMix, MixUp, CutMix, Remix, CMO, Switch)
