"""Which training images an epoch shows, and in which order. Shapes: N training images, C classes."""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ablation.techniques.technique import Technique


class Sampler(Technique):
    """What every sampler answers."""

    depends_on_length: ClassVar[bool] = False  # whether an epoch's draws depend on how many epochs there are

    @property
    def balances(self) -> bool:
        """Whether the classes' shares become flatter than the data's."""
        return True

    @abstractmethod
    def __call__(self, labels_N: Tensor, num_classes: int, epoch: int, num_epochs: int, generator: Generator) -> Tensor:
        """The positions of the epoch's images, in order."""

    @abstractmethod
    def probabilities_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The chance of each class, in float64; 0 where it has no images."""


class Shuffle(Sampler):
    """Every training image once, in random order."""

    name: Literal["shuffle"] = "shuffle"

    @property
    def balances(self) -> bool:
        """Whether the classes' shares become flatter than the data's: they do not."""
        return False

    def __call__(self, labels_N: Tensor, num_classes: int, epoch: int, num_epochs: int, generator: Generator) -> Tensor:
        """A permutation of the N positions."""
        return torch.randperm(len(labels_N), generator=generator)

    def probabilities_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Each class's share of the training images, in float64."""
        return counts_C.double() / counts_C.sum()


class Weighted(Sampler):
    """N draws with replacement, every image weighing its class's share over the class's count.

    Drawn as torch's WeightedRandomSampler does. The epoch keeps N draws: cycling through the classes instead would lengthen it to
    n_max * C images, and the arm would train for more updates than the one it is compared with.
    """

    def __call__(self, labels_N: Tensor, num_classes: int, epoch: int, num_epochs: int, generator: Generator) -> Tensor:
        """N positions, with repetitions."""
        counts_C = torch.bincount(labels_N, minlength=num_classes).double()
        weights_C = self.shares_C(counts_C, epoch, num_epochs) / counts_C.clamp(min=1)
        return torch.multinomial(weights_C[labels_N], len(labels_N), replacement=True, generator=generator)

    def probabilities_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The chance of each class, in float64; 0 where it has no images."""
        shares_C = self.shares_C(counts_C.double(), epoch, num_epochs)
        return shares_C / shares_C.sum()

    @abstractmethod
    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """What the chance of each class is proportional to, in float64; 0 where it has no images."""


class ClassBalanced(Weighted):
    """p_c = 1 / C: every image weighs 1 / n of its class.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.
    """

    name: Literal["class_balanced"] = "class_balanced"

    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The same for each class that has images."""
        return has_images(counts_C)


class SquareRoot(Weighted):
    """p_c proportional to n_c ** 0.5: every image weighs 1 / sqrt(n) of its class.

    Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining", ECCV 2018, as in Kang et al., ICLR 2020. It is the
    class's share that has the root; a weight of sqrt(n) for each image would make the common classes more common.
    """

    name: Literal["square_root"] = "square_root"

    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The root of each count."""
        return counts_C.sqrt()


class Power(Weighted):
    """p_c proportional to n_c ** power: 1 keeps the data's shares, 0 balances the classes.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, with their exponent q.
    """

    name: Literal["power"] = "power"
    power: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def balances(self) -> bool:
        """Whether the classes' shares become flatter than the data's."""
        return self.power < 1

    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The power of each count."""
        return counts_C**self.power * has_images(counts_C)  # as 0 ** 0 is 1


class Progressive(Weighted):
    """p_c(t) = (1 - t / (T - 1)) * n_c / N + t / (T - 1) / C: from the data's shares to equal ones over T epochs.

    Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020. t counts from 0, as in their
    code, so that the first epoch is the data's and the last one balanced; t / T, as elsewhere, does not reach both. A single epoch
    is the first. T counts the epochs between two restarts of the schedule, also where a stage has a part of them.
    """

    name: Literal["progressive"] = "progressive"
    depends_on_length: ClassVar[bool] = True

    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """The mixture of the data's shares and equal ones."""
        progress = epoch / (num_epochs - 1) if num_epochs > 1 else 0.0
        equal_C = has_images(counts_C) / has_images(counts_C).sum()
        return (1 - progress) * counts_C / counts_C.sum() + progress * equal_C


class EffectiveNumber(Weighted):
    """p_c proportional to n_c / E_c with E_c = (1 - beta ** n_c) / (1 - beta): every image weighs 1 / E of its class.

    The re-sampling of Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, with the
    effective number of Cui et al., CVPR 2019. beta = 0 keeps the data's shares, beta -> 1 balances the classes. Computed by expm1
    in float64: with beta near 1, 1 - beta ** n loses its digits.
    """

    name: Literal["effective_number"] = "effective_number"
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9999

    @property
    def balances(self) -> bool:
        """Whether the classes' shares become flatter than the data's."""
        return self.beta > 0

    def shares_C(self, counts_C: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Each count over its effective number."""
        log_beta = math.log(self.beta) if self.beta else -math.inf
        return counts_C / -torch.expm1(counts_C.clamp(min=1) * log_beta)


def has_images(counts_C: Tensor) -> Tensor:
    """1.0 for each class that has images, 0.0 for the others, in float64."""
    return (counts_C > 0).double()


TECHNIQUES: tuple[type[Technique], ...] = (Shuffle, ClassBalanced, SquareRoot, Progressive, EffectiveNumber, Power)
