"""How two images of a batch become one. Shapes: B batch, C classes or channels, H height, W width."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from ablation.techniques.technique import Technique

Draws = Mapping[str, Tensor]  # one batch's slices of what `draw` returned


class NoMix(Technique):
    """Images and targets as they are."""

    name: Literal["none"] = "none"

    @property
    def needs_tail(self) -> bool:
        """Whether the tail classes matter: they do not."""
        return False

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, tail_C: Tensor) -> tuple[Tensor, Tensor]:
        """The same images and targets."""
        return images_BCHW, targets_BC


class MixUp(Technique):
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

    @property
    def needs_tail(self) -> bool:
        """Whether the tail classes matter: they do not."""
        return False

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight and a permutation for each batch."""
        return {"lambda": self.weights(generator, num_batches), "partner": permutations(num_batches, batch_size, generator)}

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, tail_C: Tensor) -> tuple[Tensor, Tensor]:
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


class CutMix(Technique):
    """A box of the partner pasted into each image; the targets are mixed by the share of the area that is left.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, with the box of
    its official code: side = int(size * sqrt(1 - lambda)) about a uniform centre, clipped at the border. lambda is then computed
    anew from the clipped box; without this, boxes near a border give the partner's label more than its pixels. `only: tail` mixes
    a pair only where at least one of its two images is of a tail class, and leaves the others as they are.
    """

    name: Literal["cutmix"] = "cutmix"
    alpha: Annotated[float, Field(gt=0)] = 1.0
    only: Literal["all", "tail"] = "all"

    @property
    def needs_tail(self) -> bool:
        """Whether the tail classes matter."""
        return self.only == "tail"

    def draw(self, generator: Generator, num_batches: int, batch_size: int) -> dict[str, Tensor]:
        """A weight, a box centre as a fraction of height and width, and a permutation for each batch."""
        return {
            "lambda": beta_draws(self.alpha, num_batches, generator),
            "center": torch.rand(num_batches, 2, dtype=torch.float64, generator=generator),
            "partner": permutations(num_batches, batch_size, generator),
        }

    def __call__(self, images_BCHW: Tensor, targets_BC: Tensor, draws: Draws, tail_C: Tensor) -> tuple[Tensor, Tensor]:
        """The images with their partners' boxes, and the targets by area."""
        partner_B = partners(draws["partner"], len(images_BCHW))
        box_HW = box_mask(draws["lambda"], draws["center"], images_BCHW)
        mixed_B = self.mixed_pairs(targets_BC, partner_B, tail_C)
        pasted_BCHW = torch.where(mixed_B[:, None, None, None] & box_HW, images_BCHW[partner_B], images_BCHW)
        pasted_B1 = (mixed_B * box_HW.to(targets_BC.dtype).mean())[:, None]
        return pasted_BCHW, (1 - pasted_B1) * targets_BC + pasted_B1 * targets_BC[partner_B]

    def mixed_pairs(self, targets_BC: Tensor, partner_B: Tensor, tail_C: Tensor) -> Tensor:
        """Which images take part, as bool B."""
        if self.only == "all":
            return torch.ones_like(partner_B, dtype=torch.bool)
        is_tail_B = tail_C[targets_BC.argmax(1)]
        return is_tail_B | is_tail_B[partner_B]


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
        places = torch.arange(side, device=images_BCHW.device)
        inside.append((places >= middle - half) & (places < middle + half))
    rows_H, columns_W = inside
    return rows_H[:, None] & columns_W


TECHNIQUES: tuple[type[Technique], ...] = (NoMix, MixUp, CutMix)
