"""How the weights that are tested follow the weights that are trained."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ablation.techniques.technique import Technique


class NoAverage(Technique):
    """The trained weights themselves."""

    name: Literal["none"] = "none"

    @property
    def averages(self) -> bool:
        """Whether an average has to be kept: it has not."""
        return False

    def decay_at(self, update: int) -> float:
        """What an update keeps of the weights before it: nothing."""
        return 0.0

    def remaining(self, num_updates: int) -> float:
        """The initial weights' share after that many updates: none."""
        return 0.0

    def update(self, averaged: list[Tensor], weights: list[Tensor], update: int) -> None:
        """Makes `averaged` equal to `weights`."""
        update_average(averaged, weights, self.decay_at(update))


class Ema(Technique):
    """averaged = decay * averaged + (1 - decay) * weights after each update; the buffers of batch normalisation follow alike.

    Without warm-up the initial weights keep decay ** updates of the average: 0.9999 leaves 53 % of them after 6,420 updates, and
    what is tested is then mostly the untrained network. `warmup` takes min(decay, 1 - update ** (-2/3)) for the update counted
    from 1, as timm's ModelEmaV3 does, and so begins with the weights of the first update. In a stage that trains the head alone
    beside a backbone in eval mode only the head's tensors are averaged: an average that goes on from an earlier stage keeps the
    backbone's as they were.
    """

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    warmup: bool = False

    @property
    def averages(self) -> bool:
        """Whether an average has to be kept: it has."""
        return True

    def decay_at(self, update: int) -> float:
        """What the update of that number, the first being 1, keeps of the average."""
        return min(self.decay, 1 - float(update) ** (-2 / 3)) if self.warmup else self.decay

    def remaining(self, num_updates: int) -> float:
        """The initial weights' share of the average after that many updates, the product of the decays."""
        if self.warmup and num_updates > 0:
            return 0.0  # the first update keeps nothing
        return self.decay**num_updates

    def update(self, averaged: list[Tensor], weights: list[Tensor], update: int) -> None:
        """Moves `averaged` in place towards `weights`."""
        update_average(averaged, weights, self.decay_at(update))

    @property
    def why_neutral(self) -> str:
        """Where nothing is averaged."""
        return "decay 0 keeps the last weights alone; expected more, such as 0.99, or average: none" if self.decay == 0 else ""


@torch.no_grad()
def update_average(averaged: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """Move floating tensors towards `weights` by 1 - decay, and copy the others: they are counters and have no mean."""
    pairs = list(zip(averaged, weights, strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    if floating:
        torch._foreach_lerp_([mean for mean, _ in floating], [weight for _, weight in floating], 1 - decay)
    counting = [pair for pair in pairs if not pair[0].is_floating_point()]
    if counting:
        torch._foreach_copy_([mean for mean, _ in counting], [weight for _, weight in counting])


TECHNIQUES: tuple[type[Technique], ...] = (NoAverage, Ema)
