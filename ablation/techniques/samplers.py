"""Which training images an epoch shows, and in which order. Shapes: N training images, C classes."""

from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from ablation.techniques.technique import Technique


class Shuffle(Technique):
    """Every training image once, in random order."""

    name: Literal["shuffle"] = "shuffle"
    balances: ClassVar[bool] = False

    def __call__(self, labels_N: Tensor, num_classes: int, epoch: int, num_epochs: int, generator: Generator) -> Tensor:
        """A permutation of the N positions."""
        return torch.randperm(len(labels_N), generator=generator)

    def probabilities_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Each class's share of the training images, in float64."""
        return counts_C.double() / counts_C.sum()


class ClassBalanced(Technique):
    """N draws with replacement, every image weighing 1 / n of its class, so that p_c = 1 / C.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020; drawn as torch's
    WeightedRandomSampler does. The epoch keeps N draws: cycling through the classes instead would lengthen it to n_max * C images,
    and the arm would train for more updates than the one it is compared with.
    """

    name: Literal["class_balanced"] = "class_balanced"
    balances: ClassVar[bool] = True

    def __call__(self, labels_N: Tensor, num_classes: int, epoch: int, num_epochs: int, generator: Generator) -> Tensor:
        """N positions, with repetitions."""
        counts_C = torch.bincount(labels_N, minlength=num_classes).double()
        return torch.multinomial((1 / counts_C)[labels_N], len(labels_N), replacement=True, generator=generator)

    def probabilities_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The same chance for each class that has images, in float64."""
        filled_C = (counts_C > 0).double()
        return filled_C / filled_C.sum()


TECHNIQUES: tuple[type[Technique], ...] = (Shuffle, ClassBalanced)
