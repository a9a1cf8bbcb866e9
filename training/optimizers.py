"""Optimisers: how a player moves along its gradient.

A method builds a torch optimiser from one player's options; a new one is one more entry. Optimism
is a wrapper that works on any of them. Knows no game.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer, RMSprop

from training.errors import require, require_number

_LR = "set --optim-G.lr, --optim-D.lr"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How one player moves."""

    method: str = "adam"
    """Entry of training/optimizers.py, see --list."""
    lr: float = 2e-4
    """Learning rate per step."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay per step of the gradient's first and second moment, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        """Refuses what can't be stepped with."""
        require(self.method in METHODS, "method", self.method, ", ".join(METHODS), "see --list")
        require_number("lr", self.lr, above=0)
        require_number("eps", self.eps, above=0)
        in_range = all(0 <= beta < 1 for beta in self.betas)
        require(in_range, "betas", self.betas, "two numbers in [0, 1)", "for instance 0.5 0.999")
        if self.method == "sgd":
            remedy = "sgd has no second moment: set its beta to 0"
            require(self.betas[1] == 0, "betas", self.betas, "M 0, M the momentum", remedy)


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of METHODS."""

    build: Callable[[list[Tensor], OptimizerConfig], Optimizer]
    """(parameters, options) to an optimiser."""
    paper: str
    """Where it is from."""
    optimistic: bool = False
    """True for the optimistic form of what `build` gives."""


def _adam(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    return Adam(parameters, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def _rmsprop(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    momentum, alpha = config.betas
    return RMSprop(parameters, lr=config.lr, alpha=alpha, momentum=momentum, eps=config.eps)


def _sgd(parameters: list[Tensor], config: OptimizerConfig) -> Optimizer:
    return SGD(parameters, lr=config.lr, momentum=config.betas[0], fused=True)


METHODS: dict[str, Method] = {
    "adam": Method(build=_adam, paper="Kingma and Ba 2015, arXiv:1412.6980"),
    "optimistic-adam": Method(
        build=_adam,
        optimistic=True,
        paper="Daskalakis et al. 2018, arXiv:1711.00141, alg. 1",
    ),
    "rmsprop": Method(
        build=_rmsprop, paper="Tieleman and Hinton 2012, lecture 6.5; betas are momentum and alpha"
    ),
    "sgd": Method(build=_sgd, paper="Robbins and Monro 1951; betas are momentum and 0"),
}


def build(parameters: Sequence[Tensor], config: OptimizerConfig) -> Optimizer:
    """The optimiser of one player."""
    return METHODS[config.method].build(list(parameters), config)


def set_rates(optimizer: Optimizer, lr: float, betas: tuple[float, float]) -> None:
    """Gives every group new rates; those that the method doesn't have are left out."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = betas
        elif "alpha" in group:
            group["momentum"], group["alpha"] = betas
        else:
            group["momentum"] = betas[0]


class Optimism:
    """Turns w + d_t into w + 2 d_t - d_(t-1), d_t an optimiser's step (Daskalakis et al. 2018).

    The last step is state: it is saved with the optimiser.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        """parameters: those that the optimiser moves."""
        self._parameters = parameters
        self.last = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, optimizer: Optimizer, tripped: Tensor) -> None:
        """One optimistic step; none at all where `tripped` (a scalar) is 1."""
        moving = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters = [self._parameters[i] for i in moving]
        last = [self.last[i] for i in moving]
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer.step()
        extra = torch._foreach_sub(torch._foreach_sub(parameters, before), last)
        torch._foreach_mul_(extra, 1 - tripped)
        torch._foreach_add_(parameters, extra)
        torch._foreach_add_(last, extra)
