"""What turns gradients into updates. Weight decay acts on all parameters, biases and normalisation included, as in torch."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch.nn import Parameter
from torch.optim import Optimizer

from ablation.errors import ConfigError
from ablation.techniques.technique import Technique

Rate = Annotated[float, Field(ge=0)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Momentum, Momentum], Field(strict=False)]


class AdamW(Technique):
    """Adam with decoupled weight decay: w -= lr * (m / (sqrt(v) + eps) + weight_decay * w).

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    name: Literal["adamw"] = "adamw"
    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: Rate = 0.01

    def __call__(self, parameters: list[Parameter]) -> Optimizer:
        """torch's optimizer over these parameters."""
        return torch.optim.AdamW(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=has_fused(parameters)
        )


class Adam(Technique):
    """Adam; its weight decay is added to the gradient, and so scaled by the second moment, unlike AdamW's.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    name: Literal["adam"] = "adam"
    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: Rate = 0.0

    def __call__(self, parameters: list[Parameter]) -> Optimizer:
        """torch's optimizer over these parameters."""
        return torch.optim.Adam(
            parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=has_fused(parameters)
        )


class SGD(Technique):
    """Stochastic gradient descent with momentum: v = momentum * v + g + weight_decay * w; w -= lr * v."""

    name: Literal["sgd"] = "sgd"
    lr: Rate = 0.1
    momentum: Momentum = 0.9
    nesterov: bool = False
    weight_decay: Rate = 0.0

    @model_validator(mode="after")
    def nesterov_has_momentum(self) -> "SGD":
        """The same settings, which must have a momentum where Nesterov's is asked for."""
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov", "found true with momentum 0; expected a momentum above 0")
        return self

    def __call__(self, parameters: list[Parameter]) -> Optimizer:
        """torch's optimizer over these parameters."""
        optimizer = torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=has_fused(parameters),
        )
        if self.momentum:  # torch's fused step leaves them without a value where the first gradients of fp16 overflow
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return optimizer


def has_fused(parameters: list[Parameter]) -> bool:
    """Whether torch can update all of these in one kernel."""
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


TECHNIQUES: tuple[type[Technique], ...] = (AdamW, Adam, SGD)
