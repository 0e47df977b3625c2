"""What happens to scores after training. Shapes: B batch, C classes."""

from typing import Literal

from torch import Tensor

from ablation.techniques.technique import Technique


class NoPosthoc(Technique):
    """Scores as they are."""

    name: Literal["none"] = "none"

    def __call__(self, scores_BC: Tensor, counts_C: Tensor) -> Tensor:
        """The same scores."""
        return scores_BC


TECHNIQUES: tuple[type[Technique], ...] = (NoPosthoc,)
